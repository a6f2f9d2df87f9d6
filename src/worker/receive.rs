//! A finished image on its way from a phase's outbox into the store.

use std::fs::File;

use coracle_images::unpack::{Allowed, Limits};
use coracle_images::{Digest, Reference, Store, ingest_layer};
use coracle_lifecycle::phases::layout_path;
use coracle_runtime::IdMap;
use serde::{Deserialize, Serialize};

use super::pull::Owners;
use super::{AnyError, Job};
use crate::build::folders::Folders;
use crate::stage::STORE;

/// The most that one image may bring into the store.
const IMAGE_LIMIT: u64 = 64 << 30;

/// Verify the image that the exporter wrote, put it into the store, and unpack its new layers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Receive {
    pub(crate) folders: Folders,
    pub(crate) ids: IdMap,
    pub(crate) allowed: Allowed,
    /// The name by which the exporter knew it.
    pub(crate) image: Reference,
    /// All names it gets.
    pub(crate) names: Vec<Reference>,
}

impl Job for Receive {
    /// The manifest's.
    type Answer = Digest;

    fn carry_out(self) -> Result<Digest, AnyError> {
        let store = Store::open(STORE)?;
        let layout = layout_path(std::path::Path::new(""), &self.image);
        let image = store.receive(&self.folders.layout(), &layout, IMAGE_LIMIT)?;
        let (key, limits) = (self.ids.key(), Limits::allowing(self.allowed));
        for layer in image.layers() {
            if store.layer_dir(&key, &layer.diff_id).is_none() {
                let blob: File = store.blob(&layer.descriptor.digest)?;
                ingest_layer(&store, blob, &layer, &key, &Owners(self.ids), &limits, &|_| {})?;
            }
        }
        for name in &self.names {
            store.tag(name, &image.descriptor())?;
        }
        Ok(image.digest)
    }
}
