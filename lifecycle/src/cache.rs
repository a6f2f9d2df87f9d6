//! The cache between builds, a folder or an image, in the reference's own format: whoever changes lifecycles keeps their cache.
//!
//! In a folder, below `committed` lie the archive of each layer, `sha256:DIGITS.tar`, and their list,
//! `io.buildpacks.lifecycle.cache.metadata`. An image has the list as a label, and each archive as a layer. Nothing in either is
//! trusted: [`crate::restore`] verifies each archive.

mod launch;
pub(crate) mod saving;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use coracle_cnb::{BuildpackLayers, CACHE_METADATA_LABEL, CacheMetadata, DocumentError, read_json};
use coracle_images::pack::PackError;
use coracle_images::{
    Digest, Image, ImageError, Layer, Platform, Reference, Registry, RegistryError, uncompressed,
};
use nix::fcntl::OFlag;

use crate::export::{ExportError, OutboxError, PublishError};
use crate::file::MAX_DOCUMENT;

pub use launch::LaunchCache;
pub(crate) use saving::archive_name;
pub use saving::{CacheStep, Nearby, SaveInput, Saved, Saving};

/// The folder of the list and the archives, below a cache's.
pub const COMMITTED: &str = "committed";

/// Why a cache could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A file of the cache could not be read.
    #[error("read cache: `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The list of layers is not what it should be.
    #[error("read cache: `{place}`")]
    Metadata {
        place: String,
        #[source]
        source: DocumentError,
    },
    /// The image of the cache could not be read.
    #[error("read cache image `{name}`")]
    Image {
        name: String,
        #[source]
        source: RegistryError,
    },
    /// The image is not a cache's.
    #[error("`{name}` is no cache image: it has no label `{CACHE_METADATA_LABEL}`")]
    Foreign { name: String },
    /// An archive is another than the one that it is called by.
    #[error("`{path}` holds {found}")]
    OtherContent { path: PathBuf, found: Digest },
    /// An archive is longer than it can be.
    #[error("`{path}` has {length} bytes, where its layer has {longest} at most")]
    TooLong { path: PathBuf, length: u64, longest: u64 },
    /// A file of the cache could not be written.
    #[error("write cache: `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The list of layers has no form in JSON.
    #[error("write cache")]
    Document(#[source] DocumentError),
    /// What the build left could not be read.
    #[error("write cache")]
    Layers(#[source] Box<ExportError>),
    /// A layer could not be packed.
    #[error("write cache: layer `{layer}`")]
    Pack {
        layer: String,
        #[source]
        source: PackError,
    },
    /// The image of the cache has no text.
    #[error("write cache image")]
    Assemble(#[from] ImageError),
    /// What is to be sent could not be written.
    #[error("write cache image")]
    Outbox(#[from] OutboxError),
    /// The image of the cache could not be sent.
    #[error("write cache image")]
    Publish(#[from] PublishError),
}

/// A cache as the last build left it.
#[derive(Debug, Default)]
pub struct Cache {
    metadata: CacheMetadata,
    place: Place,
}

#[derive(Debug, Default)]
enum Place {
    #[default]
    Nowhere,
    /// The folder `committed`.
    Folder(PathBuf),
    Image {
        registry: Registry,
        name: Reference,
        image: Box<Image>,
    },
}

impl Cache {
    /// Reads the list of layers; there need not be any. An error says that the cache is not usable: take an empty one for it.
    pub fn open(dir: &Path) -> Result<Self, CacheError> {
        // Whoever has been killed between two renames, here or in the reference, has left the old cache under the other name.
        let known = [COMMITTED, "committed-backup"].map(|name| dir.join(name));
        let Some(committed) = known.into_iter().find(|path| path.is_dir()) else {
            return Ok(Self::default());
        };
        let path = committed.join(CACHE_METADATA_LABEL);
        let Some(file) = regular(&path)? else { return Ok(Self::default()) };
        let mut text = String::new();
        file.take(MAX_DOCUMENT)
            .read_to_string(&mut text)
            .map_err(|source| CacheError::Read { path: path.clone(), source })?;
        let metadata = read_json(CACHE_METADATA_LABEL, &text)
            .map_err(|source| CacheError::Metadata { place: path.display().to_string(), source })?;
        Ok(Self { metadata, place: Place::Folder(committed) })
    }

    /// As [`Cache::open`], of an image; there need not be any either.
    pub fn of_image(registry: &Registry, name: &Reference) -> Result<Self, CacheError> {
        let image = registry
            .find_image(name, &Platform::host())
            .map_err(|source| CacheError::Image { name: name.to_string(), source })?;
        let Some(image) = image else { return Ok(Self::default()) };
        let text = image.config.label(CACHE_METADATA_LABEL);
        let text = text.ok_or_else(|| CacheError::Foreign { name: name.to_string() })?;
        let metadata = read_json(CACHE_METADATA_LABEL, text)
            .map_err(|source| CacheError::Metadata { place: name.to_string(), source })?;
        let place = Place::Image { registry: registry.clone(), name: name.clone(), image: Box::new(image) };
        Ok(Self { metadata, place })
    }

    /// What the cache says it holds.
    pub fn metadata(&self) -> &CacheMetadata {
        &self.metadata
    }

    /// The layers of a buildpack, whatever its version.
    pub fn buildpack(&self, id: &str) -> Option<&BuildpackLayers> {
        self.metadata.buildpacks.iter().find(|buildpack| buildpack.key == id)
    }

    /// The archive of a layer, not verified; nothing where there is none.
    pub fn archive(&self, diff_id: &Digest) -> Result<Option<Box<dyn Read + Send>>, CacheError> {
        match &self.place {
            Place::Nowhere => Ok(None),
            Place::Folder(committed) => {
                let file = regular(&committed.join(archive_name(diff_id)))?;
                Ok(file.map(|file| Box::new(BufReader::with_capacity(1 << 17, file)) as Box<dyn Read + Send>))
            }
            Place::Image { registry, name, image } => {
                let layers = image.layers();
                let Some(layer) = layers.iter().find(|layer| layer.diff_id == *diff_id) else {
                    return Ok(None);
                };
                let failed = |source| CacheError::Image { name: name.to_string(), source };
                let blob = registry.blob(name, &layer.descriptor).map_err(failed)?;
                let archive = uncompressed(blob)
                    .map_err(|source| failed(RegistryError::Read { reference: name.to_string(), source }))?;
                Ok(Some(Box::new(archive)))
            }
        }
    }

    /// The file of a layer's archive, in a folder.
    fn path(&self, diff_id: &Digest) -> Option<PathBuf> {
        match &self.place {
            Place::Folder(committed) => Some(committed.join(archive_name(diff_id))),
            _ => None,
        }
    }

    /// The image, where the cache is one.
    fn image(&self) -> Option<&Image> {
        match &self.place {
            Place::Image { image, .. } => Some(image),
            _ => None,
        }
    }

    /// Its layers, where the cache is an image.
    fn layers(&self) -> Vec<Layer> {
        self.image().map(Image::layers).unwrap_or_default()
    }
}

/// Opens a file, but nothing that would lead elsewhere or wait for somebody.
pub(crate) fn regular(path: &Path) -> Result<Option<File>, CacheError> {
    let failed = |source| CacheError::Read { path: path.to_owned(), source };
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = match File::options().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is no regular file")));
    }
    Ok(Some(file))
}
