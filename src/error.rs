//! Why an operation failed: each variant names the thing; the cause is the source.

use std::io;
use std::path::PathBuf;

use coracle_images::{RegistryError, StoreError};
use coracle_runtime::SessionError;

/// An operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder of ours could not be used.
    #[error("could not {act} {}", path.display())]
    Folder {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The stage, a worker or a container could not be run.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// An archive was not imported.
    #[error(transparent)]
    Import(#[from] crate::import::ImportError),
    /// A builder was not created.
    #[error(transparent)]
    Builder(#[from] crate::builder::BuilderError),
    /// The worker gave up.
    #[error("{0}")]
    Worker(String),
    /// An image is not in the store.
    #[error("image {0} is not in the local store; fetch it with: coracle pull {0}")]
    NoImage(String),
    /// The layers of an image are stored but not unpacked for this user's ids.
    #[error(
        "image {0} is stored, but not unpacked for the ids of this user (was /etc/subuid changed?); fetch it again with: coracle pull {0}"
    )]
    NotUnpacked(String),
    /// An image names nothing to run.
    #[error("image {0} has neither an entrypoint nor a command; name a program after the image")]
    NothingToRun(String),
    /// A pipe could not be made.
    #[error("could not make a pipe for a program's output")]
    Pipe(#[source] io::Error),
}

impl Error {
    pub(crate) fn folder(act: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Error::Folder { act, path, source }
    }
}
