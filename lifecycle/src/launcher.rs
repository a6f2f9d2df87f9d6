//! How the process of an application image is started (Platform API, "launcher").
//!
//! [`plan`] decides everything from the arguments, the environment and the image's folders; only `exec.d` programs run on
//! the way. The program beside this module then becomes the process.

mod execd;
mod process;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use coracle_cnb::{ApiVersion, BuildpackId, GroupElement, IdError, Metadata, Process};
use serde::Deserialize;

use crate::env::{Action, Env, EnvDelta, Purpose, add_layer_dirs};
use crate::file::{self, FileError};
use process::Selected;

/// Variables of the launcher that the process does not get.
const LAUNCHER_VARIABLES: [&str; 5] =
    ["CNB_LAYERS_DIR", "CNB_APP_DIR", "CNB_PROCESS_TYPE", "CNB_PLATFORM_API", "CNB_DEPRECATION_MODE"];

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The image was made for a Platform API that is not spoken here (exit 11).
    #[error("Platform API `{0}` is not supported (supported: 0.7 to 0.15): set CNB_PLATFORM_API")]
    PlatformApi(String),
    /// A buildpack of the image was made for a Buildpack API that is not spoken here (exit 12).
    #[error(
        "buildpack `{buildpack}`: Buildpack API `{api}` is not supported (supported: {first} to {last}): build the image again"
    )]
    BuildpackApi { buildpack: String, api: String, first: ApiVersion, last: ApiVersion },
    /// A buildpack of the image is not one (exit 1).
    #[error("read metadata")]
    BuildpackId(#[source] IdError),
    /// Neither a process type nor a command was given.
    #[error("no process type and no command were given")]
    NothingToRun,
    /// The image has the process for other execution environments.
    #[error("process type `{process}` is not for the execution environment `{exec_env}`: set CNB_EXEC_ENV")]
    OtherExecEnv { process: String, exec_env: String },
    /// Whose process it is decides how it is started.
    #[error(
        "process type `{process}` is of buildpack `{buildpack}`, which the image's metadata does not name"
    )]
    UnknownBuildpack { process: String, buildpack: String },
    /// The process has no command.
    #[error("process type `{0}` has no command")]
    NoCommand(String),
    /// The program is not on the path.
    #[error("find program `{0}`: it is not on PATH")]
    NotFound(String),
    /// The image's metadata is missing.
    #[error("read metadata: there is no `{0}`")]
    NoMetadata(PathBuf),
    /// A file of the image could not be read.
    #[error("read the image's files")]
    File(#[from] FileError),
    /// The working folder could not be entered.
    #[error("enter folder: `{path}`")]
    Enter {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// An `exec.d` program could not be run.
    #[error("run exec.d program: `{path}`")]
    ExecD {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// An `exec.d` program ended with a failure.
    #[error("run exec.d program: `{path}` ended with {status}")]
    ExecDFailed { path: PathBuf, status: std::process::ExitStatus },
    /// An `exec.d` program wrote something else than a table of texts.
    #[error("read what exec.d program wrote: `{path}`")]
    ExecDOutput {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The process itself could not be started.
    #[error("start `{program}`")]
    Start {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl LaunchError {
    /// The exit code of the launcher (Platform API, "launcher").
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::PlatformApi(_) => 11,
            Self::BuildpackApi { .. } => 12,
            Self::NoMetadata(_) | Self::BuildpackId(_) | Self::File(FileError::Document { .. }) => 1,
            _ => 82,
        }
    }
}

/// A process that is ready to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    pub program: PathBuf,
    /// The first word is the name under which the program sees itself.
    pub words: Vec<OsString>,
    pub env: Env,
    pub dir: PathBuf,
}

/// Decides what to start. `words` are the launcher's own arguments with its name first, `outer_env` its environment.
pub fn plan(words: &[OsString], outer_env: &Env) -> Result<Launch, LaunchError> {
    let platform_api = platform_api(outer_env)?;
    let setting = |name: &str, default: &str| -> PathBuf {
        outer_env
            .get(OsStr::new(name))
            .filter(|value| !value.is_empty())
            .map_or(default.into(), PathBuf::from)
    };
    let layers_dir = setting("CNB_LAYERS_DIR", "/layers");
    let app_dir = setting("CNB_APP_DIR", "/workspace");
    let metadata_path = layers_dir.join("config/metadata.toml");
    let said: Said = file::read_document("metadata.toml", &metadata_path)?
        .ok_or(LaunchError::NoMetadata(metadata_path))?;
    let metadata = said.of_spoken_apis()?;
    let selected = process::select(&metadata, platform_api, words, outer_env)?;

    // From here on the application's folder is where everything begins.
    let own_path =
        std::path::absolute(&app_dir).and_then(|path| path.metadata().map(|found| (path, found.is_dir())));
    let enter = |source| LaunchError::Enter { path: app_dir.clone(), source };
    let home = match own_path {
        Ok((path, true)) => path,
        Ok((_, false)) => return Err(enter(io::ErrorKind::NotADirectory.into())),
        Err(source) => return Err(enter(source)),
    };
    let mut env = starting_env(outer_env);
    let layers = layers_of(&home.join(layers_dir), &metadata)?;
    for layers in &layers {
        add_layers(&mut env, layers, &selected)?;
    }
    execd::run_all(&layers, selected.kind.as_deref(), &home, &mut env)?;
    // A relative one is looked for in itself, as there.
    let own = home.join(&app_dir);
    let working_dir = selected.working_dir.as_ref().map_or(app_dir, PathBuf::from);
    if selected.direct {
        return direct(selected, env, &home, &working_dir);
    }
    let profiles = profiles(&layers, selected.kind.as_deref(), &own)?;
    Ok(through_shell(selected, env, (home, &working_dir), &profiles, words))
}

fn platform_api(env: &Env) -> Result<ApiVersion, LaunchError> {
    let text = env.get(OsStr::new("CNB_PLATFORM_API")).map(|value| value.to_string_lossy().into_owned());
    let refuse = |text: &str| LaunchError::PlatformApi(text.to_owned());
    let text = text.unwrap_or_default();
    let api: ApiVersion = text.parse().map_err(|_| refuse(&text))?;
    let spoken = ApiVersion::new(0, 7)..=ApiVersion::new(0, 15);
    if spoken.contains(&api) { Ok(api) } else { Err(refuse(&text)) }
}

/// What of metadata.toml matters here: the rest is not looked at, whatever it is.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    buildpacks: Vec<SaidBuildpack>,
    #[serde(default)]
    processes: Vec<Process>,
}

#[derive(Deserialize)]
struct SaidBuildpack {
    #[serde(default)]
    id: String,
    /// Any text.
    #[serde(default)]
    api: String,
}

impl Said {
    /// Fails with the first Buildpack API that is not spoken, or is none.
    fn of_spoken_apis(self) -> Result<Metadata, LaunchError> {
        let spoken = |SaidBuildpack { id, api: text }| {
            let api = text.parse().ok().filter(|api| crate::api::runs_buildpack_api(*api));
            let [first, .., last] = crate::api::BUILDPACK_APIS;
            let refused = || {
                let (buildpack, api) = (id.clone(), text.clone());
                LaunchError::BuildpackApi { buildpack, api, first, last }
            };
            let api = Some(api.ok_or_else(refused)?);
            let id: BuildpackId = id.parse().map_err(LaunchError::BuildpackId)?;
            Ok(GroupElement { id, version: String::new(), api, homepage: None, optional: false })
        };
        let buildpacks = self.buildpacks.into_iter().map(spoken).collect::<Result<_, LaunchError>>()?;
        Ok(Metadata { buildpacks, processes: self.processes, ..Metadata::default() })
    }
}

fn starting_env(outer: &Env) -> Env {
    let mut env = outer.clone();
    env.retain(|name, _| !LAUNCHER_VARIABLES.iter().any(|own| name == own));
    if let Some(path) = env.get_mut(OsStr::new("PATH")) {
        let own = [Path::new("/cnb/process"), Path::new("/cnb/lifecycle")];
        let kept = std::env::split_paths(path).filter(|folder| !own.contains(&folder.as_path()));
        // Parts of a list split at colons hold no colon, so joining them cannot fail.
        *path = std::env::join_paths(kept).unwrap_or_default();
    }
    env
}

/// The layers of each buildpack, in the order of the buildpacks. A link is none.
fn layers_of(layers_dir: &Path, metadata: &Metadata) -> Result<Vec<Vec<PathBuf>>, FileError> {
    let of_one = |buildpack: &GroupElement| {
        let entries = file::entries(&layers_dir.join(buildpack.id.dir()))?;
        let layers = entries.into_iter().filter(|entry| entry.is_dir && !entry.is_link);
        Ok(layers.map(|entry| entry.path).collect())
    };
    metadata.buildpacks.iter().map(of_one).collect()
}

fn add_layers(env: &mut Env, layers: &[PathBuf], selected: &Selected) -> Result<(), FileError> {
    for layer in layers {
        add_layer_dirs(env, layer, Purpose::Launch);
    }
    for layer in layers {
        EnvDelta::read(&layer.join("env"), Action::Override)?.apply(env);
        EnvDelta::read(&layer.join("env.launch"), Action::Override)?.apply(env);
        if let Some(kind) = &selected.kind {
            EnvDelta::read(&layer.join("env.launch").join(kind), Action::Override)?.apply(env);
        }
    }
    Ok(())
}

/// `home` is the application's folder, from which the program is looked for and its folder entered.
fn direct(selected: Selected, env: Env, home: &Path, working_dir: &Path) -> Result<Launch, LaunchError> {
    let program = find_program(&selected.command, &env, home)?;
    let words = std::iter::once(selected.command).chain(selected.args).collect();
    Ok(Launch { program, words, env, dir: home.join(working_dir) })
}

/// A command with a slash is a path: looked for from the application's folder, started from the process's. What only an empty or
/// relative folder of `PATH` has is not found, for anybody could have put it there.
fn find_program(command: &OsStr, env: &Env, home: &Path) -> Result<PathBuf, LaunchError> {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::PermissionsExt as _;
    let runs = |path: &Path| {
        home.join(path).metadata().is_ok_and(|file| !file.is_dir() && file.permissions().mode() & 0o111 != 0)
    };
    let missing = || LaunchError::NotFound(command.to_string_lossy().into_owned());
    if command.as_bytes().contains(&b'/') {
        let program = PathBuf::from(command);
        return if runs(&program) { Ok(program) } else { Err(missing()) };
    }
    let path = env.get(OsStr::new("PATH")).cloned().unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(command)).find(|path| runs(path));
    found.filter(|path| path.is_absolute()).ok_or_else(missing)
}

