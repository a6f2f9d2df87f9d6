//! From what a build left in folders to an image (Platform API, "exporter").
//!
//! [`ExportPlan::new`] is pure: it says which layers the image gets, in which order, and what its configuration says.
//! [`export`] packs them. The folders were written by foreign programs: they are opened without following a link.

mod bills;
mod digests;
mod extended;
mod found;
mod outbox;
mod pack;
mod pattern;
mod plan;
mod publish;
mod settled;
mod slices;
mod write;

use std::fmt;
use std::os::fd::BorrowedFd;

use coracle_cnb::{
    Analyzed, ApiVersion, DocumentError, Group, IdError, LifecycleMetadata, Metadata, ProjectMetadata,
    RunToml,
};
use coracle_images::pack::{PackError, Parent};
use coracle_images::{Digest, DigestError, Image, ImageError};

use crate::cache::{CacheError, Saved};
use crate::folder::FolderError;
use crate::known::{KnownApplication, KnownLayers};

pub(crate) use outbox::{Staged, Staging};
pub(crate) use write::without_digest;

pub use bills::{Bills, FOLDER as LIFECYCLE_FOLDER};
pub use extended::{Extended, ExtendedError};
pub use found::{Found, FoundBuildpack, FoundLayer};
pub use outbox::{Outbox, OutboxError};
pub use pack::{App, Layers};
pub use plan::{ExportPlan, LayerSource, PlannedLayer};
pub use publish::{PublishError, Publisher, Source};
pub use slices::slice;
pub use write::export;

/// Whether a label is the platform's own, which no buildpack sets: one that could would choose the base of the next rebase,
/// or have an application taken for a builder (docs/decisions/0021-labels-of-the-platform.md).
pub fn is_reserved(label: &str) -> bool {
    label.starts_with("io.buildpacks.")
}

/// The time of images and of all in them, unless told otherwise.
pub const CREATED: &str = "1980-01-01T00:00:01Z";

/// What an image is made of.
#[derive(Debug)]
pub struct ExportInput<'input> {
    pub group: &'input Group,
    /// As composed from the buildpacks' files, not as a program of the build wrote it.
    pub metadata: &'input Metadata,
    pub analyzed: &'input Analyzed,
    pub run: &'input RunToml,
    pub project: &'input ProjectMetadata,
    /// The run image: its layers are referred to, not written.
    pub base: &'input Image,
    /// The run image as an extender left it: its layers come next. Its configuration is the caller's to give to `base`.
    pub extended: Option<&'input Extended>,
    /// The image that this one replaces: its layers are referred to where they are the same.
    pub previous: Option<&'input Image>,
    /// Folder of the buildpacks' layers.
    pub layers_dir: BorrowedFd<'input>,
    /// Where that folder is in the image.
    pub layers_path: &'input str,
    /// The folders above that one, from the root, as the image gets them.
    pub above_layers: &'input [Parent],
    /// Folder of the application.
    pub app_dir: BorrowedFd<'input>,
    /// Where that folder is in the image.
    pub app_path: &'input str,
    /// The folders above that one.
    pub above_app: &'input [Parent],
    /// Whether the folder `config` among the layers becomes a layer as it is, with its metadata.toml and whatever else is in it; if
    /// not, a layer is made of [`ExportInput::metadata`] alone.
    pub config_as_it_is: bool,
    pub launcher: &'input Launcher<'input>,
    /// Since Platform API 0.11: what the lifecycle's own programs are made of.
    pub bills: Option<&'input Bills>,
    /// Layers that are what they were when they were packed, and the application if it is, verified.
    pub unchanged: &'input KnownLayers,
    /// Owner and group of what the build made.
    pub owner: (u32, u32),
    /// Owner and group of the layers' folder and those between it and layers, if not their own.
    pub owner_above: Option<(u32, u32)>,
    /// The process to start, where the buildpacks' choice does not count.
    pub process_type: Option<&'input str>,
    /// Since Platform API 0.15: what the image is for.
    pub exec_env: Option<&'input str>,
    pub platform_api: ApiVersion,
    /// RFC 3339; [`CREATED`] by default.
    pub created: &'input str,
}

/// The program that starts processes in the image: the exporter makes a layer of it.
#[derive(Debug)]
pub struct Launcher<'a> {
    pub program: &'a [u8],
    /// What the label `io.buildpacks.build.metadata` says of it.
    pub metadata: serde_json::Value,
}

