//! Content on its way into the store.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use super::{FileError, Store, StoreError, failed};
use crate::digest::{Digest, Hashing};
use crate::document::Descriptor;

/// Stored content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

impl Blob {
    /// Points to the content.
    #[must_use]
    pub fn descriptor(&self, media_type: &str) -> Descriptor {
        Descriptor::new(media_type, self.digest.clone(), self.size)
    }
}

/// Content that is hashed while it is written, and visible only after [`BlobWriter::commit`]; dropped, it is gone.
#[derive(Debug)]
pub struct BlobWriter(Hashing<StagedBlob>);

/// Content whose digest somebody else computes; dropped, it is gone.
#[derive(Debug)]
pub(super) struct StagedBlob {
    store: Store,
    path: PathBuf,
    file: File,
}

impl Store {
    /// Starts new content.
    ///
    /// # Errors
    ///
    /// When no file can be made in the store.
    pub fn writer(&self) -> Result<BlobWriter, StoreError> {
        Ok(BlobWriter(Hashing::new(self.staged_blob()?)))
    }

    pub(super) fn staged_blob(&self) -> Result<StagedBlob, StoreError> {
        let path = self.staging_path("blob");
        let file = File::create_new(&path).map_err(failed("write", &path))?;
        Ok(StagedBlob { store: self.clone(), path, file })
    }
}

impl BlobWriter {
    /// Publishes the content if it is what was expected.
    ///
    /// # Errors
    ///
    /// When it is something else, or the store cannot be written.
    pub fn commit(self, expected: Option<&Digest>) -> Result<Blob, StoreError> {
        let (staged, digest, size) = self.0.finish();
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(StoreError::OtherContent { expected: expected.clone(), found: digest });
        }
        staged.publish(&digest)?;
        Ok(Blob { digest, size })
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl StagedBlob {
    /// Publishes what was written, which must have this digest.
    pub(super) fn publish(self, digest: &Digest) -> Result<(), StoreError> {
        // A name must not outlive its content across a power cut: sync before the rename.
        self.file.sync_data().map_err(self.failed())?;
        let path = self.store.blob_path(digest);
        Ok(fs::rename(&self.path, &path).map_err(failed("publish", path))?)
    }

    /// What a failure to write is called.
    pub(super) fn failed(&self) -> impl FnOnce(io::Error) -> FileError {
        failed("write", &self.path)
    }
}

impl Write for StagedBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for StagedBlob {
    fn drop(&mut self) {
        // Once published, there is nothing under the staged name.
        fs::remove_file(&self.path).ok();
    }
}
