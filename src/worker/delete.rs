//! Deleting what guests have filled, and what ended processes have left.
//!
//! A guest may outlive the process that watched over it for an instant, and put a link where a folder was between our look and our
//! deed. So nothing below the folder to delete is ever named by a path: what is deleted is a name in an open folder, and a folder is
//! opened by one name in another, where a link, a mount or a way out is refused by the kernel (`openat2(2)`).

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{io, thread};

use coracle_images::Store;
use nix::dir::{Dir, Entry, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};

use super::{AnyError, Job};
use crate::stage::STORE;

/// Delete folders, and what ended processes have left in the store. All is tried.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Delete {
    pub(crate) folders: Vec<PathBuf>,
    /// How much at the most: entries, and MiB of files.
    pub(crate) at_most: Option<u64>,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Deleted {
    /// Whether each folder is gone, or why it could not be deleted.
    pub(crate) folders: Vec<Result<bool, String>>,
    /// Whether something is left in the store; also what cannot be deleted.
    pub(crate) store_is_clean: bool,
}

impl Job for Delete {
    type Answer = Deleted;

    fn carry_out(self) -> Result<Deleted, AnyError> {
        let mut budget = Budget(self.at_most);
        let failed = |folder: &PathBuf, error| format!("could not delete {}: {error}", folder.display());
        let mut folder =
            |folder: &PathBuf| delete_within(folder, &mut budget).map_err(|error| failed(folder, error));
        let folders = self.folders.iter().map(&mut folder).collect();
        // Nobody needs that to go.
        let Ok(store) = Store::open(STORE) else { return Ok(Deleted { folders, store_is_clean: false }) };
        if self.at_most.is_none() {
            // Where the disk fails, layers are unpacked again after the next start of the machine.
            let _ = store.settle();
        }
        let abandoned = store.abandoned().unwrap_or_default();
        let mut paths = abandoned.iter().flat_map(|session| &session.paths);
        let store_is_clean = paths.all(|path| folder(path) == Ok(true)) && !store.is_unsettled();
        Ok(Deleted { folders, store_is_clean })
    }
}

/// How often a folder is looked at again that is not empty when it should be, and how long that waits for the last of whoever fills it.
const ROUNDS: usize = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// How much may be deleted while somebody waits.
struct Budget(Option<u64>);

impl Budget {
    /// Whether one more entry may go: this name of this folder.
    fn allows(&mut self, folder: &Dir, name: &CStr) -> bool {
        let Some(left) = &mut self.0 else { return true };
        let before = *left;
        let size = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_or(0, |about| {
            let is_file = SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
            if is_file { u64::try_from(about.st_size).unwrap_or(0) } else { 0 }
        });
        *left = left.saturating_sub(1 + (size >> 20));
        before > 0
    }
}

/// Delete a folder that a guest has filled, whatever it takes.
pub(super) fn delete(top: &Path) -> io::Result<()> {
    delete_within(top, &mut Budget(None)).map(drop)
}

/// Delete a folder that a guest has filled, however deep. Says whether all of it is gone; what is left can be deleted in the same way.
/// The folder that it lies in is ours.
fn delete_within(top: &Path, budget: &mut Budget) -> io::Result<bool> {
    let (Some(above), Some(name)) = (top.parent(), top.file_name()) else {
        return Err(io::Error::other("it lies in no folder"));
    };
    let name = CString::new(name.as_bytes())?;
    let above = match open(above, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(true),
        above => above?,
    };
    for _ in 0..ROUNDS {
        let folder = match open_folder(above.as_fd(), &name) {
            Err(Errno::ENOENT) => return Ok(true),
            folder => folder?,
        };
        if !empty(folder, budget)? {
            return Ok(false);
        }
        match unlinkat(&above, name.as_c_str(), UnlinkatFlags::RemoveDir) {
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => thread::sleep(PAUSE),
            Err(errno) if errno != Errno::ENOENT => return Err(errno.into()),
            _ => return Ok(true),
        }
    }
    Err(Errno::ENOTEMPTY.into())
}

