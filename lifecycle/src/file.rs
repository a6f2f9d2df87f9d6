//! Reading and writing documents, with errors that name the file.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use coracle_cnb::DocumentError;
use nix::fcntl::OFlag;

/// The largest document that is read: what foreign programs write must not fill the memory.
pub(crate) const MAX_DOCUMENT: u64 = 16 * 1024 * 1024;

/// The most entries of a folder that are listed.
pub(crate) const MAX_ENTRIES: usize = 1_000_000;

/// Why a file or a folder could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file could not be read.
    #[error("read file: `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It is a link where a foreign program may have put one.
    #[error("`{path}` is a link, and none is followed there: put the file itself there")]
    Link { path: PathBuf },
    /// It is no file: a FIFO, say, which would be waited for.
    #[error("read file: `{path}` is not a regular file")]
    Unfit { path: PathBuf },
    /// The file is larger than any document should be.
    #[error("read file: `{path}` is larger than {MAX_DOCUMENT} bytes")]
    TooLarge { path: PathBuf },
    /// The folder holds more than any folder of a build should.
    #[error("list folder: `{path}` has more than {MAX_ENTRIES} entries")]
    Crowded { path: PathBuf },
    /// The folder could not be listed.
    #[error("list folder: `{path}`")]
    List {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file or folder could not be written.
    #[error("write: `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file is not the document it should be.
    #[error("read document: `{path}`")]
    Document {
        path: PathBuf,
        #[source]
        source: DocumentError,
    },
}

/// The bytes of a file, or nothing where there is none.
pub fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    read(path, OFlag::empty())
}

fn read(path: &Path, flags: OFlag) -> Result<Option<Vec<u8>>, FileError> {
    use std::io::Read as _;
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    // Nonblocking: foreign programs may have put a FIFO there.
    let flags = (flags | OFlag::O_NONBLOCK).bits();
    let file = match std::fs::File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(_) if is_link_not_followed(path, flags) => return Err(FileError::Link { path: path.to_owned() }),
        Err(error) => return Err(failed(error)),
    };
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() && !about.is_dir() {
        return Err(FileError::Unfit { path: path.to_owned() });
    }
    // Of all of it at once, and of its end.
    let size = usize::try_from(about.len().min(MAX_DOCUMENT)).unwrap_or_default();
    let mut bytes = Vec::with_capacity(size + 64);
    file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    Ok(Some(bytes))
}

/// Whether what stands in the way of opening a file is that it is a link.
fn is_link_not_followed(path: &Path, flags: i32) -> bool {
    flags & OFlag::O_NOFOLLOW.bits() != 0 && path.is_symlink()
}

/// The text of a file, or nothing where there is none.
pub fn read_text(path: &Path) -> Result<Option<String>, FileError> {
    text_of(path, read_bytes(path)?)
}

/// As [`read_bytes`], of a file that a program of a buildpack may have written: it is read where it is, and not where a link
/// leads. Whoever reads may see what that program does not.
#[cfg(feature = "phases")]
pub(crate) fn read_foreign_bytes(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    read(path, OFlag::O_NOFOLLOW)
}

/// As [`read_foreign_bytes`], of text.
#[cfg(feature = "phases")]
pub(crate) fn read_foreign_text(path: &Path) -> Result<Option<String>, FileError> {
    text_of(path, read_foreign_bytes(path)?)
}

/// As [`read_foreign_bytes`], of a TOML document.
#[cfg(feature = "phases")]
pub(crate) fn read_foreign_document<T: serde::de::DeserializeOwned>(
    document: &'static str,
    path: &Path,
) -> Result<Option<T>, FileError> {
    document_of(document, path, read_foreign_text(path)?)
}

fn text_of(path: &Path, bytes: Option<Vec<u8>>) -> Result<Option<String>, FileError> {
    let Some(bytes) = bytes else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|error| FileError::Read {
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidData, error),
    })
}

/// The document in a TOML file, or nothing where there is none.
pub fn read_document<T: serde::de::DeserializeOwned>(
    document: &'static str,
    path: &Path,
) -> Result<Option<T>, FileError> {
    document_of(document, path, read_text(path)?)
}

fn document_of<T: serde::de::DeserializeOwned>(
    document: &'static str,
    path: &Path,
    text: Option<String>,
) -> Result<Option<T>, FileError> {
    text.map(|text| self::document(document, path, &text)).transpose()
}

