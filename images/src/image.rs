//! An image: its manifest and configuration, with the exact bytes their digests were made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::Config;
use crate::digest::Digest;
use crate::document::{Descriptor, Index, Manifest, go_json, media};
use crate::limits;
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
    /// One document that two readers would take for two things.
    #[error("the manifest {digest} also has `{member}`, as if it were something else; refused")]
    Ambiguous {
        /// The manifest.
        digest: Digest,
        /// What gives it away.
        member: String,
    },
    /// A document longer than any should be.
    #[error("the {what} {digest} has {found} bytes, more than the limit of {limit}")]
    TooLong {
        /// Which document.
        what: &'static str,
        /// The document.
        digest: Digest,
        /// Its length.
        found: u64,
        /// What is allowed.
        limit: u64,
    },
    /// More layers than a root filesystem can be put together of.
    #[error("the manifest {digest} has {found} layers, more than the limit of {limit}")]
    Layers {
        /// The manifest.
        digest: Digest,
        /// How many there are.
        found: usize,
        /// What is allowed.
        limit: usize,
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
        check_length("image configuration", &found, &config_bytes, limits::CONFIG)?;
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
            annotations: BTreeMap::new(),
            other: BTreeMap::new(),
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

/// What a manifest's digest leads to.
pub(crate) enum Document {
    Manifest(Digest, Box<Manifest>),
    Index(Index),
}

/// Reads a manifest or an index, refusing what could be read as either.
pub(crate) fn parse_document(bytes: &[u8]) -> Result<Document, ImageError> {
    let digest = Digest::of(bytes);
    check_length("manifest", &digest, bytes, limits::MANIFEST)?;
    let unread = |source| ImageError::Manifest { digest: digest.clone(), source };
    let members: Map<String, Value> = serde_json::from_slice(bytes).map_err(unread)?;
    let kind = members.get("mediaType").and_then(Value::as_str).unwrap_or_default().to_owned();
    let has = |name: &str| members.contains_key(name);
    let listed = kind.is_empty() && has("manifests") && !has("config");
    if listed || [media::OCI_INDEX, media::DOCKER_INDEX].contains(&kind.as_str()) {
        refuse_members(&digest, &members, &["schemaVersion", "mediaType", "manifests", "annotations"])?;
        return Ok(Document::Index(serde_json::from_slice(bytes).map_err(unread)?));
    }
    if !["", media::OCI_MANIFEST, media::DOCKER_MANIFEST].contains(&kind.as_str()) {
        return Err(ImageError::Kind { digest, kind });
    }
    refuse_members(&digest, &members, &["schemaVersion", "mediaType", "config", "layers", "annotations"])?;
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(unread)?;
    if manifest.layers.len() > limits::LAYERS {
        return Err(ImageError::Layers { digest, found: manifest.layers.len(), limit: limits::LAYERS });
    }
    Ok(Document::Manifest(digest, Box::new(manifest)))
}

/// As [`parse_document`], where there can be no index.
pub(crate) fn parse_manifest(bytes: &[u8]) -> Result<(Digest, Manifest), ImageError> {
    match parse_document(bytes)? {
        Document::Manifest(digest, manifest) => Ok((digest, *manifest)),
        Document::Index(index) => Err(ImageError::Kind { digest: Digest::of(bytes), kind: index.media_type }),
    }
}

/// Members that make other documents of one (CVE-2021-41190), and those that only readers see who pass over case.
fn refuse_members(digest: &Digest, members: &Map<String, Value>, own: &[&str]) -> Result<(), ImageError> {
    let telling = ["schemaVersion", "mediaType", "config", "layers", "manifests", "annotations", "fsLayers"];
    let strange = |name: &&String| {
        !own.contains(&name.as_str()) && telling.iter().any(|t| t.eq_ignore_ascii_case(name))
    };
    match members.keys().find(strange) {
        Some(member) => Err(ImageError::Ambiguous { digest: digest.clone(), member: member.clone() }),
        None => Ok(()),
    }
}

fn check_length(what: &'static str, digest: &Digest, bytes: &[u8], limit: u64) -> Result<(), ImageError> {
    let found = bytes.len() as u64;
    if found > limit {
        return Err(ImageError::TooLong { what, digest: digest.clone(), found, limit });
    }
    Ok(())
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
mod tests;
