//! Ends a container that says nothing any more, or fills the disk. Time that is over its own process 1 sees; what is printed and
//! written only who is outside can know.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use coracle_runtime::{Ender, JobOutput, Outcome, Session};
use nix::sys::statvfs::statvfs;

use crate::worker::{Request, Weigh};

/// What is watched while a container runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Watched {
    /// Seconds without a word.
    pub(crate) idle: Option<u64>,
    /// Bytes that these folders may take together, paths of the stage's root.
    pub(crate) disk: Option<(u64, Vec<PathBuf>)>,
}

impl Watched {
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// How often is looked at the space that is free on the disks: a system call for each.
const LOOK: Duration = Duration::from_secs(1);

/// How often folders are counted whatever is free: others may free what a phase takes.
const COUNT: Duration = Duration::from_secs(60);

/// Watch until `words` has no sender any more. Each message is a word of the container's.
pub(crate) fn watch(
    watched: &Watched,
    session: &Session,
    disks: &[PathBuf],
    words: &Receiver<()>,
    ender: &Ender,
) {
    let idle = watched.idle.map(Duration::from_secs);
    let mut disk = watched.disk.as_ref().map(|(limit, folders)| Disk::new(*limit, folders, disks));
    let mut heard = Instant::now();
    loop {
        let silent = idle.map(|idle| idle.saturating_sub(heard.elapsed()));
        let wait = [silent, disk.as_ref().map(|_| LOOK)].into_iter().flatten().min().unwrap_or(COUNT);
        match words.recv_timeout(wait) {
            Ok(()) => {
                heard = Instant::now();
                // A program that prints without end is to be looked at as well.
                while words.try_recv().is_ok() {}
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if let Some(seconds) = watched.idle.filter(|seconds| heard.elapsed().as_secs() >= *seconds) {
            return ender.end(Outcome::Silent(seconds));
        }
        let over = disk.as_mut().and_then(|disk| if disk.is_due() { disk.over(session) } else { None });
        if let Some(limit) = over {
            return ender.end(Outcome::Overfull(limit));
        }
    }
}

/// Counts folders when what is free has become less by what they may still take.
struct Disk<'a> {
    limit: u64,
    folders: &'a [PathBuf],
    disks: &'a [PathBuf],
    /// What they took when they were counted last, what was free then, and when that was.
    taken: u64,
    free: Vec<u64>,
    looked: Instant,
    counted: Instant,
}

impl<'a> Disk<'a> {
    fn new(limit: u64, folders: &'a [PathBuf], disks: &'a [PathBuf]) -> Self {
        let now = Instant::now();
        Self { limit, folders, disks, taken: 0, free: free(disks), looked: now, counted: now }
    }

    fn is_due(&mut self) -> bool {
        if self.looked.elapsed() < LOOK {
            return false;
        }
        self.looked = Instant::now();
        let less = self.free.iter().zip(free(self.disks)).map(|(was, is)| was.saturating_sub(is));
        self.counted.elapsed() >= COUNT || less.sum::<u64>() >= self.limit.saturating_sub(self.taken)
    }

    /// The limit, if they take more.
    fn over(&mut self, session: &Session) -> Option<u64> {
        self.free = free(self.disks);
        self.counted = Instant::now();
        let request: Request = Weigh { folders: self.folders.to_owned(), limit: self.limit }.into();
        let null = || Some(std::fs::File::options().write(true).open("/dev/null").ok()?.into());
        let output = JobOutput { stdout: null()?, stderr: null()? };
        // A worker that cannot count them cannot delete them either, which the user will hear.
        let answer = session.work::<_, Result<u64, String>>(&request, output).ok()?.ok()?;
        self.taken = answer;
        (answer > self.limit).then_some(self.limit)
    }
}

/// Bytes that are free where these lie.
fn free(disks: &[PathBuf]) -> Vec<u64> {
    let free =
        |path: &PathBuf| statvfs(path).map_or(0, |about| about.blocks_available() * about.fragment_size());
    disks.iter().map(free).collect()
}
