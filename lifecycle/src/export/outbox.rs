//! The folder an image leaves by: an OCI layout that holds only what the registry may not have yet.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use coracle_images::pack::PackError;
use coracle_images::{Digest, Hashing, Image, Layer, LayerWriter, LayoutError, write_sparse_layout};

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

/// A layout folder being written, one image in it; `index.json` comes last.
#[derive(Debug)]
pub struct Outbox {
    dir: PathBuf,
    written: BTreeMap<Digest, PathBuf>,
}

/// Where a layer of the image is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Previous,
    Written,
}

/// A layer could not be packed, or not be stored.
pub(super) enum LayerError {
    Pack(PackError),
    Outbox(OutboxError),
}

impl Outbox {
    /// Makes the folder.
    pub fn new(dir: &Path) -> Result<Self, OutboxError> {
        let blobs = dir.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).map_err(|source| OutboxError::Write { path: blobs, source })?;
        Ok(Self { dir: dir.to_owned(), written: BTreeMap::new() })
    }

    /// An outbox of an image none of whose layers is new.
    pub fn of_nothing() -> Self {
        Self { dir: PathBuf::new(), written: BTreeMap::new() }
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    /// Packs a layer, unless the previous image has it: that is found out before anything is compressed or written, because most
    /// layers of most builds are those of the last one.
    pub(super) fn layer(
        &mut self,
        pack: &dyn Fn(&mut dyn Write) -> Result<(), PackError>,
        previous: Option<&Image>,
    ) -> Result<(Layer, Origin), LayerError> {
        if let Some(previous) = previous {
            let mut archive = Hashing::new(io::sink());
            pack(&mut archive).map_err(LayerError::Pack)?;
            if let Some(layer) = layer_of(previous, &archive.digest()) {
                return Ok((layer, Origin::Previous));
            }
        }
        let staged = self.dir.join("blobs/layer.part");
        let failed = |source| LayerError::Outbox(OutboxError::Write { path: staged.clone(), source });
        let file = File::create(&staged).map_err(failed)?;
        let mut writer = LayerWriter::new(BufWriter::with_capacity(1 << 17, file));
        pack(&mut writer).map_err(LayerError::Pack)?;
        let (_, written) = writer.finish().map_err(failed)?;
        let path = self.blob(&written.digest);
        std::fs::rename(&staged, &path).map_err(failed)?;
        self.written.insert(written.digest.clone(), path);
        Ok((written.layer(), Origin::Written))
    }

    /// The file of a layer, if it was written: all others lie below, or in the previous image.
    pub fn written(&self, digest: &Digest) -> Option<&Path> {
        self.written.get(digest).map(PathBuf::as_path)
    }

    /// Writes the image's documents under a name, and the index that names them.
    pub fn finish(&self, image: &Image, name: &str) -> Result<(), OutboxError> {
        Ok(write_sparse_layout(image, Some(name), &self.dir)?)
    }

    /// Removes the folder: what was in it is in registries now.
    pub fn discard(self) -> Result<(), OutboxError> {
        std::fs::remove_dir_all(&self.dir).map_err(|source| OutboxError::Write { path: self.dir, source })
    }

    /// Writes the same image, with the same layers, into one more folder of this file system.
    pub fn finish_also(&self, dir: &Path, image: &Image, name: &str) -> Result<(), OutboxError> {
        let other = Self::new(dir)?;
        for (digest, path) in &self.written {
            let target = other.blob(digest);
            match std::fs::hard_link(path, &target) {
                Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(OutboxError::Write { path: target, source });
                }
                _ => {}
            }
        }
        other.finish(image, name)
    }
}

/// The layer of an image that has this content.
pub(super) fn layer_of(image: &Image, diff_id: &Digest) -> Option<Layer> {
    image.layers().into_iter().find(|layer| layer.diff_id == *diff_id)
}
