//! Copies of the user's folders for a guest: owned by the guest's ids, at one instant, links as they are.

use std::collections::VecDeque;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use coracle_lifecycle::folder;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
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
    let root = File::open(source).map_err(|error| CopyError { path: PathBuf::new(), source: error })?;
    let (mut skipped, mut folders) = (0, Vec::new());
    let mut pending = VecDeque::from([PathBuf::new()]);
    while let Some(path) = pending.pop_front() {
        let failed = |source| CopyError { path: path.clone(), source };
        let (to, from) = (target.join(&path), open(&root, &path, OFlag::O_PATH).map_err(failed)?);
        let about = from.metadata().map_err(failed)?;
        if about.is_dir() {
            fs::create_dir(&to).map_err(failed)?;
            for entry in folder::entries(root.as_fd(), named(&path))
                .map_err(|error| failed(io::Error::other(error)))?
            {
                let below = path.join(entry.name);
                pending.extend((!excluded.contains(&below)).then_some(below));
            }
            // Its mode and time come last: a folder that may not be written must still be filled.
            folders.push((to, about.mode()));
        } else if about.is_symlink() {
            let link = readlinkat(&from, "").map_err(|errno| failed(errno.into()))?;
            symlink(link, &to).and_then(|()| settle(&to, None, owner)).map_err(failed)?;
        } else if about.is_file() {
            let mode = copy_file(&root, &path, &to).map_err(failed)?;
            settle(&to, Some(mode), owner).map_err(failed)?;
        } else {
            skipped += 1;
        }
    }
    for (path, mode) in folders.iter().rev() {
        settle(path, Some(*mode), owner).map_err(|source| CopyError { path: path.clone(), source })?;
    }
    Ok(skipped)
}

/// Open what lies below `root`. Others may be able to write there while we read: a folder that has become a link leads
/// nowhere (openat2(2)).
fn open(root: &File, path: &Path, flags: OFlag) -> io::Result<File> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    Ok(openat2(root.as_fd(), named(path), how)?.into())
}

/// The empty path has no name for the kernel.
fn named(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// The file's mode. On file systems that can, std's copy shares the blocks or stays inside the kernel (copy_file_range(2)).
fn copy_file(root: &File, path: &Path, to: &Path) -> io::Result<u32> {
    let mut from = open(root, path, OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
    let about = from.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("it is no regular file any more"));
    }
    io::copy(&mut from, &mut File::create_new(to)?)?;
    Ok(about.mode())
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

    #[test]
    fn a_folder_that_becomes_a_link_while_it_is_copied_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let (source, other) = (folder.path().join("s"), folder.path().join("other"));
        for path in [&source, &other] {
            fs::create_dir_all(path.join("in")).unwrap();
            fs::write(path.join("in/file"), path.as_os_str().as_encoded_bytes()).unwrap();
        }
        let root = File::open(&source).unwrap();
        assert!(open(&root, Path::new("in/file"), OFlag::O_RDONLY).is_ok());
        assert!(open(&root, Path::new("../other/in/file"), OFlag::O_RDONLY).is_err());
        fs::rename(source.join("in"), source.join("was")).unwrap();
        symlink(other.join("in"), source.join("in")).unwrap();
        let target = folder.path().join("t");
        assert!(copy_file(&root, Path::new("in/file"), &target).is_err() && !target.exists());
        fs::remove_file(source.join("in")).unwrap();
        nix::unistd::mkfifo(&source.join("in"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(copy_file(&root, Path::new("in"), &target).is_err() && !target.exists());
    }
}
