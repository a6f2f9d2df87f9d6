//! This program as a phase of a build: in a container of ours, or wherever another platform calls it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use coracle_lifecycle::phases::{self, CREDENTIALS_VARIABLE, Called, PhaseError};

use crate::launcher::launcher;

/// Plays the phase that `words` call, a program's name and its arguments, if they call one; returns its exit code. Reads the
/// environment, as phases do. `report` shows a failure.
pub fn play_phase(words: &[OsString], report: fn(&dyn std::error::Error)) -> Option<i32> {
    let called = Called::by(words)?;
    let failed = |error: PhaseError| {
        report(&error);
        i32::from(error.exit_code())
    };
    let has_credentials = std::env::var_os(CREDENTIALS_VARIABLE).is_some();
    if has_credentials && let Err(source) = hide_credentials(&called, words) {
        return Some(failed(PhaseError::HideCredentials(source)));
    }
    let env = std::env::vars_os().collect();
    Some(phases::main(&called.name, &called.args, &env, &launcher()).map_or_else(failed, |()| 0))
}

/// Whoever runs as the same user can read the environment that a process was started with (proc_pid_environ(5)), however the
/// process changes it later. A phase that runs foreign programs therefore starts again without the credentials, of which it
/// has no use; any other closes that file, and its memory, to all but root (`PR_SET_DUMPABLE`, prctl(2)).
fn hide_credentials(called: &Called, words: &[OsString]) -> std::io::Result<()> {
    if !called.runs_foreign_programs() {
        return Ok(nix::sys::prctl::set_dumpable(false)?);
    }
    let mut again = Command::new("/proc/self/exe");
    let (name, args) = words.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    Err(again.arg0(name).args(args).env_remove(CREDENTIALS_VARIABLE).exec())
}
