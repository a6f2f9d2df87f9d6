//! Deleting in the background: what an operation leaves because its user would have to wait for it.
//!
//! Nothing depends on the sweeper. What it deletes has no owner any more: work folders whose lock is free, and what sessions of the store
//! left that have ended. If it is killed, the next operation deletes a part again, or starts another one
//! (docs/decisions/0037-what-is-deleted-in-the-background.md).

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::Error;
use crate::home::Home;
use crate::stage::sweep;

/// The name that the program is started under.
const NAME: &str = "coracle-sweeper";

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

    /// Wait until no sweeper is at work; none is as long as what is returned lives.
    pub(crate) fn without_sweeper(&self) -> Result<File, Error> {
        let lock = self.sweeper()?;
        lock.lock().map_err(Error::folder("lock", &self.lock_of_sweeper()))?;
        Ok(lock)
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
