//! One archive, unpacked apart from everything else.

use std::ffi::OsStr;
use std::io::{BufReader, Read};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use coracle_images::unpack::{Limits, unpack_layer_at};
use coracle_images::{Digest, Hashing};
use nix::fcntl::renameat;
use nix::sys::stat::{Mode, fchmod, fstat};

use super::place::{failed, make_folder, remove};
use super::{Destination, RestoreError};
use crate::cache::Cache;
use crate::folder;

/// A folder into which one archive is unpacked; what is good moves out of it.
pub(super) struct Unpacked<'a> {
    to: Destination<'a>,
    name: String,
    folder: OwnedFd,
}

impl<'a> Unpacked<'a> {
    /// Makes the folder, under a name that no other has.
    pub(super) fn new(to: Destination<'a>, name: &str) -> Result<Self, RestoreError> {
        let name = format!(".restoring-{name}");
        remove(to.layers_dir, OsStr::new(&name)).map_err(|errno| failed("remove", &name, errno))?;
        let folder = make_folder(to.layers_dir, &name)?;
        Ok(Self { to, name, folder })
    }

    /// Unpacks an archive of the cache.
    pub(super) fn cached(&self, cache: &Cache, diff_id: &Digest) -> Result<(), RestoreError> {
        let archive = cache.archive(diff_id)?.ok_or_else(|| RestoreError::NoArchive(diff_id.clone()))?;
        self.archive(BufReader::with_capacity(1 << 17, archive), diff_id)
    }

    /// Unpacks an archive, and verifies it.
    pub(super) fn archive(&self, archive: impl Read, diff_id: &Digest) -> Result<(), RestoreError> {
        let mut archive = Hashing::new(archive);
        let (owner, now) = (&self.to.owner, self.to.now);
        unpack_layer_at(&mut archive, self.folder.as_fd(), owner, &Limits::default(), now)
            .map_err(|source| RestoreError::Unpack { diff_id: diff_id.clone(), source })?;
        let found = archive.digest();
        if found != *diff_id {
            return Err(RestoreError::OtherContent { expected: diff_id.clone(), found });
        }
        Ok(())
    }

    /// The folder itself.
    pub(super) fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Where the archive has what the build has at this path.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        Path::new(self.to.layers_path.trim_start_matches('/')).join(path)
    }

    /// Moves a folder that lies two deep below the layers' to where it belongs.
    pub(super) fn publish(&self, diff_id: &Digest, parent: &str, name: &str) -> Result<(), RestoreError> {
        let missing =
            || RestoreError::NoFolder { diff_id: diff_id.clone(), path: format!("{parent}/{name}") };
        let above = folder::folder(self.folder(), &self.path(parent))?.ok_or_else(missing)?;
        let from = folder::folder(above.as_fd(), Path::new(name))?.ok_or_else(missing)?;
        let to = make_folder(self.to.layers_dir, parent)?;
        let failed = |act, errno| failed(act, name, errno);
        remove(to.as_fd(), OsStr::new(name)).map_err(|errno| failed("remove", errno))?;
        // A folder that is closed to its owner can be neither left nor moved.
        let mode = Mode::from_bits_truncate(fstat(&from).map_err(|errno| failed("look at", errno))?.st_mode);
        fchmod(&above, Mode::S_IRWXU).map_err(|errno| failed("open", errno))?;
        fchmod(&from, mode | Mode::S_IRWXU).map_err(|errno| failed("open", errno))?;
        renameat(&above, name, &to, name).map_err(|errno| failed("move", errno))?;
        fchmod(&from, mode).map_err(|errno| failed("close", errno))
    }

    /// Removes the folder, with what was not moved.
    pub(super) fn remove(self) -> Result<(), RestoreError> {
        remove(self.to.layers_dir, OsStr::new(&self.name))
            .map_err(|errno| failed("remove", &self.name, errno))
    }
}
