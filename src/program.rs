//! This program as a phase of a build: in a container of ours, or wherever another platform calls it.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use coracle_images::Secret;
use coracle_lifecycle::env::Env;
use coracle_lifecycle::phases::{self, CREDENTIALS_VARIABLE, Called, PhaseError, PrivilegesError};
use coracle_runtime::sealed_memory;
use serde::{Deserialize, Serialize};

use crate::launcher::launcher;
use crate::lifecycle_files;

/// The name of the memory in which this program hands credentials to itself, in the form of [`CREDENTIALS_VARIABLE`].
pub(crate) const CREDENTIALS_MEMORY: &CStr = c"coracle-credentials";

/// The name of the memory in which a conductor hands over [`HandedOver`] to the creator, in JSON.
pub(crate) const CREATOR_MEMORY: &CStr = c"coracle-creator";

/// What the creator has of the user that programs beside it must not have.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct HandedOver {
    /// In the form of [`CREDENTIALS_VARIABLE`].
    pub(crate) credentials: Option<Secret>,
    /// `HTTP_PROXY` and its kind, with name and password.
    pub(crate) proxies: Vec<(String, Secret)>,
}

/// Plays the phase that `words` call, a program's name and its arguments, if they call one; returns its exit code. Reads the
/// environment, as phases do. `report` shows a failure.
///
/// Whoever runs as the same user can read the environment that a process was started with (`proc_pid_environ(5)`), however the
/// process changes it later: with credentials in its environment, this program starts again without them. Where the phase has a use of
/// them, it finds them on its standard input, which nothing else needs, in sealed memory that is gone once it is read.
pub fn play_phase(words: &[OsString], report: fn(&dyn std::error::Error)) -> Option<i32> {
    let called = Called::by(words)?;
    if called.name == lifecycle_files::WORD {
        return Some(lifecycle_files::write(&called.args).map_or_else(
            |error| {
                report(&error);
                1
            },
            |()| 0,
        ));
    }
    let played = match std::env::var_os(CREDENTIALS_VARIABLE) {
        Some(credentials) => Err(PhaseError::HideCredentials(start_again(&called, words, &credentials))),
        None => play(&called),
    };
    Some(played.map_or_else(
        |error| {
            report(&error);
            i32::from(error.exit_code())
        },
        |()| 0,
    ))
}

fn play(called: &Called) -> Result<(), PhaseError> {
    // What the platform left open is not for programs of buildpacks. Linux before 5.11 has no such call.
    let _ = coracle_runtime::keep_inherited_descriptors();
    let mut env: Env = std::env::vars_os().collect();
    if called.holds_credentials() {
        phases::close_process().map_err(PhaseError::from)?;
        let taken = take_handed_over().map_err(PhaseError::HideCredentials)?;
        let credentials = taken.credentials.as_ref().map(|text| text.as_str());
        env.extend(credentials.map(|text| (CREDENTIALS_VARIABLE.into(), text.into())));
        // For clients of registries, which look there. What programs of buildpacks inherit has been read already.
        for (name, value) in &taken.proxies {
            coracle_runtime::set_variable(name, value).map_err(PhaseError::HideCredentials)?;
        }
    }
    if called.holds_both() && !nix::unistd::geteuid().is_root() {
        // Some platforms give capabilities to users too, whose programs would have them: to look into any process, for one.
        let failed = |source| PhaseError::Privileges(PrivilegesError::Close { call: "capset", source });
        coracle_runtime::drop_capabilities().map_err(failed)?;
    }
    phases::take_process(&called.name, &called.args, &env, &launcher())
}

/// Becomes this program with the same words and without the variable; returns only the reason why not.
fn start_again(called: &Called, words: &[OsString], credentials: &OsStr) -> io::Error {
    let Some((name, args)) = words.split_first() else { return io::ErrorKind::InvalidInput.into() };
    let mut again = Command::new("/proc/self/exe");
    again.arg0(name).args(args).env_remove(CREDENTIALS_VARIABLE);
    if called.holds_credentials() && !credentials.is_empty() {
        match sealed_memory(CREDENTIALS_MEMORY, credentials.as_bytes()) {
            Ok(memory) => again.stdin(memory),
            Err(error) => return error,
        };
    }
    again.exec()
}

/// What whoever started this program has handed over, if so. Afterwards standard input has nothing to read.
fn take_handed_over() -> io::Result<HandedOver> {
    // Without /proc this program has not started itself.
    let Ok(link) = std::fs::read_link("/proc/self/fd/0") else { return Ok(HandedOver::default()) };
    let is =
        |memory: &CStr| link.as_os_str() == format!("/memfd:{} (deleted)", memory.to_string_lossy()).as_str();
    let whole = is(CREATOR_MEMORY);
    if !whole && !is(CREDENTIALS_MEMORY) {
        return Ok(HandedOver::default());
    }
    let mut text = Secret::default();
    io::stdin().lock().read_to_string(&mut text)?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    if whole {
        return Ok(serde_json::from_str(&text)?);
    }
    Ok(HandedOver { credentials: Some(text), proxies: Vec::new() })
}
