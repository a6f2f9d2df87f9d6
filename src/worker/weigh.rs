//! What folders take that a guest fills meanwhile.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use serde::{Deserialize, Serialize};

use super::{AnyError, Job};

/// The least that an entry counts, bytes: names and inodes run out as well.
const ENTRY: u64 = 4096;

/// Folders in each other that are looked into; what lies deeper cannot be counted, and so is too much.
const DEPTH: usize = 500;

/// How many bytes these folders take on disk, counted no further than to a limit.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Weigh {
    /// What is not there counts nothing.
    pub(crate) folders: Vec<PathBuf>,
    pub(crate) limit: u64,
}

impl Job for Weigh {
    type Answer = u64;

    fn carry_out(self) -> Result<u64, AnyError> {
        let mut scale = Scale { limit: self.limit, total: 0 };
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
    use std::fs;

    use super::*;

    fn weighed(folder: &std::path::Path, limit: u64) -> u64 {
        Weigh { folders: vec![folder.to_owned(), "/nowhere".into()], limit }.carry_out().unwrap()
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
}
