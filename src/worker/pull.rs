//! Images on their way from a registry into the store.

use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use coracle_images::unpack::{Allowed, Limits};
use coracle_images::{
    Digest, Image, Layer, OwnerError, OwnerMap, Platform, Reference, Store, Unverified, ingest_layer_from,
};
use coracle_runtime::{GUEST_IDS, IdMap};
use serde::{Deserialize, Serialize};

use super::remote::Remote;
use super::{AnyError, Job, tell};
use crate::event::{Event, Work};
use crate::stage::STORE;

/// A layer's blob, of which nobody has looked at a byte.
type Content = Unverified<Box<dyn Read + Send>>;

/// How many layers are fetched and unpacked at once.
const PARALLEL_LAYERS: usize = 3;

/// The shift by one, as `images` wants to hear it.
pub(super) struct Owners(pub(super) IdMap);

impl OwnerMap for Owners {
    fn owner(&self, uid: u64, gid: u64) -> Result<(u32, u32), OwnerError> {
        let refused = |_| OwnerError {
            uid,
            gid,
            why: format!(
                "a container has ids up to {} only; give the file another owner in the image",
                GUEST_IDS - 1
            ),
        };
        Ok((self.0.outer(uid).map_err(refused)?, self.0.outer(gid).map_err(refused)?))
    }
}

/// Bring an image and its unpacked layers into the store.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pull {
    pub(crate) image: Remote,
    pub(crate) ids: IdMap,
    pub(crate) allowed: Allowed,
}

/// An image that is in the store now.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pulled {
    pub(crate) digest: Digest,
    /// How many layers were fetched; the others were there.
    pub(crate) fetched: usize,
}

impl Job for Pull {
    type Answer = Pulled;

    fn carry_out(self) -> Result<Pulled, AnyError> {
        let Self { image: remote, ids, allowed } = self;
        let store = Store::open(STORE)?;
        let (registry, reference) = (remote.registry()?, &remote.reference);
        let image = registry.image(reference, &Platform::host())?;
        let key = ids.key();
        let is_missing = |layer: &Layer| {
            store.layer_dir(&key, &layer.diff_id).is_none() || !store.has(&layer.descriptor.digest)
        };
        let missing: Vec<Layer> = image.layers().into_iter().filter(is_missing).collect();
        let bytes = missing.iter().map(|layer| layer.descriptor.size).sum();
        // By its digest alone: it gets its name when it is complete.
        store.put_image(&image)?;
        let (name, digest) = (reference.to_string(), image.digest.clone());
        tell(&Event::PullStarted { image: name, digest, layers: missing.len(), bytes });
        let limits = Limits::allowing(allowed);
        let fetched = |layer: &Layer| -> Result<Content, AnyError> {
            Ok(registry.unverified_blob(reference, &layer.descriptor)?)
        };
        take_layers(&store, &missing, ids, &limits, &fetched)?;
        publish(&store, reference, &image)?;
        Ok(Pulled { digest: image.digest, fetched: missing.len() })
    }
}

/// Unpack the layers of a stored image that are not unpacked for these ids, or may not be whole.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Unpack {
    /// By its digest.
    pub(crate) image: Reference,
    pub(crate) ids: IdMap,
    pub(crate) allowed: Allowed,
}

impl Job for Unpack {
    /// Whether all are; not where what they are made of is not stored.
    type Answer = bool;

    fn carry_out(self) -> Result<bool, AnyError> {
        let Self { image: name, ids, allowed } = self;
        let store = Store::open(STORE)?;
        let Some(image) = store.image(&name)? else { return Ok(false) };
        let key = ids.key();
        let is_missing = |layer: &Layer| store.layer_dir(&key, &layer.diff_id).is_none();
        let missing: Vec<Layer> = image.layers().into_iter().filter(is_missing).collect();
        if !missing.iter().all(|layer| store.has(&layer.descriptor.digest)) {
            return Ok(false);
        }
        let gone =
            |layer: &Layer| Err(format!("{} is not in the store any more", layer.descriptor.digest).into());
        take_layers(&store, &missing, ids, &Limits::allowing(allowed), &gone)?;
        Ok(true)
    }
}

/// The name comes last: an image that the store knows by name is complete.
pub(super) fn publish(store: &Store, reference: &Reference, image: &Image) -> Result<(), AnyError> {
    store.put_image(image)?;
    Ok(store.tag(reference, &image.descriptor())?)
}

/// Takes layers into the store that are not unpacked; `fetched` is asked for those whose blobs are not stored.
fn take_layers(
    store: &Store,
    layers: &[Layer],
    ids: IdMap,
    limits: &Limits,
    fetched: &(dyn Fn(&Layer) -> Result<Content, AnyError> + Sync),
) -> Result<(), AnyError> {
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<AnyError>> = Mutex::new(None);
    let fetch = |number: usize, layer: &Layer| -> Result<(), AnyError> {
        let began = Instant::now();
        // Who takes the layer into the store computes its digest, so that nobody else need.
        let open = || -> Result<Content, AnyError> {
            match store.blob(&layer.descriptor.digest) {
                Ok(file) => Ok(Unverified::new(Box::new(file))),
                Err(_) => fetched(layer),
            }
        };
        // A megabyte at a time: a line for each read would cost more than the bars are worth.
        let told = AtomicUsize::new(0);
        let progress = |bytes: u64| {
            let step = usize::try_from(bytes >> 20).unwrap_or(usize::MAX);
            if told.swap(step, Ordering::Relaxed) != step {
                tell(&Event::LayerProgress { layer: number, bytes });
            }
        };
        let (_, unpacked) =
            ingest_layer_from(store, open, layer, &ids.key(), &Owners(ids), limits, &progress)?;
        let skipped = unpacked.map_or(0, |unpacked| unpacked.devices.len());
        tell(&Event::LayerReady { layer: number, skipped });
        let (name, bytes) = (layer.descriptor.digest.to_string(), Some(layer.descriptor.size));
        tell(&Event::Took { work: Work::Layer, name, took: began.elapsed(), bytes });
        Ok(())
    };
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL_LAYERS.min(layers.len()) {
            scope.spawn(|| {
                while let Some((number, layer)) =
                    layers.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed))
                {
                    if let Err(error) = fetch(number, layer) {
                        next.store(layers.len(), Ordering::Relaxed);
                        if let Ok(mut failure) = failure.lock() {
                            failure.get_or_insert(error);
                        }
                        return;
                    }
                }
            });
        }
    });
    match failure.into_inner() {
        Ok(None) => Ok(()),
        Ok(Some(error)) => Err(error),
        Err(_) => Err("a thread that fetched layers panicked".into()),
    }
}

#[cfg(test)]
mod tests;
