//! The image on its way into registries. What a registry has already is not sent again, and what an image of the same repository
//! names is not asked for: a registry that has lost it says so when it gets the manifest.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, ScopedJoinHandle};

use coracle_images::{Descriptor, Digest, Image, Reference, Registry, RegistryError};

use super::Outbox;
use crate::cache::LaunchCache;

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
    /// A name says by its digest which image it is, and the image is another.
    #[error("publish `{name}`: the image is {found}, so that this cannot be its name: give it one by a tag")]
    OtherDigest { name: String, found: Digest },
    /// A layer was neither written nor is it one of another image.
    #[error("publish `{name}`: layer {digest} is neither new nor in the run image or the previous image")]
    Nowhere { name: String, digest: Digest },
}

/// Brings images into registries. A layer that a repository lacks is taken over from another repository of the registry where
/// that is known to have it; else it comes from an outbox, or is copied from the image that has it.
#[derive(Debug)]
pub struct Publisher<'a> {
    registry: &'a Registry,
    outboxes: &'a [&'a Outbox],
    /// Images that layers are copied from.
    sources: &'a [Source<'a>],
    /// Images that were sent just now, with layers of the outboxes.
    made: &'a [Source<'a>],
    /// What is asked before a layer is copied.
    launch_cache: Option<&'a LaunchCache>,
    /// What the first repository has.
    delivered: Mutex<BTreeSet<Digest>>,
}

impl<'a> Publisher<'a> {
    /// A publisher of images that are made of these.
    pub fn new(
        registry: &'a Registry,
        outboxes: &'a [&'a Outbox],
        sources: &'a [Source<'a>],
        made: &'a [Source<'a>],
    ) -> Self {
        Self { registry, outboxes, sources, made, launch_cache: None, delivered: Mutex::default() }
    }

    /// Layers are made again of what is in this cache, into the first outbox, before they are copied from elsewhere.
    #[must_use]
    pub(crate) fn with_launch_cache(self, launch_cache: Option<&'a LaunchCache>) -> Self {
        Self { launch_cache, ..self }
    }

    /// Makes an image for this name. Meanwhile the layers of `base` go to its repository, and each new one as soon as the outbox
    /// has it.
    pub fn while_made<T, E: From<PublishError>>(
        &self,
        name: &Reference,
        base: &Image,
        outbox: &Outbox,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let (sender, receiver) = mpsc::channel();
        base.manifest.layers.iter().for_each(|layer| drop(sender.send(layer.clone())));
        outbox.tell(Some(sender));
        let waiting = Mutex::new(receiver);
        let delivery = Delivery { of: self, done: &[], name, believes: true };
        let work = || -> Result<(), PublishError> {
            loop {
                let layer = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(layer) = layer else { return Ok(()) };
                if self.delivered().insert(layer.digest.clone()) {
                    delivery.layer(&layer)?;
                }
            }
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            let made = make();
            outbox.tell(None);
            // All end before the first error is returned.
            let ended: Vec<_> = workers.into_iter().map(joined).collect();
            let made = made?;
            ended.into_iter().collect::<Result<(), _>>()?;
            Ok(made)
        })
    }

    /// Sends an image under each of these names.
    pub fn publish(&self, image: &Image, names: &[Reference]) -> Result<(), PublishError> {
        let is_other = |name: &&Reference| name.digest.as_ref().is_some_and(|digest| *digest != image.digest);
        if let Some(name) = names.iter().find(is_other) {
            let (name, found) = (name.to_string(), image.digest.clone());
            return Err(PublishError::OtherDigest { name, found });
        }
        let mut done: Vec<Source<'_>> = self.made.to_vec();
        for name in names {
            let delivery = Delivery { of: self, done: &done, name, believes: true };
            if !done.iter().any(|other| other.name.name() == name.name()) {
                let mut seen =
                    if Some(name) == names.first() { self.delivered().clone() } else { BTreeSet::new() };
                let layers = image.manifest.layers.iter();
                delivery
                    .layers(&layers.filter(|layer| seen.insert(layer.digest.clone())).collect::<Vec<_>>())?;
            }
            if let Err(error) = delivery.documents(image) {
                if !image.manifest.layers.iter().any(|layer| delivery.names(layer)) {
                    return Err(error);
                }
                let delivery = Delivery { believes: false, ..delivery };
                delivery.layers(&image.manifest.layers.iter().collect::<Vec<_>>())?;
                delivery.documents(image)?;
            }
            done.push(Source { name, image });
        }
        Ok(())
    }

    fn delivered(&self) -> MutexGuard<'_, BTreeSet<Digest>> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn joined<T>(worker: ScopedJoinHandle<'_, T>) -> T {
    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Layers on their way into one repository.
struct Delivery<'a> {
    of: &'a Publisher<'a>,
    /// Images that other repositories have already.
    done: &'a [Source<'a>],
    name: &'a Reference,
    /// Whether what an image of the repository names counts as there.
    believes: bool,
}

