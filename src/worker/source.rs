//! Copies of the user's folders for a guest: owned by the guest's ids, at one instant, links as they are.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

/// The modification time of every copy, 1980-01-01T00:00:01Z: what buildpacks see does not depend on when a
/// repository was checked out.
const INSTANT: TimeSpec = TimeSpec::new(315_532_801, 0);

/// A file or folder could not be copied.
#[derive(Debug, thiserror::Error)]
#[error("could not copy `{path}` of the source")]
pub(super) struct CopyError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Copy what is in `source` into the new folder `target`, giving it to `owner` (ids of the stage). `excluded` are
/// paths below `source`. Sockets, FIFOs and devices have no content to copy: their number is returned.
pub(super) fn copy_tree(
    source: &Path,
    target: &Path,
    owner: (u32, u32),
    excluded: &[PathBuf],
) -> Result<usize, CopyError> {
    let (mut skipped, mut folders) = (0, Vec::new());
    let mut pending = VecDeque::from([PathBuf::new()]);
    while let Some(path) = pending.pop_front() {
        let (from, to) = (source.join(&path), target.join(&path));
        let failed = |source| CopyError { path: path.clone(), source };
        let about =
            if path.as_os_str().is_empty() { fs::metadata(&from) } else { fs::symlink_metadata(&from) };
        let about = about.map_err(failed)?;
        if about.is_dir() {
            fs::create_dir(&to).map_err(failed)?;
            let entries = fs::read_dir(&from).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            let paths = entries.map_err(failed)?.into_iter().map(|entry| path.join(entry.file_name()));
            pending.extend(paths.filter(|path| !excluded.contains(path)));
            // Its mode and time come last: a folder that may not be written must still be filled.
            folders.push((to, about.mode()));
        } else if about.is_symlink() {
            let link = fs::read_link(&from).map_err(failed)?;
            symlink(link, &to).and_then(|()| settle(&to, None, owner)).map_err(failed)?;
        } else if about.is_file() {
            copy_file(&from, &to).and_then(|()| settle(&to, Some(about.mode()), owner)).map_err(failed)?;
        } else {
            skipped += 1;
        }
    }
    for (path, mode) in folders.iter().rev() {
        settle(path, Some(*mode), owner).map_err(|source| CopyError { path: path.clone(), source })?;
    }
    Ok(skipped)
}

/// On file systems that can, std's copy shares the blocks or stays inside the kernel (copy_file_range(2)).
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let mut from = OpenOptions::new().read(true).custom_flags(flags).open(from)?;
    let mut to = File::create_new(to)?;
    io::copy(&mut from, &mut to).map(drop)
}

/// Owner, mode (links have none) and time, in the order in which none undoes another.
fn settle(path: &Path, mode: Option<u32>, (uid, gid): (u32, u32)) -> io::Result<()> {
    lchown(path, Some(uid), Some(gid))?;
    if let Some(mode) = mode {
        fs::set_permissions(path, Permissions::from_mode(mode & 0o7777))?;
    }
    utimensat(AT_FDCWD, path, &INSTANT, &INSTANT, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_have_modes_links_and_one_time_and_leave_out_what_is_excluded() {
        let folder = tempfile::tempdir().unwrap();
        let (source, target) = (folder.path().join("s"), folder.path().join("t"));
        fs::create_dir_all(source.join("a/b")).unwrap();
        fs::create_dir(source.join("kept-out")).unwrap();
        fs::write(source.join("kept-out/file"), "no").unwrap();
        fs::write(source.join("a/run"), "x").unwrap();
        fs::set_permissions(source.join("a/run"), Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(source.join("a"), Permissions::from_mode(0o555)).unwrap();
        symlink("/etc/passwd", source.join("link")).unwrap();
        nix::unistd::mkfifo(&source.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let me = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        let skipped = copy_tree(&source, &target, me, &["kept-out".into()]).unwrap();
        assert_eq!(skipped, 1, "a FIFO has no content");
        let mode = |path: &str| fs::symlink_metadata(target.join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("a"), mode("a/run")), (0o555, 0o755));
        assert_eq!(fs::read_link(target.join("link")).unwrap(), Path::new("/etc/passwd"));
        for path in ["", "a", "a/b", "a/run", "link"] {
            let about = fs::symlink_metadata(target.join(path)).unwrap();
            assert_eq!((about.mtime(), about.mtime_nsec()), (315_532_801, 0), "{path}");
        }
        assert!(!target.join("kept-out").exists() && !target.join("fifo").exists());
        for path in [&source, &target] {
            fs::set_permissions(path.join("a"), Permissions::from_mode(0o755)).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let failed = copy_tree(&folder.path().join("missing"), &folder.path().join("t"), (0, 0), &[]);
        assert_eq!(failed.unwrap_err().to_string(), "could not copy `` of the source");
    }
}
