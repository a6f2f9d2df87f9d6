//! What can be typed. No decision is made here.

pub(crate) mod auth;
mod brought;
pub(crate) mod builder;
pub(crate) mod config;
mod import;
mod prune;
mod rebase;
mod save;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use coracle::Reference;

pub(crate) use auth::{Access, Auth};
pub(crate) use brought::Brought;
pub(crate) use builder::Builder;
pub(crate) use config::Config;
pub(crate) use import::Import;
pub(crate) use prune::Prune;
pub(crate) use rebase::Rebase;
pub(crate) use save::{LoaderName, Save};

/// Build and run Cloud Native Buildpacks images: no daemon, no root.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, max_term_width = 100)]
pub(crate) struct Args {
    /// Where images are kept [default: $XDG_DATA_HOME/coracle or ~/.local/share/coracle]
    #[arg(long, global = true, env = "CORACLE_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// The most that one layer may unpack to: a number with M, G or T [default: 50G, and 200 times its compressed size]
    #[arg(long, global = true, env = "CORACLE_MAX_LAYER_SIZE", value_name = "SIZE", value_parser = size)]
    pub(crate) max_layer_size: Option<u64>,
    /// The most memory that unpacking a layer may ask for, where it is zstd with a large window: a number with M or G
    /// [default: 32M]
    #[arg(long, global = true, env = "CORACLE_MAX_ZSTD_WINDOW", value_name = "SIZE", value_parser = size)]
    pub(crate) max_zstd_window: Option<u64>,
    /// Print results and errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Tell what took how long: a table, a trace in FILE.json (Perfetto opens it) or a page in FILE.html
    #[arg(long, global = true, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) timings: Option<crate::timings::Form>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Turn source into an image with a Cloud Native Buildpacks builder
    Build(Box<Build>),
    /// Fetch an image from a registry and unpack it
    Pull(Pull),
    /// Start an image of the local store in the foreground
    Run(Run),
    /// Make an image of the archive of a root filesystem
    Import(Import),
    /// Put a built image on a newer run image, without building it again
    Rebase(Rebase),
    /// Make builders, and find some
    Builder(Builder),
    /// Log in to registries, and out of them
    Auth(Auth),
    /// Choose what holds for every command to come
    Config(Config),
    /// As `coracle config trusted-builders add`
    #[command(hide = true)]
    TrustBuilder(config::Name),
    /// As `coracle config trusted-builders remove`
    #[command(hide = true)]
    UntrustBuilder(config::Name),
    /// List the images of the local store
    Images,
    /// Write an image of the local store as an archive for docker, podman, skopeo and others
    Save(Save),
    /// Delete layers that no image names, and caches of applications that are not built any more
    Prune(Prune),
    /// Run one phase of a build on this machine's own folders, as other platforms do
    Lifecycle(Lifecycle),
}

