//! Layers whose content is known without reading it: what `coracle build` tells its phases of layers that lie unpacked between
//! builds, and what they tell it (our own flags `unchanged` and `packed`).

use coracle_images::Digest;
use serde::{Deserialize, Serialize};

/// A list of them. In the list itself nobody but whoever has verified it may write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownLayers {
    #[serde(default)]
    pub layers: Vec<KnownLayer>,
}

/// A layer, and what its archive is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KnownLayer {
    /// The buildpack's folder.
    pub buildpack: String,
    pub name: String,
    pub diff_id: Digest,
}

impl KnownLayers {
    /// What the archive of a layer is, by its buildpack's folder and its name.
    pub fn diff_id(&self, buildpack: &str, name: &str) -> Option<&Digest> {
        let is = |layer: &&KnownLayer| layer.buildpack == buildpack && layer.name == name;
        self.layers.iter().find(is).map(|layer| &layer.diff_id)
    }
}
