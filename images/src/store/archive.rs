//! Images as one file: what `docker load`, `podman load` and `skopeo` read.
//!
//! The archive is an [OCI layout] with the list `manifest.json` of `docker save` ([Docker Image Specification v1.2]) beside it, as Docker
//! itself writes it since version 25: whoever knows neither reads the other.
//!
//! [OCI layout]: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
//! [Docker Image Specification v1.2]: https://github.com/moby/docker-image-spec/blob/main/v1.2.md#combined-image-json--filesystem-changeset-format

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use serde::Serialize;

use super::{REF_NAME, Store, StoreError, failed};
use crate::digest::{Digest, Hashing};
use crate::document::{Index, go_json};
use crate::image::Image;
use crate::reference::{DOCKER_HUB, Reference};

/// The annotation from which containerd, Docker and Podman take an image's whole name.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// Why an image was not written as an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Whoever takes the archive takes no more.
    #[error("could not write the archive")]
    Write(#[source] io::Error),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob of the image is gone.
    #[error("{0} of the image is not in the store any more; pull or build the image again")]
    Missing(Digest),
    /// A blob is in the store, but with other bytes.
    #[error("the stored blob {expected} is damaged (it is {found} now); pull or build the image again")]
    Damaged {
        /// As its name says.
        expected: Digest,
        /// As read.
        found: Digest,
    },
    /// The documents of the archive could not be made.
    #[error("could not describe the image in the archive")]
    Document(#[source] serde_json::Error),
}

/// An entry of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl Store {
    /// Writes an image, its layers as they are stored, under these names; one with a digest does not count, for it says nothing that the
    /// image does not. Every blob is hashed on its way, and the documents by which the archive is read come last: one that ended early is
    /// none. Equal images give equal bytes.
    ///
    /// # Errors
    ///
    /// When a blob is missing or damaged, or `out` takes no more.
    pub fn write_archive(
        &self,
        image: &Image,
        names: &[Reference],
        out: &mut dyn Write,
    ) -> Result<(), ArchiveError> {
        let mut archive = tar::Builder::new(out);
        for folder in ["blobs/", "blobs/sha256/"] {
            archive.append_data(&mut header(tar::EntryType::Directory, 0), folder, io::empty())?;
        }
        let mut written = BTreeSet::new();
        let layers = image.manifest.layers.iter().map(|layer| &layer.digest);
        for digest in layers.chain([&image.manifest.config.digest, &image.digest]) {
            if written.insert(digest) {
                self.append_blob(&mut archive, digest)?;
            }
        }
        for (path, bytes) in documents(image, names).map_err(ArchiveError::Document)? {
            archive.append_data(
                &mut header(tar::EntryType::Regular, bytes.len() as u64),
                path,
                &bytes[..],
            )?;
        }
        Ok(archive.into_inner()?.flush()?)
    }

    fn append_blob(
        &self,
        archive: &mut tar::Builder<&mut dyn Write>,
        digest: &Digest,
    ) -> Result<(), ArchiveError> {
        if !self.has(digest) {
            return Err(ArchiveError::Missing(digest.clone()));
        }
        let file = self.blob(digest)?;
        let about = file.metadata().map_err(failed("read", self.blob_path(digest)));
        let size = about.map_err(StoreError::from)?.len();
        let mut source = Hashing::new(file);
        archive.append_data(
            &mut header(tar::EntryType::Regular, size),
            path_of(digest),
            (&mut source).take(size),
        )?;
        let (_, found, read) = source.finish();
        if found == *digest && read == size {
            return Ok(());
        }
        Err(ArchiveError::Damaged { expected: digest.clone(), found })
    }
}

impl From<io::Error> for ArchiveError {
    fn from(source: io::Error) -> Self {
        Self::Write(source)
    }
}

/// The documents by which the archive is read, with their paths.
fn documents(image: &Image, names: &[Reference]) -> Result<[(&'static str, Vec<u8>); 3], serde_json::Error> {
    let names: Vec<_> = names.iter().filter(|name| name.digest.is_none()).collect();
    let named = |name: &&Reference| {
        let mut entry = image.descriptor();
        entry.annotations.insert(IMAGE_NAME.to_owned(), whole_name(name));
        entry.annotations.insert(REF_NAME.to_owned(), name.identifier().to_owned());
        entry
    };
    let mut manifests: Vec<_> = names.iter().map(named).collect();
    if manifests.is_empty() {
        manifests.push(image.descriptor());
    }
    let saved = Saved {
        config: path_of(&image.manifest.config.digest),
        repo_tags: names.iter().map(|name| whole_name(name)).collect(),
        layers: image.manifest.layers.iter().map(|layer| path_of(&layer.digest)).collect(),
    };
    Ok([
        ("index.json", go_json(&Index { manifests, ..Index::default() })?),
        ("manifest.json", go_json(&[saved])?),
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
    ])
}

/// Docker calls its own registry by another name than its host has.
fn whole_name(name: &Reference) -> String {
    let registry = if name.registry == DOCKER_HUB { "docker.io" } else { name.registry.as_str() };
    Reference { registry: registry.to_owned(), ..name.clone() }.to_string()
}

fn path_of(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Of nobody in particular, at no time.
fn header(kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}
