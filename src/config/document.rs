//! A TOML document that decides something, read with care: a file of the user's or of root's to which nobody else can write, of a size
//! that somebody could have typed.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde::de::DeserializeOwned;

/// Bytes; a name has a hundred.
const LIMIT: u64 = 1 << 20;

/// Why a document that decides something could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file system refused.
    #[error("could not {act} {}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A folder, a pipe or a device.
    #[error("{} is no regular file; put a TOML document there", .0.display())]
    NotAFile(PathBuf),
    /// Somebody else decides what is in it.
    #[error("{} belongs to the user with id {owner}, who could change it at any time; it must be yours or root's", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Others may write to it.
    #[error("{path} may be written to by others (mode {mode:o}); close it with: chmod go-w {path}", path = path.display())]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Nobody typed that much.
    #[error("{} is larger than 1 MiB, which no such document is", .0.display())]
    TooLarge(PathBuf),
    /// The text is no TOML, or not what is expected.
    #[error("{}, line {line}: {why}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        why: String,
    },
    /// A text of ours cannot be written.
    #[error("could not write {}: {why}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl ConfigError {
    pub(super) fn io(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { act, path, source }
    }

    pub(super) fn unfit(path: &Path, why: impl ToString) -> Self {
        Self::Unfit { path: path.to_owned(), why: why.to_string() }
    }
}

/// The document at `path`, if there is a file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ConfigError> {
    let Some(text) = text(path)? else { return Ok(None) };
    let value = toml::from_str(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
        let why = error.message().lines().collect::<Vec<_>>().join(", ");
        ConfigError::Text { path: path.to_owned(), line, why }
    })?;
    Ok(Some(value))
}

/// Its text.
pub(super) fn text(path: &Path) -> Result<Option<String>, ConfigError> {
    let failed = |act| ConfigError::io(act, path);
    // A pipe without a writer is not waited for.
    let opened = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed("open"))?,
    };
    let about = file.metadata().map_err(failed("look at"))?;
    if !about.is_file() {
        return Err(ConfigError::NotAFile(path.to_owned()));
    }
    let owner = about.uid();
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(ConfigError::Owner { path: path.to_owned(), owner });
    }
    if about.mode() & 0o022 != 0 {
        return Err(ConfigError::Writable { path: path.to_owned(), mode: about.mode() & 0o777 });
    }
    let mut text = String::new();
    file.take(LIMIT + 1).read_to_string(&mut text).map_err(failed("read"))?;
    if text.len() as u64 > LIMIT {
        return Err(ConfigError::TooLarge(path.to_owned()));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn refused(make: impl FnOnce(&Path)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        make(&path);
        let error = text(&path).unwrap_err();
        coracle_runtime::with_causes(&error).replace(&path.display().to_string(), "FILE")
    }

    #[test]
    fn what_others_could_have_written_is_refused() {
        for mode in [0o620, 0o602, 0o666] {
            let error = refused(|path| {
                fs::write(path, "").unwrap();
                fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            });
            assert_eq!(
                error,
                format!("FILE may be written to by others (mode {mode:o}); close it with: chmod go-w FILE")
            );
        }
        let error = ConfigError::Owner { path: "FILE".into(), owner: 7 }.to_string();
        assert_eq!(
            error,
            "FILE belongs to the user with id 7, who could change it at any time; it must be yours or root's"
        );
    }

    #[test]
    fn what_is_no_document_is_refused_and_not_waited_for() {
        let fifo = |path: &Path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let folder = |path: &Path| fs::create_dir(path).unwrap();
        assert_eq!(refused(fifo), "FILE is no regular file; put a TOML document there");
        assert_eq!(refused(folder), "FILE is no regular file; put a TOML document there");
        let write = |path: &Path, content: &[u8]| {
            fs::write(path, content).unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
        };
        let large = vec![b'#'; (1 << 20) + 1];
        assert_eq!(
            refused(|path| write(path, &large)),
            "FILE is larger than 1 MiB, which no such document is"
        );
        let binary = refused(|path| write(path, b"\xff"));
        assert_eq!(binary, "could not read FILE: stream did not contain valid UTF-8");
        let below = refused(|path| {
            write(path.parent().unwrap().join("x").as_path(), b"");
            std::os::unix::fs::symlink("x/below", path).unwrap();
        });
        assert_eq!(below, "could not open FILE: Not a directory (os error 20)");
    }
}
