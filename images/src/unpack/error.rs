//! Why a layer cannot be unpacked.

use std::io;

use super::OwnerError;

/// What can be wrong with an archive, or with writing it down.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive cannot be read.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The archive is damaged.
    #[error("the archive is damaged at byte {at}: {what}")]
    Damaged {
        /// Position in the archive.
        at: u64,
        /// What.
        what: &'static str,
    },
    /// The archive asks for more than allowed.
    #[error("the archive exceeds the limit of {limit} {what}")]
    Limit {
        /// What of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// A path that leads out of the layer or cannot exist.
    #[error("the archive holds the path `{path}`: {why}")]
    Path {
        /// The path, escaped.
        path: String,
        /// Why not.
        why: &'static str,
    },
    /// An entry this program refuses.
    #[error("the archive's entry `{path}` is refused: {why}")]
    Refused {
        /// The path, escaped.
        path: String,
        /// Why.
        why: &'static str,
    },
    /// A hard link to nothing.
    #[error("the archive's entry `{path}` is a hard link to `{target}`, which this layer does not hold")]
    Dangling {
        /// The path, escaped.
        path: String,
        /// Its target, escaped.
        target: String,
    },
    /// An owner without counterpart.
    #[error("cannot give `{path}` its owner")]
    Owner {
        /// The path, escaped.
        path: String,
        /// Cause.
        #[source]
        source: OwnerError,
    },
    /// A file system that cannot say which folders hide those below them.
    #[error(
        "cannot mark the folder `{path}` as opaque: the file system of the store takes no attributes of users; keep images on another one, with --home or CORACLE_HOME"
    )]
    NoAttributes {
        /// The path, escaped.
        path: String,
    },
    /// A file cannot be made.
    #[error("cannot {act} `{path}`")]
    Make {
        /// The system call's deed.
        act: &'static str,
        /// The path, escaped.
        path: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
}
