//! What fails on one file.

use std::io;
use std::path::PathBuf;

/// A file or folder of a store or layout could not be dealt with.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act} {path}")]
pub struct FileError {
    /// The deed.
    pub act: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Cause.
    #[source]
    pub source: io::Error,
}

/// For `map_err`.
pub(super) fn failed(act: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> FileError {
    let path = path.into();
    move |source| FileError { act, path, source }
}
