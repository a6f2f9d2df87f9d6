//! Content on its way into the store.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::{FileError, Store, StoreError, failed};
use crate::digest::{Digest, Hashing};
use crate::document::Descriptor;

/// So many bytes go to the disk while others arrive, so that there is little to wait for in the end.
const EAGER: u64 = 16 << 20;

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
    written: u64,
    begun: u64,
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
        Ok(StagedBlob { store: self.clone(), path, file, written: 0, begun: 0 })
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
        let written = self.file.write(bytes)?;
        self.written += written as u64;
        if let Some(length @ EAGER..) = self.written.checked_sub(self.begun) {
            // Linux then begins to write what it has of this range, without waiting for it. Where not, the end does.
            let range = (self.begun.cast_signed(), length.cast_signed());
            let _ = posix_fadvise(&self.file, range.0, range.1, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
            self.begun = self.written;
        }
        Ok(written)
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
