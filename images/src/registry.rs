//! Registries, by the [OCI distribution specification]. Blocking outside, asynchronous inside.
//!
//! Loopback registries are spoken to in plain HTTP without a proxy; others only if listed as insecure.
//! None of these methods may be called from asynchronous code.
//!
//! [OCI distribution specification]: https://github.com/opencontainers/distribution-spec/blob/main/spec.md

mod blob;
mod client;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod known;
pub(crate) mod near;
pub(crate) mod owner;
mod parts;
mod push;
mod read;
mod write;

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use oci_client::errors::OciDistributionError;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::auth::AuthFile;
use crate::digest::Digest;
use crate::document::{Index, Manifest, Platform};
use crate::image::{Document, Image, parse_document};
use crate::limits;
use crate::reference::Reference;

pub use error::RegistryError;
pub use identity::IdentityError;
pub use push::Pushed;

use client::{Clients, Greetings, Leave, named, split_certificates};
use read::Repository;

/// Pauses between attempts.
const PAUSES: [u64; 5] = [100, 200, 500, 1000, 2000];

/// See [Guidance for an Empty Descriptor](https://github.com/opencontainers/image-spec/blob/main/manifest.md).
const EMPTY_VALUE: &[u8] = b"{}";

/// How to speak to registries.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Registries (host, with port if any) spoken to in plain HTTP.
    pub insecure: Vec<String>,
    /// Credentials.
    pub auth: AuthFile,
    /// Certificates to trust besides the usual ones, in PEM.
    pub ca_bundle: Option<PathBuf>,
}

