//! Images that were put together here: into the store under a name, and from the store to a registry.

use std::fs::File;
use std::io::{self, Read};

use coracle_images::unpack::{Allowed, Limits};
use coracle_images::{Digest, Image, Reference, Store, ingest_layer};
use coracle_runtime::IdMap;
use serde::{Deserialize, Serialize};

use super::pull::{Owners, publish};
use super::remote::Remote;
use super::{AnyError, Job, tell};
use crate::event::Event;
use crate::stage::{STORE, Stage};

/// Give an image whose layers are in the store its name, after unpacking those that are not unpacked yet.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeepImage {
    pub(crate) reference: Reference,
    pub(crate) manifest: String,
    pub(crate) config: String,
    pub(crate) ids: IdMap,
    pub(crate) allowed: Allowed,
}

impl KeepImage {
    pub(crate) fn new(reference: &Reference, image: &Image, stage: &Stage<'_>) -> Self {
        let (ids, allowed) = (stage.ids, stage.allowed());
        // Both were written as JSON a moment ago, which is UTF-8.
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (manifest, config) = (text(&image.manifest_bytes), text(&image.config_bytes));
        Self { reference: reference.clone(), manifest, config, ids, allowed }
    }
}

impl Job for KeepImage {
    type Answer = ();

    fn carry_out(self) -> Result<(), AnyError> {
        let store = Store::open(STORE)?;
        let image =
            Image::from_bytes(Some(self.reference.clone()), self.manifest.into(), self.config.into())?;
        let (key, limits) = (self.ids.key(), Limits::allowing(self.allowed));
        for (number, layer) in image.layers().iter().enumerate() {
            if store.layer_dir(&key, &layer.diff_id).is_some() {
                continue;
            }
            let blob = stored(&store, &layer.descriptor.digest)?;
            let (_, unpacked) = ingest_layer(&store, blob, layer, &key, &Owners(self.ids), &limits, &|_| ())?;
            let skipped = unpacked.map_or(0, |unpacked| unpacked.devices.len());
            tell(&Event::LayerReady { layer: number, skipped });
        }
        publish(&store, &self.reference, &image)
    }
}

/// Send an image of the store to its registry.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PushImage {
    pub(crate) image: Remote,
}

impl Job for PushImage {
    type Answer = Digest;

    fn carry_out(self) -> Result<Digest, AnyError> {
        let store = Store::open(STORE)?;
        let name = &self.image.reference;
        let image = store.image(name)?.ok_or("the image is not in the store")?;
        let registry = self.image.registry()?;
        for layer in image.layers() {
            let digest = &layer.descriptor.digest;
            if registry.blob_exists(name, digest)? {
                continue;
            }
            stored(&store, digest)?;
            let open =
                || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(File::open(store.blob_path(digest))?)) };
            registry.push_blob(name, digest, layer.descriptor.size, &open)?;
        }
        Ok(registry.push_image(name, &image)?)
    }
}

/// A layer as it was fetched. Images can be in the store without: only their unpacked form is needed to run them.
fn stored(store: &Store, digest: &Digest) -> Result<File, AnyError> {
    store.blob(digest).map_err(|_| {
        format!("the layer {digest} of its base is not in the store; fetch the base with: coracle pull")
            .into()
    })
}
