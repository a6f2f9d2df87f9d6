//! The phases as programs: one binary, told by the name it is called by (Platform API, "Lifecycle Interface").
//!
//! Speaks Platform API 0.7 to 0.15. What of it is not here is refused by name, and never ignored.

mod analyzer;
mod arguments;
mod bills;
mod builder;
mod caching;
mod called;
mod chosen;
mod creator;
mod demands;
mod describe_builder;
mod detect_programs;
mod detector;
mod documents;
mod exporter;
mod exposed;
mod flags;
mod images;
mod outputs;
mod owner;
mod privileges;
mod rebaser;
mod restorer;
mod scratch;
mod stacks;
mod table;

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use coracle_cnb::{Analyzed, ApiVersion, RunImageTarget};
use coracle_images::AuthFile;

use crate::analyze::AnalyzeError;
use crate::api::{BUILDPACK_APIS, EXECUTION_ENVIRONMENTS, PLATFORM_APIS, TARGETS};
use crate::build::{BuildError, ComposeError};
use crate::describe::DescribeError;
use crate::detect::{self, CatalogError, Given, ResolveError};
use crate::env::Env;
use crate::file::{self, FileError};
use crate::generate::GenerateError;
use crate::restore::RestoreError;
use crate::surroundings::Surroundings;
use crate::with_causes;

use self::scratch::Scratch;

pub use crate::export::Launcher;
pub use arguments::{ArgumentError, Arguments};
pub use called::Called;
pub use chosen::ChosenError;
pub use demands::DemandError;
pub use detect_programs::DetectRuns;
pub use exporter::ExporterError;
pub use images::{ImagesError, layout_path};
pub use owner::OwnerError;
pub use privileges::{PrivilegesError, User, close_process};
pub use rebaser::RebaserError;

use documents::{analyzed, group, left, needed, run_toml};
use table::{Holds, Names, OF_OURS, PHASES, Phase};

/// What platforms call the phases by.
pub fn names() -> Vec<&'static str> {
    let here = PHASES.iter().map(|phase| phase.name).filter(|name| !OF_OURS.contains(name));
    // Platforms start it too, and are to read that it does nothing.
    let mut names: Vec<_> = here.chain(["extender"]).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The variable in which platforms hand credentials over (Platform API, "Registry Authentication").
pub const CREDENTIALS_VARIABLE: &str = "CNB_REGISTRY_AUTH";

/// What the image runs on. What analyzed.toml leaves open, as before Platform API 0.12, is as where the build runs.
fn target(analyzed: &Analyzed) -> Result<RunImageTarget, FileError> {
    let target = analyzed.run_image.as_ref().and_then(|image| image.target.as_ref());
    Ok(detect::complete(target, crate::describe::build_distro()?.as_ref()))
}

/// A phase being run: what it was told, and by whom.
#[derive(Debug)]
struct Call<'a> {
    arguments: Arguments,
    api: ApiVersion,
    env: &'a Env,
    launcher: &'a Launcher<'a>,
    /// Read once, before anything else.
    auth: AuthFile,
    /// Docker's configuration, of which that was read.
    credentials_file: Option<PathBuf>,
}

