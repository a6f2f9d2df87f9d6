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

/// Selects by the launcher's own name (a link under `/cnb/process`), or takes the arguments as a command.
pub(super) fn select(
    metadata: &Metadata,
    platform_api: ApiVersion,
    words: &[OsString],
    env: &Env,
) -> Result<Selected, LaunchError> {
    let (name, args) = words.split_first().ok_or(LaunchError::NothingToRun)?;
    let called = Path::new(name).file_name().unwrap_or_default();
    let visible = |process: &&Process| {
        process.kind.as_str() == called
            && (platform_api < ApiVersion::new(0, 15) || in_exec_env(process, env))
    };
    if let Some(process) = metadata.processes.iter().find(visible) {
        return of_process(metadata, platform_api, process, args);
    }
    let is_link = Path::new(name).parent().is_some_and(|folder| folder.ends_with("cnb/process"));
    if is_link && called != "launcher" {
        return Err(LaunchError::UnknownProcess(called.to_string_lossy().into_owned()));
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
        [dashes] if dashes == "--" => Err(LaunchError::NothingToRun),
        [dashes, command, args @ ..] if dashes == "--" => Ok(user(command, args, true)),
        [command, args @ ..] => Ok(user(command, args, false)),
    }
}

fn in_exec_env(process: &Process, env: &Env) -> bool {
    let wanted = env.get(OsStr::new("CNB_EXEC_ENV")).filter(|value| !value.is_empty());
    let wanted = wanted.map_or(OsStr::new("production"), OsString::as_os_str);
    process.exec_env.is_empty()
        || process.exec_env.iter().any(|offered| offered == "*" || wanted == offered.as_str())
}

fn of_process(
    metadata: &Metadata,
    platform_api: ApiVersion,
    process: &Process,
    user_args: &[OsString],
) -> Result<Selected, LaunchError> {
    let words = process.command.words();
    let (command, fixed) =
        words.split_first().ok_or_else(|| LaunchError::NoCommand(process.kind.to_string()))?;
    let buildpack =
        metadata.buildpacks.iter().find(|buildpack| Some(&buildpack.id) == process.buildpack_id.as_ref());
    let api = buildpack.and_then(|buildpack| buildpack.api);
    // Since Buildpack API 0.9, what the user gives takes the place of the process's own arguments.
    let replaces =
        platform_api >= ApiVersion::new(0, 10) && api.is_some_and(|api| api >= ApiVersion::new(0, 9));
    let own_args = process.args.iter().flatten();
    let mut args: Vec<OsString> = fixed.iter().map(OsString::from).collect();
    if !replaces || user_args.is_empty() {
        args.extend(own_args.map(OsString::from));
    }
    args.extend(user_args.iter().cloned());
    Ok(Selected {
        kind: Some(process.kind.as_str().into()),
        command: command.into(),
        args,
        direct: process.direct.unwrap_or(false),
        working_dir: process.working_dir.clone(),
    })
}
