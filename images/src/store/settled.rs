//! Unpacked layers that may not be on the disk yet.
//!
//! A layer's name can outlive its content: the kernel writes folders and files when it likes, and a power cut in between leaves a layer
//! with the right name and empty files. Waiting for the disk would cost every pull as much again. So each new layer gets a mark,
//! written before its name, that says in which run of the machine it came; in another run it counts as absent and is unpacked again of its
//! blob, which was synced (`blob.rs`). Marks go when somebody has waited for the disk, for whom nobody waits.
//!
//! ```text
//! unsettled/<idmap key>_<diff id hex>    boot_id (proc_sys_kernel(5))
//! ```

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Store, StoreError, failed};

/// Of this run of the machine.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// After this time the kernel has written by itself what it was to write (`vm.dirty_expire_centisecs`, 30 s, and its round of 5 s), so
/// that waiting for the disk is short.
const SETTLES: Duration = Duration::from_secs(35);

/// A layer that may not be on the disk.
struct Mark {
    path: PathBuf,
    since: SystemTime,
}

impl Store {
    /// Marks a layer that is about to get its name.
    pub(super) fn mark_unsettled(&self, layer: &str) -> Result<(), StoreError> {
        let path = self.unsettled().join(layer);
        let marked = DirBuilder::new().recursive(true).mode(0o700).create(self.unsettled());
        Ok(marked.and_then(|()| fs::write(&path, boot())).map_err(failed("write", path))?)
    }

    /// Whether a layer that has its name has its content too, as far as the machine's runs tell.
    pub(super) fn is_believed(&self, layer: &str) -> bool {
        match fs::read_to_string(self.unsettled().join(layer)) {
            Ok(mark) => mark == boot(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Whether there are layers for which it is time to wait for the disk.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        let here = boot();
        let is_due = |mark: &Mark| mark.since.elapsed().is_ok_and(|since| since > SETTLES);
        self.marks().iter().any(|mark| is_due(mark) && is_of(&mark.path, &here))
    }

    /// Waits until everything of the store's file system is on the disk; the layers that were unpacked before that are then believed in
    /// every run of the machine. Marks of layers that are gone go as well.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub fn settle(&self) -> Result<(), StoreError> {
        let here = boot();
        let (marks, others): (Vec<Mark>, Vec<Mark>) =
            self.marks().into_iter().partition(|mark| is_of(&mark.path, &here));
        if !marks.is_empty() {
            let root = File::open(&self.root).map_err(failed("open", &self.root))?;
            let synced = rustix::fs::syncfs(root).map_err(io::Error::from);
            synced.map_err(failed("sync the file system of", &self.root))?;
        }
        let is_gone = |mark: &Mark| self.layer_of(&mark.path).is_none_or(|layer| !layer.exists());
        for mark in marks.into_iter().chain(others.into_iter().filter(is_gone)) {
            let Some(layer) = mark.path.file_name().and_then(|name| name.to_str()) else { continue };
            // Whoever unpacks it once more holds this lock, and writes a new mark.
            let _lock = self.lock(&lock_of(layer))?;
            if about(mark.path.clone()).is_some_and(|now| now.since == mark.since) {
                fs::remove_file(&mark.path).map_err(failed("delete", &mark.path))?;
            }
        }
        Ok(())
    }

    fn marks(&self) -> Vec<Mark> {
        let entries = fs::read_dir(self.unsettled()).into_iter().flatten().flatten();
        entries.filter_map(|entry| about(entry.path())).collect()
    }

    /// The layer that has this mark.
    fn layer_of(&self, mark: &Path) -> Option<PathBuf> {
        let (key, hex) = mark.file_name()?.to_str()?.rsplit_once('_')?;
        Some(self.root.join("layers").join(key).join(hex))
    }

    fn unsettled(&self) -> PathBuf {
        self.root.join("unsettled")
    }
}

/// The name of a layer's mark.
pub(super) fn name_of(idmap_key: &str, hex: &str) -> String {
    format!("{idmap_key}_{hex}")
}

/// The lock of the layer that has this mark.
pub(super) fn lock_of(layer: &str) -> String {
    format!("layer-{layer}")
}

fn about(path: PathBuf) -> Option<Mark> {
    let since = fs::metadata(&path).and_then(|about| about.modified()).ok()?;
    Some(Mark { path, since })
}

fn is_of(mark: &Path, boot: &str) -> bool {
    fs::read_to_string(mark).is_ok_and(|text| text == boot)
}

/// Of a machine that does not say, all runs are one.
fn boot() -> String {
    fs::read_to_string(BOOT).unwrap_or_default()
}
