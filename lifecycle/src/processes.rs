//! Processes that programs of buildpacks leave running when they end.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

/// How many times processes may have started others before they were ended.
const ROUNDS: usize = 1000;

/// The processes of the build: all that this one starts, and all that those start.
#[derive(Debug)]
pub(crate) struct Processes {
    /// Children that were there before.
    others: BTreeSet<i32>,
}

impl Processes {
    /// Makes this process the one to which the children of ended ones go (`PR_SET_CHILD_SUBREAPER`), and closes its memory and
    /// its files in /proc to those of the same user (`PR_SET_DUMPABLE`, prctl(2)).
    pub(crate) fn adopt() -> io::Result<Self> {
        prctl::set_dumpable(false)?;
        prctl::set_child_subreaper(true)?;
        Ok(Self { others: children()?.into_keys().collect() })
    }

    /// Ends all that run, and says how many were found.
    pub(crate) fn end(&self) -> io::Result<usize> {
        let mut ended = 0;
        for _ in 0..ROUNDS {
            let mut left = children()?;
            left.retain(|child, _| !self.others.contains(child));
            if left.is_empty() {
                return Ok(ended);
            }
            for (child, is_running) in left {
                let child = Pid::from_raw(child);
                // Gone already, perhaps: it is waited for all the same, and its children are ours in the next round.
                match kill(child, Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => return Err(errno.into()),
                }
                match waitpid(child, None) {
                    Ok(_) | Err(Errno::ECHILD) => ended += usize::from(is_running),
                    Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        Err(io::Error::other("they start others faster than they can be ended"))
    }
}

/// Those whose parent this process is, and whether they run: some have ended and only wait to be waited for.
fn children() -> io::Result<BTreeMap<i32, bool>> {
    let own = std::process::id().to_string();
    let mut children = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // Ended in the meantime.
        let Ok(stat) = std::fs::read(format!("/proc/{id}/stat")) else { continue };
        let stat = String::from_utf8_lossy(&stat);
        // The name, in parentheses, may hold anything (proc(5)).
        let Some((_, fields)) = stat.rsplit_once(") ") else { continue };
        let mut fields = fields.split(' ');
        let (state, parent) = (fields.next(), fields.next());
        if parent == Some(own.as_str()) {
            children.insert(id, state != Some("Z"));
        }
    }
    Ok(children)
}
