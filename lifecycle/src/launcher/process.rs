//! Which process is meant.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use coracle_cnb::{ApiVersion, Metadata, Process};

use super::LaunchError;
use crate::env::Env;

/// The process to start, with the user's arguments in place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selected {
    pub(super) kind: Option<OsString>,
    pub(super) command: OsString,
    pub(super) args: Vec<OsString>,
    pub(super) direct: bool,
    pub(super) working_dir: Option<String>,
}

/// Selects by the launcher's own name (a link under `/cnb/process`); where that is no process, the arguments are a command.
pub(super) fn select(
    metadata: &Metadata,
    platform_api: ApiVersion,
    words: &[OsString],
    env: &Env,
) -> Result<Selected, LaunchError> {
    let (name, args) = words.split_first().ok_or(LaunchError::NothingToRun)?;
    let called = Path::new(name).file_name().unwrap_or_default();
    let mut of_name = metadata.processes.iter().filter(|process| process.kind.as_str() == called).peekable();
    let is_process = of_name.peek().is_some();
    let mut visible =
        of_name.filter(|process| platform_api < ApiVersion::new(0, 15) || in_exec_env(process, env));
    if let Some(process) = visible.next() {
        return of_process(metadata, platform_api, process, args);
    }
    if is_process {
        // What follows are a process's arguments, and no command.
        return Err(LaunchError::OtherExecEnv {
            process: called.to_string_lossy().into_owned(),
            exec_env: exec_env(env).to_string_lossy().into_owned(),
        });
    }
    let user = |command: &OsString, args: &[OsString], direct| Selected {
        kind: None,
        command: command.clone(),
        args: args.to_vec(),
        direct,
        working_dir: None,
    };
    match args {
        [] => Err(LaunchError::NothingToRun),
        [dashes, command, args @ ..] if dashes == "--" => Ok(user(command, args, true)),
        [command, args @ ..] => Ok(user(command, args, false)),
    }
}

/// What the process is started for.
fn exec_env(env: &Env) -> &OsStr {
    let wanted = env.get(OsStr::new("CNB_EXEC_ENV")).filter(|value| !value.is_empty());
    wanted.map_or(OsStr::new("production"), OsString::as_os_str)
}

fn in_exec_env(process: &Process, env: &Env) -> bool {
    let wanted = exec_env(env);
    process.exec_env.is_empty()
        || process.exec_env.iter().any(|offered| offered == "*" || wanted == offered.as_str())
}

fn of_process(
    metadata: &Metadata,
    platform_api: ApiVersion,
    process: &Process,
    user_args: &[OsString],
) -> Result<Selected, LaunchError> {
    let mut words = process.command.words();
    let id = process.buildpack_id.as_ref();
    let buildpack = metadata.buildpacks.iter().find(|buildpack| Some(&buildpack.id) == id);
    let unknown = || LaunchError::UnknownBuildpack {
        process: process.kind.to_string(),
        buildpack: id.map(ToString::to_string).unwrap_or_default(),
    };
    let own_args = || process.args.iter().flatten().map(OsString::from);
    let direct = process.direct.unwrap_or(false);
    let mut args: Vec<OsString> = Vec::new();
    // Since Buildpack API 0.9 there are words that stay, and what the user gives takes the place of the process's own arguments.
    let replaces = if platform_api < ApiVersion::new(0, 10) {
        if !direct && words.len() > 1 {
            words = vec![words.join(" ")];
        }
        false
    } else if words.len() > 1 {
        true
    } else if user_args.is_empty() {
        false
    } else {
        let api = buildpack.ok_or_else(unknown)?.api;
        api.is_some_and(|api| api >= ApiVersion::new(0, 9))
    };
    args.extend(words.iter().skip(1).map(OsString::from));
    if !replaces || user_args.is_empty() {
        args.extend(own_args());
    }
    args.extend(user_args.iter().cloned());
    if !direct && !args.is_empty() && id.is_some() && buildpack.is_none() {
        return Err(unknown());
    }
    let command = match words.into_iter().next() {
        Some(command) => command.into(),
        None if direct => return Err(LaunchError::NoCommand(process.kind.to_string())),
        None => OsString::new(),
    };
    Ok(Selected {
        kind: Some(process.kind.as_str().into()),
        command,
        args,
        direct,
        working_dir: process.working_dir.clone().filter(|dir| !dir.is_empty()),
    })
}
