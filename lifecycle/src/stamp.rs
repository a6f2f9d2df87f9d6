//! What the kernel says of a file, by which it is known again without reading it.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coracle_images::Hashing;
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::sys::time::TimeSpec;

/// What a file system's clock may lag behind: two ticks of a slow kernel.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// Seconds and nanoseconds since 1970.
pub(crate) type Time = (i64, i64);

/// What the kernel says of a file. The last change's time is the kernel's own: whoever changes anything about a file changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) owner: (u32, u32),
    pub(crate) size: i64,
    pub(crate) mode: u32,
    pub(crate) modified: Time,
    pub(crate) changed: Time,
}

impl Stamp {
    /// What one answer of the kernel says.
    pub fn of(stat: &FileStat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            owner: (stat.st_uid, stat.st_gid),
            size: stat.st_size,
            mode: stat.st_mode,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// The SHA-256 of what is said of the file with this name.
    pub fn evidence(&self, name: &OsStr) -> [u8; 32] {
        let mut hash = Hashing::new(io::sink());
        self.put(name, &mut hash);
        hash.bytes()
    }

    /// Writes the name and all numbers, so that no two of them say the same.
    pub(crate) fn put(&self, name: &OsStr, hash: &mut Hashing<io::Sink>) {
        let Self { device, inode, owner, size, mode, modified, changed } = *self;
        let numbers = [device, inode, size.cast_unsigned(), owner.0.into(), owner.1.into(), mode.into()];
        let times = [modified.0, modified.1, changed.0, changed.1].map(i64::cast_unsigned);
        // Nothing is written anywhere.
        let _ = hash.write_all(&(name.len() as u64).to_le_bytes());
        let _ = hash.write_all(name.as_bytes());
        for number in numbers.into_iter().chain(times) {
            let _ = hash.write_all(&number.to_le_bytes());
        }
    }

    /// The file system that the file is in.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// Whether any change from `now` on, or since, gets a later time than the last one did.
    pub fn is_settled(&self, now: SystemTime) -> bool {
        let mut last = Newest::default();
        last.saw(self.changed);
        now.duration_since(last.time()).is_ok_and(|passed| passed > last.grain())
    }

    pub(crate) fn permissions(&self) -> Mode {
        Mode::from_bits_truncate(self.mode & 0o7777)
    }

    pub(crate) fn kind(&self) -> SFlag {
        SFlag::from_bits_truncate(self.mode) & SFlag::S_IFMT
    }

    /// The times to give a file: of its content, and none for who read it.
    pub(crate) fn times(&self) -> (TimeSpec, TimeSpec) {
        (TimeSpec::UTIME_OMIT, TimeSpec::new(self.modified.0, self.modified.1))
    }
}

/// The newest time at which one of many files was found changed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Newest {
    time: Time,
    /// Whether some time had a fraction of a second: not every file system has them.
    fractions: bool,
}

impl Newest {
    /// Takes note of when a file was last changed.
    pub(crate) fn saw(&mut self, changed: Time) {
        self.time = self.time.max(changed);
        self.fractions |= changed.1 != 0;
    }

    /// Takes note of all that another has seen.
    pub fn and(self, other: Self) -> Self {
        Self { time: self.time.max(other.time), fractions: self.fractions || other.fractions }
    }

    /// Waits until a change made from now on gets a later time than all that were seen: two changes within one tick of the file
    /// system's clock look like one.
    pub fn settle(&self) {
        let passed = SystemTime::now().duration_since(self.time()).unwrap_or_default();
        std::thread::sleep(self.grain().saturating_sub(passed));
    }

    /// Within how long two changes may get the same time.
    fn grain(&self) -> Duration {
        if self.fractions { TICK } else { TICK + Duration::from_secs(1) }
    }

    /// The newest time that was seen.
    pub fn time(&self) -> SystemTime {
        let seconds = u64::try_from(self.time.0).unwrap_or_default();
        UNIX_EPOCH + Duration::new(seconds, u32::try_from(self.time.1).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_settled_when_every_change_gets_a_later_time() {
        let dir = tempfile::tempdir().unwrap();
        let stat = nix::sys::stat::stat(dir.path()).unwrap();
        let settled = |changed: Time, seconds: u64, millis: u64| {
            let now = UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis);
            Stamp { changed, ..Stamp::of(&stat) }.is_settled(now)
        };
        let fraction = (1_700_000_000, 5_000_000);
        assert!(!settled(fraction, 1_700_000_000, 0), "it is later still");
        assert!(!settled(fraction, 1_700_000_000, 25));
        assert!(settled(fraction, 1_700_000_000, 26));
        // It may be a file system whose times are whole seconds.
        assert!(!settled((1_700_000_000, 0), 1_700_000_001, 20));
        assert!(settled((1_700_000_000, 0), 1_700_000_001, 21));
    }

    #[test]
    fn a_change_after_the_wait_has_another_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for _ in 0..5 {
            std::fs::write(&path, "one").unwrap();
            let before = Stamp::of(&nix::sys::stat::stat(&path).unwrap());
            let mut newest = Newest::default();
            newest.saw(before.changed);
            newest.settle();
            assert!(SystemTime::now() >= newest.time() + TICK);
            std::fs::write(&path, "two").unwrap();
            let after = Stamp::of(&nix::sys::stat::stat(&path).unwrap());
            assert!(after.changed > before.changed);
        }
    }
}
