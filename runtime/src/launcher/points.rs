//! Places in the guest's root for what is mounted there.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, unlinkat};

use super::{PrepareError, failed};
use crate::ids::IdMap;

/// Make sure that `target` is a real folder (or file) of the guest's root, reached without a symbolic link: an image
/// that has one there could send the runtime's own writes elsewhere. What is missing is made; a link in a file's
/// place (`/etc/resolv.conf` often is one) is replaced in the guest's own upper folder.
pub(super) fn ensure_mount_point(
    root: &OwnedFd,
    target: &Path,
    is_dir: bool,
    ids: &IdMap,
) -> Result<(), PrepareError> {
    let owner = ids.outer(0)?;
    let names: Vec<_> = target
        .components()
        .filter_map(|part| if let Component::Normal(name) = part { Some(name) } else { None })
        .collect();
    let mut folder = root.try_clone().map_err(failed("open", target))?;
    for (index, name) in names.iter().enumerate() {
        let so_far = || names[..=index].iter().collect::<PathBuf>();
        let give_away = |at: &OwnedFd| {
            let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
            fchownat(at.as_fd(), *name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
                .map_err(failed("give away", so_far()))
        };
        if index + 1 == names.len() && !is_dir {
            return ensure_file(&folder, name, &so_far(), give_away);
        }
        match mkdirat(&folder, *name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => give_away(&folder)?,
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed("create", so_far())(errno)),
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        folder = match openat(&folder, *name, flags, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::ENOTDIR | Errno::ELOOP) => return Err(PrepareError::Redirected { path: so_far() }),
            Err(errno) => return Err(failed("open", so_far())(errno)),
        };
    }
    Ok(())
}

/// Make the folder for temporary files where an image has nothing at all in its place. Programs take it for granted.
pub(super) fn ensure_tmp(root: &OwnedFd, ids: &IdMap) -> Result<(), PrepareError> {
    let owner = ids.outer(0)?;
    match mkdirat(root, "tmp", Mode::empty()) {
        Ok(()) => {}
        Err(Errno::EEXIST) => return Ok(()),
        Err(errno) => return Err(failed("create", "tmp")(errno)),
    }
    let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
    fchownat(root.as_fd(), "tmp", Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_err(failed("give away", "tmp"))?;
    // mkdir(2) takes away what the umask says. The folder was made just now, and nobody else is here.
    fchmodat(root, "tmp", Mode::from_bits_truncate(0o1777), FchmodatFlags::FollowSymlink)
        .map_err(failed("open", "tmp"))
}

fn ensure_file(
    folder: &OwnedFd,
    name: &std::ffi::OsStr,
    path: &Path,
    give_away: impl Fn(&OwnedFd) -> Result<(), PrepareError>,
) -> Result<(), PrepareError> {
    use nix::sys::stat::{SFlag, fstatat};
    let kind = match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Some(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT),
        Err(Errno::ENOENT) => None,
        Err(errno) => return Err(failed("look at", path)(errno)),
    };
    match kind {
        Some(SFlag::S_IFREG) => return Ok(()),
        Some(SFlag::S_IFDIR) => return Err(PrepareError::Redirected { path: path.to_owned() }),
        Some(_) => unlinkat(folder, name, UnlinkatFlags::NoRemoveDir).map_err(failed("replace", path))?,
        None => {}
    }
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(folder, name, flags, Mode::from_bits_truncate(0o644)).map_err(failed("create", path))?;
    give_away(folder)
}
