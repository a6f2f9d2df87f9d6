//! Why there is no image.

use std::io;
use std::path::PathBuf;

use crate::export::{ExportError, ExtendedError, OutboxError, PublishError};
use crate::file::FileError;
use crate::phases::images::ImagesError;

/// Why there is no image, or not under all of its names.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// analyzed.toml names no run image, or it names one that was not there.
    #[error("analyzed.toml names no run image: analyze again with one that can be read")]
    NoRunImage,
    /// The run image or the previous image could not be had (exit 1, as with the reference).
    #[error("export")]
    Images(#[from] ImagesError),
    /// A folder could not be opened.
    #[error("export")]
    Folder(#[from] FileError),
    /// The launcher that was given could not be read.
    #[error("read the launcher that -launcher (CNB_LAUNCHER_PATH) names: `{path}`")]
    Launcher {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The folder of the launcher's bills of materials could not be read.
    #[error("list the SBOMs of the launcher, where -launcher-sbom says that they are: `{path}`")]
    LauncherBills {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The run image is to be extended, and was not.
    #[error(
        "analyzed.toml has `extend = true` for the run image, but there is no extended run image in `{path}`: run an extender before, or name its folder with -extended"
    )]
    NotExtended { path: PathBuf },
    /// What an extender left cannot be used, or cannot be used as a run image (exit 1, as with the reference).
    #[error("export")]
    Extended {
        #[source]
        source: ExtendedError,
        is_wanted: bool,
    },
    /// The image could not be made.
    #[error("export")]
    Export(#[from] ExportError),
    /// The outbox could not be written.
    #[error("export")]
    Outbox(#[from] OutboxError),
    /// The image could not be published.
    #[error("export")]
    Publish(#[from] PublishError),
    /// The image is there, but nothing says so.
    #[error("report the image")]
    Report(#[source] FileError),
}

impl ExporterError {
    /// The exit code of the exporter (Platform API, "exporter").
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoRunImage => 3,
            Self::Images(_) | Self::NotExtended { .. } | Self::Extended { is_wanted: true, .. } => 1,
            _ => 62,
        }
    }
}
