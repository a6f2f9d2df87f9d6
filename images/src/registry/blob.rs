//! Content as a stream that survives broken connections.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;

use super::client::Leave;
use super::parts::{PART, Pace, Parts};
use super::{PAUSES, Registry, RegistryError};
use crate::digest::{Digest, Hashing, Unverified};
use crate::document::Descriptor;
use crate::reference::Reference;

/// Reads content from its registry, as many bytes as were promised: resumes where a connection broke.
struct BlobReader {
    registry: Registry,
    reference: Reference,
    digest: Digest,
    size: u64,
    response: Option<Response>,
    pace: Pace,
    /// What comes behind `turn` besides the response, which is given up when that has begun.
    parts: Option<Parts>,
    turn: u64,
    /// What the response has brought of that already.
    rest: Bytes,
    /// Whether ranges were not tried in vain.
    may_split: bool,
    chunk: Bytes,
    read: u64,
    /// How often the connection broke with less than [`PROGRESS`] after the time before.
    failures: usize,
    /// What was read when it broke last.
    broke_at: u64,
}

/// Bytes after which a connection that breaks is an accident of its own: a large layer may have many, but no registry
/// keeps us for ever with a byte each time.
const PROGRESS: u64 = 64 << 10;

/// Ends with an error if the digest is wrong.
struct Verified {
    source: Hashing<BlobReader>,
    is_right: bool,
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobReader").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Registry {
    /// Opens content of a repository. Reading verifies size and digest; a wrong one is an error instead of the end.
    ///
    /// # Errors
    ///
    /// When it is not there or may not be read.
    pub fn blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Box<dyn Read + Send>, RegistryError> {
        let source = Hashing::new(self.reader(reference, descriptor)?);
        Ok(Box::new(Verified { source, is_right: false }))
    }

    /// As [`Registry::blob`], for who computes the digest anyhow: only the size is looked at here.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn unverified_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Unverified<Box<dyn Read + Send>>, RegistryError> {
        Ok(Unverified::new(Box::new(self.reader(reference, descriptor)?)))
    }

    fn reader(&self, reference: &Reference, descriptor: &Descriptor) -> Result<BlobReader, RegistryError> {
        let mut reader = BlobReader {
            registry: self.clone(),
            reference: reference.clone(),
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            response: None,
            pace: Pace::new(),
            parts: None,
            turn: descriptor.size,
            rest: Bytes::new(),
            may_split: true,
            chunk: Bytes::new(),
            read: 0,
            failures: 0,
            broke_at: 0,
        };
        if reader.size > 0 {
            reader.open()?;
        }
        Ok(reader)
    }
}

impl BlobReader {
    fn open(&mut self) -> Result<(), RegistryError> {
        let (digest, offset) = (self.digest.to_string(), self.read);
        let (mut response, mut skip) =
            self.registry.ask("read content of", &self.reference, async |reading| {
                reading.blob(&digest, offset).await
            })?;
        // A registry without ranges starts over.
        while skip > 0 {
            let mut chunk = self
                .next(&mut response)
                .map_err(|source| RegistryError::Read { reference: self.reference.to_string(), source })?;
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            self.chunk = chunk.split_off(known);
            skip -= known as u64;
        }
        self.response = Some(response);
        self.pace = Pace::new();
        Ok(())
    }

    fn next(&mut self, response: &mut Response) -> io::Result<Bytes> {
        let runtime = Arc::clone(self.registry.runtime());
        let chunk = self.pace.piece(|| runtime.block_on(response.chunk())).map_err(io::Error::other)?;
        chunk.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Where everybody waits for this connection, what lies a little further on is asked for beside it.
    fn split(&mut self) {
        let is_long = self.size - self.read > 2 * PART;
        if !self.may_split || self.parts.is_some() || !is_long || !self.pace.is_slow() {
            return;
        }
        let turn = self.read + PART;
        let mut parts = Parts::new(Arc::clone(&self.registry.ranges), turn, self.size);
        match self.ask(&mut parts) {
            Ok(true) => (self.parts, self.turn) = (Some(parts), turn),
            // Others have all that there may be.
            Ok(false) => self.pace = Pace::new(),
            Err(_) => self.may_split = false,
        }
    }

    fn ask(&self, parts: &mut Parts) -> Result<bool, RegistryError> {
        let connect = || self.registry.connect(Leave::Read, "read content of", &self.reference);
        parts.ask(self.registry.runtime(), self.digest.as_str(), connect)
    }

    /// Gets more bytes of what was asked for beside the response; false where that is all, or comes to nothing. Then the response goes
    /// on, if there still is one.
    fn refill_of_parts(&mut self) -> bool {
        let Some(mut parts) = self.parts.take() else { return false };
        let runtime = Arc::clone(self.registry.runtime());
        match parts.next(&runtime) {
            Some(Ok(piece)) => {
                (self.chunk, self.rest, self.response) = (piece, Bytes::new(), None);
                // Without more of them, those that there are end, and then a connection is opened as usual.
                let _ = self.ask(&mut parts);
                self.parts = Some(parts);
                true
            }
            ended => {
                self.may_split &= ended.is_none();
                self.turn = self.size;
                self.chunk = std::mem::take(&mut self.rest);
                !self.chunk.is_empty()
            }
        }
    }

    /// Gets more bytes, from a new connection if need be.
    fn refill(&mut self) -> io::Result<()> {
        while self.chunk.is_empty() {
            self.split();
            if self.read >= self.turn && self.refill_of_parts() {
                continue;
            }
            let broken = match self.response.take() {
                Some(mut response) => match self.next(&mut response) {
                    Ok(mut chunk) => {
                        let now = usize::try_from(self.turn - self.read).unwrap_or(usize::MAX);
                        if self.parts.is_some() && chunk.len() > now {
                            self.rest = chunk.split_off(now);
                        }
                        (self.chunk, self.response) = (chunk, Some(response));
                        continue;
                    }
                    Err(error) => error,
                },
                None => io::ErrorKind::NotConnected.into(),
            };
            if self.read - self.broke_at >= PROGRESS {
                self.failures = 0;
            }
            self.broke_at = self.read;
            let Some(pause) = PAUSES.get(self.failures) else { return Err(broken) };
            self.failures += 1;
            thread::sleep(Duration::from_millis(*pause));
            match self.open() {
                Err(RegistryError::Read { .. }) | Ok(()) => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(())
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let left = self.size - self.read;
        if left == 0 {
            return Ok(0);
        }
        self.refill()?;
        if self.chunk.len() as u64 > left {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the registry sent more than {} bytes for {}", self.size, self.digest),
            ));
        }
        let length = self.chunk.len().min(buffer.len());
        let bytes = self.chunk.split_to(length);
        buffer[..length].copy_from_slice(&bytes);
        self.read += length as u64;
        Ok(length)
    }
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        if read == 0 && !buffer.is_empty() && !self.is_right {
            let (found, expected) = (self.source.digest(), &self.source.inner().digest);
            if found != *expected {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("the registry sent {found} for {expected}"),
                ));
            }
            self.is_right = true;
        }
        Ok(read)
    }
}
