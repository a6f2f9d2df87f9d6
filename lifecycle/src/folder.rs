//! Folders that foreign programs wrote: everything is opened below a handle, and no link is followed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use coracle_cnb::DocumentError;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmod, fchmodat, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::file::{MAX_DOCUMENT, MAX_ENTRIES};
use crate::stamp::Stamp;

/// How deep folders may lie in each other; an archive of a layer may not hold more either.
pub(crate) const DEPTH: usize = 256;

/// Why a folder or file could not be used. Paths are relative to the folder that was opened.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It could not be opened.
    #[error("open without following links: `{path}`")]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It could not be read.
    #[error("read: `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It could not be made or written.
    #[error("{act} without following links: `{path}`")]
    Write {
        act: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Folders lie too deep in each other.
    #[error("`{path}`: folders of a layer may be {DEPTH} deep, no more")]
    Deep { path: PathBuf },
    /// It holds more than any folder of a build should.
    #[error("list: `{path}` has more than {MAX_ENTRIES} entries")]
    Crowded { path: PathBuf },
    /// It is no regular file, or larger than any document should be.
    #[error("read: `{path}` is not a regular file of at most {MAX_DOCUMENT} bytes")]
    Unfit { path: PathBuf },
    /// It is not the document it should be.
    #[error("read document: `{path}`")]
    Document {
        path: PathBuf,
        #[source]
        source: DocumentError,
    },
}