/// Delete what is found in this folder, or as much as may be; whether that was all. What lies two levels down is moved up, so that
/// neither the stack nor open folders grow with the depth.
fn empty(mut top: Dir, budget: &mut Budget) -> nix::Result<bool> {
    let mut pending = VecDeque::from(entries(&mut top)?);
    let mut number = 0u64;
    while let Some((name, kind)) = pending.pop_front() {
        if !budget.allows(&top, &name) {
            return Ok(false);
        }
        if unlink(&top, &name, kind)? {
            continue;
        }
        let mut folder = match open_folder(top.as_fd(), &name) {
            // It was a folder, and is none any more: what it is now is found in the next round.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => continue,
            folder => folder?,
        };
        for (entry, kind) in entries(&mut folder)? {
            if kind != Some(Type::Directory) && !budget.allows(&folder, &entry) {
                return Ok(false);
            }
            if unlink(&folder, &entry, kind)? {
                continue;
            }
            loop {
                number += 1;
                let up = CString::new(format!(".deleted-{number}")).map_err(|_| Errno::EINVAL)?;
                match renameat(&folder, entry.as_c_str(), &top, up.as_c_str()) {
                    Ok(()) => pending.push_back((up, None)),
                    // The name is taken; where it can be replaced, that is deleted as well.
                    Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR | Errno::EISDIR) => continue,
                    Err(Errno::ENOENT) => {}
                    Err(errno) => return Err(errno),
                }
                break;
            }
        }
        match unlinkat(&top, name.as_c_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENOTEMPTY | Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}

/// What is in a folder, and of what kind, where the file system says so.
fn entries(folder: &mut Dir) -> nix::Result<Vec<(CString, Option<Type>)>> {
    let named = |entry: Entry| (entry.file_name().to_owned(), entry.file_type());
    let all = folder.iter().map(|entry| entry.map(named)).collect::<nix::Result<Vec<_>>>()?;
    Ok(all.into_iter().filter(|(name, _)| !matches!(name.to_bytes(), b"." | b"..")).collect())
}

/// Deletes a name unless it is a folder's. Of what kind it is may have changed, and the kernel says.
fn unlink(folder: &Dir, name: &CStr, kind: Option<Type>) -> nix::Result<bool> {
    if kind == Some(Type::Directory) {
        return Ok(false);
    }
    match unlinkat(folder, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EISDIR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Opens a folder by its one name in another: no link, and no mount.
fn open_folder(above: BorrowedFd<'_>, name: &CStr) -> nix::Result<Dir> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    Dir::from_fd(openat2(above, name, OpenHow::new().flags(flags).resolve(resolve))?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

    use super::*;

    #[test]
    fn a_tree_deeper_than_descriptors_last_is_deleted_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (top, kept) = (folder.path().join("top"), folder.path().join("kept"));
        fs::create_dir_all(&top).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "kept").unwrap();
        let mut tower = folder.path().join("tower");
        fs::create_dir(&tower).unwrap();
        // Built from the top down, because no path may be as long as the whole tower.
        for _ in 0..3000 {
            let base = folder.path().join("base");
            fs::create_dir(&base).unwrap();
            symlink(&kept, base.join("link")).unwrap();
            fs::rename(&tower, base.join("d")).unwrap();
            fs::rename(&base, &tower).unwrap();
            tower = folder.path().join("tower");
        }
        fs::rename(&tower, top.join("tower")).unwrap();
        delete(&top).unwrap();
        assert!(!top.exists());
        assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "kept");
        delete(&top).unwrap();
    }

    fn count(folder: &Path) -> usize {
        let below = |entry: fs::DirEntry| match entry.file_type().unwrap().is_dir() {
            true => 1 + count(&entry.path()),
            false => 1,
        };
        fs::read_dir(folder).unwrap().map(|entry| below(entry.unwrap())).sum()
    }

    #[test]
    fn no_more_goes_than_is_allowed_and_what_is_left_can_go_later() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("top");
        for number in 0..100 {
            fs::create_dir_all(top.join(format!("{}/a/b", number % 10))).unwrap();
            fs::write(top.join(format!("{}/a/b/{number}", number % 10)), "").unwrap();
        }
        let all = count(&top);
        assert!(!delete_within(&top, &mut Budget(Some(40))).unwrap());
        assert!((all - 40..all).contains(&count(&top)), "{} of {all}", count(&top));
        assert!(delete_within(&top, &mut Budget(Some(200))).unwrap());
        assert!(!top.exists());
    }

    #[test]
    fn a_large_file_counts_for_as_much_as_many_small_ones() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("top");
        fs::create_dir_all(&top).unwrap();
        for name in ["a", "b", "c"] {
            fs::File::create(top.join(name)).unwrap().set_len(100 << 20).unwrap();
        }
        assert!(!delete_within(&top, &mut Budget(Some(150))).unwrap());
        assert_eq!(count(&top), 1);
    }

    /// A guest that outlived what watched over it puts links where folders were, as fast as it can, while they are deleted.
    #[test]
    fn whoever_swaps_folders_for_links_meanwhile_has_nothing_else_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        for number in 0..16 {
            fs::create_dir_all(kept.join(format!("{number}/inner"))).unwrap();
            fs::write(kept.join(format!("{number}/file")), "kept").unwrap();
        }
        let all = count(&kept);
        let tops = (0..20).map(|number| folder.path().join(format!("top-{number}"))).collect::<Vec<_>>();
        let names = (0..40).flat_map(|number| [format!("{number}"), format!("deep/{number}")]);
        let pairs = names.map(|name| (format!("{name}-folder"), format!("{name}-link"))).collect::<Vec<_>>();
        for top in &tops {
            for (name, link) in &pairs {
                fs::create_dir_all(top.join(name).join("inner")).unwrap();
                symlink(&kept, top.join(link)).unwrap();
            }
        }
        let (at, swaps) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let swap = |top: &Path| {
            for (one, other) in &pairs {
                let (flags, one, other) = (RenameFlags::RENAME_EXCHANGE, top.join(one), top.join(other));
                let swapped = renameat2(AT_FDCWD, &one, AT_FDCWD, &other, flags);
                swaps.fetch_add(usize::from(swapped.is_ok()), Ordering::Relaxed);
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                while let Some(top) = tops.get(at.load(Ordering::Relaxed)) {
                    swap(top);
                }
            });
            for (number, top) in tops.iter().enumerate() {
                // The other is at it already.
                while swaps.load(Ordering::Relaxed) <= number * pairs.len() {
                    thread::yield_now();
                }
                // A panic here would leave the other going on for ever.
                let _ = delete(top);
                at.fetch_add(1, Ordering::Relaxed);
            }
        });
        assert_eq!(count(&kept), all);
        assert!(tops.iter().all(|top| !top.exists()));
        assert!(swaps.load(Ordering::Relaxed) > tops.len(), "{swaps:?}");
    }

    #[test]
    fn a_link_is_no_folder_to_delete() {
        let folder = tempfile::tempdir().unwrap();
        let (top, kept) = (folder.path().join("top"), folder.path().join("kept"));
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "kept").unwrap();
        symlink(&kept, &top).unwrap();
        assert!(delete(&top).is_err());
        assert_eq!(count(folder.path()), 3);
    }
}
