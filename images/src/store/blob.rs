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
pub struct BlobWriter {
    store: Store,
    staged: PathBuf,
    file: Option<Hashing<File>>,
}

impl Store {
    /// Starts new content.
    ///
    /// # Errors
    ///
    /// When no file can be made in the store.
    pub fn writer(&self) -> Result<BlobWriter, StoreError> {
        let staged = self.staging_path("blob");
        let file = File::create_new(&staged).map_err(failed("write", &staged))?;
        Ok(BlobWriter { store: self.clone(), staged, file: Some(Hashing::new(file)) })
    }
}

impl BlobWriter {
    /// What a failure to write is called.
    pub(super) fn failed(&self, source: io::Error) -> FileError {
        failed("write", &self.staged)(source)
    }

    /// Publishes the content if it is what was expected.
    ///
    /// # Errors
    ///
    /// When it is something else, or the store cannot be written.
    pub fn commit(mut self, expected: Option<&Digest>) -> Result<Blob, StoreError> {
        let gone = || failed("write", &self.staged)(io::ErrorKind::NotFound.into());
        let (file, digest, size) = self.file.take().ok_or_else(gone)?.finish();
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(StoreError::OtherContent { expected: expected.clone(), found: digest });
        }
        // A name must not outlive its content across a power cut: sync before the rename.
        file.sync_data().map_err(failed("write", &self.staged))?;
        let path = self.store.blob_path(&digest);
        fs::rename(&self.staged, &path).map_err(failed("publish", path))?;
        Ok(Blob { digest, size })
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // After a commit there is nothing under the staged name.
        fs::remove_file(&self.staged).ok();
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.file {
            Some(file) => file.write(bytes),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