/// Opens a path below a folder, or nothing where there is none (`openat2(2)`, `RESOLVE_NO_SYMLINKS`).
fn open(at: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<Option<OwnedFd>, FolderError> {
    // Nonblocking: whoever owns the folder may have put a FIFO there.
    let how = OpenHow::new()
        .flags(flags | OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(at, path, how) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(FolderError::Open { path: path.to_owned(), source: cause(at, path, errno) }),
    }
}

/// What the kernel says of too many links, which is one here, in words: which it is.
fn cause(at: BorrowedFd<'_>, path: &Path, errno: Errno) -> io::Error {
    let is_link = |path: &&Path| {
        let stat = fstatat(at, *path, AtFlags::AT_SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| Stamp::of(&stat).kind() == SFlag::S_IFLNK)
    };
    let mut above: Vec<&Path> = path.ancestors().collect();
    above.reverse();
    match above.into_iter().find(is_link) {
        Some(link) if errno == Errno::ELOOP => {
            let text = format!("`{}` is a symbolic link; put what it leads to there itself", link.display());
            io::Error::other(text)
        }
        _ => errno.into(),
    }
}

/// Refuses a path of more than [`DEPTH`] parts.
pub(crate) fn check_depth(path: &Path) -> Result<(), FolderError> {
    if path.components().count() > DEPTH {
        return Err(FolderError::Deep { path: path.to_owned() });
    }
    Ok(())
}

/// A folder below another, or nothing where there is none.
pub fn folder(at: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>, FolderError> {
    open(at, path, OFlag::O_DIRECTORY)
}

/// Permissions of folders that are made.
const MADE: Mode = Mode::from_bits_truncate(0o755);

/// Gives a folder that was made just now what the umask took. What it has of the one above, that its group is that one's, stays: who
/// is not of that group could not set it again (`chmod(2)`).
fn whatever_the_umask(dir: &OwnedFd) -> nix::Result<()> {
    let mode = Mode::from_bits_truncate(fstat(dir)?.st_mode);
    if mode.contains(MADE) { Ok(()) } else { fchmod(dir, MADE | mode & Mode::S_ISGID) }
}

/// A folder below another, with those above it, made where there is none.
pub fn make_all(at: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, FolderError> {
    let failed = |act, errno: Errno| FolderError::Write { act, path: path.to_owned(), source: errno.into() };
    let mut below =
        at.try_clone_to_owned().map_err(|source| FolderError::Open { path: path.to_owned(), source })?;
    for name in path {
        let made = match mkdirat(&below, name, MADE) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(failed("make folder", errno)),
        };
        let opened = folder(below.as_fd(), Path::new(name)).map_err(|error| match error {
            FolderError::Open { source, .. } => FolderError::Open { path: path.to_owned(), source },
            error => error,
        })?;
        below = opened.ok_or_else(|| failed("make folder", Errno::ENOENT))?;
        if made {
            whatever_the_umask(&below).map_err(|errno| failed("make folder", errno))?;
        }
    }
    Ok(below)
}

/// Writes a file of a folder, in the place of what has its name.
pub fn replace(at: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> Result<(), FolderError> {
    let failed = |source| FolderError::Write { act: "write", path: name.into(), source };
    match unlinkat(at, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(failed(errno.into())),
    }
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(at, name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
    let mut file = File::from(file.map_err(|errno| failed(errno.into()))?);
    fchmod(&file, Mode::from_bits_truncate(0o644)).map_err(|errno| failed(errno.into()))?;
    file.write_all(bytes).map_err(failed)
}

/// A file, or nothing where there is none.
pub fn file(at: BorrowedFd<'_>, path: &Path) -> Result<Option<File>, FolderError> {
    let Some(fd) = open(at, path, OFlag::empty())? else { return Ok(None) };
    let failed = |source| FolderError::Read { path: path.to_owned(), source };
    let file = File::from(fd);
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(FolderError::Unfit { path: path.to_owned() });
    }
    Ok(Some(file))
}

/// The text of a file, or nothing where there is none.
pub fn text(at: BorrowedFd<'_>, path: &Path) -> Result<Option<String>, FolderError> {
    let Some(file) = file(at, path)? else { return Ok(None) };
    let failed = |source| FolderError::Read { path: path.to_owned(), source };
    let unfit = || FolderError::Unfit { path: path.to_owned() };
    let mut text = String::new();
    let read = file.take(MAX_DOCUMENT + 1).read_to_string(&mut text).map_err(failed)?;
    if read as u64 > MAX_DOCUMENT {
        return Err(unfit());
    }
    Ok(Some(text))
}

/// The document in a TOML file, or nothing where there is none; `document` names it in the error.
pub fn document<T: serde::de::DeserializeOwned>(
    document: &'static str,
    at: BorrowedFd<'_>,
    path: &Path,
) -> Result<Option<T>, FolderError> {
    let read = |text: String| coracle_cnb::read_toml(document, &text);
    text(at, path)?
        .map(read)
        .transpose()
        .map_err(|source| FolderError::Document { path: path.to_owned(), source })
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: OsString,
    /// Whether it is a folder itself; a link to one is not.
    pub is_dir: bool,
}

/// The entries of a folder sorted by name; none where there is no folder.
pub fn entries(at: BorrowedFd<'_>, path: &Path) -> Result<Vec<Entry>, FolderError> {
    entries_up_to(MAX_ENTRIES, at, path)
}

fn entries_up_to(limit: usize, at: BorrowedFd<'_>, path: &Path) -> Result<Vec<Entry>, FolderError> {
    let failed = |errno: Errno| FolderError::Read { path: path.to_owned(), source: errno.into() };
    let Some(fd) = folder(at, path)? else { return Ok(Vec::new()) };
    let mut dir = Dir::from_fd(fd).map_err(failed)?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry.map_err(failed)?;
        let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
        if names.len() == limit {
            return Err(FolderError::Crowded { path: path.to_owned() });
        }
        if name != "." && name != ".." {
            names.push((name, entry.file_type()));
        }
    }
    let is_dir = |name: &OsString| -> Result<bool, FolderError> {
        let stat = fstatat(dir.as_fd(), name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
        Ok(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
    };
    let mut entries = Vec::new();
    for (name, kind) in names {
        // Not every file system says of what kind an entry is.
        let is_dir = match kind {
            Some(kind) => kind == Type::Directory,
            None => is_dir(&name)?,
        };
        entries.push(Entry { name, is_dir });
    }
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

/// Removes a file, or a folder with all below it, closed ones too; there need not be any.
pub fn remove(at: BorrowedFd<'_>, name: &OsStr) -> nix::Result<()> {
    match unlinkat(at, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        // Linux says EISDIR, POSIX EPERM.
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    let stat = fstatat(at, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFDIR {
        return Err(Errno::EPERM);
    }
    fchmodat(at, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut folder = Dir::from_fd(openat(at, name, flags, Mode::empty())?)?;
    let names = folder.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned()));
    for name in names.collect::<nix::Result<Vec<_>>>()? {
        if !matches!(name.as_bytes(), b"." | b"..") {
            remove(folder.as_fd(), OsStr::from_bytes(name.as_bytes()))?;
        }
    }
    unlinkat(at, name, UnlinkatFlags::RemoveDir)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_is_read_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (own, other) = (dir.path().join("own"), dir.path().join("other"));
        fs::create_dir_all(own.join("inner")).unwrap();
        fs::create_dir_all(other.join("inner")).unwrap();
        fs::write(own.join("file"), "own").unwrap();
        fs::write(other.join("file"), "secret").unwrap();
        symlink(other.join("file"), own.join("link")).unwrap();
        symlink("file", own.join("inside")).unwrap();
        symlink(&other, own.join("linked")).unwrap();
        nix::unistd::mkfifo(&own.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let at = File::open(&own).unwrap();
        let read = |path: &str| text(at.as_fd(), Path::new(path));
        assert_eq!(read("file").unwrap().as_deref(), Some("own"));
        assert_eq!(read("missing").unwrap(), None);
        for path in ["link", "inside", "linked/file", "../other/file", "/etc/passwd"] {
            assert!(matches!(read(path), Err(FolderError::Open { .. })), "{path}");
        }
        for (path, link) in [("link", "link"), ("linked/file", "linked")] {
            let FolderError::Open { source, .. } = read(path).unwrap_err() else {
                panic!("{path} was opened")
            };
            let expected = format!("`{link}` is a symbolic link; put what it leads to there itself");
            assert_eq!(source.to_string(), expected);
        }
        assert!(matches!(read("fifo"), Err(FolderError::Unfit { .. })));
        assert!(matches!(read("inner"), Err(FolderError::Unfit { .. })));
        assert!(folder(at.as_fd(), Path::new("linked")).is_err());
        assert!(entries(at.as_fd(), Path::new("linked/inner")).is_err());
        let dirs: Vec<OsString> = entries(at.as_fd(), Path::new("."))
            .unwrap()
            .into_iter()
            .filter(|entry| entry.is_dir)
            .map(|entry| entry.name)
            .collect();
        assert_eq!(dirs, ["inner"]);
    }

    #[test]
    fn documents_have_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("large.toml")).unwrap();
        file.set_len(MAX_DOCUMENT + 1).unwrap();
        fs::write(dir.path().join("broken.toml"), "a = ").unwrap();
        let at = File::open(dir.path()).unwrap();
        let read = |path: &str| document::<toml::Table>("layer TOML", at.as_fd(), Path::new(path));
        assert!(matches!(read("large.toml"), Err(FolderError::Unfit { .. })));
        assert!(matches!(read("broken.toml"), Err(FolderError::Document { .. })));
        assert_eq!(read("missing.toml").unwrap(), None);
    }

    #[test]
    fn a_crowded_folder_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let at = File::open(dir.path()).unwrap();
        assert!(entries_up_to(4, at.as_fd(), Path::new(".")).is_ok());
        let refused = entries_up_to(2, at.as_fd(), Path::new(".")).unwrap_err().to_string();
        assert_eq!(refused, "list: `.` has more than 1000000 entries");
    }
}