impl Command {
    /// What is done, and to which image: the rest of the command line may hold secrets.
    pub(crate) fn title(&self) -> String {
        match self {
            Self::Build(build) => format!("build {}", build.image),
            Self::Pull(pull) => format!("pull {}", pull.image),
            Self::Run(run) => format!("run {}", run.image),
            Self::Rebase(rebase) => format!("rebase {}", rebase.image),
            Self::Save(save) => format!("save {}", save.image),
            _ => "coracle".to_owned(),
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Build {
    /// The name of the image to build
    pub(crate) image: Reference,
    /// The application's folder
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) path: PathBuf,
    /// The builder image [default: as `coracle config default-builder` says]
    #[arg(short = 'B', long, value_name = "IMAGE", env = "CORACLE_BUILDER")]
    pub(crate) builder: Option<Reference>,
    /// Trust the builder in this build, or do not: its phases then share one container, or each has one of its own [default: as
    /// `coracle config trusted-builders` says]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) trust_builder: Option<bool>,
    /// The image to run on, instead of the builder's choice
    #[arg(long, value_name = "IMAGE")]
    pub(crate) run_image: Option<Reference>,
    /// Push to the registry instead of keeping the image in the local store
    #[arg(long)]
    pub(crate) publish: bool,
    /// Hand the image, once it is built, to another engine of this machine
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "docker", value_name = "ENGINE", conflicts_with = "publish")]
    pub(crate) load: Option<LoaderName>,
    /// One more name for the image, on the same registry (repeatable)
    #[arg(short, long, value_name = "IMAGE")]
    pub(crate) tag: Vec<Reference>,
    /// A variable for the buildpacks, or copy it from the environment where there is no value (repeatable)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    #[command(flatten)]
    pub(crate) brought: Brought,
    /// A buildpack instead of the builder's order: ID[@VERSION] or a folder (repeatable)
    #[arg(short, long, value_name = "BUILDPACK")]
    pub(crate) buildpack: Vec<coracle::Buildpack>,
    /// The process type to start by default, instead of the buildpacks' choice
    #[arg(short = 'D', long, value_name = "TYPE")]
    pub(crate) default_process: Option<String>,
    /// Where layers are kept between builds [default: a folder for each image name, below --home]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Keep layers between builds in this image of a registry, so that builds elsewhere find them (with --publish)
    #[arg(long, value_name = "IMAGE", conflicts_with = "cache_dir")]
    pub(crate) cache_image: Option<Reference>,
    /// How new layers of the image are compressed: gzip, zstd or none, where wanted with a level (gzip:6, zstd:19)
    #[arg(long, value_name = "NAME[:LEVEL]", default_value = "gzip")]
    pub(crate) compression: coracle::LayerCompression,
    /// Delete what earlier builds left in the cache first, or read nothing of a cache image
    #[arg(long)]
    pub(crate) clear_cache: bool,
    /// How layers, and the copy of the application, come back that are kept between builds
    #[arg(long, value_enum, default_value_t = RestoreName::Tree)]
    pub(crate) restore: RestoreName,
    /// When builder and run image are fetched
    #[arg(long, value_enum, default_value_t = PullPolicyName::IfNotPresent)]
    pub(crate) pull_policy: PullPolicyName,
    /// Fetch nothing: images are those of the local store, whatever is missing is named
    #[arg(long, conflicts_with_all = ["pull_policy", "publish"])]
    pub(crate) offline: bool,
    /// What the image is for: buildpacks and processes may be for `production`, `test` or others only
    #[arg(long, value_name = "NAME", default_value = "production")]
    pub(crate) exec_env: coracle::ExecEnv,
    /// Leave out the buildpacks that the builder puts around those of each group (its system.toml)
    #[arg(long)]
    pub(crate) disable_system_buildpacks: bool,
    /// What launches the containers
    #[arg(long, value_enum, default_value_t = RuntimeName::Youki)]
    pub(crate) runtime: RuntimeName,
    /// The network of the buildpacks
    #[arg(long, value_enum, default_value_t = NetworkName::Host)]
    pub(crate) network: NetworkName,
    /// How long buildpacks may run, in detection and in the build: a number with s, m or h; other phases have an hour, or this where it is longer; a trusted builder, all of whose phases share a container, has twice this
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// How long buildpacks may print nothing in the build, where that has a container of its own: a number with s, m or h
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = duration)]
    pub(crate) idle_timeout: Duration,
    /// The most that layers, application and temporary files may take while buildpacks run: a number with M, G or T
    #[arg(long, value_name = "SIZE", default_value = "64G", value_parser = size)]
    pub(crate) max_disk: u64,
    /// What later buildpacks may do with `build` layers of earlier ones
    #[arg(long, value_enum, default_value_t = BuildLayersName::Snapshot)]
    pub(crate) build_layers: BuildLayersName,
    /// A layer that later buildpacks may change, or all of a buildpack (repeatable)
    #[arg(long, value_name = "BUILDPACK[:LAYER]")]
    pub(crate) shared_layer: Vec<coracle::SharedLayer>,
    /// Whose programs play the phases: `native` (Coracle's), `builder` (the builder's), an image of a lifecycle, or the path of
    /// its release archive or folder
    #[arg(long, value_name = "native|builder|IMAGE|PATH", default_value = "native")]
    pub(crate) lifecycle: coracle::LifecycleChoice,
    /// A phase that Coracle plays although --lifecycle names another lifecycle (repeatable)
    #[arg(long, value_name = "PHASE")]
    pub(crate) native_phase: Vec<coracle::NativePhase>,
    #[command(flatten)]
    pub(crate) access: Access,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum NetworkName {
    /// The host's
    Host,
    /// One of their own, with a way out through pasta (package passt) but none to this machine, to link-local neighbours or to
    /// the metadata service of a cloud
    Isolated,
    /// None but loopback
    None,
}

