//! Folders given to the build's user, by a process that may: what is in them is hostile, so no link is followed.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{Gid, Uid, fchown, fchownat};

use super::privileges::User;

/// Why something is not the user's.
#[derive(Debug, thiserror::Error)]
#[error("change owner: `{path}`")]
pub struct OwnerError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// Makes a folder with all that is in it the user's, if it is there and the user cannot write to it.
pub(super) fn give(folder: &Path, user: User) -> Result<(), OwnerError> {
    let failed = |source| OwnerError { path: folder.to_owned(), source };
    refuse_links(folder).map_err(failed)?;
    let flags = OFlag::O_DIRECTORY | OFlag::O_NONBLOCK;
    let dir = match File::options().read(true).custom_flags(flags.bits()).open(folder) {
        Ok(dir) => dir,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let found = dir.metadata().map_err(failed)?;
    if can_write(user, (found.uid(), found.gid()), found.mode()) {
        return Ok(());
    }
    give_all(dir.into(), folder, user)
}

/// Fails where a link of anybody but root leads to the folder: platforms may have it in a checkout of somebody's sources, where a link
/// can lead to any folder of root's.
fn refuse_links(folder: &Path) -> std::io::Result<()> {
    let folder = std::path::absolute(folder)?;
    for path in folder.ancestors() {
        match path.symlink_metadata() {
            Ok(about) if about.is_symlink() && about.uid() != 0 => {
                return Err(std::io::Error::other(format!(
                    "`{}` is a link of user {}, which root does not follow: name the folder itself",
                    path.display(),
                    about.uid()
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the user can write to a folder of this owner and mode. What is in it is not looked at: large caches are many files.
fn can_write(user: User, (uid, gid): (u32, u32), mode: u32) -> bool {
    uid == user.uid || (gid == user.gid && mode & 0o020 != 0) || mode & 0o002 != 0
}

fn give_all(dir: OwnedFd, path: &Path, user: User) -> Result<(), OwnerError> {
    let failed = |errno: Errno| OwnerError { path: path.to_owned(), source: errno.into() };
    let (uid, gid) = (Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)));
    let mut dir = Dir::from_fd(dir).map_err(failed)?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let name = entry.map_err(failed)?.file_name().to_owned();
        if ![&b"."[..], b".."].contains(&name.to_bytes()) {
            names.push(name);
        }
    }
    for name in names {
        let path = path.join(name.to_string_lossy().as_ref());
        let failed = |errno: Errno| OwnerError { path: path.clone(), source: errno.into() };
        let at = dir.as_fd();
        let stat = fstatat(at, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
            give_all(open(at, &name).map_err(failed)?, &path, user)?;
        } else {
            fchownat(at, name.as_c_str(), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
        }
    }
    fchown(dir.as_fd(), uid, gid).map_err(failed)
}

fn open(at: BorrowedFd<'_>, name: &std::ffi::CStr) -> nix::Result<OwnedFd> {
    openat(at, name, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_can_write() {
        let user = User { uid: 7, gid: 8 };
        for (owner, mode, can) in [
            ((7, 0), 0o500, true),
            ((0, 8), 0o775, true),
            ((0, 8), 0o755, false),
            ((0, 0), 0o775, false),
            ((0, 0), 0o777, true),
            ((8, 7), 0o770, false),
        ] {
            assert_eq!(can_write(user, owner, mode), can, "{owner:?} {mode:o}");
        }
    }
}
