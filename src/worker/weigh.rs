//! What folders take that a guest fills meanwhile.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::sys::statfs::{FsType, HUGETLBFS_MAGIC, TMPFS_MAGIC, statfs};
use serde::{Deserialize, Serialize};

use super::{AnyError, Job};

/// The least that an entry counts, bytes: names and inodes run out as well.
const ENTRY: u64 = 4096;

/// Folders in each other that are looked into; what lies deeper cannot be counted, and so is too much.
const DEPTH: usize = 500;

const IN_MEMORY: [FsType; 2] = [TMPFS_MAGIC, HUGETLBFS_MAGIC];

/// How many bytes these folders take on disk, counted no further than to a limit.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Weigh {
    /// What is not there counts nothing.
    pub(crate) folders: Vec<PathBuf>,
    pub(crate) limit: u64,
    /// Whether files count that are open in a process of the stage and have no name any more: they take space until they are closed.
    pub(crate) unnamed: bool,
}

impl Job for Weigh {
    type Answer = u64;

    fn carry_out(self) -> Result<u64, AnyError> {
        let unnamed = if self.unnamed { unnamed_files(Path::new("/proc")) } else { Some(BTreeMap::new()) };
        let Some(unnamed) = unnamed else { return Ok(u64::MAX) };
        let mut scale = Scale { limit: self.limit, total: unnamed.values().sum() };
        for folder in self.folders {
            match File::open(&folder) {
                Ok(folder) => scale.add(folder.into(), 0)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(format!("could not open {}: {error}", folder.display()).into()),
            }
        }
        Ok(scale.total)
    }
}

/// Bytes of files without a name that processes have open, by device and number. Who can be seen in `/proc` of the stage is of its
/// operation. What is in memory is no disk's, and a process that ends meanwhile has none. Nothing where more is open than can be looked at.
fn unnamed_files(proc: &Path) -> Option<BTreeMap<(u64, u64), u64>> {
    let (mut found, mut looked) = (BTreeMap::new(), 0);
    let names = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_process = |path: &PathBuf| path.join("fd").is_dir();
    for open in names(proc).filter(is_process).flat_map(|process| names(&process.join("fd"))) {
        looked += 1;
        if looked > DESCRIPTORS {
            return None;
        }
        // The file itself, by whatever namespace's path it was opened.
        let Ok(about) = fs::metadata(&open) else { continue };
        if about.is_file()
            && about.nlink() == 0
            && statfs(&open).is_ok_and(|fs| !IN_MEMORY.contains(&fs.filesystem_type()))
        {
            found.insert((about.dev(), about.ino()), about.blocks().saturating_mul(512));
        }
    }
    Some(found)
}

/// More descriptors than this are too much, whatever they are of: others wait for the count.
const DESCRIPTORS: usize = 1_000_000;

struct Scale {
    limit: u64,
    total: u64,
}

impl Scale {
    /// What vanishes meanwhile counts nothing, and no link is followed.
    fn add(&mut self, folder: OwnedFd, depth: usize) -> nix::Result<()> {
        if depth > DEPTH {
            self.total = u64::MAX;
            return Ok(());
        }
        let mut dir = Dir::from_fd(folder)?;
        let names: Vec<_> = dir.iter().flatten().map(|entry| entry.file_name().to_owned()).collect();
        for name in names {
            if self.total > self.limit {
                return Ok(());
            }
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(stat) = fstatat(dir.as_fd(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else {
                continue;
            };
            let is_folder = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
            let names = if is_folder { 1 } else { stat.st_nlink.max(1) };
            let bytes = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) / names;
            self.total = self.total.saturating_add(bytes.max(ENTRY));
            if is_folder {
                let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                match openat(dir.as_fd(), name.as_c_str(), flags, Mode::empty()) {
                    Ok(inner) => self.add(inner, depth + 1)?,
                    Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn weighed(folder: &std::path::Path, limit: u64) -> u64 {
        Weigh { folders: vec![folder.to_owned(), "/nowhere".into()], limit, unnamed: false }
            .carry_out()
            .unwrap()
    }

    #[test]
    fn bytes_entries_and_depth_count_and_what_links_lead_to_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("inside");
        fs::create_dir(&inside).unwrap();
        fs::write(inside.join("large"), vec![1; 1 << 20]).unwrap();
        let linked = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(folder.path(), linked.path().join("link")).unwrap();
        assert_eq!(weighed(linked.path(), u64::MAX), ENTRY);
        let large = weighed(folder.path(), u64::MAX);
        assert!((1 << 20..2 << 20).contains(&large), "{large}");
        for number in 0..100 {
            fs::write(inside.join(number.to_string()), "").unwrap();
        }
        assert_eq!(weighed(folder.path(), u64::MAX), large + 100 * ENTRY);
        // No further than needed.
        assert!((ENTRY..large).contains(&weighed(folder.path(), 1)));
        fs::create_dir_all(linked.path().join("d/".repeat(DEPTH + 2))).unwrap();
        assert_eq!(weighed(linked.path(), u64::MAX - 1), u64::MAX);
    }

    #[test]
    fn a_file_without_a_name_counts_as_long_as_it_is_open_and_one_in_memory_does_not() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut file = File::create(folder.path().join("large")).unwrap();
        file.write_all(&vec![1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        let about = file.metadata().unwrap();
        let weighed = || unnamed_files(Path::new("/proc")).unwrap().get(&(about.dev(), about.ino())).copied();
        assert_eq!(weighed(), None);
        fs::remove_file(folder.path().join("large")).unwrap();
        assert!(weighed().is_some_and(|bytes| (1 << 20..2 << 20).contains(&bytes)), "{:?}", weighed());
        let whole = Weigh { folders: Vec::new(), limit: 0, unnamed: true }.carry_out().unwrap();
        assert!(whole >= 1 << 20, "{whole}");
        drop(file);
        // Another test may start a program, which has all descriptors for a moment.
        let is_gone = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            weighed().is_none()
        });
        assert!(is_gone, "{:?}", weighed());
        let mut memory =
            File::from(nix::sys::memfd::memfd_create(c"x", nix::sys::memfd::MFdFlags::empty()).unwrap());
        memory.write_all(&[1; 4096]).unwrap();
        let about = memory.metadata().unwrap();
        assert!(!unnamed_files(Path::new("/proc")).unwrap().contains_key(&(about.dev(), about.ino())));
    }

    #[test]
    fn what_cannot_be_opened_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let job = Weigh { folders: vec![file.join("below")], limit: 0, unnamed: false };
        let expected =
            format!("could not open {}: Not a directory (os error 20)", file.join("below").display());
        assert_eq!(job.carry_out().unwrap_err().to_string(), expected);
    }
}
