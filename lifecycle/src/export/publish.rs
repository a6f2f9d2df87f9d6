//! The image on its way into registries. What a registry has already is not sent again.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};

use coracle_images::{Descriptor, Digest, Image, Reference, Registry, RegistryError};

use super::Outbox;

/// How many layers are sent to a registry at once.
const AT_ONCE: usize = 4;

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

/// Sends an image under each of these names. A layer that the repository lacks is taken over from another repository of the
/// registry where that is known to have it; else it comes from the outbox, or is copied from the image that has it.
pub fn publish(
    registry: &Registry,
    image: &Image,
    outbox: &Outbox,
    sources: &[Source<'_>],
    names: &[Reference],
) -> Result<(), PublishError> {
    let mut done: Vec<&Reference> = Vec::new();
    for name in names {
        let delivery = Delivery { registry, outbox, sources, done: &done, name };
        if !done.iter().any(|other| other.name() == name.name()) {
            delivery.layers(&image.manifest.layers)?;
        }
        registry.push_image(name, image).map_err(|source| delivery.failed(source))?;
        done.push(name);
    }
    Ok(())
}

/// Layers on their way into one repository.
struct Delivery<'a> {
    registry: &'a Registry,
    outbox: &'a Outbox,
    sources: &'a [Source<'a>],
    /// Where the image is already.
    done: &'a [&'a Reference],
    name: &'a Reference,
}

impl Delivery<'_> {
    fn failed(&self, source: RegistryError) -> PublishError {
        PublishError::Registry { name: self.name.to_string(), source }
    }

    /// All layers, some at once: most of the time is spent waiting for answers.
    fn layers(&self, layers: &[Descriptor]) -> Result<(), PublishError> {
        let mut seen = BTreeSet::new();
        let waiting: Vec<&Descriptor> = layers.iter().filter(|layer| seen.insert(&layer.digest)).collect();
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), PublishError> {
            while let Some(layer) = waiting.get(next.fetch_add(1, Ordering::Relaxed)) {
                // Nobody begins another layer of an image that will not be.
                self.layer(layer).inspect_err(|_| next.store(waiting.len(), Ordering::Relaxed))?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_ONCE.min(waiting.len())).map(|_| scope.spawn(work)).collect();
            let join = |worker: ScopedJoinHandle<'_, _>| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            // All end before the first error is returned.
            let ended: Vec<_> = workers.into_iter().map(join).collect();
            ended.into_iter().collect()
        })
    }

    fn layer(&self, layer: &Descriptor) -> Result<(), PublishError> {
        let digest = &layer.digest;
        let written = self.outbox.written(digest);
        let mut near = self.done.to_vec();
        if written.is_none() {
            near.extend(self.sources.iter().map(|source| source.name));
        }
        near.retain(|from| from.registry == self.name.registry && from.name() != self.name.name());
        // Some registries refuse to be asked for what nobody has written yet; and whatever keeps one from taking content over
        // keeps it from nothing else. Where there is nothing to take over, whoever sends asks.
        let may_ask = written.is_none() || !near.is_empty();
        if may_ask && self.registry.blob_exists(self.name, digest).unwrap_or(false)
            || near.iter().any(|from| self.registry.mount_blob(self.name, from, digest).unwrap_or(false))
        {
            return Ok(());
        }
        if let Some(path) = written {
            return self.send(layer, &|| Ok(Box::new(File::open(path)?)));
        }
        let has =
            |source: &&Source<'_>| source.image.manifest.layers.iter().any(|known| known.digest == *digest);
        let nowhere = || PublishError::Nowhere { name: self.name.to_string(), digest: digest.clone() };
        let source = self.sources.iter().find(has).ok_or_else(nowhere)?;
        self.send(layer, &|| {
            let (registry, name) = (self.registry.clone(), source.name.clone());
            Ok(Box::new(Copied { registry, name, layer: layer.clone(), content: None }))
        })
    }

    fn send(
        &self,
        layer: &Descriptor,
        open: &dyn Fn() -> io::Result<Box<dyn Read + Send>>,
    ) -> Result<(), PublishError> {
        let sent = self.registry.push_blob(self.name, &layer.digest, layer.size, open);
        sent.map(drop).map_err(|source| self.failed(source))
    }
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