impl Delivery<'_> {
    /// Whether an image of this repository has the layer.
    fn names(&self, layer: &Descriptor) -> bool {
        let here = self.of.sources.iter().filter(|source| source.name.name() == self.name.name());
        here.flat_map(|source| &source.image.manifest.layers).any(|known| known.digest == layer.digest)
    }

    /// Configuration and manifest.
    fn documents(&self, image: &Image) -> Result<(), PublishError> {
        let (registry, name) = (self.of.registry, self.name);
        let here = self.of.sources.iter().filter(|source| source.name.name() == name.name());
        let sent =
            if self.believes && here.map(|source| &source.image.digest).any(|known| *known == image.digest) {
                registry.push_manifest(name, &image.manifest_bytes, image.media_type())
            } else {
                registry.push_image(name, image)
            };
        sent.map(drop).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: RegistryError) -> PublishError {
        PublishError::Registry { name: self.name.to_string(), source }
    }

    /// All layers, some at once: most of the time is spent waiting for answers.
    fn layers(&self, waiting: &[&Descriptor]) -> Result<(), PublishError> {
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
            // All end before the first error is returned.
            let ended: Vec<_> = workers.into_iter().map(joined).collect();
            ended.into_iter().collect()
        })
    }

    fn layer(&self, layer: &Descriptor) -> Result<(), PublishError> {
        if self.believes && self.names(layer) {
            return Ok(());
        }
        let (digest, registry) = (&layer.digest, self.of.registry);
        let written = self.of.outboxes.iter().find_map(|outbox| outbox.written(digest));
        let has =
            |source: &&Source<'_>| source.image.manifest.layers.iter().any(|known| known.digest == *digest);
        let mut near: Vec<&Reference> = self.done.iter().filter(has).map(|source| source.name).collect();
        if written.is_none() {
            near.extend(self.of.sources.iter().filter(has).map(|source| source.name));
        }
        near.retain(|from| from.registry == self.name.registry && from.name() != self.name.name());
        // Some registries refuse to be asked for what nobody has written yet; and whatever keeps one from taking content over
        // keeps it from nothing else. Where there is nothing to take over, whoever sends asks.
        let may_ask = written.is_none() || !near.is_empty();
        if may_ask && registry.blob_exists(self.name, digest).unwrap_or(false)
            || near.iter().any(|from| registry.mount_blob(self.name, from, digest).unwrap_or(false))
        {
            return Ok(());
        }
        if let Some(path) = written {
            return self.send(layer, &|| Ok(Box::new(File::open(&path)?)));
        }
        let nowhere = || PublishError::Nowhere { name: self.name.to_string(), digest: digest.clone() };
        let source = self.of.sources.iter().find(has).ok_or_else(nowhere)?;
        if let Some(path) = self.in_launch_cache(source.image, layer) {
            return self.send(layer, &|| Ok(Box::new(File::open(&path)?)));
        }
        self.send(layer, &|| {
            let (registry, name) = (registry.clone(), source.name.clone());
            Ok(Box::new(Copied { registry, name, layer: layer.clone(), content: None }))
        })
    }

    fn in_launch_cache(&self, image: &Image, layer: &Descriptor) -> Option<PathBuf> {
        let (cache, outbox) = (self.of.launch_cache?, self.of.outboxes.first()?);
        let layer = image.layers().into_iter().find(|known| known.descriptor.digest == layer.digest)?;
        cache.blob(&layer, outbox)
    }

    fn send(
        &self,
        layer: &Descriptor,
        open: &dyn Fn() -> io::Result<Box<dyn Read + Send>>,
    ) -> Result<(), PublishError> {
        let sent = self.of.registry.push_blob(self.name, &layer.digest, layer.size, open);
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
