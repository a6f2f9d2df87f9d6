//! The folder an image leaves by: an OCI layout that holds only what the registry may not have yet.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard, PoisonError};

use coracle_images::{
    CompressedWriter, Descriptor, Digest, Hashing, Image, Layer, LayerCompression, LayoutError, WrittenLayer,
    write_sparse_layout,
};

/// Why the outbox could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// A file could not be written.
    #[error("write `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The image's documents could not be written.
    #[error("write the image's documents")]
    Layout(#[from] LayoutError),
}

/// A layout folder being written, one image in it; `index.json` comes last. Several threads put layers in.
#[derive(Debug)]
pub struct Outbox {
    dir: PathBuf,
    compression: LayerCompression,
    staged: AtomicUsize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    layers: Vec<Layer>,
    told: Option<Sender<Descriptor>>,
}

impl Outbox {
    /// Makes the folder. New layers are compressed as is usual.
    pub fn new(dir: &Path) -> Result<Self, OutboxError> {
        Self::with(dir, LayerCompression::default())
    }

    /// Makes the folder. New layers are compressed with `compression`.
    pub fn with(dir: &Path, compression: LayerCompression) -> Result<Self, OutboxError> {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(|source| OutboxError::Write { path: blobs, source })?;
        Ok(Self { dir: dir.to_owned(), compression, ..Self::of_nothing() })
    }

    /// An outbox of an image none of whose layers is new.
    pub fn of_nothing() -> Self {
        let compression = LayerCompression::default();
        Self { dir: PathBuf::new(), compression, staged: AtomicUsize::new(0), kept: Mutex::default() }
    }

    /// From now on, whoever listens hears of each layer that is there.
    pub(super) fn tell(&self, told: Option<Sender<Descriptor>>) {
        self.kept().told = told;
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    /// Begins a layer.
    pub(crate) fn stage(&self) -> io::Result<Staging> {
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("blobs/layer-{number}.part"));
        let file = File::create(&path)?;
        Ok(Staging { part: Part(path), blob: CompressedWriter::new(file, self.compression) })
    }

    /// Takes a finished layer over.
    pub(crate) fn keep(&self, staged: Staged, diff_id: Digest) -> io::Result<Layer> {
        let Staged { part, digest, size, compression } = staged;
        let layer = WrittenLayer { diff_id, digest, size, compression }.layer();
        fs::rename(&part.0, self.blob(&layer.descriptor.digest))?;
        let mut kept = self.kept();
        if let Some(told) = &kept.told {
            // Who does not listen any more has an error to tell.
            let _ = told.send(layer.descriptor.clone());
        }
        kept.layers.push(layer.clone());
        Ok(layer)
    }

    /// Takes a finished layer over if it is this one, and says where it is then.
    pub(crate) fn keep_if(&self, staged: Staged, layer: &Layer) -> io::Result<Option<PathBuf>> {
        if staged.digest != layer.descriptor.digest {
            return Ok(None);
        }
        let path = self.blob(&staged.digest);
        self.keep(staged, layer.diff_id.clone()).map(|_| Some(path))
    }

    /// The media type of new layers.
    pub(crate) fn media_type(&self) -> &'static str {
        self.compression.media_type()
    }

    /// Whether the folder has a blob, whoever wrote it.
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.blob(digest).is_file()
    }

    /// A layer with nothing in it.
    pub(crate) fn empty(&self) -> Result<Layer, OutboxError> {
        let nothing = [0; 1024];
        let failed = |source| OutboxError::Write { path: self.dir.clone(), source };
        let mut staging = self.stage().map_err(failed)?;
        staging.write_all(&nothing).map_err(failed)?;
        self.keep(staging.finish().map_err(failed)?, Digest::of(nothing)).map_err(failed)
    }

    /// The layer with this content, if it was written.
    pub(crate) fn layer(&self, diff_id: &Digest) -> Option<Layer> {
        self.kept().layers.iter().find(|layer| layer.diff_id == *diff_id).cloned()
    }

    /// The file of a layer, if it was written: all others lie below, or in the previous image.
    pub fn written(&self, digest: &Digest) -> Option<PathBuf> {
        let has = self.kept().layers.iter().any(|layer| layer.descriptor.digest == *digest);
        has.then(|| self.blob(digest))
    }

    /// Takes the blob of a layer over as another image has it; `false` where it is not what it is called.
    pub(crate) fn take(&self, layer: &Layer, blob: impl Read) -> Result<bool, OutboxError> {
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        let part = Part(self.dir.join(format!("blobs/layer-{number}.part")));
        let failed = |source| OutboxError::Write { path: part.0.clone(), source };
        let mut file = Hashing::new(File::create(&part.0).map_err(failed)?);
        // One byte more tells that it is another.
        io::copy(&mut blob.take(layer.descriptor.size.saturating_add(1)), &mut file).map_err(failed)?;
        let (_, digest, _) = file.finish();
        let is_it = digest == layer.descriptor.digest;
        if is_it {
            fs::rename(&part.0, self.blob(&digest)).map_err(failed)?;
            self.kept().layers.push(layer.clone());
        }
        Ok(is_it)
    }

    /// Writes the image's documents under a name, and the index that names them.
    pub fn finish(&self, image: &Image, name: &str) -> Result<(), OutboxError> {
        Ok(write_sparse_layout(image, Some(name), &self.dir)?)
    }

    /// Removes the folder: what was in it is in registries now.
    pub fn discard(self) -> Result<(), OutboxError> {
        fs::remove_dir_all(&self.dir).map_err(|source| OutboxError::Write { path: self.dir, source })
    }

    /// Writes the same image, with the same layers, into one more folder of this file system.
    pub fn finish_also(&self, dir: &Path, image: &Image, name: &str) -> Result<(), OutboxError> {
        let other = Self::new(dir)?;
        for layer in &self.kept().layers {
            let digest = &layer.descriptor.digest;
            let target = other.blob(digest);
            match fs::hard_link(self.blob(digest), &target) {
                Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(OutboxError::Write { path: target, source });
                }
                _ => {}
            }
        }
        other.finish(image, name)
    }
}

/// A layer on its way into an outbox.
#[derive(Debug)]
pub(crate) struct Staging {
    part: Part,
    blob: CompressedWriter<File>,
}

impl Staging {
    pub(crate) fn finish(self) -> io::Result<Staged> {
        let compression = self.blob.compression();
        let (_, digest, size) = self.blob.finish()?;
        Ok(Staged { part: self.part, digest, size, compression })
    }
}

impl Write for Staging {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.blob.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A finished layer that no outbox has yet; gone with this value.
#[derive(Debug)]
pub(crate) struct Staged {
    part: Part,
    digest: Digest,
    size: u64,
    compression: LayerCompression,
}

/// A file that is removed, unless it has got another name. No other is ever called the same.
#[derive(Debug)]
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
