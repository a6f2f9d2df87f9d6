//! A helper at work: what it says until it ends, or is ended.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStdout, ExitStatus};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use zeroize::Zeroizing;

/// No helper says more.
const ANSWER_LIMIT: usize = 1 << 20;

/// How a program ended and what it wrote; nothing where it had to be ended. Without a thread: a process that is to become another user
/// must have one.
pub(super) fn finished(
    child: &mut Child,
    stdout: ChildStdout,
    limit: Duration,
) -> io::Result<Option<(ExitStatus, Zeroizing<Vec<u8>>)>> {
    let deadline = Instant::now() + limit;
    let Some(text) = read_until(stdout, deadline)? else { return ended(child).map(|()| None) };
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(Some((status, text))),
            None if Instant::now() > deadline => return ended(child).map(|()| None),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// What comes before the end, or nothing where that does not come in time.
fn read_until(mut stdout: ChildStdout, deadline: Instant) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    // Reserved whole: a text that outgrows its place leaves copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(ANSWER_LIMIT));
    let mut part = Zeroizing::new([0; 4096]);
    while text.len() < ANSWER_LIMIT {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut waiting = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) => return Ok(None),
            Err(Errno::EINTR) => continue,
            ready => ready.map(drop)?,
        }
        let length = stdout.read(&mut part[..])?.min(ANSWER_LIMIT - text.len());
        if length == 0 {
            break;
        }
        text.extend_from_slice(&part[..length]);
    }
    Ok(Some(text))
}

/// Ends a program and what it has started: a helper is often a script, and would leave behind what it waits for. Each of them is
/// stopped before its children are looked for, so that it starts no more. All stay in the group of this process, where they may
/// ask at its terminal and an interrupt reaches them too.
fn ended(child: &mut Child) -> io::Result<()> {
    let mut all = vec![Pid::from_raw(child.id().cast_signed())];
    let mut looked_at = 0;
    while let Some(&parent) = all.get(looked_at) {
        // Gone already, perhaps.
        let _ = signal::kill(parent, Signal::SIGSTOP);
        all.extend(children(parent));
        looked_at += 1;
    }
    for process in all {
        let _ = signal::kill(process, Signal::SIGKILL);
    }
    child.wait().map(drop)
}

/// The children of a process, as far as `/proc` tells.
fn children(parent: Pid) -> Vec<Pid> {
    let parent = parent.to_string();
    let is_child = |id: i32| {
        let stat = fs::read(format!("/proc/{id}/stat")).ok()?;
        // The name, in parentheses, may hold anything (proc_pid_stat(5)).
        let stat = String::from_utf8_lossy(&stat);
        let (_, fields) = stat.rsplit_once(") ")?;
        (fields.split(' ').nth(1) == Some(parent.as_str())).then(|| Pid::from_raw(id))
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| is_child(entry.file_name().to_str()?.parse().ok()?)).collect()
}
