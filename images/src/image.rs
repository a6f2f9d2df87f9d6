//! An image: its manifest and configuration, with the exact bytes their digests were made of.

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::digest::Digest;
use crate::document::{Descriptor, Manifest, go_json, media};
use crate::reference::Reference;

/// An image, wherever it came from. Editing makes a new value.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The name it was found under.
    pub reference: Option<Reference>,
    /// Digest of the manifest.
    pub digest: Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// The manifest's exact text.
    pub manifest_bytes: Vec<u8>,
    /// The configuration.
    pub config: Config,
    /// The configuration's exact text.
    pub config_bytes: Vec<u8>,
}

/// One layer: where its compressed archive is, and what is inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The archive as stored.
    pub descriptor: Descriptor,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
}

/// Documents that do not make an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The manifest is no manifest.
    #[error("cannot read the manifest {digest}")]
    Manifest {
        /// The manifest.
        digest: Digest,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// The manifest's own media type contradicts its content.
    #[error("the manifest {digest} is of the kind `{kind}`, expected an image manifest")]
    Kind {
        /// The manifest.
        digest: Digest,
        /// Its media type.
        kind: String,
    },
    /// The configuration is no configuration.
    #[error("cannot read the image configuration {digest}")]
    Config {
        /// The configuration.
        digest: Digest,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// The configuration is not the one the manifest names.
    #[error("the image configuration is {found}, but its manifest names {expected}")]
    OtherConfig {
        /// As in the manifest.
        expected: Digest,
        /// As computed.
        found: Digest,
    },
    /// Manifest and configuration count layers differently.
    #[error("the manifest {digest} has {layers} layers, but its configuration has {diff_ids} diff ids")]
    LayerCount {
        /// The manifest.
        digest: Digest,
        /// Layers of the manifest.
        layers: usize,
        /// Layers of the configuration.
        diff_ids: usize,
    },
    /// A document cannot be written.
    #[error("cannot write the image's documents")]
    Write(#[source] serde_json::Error),
}

impl Image {
    /// An image from its two documents as received; digests are computed here, never taken on trust.
    ///
    /// # Errors
    ///
    /// When one cannot be read or the two contradict each other.
    pub fn from_bytes(
        reference: Option<Reference>,
        manifest_bytes: Vec<u8>,
        config_bytes: Vec<u8>,
    ) -> Result<Self, ImageError> {
        let (digest, manifest) = parse_manifest(&manifest_bytes)?;
        let found = Digest::of(&config_bytes);
        if found != manifest.config.digest {
            return Err(ImageError::OtherConfig { expected: manifest.config.digest, found });
        }
        let config: Config = serde_json::from_slice(&config_bytes)
            .map_err(|source| ImageError::Config { digest: found, source })?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(ImageError::LayerCount {
                digest,
                layers: manifest.layers.len(),
                diff_ids: config.rootfs.diff_ids.len(),
            });
        }
        Ok(Self { reference, digest, manifest, manifest_bytes, config, config_bytes })
    }

    /// Which configuration a manifest names: the other document for [`Image::from_bytes`].
    ///
    /// # Errors
    ///
    /// When it is no manifest of an image.
    pub fn config_of(manifest_bytes: &[u8]) -> Result<Descriptor, ImageError> {
        Ok(parse_manifest(manifest_bytes)?.1.config)
    }

    /// A new OCI image of this configuration and these layers; the configuration's diff ids become the layers'.
    ///
    /// Docker's media types become their OCI counterparts: a manifest of mixed kinds is refused by some readers.
    ///
    /// # Errors
    ///
    /// When a document cannot be written.
    pub fn assemble(mut config: Config, layers: Vec<Layer>) -> Result<Self, ImageError> {
        config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let config_bytes = go_json(&config).map_err(ImageError::Write)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::OCI_MANIFEST.to_owned(),
            config: Descriptor::new(media::OCI_CONFIG, Digest::of(&config_bytes), config_bytes.len() as u64),
            layers: layers.into_iter().map(|layer| oci_layer(layer.descriptor)).collect(),
            annotations: std::collections::BTreeMap::new(),
            other: std::collections::BTreeMap::new(),
        };
        let manifest_bytes = go_json(&manifest).map_err(ImageError::Write)?;
        let digest = Digest::of(&manifest_bytes);
        Ok(Self { reference: None, digest, manifest, manifest_bytes, config, config_bytes })
    }

    /// The layers, lowest first.
    #[must_use]
    pub fn layers(&self) -> Vec<Layer> {
        let layers = self.manifest.layers.iter().zip(&self.config.rootfs.diff_ids);
        layers
            .map(|(descriptor, diff_id)| Layer { descriptor: descriptor.clone(), diff_id: diff_id.clone() })
            .collect()
    }

    /// The manifest's media type; by the configuration's where an old OCI writer left it out.
    #[must_use]
    pub fn media_type(&self) -> &str {
        match self.manifest.media_type.as_str() {
            "" if self.manifest.config.media_type == media::DOCKER_CONFIG => media::DOCKER_MANIFEST,
            "" => media::OCI_MANIFEST,
            said => said,
        }
    }

    /// Points to the manifest.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type(), self.digest.clone(), self.manifest_bytes.len() as u64)
    }
}

