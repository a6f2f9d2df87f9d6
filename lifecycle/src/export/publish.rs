//! The image on its way into registries. What a registry has already is not sent again.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};

use coracle_images::{Descriptor, Digest, Image, Reference, Registry, RegistryError};

use super::Outbox;

/// An image that lies in a registry, and what it is called there.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub name: &'a Reference,
    pub image: &'a Image,
}

/// Why the image is not in its registry.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The registry did not do as asked.
    #[error("publish `{name}`")]
    Registry {
        name: String,
        #[source]
        source: RegistryError,
    },
    /// A layer was neither written nor is it one of another image.
    #[error("publish `{name}`: layer {digest} is neither new nor in the run image or the previous image")]
    Nowhere { name: String, digest: Digest },
}

/// Sends an image under each of these names. A layer that the repository lacks comes from the outbox; else the registry is asked
/// to take it over from a repository of its own; else it is copied from the image that has it.
pub fn publish(
    registry: &Registry,
    image: &Image,
    outbox: &Outbox,
    sources: &[Source<'_>],
    names: &[Reference],
) -> Result<(), PublishError> {
    let mut done: Vec<&Reference> = Vec::new();
    for name in names {
        let failed = |source| PublishError::Registry { name: name.to_string(), source };
        if !done.iter().any(|other| other.name() == name.name()) {
            let mut seen = BTreeSet::new();
            for layer in image.manifest.layers.iter().filter(|layer| seen.insert(&layer.digest)) {
                let near: Vec<&Reference> =
                    done.iter().copied().chain(sources.iter().map(|source| source.name)).collect();
                deliver(registry, name, layer, outbox, &near, sources)?;
            }
        }
        registry.push_image(name, image).map_err(failed)?;
        done.push(name);
    }
    Ok(())
}

fn deliver(
    registry: &Registry,
    name: &Reference,
    layer: &Descriptor,
    outbox: &Outbox,
    near: &[&Reference],
    sources: &[Source<'_>],
) -> Result<(), PublishError> {
    let digest = &layer.digest;
    let failed = |source| PublishError::Registry { name: name.to_string(), source };
    let send = |open: &dyn Fn() -> io::Result<Box<dyn Read + Send>>| {
        registry.push_blob(name, digest, layer.size, open).map(drop).map_err(failed)
    };
    if let Some(path) = outbox.written(digest) {
        return send(&|| Ok(Box::new(File::open(path)?)));
    }
    // Some registries refuse to be asked for what nobody has written yet.
    if registry.blob_exists(name, digest).unwrap_or(false) {
        return Ok(());
    }
    let other = |from: &&&Reference| from.registry == name.registry && from.repository != name.repository;
    for from in near.iter().filter(other) {
        // Whatever keeps the registry from this keeps it from nothing else.
        if registry.mount_blob(name, from, digest).unwrap_or(false) {
            return Ok(());
        }
    }
    let has = |source: &&Source<'_>| source.image.manifest.layers.iter().any(|layer| layer.digest == *digest);
    let source = sources.iter().find(has);
    let source =
        source.ok_or_else(|| PublishError::Nowhere { name: name.to_string(), digest: digest.clone() })?;
    send(&|| {
        let (registry, name) = (registry.clone(), source.name.clone());
        Ok(Box::new(Copied { registry, name, layer: layer.clone(), content: None }))
    })
}

/// Content of another repository, asked for when it is first read: the registry's client must not be asked by its own threads.
struct Copied {
    registry: Registry,
    name: Reference,
    layer: Descriptor,
    content: Option<Box<dyn Read + Send>>,
}

impl Read for Copied {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let content = match &mut self.content {
            Some(content) => content,
            empty => empty.insert(self.registry.blob(&self.name, &self.layer).map_err(io::Error::other)?),
        };
        content.read(buffer)
    }
}
