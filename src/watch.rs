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
    pub(crate) disk: Option<DiskLimit>,
}

/// How much may be written. Folders are paths of the stage's root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DiskLimit {
    /// What all of it may take, bytes.
    pub(crate) bytes: u64,
    /// Counted as they are, with the files that are open in the stage and have no name any more.
    pub(crate) folders: Vec<PathBuf>,
    /// Counted by what they have become more: they hold what earlier builds left, too.
    pub(crate) growing: Vec<PathBuf>,
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
    before: Result<u64, String>,
    words: &Receiver<()>,
    ender: &Ender,
    tell: &dyn Fn(String),
) {
    let weigh = |folders: &[PathBuf], unnamed, limit| {
        let request: Request = Weigh { folders: folders.to_owned(), unnamed, limit }.into();
        let null = || std::fs::File::options().write(true).open("/dev/null").map(Into::into);
        let output = null().and_then(|stdout| Ok(JobOutput { stdout, stderr: null()? }));
        let output = output.map_err(|error| format!("could not open /dev/null: {error}"))?;
        session
            .work::<_, Result<u64, String>>(&request, output)
            .unwrap_or_else(|error| Err(coracle_runtime::with_causes(&error)))
    };
    let idle = watched.idle.map(Duration::from_secs);
    let mut disk = watched.disk.as_ref().map(|limit| Disk::new(limit, disks, &weigh, before));
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
        let Some(disk) = disk.as_mut() else { continue };
        match if disk.is_due() { disk.count() } else { Found::Fits } {
            Found::Fits => {}
            Found::TooMuch(limit) => return ender.end(Outcome::Overfull(limit)),
            Found::Unknown(text) => tell(text),
        }
    }
}

/// Bytes that folders take, counted no further than to a limit; whether with open files that have no name.
type Scale<'a> = &'a dyn Fn(&[PathBuf], bool, u64) -> Result<u64, String>;

/// What came of counting.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Fits,
    /// More than this.
    TooMuch(u64),
    /// Nobody knows; what the user is told of it, once.
    Unknown(String),
}

/// Counts folders when what is free has become less by what they may still take.
struct Disk<'a> {
    limit: &'a DiskLimit,
    disks: &'a [PathBuf],
    weigh: Scale<'a>,
    /// What the growing ones took at first.
    before: Result<u64, String>,
    /// What all took when they were counted last, what was free then, and when that was.
    taken: u64,
    free: Vec<u64>,
    looked: Instant,
    counted: Instant,
    has_told: bool,
}

impl<'a> Disk<'a> {
    fn new(
        limit: &'a DiskLimit,
        disks: &'a [PathBuf],
        weigh: Scale<'a>,
        before: Result<u64, String>,
    ) -> Self {
        let now = Instant::now();
        let free = free(disks);
        Self { limit, disks, weigh, before, taken: 0, free, looked: now, counted: now, has_told: false }
    }

    fn is_due(&mut self) -> bool {
        if self.looked.elapsed() < LOOK {
            return false;
        }
        self.looked = Instant::now();
        let less = self.free.iter().zip(free(self.disks)).map(|(was, is)| was.saturating_sub(is));
        self.counted.elapsed() >= COUNT || less.sum::<u64>() >= self.limit.bytes.saturating_sub(self.taken)
    }

    fn count(&mut self) -> Found {
        self.free = free(self.disks);
        self.counted = Instant::now();
        match self.weighed() {
            Ok(taken) => {
                self.taken = taken;
                if taken > self.limit.bytes { Found::TooMuch(self.limit.bytes) } else { Found::Fits }
            }
            Err(_) if self.has_told => Found::Fits,
            Err(error) => {
                self.has_told = true;
                Found::Unknown(format!(
                    "what layers, application and temporary files take could not be counted, so nothing ends what fills the disk, whatever --max-disk says: {error}"
                ))
            }
        }
    }

    fn weighed(&self) -> Result<u64, String> {
        let DiskLimit { bytes, folders, growing } = self.limit;
        let fixed = (self.weigh)(folders, true, *bytes)?;
        if growing.is_empty() {
            return Ok(fixed);
        }
        let before = self.before.clone()?;
        if before == u64::MAX {
            return Err(
                "the builder's cache holds what lies too deep to be counted; --clear-cache removes it"
                    .to_owned(),
            );
        }
        let now = (self.weigh)(growing, false, before.saturating_add(*bytes))?;
        // What lies too deep to be counted is too much, whoever left it.
        let grown = if now == u64::MAX { now } else { now.saturating_sub(before) };
        Ok(fixed.saturating_add(grown))
    }
}

/// Bytes that are free where these lie.
fn free(disks: &[PathBuf]) -> Vec<u64> {
    let free =
        |path: &PathBuf| statvfs(path).map_or(0, |about| about.blocks_available() * about.fragment_size());
    disks.iter().map(free).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_cache_counts_by_what_it_grows_and_files_without_a_name_once() {
        let limit = DiskLimit { bytes: 100, folders: vec!["work".into()], growing: vec!["cache".into()] };
        let sizes = Cell::new((0, 500));
        let weigh = |folders: &[PathBuf], unnamed: bool, _| {
            let is_work = folders == [PathBuf::from("work")];
            assert_eq!(unnamed, is_work);
            Ok(if is_work { sizes.get().0 } else { sizes.get().1 })
        };
        let mut disk = Disk::new(&limit, &[], &weigh, Ok(500));
        for (work, cache, found) in [
            (60, 540, Found::Fits),
            (60, 541, Found::TooMuch(100)),
            (101, 400, Found::TooMuch(100)),
            (100, 400, Found::Fits),
        ] {
            sizes.set((work, cache));
            assert_eq!(disk.count(), found, "{work} {cache}");
        }
        sizes.set((0, u64::MAX));
        assert_eq!(disk.count(), Found::TooMuch(100), "what nobody can count");
        // What an earlier build has left so is not this one's.
        let Found::Unknown(told) = Disk::new(&limit, &[], &weigh, Ok(u64::MAX)).count() else {
            panic!("nobody is told")
        };
        assert!(told.ends_with("too deep to be counted; --clear-cache removes it"), "{told}");
    }

    #[test]
    fn what_cannot_be_counted_is_told_once() {
        let limit = DiskLimit { bytes: 100, folders: vec!["work".into()], growing: Vec::new() };
        let weigh = |_: &[PathBuf], _, _| Err("could not open /work/x: Input/output error".to_owned());
        let mut disk = Disk::new(&limit, &[], &weigh, Ok(0));
        let told = "what layers, application and temporary files take could not be counted, so nothing ends what fills the disk, whatever --max-disk says: could not open /work/x: Input/output error";
        assert_eq!(disk.count(), Found::Unknown(told.to_owned()));
        assert_eq!(disk.count(), Found::Fits);
    }
}
