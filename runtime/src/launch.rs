//! Launches a prepared bundle: through youki's libcontainer, in this process, or through crun or runc. The only file
//! that names libcontainer. It changes its caller (dumpable flag, folder, children), so only a launcher calls it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::protocol::with_causes;
use crate::sandbox::{InitReport, LaunchReport, Runtime};
use crate::sys;

/// Where the runtimes keep their state: in the stage's own root, gone with it.
const STATE: &str = "/run/coracle";

/// Run the bundle to its end, or until `socket` says that it is to end. Standard output and error are the caller's.
pub(crate) fn run(
    runtime: Runtime,
    id: &str,
    bundle: &Path,
    input: File,
    socket: &UnixStream,
) -> LaunchReport {
    let (status, theirs) = UnixStream::pair().map_err(|e| format!("could not make a socket: {e}"))?;
    let theirs = sys::place_status(theirs.into())
        .map_err(|e| format!("could not place the status descriptor: {e}"))?;
    let running = Running { status: &status, socket };
    let launched = match runtime.program() {
        None => with_libcontainer(id, bundle, input, theirs, &running),
        Some(program) => with_program(program, id, bundle, input, theirs, &running),
    };
    // Every copy of the other end is closed now: the runtime's, process 1's and ours.
    let mut text = String::new();
    match (&status).read_to_string(&mut text) {
        // What it was told last, it has not read.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        read => drop(read.map_err(|e| format!("could not read the status: {e}"))?),
    }
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

/// Both sides of a launcher while a container runs: its process 1, and the conductor.
struct Running<'a> {
    status: &'a UnixStream,
    socket: &'a UnixStream,
}

impl Running<'_> {
    /// Until process 1 has something to say: hand on what the conductor says.
    fn wait(&self) {
        let mut listens = true;
        loop {
            let mut both = vec![PollFd::new(self.status.as_fd(), PollFlags::POLLIN)];
            both.extend(listens.then(|| PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)));
            match poll(&mut both, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                Err(_) => return,
                Ok(_) => {}
            }
            let has = |index: usize| both.get(index).and_then(PollFd::any).unwrap_or(false);
            if has(0) {
                return;
            }
            let mut order = [0; 256];
            match (&mut &*self.socket).read(&mut order) {
                // The conductor is gone, and this process is about to be.
                Ok(0) | Err(_) => listens = false,
                Ok(count) => drop((&mut &*self.status).write_all(&order[..count])),
            }
        }
    }
}

fn with_libcontainer(
    id: &str,
    bundle: &Path,
    input: File,
    status: OwnedFd,
    running: &Running<'_>,
) -> Result<(), String> {
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
    running.wait();
    while waitpid(Pid::from_raw(pid.as_raw()), None) == Err(Errno::EINTR) {}
    // Its state lies in the stage's own root and goes with it; the outcome is known, so a failure changes nothing.
    let _ = container.delete(true);
    Ok(())
}

fn with_program(
    program: &str,
    id: &str,
    bundle: &Path,
    input: File,
    status: OwnedFd,
    running: &Running<'_>,
) -> Result<(), String> {
    let child = Command::new(program)
        .args(["--root", STATE, "run", "--preserve-fds", "1", "--bundle"])
        .arg(bundle)
        .arg(id)
        .stdin(input)
        .spawn();
    drop(status);
    let ended = child.and_then(|mut child| {
        running.wait();
        child.wait()
    });
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} could not run the container ({status}); its message is above")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("{program} is not installed; install it, or use --runtime youki, which is built in"))
        }
        Err(error) => Err(format!("could not start {program}: {error}")),
    }
}