/// What was exported.
#[derive(Debug)]
pub struct Exported {
    pub image: Image,
    pub metadata: LifecycleMetadata,
    /// The application's layers.
    pub application: KnownApplication,
    /// Where a cache is saved: what belongs into it, or why that is not to be had.
    pub cache: Option<Result<Saved, CacheError>>,
}

/// What happens on the way to an image. The words about layers are those people look for in a build's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A layer is new.
    Added(String),
    /// A layer is the previous image's.
    Reused(String),
    /// The application's layers.
    App { reused: usize, added: usize },
    /// Why a layer is new, or the previous image's.
    Because(String, Why),
    /// A buildpack asked for a label that is the platform's own.
    RefusedLabel(String),
}

/// Why a layer is what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// There was nothing to pack.
    NoFolder,
    /// It lay unpacked since it was packed, and nobody changed it.
    Unchanged,
    /// It was packed, and that is what the previous image has.
    SameContent,
    /// It was packed, and the previous image has nothing that is the same.
    OtherContent(Digest),
    /// There is nothing to compare it with.
    NoPrevious,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A buildpack may put line ends into a name, and with them lines of its own into the log.
        let shown = |text: &str| -> String {
            text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
        };
        match self {
            Self::Added(layer) => write!(f, "Adding layer '{}'", shown(layer)),
            Self::Reused(layer) => write!(f, "Reusing layer '{}'", shown(layer)),
            Self::App { reused, added: 0 } => write!(f, "Reusing {reused}/{reused} app layer(s)"),
            Self::Because(layer, why) => {
                let layer = shown(layer);
                match why {
                    Why::NoFolder => write!(
                        f,
                        "  '{layer}' has no folder in this build: the previous image has what its metadata speak of"
                    ),
                    Why::Unchanged => {
                        write!(f, "  '{layer}' was changed by nobody since it was packed, and not read")
                    }
                    Why::SameContent => write!(f, "  '{layer}' was read, and is what the previous image has"),
                    Why::OtherContent(diff_id) => {
                        write!(
                            f,
                            "  '{layer}' was read, and the previous image has nothing like it: {diff_id}"
                        )
                    }
                    Why::NoPrevious => write!(f, "  '{layer}' is new, as there is no previous image"),
                }
            }
            Self::App { reused, added } => write!(f, "Adding {added}/{} app layer(s)", reused + added),
            Self::RefusedLabel(label) => {
                write!(f, "label `{label}` is reserved: what a buildpack asked for is not set")
            }
        }
    }
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The process asked for does not exist.
    #[error("process type `{wanted}` is not defined; defined are: {known}")]
    UnknownProcess { wanted: String, known: String },
    /// Only launch layers that are not cached may stand for themselves by their file alone.
    #[error("layer `{layer}` of buildpack `{name}` has `cache = true`, but no folder")]
    CachedWithoutFolder { name: String, layer: String },
    /// A layer without a folder is not in the previous image either.
    #[error("layer `{layer}` of buildpack `{name}` has no folder, and the previous image has no such layer")]
    Unknown { name: String, layer: String },
    /// A layer's file has its flags in the form before Buildpack API 0.6.
    #[error("layer `{layer}` of buildpack `{name}`: launch, build and cache belong into the table [types]")]
    OldFlags { name: String, layer: String },
    /// A layer's name has no place in a label.
    #[error("layer `{layer}` of buildpack `{name}`: its name is not UTF-8")]
    LayerName { name: String, layer: String },
    /// A folder or file could not be read.
    #[error("export")]
    Folder(#[from] FolderError),
    /// A buildpack named a process as no link can be named.
    #[error("a buildpack's launch.toml has a process that no link can be named after")]
    Process(#[from] IdError),
    /// A label has no text.
    #[error("write label `{label}`")]
    Label {
        label: &'static str,
        #[source]
        source: DocumentError,
    },
    /// The previous image's metadata names no digest.
    #[error("export layer `{layer}`")]
    Digest {
        layer: String,
        #[source]
        source: DigestError,
    },
    /// A slice's pattern is broken.
    #[error("slice `{0}`: not a pattern; see `path` of [[slices]] in launch.toml")]
    Pattern(String),
    /// A layer could not be packed.
    #[error("export layer `{layer}`")]
    Pack {
        layer: String,
        #[source]
        source: PackError,
    },
    /// The outbox could not be written.
    #[error("export")]
    Outbox(#[from] OutboxError),
    /// The image has no text.
    #[error("export")]
    Image(#[from] ImageError),
}
