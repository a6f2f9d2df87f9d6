//! Content and manifests on their way into a registry.

use std::io::{self, Read};
use std::thread;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::client::named;
use super::write::Pieces;
use super::{Registry, RegistryError};
use crate::digest::Digest;
use crate::image::Image;
use crate::reference::Reference;

const CHUNK: usize = 1 << 17;

/// What became of content that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was sent.
    Sent,
    /// The repository already had it.
    Present,
}

impl Registry {
    /// Sends content unless the repository has it. `open` is called once per attempt.
    ///
    /// # Errors
    ///
    /// When the content cannot be read, or the registry does not take it.
    pub fn push_blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        size: u64,
        open: &dyn Fn() -> io::Result<Box<dyn Read + Send>>,
    ) -> Result<Pushed, RegistryError> {
        // Some registries refuse to be asked for what nobody has written yet.
        if self.blob_exists(reference, digest).unwrap_or(false) {
            return Ok(Pushed::Present);
        }
        // Opened here first, so that a missing file is told apart from a failing registry.
        open().map_err(|source| RegistryError::Source {
            reference: reference.to_string(),
            digest: digest.clone(),
            source,
        })?;
        self.ask_to_write("send content to", reference, async |repository| {
            repository.send_blob(digest.as_str(), size, channel(open()?)).await
        })?;
        Ok(Pushed::Sent)
    }

    /// Sends these bytes unless the repository has them.
    ///
    /// # Errors
    ///
    /// When the registry does not take them.
    pub fn push_bytes(&self, reference: &Reference, bytes: &[u8]) -> Result<Pushed, RegistryError> {
        let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(io::Cursor::new(bytes.to_vec()))) };
        self.push_blob(reference, &Digest::of(bytes), bytes.len() as u64, &open)
    }

    /// Takes content over from another repository of the same registry; false if the registry does not.
    ///
    /// # Errors
    ///
    /// When writing is refused or the registry cannot be asked.
    pub fn mount_blob(
        &self,
        reference: &Reference,
        from: &Reference,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        self.ask_to_write("write to", reference, async |repository| {
            repository.mount(digest.as_str(), &from.repository).await
        })
    }

    /// Sends a manifest under the reference's tag, or by its digest alone if the reference has no tag.
    ///
    /// # Errors
    ///
    /// When the registry does not take it.
    pub fn push_manifest(
        &self,
        reference: &Reference,
        manifest: &[u8],
        media_type: &str,
    ) -> Result<Digest, RegistryError> {
        if media_type.is_empty() || !media_type.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(RegistryError::MediaType { media_type: media_type.to_owned() });
        }
        let digest = Digest::of(manifest);
        let target = match &reference.tag {
            Some(_) => Reference { digest: None, ..reference.clone() },
            None => reference.with_digest(digest.clone()),
        };
        let name = named(&target);
        self.ask_to_write("write the manifest of", &target, async |repository| {
            repository.put_manifest(&name, media_type, manifest.to_vec()).await
        })?;
        Ok(digest)
    }

    /// Sends an image's configuration and manifest; its layers must be there.
    ///
    /// # Errors
    ///
    /// When the registry does not take them.
    pub fn push_image(&self, reference: &Reference, image: &Image) -> Result<Digest, RegistryError> {
        self.push_bytes(reference, &image.config_bytes)?;
        self.push_manifest(reference, &image.manifest_bytes, image.media_type())
    }
}

/// Reads on a thread of its own: reading blocks, and the client must not.
fn channel(mut source: Box<dyn Read + Send>) -> Pieces {
    let (sender, receiver) = mpsc::channel(8);
    thread::spawn(move || {
        loop {
            let mut chunk = vec![0; CHUNK];
            let sent = match source.read(&mut chunk) {
                Ok(0) => return,
                Ok(read) => {
                    chunk.truncate(read);
                    sender.blocking_send(Ok(Bytes::from(chunk)))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => sender.blocking_send(Err(error)),
            };
            if sent.is_err() {
                return;
            }
        }
    });
    receiver
}
