//! The stage: process 1 of a user, mount, PID, IPC, UTS and cgroup namespace of its own. It starts workers and
//! launchers when asked and does nothing else: one thread, no credentials, no image code. When it goes, the kernel
//! ends all of them; it goes when the conductor's end of the control socket closes, however the conductor ended.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Uid};
use serde::{Deserialize, Serialize};

use crate::protocol::{self, Reply, Spawn};
use crate::root::{self, StageSetup};
use crate::sys;

/// What the stage tells the conductor, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StageReport {
    /// The user namespace exists and waits for its id maps.
    NeedMaps,
    /// Jobs can come.
    Ready,
    /// It cannot go on; the process ends.
    Failed(String),
}

/// Run as the stage; standard input is the control socket.
pub(crate) fn run() -> i32 {
    // Whatever the program around us left open is no business of jobs and containers. Before Linux 5.11 it stays.
    let _ = sys::keep_inherited_descriptors();
    // The user's says what the user's own files are like. Folders for guests must be open to them, and what is made for
    // us alone is given its mode.
    let _ = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let Ok(control) = protocol::job_socket() else { return 125 };
    match enter(&control) {
        Ok(code) => code,
        Err(message) => {
            let _ = protocol::send(control.as_fd(), &StageReport::Failed(message), &[]);
            125
        }
    }
}

fn enter(control: &UnixStream) -> Result<i32, String> {
    let namespaces = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(namespaces).map_err(explain_unshare)?;
    protocol::send(control.as_fd(), &StageReport::NeedMaps, &[])
        .map_err(|e| format!("could not ask for id maps: {e}"))?;
    let setup: StageSetup =
        read_line(control).map_err(|e| format!("could not read the stage's set-up: {e}"))?;
    nix::unistd::setgroups(&[]).map_err(|e| format!("could not drop the supplementary groups: {e}"))?;
    let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
    nix::unistd::setresgid(group, group, group).map_err(|e| format!("could not become group 0: {e}"))?;
    nix::unistd::setresuid(user, user, user).map_err(|e| format!("could not become user 0: {e}"))?;
    let (alive, parent) =
        nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| format!("could not make a pipe: {e}"))?;
    match sys::fork().map_err(|e| format!("could not start process 1 of the PID namespace: {e}"))? {
        // The writing end stays open in this process alone, as long as it lives.
        ForkResult::Parent { child } => loop {
            match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, code)) => return Ok(code),
                Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(format!("could not wait for the stage: {errno}")),
            }
        },
        ForkResult::Child => {
            drop(parent);
            let result = end_with_parent(&alive).and_then(|()| serve(control, &setup));
            if let Err(message) = &result {
                let _ = protocol::send(control.as_fd(), &StageReport::Failed(message.clone()), &[]);
            }
            sys::exit_now(if result.is_ok() { 0 } else { 125 })
        }
    }
}

/// The errno of unshare(2) in words; ENOSPC in particular is not about disks.
fn explain_unshare(errno: nix::errno::Errno) -> String {
    use nix::errno::Errno;
    let why = match errno {
        Errno::ENOSPC => {
            "the limit user.max_user_namespaces is reached or 0 (this is not disk space); an administrator raises it with: sysctl -w user.max_user_namespaces=16384"
        }
        Errno::EPERM => {
            "unprivileged user namespaces are switched off, by kernel.unprivileged_userns_clone, by a security module, or by the surrounding container's seccomp profile"
        }
        Errno::EINVAL | Errno::ENOSYS => "this kernel has no user namespaces",
        _ => "unexpected",
    };
    format!("could not create a user namespace ({errno}): {why}")
}

/// Have the kernel end this process when its parent ends, and end now if that has happened already. The parent is in
/// another PID namespace, where getppid(2) says 0 in any case: that it lives is told by a pipe whose writing end
/// only the parent holds. See PR_SET_PDEATHSIG(2const).
fn end_with_parent(alive: &OwnedFd) -> Result<(), String> {
    let failed = |e| format!("could not tie the stage to its parent: {e}");
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed)?;
    let mut pipe = [PollFd::new(alive.as_fd(), PollFlags::empty())];
    match poll(&mut pipe, PollTimeout::ZERO).map_err(failed)? {
        0 => Ok(()),
        _ => Err("the stage's parent ended while it started".to_owned()),
    }
}

