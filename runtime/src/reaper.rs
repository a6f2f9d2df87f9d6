//! Process 1's work while the phase runs: take in what ended, and end a phase whose time is over.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::sandbox::Outcome;

/// From the request to end to the end itself; less where a phase had less altogether.
const GRACE: Duration = Duration::from_secs(10);

/// Hears of children that ended. To be made before the first of them.
pub(crate) struct Reaper {
    ended: SignalFd,
    before: SigSet,
}

impl Reaper {
    /// # Errors
    /// In words, where the kernel refuses.
    pub(crate) fn new() -> Result<Self, String> {
        let failed = |errno: Errno| format!("could not wait for children: {errno}");
        let mut children = SigSet::empty();
        children.add(Signal::SIGCHLD);
        let before = SigSet::thread_get_mask().map_err(failed)?;
        children.thread_block().map_err(failed)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let ended = SignalFd::with_flags(&children, flags).map_err(failed)?;
        Ok(Self { ended, before })
    }

    /// The signals as they were, in a child that becomes another program.
    ///
    /// # Errors
    /// In words, where the kernel refuses.
    pub(crate) fn restore_signals(&self) -> Result<(), String> {
        self.before.thread_set_mask().map_err(|errno| format!("could not restore the signals: {errno}"))
    }

    /// Take in everything that ends, until `phase` does, has had its `seconds`, or is to end by an order. Then every process is asked
    /// to end, and whatever is left after the grace goes with process 1 (pid_namespaces(7)).
    ///
    /// # Errors
    /// In words, where the kernel refuses.
    pub(crate) fn reap_until(
        &self,
        phase: Pid,
        seconds: Option<u64>,
        orders: &OwnedFd,
    ) -> Result<Outcome, String> {
        let limit = seconds.map(|seconds| (Outcome::TimedOut(seconds), Duration::from_secs(seconds)));
        let grace = limit.map_or(GRACE, |(_, limit)| limit.min(GRACE));
        // The next end, and why.
        let at = |why, left| Some((why, Instant::now().checked_add(left)?));
        let mut end = limit.and_then(|(why, limit)| at(why, limit));
        let mut asked = None;
        let mut orders = Some(orders);
        loop {
            if let Some(outcome) = take_in(phase)? {
                return Ok(asked.unwrap_or(outcome));
            }
            let left = end.map(|(why, at)| (why, at.saturating_duration_since(Instant::now())));
            let mut over = left.filter(|(_, left)| left.is_zero()).map(|(why, _)| why);
            if over.is_none() {
                let order = self.wait(left.map(|(_, left)| left), orders)?;
                if order == Heard::Nobody {
                    orders = None;
                }
                over = if let Heard::End(why) = order { Some(why) } else { None };
            }
            let Some(why) = over else { continue };
            if let Some(asked) = asked {
                return Ok(asked);
            }
            // Everything but this process; what ended in the meantime is no failure.
            let _ = kill(Pid::from_raw(-1), Signal::SIGTERM);
            asked = Some(why);
            end = at(why, grace);
        }
    }

    /// Until something has ended, an order comes, or `at_most` is over.
    fn wait(&self, at_most: Option<Duration>, orders: Option<&OwnedFd>) -> Result<Heard, String> {
        // A millisecond more than is left, so that the time is over when it says so; at most some days at once.
        let milliseconds = at_most.map(|time| i32::try_from(time.as_millis() + 1).unwrap_or(i32::MAX));
        let timeout = milliseconds.map_or(Ok(PollTimeout::NONE), PollTimeout::try_from);
        let mut descriptors = vec![PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        descriptors.extend(orders.map(|orders| PollFd::new(orders.as_fd(), PollFlags::POLLIN)));
        match poll(&mut descriptors, timeout.unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(format!("could not wait for the phase: {errno}")),
        }
        let ordered = descriptors.get(1).and_then(PollFd::any).unwrap_or(false);
        // One signal may stand for many children, so what it says of one does not count.
        while let Ok(Some(_)) = self.ended.read_signal() {}
        Ok(orders.filter(|_| ordered).map_or(Heard::Nothing, heard))
    }
}

/// What the launcher said.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    /// It has gone.
    Nobody,
    End(Outcome),
}

/// A line is shorter than a socket's buffer, so that it comes at once.
fn heard(orders: &OwnedFd) -> Heard {
    let mut line = [0; 256];
    match nix::unistd::read(orders, &mut line) {
        Ok(0) | Err(_) => Heard::Nobody,
        Ok(count) => serde_json::from_slice(&line[..count]).map_or(Heard::Nothing, Heard::End),
    }
}

/// All that have ended; the outcome of `phase` if it is among them.
fn take_in(phase: Pid) -> Result<Option<Outcome>, String> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == phase => return Ok(Some(Outcome::Exited(code))),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == phase => {
                return Ok(Some(Outcome::Killed(signal as i32)));
            }
            Ok(WaitStatus::StillAlive) => return Ok(None),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(format!("could not wait for the phase: {errno}")),
        }
    }
}
