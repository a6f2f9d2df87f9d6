//! Unpacked layers.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::Flock;

use super::{Store, StoreError, check_name, failed, remove_tree, settled};
use crate::digest::Digest;

/// The place of one unpacked layer.
#[derive(Debug)]
pub enum LayerSlot {
    /// Somebody has already unpacked it here.
    Present(PathBuf),
    /// It is ours to fill; others wait.
    Empty(StagedLayer),
}

/// A layer being unpacked; dropped, it is gone.
#[derive(Debug)]
pub struct StagedLayer {
    store: Store,
    name: String,
    path: PathBuf,
    target: PathBuf,
    _lock: Flock<File>,
}

impl Store {
    /// The unpacked layer of this content, with owners as this map of ids made them.
    #[must_use]
    pub fn layer_dir(&self, idmap_key: &str, diff_id: &Digest) -> Option<PathBuf> {
        let path = self.layer_path(idmap_key, diff_id).filter(|path| path.is_dir())?;
        self.is_believed(&settled::name_of(idmap_key, diff_id.hex())).then_some(path)
    }

    /// Where [`Store::layer_dir`] is, or would be.
    #[must_use]
    pub fn layer_path(&self, idmap_key: &str, diff_id: &Digest) -> Option<PathBuf> {
        check_name(idmap_key).ok()?;
        Some(self.root.join("layers").join(idmap_key).join(diff_id.hex()))
    }

    /// Takes the place of a layer, waiting for whoever is unpacking the same one.
    ///
    /// # Errors
    ///
    /// When the key is no file name, or the store cannot be written.
    pub fn stage_layer(&self, idmap_key: &str, diff_id: &Digest) -> Result<LayerSlot, StoreError> {
        check_name(idmap_key)?;
        let name = settled::name_of(idmap_key, diff_id.hex());
        let lock = self.lock(&settled::lock_of(&name))?;
        if let Some(path) = self.layer_dir(idmap_key, diff_id) {
            return Ok(LayerSlot::Present(path));
        }
        let folder = self.root.join("layers").join(idmap_key);
        // Beside its target: moving a folder to another parent needs write permission on the folder itself.
        let path = folder.join(format!(".{}-{}", self.session.token, diff_id.hex()));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(failed("make the folder", &folder))?;
        let target = folder.join(diff_id.hex());
        if target.is_dir() {
            // One that is not believed. It is unfinished from now on, and goes now or with its session.
            let doubted = folder.join(format!(".{}-{}-doubted", self.session.token, diff_id.hex()));
            fs::rename(&target, &doubted).map_err(failed("move away", &target))?;
            remove_tree(&doubted).map_err(failed("delete", doubted))?;
        }
        DirBuilder::new().mode(0o755).create(&path).map_err(failed("make the folder", &path))?;
        Ok(LayerSlot::Empty(StagedLayer { store: self.clone(), name, target, path, _lock: lock }))
    }
}

impl StagedLayer {
    /// The folder to unpack into.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the finished layer its name.
    ///
    /// # Errors
    ///
    /// When the folder cannot be renamed.
    pub fn publish(self) -> Result<PathBuf, StoreError> {
        let target = self.target.clone();
        self.store.mark_unsettled(&self.name)?;
        fs::rename(&self.path, &target).map_err(failed("publish", &target))?;
        Ok(target)
    }
}

impl Drop for StagedLayer {
    fn drop(&mut self) {
        if self.path.exists() {
            remove_tree(&self.path).ok();
        }
    }
}

/// Unfinished layers of a session.
pub(super) fn unfinished(root: &Path, token: &str) -> Vec<PathBuf> {
    let prefix = format!(".{token}-");
    let list = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
    let layers = list(root.join("layers")).flat_map(|key| list(key.path()));
    let of_session = layers.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    of_session.map(|entry| entry.path()).collect()
}