fn serve(control: &UnixStream, setup: &StageSetup) -> Result<(), String> {
    root::enter(setup).map_err(|error| protocol::with_causes(&error))?;
    nix::unistd::sethostname("coracle").map_err(|e| format!("could not set the host name: {e}"))?;
    protocol::send(control.as_fd(), &StageReport::Ready, &[])
        .map_err(|e| format!("could not report: {e}"))?;
    while let Some((spawn, fds)) =
        protocol::receive_spawn(control.as_fd()).map_err(|e| format!("could not read a request: {e}"))?
    {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
        start(&spawn, fds, &setup.worker_env)?;
    }
    // The conductor is gone. Process 1 ends, and the kernel ends every process of the namespace with it.
    sys::kill_all();
    Ok(())
}

/// Start a job. That it cannot be started is said on its own socket, and other jobs go on.
fn start(spawn: &Spawn, fds: Vec<OwnedFd>, worker_env: &[(String, String)]) -> Result<(), String> {
    let env = if spawn.role == "worker" { worker_env } else { &[] };
    let Ok([socket, stdout, stderr]) = <[OwnedFd; 3]>::try_from(fds) else {
        return Err("a request did not bring three descriptors".to_owned());
    };
    if let Err(error) = socket.try_clone().and_then(|input| execute(spawn, env, input, stdout, stderr)) {
        // Where the conductor is gone as well, nobody is left to tell.
        let reply = Reply::<()>::NotStarted(error.to_string());
        let _ = protocol::send_last(&UnixStream::from(socket), &reply);
    }
    Ok(())
}

fn execute(
    spawn: &Spawn,
    env: &[(String, String)],
    socket: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
) -> io::Result<()> {
    Command::new(root::PROGRAM)
        .arg0(format!("coracle-{}", spawn.role))
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::from(socket))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr))
        .spawn()
        .map(drop)
}

/// One line, read byte by byte so that nothing behind it is taken.
fn read_line<T: serde::de::DeserializeOwned>(mut stream: &UnixStream) -> io::Result<T> {
    let mut line = Vec::new();
    let mut byte = [0u8];
    while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the conductor ended"));
    }
    Ok(serde_json::from_slice(&line)?)
}

/// The next report of the stage on the conductor's end.
pub(crate) fn next_report(reader: &mut BufReader<UnixStream>) -> io::Result<Option<StageReport>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    #[test]
    fn a_parent_that_has_ended_is_noticed() {
        let (alive, parent) = nix::unistd::pipe().unwrap();
        assert_eq!(end_with_parent(&alive), Ok(()));
        drop(parent);
        assert!(end_with_parent(&alive).unwrap_err().contains("parent ended"));
        prctl::set_pdeathsig(None).unwrap();
    }

    #[test]
    fn a_job_that_cannot_be_started_is_answered_and_the_stage_goes_on() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        protocol::send_last(&ours, &"a request that nobody will read").unwrap();
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        // No program can have this name: it would be started as `coracle-work\0er`.
        let spawn = Spawn { role: "work\0er".to_owned() };
        assert_eq!(start(&spawn, vec![theirs.into(), null(), null()], &[]), Ok(()));
        let reply = protocol::receive_last::<Reply<()>>(&ours).unwrap();
        assert!(matches!(reply, Some(Reply::NotStarted(message)) if message.contains("nul byte")));
    }

    #[test]
    fn a_full_namespace_limit_is_not_called_disk_space() {
        let text = explain_unshare(Errno::ENOSPC);
        assert!(
            text.contains("this is not disk space") && text.contains("sysctl -w user.max_user_namespaces")
        );
        assert!(explain_unshare(Errno::EPERM).contains("switched off"));
    }
}
