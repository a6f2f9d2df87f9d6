//! Deleting what no image names.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{REF_NAME, Store, StoreError, failed, lock_file, remove_tree};
use crate::document::{Descriptor, Index};
use crate::image::{Image, parse_manifest};

/// What to delete of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prune<'a> {
    /// The map of ids whose unpacked layers are of use.
    pub idmap_key: &'a str,
    /// Forget every image first.
    pub all: bool,
    /// Delete nothing.
    pub dry_run: bool,
}

/// What was deleted of a store, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Names of images.
    pub images: Vec<String>,
    /// How many unpacked layers.
    pub layers: usize,
    /// How many manifests, configurations and compressed layers.
    pub blobs: usize,
    /// Bytes on disk.
    pub bytes: u64,
}

impl Store {
    /// Deletes content and unpacked layers that no image names, and those of images too if all are to be forgotten. While another
    /// process has the store open, or `is_busy` says so, nothing is deleted, and the answer is `None`. Nobody opens the store until
    /// what is deleted has lost its name; what is then left of it after a kill is [`Store::abandoned`].
    ///
    /// # Errors
    ///
    /// When an image is damaged, of which nobody knows what it needs, or something cannot be deleted.
    pub fn prune(
        &self,
        what: Prune<'_>,
        is_busy: impl FnOnce() -> bool,
    ) -> Result<Option<Pruned>, StoreError> {
        let opening = lock_file(&self.root.join("locks/store"))?;
        if is_busy() || self.others()? {
            return Ok(None);
        }
        let mut index = self.read_index()?;
        let forgotten = if what.all { std::mem::take(&mut index.manifests) } else { Vec::new() };
        let name = |image: &Descriptor| image.annotations.get(REF_NAME).cloned();
        let mut pruned = Pruned { images: forgotten.iter().filter_map(name).collect(), ..Pruned::default() };
        let used = self.used(&index)?;
        let blobs = unused(&self.root.join("blobs/sha256"), &used)?;
        let (mut layers, nothing) = (Vec::new(), BTreeSet::new());
        for key in entries(&self.root.join("layers"))? {
            let is_own = key.file_name().to_str() == Some(what.idmap_key);
            layers.extend(unused(&key.path(), if is_own { &used } else { &nothing })?);
        }
        (pruned.layers, pruned.blobs) = (layers.len(), blobs.len());
        let doomed = layers.into_iter().chain(blobs);
        if what.dry_run {
            for path in doomed {
                pruned.bytes += size_on_disk(&path).map_err(failed("measure", &path))?;
            }
            return Ok(Some(pruned));
        }
        if what.all {
            self.write_index(&index)?;
        }
        let mut trash = Vec::new();
        for path in doomed {
            let doomed = self.staging_path("doomed");
            fs::rename(&path, &doomed).map_err(failed("move away", path))?;
            trash.push(doomed);
        }
        // Nobody waits for one of these: that takes an open store.
        for lock in entries(&self.root.join("locks"))? {
            if lock.file_name().to_string_lossy().starts_with("layer-") {
                fs::remove_file(lock.path()).map_err(failed("delete", lock.path()))?;
            }
        }
        drop(opening);
        for path in trash {
            pruned.bytes += size_on_disk(&path).map_err(failed("measure", &path))?;
            let deleted = if path.is_dir() { remove_tree(&path) } else { fs::remove_file(&path) };
            deleted.map_err(failed("delete", &path))?;
        }
        Ok(Some(pruned))
    }

    /// Whether another process has this store open.
    fn others(&self) -> Result<bool, StoreError> {
        let sessions = entries(&self.root.join("staging"))?;
        Ok(sessions.iter().filter(|session| session.path() != self.session.path).any(|session| {
            File::open(session.path().join("lock"))
                .is_ok_and(|lock| Flock::lock(lock, FlockArg::LockExclusiveNonblock).is_err())
        }))
    }

    /// Digests of everything that these images name, and of their unpacked layers.
    fn used(&self, index: &Index) -> Result<BTreeSet<String>, StoreError> {
        let mut used = BTreeSet::new();
        for entry in &index.manifests {
            used.insert(entry.digest.hex().to_owned());
            if !self.has(&entry.digest) {
                continue;
            }
            let name = entry.annotations.get(REF_NAME).map_or(entry.digest.as_str(), String::as_str);
            let damaged = |source| StoreError::Image { name: name.to_owned(), source: Box::new(source) };
            let bytes = self.bytes(&entry.digest)?;
            let (_, manifest) = parse_manifest(&bytes).map_err(damaged)?;
            let named = std::iter::once(&manifest.config).chain(&manifest.layers);
            used.extend(named.map(|descriptor| descriptor.digest.hex().to_owned()));
            if self.has(&manifest.config.digest) {
                let config = self.bytes(&manifest.config.digest)?;
                let image = Image::from_bytes(None, bytes, config).map_err(damaged)?;
                used.extend(image.config.rootfs.diff_ids.iter().map(|diff_id| diff_id.hex().to_owned()));
            }
        }
        Ok(used)
    }
}

/// What lies in a folder and is not used; among it what a process left that did not end by itself.
fn unused(folder: &Path, used: &BTreeSet<String>) -> Result<Vec<PathBuf>, StoreError> {
    let is_used = |entry: &DirEntry| entry.file_name().to_str().is_some_and(|name| used.contains(name));
    Ok(entries(folder)?.into_iter().filter(|entry| !is_used(entry)).map(|entry| entry.path()).collect())
}

fn entries(folder: &Path) -> Result<Vec<DirEntry>, StoreError> {
    let listed = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<_>>);
    Ok(listed.map_err(failed("list", folder))?)
}

/// How many bytes a file or folder takes, as du(1) counts them; of a file with other names, this name's share.
///
/// # Errors
///
/// When a part of it cannot be looked at.
pub fn size_on_disk(path: &Path) -> io::Result<u64> {
    let (mut bytes, mut pending) = (0, vec![path.to_owned()]);
    while let Some(path) = pending.pop() {
        let about = fs::symlink_metadata(&path)?;
        let names = if about.is_dir() { 1 } else { about.nlink().max(1) };
        bytes += about.blocks() * 512 / names;
        if about.is_dir() {
            for entry in fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
        }
    }
    Ok(bytes)
}
