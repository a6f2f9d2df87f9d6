//! What prune does as the owner of all ids.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use coracle_images::{Prune, Pruned, Store, size_on_disk};
use serde::{Deserialize, Serialize};

use super::{AnyError, Job};
use crate::stage::{STORE, WORK};

/// Delete of the store what no image names. `None` where an operation runs that may need it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PruneStore {
    pub(crate) key: String,
    pub(crate) all: bool,
    pub(crate) dry_run: bool,
    /// The work folder of this operation.
    pub(crate) own: PathBuf,
}

impl Job for PruneStore {
    type Answer = Option<Pruned>;

    fn carry_out(self) -> Result<Option<Pruned>, AnyError> {
        let what = Prune { idmap_key: &self.key, all: self.all, dry_run: self.dry_run };
        Ok(Store::open(STORE)?.prune(what, || runs_another(Path::new(WORK), &self.own))?)
    }
}

/// Whether an operation holds a work folder besides this one. What it has packed may have no name yet, and between two of its
/// jobs nobody has the store open.
fn runs_another(work: &Path, own: &Path) -> bool {
    let entries = fs::read_dir(work).into_iter().flatten().flatten().map(|entry| entry.path());
    entries
        .filter(|path| path.extension().is_some_and(|end| end == "lock") && path.with_extension("") != own)
        .any(|path| File::open(path).is_ok_and(|lock| lock.try_lock().is_err()))
}

/// How many bytes these folders take on disk.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measure {
    pub(crate) folders: Vec<PathBuf>,
}

impl Job for Measure {
    type Answer = u64;

    fn carry_out(self) -> Result<u64, AnyError> {
        let size = |folder: &PathBuf| {
            size_on_disk(folder)
                .map_err(|error| AnyError::from(format!("could not measure {}: {error}", folder.display())))
        };
        self.folders.iter().map(size).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_that_holds_its_folder_runs_and_an_ended_one_does_not() {
        let work = tempfile::tempdir().unwrap();
        let lock = |name: &str| {
            let lock = File::create(work.path().join(name).with_extension("lock")).unwrap();
            lock.lock().unwrap();
            lock
        };
        let own = work.path().join("op-own");
        let (_own, other) = (lock("op-own"), lock("op-other"));
        assert!(runs_another(work.path(), &own));
        drop(other);
        assert!(!runs_another(work.path(), &own));
    }
}
