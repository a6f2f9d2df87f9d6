//! Deleting what guests have filled.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::{AnyError, Job};

/// Delete folders. All are tried; the failures are told together.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Delete {
    pub(crate) folders: Vec<PathBuf>,
}

impl Job for Delete {
    type Answer = ();

    fn carry_out(self) -> Result<(), AnyError> {
        let failed = |folder: &PathBuf| Some(format!("{}: {}", folder.display(), delete(folder).err()?));
        let failures: Vec<String> = self.folders.iter().filter_map(failed).collect();
        if failures.is_empty() {
            Ok(())
        } else {
            Err(format!("could not delete {}", failures.join(", ")).into())
        }
    }
}

/// Delete a folder that a guest has filled, however deep: what lies two levels down is moved up, so that neither the
/// stack nor open folders grow with the depth. Nothing is followed; every process that could interfere has ended.
pub(super) fn delete(top: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(top) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?.collect::<io::Result<Vec<_>>>()?,
    };
    let mut pending: VecDeque<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    let mut number = 0u64;
    while let Some(path) = pending.pop_front() {
        if !fs::symlink_metadata(&path)?.is_dir() {
            fs::remove_file(&path)?;
            continue;
        }
        for entry in fs::read_dir(&path)?.collect::<io::Result<Vec<_>>>()? {
            if !entry.file_type()?.is_dir() {
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
    fs::remove_dir(top)
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
}
