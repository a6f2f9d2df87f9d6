//! Process 1's work while the phase runs: take in what ended, and end a phase whose time is over.

use std::os::fd::AsFd;
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

    /// Take in everything that ends, until `phase` does or has had its `seconds`. Then every process is asked to end, and
    /// whatever is left after the grace goes with process 1 (pid_namespaces(7)).
    ///
    /// # Errors
    /// In words, where the kernel refuses.
    pub(crate) fn reap_until(&self, phase: Pid, seconds: Option<u64>) -> Result<Outcome, String> {
        let start = Instant::now();
        let limit = seconds.map(Duration::from_secs);
        let mut asked = false;
        loop {
            let over = |seconds: Option<u64>| seconds.filter(|_| asked).map(Outcome::TimedOut);
            if let Some(outcome) = take_in(phase)? {
                return Ok(over(seconds).unwrap_or(outcome));
            }
            let end = limit.map(|limit| if asked { limit + limit.min(GRACE) } else { limit });
            let left = end.map(|end| end.saturating_sub(start.elapsed()));
            if left == Some(Duration::ZERO) {
                if let Some(outcome) = over(seconds) {
                    return Ok(outcome);
                }
                // Everything but this process; what ended in the meantime is no failure.
                let _ = kill(Pid::from_raw(-1), Signal::SIGTERM);
                asked = true;
                continue;
            }
            self.wait(left)?;
        }
    }

    fn wait(&self, at_most: Option<Duration>) -> Result<(), String> {
        // A millisecond more than is left, so that the time is over when it says so; at most some days at once.
        let milliseconds = at_most.map(|time| i32::try_from(time.as_millis() + 1).unwrap_or(i32::MAX));
        let timeout = milliseconds.map_or(Ok(PollTimeout::NONE), PollTimeout::try_from);
        let mut descriptors = [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        match poll(&mut descriptors, timeout.unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(format!("could not wait for the phase: {errno}")),
        }
        // One signal may stand for many children, so what it says of one does not count.
        while let Ok(Some(_)) = self.ended.read_signal() {}
        Ok(())
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