/// The profile scripts that a shell reads before the process starts: to its end, so that a FIFO or a device would never let it start.
fn profiles(
    layers: &[Vec<PathBuf>],
    kind: Option<&OsStr>,
    app_dir: &Path,
) -> Result<Vec<PathBuf>, FileError> {
    let mut profiles = Vec::new();
    for layer in layers.iter().flatten() {
        let folder = layer.join("profile.d");
        for folder in std::iter::once(folder.clone()).chain(kind.map(|kind| folder.join(kind))) {
            for entry in file::entries(&folder)?.into_iter().filter(|entry| !entry.is_dir) {
                check_that_it_ends(&entry.path)?;
                profiles.push(entry.path);
            }
        }
    }
    let own = app_dir.join(".profile");
    if own.metadata().is_ok_and(|own| !own.is_dir()) {
        check_that_it_ends(&own)?;
        profiles.push(".profile".into());
    }
    Ok(profiles)
}

/// What cannot be looked at is for the shell to tell of.
fn check_that_it_ends(script: &Path) -> Result<(), FileError> {
    let is_unfit = script.metadata().is_ok_and(|about| !about.is_file());
    if is_unfit { Err(FileError::Unfit { path: script.to_owned() }) } else { Ok(()) }
}

/// Paths stand between double quotes, as with the reference: variables in a working folder count.
fn through_shell(
    selected: Selected,
    env: Env,
    (home, working_dir): (PathBuf, &Path),
    profiles: &[PathBuf],
    words: &[OsString],
) -> Launch {
    let mut script = OsString::new();
    let entered = [("cd", working_dir)];
    let sourced = profiles.iter().map(|profile| ("source", profile.as_path()));
    for (act, path) in sourced.chain(entered) {
        script.push(act);
        script.push(" \"");
        script.push(path);
        script.push("\"\n");
    }
    if selected.args.is_empty() {
        script.push("exec bash -c \"$@\"");
    } else {
        // Each word is evaluated by itself, so that variables in it count and spaces in it do not split it.
        let tokens: Vec<String> =
            (0..=selected.args.len()).map(|at| format!("\"$(eval echo \\\"${{{at}}}\\\")\"")).collect();
        script.push(format!("exec bash -c '{}' \"$@\"", tokens.join(" ")));
    }
    let caller = words.first().cloned().unwrap_or_default();
    let words = ["bash".into(), "-c".into(), script, caller, selected.command];
    Launch {
        program: "/bin/bash".into(),
        words: words.into_iter().chain(selected.args).collect(),
        env,
        dir: home,
    }
}
