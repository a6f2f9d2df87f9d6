//! Launches a prepared bundle: through youki's libcontainer, in this process, or through crun or runc. The only file
//! that names libcontainer. It changes its caller (dumpable flag, folder, children), so only a launcher calls it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::protocol::with_causes;
use crate::sandbox::{InitReport, LaunchReport, Runtime};
use crate::sys;

/// Where the runtimes keep their state: in the stage's own root, gone with it.
const STATE: &str = "/run/coracle";

/// Run the bundle to its end. Standard output and error are the caller's.
pub(crate) fn run(runtime: Runtime, id: &str, bundle: &Path, input: File) -> LaunchReport {
    let (reader, writer) = nix::unistd::pipe().map_err(|e| format!("could not make a pipe: {e}"))?;
    let writer =
        sys::place_status(writer).map_err(|e| format!("could not place the status descriptor: {e}"))?;
    let launched = match runtime.program() {
        None => with_libcontainer(id, bundle, input, writer),
        Some(program) => with_program(program, id, bundle, input, writer),
    };
    // Every copy of the writing end is closed now: the runtime's, process 1's and ours.
    let mut text = String::new();
    File::from(reader).read_to_string(&mut text).map_err(|e| format!("could not read the status: {e}"))?;
    // A failure to execute comes before the end that it causes, so the first line is the cause.
    match text.lines().next().map(serde_json::from_str::<InitReport>) {
        Some(Ok(InitReport::Ended(outcome))) => Ok(outcome),
        Some(Ok(InitReport::Failed(message))) => Err(message),
        Some(Err(error)) => Err(format!("process 1 of the container sent no proper status: {error}")),
        None => Err(match launched {
            Err(message) => message,
            Ok(()) => "the container ended before its process 1 could report (killed from outside, or out of memory)"
                .to_owned(),
        }),
    }
}

fn with_libcontainer(id: &str, bundle: &Path, input: File, status: OwnedFd) -> Result<(), String> {
    let mut container = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_root_path(STATE)
        .and_then(|builder| builder.validate_id())
        .and_then(|builder| {
            builder
                .with_stdin(input)
                .with_preserved_fds(1)
                .as_init(bundle)
                .with_systemd(false)
                .with_detach(false)
                .build()
        })
        .map_err(|error| format!("libcontainer could not create the container: {}", with_causes(&error)))?;
    drop(status);
    let pid = container.pid().ok_or("libcontainer made a container without a process")?;
    container
        .start()
        .map_err(|error| format!("libcontainer could not start the container: {}", with_causes(&error)))?;
    while waitpid(Pid::from_raw(pid.as_raw()), None) == Err(Errno::EINTR) {}
    // Its state lies in the stage's own root and goes with it; the outcome is known, so a failure changes nothing.
    let _ = container.delete(true);
    Ok(())
}

fn with_program(program: &str, id: &str, bundle: &Path, input: File, status: OwnedFd) -> Result<(), String> {
    let result = Command::new(program)
        .args(["--root", STATE, "run", "--preserve-fds", "1", "--bundle"])
        .arg(bundle)
        .arg(id)
        .stdin(input)
        .status();
    drop(status);
    match result {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} could not run the container ({status}); its message is above")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("{program} is not installed; install it, or use --runtime youki, which is built in"))
        }
        Err(error) => Err(format!("could not start {program}: {error}")),
    }
}
