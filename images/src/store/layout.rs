//! Images as OCI layout folders. See [image-layout.md](https://github.com/opencontainers/image-spec/blob/main/image-layout.md).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{FileError, REF_NAME, failed};
use crate::digest::{Digest, Hashing};
use crate::document::{Descriptor, Index, go_json};
use crate::image::{Image, ImageError};

/// What can go wrong with a layout folder.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The index is no index.
    #[error("cannot read the index {path}")]
    Index {
        /// File.
        path: PathBuf,
        /// Cause.
        #[source]
        source: serde_json::Error,
    },
    /// The documents make no image.
    #[error("the image in {path} is damaged")]
    Image {
        /// Folder.
        path: PathBuf,
        /// Cause.
        #[source]
        source: ImageError,
    },
    /// A layer is not what its manifest says.
    #[error("the layer {expected} is {found}; the layout in {path} is not usable")]
    OtherContent {
        /// Folder.
        path: PathBuf,
        /// As in the manifest.
        expected: Digest,
        /// As read.
        found: Digest,
    },
    /// No such image.
    #[error("no image `{name}` in the layout {path}")]
    Missing {
        /// Folder.
        path: PathBuf,
        /// Name asked for.
        name: String,
    },
}

/// Writes an image as a layout folder of its own, verifying each layer on the way; `index.json` comes last.
///
/// `blob` opens a layer; `name` becomes the `ref.name` annotation.
///
/// # Errors
///
/// When a layer cannot be opened, is not what the manifest says, or the folder cannot be written.
pub fn write_layout(
    image: &Image,
    name: Option<&str>,
    dir: &Path,
    blob: &dyn Fn(&Descriptor) -> io::Result<Box<dyn Read>>,
) -> Result<(), LayoutError> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(failed("make the folder", &blobs))?;
    for descriptor in &image.manifest.layers {
        let path = blobs.join(descriptor.digest.hex());
        if path.exists() {
            continue;
        }
        let staged = path.with_extension("part");
        let mut file = Hashing::new(File::create(&staged).map_err(failed("write", &path))?);
        let mut source = blob(descriptor).map_err(failed("read", &path))?;
        io::copy(&mut source, &mut file).map_err(failed("write", &path))?;
        let found = file.digest();
        if found != descriptor.digest {
            fs::remove_file(&staged).ok();
            let expected = descriptor.digest.clone();
            return Err(LayoutError::OtherContent { path: dir.to_owned(), expected, found });
        }
        fs::rename(&staged, &path).map_err(failed("write", &path))?;
    }
    write_sparse_layout(image, name, dir)
}

/// Writes an image as a layout folder without its layers: what a reader needs who only asks which layers there are.
///
/// Layers that the folder already has stay. `name` becomes the `ref.name` annotation; the image is then the folder's
/// only one. `index.json` comes last.
///
/// # Errors
///
/// When the folder cannot be written.
pub fn write_sparse_layout(image: &Image, name: Option<&str>, dir: &Path) -> Result<(), LayoutError> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(failed("make the folder", &blobs))?;
    let write = |path: PathBuf, bytes: &[u8]| fs::write(&path, bytes).map_err(failed("write", path));
    write(blobs.join(image.manifest.config.digest.hex()), &image.config_bytes)?;
    write(blobs.join(image.digest.hex()), &image.manifest_bytes)?;
    let mut entry = image.descriptor();
    if let Some(name) = name {
        entry.annotations.insert(REF_NAME.to_owned(), name.to_owned());
    }
    let index = Index { manifests: vec![entry], ..Index::default() };
    let path = dir.join("index.json");
    let index = go_json(&index).map_err(|source| LayoutError::Index { path: path.clone(), source })?;
    write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(write(path, &index)?)
}

/// Reads an image from a layout folder, sparse or whole: the one of this `ref.name`, or the first.
///
/// # Errors
///
/// When there is none, or its documents are damaged.
pub fn read_layout(dir: &Path, name: Option<&str>) -> Result<Image, LayoutError> {
    let read = |path: PathBuf| fs::read(&path).map_err(failed("read", path));
    let path = dir.join("index.json");
    let index: Index =
        serde_json::from_slice(&read(path.clone())?).map_err(|source| LayoutError::Index { path, source })?;
    let wanted =
        |m: &&Descriptor| name.is_none_or(|name| m.annotations.get(REF_NAME).is_some_and(|n| n == name));
    let missing = || LayoutError::Missing { path: dir.to_owned(), name: name.unwrap_or_default().to_owned() };
    let digest = index.manifests.iter().find(wanted).ok_or_else(missing)?.digest.clone();
    let blob = |digest: &Digest| read(dir.join("blobs/sha256").join(digest.hex()));
    let damaged = |source| LayoutError::Image { path: dir.to_owned(), source };
    let manifest = blob(&digest)?;
    let (found, parsed) = crate::image::parse_manifest(&manifest).map_err(damaged)?;
    if found != digest {
        return Err(LayoutError::OtherContent { path: dir.to_owned(), expected: digest, found });
    }
    let config = blob(&parsed.config.digest)?;
    Image::from_bytes(None, manifest, config).map_err(damaged)
}