/// The document in the text of the TOML file `path`.
pub(crate) fn document<T: serde::de::DeserializeOwned>(
    document: &'static str,
    path: &Path,
    text: &str,
) -> Result<T, FileError> {
    coracle_cnb::read_toml(document, text)
        .map_err(|source| FileError::Document { path: path.to_owned(), source })
}

/// Writes a TOML document, with the folders above it.
pub fn write_document<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    write(path, text_of_document(path, value)?.as_bytes())
}

fn text_of_document<T: serde::Serialize>(path: &Path, value: &T) -> Result<String, FileError> {
    coracle_cnb::write_toml(value).map_err(|source| FileError::Document { path: path.to_owned(), source })
}

/// As [`write_document`], where the file does not hold these very words already: then it need not be one that can be written to.
#[cfg(feature = "phases")]
pub(crate) fn rewrite_document<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let text = text_of_document(path, value)?;
    if read_foreign_text(path)?.as_ref() == Some(&text) { Ok(()) } else { write(path, text.as_bytes()) }
}

/// Writes a file, with the folders above it. No link is followed to it, and no FIFO waited for: foreign programs may have put one there.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let failed = |source| FileError::Write { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let opened =
        std::fs::File::options().write(true).create(true).truncate(true).custom_flags(flags).open(path);
    match opened.and_then(|mut file| file.write_all(bytes)) {
        Err(_) if is_link_not_followed(path, flags) => Err(FileError::Link { path: path.to_owned() }),
        written => written.map_err(failed),
    }
}

/// The entries of a folder sorted by name; none where there is no folder. Links count as what they lead to.
pub fn entries(dir: &Path) -> Result<Vec<DirEntry>, FileError> {
    entries_up_to(MAX_ENTRIES, dir)
}

fn entries_up_to(limit: usize, dir: &Path) -> Result<Vec<DirEntry>, FileError> {
    let failed = |source| FileError::List { path: dir.to_owned(), source };
    let listing = match std::fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut entries = Vec::new();
    for entry in listing {
        if entries.len() == limit {
            return Err(FileError::Crowded { path: dir.to_owned() });
        }
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        // The folder knows what its entries are, but not where links lead.
        let kind = entry.file_type().ok();
        let is_link = kind.is_some_and(|kind| kind.is_symlink());
        let is_dir = match kind {
            Some(kind) if !is_link => kind.is_dir(),
            _ => path.is_dir(),
        };
        entries.push(DirEntry { path, is_dir, is_link });
    }
    entries.sort_by(|one, other| one.path.file_name().cmp(&other.path.file_name()));
    Ok(entries)
}

/// One entry of a folder.
#[derive(Debug, Clone)]
pub struct DirEntry {
    pub path: PathBuf,
    /// Whether it, or what it leads to, is a folder.
    pub is_dir: bool,
    /// Whether it is a symbolic link.
    pub is_link: bool,
}

impl DirEntry {
    /// The name within its folder.
    pub fn name(&self) -> &std::ffi::OsStr {
        self.path.file_name().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifo_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (fifo, link) = (dir.path().join("fifo"), dir.path().join("link"));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink(&fifo, &link).unwrap();
        for path in [fifo.as_path(), &link, Path::new("/dev/zero")] {
            assert!(matches!(read_bytes(path), Err(FileError::Unfit { .. })), "{}", path.display());
        }
        assert!(matches!(write(&fifo, b"x"), Err(FileError::Write { .. })));
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (other, link, loose) =
            (dir.path().join("other"), dir.path().join("link"), dir.path().join("loose"));
        std::fs::write(&other, "as it was").unwrap();
        std::os::unix::fs::symlink(&other, &link).unwrap();
        std::os::unix::fs::symlink(dir.path().join("new"), &loose).unwrap();
        for path in [&link, &loose] {
            let error = write(path, b"x").unwrap_err().to_string();
            let expected = format!(
                "`{}` is a link, and none is followed there: put the file itself there",
                path.display()
            );
            assert_eq!(error, expected);
        }
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "as it was");
        assert!(!dir.path().join("new").exists());
    }

    #[test]
    fn a_crowded_folder_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            write(&dir.path().join(name), b"").unwrap();
        }
        assert_eq!(entries_up_to(3, dir.path()).unwrap().len(), 3);
        let refused = entries_up_to(2, dir.path()).unwrap_err().to_string();
        assert_eq!(refused, format!("list folder: `{}` has more than 1000000 entries", dir.path().display()));
    }
}
