//! The launch cache: archives of an image's own layers, so that a layer which the build left alone need not be fetched to get elsewhere.
//!
//! A folder as the reference's, which fills it from a daemon: below `committed` the archive of each layer, `sha256:DIGITS.tar`, and no
//! list. Nothing in it is trusted, and no image is another for what is in it
//! (docs/decisions/0034-what-a-launch-cache-is-for-without-a-daemon.md).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use coracle_images::unpack::Limits;
use coracle_images::{Digest, Hashing, Layer, uncompressed};

use super::saving::{put_in_place, remove};
use super::{COMMITTED, CacheError, archive_name, regular};
use crate::export::Outbox;
use crate::packing::link_or_copy;

const BUFFER: usize = 1 << 17;

/// A launch cache; its folder need not be there.
#[derive(Debug)]
pub struct LaunchCache {
    dir: PathBuf,
    /// What could not be used, by the layer that it would have been.
    unusable: Mutex<BTreeMap<Digest, CacheError>>,
}

impl LaunchCache {
    /// The launch cache in this folder.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), unusable: Mutex::default() }
    }

    /// The archive of a layer, not verified; nothing where there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is no regular file, or is longer than archives may be.
    pub fn archive(&self, diff_id: &Digest) -> Result<Option<impl Read + use<>>, CacheError> {
        let opened = self.open(diff_id, Limits::default().bytes)?;
        Ok(opened.map(|(_, file)| BufReader::with_capacity(BUFFER, file)))
    }

    /// Whether the archive of a layer was found not to be it, or not to be readable.
    pub fn unusable(&self) -> MutexGuard<'_, BTreeMap<Digest, CacheError>> {
        self.unusable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the blob of a layer into the outbox, if the layer's archive is here and makes the very blob that the layer's image names.
    pub(crate) fn blob(&self, layer: &Layer, outbox: &Outbox) -> Option<PathBuf> {
        if self.unusable().contains_key(&layer.diff_id) {
            return None;
        }
        self.make(layer, outbox).unwrap_or_else(|error| {
            self.unusable().insert(layer.diff_id.clone(), error);
            None
        })
    }

    fn make(&self, layer: &Layer, outbox: &Outbox) -> Result<Option<PathBuf>, CacheError> {
        if layer.descriptor.media_type != outbox.media_type() {
            return Ok(None);
        }
        let longest = Limits::default().for_compressed(layer.descriptor.size).bytes;
        let Some((path, mut archive)) = self.open(&layer.diff_id, longest)? else { return Ok(None) };
        let failed = |source| CacheError::Read { path: path.clone(), source };
        let mut blob = Hashing::new(outbox.stage().map_err(failed)?);
        io::copy(&mut archive, &mut blob).map_err(failed)?;
        let (blob, found, _) = blob.finish();
        if found != layer.diff_id {
            return Err(CacheError::OtherContent { path, found });
        }
        // Who compressed it otherwise has other bytes in the registry, which are the ones to send.
        outbox.keep_if(blob.finish().map_err(failed)?, layer).map_err(failed)
    }

    /// Makes this the cache of these layers: archives that are here stay, others are taken from the folder `cache` or made of what the
    /// outbox has. Those that can be had from none of them are not kept.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written. It is as it was then.
    pub fn keep(&self, layers: &[Layer], outbox: &Outbox, cache: Option<&Path>) -> Result<(), CacheError> {
        let staging = self.dir.join("staging");
        remove(&staging)?;
        let made = fs::create_dir_all(&staging);
        made.map_err(|source| CacheError::Write { path: staging.clone(), source })?;
        let kept = layers.iter().try_for_each(|layer| self.keep_layer(layer, &staging, outbox, cache));
        let kept = kept.and_then(|()| put_in_place(&self.dir));
        if kept.is_err() {
            // Half a cache is of no use, and may be what filled the disk.
            let _ = remove(&staging);
        }
        kept
    }

    fn keep_layer(
        &self,
        layer: &Layer,
        staging: &Path,
        outbox: &Outbox,
        cache: Option<&Path>,
    ) -> Result<(), CacheError> {
        let target = staging.join(archive_name(&layer.diff_id));
        let failed = |source| CacheError::Write { path: target.clone(), source };
        if !self.unusable().contains_key(&layer.diff_id) {
            match self.open(&layer.diff_id, Limits::default().bytes) {
                Ok(Some((old, _))) => return link_or_copy(&old, &target).map_err(failed),
                Ok(None) => {}
                Err(error) => drop(self.unusable().insert(layer.diff_id.clone(), error)),
            }
        }
        if let Some(cached) = cache.map(|dir| dir.join(COMMITTED).join(archive_name(&layer.diff_id)))
            && regular(&cached)?.is_some()
        {
            return link_or_copy(&cached, &target).map_err(failed);
        }
        let Some(blob) = outbox.written(&layer.descriptor.digest) else { return Ok(()) };
        let blob = File::open(blob).map_err(failed)?;
        let mut archive = uncompressed(BufReader::with_capacity(BUFFER, blob)).map_err(failed)?;
        let mut file = File::create_new(&target).map_err(failed)?;
        io::copy(&mut archive, &mut file).map(drop).map_err(failed)
    }

    /// Opens an archive, of at most so many bytes.
    fn open(&self, diff_id: &Digest, longest: u64) -> Result<Option<(PathBuf, io::Take<File>)>, CacheError> {
        // Whoever has been killed between two renames, here or in the reference, has left the old cache under the other name.
        let known = [COMMITTED, "committed-backup"].map(|name| self.dir.join(name));
        let Some(committed) = known.into_iter().find(|path| path.is_dir()) else { return Ok(None) };
        let path = committed.join(archive_name(diff_id));
        let Some(file) = regular(&path)? else { return Ok(None) };
        let length = file.metadata().map_err(|source| CacheError::Read { path: path.clone(), source })?.len();
        if length > longest {
            return Err(CacheError::TooLong { path, length, longest });
        }
        Ok(Some((path, file.take(length))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive_in(folder: &str) -> (tempfile::TempDir, PathBuf, Digest) {
        let (dir, diff_id) = (tempfile::tempdir().unwrap(), Digest::of("layer"));
        fs::create_dir(dir.path().join(folder)).unwrap();
        let path = dir.path().join(folder).join(archive_name(&diff_id));
        fs::write(&path, "layer").unwrap();
        (dir, path, diff_id)
    }

    #[test]
    fn what_was_there_before_somebody_was_killed_is_found() {
        let read = |folder| {
            let (dir, _, diff_id) = archive_in(folder);
            let mut text = String::new();
            let found = LaunchCache::new(dir.path()).archive(&diff_id).unwrap();
            found.map(|mut archive| archive.read_to_string(&mut text).map(|_| text).unwrap())
        };
        assert_eq!(read("committed").as_deref(), Some("layer"));
        assert_eq!(read("committed-backup").as_deref(), Some("layer"));
        assert_eq!(read("staging"), None);
    }

    #[test]
    fn an_archive_longer_than_any_layer_is_refused_by_name() {
        let (dir, path, diff_id) = archive_in("committed");
        let longest = Limits::default().bytes;
        File::options().write(true).open(&path).unwrap().set_len(longest + 1).unwrap();
        let said = LaunchCache::new(dir.path()).archive(&diff_id).map(drop).unwrap_err().to_string();
        let length = longest + 1;
        assert_eq!(
            said,
            format!("`{}` has {length} bytes, where its layer has {longest} at most", path.display())
        );
    }
}
