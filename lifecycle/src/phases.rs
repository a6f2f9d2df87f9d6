//! The phases as programs: one binary, told by the name it is called by (Platform API, "Lifecycle Interface").
//!
//! Speaks Platform API 0.12 and 0.13. Of their phases and flags only some are here; what is not is refused by name, with exit
//! code 3, and never ignored.

mod arguments;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use coracle_cnb::{Analyzed, ApiVersion, Group, Order, Plan};

use crate::api;
use crate::build::{self, BuildError, BuildInput, ComposeError};
use crate::detect::{Catalog, CatalogError, DetectProgramsInput, run_programs};
use crate::env::Env;
use crate::file::{self, FileError};

pub use arguments::{ArgumentError, Arguments};

/// Phases of the specification that are not here yet.
const MISSING: [&str; 7] = ["analyzer", "detector", "restorer", "exporter", "creator", "rebaser", "extender"];

/// Why a phase failed.
#[derive(Debug, thiserror::Error)]
pub enum PhaseError {
    /// The name is no phase.
    #[error("`{0}` is not a phase (phases: detect-programs, builder)")]
    Unknown(String),
    /// The phase is not here yet.
    #[error("phase `{0}` is not implemented: use the builder's own lifecycle for it")]
    Missing(String),
    /// An argument is wrong.
    #[error("read arguments")]
    Arguments(#[from] ArgumentError),
    /// The Platform API is not spoken.
    #[error("Platform API `{0}` is not supported (supported: 0.12, 0.13): set CNB_PLATFORM_API")]
    PlatformApi(String),
    /// A file that the phase needs is not there.
    #[error("read {document}: there is no `{path}`")]
    NoFile { document: &'static str, path: std::path::PathBuf },
    /// A file could not be read or written.
    #[error("run phase")]
    File(#[from] FileError),
    /// The buildpacks of the order could not be read.
    #[error("detect")]
    Detect(#[from] CatalogError),
    /// The build failed.
    #[error("build")]
    Build(#[from] BuildError),
    /// The metadata could not be composed.
    #[error("compose metadata")]
    Compose(#[from] ComposeError),
}

impl PhaseError {
    /// The exit code of the phase (Platform API, "Exit Codes").
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unknown(_) | Self::Missing(_) | Self::Arguments(_) => 3,
            Self::PlatformApi(_) => 11,
            Self::NoFile { .. } | Self::File(_) => 1,
            Self::Detect(CatalogError::Api { .. }) => 12,
            Self::Detect(_) => 22,
            Self::Build(error) => error.exit_code(),
            Self::Compose(_) => 52,
        }
    }
}

/// Runs the phase that `name` (the program's own name, with or without a folder) says.
pub fn main(name: &OsStr, args: &[OsString], env: &Env) -> Result<(), PhaseError> {
    let name = Path::new(name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    match name.as_str() {
        "detect-programs" | "builder" => {}
        missing if MISSING.contains(&missing) => return Err(PhaseError::Missing(name)),
        _ => return Err(PhaseError::Unknown(name)),
    }
    check_platform_api(env)?;
    let arguments = Arguments::read(args, env)?;
    if name == "builder" { builder(&arguments, env) } else { detect_programs(&arguments, env) }
}

fn check_platform_api(env: &Env) -> Result<(), PhaseError> {
    let text = env.get(OsStr::new("CNB_PLATFORM_API")).map(|value| value.to_string_lossy().into_owned());
    let text = text.unwrap_or_default();
    match text.parse::<ApiVersion>() {
        Ok(version) if api::PLATFORM_APIS.contains(&version) => Ok(()),
        _ => Err(PhaseError::PlatformApi(text)),
    }
}

/// What `detect-programs` leaves at `-runs`: the reports on which the decision is made elsewhere.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct DetectRuns {
    #[serde(default)]
    pub runs: Vec<crate::detect::DetectRun>,
}

fn detect_programs(arguments: &Arguments, env: &Env) -> Result<(), PhaseError> {
    let order: Order = needed("order.toml", &arguments.path("order"))?;
    let buildpacks_dir = arguments.path("buildpacks");
    let catalog = Catalog::read(&buildpacks_dir, &order)?;
    let analyzed = analyzed(arguments)?;
    let runs = run_programs(&DetectProgramsInput {
        catalog: &catalog,
        buildpacks_dir: &buildpacks_dir,
        app_dir: &arguments.path("app"),
        platform_dir: &arguments.path("platform"),
        build_config_dir: &arguments.path("build-config"),
        scratch_dir: &arguments.path("scratch"),
        target: analyzed.run_image.as_ref().and_then(|image| image.target.as_ref()),
        outer_env: env,
    });
    Ok(file::write_document(&arguments.path("runs"), &DetectRuns { runs })?)
}

fn builder(arguments: &Arguments, env: &Env) -> Result<(), PhaseError> {
    let layers_dir = arguments.path("layers");
    let group: Group = needed("group.toml", &arguments.path("group"))?;
    let plan: Plan = needed("plan.toml", &arguments.path("plan"))?;
    let analyzed = analyzed(arguments)?;
    let built = build::build(&BuildInput {
        group: &group,
        plan: &plan,
        buildpacks_dir: &arguments.path("buildpacks"),
        app_dir: &arguments.path("app"),
        layers_dir: &layers_dir,
        platform_dir: &arguments.path("platform"),
        build_config_dir: &arguments.path("build-config"),
        scratch_dir: &arguments.path("scratch"),
        target: analyzed.run_image.as_ref().and_then(|image| image.target.as_ref()),
        outer_env: env,
    })?;
    let metadata = build::compose(&built)?;
    Ok(file::write_document(&layers_dir.join("config/metadata.toml"), &metadata)?)
}

fn analyzed(arguments: &Arguments) -> Result<Analyzed, FileError> {
    Ok(file::read_document("analyzed.toml", &arguments.path("analyzed"))?.unwrap_or_default())
}

fn needed<T: serde::de::DeserializeOwned>(document: &'static str, path: &Path) -> Result<T, PhaseError> {
    file::read_document(document, path)?.ok_or_else(|| PhaseError::NoFile { document, path: path.to_owned() })
}

/// A flag: its name, the variable that stands in for it, and its default (`<layers>` is filled in).
type Flag = (&'static str, &'static str, &'static str);

/// The flags that the phases here understand.
const FLAGS: [Flag; 11] = [
    ("analyzed", "CNB_ANALYZED_PATH", "<layers>/analyzed.toml"),
    ("app", "CNB_APP_DIR", "/workspace"),
    ("build-config", "CNB_BUILD_CONFIG_DIR", "/cnb/build-config"),
    ("buildpacks", "CNB_BUILDPACKS_DIR", "/cnb/buildpacks"),
    ("group", "CNB_GROUP_PATH", "<layers>/group.toml"),
    ("layers", "CNB_LAYERS_DIR", "/layers"),
    ("order", "CNB_ORDER_PATH", "/cnb/order.toml"),
    ("plan", "CNB_PLAN_PATH", "<layers>/plan.toml"),
    ("platform", "CNB_PLATFORM_DIR", "/platform"),
    ("runs", "", "<layers>/detect-runs.toml"),
    ("scratch", "", "/tmp/coracle-plans"),
];

/// The values of all flags, by name.
type Values = BTreeMap<&'static str, OsString>;