/// A client of all registries. Clones share connections, tokens and what they know of images.
#[derive(Clone)]
pub struct Registry {
    runtime: Arc<Runtime>,
    options: Arc<RegistryOptions>,
    certificates: Arc<Vec<Vec<u8>>>,
    clients: Arc<Mutex<Clients>>,
    greetings: Greetings,
    known: Arc<Mutex<Vec<Image>>>,
    /// Ranges of content that are fetched ahead.
    ranges: Arc<Semaphore>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Registry {
    /// A client with these options.
    ///
    /// # Errors
    ///
    /// When the certificates cannot be read, or no threads are to be had.
    pub fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        let mut certificates = Vec::new();
        if let Some(path) = &options.ca_bundle {
            let text = fs::read_to_string(path)
                .map_err(|source| RegistryError::Certificates { path: path.clone(), source })?;
            certificates = split_certificates(&text);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("registry")
            .enable_all()
            .build()
            .map_err(RegistryError::Runtime)?;
        Ok(Self {
            runtime: Arc::new(runtime),
            options: Arc::new(options),
            certificates: Arc::new(certificates),
            clients: Arc::default(),
            greetings: Greetings::default(),
            known: Arc::default(),
            ranges: parts::permits(),
        })
    }

    /// The image of this name; of an index, the first that runs on this platform. One that is named by the digest of an image which was
    /// read before is not asked for again.
    ///
    /// # Errors
    ///
    /// When there is none, it may not be read, or its documents contradict each other or their digests.
    pub fn image(&self, reference: &Reference, platform: &Platform) -> Result<Image, RegistryError> {
        if let Some(image) = self.known_by(reference) {
            return Ok(image);
        }
        let mut wanted = reference.clone();
        for _ in 0..limits::NESTING {
            let bytes = self.manifest(&wanted)?;
            let damaged =
                |source| RegistryError::Image { reference: reference.to_string(), source: Box::new(source) };
            let index = match parse_document(&bytes).map_err(damaged)? {
                Document::Index(index) => index,
                Document::Manifest(_, manifest) => {
                    let config = self.config(&wanted, &manifest)?;
                    let image = Image::from_bytes(Some(reference.clone()), bytes, config).map_err(damaged)?;
                    self.know(image.clone());
                    return Ok(image);
                }
            };
            let fits =
                |m: &&crate::document::Descriptor| m.platform.as_ref().is_some_and(|p| platform.accepts(p));
            let entry = index.manifests.iter().find(fits).ok_or_else(|| RegistryError::Platform {
                reference: reference.to_string(),
                wanted: platform.to_string(),
                offered: offered(&index),
            })?;
            wanted = reference.with_digest(entry.digest.clone());
        }
        Err(RegistryError::Nesting { reference: reference.to_string() })
    }

    fn config(&self, reference: &Reference, manifest: &Manifest) -> Result<Vec<u8>, RegistryError> {
        let size = manifest.config.size;
        if size > limits::CONFIG {
            let reference = reference.to_string();
            return Err(RegistryError::TooLarge { reference, size, limit: limits::CONFIG });
        }
        let mut config = Vec::new();
        std::io::Read::read_to_end(&mut self.blob(reference, &manifest.config)?, &mut config)
            .map_err(|source| RegistryError::Read { reference: reference.to_string(), source })?;
        Ok(config)
    }

    /// As [`Registry::image`], with `None` for an image that is not there.
    ///
    /// # Errors
    ///
    /// As [`Registry::image`].
    pub fn find_image(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<Image>, RegistryError> {
        match self.image(reference, platform) {
            Ok(image) => Ok(Some(image)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the image is there and may be read.
    ///
    /// # Errors
    ///
    /// When the registry cannot be asked.
    pub fn can_read(&self, reference: &Reference) -> Result<bool, RegistryError> {
        let name = named(reference);
        let answer = self.ask("ask for", reference, async |reading| reading.has_manifest(&name).await);
        match answer {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() || error.is_denied() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether this repository may be written: see [`Registry::check_write`].
    ///
    /// # Errors
    ///
    /// When the registry cannot be asked.
    pub fn can_write(&self, reference: &Reference) -> Result<bool, RegistryError> {
        match self.check_write(reference) {
            Ok(()) => Ok(true),
            Err(error) if error.is_denied() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes sure that this repository may be written: asks it to take over the two bytes of the OCI empty value, which nothing names,
    /// from itself, and sends them if it has not got them.
    ///
    /// To begin an upload and go away would say the same, but leaves the upload open on the registry.
    ///
    /// # Errors
    ///
    /// When writing is refused or the registry cannot be asked.
    pub fn check_write(&self, reference: &Reference) -> Result<(), RegistryError> {
        let digest = Digest::of(EMPTY_VALUE);
        self.ask_to_write("write to", reference, async |repository| {
            repository.ensure(digest.as_str(), EMPTY_VALUE).await
        })
    }

    /// Shows the name and the password that there are for a registry to it, or to its token server. Whether it wanted to see
    /// them: where everybody is let in, nothing is shown, and nothing known of the password.
    ///
    /// # Errors
    ///
    /// When they are refused, or the registry cannot be asked.
    pub fn log_in(&self, reference: &Reference) -> Result<bool, RegistryError> {
        self.runtime.block_on(self.show_password(reference)).map_err(|source| RegistryError::Identity {
            act: "log in to",
            reference: reference.registry.clone(),
            source: Box::new(source),
        })
    }

    /// Whether this content is in the repository.
    ///
    /// # Errors
    ///
    /// When the registry cannot be asked.
    pub fn blob_exists(&self, reference: &Reference, digest: &Digest) -> Result<bool, RegistryError> {
        self.ask("ask for content of", reference, async |reading| reading.has_blob(digest.as_str()).await)
    }

    fn manifest(&self, reference: &Reference) -> Result<Vec<u8>, RegistryError> {
        let name = named(reference);
        let sent =
            self.ask("read the manifest of", reference, async |reading| reading.manifest(&name).await)?;
        let reference_text = || reference.to_string();
        let read::Manifest::Whole(bytes, said) = sent else {
            return Err(RegistryError::Endless { reference: reference_text(), limit: limits::MANIFEST });
        };
        let found = Digest::of(&bytes);
        // By a tag, it is what the registry says that it is.
        let expected = reference.digest.clone().or_else(|| said?.parse().ok());
        match expected {
            Some(expected) if expected != found => {
                Err(RegistryError::OtherManifest { reference: reference_text(), expected, found })
            }
            _ => Ok(bytes),
        }
    }

    /// Runs one request that reads, again after a pause if the failure may pass.
    fn ask<T>(
        &self,
        act: &'static str,
        reference: &Reference,
        request: impl AsyncFn(Repository) -> Result<T, OciDistributionError>,
    ) -> Result<T, RegistryError> {
        self.again(act, reference, || {
            let repository = self.connect(Leave::Read, act, reference)?;
            Ok(self.runtime.block_on(request(repository)))
        })
    }

    /// As [`Registry::ask`], for a request that writes.
    fn ask_to_write<T>(
        &self,
        act: &'static str,
        reference: &Reference,
        request: impl AsyncFn(Repository) -> Result<T, OciDistributionError>,
    ) -> Result<T, RegistryError> {
        self.again(act, reference, || {
            let repository = self.connect(Leave::Write, act, reference)?;
            Ok(self.runtime.block_on(request(repository)))
        })
    }

    fn again<T>(
        &self,
        act: &'static str,
        reference: &Reference,
        attempt: impl Fn() -> Result<Result<T, OciDistributionError>, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut pauses = PAUSES.iter();
        loop {
            let is_known = self.greetings.of(&reference.registry).is_some();
            match attempt()? {
                Ok(answer) => return Ok(answer),
                // It was refused to whoever shows nothing, and has said where access is to be had.
                Err(source)
                    if error::is_refusal(&source)
                        && !is_known
                        && self.greetings.of(&reference.registry).is_some() => {}
                Err(source) => match pauses.next() {
                    Some(pause) if error::may_pass(&source) => thread::sleep(Duration::from_millis(*pause)),
                    _ => return Err(RegistryError::request(act, reference, source)),
                },
            }
        }
    }

    pub(crate) fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }
}

fn offered(index: &Index) -> String {
    let platforms: Vec<String> =
        index.manifests.iter().filter_map(|m| m.platform.as_ref()).map(Platform::to_string).collect();
    if platforms.is_empty() { "none".to_owned() } else { platforms.join(", ") }
}

#[cfg(test)]
mod tests;