/// Reads a manifest, refusing one that could also be read as an index.
pub(crate) fn parse_manifest(bytes: &[u8]) -> Result<(Digest, Manifest), ImageError> {
    let digest = Digest::of(bytes);
    let manifest: Manifest = serde_json::from_slice(bytes)
        .map_err(|source| ImageError::Manifest { digest: digest.clone(), source })?;
    let known = ["", media::OCI_MANIFEST, media::DOCKER_MANIFEST];
    if !known.contains(&manifest.media_type.as_str()) || manifest.other.contains_key("manifests") {
        return Err(ImageError::Kind { digest, kind: manifest.media_type });
    }
    Ok((digest, manifest))
}

fn oci_layer(mut descriptor: Descriptor) -> Descriptor {
    match descriptor.media_type.as_str() {
        media::DOCKER_LAYER_GZIP => descriptor.media_type = media::OCI_LAYER_GZIP.to_owned(),
        media::DOCKER_LAYER => descriptor.media_type = media::OCI_LAYER.to_owned(),
        _ => {}
    }
    descriptor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        let layer = Layer {
            descriptor: Descriptor::new(media::DOCKER_LAYER_GZIP, Digest::of("gz"), 2),
            diff_id: Digest::of("tar"),
        };
        let config = Config { architecture: "amd64".into(), os: "linux".into(), ..Config::default() };
        Image::assemble(config, vec![layer]).unwrap()
    }

    #[test]
    fn assembled_can_be_read_again() {
        let made = image();
        let read = Image::from_bytes(None, made.manifest_bytes.clone(), made.config_bytes.clone()).unwrap();
        assert_eq!(read, made);
        assert_eq!(read.layers()[0].diff_id, Digest::of("tar"));
        assert_eq!(read.layers()[0].descriptor.media_type, media::OCI_LAYER_GZIP);
    }

    #[test]
    fn contradictions() {
        let made = image();
        let other = Image::from_bytes(None, made.manifest_bytes.clone(), b"{}".to_vec());
        assert!(matches!(other, Err(ImageError::OtherConfig { .. })));
        let mut both: serde_json::Value = serde_json::from_slice(&made.manifest_bytes).unwrap();
        both["manifests"] = serde_json::json!([]);
        let both = Image::from_bytes(None, both.to_string().into_bytes(), made.config_bytes.clone());
        assert!(matches!(both, Err(ImageError::Kind { .. })));
        let mut fewer = made.manifest.clone();
        fewer.layers.clear();
        let fewer = Image::from_bytes(None, go_json(&fewer).unwrap(), made.config_bytes);
        assert!(matches!(fewer, Err(ImageError::LayerCount { layers: 0, diff_ids: 1, .. })));
    }

    /// A manifest for any text as configuration; `layers` as JSON.
    fn manifest(config: &[u8], layers: &str) -> Vec<u8> {
        let (digest, size) = (Digest::of(config), config.len());
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","size":{size},"digest":"{digest}"}},"layers":{layers}}}"#
        )
        .into_bytes()
    }

    #[test]
    fn t36_hostile_documents() {
        let read =
            |config: &[u8], layers: &str| Image::from_bytes(None, manifest(config, layers), config.to_vec());
        for depth in [1000, 1_000_000] {
            let bomb = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            let config = format!(r#"{{"config":{{"Labels":{bomb}}}}}"#);
            assert!(matches!(read(config.as_bytes(), "[]"), Err(ImageError::Config { .. })));
            assert!(matches!(read(b"{}", &bomb), Err(ImageError::Manifest { .. })));
        }
        let upper = Digest::of("x").to_string().to_uppercase();
        for digest in ["sha256:../../x", "sha512:00", "", "md5:d41d8cd98f00b204e9800998ecf8427e", &upper] {
            let layers = format!(r#"[{{"mediaType":"l","size":1,"digest":"{digest}"}}]"#);
            assert!(matches!(read(b"{}", &layers), Err(ImageError::Manifest { .. })), "{digest}");
        }
        for size in ["-1", "1.5", "18446744073709551616", "\"1\"", "null"] {
            let layers = format!(r#"[{{"mediaType":"l","size":{size},"digest":"{}"}}]"#, Digest::of("x"));
            assert!(matches!(read(b"{}", &layers), Err(ImageError::Manifest { .. })), "{size}");
        }
        // Strange, and allowed: layers twice and many of them, addresses nobody asks, a history of other layers.
        let digest = Digest::of("x");
        let layer =
            format!(r#"{{"mediaType":"l","size":1,"digest":"{digest}","urls":["http://localhost/"]}}"#);
        let list = |one: &str| format!("[{}]", vec![one; 500].join(","));
        let history = r#"[{"created_by":"a"},{"empty_layer":true}]"#;
        let diff_ids = list(&format!("\"{digest}\""));
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","history":{history},"rootfs":{{"type":"layers","diff_ids":{diff_ids}}}}}"#
        );
        let image = read(config.as_bytes(), &list(&layer)).unwrap();
        assert_eq!(image.layers().len(), 500);
    }
}
