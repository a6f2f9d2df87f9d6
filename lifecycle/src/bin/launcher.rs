//! The program that starts the processes of an application image.
//!
//! A file of its own, and small: it is a layer of every image that is built.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use coracle_lifecycle::launcher::{LaunchError, plan};
use coracle_lifecycle::with_causes;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    if std::env::var_os("CNB_PROCESS_TYPE").is_some_and(|kind| !kind.is_empty()) {
        warn("CNB_PROCESS_TYPE chooses nothing: start the image with the entrypoint /cnb/process/TYPE");
    }
    let error = match plan(&words, &std::env::vars_os().collect()) {
        Ok(launch) => become_process(launch),
        Err(error) => error,
    };
    report(&error);
    ExitCode::from(error.exit_code())
}

/// Returns only when the process could not be started.
fn become_process(launch: coracle_lifecycle::launcher::Launch) -> LaunchError {
    if let Err(source) = std::env::set_current_dir(&launch.dir) {
        return LaunchError::Enter { path: launch.dir, source };
    }
    let mut words = launch.words.into_iter();
    let mut command = Command::new(&launch.program);
    command.arg0(words.next().unwrap_or_default()).args(words).env_clear().envs(launch.env);
    LaunchError::Start { program: launch.program, source: command.exec() }
}

#[expect(clippy::print_stderr, reason = "here and in `report` is what the user reads")]
fn warn(text: &str) {
    eprintln!("warning: {text}");
}

#[expect(clippy::print_stderr, reason = "here and in `warn` is what the user reads")]
fn report(error: &LaunchError) {
    eprintln!("error: {}", with_causes(error));
}
