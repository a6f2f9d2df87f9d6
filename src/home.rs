//! The folders of one user: the store, and a work folder for each operation that runs containers.

use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use coracle_images::{Digest, Reference};

use crate::error::Error;
use crate::event::{Event, Observer};

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

/// The folder of one application's cache, held by a lock.
#[derive(Debug)]
pub(crate) struct CacheFolder {
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
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(&folder).map_err(Error::folder("create", &folder))?;
        }
        // Runtimes pass through it as a guest's id, in the stage, where the closed root above is not on the way.
        let work = home.work();
        fs::set_permissions(&work, Permissions::from_mode(0o711)).map_err(Error::folder("open", &work))?;
        Ok(home)
    }

    /// Where images are.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// The cache of the application whose image is `image`, alone for as long as what is returned lives; `folder`
    /// instead of the one below this home. Another build of the same application is waited for.
    pub(crate) fn cache(
        &self,
        image: &Reference,
        folder: Option<&Path>,
        observer: &dyn Observer,
    ) -> Result<CacheFolder, Error> {
        let name = Digest::of(image.to_string());
        let own = || self.root.join("caches").join(&name.hex()[..16]);
        let path = folder.map_or_else(own, Path::to_owned);
        let make = || DirBuilder::new().recursive(true).mode(0o700).create(&path);
        make().map_err(Error::folder("create the cache", &path))?;
        let lock = File::open(&path).map_err(Error::folder("open the cache", &path))?;
        if lock.try_lock().is_err() {
            let text = format!("waiting for another build that uses the cache {}", path.display());
            observer.event(Event::Notice { text });
            lock.lock().map_err(Error::folder("lock the cache", &path))?;
        }
        let path = path.canonicalize().map_err(Error::folder("use the cache", &path))?;
        Ok(CacheFolder { path, _lock: lock })
    }

    /// This home as a path below `folder`, if it lies in there.
    pub(crate) fn inside(&self, folder: &Path) -> Option<PathBuf> {
        let root = self.root.canonicalize().ok()?;
        Some(root.strip_prefix(folder).ok()?.to_owned())
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
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().join("home")).unwrap();
        for path in [home.root.clone(), home.store()] {
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o700,
                "{}",
                path.display()
            );
        }
    }
}
