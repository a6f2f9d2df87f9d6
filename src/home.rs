//! The folders of one user: the store, and a work folder for each operation that runs containers.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Everything that Coracle keeps for one user, below one folder of mode 0700: unpacked layers hold setuid programs
/// of strangers, and nobody else may reach them.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
}

/// A work folder, held by a lock for as long as its operation runs. It holds files of subordinate ids, which only a
/// worker can delete, so an operation ends with [`crate::stage::Stage::finish`]; what a killed one leaves, the next
/// one sweeps.
#[derive(Debug)]
pub(crate) struct WorkFolder {
    pub(crate) path: PathBuf,
    _lock: File,
}

impl Home {
    /// Use `root`, making it where it is missing.
    ///
    /// # Errors
    /// [`Error::Folder`].
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let home = Self { root: root.into() };
        for folder in [home.root.clone(), home.store(), home.work()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(Error::folder("create", &folder))?;
        }
        Ok(home)
    }

    /// Where images are.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// A new work folder, its lock taken before anybody else can see it.
    pub(crate) fn new_work_folder(&self) -> Result<WorkFolder, Error> {
        let work = self.work();
        // The lock comes first and is held before the folder exists, so that nobody takes it for abandoned.
        let lock = tempfile::Builder::new()
            .prefix("op-")
            .suffix(".lock")
            .tempfile_in(&work)
            .map_err(Error::folder("create a lock in", &work))?;
        lock.as_file().lock().map_err(Error::folder("lock", lock.path()))?;
        let (file, lock) =
            lock.keep().map_err(|error| Error::folder("keep a lock in", &work)(error.error))?;
        let path = lock.with_extension("");
        DirBuilder::new().mode(0o700).create(&path).map_err(Error::folder("create", &path))?;
        Ok(WorkFolder { path, _lock: file })
    }

    /// Names of work folders whose operation has ended without deleting them.
    pub(crate) fn abandoned(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.work()).into_iter().flatten().flatten();
        let folders = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
        folders.filter(|path| is_unlocked(&lock_path(path))).collect()
    }
}

/// Beside the folder, not in it: so a folder can be deleted while its lock is still held.
fn lock_path(folder: &Path) -> PathBuf {
    folder.with_extension("lock")
}

/// A folder without a lock file was made a moment ago, or lost its lock when it was deleted: leave it alone.
fn is_unlocked(lock: &Path) -> bool {
    File::open(lock).is_ok_and(|file| file.try_lock().is_ok())
}

impl WorkFolder {
    /// Forget the folder, which a worker has deleted.
    pub(crate) fn forget(self) {
        let _ = fs::remove_file(lock_path(&self.path));
    }
}

/// Forget the lock of an abandoned folder that a worker has deleted.
pub(crate) fn forget_abandoned(folder: &Path) {
    let _ = fs::remove_file(lock_path(folder));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_ended_operations_are_abandoned() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().join("home")).unwrap();
        let held = home.new_work_folder().unwrap();
        assert_eq!(home.abandoned(), Vec::<PathBuf>::new());
        let path = held.path.clone();
        drop(held);
        assert_eq!(home.abandoned(), vec![path.clone()], "its process is gone, its folder is not");
        fs::remove_dir(&path).unwrap();
        forget_abandoned(&path);
        assert_eq!(fs::read_dir(home.work()).unwrap().count(), 0);
    }

    #[test]
    fn nobody_else_can_reach_what_is_kept() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().join("home")).unwrap();
        for path in [home.root.clone(), home.store(), home.work()] {
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o700,
                "{}",
                path.display()
            );
        }
    }
}