impl Call<'_> {
    /// As [`Call::warn`], with an error and its causes.
    fn warn_because(&self, text: &str, error: &dyn std::error::Error) {
        self.warn(&format!("{text}: {}", with_causes(error)));
    }

    /// What the programs of buildpacks find around them.
    fn surroundings<'b>(
        &'b self,
        scratch: &Scratch,
        target: Option<&'b RunImageTarget>,
        exec_env: Option<&'b str>,
    ) -> Surroundings<'b> {
        Surroundings {
            buildpacks_dir: self.arguments.path("buildpacks"),
            extensions_dir: self.arguments.path("extensions"),
            app_dir: self.arguments.path("app"),
            platform_dir: self.arguments.path("platform"),
            build_config_dir: self.arguments.path("build-config"),
            scratch_dir: scratch.path().to_owned(),
            target,
            exec_env,
            outer_env: self.env,
        }
    }

    /// What groups are chosen for. Before Platform API 0.12 there are stacks, which the platform compares, and no targets.
    fn given<'b>(&self, target: &'b RunImageTarget, exec_env: Option<&'b str>) -> Given<'b> {
        Given { target: (self.api >= TARGETS).then_some(target), exec_env }
    }

    /// The stack of the build image, before Platform API 0.12; nothing where nobody says.
    fn stack_id(&self) -> Option<String> {
        let stack = self.env.get(OsStr::new("CNB_STACK_ID")).filter(|_| self.api < TARGETS)?;
        Some(stack.to_string_lossy().into_owned()).filter(|stack| !stack.is_empty())
    }

    /// What the image is for, since Platform API 0.15.
    fn exec_env(&self) -> Option<String> {
        let given = self.env.get(OsStr::new("CNB_EXEC_ENV")).filter(|value| !value.is_empty());
        let exec_env =
            given.map_or_else(|| "production".to_owned(), |value| value.to_string_lossy().into_owned());
        Some(exec_env).filter(|_| self.api >= EXECUTION_ENVIRONMENTS)
    }

    /// Whose files are: as `-uid` and `-gid` say, else this process's user's.
    fn owner(&self) -> (u32, u32) {
        let User { uid, gid } = User::of_process();
        (self.arguments.id("uid").unwrap_or(uid), self.arguments.id("gid").unwrap_or(gid))
    }

    /// Whether metadata and layers of the last build stay away; what buildpacks stored comes back all the same.
    fn skips_layers(&self) -> bool {
        ["skip-layers", "skip-restore"].iter().any(|flag| self.arguments.on(flag))
    }

    /// Tells what is done.
    fn say(&self, text: &str) {
        if !matches!(self.arguments.text("log-level").and_then(OsStr::to_str), Some("warn" | "error")) {
            // Nobody is left to tell that standard output is closed.
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }

    /// Tells what only those want to know who look for a reason.
    fn whisper(&self, text: &str) {
        if self.arguments.text("log-level") == Some(OsStr::new("debug")) {
            self.say(text);
        }
    }

    /// Tells what went wrong but does not end the phase.
    fn warn(&self, text: &str) {
        if self.arguments.text("log-level") != Some(OsStr::new("error")) {
            // Nobody is left to tell that standard error is closed.
            let _ = writeln!(std::io::stderr(), "warning: {text}");
        }
    }
}

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
    #[error("group.toml does not say which Buildpack API buildpack `{0}` is for: detect again")]
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
    /// Before Platform API 0.12: the run image has less in it than a buildpack of the group needs.
    #[error(
        "detect: buildpack `{buildpack}` needs mixin `{mixin}`, which run image `{run}` does not have (io.buildpacks.stack.mixins): take a run image that has it"
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
        "order.toml has [[order-extensions]], which Platform API {0} has as an experiment only: set CNB_EXPERIMENTAL_MODE=warn, or remove them"
    )]
    Experiment(ApiVersion),
    /// Extensions take part, and did not say what images are to be extended with.
    #[error("detect")]
    Generate(#[from] GenerateError),
    /// No group of the order takes part.
    #[error("detect")]
    NotDetected(#[source] ResolveError),
    /// The phase would run as whom it should not, or where it can be looked into.
    #[error(transparent)]
    Privileges(#[from] PrivilegesError),
    /// The group of a creator has image extensions.
    #[error(
        "detect: the group has image extensions, which a creator cannot apply: run the phases one by one"
    )]
    CreateExtensions,
    /// What buildpacks started goes on.
    #[error("end the processes that buildpacks left running")]
    LeftRunning(#[source] std::io::Error),
    /// The build failed.
    #[error("build")]
    Build(#[from] BuildError),
    /// The metadata could not be composed.
    #[error("compose metadata")]
    Compose(#[from] ComposeError),
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
            Self::OtherStack { .. } | Self::NoMixin { .. } => 22,
            Self::NoMetadata(_) => 62,
            Self::Demand(error) => error.exit_code(),
            Self::NoFile { .. }
            | Self::File(_)
            | Self::Credentials(_)
            | Self::HideCredentials(_)
            | Self::Chosen(_)
            | Self::LeftRunning(_)
            | Self::Experiment(_) => 1,
            Self::AnalyzeImages(_) => 32,
            Self::Analyze(error) => error.exit_code(),
            Self::Restore(error) => error.exit_code(),
            Self::Describe(DescribeError::Catalog(error)) if error.is_of_api() => 12,
            Self::Detect(error) => error.exit_code(),
            Self::Privileges(error) => error.exit_code(),
            Self::CreateExtensions | Self::Describe(_) => 22,
            Self::NotDetected(error) => error.exit_code(),
            Self::Generate(error) => error.exit_code(),
            Self::Build(error) => error.exit_code(),
            Self::Compose(_) => 52,
            Self::Export(error) => error.exit_code(),
            Self::Rebase(error) => error.exit_code(),
        }
    }
}

/// Runs the phase that `name` (the program's own name, with or without a folder) says, in this process as it is.
pub fn main(name: &OsStr, args: &[OsString], env: &Env, launcher: &Launcher<'_>) -> Result<(), PhaseError> {
    start(name, args, env, launcher, privileges::as_it_is)
}

/// As [`main`], for a process that is there for the phase alone: it becomes the build's user where root started it, and nobody else may
/// look into it where it holds credentials. To be called while it has one thread.
pub fn take_process(
    name: &OsStr,
    args: &[OsString],
    env: &Env,
    launcher: &Launcher<'_>,
) -> Result<(), PhaseError> {
    start(name, args, env, launcher, privileges::settle)
}

fn start(
    name: &OsStr,
    args: &[OsString],
    env: &Env,
    launcher: &Launcher<'_>,
    settle: fn(&Phase, &Arguments, Option<User>) -> Result<(), PrivilegesError>,
) -> Result<(), PhaseError> {
    let name = Path::new(name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    // Nobody is asked for a Platform API who only asks for the version.
    if args.first().is_some_and(|word| called::is_version(word)) {
        return say_version(launcher);
    }
    let Some(phase) = PHASES.iter().find(|phase| phase.name == name) else {
        return Err(match name.as_str() {
            "lifecycle" => PhaseError::Unnamed,
            _ => PhaseError::Unknown(name),
        });
    };
    let api = platform_api(env)?;
    let arguments = Arguments::read(phase, api, args, env)?;
    if arguments.on("version") {
        return say_version(launcher);
    }
    demands::refuse(&arguments, env)?;
    let asked = (arguments.id("uid"), arguments.id("gid"));
    let user = privileges::decide(phase, User::of_process(), asked)?;
    // While this is still whoever may read them.
    let auth = if needs_credentials(phase, &arguments) { images::auth(env) } else { Ok(AuthFile::default()) };
    let auth = auth.map_err(PhaseError::Credentials)?;
    let credentials_file = images::credentials_file(env);
    settle(phase, &arguments, user)?;
    let mut env = env.clone();
    env.remove(OsStr::new(CREDENTIALS_VARIABLE));
    if phase.holds == Holds::Both {
        let passwd = file::read_text(Path::new("/etc/passwd"))?.unwrap_or_default();
        privileges::add_home(&mut env, &passwd, User::of_process(), user.is_some());
    }
    let call = Call { arguments, api, env: &env, launcher, auth, credentials_file };
    demands::warn(&call);
    (phase.run)(&call)
}

fn say_version(launcher: &Launcher<'_>) -> Result<(), PhaseError> {
    let version = launcher.metadata.get("version").and_then(serde_json::Value::as_str).unwrap_or_default();
    // Nobody is left to tell that standard output is closed.
    let _ = writeln!(std::io::stdout(), "{version}");
    Ok(())
}

/// Where images lie in folders, nobody has any use of credentials.
fn needs_credentials(phase: &Phase, arguments: &Arguments) -> bool {
    matches!(phase.holds, Holds::Credentials | Holds::Both)
        && (!arguments.on("layout") || arguments.text("cache-image").is_some())
}

fn phase_names() -> String {
    PHASES.iter().map(|phase| phase.name).collect::<Vec<_>>().join(", ")
}

fn platform_api(env: &Env) -> Result<ApiVersion, PhaseError> {
    let text = env.get(OsStr::new("CNB_PLATFORM_API")).map(|value| value.to_string_lossy().into_owned());
    let text = text.unwrap_or_default();
    let (first, last) = PLATFORM_APIS;
    if text.trim().is_empty() {
        return Err(PhaseError::NoPlatformApi { first, last });
    }
    match text.parse::<ApiVersion>() {
        Ok(version) if first <= version && version <= last => Ok(version),
        _ => Err(PhaseError::PlatformApi { text, first, last }),
    }
}
