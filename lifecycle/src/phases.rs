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
mod created;
mod creator;
mod demands;
mod describe_builder;
mod detect_programs;
mod detector;
mod documents;
mod error;
mod exporter;
mod exposed;
mod extended;
mod flags;
mod generate_programs;
mod images;
mod keys;
mod outputs;
mod owner;
mod privileges;
mod rebaser;
mod restorer;
mod scratch;
mod stacks;
mod table;
mod times;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use coracle_cnb::{Analyzed, ApiVersion, RunImageTarget};
use coracle_images::AuthFile;

use crate::api::{EXECUTION_ENVIRONMENTS, PLATFORM_APIS, TARGETS};
use crate::detect::{self, Given};
use crate::env::Env;
use crate::file::{self, FileError};
use crate::surroundings::Surroundings;
use crate::with_causes;

use self::flags::Verbosity;
use self::keys::{Found, Keys};
use self::scratch::Scratch;

pub use crate::export::Launcher;
pub use arguments::{ArgumentError, Arguments};
pub use called::Called;
pub use chosen::{ChosenError, offers};
pub use demands::DemandError;
pub use detect_programs::DetectRuns;
pub use error::PhaseError;
pub use exporter::ExporterError;
pub use generate_programs::Chosen;
pub use images::{ImagesError, layout_path};
pub use owner::OwnerError;
pub use privileges::{PrivilegesError, User, close_process};
pub use rebaser::{RUN_IMAGE_UNREADABLE, RebaserError};
pub use times::{Took, took};

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
    /// Where that is from.
    keys: Keys,
    /// Helpers that programs of the same user can ask as this process did.
    asked: BTreeSet<String>,
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
        let exec_env = exec_env.filter(|_| self.api >= EXECUTION_ENVIRONMENTS);
        Given { target: (self.api >= TARGETS).then_some(target), exec_env }
    }

    /// The stack of the build image, before Platform API 0.12; nothing where nobody says.
    fn stack_id(&self) -> Option<String> {
        let stack = self.env.get(OsStr::new("CNB_STACK_ID")).filter(|_| self.api < TARGETS)?;
        Some(stack.to_string_lossy().into_owned()).filter(|stack| !stack.is_empty())
    }

    /// What the image is for. Platforms speak of it since Platform API 0.15, but buildpacks that know of it are always told.
    fn exec_env(&self) -> String {
        let given = self.env.get(OsStr::new("CNB_EXEC_ENV")).filter(|value| !value.is_empty());
        given.map_or_else(|| "production".to_owned(), |value| value.to_string_lossy().into_owned())
    }

    /// Whose an image's files are: as `-uid` and `-gid` say, else root's, whoever builds it.
    fn owner(&self) -> (u32, u32) {
        (self.arguments.id("uid").unwrap_or(0), self.arguments.id("gid").unwrap_or(0))
    }

    /// Whether metadata and layers of the last build stay away; what buildpacks stored comes back all the same.
    fn skips_layers(&self) -> bool {
        ["skip-layers", "skip-restore"].iter().any(|flag| self.arguments.on(flag))
    }

    /// Tells what is done.
    fn say(&self, text: &str) {
        if self.arguments.verbosity() >= Verbosity::Info {
            // Nobody is left to tell that standard output is closed.
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }

    /// Tells what only those want to know who look for a reason.
    fn whisper(&self, text: &str) {
        if self.arguments.verbosity() >= Verbosity::Debug {
            self.say(text);
        }
    }

    /// Tells what went wrong but does not end the phase.
    fn warn(&self, text: &str) {
        if self.arguments.verbosity() >= Verbosity::Warn {
            // Nobody is left to tell that standard error is closed.
            let _ = writeln!(std::io::stderr(), "warning: {text}");
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
        if name == "lifecycle" {
            return Err(PhaseError::Unnamed);
        }
        return Err(platform_api(env).map_or_else(|error| error, |_| PhaseError::Unknown(name)));
    };
    let api = platform_api(env)?;
    let arguments = Arguments::read(phase, api, args, env)?;
    if arguments.on("version") {
        return say_version(launcher);
    }
    if arguments.asks_for_help() {
        // Nobody is left to tell that standard output is closed.
        let _ = write!(std::io::stdout(), "{}", flags::usage(phase, api));
        return Ok(());
    }
    demands::refuse(&arguments, env)?;
    let asked = (arguments.id("uid"), arguments.id("gid"));
    let user = privileges::decide(phase, User::of_process(), asked)?;
    // While this is still whoever may read them.
    let needs_some = needs_credentials(phase, &arguments);
    let keys = if needs_some { Keys::read(env, &arguments) } else { Ok(Keys::default()) };
    let keys = keys.map_err(PhaseError::Credentials)?;
    let found = keys.of_phase(phase, &arguments, api).map_err(PhaseError::Credentials)?;
    let credentials_file = keys::credentials_file(env);
    settle(phase, &arguments, user)?;
    let mut env = env.clone();
    env.remove(OsStr::new(CREDENTIALS_VARIABLE));
    if phase.holds == Holds::Both {
        let passwd = file::read_text(Path::new("/etc/passwd"))?.unwrap_or_default();
        privileges::add_home(&mut env, &passwd, User::of_process(), user.is_some());
    }
    let Found { auth, notices, answered } = found;
    // What root's helpers say they need not say to another user.
    let asked = if user.is_none() { answered } else { BTreeSet::new() };
    let call = Call { arguments, api, env: &env, launcher, auth, keys, asked, credentials_file };
    notices.iter().for_each(|text| call.warn(text));
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
