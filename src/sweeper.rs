//! Deleting in the background: what an operation leaves because its user would have to wait for it.
//!
//! Nothing depends on the sweeper. What it deletes has no owner any more: work folders whose lock is free, and what sessions of the store
//! left that have ended. If it is killed, the next operation deletes a part again, or starts another one
//! (docs/decisions/0037-what-is-deleted-in-the-background.md).

use std::fs::{File, TryLockError};
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use coracle_runtime::{SessionError, Terminator};

use crate::error::Error;
use crate::event::{Event, Observer};
use crate::home::Home;
use crate::stage::sweep;

/// The name that the program is started under.
const NAME: &str = "coracle-sweeper";

/// How often somebody who waits for it looks.
const LOOK: Duration = Duration::from_millis(50);

/// How often it looks again: operations that end while it works leave what they leave to it.
const ROUNDS: usize = 10;

impl Home {
    /// Start the sweeper, unless there is one. It has nothing of this process: no descriptor but its lock, no variable, another session.
    pub(crate) fn leave_to_sweeper(&self) {
        // Where that is not possible, the next operation tries.
        if let (Ok(lock), Ok(root)) = (self.sweeper(), self.canonical())
            && lock.try_lock().is_ok()
        {
            let _ = Command::new("/proc/self/exe")
                .arg0(NAME)
                .arg(root)
                .env_clear()
                // newuidmap(1) is started by name.
                .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
                // It is the sweeper's as long as it lives, and no process that it starts gets it.
                .stdin(Stdio::from(lock))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .current_dir("/")
                .spawn();
        }
    }

    /// Wait until no sweeper is at work, and say so; none is as long as what is returned lives. `hold` gets the handle that ends the
    /// waiting.
    pub(crate) fn without_sweeper(
        &self,
        observer: &dyn Observer,
        hold: &dyn Fn(Terminator),
    ) -> Result<File, Error> {
        let failed = |source| Error::folder("lock", self.lock_of_sweeper())(source);
        let lock = self.sweeper()?;
        let (ended, end) = UnixStream::pair().map_err(failed)?;
        ended.set_read_timeout(Some(LOOK)).map_err(failed)?;
        let mut has_told = false;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if !has_told => {
                    let text =
                        "waiting for what earlier operations left to be deleted in the background".to_owned();
                    observer.event(Event::Notice { text });
                    hold(Terminator::of(&end).map_err(failed)?);
                    has_told = true;
                }
                // Nothing ever comes: that it is closed, or that it is time to look again.
                Err(TryLockError::WouldBlock) => {
                    if (&ended).read(&mut [0]).is_ok() {
                        return Err(SessionError::Ended("it waited for the background").into());
                    }
                }
            }
        }
    }

    fn sweeper(&self) -> Result<File, Error> {
        let path = self.lock_of_sweeper();
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::folder("open", &path))
    }
}

/// If this process is a sweeper, sweep. The exit status.
pub(crate) fn take_over() -> Option<i32> {
    let mut args = std::env::args_os();
    let name = args.next()?;
    (Path::new(&name).file_name()? == NAME).then(|| args.next().map_or(2, |root| run(Path::new(&root))))
}

fn run(root: &Path) -> i32 {
    // Whoever waits until a descriptor is closed waits for the operation, and a terminal speaks to its processes: not to this one.
    let _ = coracle_runtime::close_inherited_descriptors();
    let _ = nix::unistd::setsid();
    // Whoever waits for the processor or the disk goes first; the disk follows the processor (ioprio_set(2)).
    let _ = rustix::process::nice(19);
    let Ok(home) = Home::open(root) else { return 1 };
    for _ in 0..ROUNDS {
        if sweep(&home).is_err() {
            return 1;
        }
        if home.abandoned().is_empty() {
            break;
        }
    }
    0
}