impl From<NetworkName> for coracle::Network {
    fn from(name: NetworkName) -> Self {
        match name {
            NetworkName::Host => Self::Host,
            NetworkName::Isolated => Self::Isolated,
            NetworkName::None => Self::None,
        }
    }
}

/// `500M`, `60G` or `1T`: powers of 1024.
fn size(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(['M', 'G', 'T']);
    let unit = match &text[number.len()..] {
        "M" => Some(1 << 20),
        "G" => Some(1 << 30),
        "T" => Some(1 << 40),
        _ => None,
    };
    let bytes =
        number.parse::<u64>().ok().zip(unit).and_then(|(number, unit): (u64, u64)| number.checked_mul(unit));
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "write a number of mebi-, gibi- or tebibytes, such as 500M, 60G or 1T".to_owned())
}

/// `90s`, `30m` or `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let seconds_of = |unit| match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    let split = text.len() - text.chars().next_back().map_or(0, char::len_utf8);
    let (number, unit) = text.split_at(split);
    let seconds = number.parse::<u64>().ok().zip(seconds_of(unit)).and_then(|(n, unit)| n.checked_mul(unit));
    match seconds {
        Some(seconds @ 1..) => Ok(Duration::from_secs(seconds)),
        _ => Err("write a number of seconds, minutes or hours, such as 90s, 30m or 2h".to_owned()),
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RestoreName {
    /// They stay unpacked, where the file system tells of changes
    Tree,
    /// From the cache, each time
    Copy,
}

impl From<RestoreName> for coracle::Restore {
    fn from(name: RestoreName) -> Self {
        match name {
            RestoreName::Tree => Self::Tree,
            RestoreName::Copy => Self::Copy,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum BuildLayersName {
    /// What they change is told of, and neither in the image nor in the cache
    Snapshot,
    /// What they like
    Shared,
    /// They cannot write there: each buildpack runs in a container of its own
    Strict,
}

impl From<BuildLayersName> for coracle::BuildLayers {
    fn from(name: BuildLayersName) -> Self {
        match name {
            BuildLayersName::Snapshot => Self::Snapshot,
            BuildLayersName::Shared => Self::Shared,
            BuildLayersName::Strict => Self::Strict,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum PullPolicyName {
    /// Each time
    Always,
    /// If the local store does not have them
    IfNotPresent,
    /// Not at all
    Never,
}

impl From<PullPolicyName> for coracle::PullPolicy {
    fn from(name: PullPolicyName) -> Self {
        match name {
            PullPolicyName::Always => Self::Always,
            PullPolicyName::IfNotPresent => Self::IfNotPresent,
            PullPolicyName::Never => Self::Never,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Lifecycle {
    /// The phase (analyzer, detector, restorer, builder, exporter or rebaser), its flags, its images; CNB_PLATFORM_API must be set
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub(crate) words: Vec<std::ffi::OsString>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Pull {
    /// The image, as REGISTRY/REPOSITORY:TAG or ...@DIGEST
    pub(crate) image: Reference,
    #[command(flatten)]
    pub(crate) access: Access,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// What launches the container
    #[arg(long, value_enum, default_value_t = RuntimeName::Youki)]
    pub(crate) runtime: RuntimeName,
    /// A program or process type to start instead of the image's own
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Set a variable, or copy it from the environment where there is no value (repeatable)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// The image
    pub(crate) image: Reference,
    /// Arguments instead of the image's command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RuntimeName {
    /// libcontainer, built in
    Youki,
    /// The program crun
    Crun,
    /// The program runc
    Runc,
}

impl From<RuntimeName> for coracle::Runtime {
    fn from(name: RuntimeName) -> Self {
        match name {
            RuntimeName::Youki => Self::Youki,
            RuntimeName::Crun => Self::Crun,
            RuntimeName::Runc => Self::Runc,
        }
    }
}
