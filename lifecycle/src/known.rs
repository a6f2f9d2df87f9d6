//! What need not be read again. Layers: what `coracle build` tells its phases of those that lie unpacked between builds, and of the
//! application, and what they tell it (our own flags `unchanged` and `packed`). Images: what the analyzer has read of them, for the exporter (`known-images`).

use coracle_cnb::Slice;
use coracle_images::{Digest, Image, Reference, Registry};
use serde::{Deserialize, Serialize};

/// A list of them. In the list itself nobody but whoever has verified it may write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownLayers {
    /// Whether the application is probably another than the last image's: its source was changed since.
    #[serde(default, rename = "application-changed")]
    pub application_changed: bool,
    #[serde(default)]
    pub layers: Vec<KnownLayer>,
    /// The application, whose folder is what it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<KnownApplication>,
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

/// What the archives of the application are, and all that they are made of beside its folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KnownApplication {
    /// Where the folder is in the image.
    pub path: String,
    /// Owner and group there.
    pub owner: (u32, u32),
    /// One for each slice, and one for the remainder.
    pub diff_ids: Vec<Digest>,
    #[serde(default)]
    pub slices: Vec<Slice>,
}

impl KnownLayers {
    /// What the archive of a layer is, by its buildpack's folder and its name.
    pub fn diff_id(&self, buildpack: &str, name: &str) -> Option<&Digest> {
        let is = |layer: &&KnownLayer| layer.buildpack == buildpack && layer.name == name;
        self.layers.iter().find(is).map(|layer| &layer.diff_id)
    }
}

/// More than this, bytes, is read again.
const LARGEST: usize = 4 << 20;

/// Documents of images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownImages {
    #[serde(default)]
    images: Vec<KnownImage>,
}

/// An image in a registry. What the manifest's bytes are makes its digest, and they name the configuration by its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KnownImage {
    name: String,
    manifest: String,
    config: String,
}

impl KnownImages {
    /// All that this client has read.
    pub fn of(registry: &Registry) -> Self {
        let mut left = LARGEST;
        let mut known = |image: Image| {
            let length = image.manifest_bytes.len() + image.config_bytes.len();
            left = left.checked_sub(length)?;
            Some(KnownImage {
                name: image.reference?.to_string(),
                manifest: String::from_utf8(image.manifest_bytes).ok()?,
                config: String::from_utf8(image.config_bytes).ok()?,
            })
        };
        Self { images: registry.known().into_iter().filter_map(&mut known).collect() }
    }

    /// Makes them known to another client. What contradicts itself counts as unread.
    pub fn tell(self, registry: &Registry) {
        for KnownImage { name, manifest, config } in self.images {
            if let Ok(name) = name.parse::<Reference>()
                && let Ok(image) = Image::from_bytes(Some(name), manifest.into_bytes(), config.into_bytes())
            {
                registry.know(image);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use coracle_images::{Config, RegistryOptions};

    use super::*;

    #[test]
    fn documents_of_images_are_what_their_bytes_make_them() {
        let client = || Registry::new(RegistryOptions::default()).unwrap();
        let reference: Reference = "r.example/app:1".parse().unwrap();
        let image = Image::assemble(Config::default(), Vec::new()).unwrap();
        let digest = image.digest.clone();
        let first = client();
        first.know(Image { reference: Some(reference), ..image });
        let told = |change: &dyn Fn(&mut KnownImage)| {
            let mut known = KnownImages::of(&first);
            let text = coracle_cnb::write_toml(&known).unwrap();
            assert_eq!(coracle_cnb::read_toml::<KnownImages>("known images", &text).unwrap(), known);
            change(&mut known.images[0]);
            let second = client();
            known.tell(&second);
            second.known().into_iter().map(|image| image.digest).collect::<Vec<_>>()
        };
        assert_eq!(told(&|_| ()), std::slice::from_ref(&digest));
        assert!(!told(&|known| known.manifest.push(' ')).contains(&digest));
        assert_eq!(told(&|known| known.config.push(' ')), []);
        assert_eq!(told(&|known| known.manifest.clear()), []);
        assert_eq!(told(&|known| known.name.push(' ')), []);
        assert_eq!(told(&|known| known.config = "{".repeat(100)), []);
        // What is large is read again.
        let config = Config { author: "x".repeat(LARGEST), ..Config::default() };
        let large = Image::assemble(config, Vec::new()).unwrap();
        first.know(Image { reference: Some("r.example/large".parse().unwrap()), ..large });
        assert_eq!(KnownImages::of(&first).images.len(), 1);
    }
}
