//! How the process of an application image is started (Platform API, "launcher").
//!
//! [`plan`] decides everything from the arguments, the environment and the image's folders; only `exec.d` programs run on
//! the way. The program beside this module then becomes the process.

mod execd;
mod process;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use coracle_cnb::{ApiVersion, Metadata};

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
    /// Neither a process type nor a command was given.
    #[error("no process type and no command were given")]
    NothingToRun,
    /// The process type is not in the image.
    #[error("process type `{0}` is not in the image")]
    UnknownProcess(String),
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
            Self::File(FileError::Document { .. }) => 1,
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
    let metadata: Metadata = file::read_document("metadata.toml", &metadata_path)?
        .ok_or(LaunchError::NoMetadata(metadata_path))?;
    check_apis(&metadata)?;
    let selected = process::select(&metadata, platform_api, words, outer_env)?;

    let mut env = starting_env(outer_env);
    let layers = layers_of(&layers_dir, &metadata)?;
    for layers in &layers {
        add_layers(&mut env, layers, &selected)?;
    }
    execd::run_all(&layers, selected.kind.as_deref(), &app_dir, &mut env)?;
    if selected.direct {
        return direct(selected, env, &app_dir);
    }
    let profiles = profiles(&layers, selected.kind.as_deref(), &app_dir)?;
    Ok(through_shell(selected, env, app_dir, &profiles, words))
}

fn platform_api(env: &Env) -> Result<ApiVersion, LaunchError> {
    let text = env.get(OsStr::new("CNB_PLATFORM_API")).map(|value| value.to_string_lossy().into_owned());
    let refuse = |text: &str| LaunchError::PlatformApi(text.to_owned());
    let text = text.unwrap_or_default();
    let api: ApiVersion = text.parse().map_err(|_| refuse(&text))?;
    let spoken = ApiVersion::new(0, 7)..=ApiVersion::new(0, 15);
    if spoken.contains(&api) { Ok(api) } else { Err(refuse(&text)) }
}

fn check_apis(metadata: &Metadata) -> Result<(), LaunchError> {
    let spoken = |api: Option<ApiVersion>| api.is_some_and(crate::api::runs_buildpack_api);
    match metadata.buildpacks.iter().find(|buildpack| !spoken(buildpack.api)) {
        None => Ok(()),
        Some(buildpack) => {
            let [first, .., last] = crate::api::BUILDPACK_APIS;
            let api = buildpack.api.map(|api| api.to_string()).unwrap_or_default();
            Err(LaunchError::BuildpackApi { buildpack: buildpack.id.to_string(), api, first, last })
        }
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

/// The layers of each buildpack, in the order of the buildpacks.
fn layers_of(layers_dir: &Path, metadata: &Metadata) -> Result<Vec<Vec<PathBuf>>, FileError> {
    let of_one = |buildpack: &coracle_cnb::GroupElement| {
        let entries = file::entries(&layers_dir.join(buildpack.id.dir()))?;
        Ok(entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.path).collect())
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

fn direct(selected: Selected, env: Env, app_dir: &Path) -> Result<Launch, LaunchError> {
    let dir = app_dir.join(selected.working_dir.as_deref().unwrap_or_default());
    let program = find_program(&selected.command, &env, &dir)?;
    let words = std::iter::once(selected.command).chain(selected.args).collect();
    Ok(Launch { program, words, env, dir })
}

fn find_program(command: &OsStr, env: &Env, dir: &Path) -> Result<PathBuf, LaunchError> {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::PermissionsExt as _;
    if command.as_bytes().contains(&b'/') {
        return Ok(dir.join(command));
    }
    let runs = |path: &PathBuf| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let path = env.get(OsStr::new("PATH")).cloned().unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(command))
        .find(runs)
        .ok_or_else(|| LaunchError::NotFound(command.to_string_lossy().into_owned()))
}

/// The profile scripts that a shell reads before the process starts.
fn profiles(
    layers: &[Vec<PathBuf>],
    kind: Option<&OsStr>,
    app_dir: &Path,
) -> Result<Vec<PathBuf>, FileError> {
    let mut profiles = Vec::new();
    for layer in layers.iter().flatten() {
        let folder = layer.join("profile.d");
        for folder in std::iter::once(folder.clone()).chain(kind.map(|kind| folder.join(kind))) {
            profiles.extend(
                file::entries(&folder)?.into_iter().filter(|entry| !entry.is_dir).map(|entry| entry.path),
            );
        }
    }
    let own = app_dir.join(".profile");
    if own.is_file() {
        profiles.push(own);
    }
    Ok(profiles)
}

fn through_shell(
    selected: Selected,
    env: Env,
    app_dir: PathBuf,
    profiles: &[PathBuf],
    words: &[OsString],
) -> Launch {
    let mut script = OsString::new();
    for profile in profiles {
        script.push("source ");
        script.push(shell_quoted(profile.as_os_str()));
        script.push("\n");
    }
    if let Some(dir) = selected.working_dir.filter(|dir| !dir.is_empty()) {
        script.push("cd ");
        script.push(shell_quoted(dir.as_ref()));
        script.push("\n");
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
        dir: app_dir,
    }
}

fn shell_quoted(text: &OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let mut quoted = vec![b'\''];
    for byte in text.as_bytes() {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            other => quoted.push(*other),
        }
    }
    quoted.push(b'\'');
    OsString::from_vec(quoted)
}
