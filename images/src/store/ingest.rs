//! One pass from a compressed layer to stored content and an unpacked tree. One thread hashes and stores what comes from the registry,
//! another decompresses it, a third unpacks it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::blob::StagedBlob;
use super::{LayerSlot, Store, StoreError, failed};
use crate::ahead::ahead;
use crate::compression::inflate;
use crate::digest::{Digest, Hashing, Unverified};
use crate::document::Descriptor;
use crate::image::Layer;
use crate::unpack::{Limits, OwnerMap, UnpackError, Unpacked, unpack_layer};

/// What can go wrong while a layer comes in.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The store failed.
    #[error("cannot store the layer {digest}")]
    Store {
        /// The compressed layer.
        digest: Digest,
        /// Cause.
        #[source]
        source: StoreError,
    },
    /// The archive cannot be unpacked.
    #[error("cannot unpack the layer {digest}")]
    Unpack {
        /// The compressed layer.
        digest: Digest,
        /// Cause.
        #[source]
        source: UnpackError,
    },
    /// There is nothing to read the layer from.
    #[error(transparent)]
    Source(Box<dyn std::error::Error + Send + Sync>),
    /// More comes out of the layer than its length can honestly hold, or than any layer may have.
    #[error(
        "the layer {digest} of {size} bytes unpacks to more than {limit} bytes, and nothing of it was kept; if you trust it, allow more with --max-layer-size"
    )]
    TooLarge {
        /// The compressed layer.
        digest: Digest,
        /// Its length.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The stream broke off, or its compression is damaged.
    #[error("cannot read the layer {digest}")]
    Read {
        /// The compressed layer.
        digest: Digest,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The compressed stream is not what the manifest names.
    #[error("the layer {expected} arrived as {found} with {size} bytes; nothing of it was kept")]
    OtherContent {
        /// As in the manifest.
        expected: Digest,
        /// As received.
        found: Digest,
        /// Bytes received.
        size: u64,
    },
    /// The uncompressed archive is not what the configuration names.
    #[error("the layer {digest} contains {found}, but its image says {expected}; nothing of it was kept")]
    OtherDiffId {
        /// The compressed layer.
        digest: Digest,
        /// As in the configuration.
        expected: Digest,
        /// As computed.
        found: Digest,
    },
}

/// Reads a compressed layer once, storing it and unpacking it at the same time.
///
/// Neither is visible before both digests are verified. If the tree is already there, the answer is `None` beside its
/// path, and nothing is read unless the compressed form is another one than the store has. `limits` are those of any layer;
/// the compressed one's length narrows them ([`Limits::for_compressed`]). `progress` hears how many compressed bytes have arrived.
///
/// # Errors
///
/// When the stream, its content, or the store fails; then nothing of the layer stays.
pub fn ingest_layer(
    store: &Store,
    source: impl Read + Send,
    layer: &Layer,
    idmap_key: &str,
    owner: &dyn OwnerMap,
    limits: &Limits,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(PathBuf, Option<Unpacked>), IngestError> {
    ingest_layer_from(store, || Ok(Unverified::new(source)), layer, idmap_key, owner, limits, progress)
}

/// As [`ingest_layer`], from what is opened only if the layer is needed: whoever waited for another process that brought it asks nobody.
///
/// # Errors
///
/// As there, and those of `open`.
pub fn ingest_layer_from<R: Read + Send>(
    store: &Store,
    open: impl FnOnce() -> Result<Unverified<R>, Box<dyn std::error::Error + Send + Sync>>,
    layer: &Layer,
    idmap_key: &str,
    owner: &dyn OwnerMap,
    limits: &Limits,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(PathBuf, Option<Unpacked>), IngestError> {
    let Descriptor { digest, size, .. } = &layer.descriptor;
    let limits = limits.for_compressed(*size);
    let stored = |source| IngestError::Store { digest: digest.clone(), source };
    let slot = store.stage_layer(idmap_key, &layer.diff_id).map_err(stored)?;
    if let LayerSlot::Present(path) = &slot
        && store.has(digest)
    {
        return Ok((path.clone(), None));
    }
    let source = open().map_err(IngestError::Source)?.into_inner();
    let keep = if store.has(digest) { None } else { Some(store.staged_blob().map_err(stored)?) };
    let tee = Tee { source, seen: Hashing::new(Keep(keep)), progress, limit: *size };

    let unreadable = |source| IngestError::Read { digest: digest.clone(), source };
    let (done, tee) = ahead(tee, |compressed| {
        let inflated = inflate(compressed, limits.window).map_err(unreadable)?;
        let (done, inflated) = ahead(inflated, |archive| {
            let mut archive = Hashing::new(archive);
            let unpacked = match &slot {
                LayerSlot::Empty(staged) => Some(unpack(&mut archive, staged.path(), layer, owner, &limits)?),
                LayerSlot::Present(_) => {
                    let most = limits.bytes.saturating_add(1);
                    if io::copy(&mut (&mut archive).take(most), &mut io::sink()).map_err(unreadable)? == most
                    {
                        return Err(too_large(layer, &limits));
                    }
                    None
                }
            };
            Ok((unpacked, archive.finish().1))
        });
        let done = done?;
        // What follows the compressed archive counts for the digest.
        io::copy(&mut inflated.finish().map_err(unreadable)?, &mut io::sink()).map_err(unreadable)?;
        Ok(done)
    });
    let (unpacked, diff_id) = done?;
    let (Keep(keep), found, received) = tee.seen.finish();
    if found != *digest || received != *size {
        return Err(IngestError::OtherContent { expected: digest.clone(), found, size: received });
    }
    if diff_id != layer.diff_id {
        let expected = layer.diff_id.clone();
        return Err(IngestError::OtherDiffId { digest: digest.clone(), expected, found: diff_id });
    }
    if let Some(keep) = keep {
        keep.publish(digest).map_err(stored)?;
    }
    let path = match slot {
        LayerSlot::Empty(staged) => staged.publish().map_err(stored)?,
        LayerSlot::Present(path) => path,
    };
    Ok((path, unpacked))
}

fn unpack(
    archive: &mut impl Read,
    folder: &Path,
    layer: &Layer,
    owner: &dyn OwnerMap,
    limits: &Limits,
) -> Result<Unpacked, IngestError> {
    let digest = &layer.descriptor.digest;
    let root = File::open(folder).map_err(|source| IngestError::Store {
        digest: digest.clone(),
        source: failed("read", folder)(source).into(),
    })?;
    unpack_layer(archive, root.as_fd(), owner, limits).map_err(|source| match source {
        UnpackError::Limit { what: "bytes", .. } => too_large(layer, limits),
        source => IngestError::Unpack { digest: digest.clone(), source },
    })
}

fn too_large(layer: &Layer, limits: &Limits) -> IngestError {
    let Descriptor { digest, size, .. } = &layer.descriptor;
    IngestError::TooLarge { digest: digest.clone(), size: *size, limit: limits.bytes }
}

/// Hashes what is read, keeps a copy of it, and stops at the promised size.
struct Tee<'a, R> {
    source: R,
    seen: Hashing<Keep>,
    progress: &'a (dyn Fn(u64) + Sync),
    limit: u64,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        if self.seen.size() + read as u64 > self.limit {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("more than the promised {} bytes", self.limit),
            ));
        }
        self.seen.write_all(&buffer[..read])?;
        (self.progress)(self.seen.size());
        Ok(read)
    }
}

/// Where the copy goes, unless the store has it.
struct Keep(Option<StagedBlob>);

impl Write for Keep {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(staged) = &mut self.0 else { return Ok(bytes.len()) };
        // Whoever reads takes it for an error of reading, so it says itself what it is.
        staged.write(bytes).map_err(|source| io::Error::new(source.kind(), staged.failed()(source)))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
