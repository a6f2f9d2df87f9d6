//! What programs of a build have touched of the application's copy goes; what they have not stays.
//!
//! An entry is what it was if what the kernel says of it is among what it said when nobody but us had touched the copy. Of all others
//! nothing is left, but folders above those that are. They are marked by their time, and made what they were by the next copying.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use coracle_lifecycle::folder;
use coracle_lifecycle::signature::{Stamp, has_attributes};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::worker::AnyError;
use crate::worker::evidence::Evidence;

/// The time of folders that are not what they were.
const MARK: TimeSpec = TimeSpec::new(0, 0);

/// Folders of programs can lie deeper; then nothing stays.
const DEPTH: usize = 128;

/// Deletes all below a folder that is not among `intact`. No process that could interfere runs any more, and no link is followed.
pub(super) fn remove_touched(top: BorrowedFd<'_>, intact: &Evidence) -> Result<(), AnyError> {
    Removing { intact, path: PathBuf::new() }.folder(top).map(drop)
}

struct Removing<'a> {
    intact: &'a Evidence,
    /// Below the top.
    path: PathBuf,
}

impl Removing<'_> {
    /// Says whether the folder is empty now. It counts as touched if something in it was.
    fn folder(&mut self, dir: BorrowedFd<'_>) -> Result<bool, AnyError> {
        if self.path.components().count() > DEPTH {
            return Err("its folders lie too deep in each other".into());
        }
        let mut left = 0;
        for entry in folder::entries(dir, Path::new("."))? {
            self.path.push(&entry.name);
            left += usize::from(self.entry(dir, &entry.name)?);
            self.path.pop();
        }
        Ok(left == 0)
    }

    /// Says whether it stays.
    fn entry(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<bool, AnyError> {
        let stamp = Stamp::of(&fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?);
        let is_intact = self.intact.contains(&stamp.evidence(self.path.as_os_str()));
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let below = match openat(dir, name, flags, Mode::empty()) {
            Ok(below) => below,
            Err(Errno::ENOTDIR | Errno::ELOOP) if is_intact => return Ok(true),
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)?;
                return Ok(false);
            }
            Err(errno) => return Err(io::Error::from(errno).into()),
        };
        let is_empty = self.folder(below.as_fd())?;
        if is_intact {
            return Ok(true);
        }
        if is_empty {
            unlinkat(dir, name, UnlinkatFlags::RemoveDir)?;
            return Ok(false);
        }
        // Lists of rights would be those of what is made in it.
        if has_attributes(dir, name)? {
            return Err("a folder has got attributes".into());
        }
        futimens(&below, &MARK, &MARK)?;
        Ok(true)
    }
}
