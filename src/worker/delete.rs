//! Deleting what guests have filled, and what ended processes have left.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::{fs, io};

use coracle_images::Store;
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

/// How much may be deleted while somebody waits.
struct Budget(Option<u64>);

impl Budget {
    /// Whether one more entry may go.
    fn allows(&mut self, entry: &fs::Metadata) -> bool {
        let Some(left) = &mut self.0 else { return true };
        let before = *left;
        *left = left.saturating_sub(1 + if entry.is_file() { entry.len() >> 20 } else { 0 });
        before > 0
    }
}

/// Delete a folder that a guest has filled, whatever it takes.
pub(super) fn delete(top: &Path) -> io::Result<()> {
    delete_within(top, &mut Budget(None)).map(drop)
}

/// Delete a folder that a guest has filled, however deep: what lies two levels down is moved up, so that neither the
/// stack nor open folders grow with the depth. Nothing is followed; every process that could interfere has ended.
/// Says whether all of it is gone; what is left can be deleted in the same way.
fn delete_within(top: &Path, budget: &mut Budget) -> io::Result<bool> {
    let entries = match fs::read_dir(top) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        entries => entries?.collect::<io::Result<Vec<_>>>()?,
    };
    let mut pending: VecDeque<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    let mut number = 0u64;
    while let Some(path) = pending.pop_front() {
        let about = fs::symlink_metadata(&path)?;
        if !budget.allows(&about) {
            return Ok(false);
        }
        if !about.is_dir() {
            fs::remove_file(&path)?;
            continue;
        }
        for entry in fs::read_dir(&path)?.collect::<io::Result<Vec<_>>>()? {
            if !entry.file_type()?.is_dir() {
                if !budget.allows(&entry.metadata()?) {
                    return Ok(false);
                }
                fs::remove_file(entry.path())?;
                continue;
            }
            let up = loop {
                number += 1;
                let up = top.join(format!(".deleted-{number}"));
                if fs::symlink_metadata(&up).is_err() {
                    break up;
                }
            };
            fs::rename(entry.path(), &up)?;
            pending.push_back(up);
        }
        fs::remove_dir(&path)?;
    }
    fs::remove_dir(top).map(|()| true)
}

#[cfg(test)]
mod tests {
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
            std::os::unix::fs::symlink(&kept, base.join("link")).unwrap();
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

    fn entries(folder: &Path) -> usize {
        let below = |entry: fs::DirEntry| match entry.file_type().unwrap().is_dir() {
            true => 1 + entries(&entry.path()),
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
        let all = entries(&top);
        assert!(!delete_within(&top, &mut Budget(Some(40))).unwrap());
        assert!((all - 40..all).contains(&entries(&top)), "{} of {all}", entries(&top));
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
        assert_eq!(entries(&top), 1);
    }
}
