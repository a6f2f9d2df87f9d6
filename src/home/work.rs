//! A folder for each operation that runs containers.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::{Home, is_at};
use crate::error::Error;

/// A work folder, held by a lock for as long as its operation runs. It holds files of subordinate ids, which only a
/// worker can delete, so an operation ends with [`crate::stage::Stage::finish`]; what a killed one leaves, the next
/// one sweeps.
#[derive(Debug)]
pub(crate) struct WorkFolder {
    pub(crate) path: PathBuf,
    _lock: File,
}

impl Home {
    /// A new work folder, its lock taken before anybody else can see it.
    pub(crate) fn new_work_folder(&self) -> Result<WorkFolder, Error> {
        let work = self.work();
        // The lock comes first and is held before the folder exists, so that nobody takes it for abandoned.
        let lock = loop {
            let lock = tempfile::Builder::new()
                .prefix("op-")
                .suffix(".lock")
                .tempfile_in(&work)
                .map_err(Error::folder("create a lock in", &work))?;
            lock.as_file().lock().map_err(Error::folder("lock", lock.path()))?;
            // Somebody may have taken it for one that was left.
            if is_at(lock.as_file(), lock.path()) {
                break lock;
            }
        };
        let (file, lock) =
            lock.keep().map_err(|error| Error::folder("keep a lock in", &work)(error.error))?;
        let path = lock.with_extension("");
        DirBuilder::new().mode(0o700).create(&path).map_err(Error::folder("create", &path))?;
        Ok(WorkFolder { path, _lock: file })
    }

    /// Work folders whose operation has ended without deleting them, now ours to delete. There may be no more of one than its lock.
    pub(crate) fn abandoned(&self) -> Vec<WorkFolder> {
        let entries = fs::read_dir(self.work()).into_iter().flatten().flatten();
        let locks = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "lock"));
        let folders = locks.map(|lock| lock.with_extension(""));
        folders.filter_map(|path| Some(WorkFolder { _lock: lock_if_free(&path)?, path })).collect()
    }
}

/// Beside the folder, not in it: so a folder can be deleted while its lock is still held.
fn lock_path(folder: &Path) -> PathBuf {
    folder.with_extension("lock")
}

/// The lock of a folder that nobody holds.
fn lock_if_free(folder: &Path) -> Option<File> {
    let path = lock_path(folder);
    let lock = File::open(&path).ok()?;
    (lock.try_lock().is_ok() && is_at(&lock, &path)).then_some(lock)
}

impl WorkFolder {
    /// Forget the folder, which a worker has deleted.
    pub(crate) fn forget(&self) {
        let _ = fs::remove_file(lock_path(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_ended_operations_are_abandoned() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().join("home")).unwrap();
        let held = home.new_work_folder().unwrap();
        let paths = |folders: &[WorkFolder]| folders.iter().map(|f| f.path.clone()).collect::<Vec<_>>();
        assert_eq!(paths(&home.abandoned()), Vec::<PathBuf>::new());
        let path = held.path.clone();
        drop(held);
        let abandoned = home.abandoned();
        assert_eq!(paths(&abandoned), vec![path.clone()], "its process is gone, its folder is not");
        assert_eq!(paths(&home.abandoned()), Vec::<PathBuf>::new(), "somebody deletes it already");
        fs::remove_dir(&path).unwrap();
        drop(abandoned);
        let abandoned = home.abandoned();
        assert_eq!(paths(&abandoned), vec![path], "its folder is gone, its lock is not");
        abandoned.iter().for_each(WorkFolder::forget);
        assert_eq!(fs::read_dir(home.work()).unwrap().count(), 0);
    }
}
