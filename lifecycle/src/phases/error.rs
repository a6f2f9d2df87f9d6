//! Why phases fail, and the codes they end with.

use std::path::PathBuf;

use coracle_cnb::ApiVersion;

use super::{
    ArgumentError, ChosenError, DemandError, ExporterError, ImagesError, PrivilegesError, RebaserError,
    phase_names,
};
use crate::analyze::AnalyzeError;
use crate::api::BUILDPACK_APIS;
use crate::build::{BuildError, ComposeError};
use crate::describe::DescribeError;
use crate::detect::{CatalogError, ResolveError};
use crate::file::FileError;
use crate::generate::GenerateError;
use crate::restore::RestoreError;

/// Why a phase failed.
#[derive(Debug, thiserror::Error)]
pub enum PhaseError {
    /// No phase is named.
    #[error("no phase is named: `lifecycle PHASE ...` (phases: {names})", names = phase_names())]
    Unnamed,
    /// The name is no phase.
    #[error("`{0}` is not a phase (phases: {names})", names = phase_names())]
    Unknown(String),
    /// Foreign programs would see the credentials.
    #[error("remove the credentials in CNB_REGISTRY_AUTH from this process")]
    HideCredentials(#[source] std::io::Error),
    /// An argument is wrong.
    #[error("read arguments")]
    Arguments(#[from] ArgumentError),
    /// The Platform API is not known.
    #[error("CNB_PLATFORM_API is not set: it says which Platform API is meant ({first} to {last})")]
    NoPlatformApi { first: ApiVersion, last: ApiVersion },
    /// The Platform API is not spoken.
    #[error(
        "Platform API `{text}` is not supported: set CNB_PLATFORM_API to one from {first} to {last}, or for a builder of another age take its own lifecycle (--lifecycle builder)"
    )]
    PlatformApi { text: String, first: ApiVersion, last: ApiVersion },
    /// A buildpack of the group is for an API that is not spoken.
    #[error(
        "buildpack `{name}` is for Buildpack API {api}, which is not supported (supported: {first} to {last}): take the builder's own lifecycle (--lifecycle builder)", first = BUILDPACK_APIS[0], last = BUILDPACK_APIS[BUILDPACK_APIS.len() - 1]
    )]
    BuildpackApi { name: String, api: String },
    /// A buildpack of the group has no API.
    #[error(
        "group.toml does not say which Buildpack API buildpack `{0}` is for: detect again, or for one of another age take the builder's own lifecycle (--lifecycle builder)"
    )]
    NoBuildpackApi(String),
    /// Which run image is meant cannot be known.
    #[error("choose a run image")]
    RunImages(#[source] FileError),
    /// What the analyzer found cannot be known, and nothing can be exported without.
    #[error("export")]
    Analyzed(#[source] FileError),
    /// The exporter has no metadata.toml that it can read.
    #[error("export")]
    NoMetadata(#[source] Box<PhaseError>),
    /// Before Platform API 0.12: a buildpack was not made for the build image.
    #[error(
        "detect: buildpack `{buildpack}` is for {stacks}, not for stack `{stack}` of the build image (CNB_STACK_ID): leave it out, or take a builder of its stack"
    )]
    OtherStack { buildpack: String, stacks: String, stack: String },
    /// Before Platform API 0.12: the run image has less in it than a buildpack of the order needs.
    #[error(
        "analyze: buildpack `{buildpack}` needs mixin `{mixin}`, which run image `{run}` does not have (io.buildpacks.stack.mixins): take a run image that has it"
    )]
    NoMixin { buildpack: String, mixin: String, run: String },
    /// What the platform asks for is not to be had.
    #[error(transparent)]
    Demand(#[from] DemandError),
    /// A file that the phase needs is not there.
    #[error("read {document}: there is no `{path}`")]
    NoFile { document: &'static str, path: PathBuf },
    /// A file could not be read or written.
    #[error("run phase")]
    File(#[from] FileError),
    /// No client for registries could be made.
    #[error("prepare to speak to registries")]
    Credentials(#[source] ImagesError),
    /// An image that the analyzer needs cannot be read or written.
    #[error("analyze")]
    AnalyzeImages(#[source] ImagesError),
    /// Nothing can be said of the images.
    #[error("analyze")]
    Analyze(#[source] AnalyzeError),
    /// An image that the build goes on with could not be had.
    #[error("restore")]
    Chosen(#[from] ChosenError),
    /// Nothing can be restored.
    #[error("restore")]
    Restore(#[source] RestoreError),
    /// The builder could not be described.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// The buildpacks of the order could not be read.
    #[error("detect")]
    Detect(#[from] CatalogError),
    /// Extensions are not wanted.
    #[error(
        "{what}, which Platform API {api} has as an experiment only: set CNB_EXPERIMENTAL_MODE=warn, or remove them"
    )]
    Experiment { what: &'static str, api: ApiVersion },
    /// Extensions take part, and did not say what images are to be extended with.
    #[error("detect")]
    Generate(#[from] GenerateError),
    /// No group of the order takes part.
    #[error("detect")]
    NotDetected(#[source] ResolveError),
    /// The phase would run as whom it should not, or where it can be looked into.
    #[error(transparent)]
    Privileges(#[from] PrivilegesError),
    /// Extensions of a creator's group ask for more than another run image.
    #[error(
        "detect: images are to be extended ({0}), which a creator cannot do: run the phases one by one with an extender, or take a builder without these extensions"
    )]
    CreateExtensions(String),
    /// An extension of a creator's group names an image of its own, which could be any that the platform may read.
    #[error(
        "detect: an extension asks for the run image `{image}`, which run.toml does not list, and images of {registry} are read with credentials: list it in run.toml (-run), or run the phases one by one"
    )]
    NotOffered { image: String, registry: String },
    /// What buildpacks started goes on.
    #[error("end the processes that buildpacks left running")]
    LeftRunning(#[source] std::io::Error),
    /// The build failed.
    #[error("build")]
    Build(#[from] BuildError),
    /// The metadata could not be composed.
    #[error("compose metadata")]
    Compose(#[from] ComposeError),
    /// A creator has nothing to export onto.
    #[error("export: the run image does not exist: name one that is there (-run-image)")]
    NoRunImage,
    /// There is no image.
    #[error(transparent)]
    Export(#[from] ExporterError),
    /// The image stays on its run image.
    #[error(transparent)]
    Rebase(#[from] RebaserError),
}

impl PhaseError {
    /// The exit code of the phase (Platform API, "Exit Codes").
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unnamed
            | Self::Unknown(_)
            | Self::Arguments(_)
            | Self::RunImages(_)
            | Self::Analyzed(_)
            | Self::Credentials(ImagesError::Variable) => 3,
            Self::NoPlatformApi { .. } | Self::PlatformApi { .. } => 11,
            Self::BuildpackApi { .. } | Self::NoBuildpackApi(_) => 12,
            Self::OtherStack { .. } => 22,
            Self::NoMixin { .. } => 32,
            Self::NoMetadata(_) => 62,
            Self::Demand(error) => error.exit_code(),
            Self::NoFile { .. }
            | Self::File(_)
            | Self::Credentials(_)
            | Self::HideCredentials(_)
            | Self::NoRunImage
            | Self::Chosen(_)
            | Self::LeftRunning(_)
            | Self::Experiment { .. } => 1,
            Self::AnalyzeImages(_) => 32,
            Self::Analyze(error) => error.exit_code(),
            Self::Restore(error) => error.exit_code(),
            Self::Describe(DescribeError::Catalog(error)) if error.is_of_api() => 12,
            Self::Detect(error) => error.exit_code(),
            Self::Privileges(error) => error.exit_code(),
            Self::CreateExtensions(_) | Self::NotOffered { .. } | Self::Describe(_) => 22,
            Self::NotDetected(error) => error.exit_code(),
            Self::Generate(error) => error.exit_code(),
            Self::Build(error) => error.exit_code(),
            Self::Compose(_) => 52,
            Self::Export(error) => error.exit_code(),
            Self::Rebase(error) => error.exit_code(),
        }
    }
}
