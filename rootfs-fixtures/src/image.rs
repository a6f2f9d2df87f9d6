//! Images written by hand: configuration, manifest, OCI layout.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::layer::{Layer, digest};

/// Whose names the documents carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaTypes {
    /// `application/vnd.oci.image.*`
    Oci,
    /// `application/vnd.docker.distribution.*`, schema 2
    Docker,
}

/// How layers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
    /// One frame with a window of 64 MiB.
    ZstdLarge,
}

/// An image in memory.
#[derive(Debug, Clone)]
pub struct Image {
    pub layers: Vec<Layer>,
    pub env: Vec<(String, String)>,
    pub labels: BTreeMap<String, String>,
    pub user: String,
    pub working_dir: String,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub os: String,
    pub architecture: String,
    pub media_types: MediaTypes,
    pub compression: Compression,
}

impl Image {
    /// An OCI image for linux/amd64 with these layers, compressed with gzip.
    pub fn new(layers: Vec<Layer>) -> Self {
        Self {
            layers,
            env: Vec::new(),
            labels: BTreeMap::new(),
            user: String::new(),
            working_dir: String::new(),
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            media_types: MediaTypes::Oci,
            compression: Compression::Gzip,
        }
    }

    /// Adds a variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a label.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets the user, as `UID:GID` or a name.
    pub fn user(mut self, user: &str) -> Self {
        self.user = user.to_owned();
        self
    }

    /// Stores layers so.
    pub fn compressed(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Uses Docker's media types.
    pub fn docker(mut self) -> Self {
        self.media_types = MediaTypes::Docker;
        self
    }

    /// The image configuration (OCI image specification, "Image Configuration").
    pub fn config_bytes(&self) -> Vec<u8> {
        let env: Vec<String> = self.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let diff_ids: Vec<String> = self.layers.iter().map(Layer::diff_id).collect();
        let history: Vec<Value> = (0..self.layers.len())
            .map(|n| json!({"created": "1980-01-01T00:00:01Z", "created_by": format!("fixture layer {n}")}))
            .collect();
        let mut config = json!({ "Env": env, "Labels": self.labels });
        for (key, text) in [("User", &self.user), ("WorkingDir", &self.working_dir)] {
            if !text.is_empty() {
                config[key] = json!(text);
            }
        }
        for (key, list) in [("Entrypoint", &self.entrypoint), ("Cmd", &self.cmd)] {
            if !list.is_empty() {
                config[key] = json!(list);
            }
        }
        encode(&json!({
            "architecture": self.architecture,
            "os": self.os,
            "created": "1980-01-01T00:00:01Z",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": history,
        }))
    }

    /// The layers as they are stored.
    pub fn layer_blobs(&self) -> Vec<Vec<u8>> {
        self.layers.iter().map(|layer| compress(layer.tar(), self.compression)).collect()
    }

    /// The manifest (OCI image specification, "Image Manifest").
    pub fn manifest_bytes(&self) -> Vec<u8> {
        self.manifest_of(&self.layer_blobs())
    }

    fn manifest_of(&self, blobs: &[Vec<u8>]) -> Vec<u8> {
        let (manifest, config, layer) = match self.media_types {
            MediaTypes::Oci => (
                "application/vnd.oci.image.manifest.v1+json",
                "application/vnd.oci.image.config.v1+json",
                match self.compression {
                    Compression::None => "application/vnd.oci.image.layer.v1.tar",
                    Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
                    Compression::Zstd | Compression::ZstdLarge => {
                        "application/vnd.oci.image.layer.v1.tar+zstd"
                    }
                },
            ),
            MediaTypes::Docker => (
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
                match self.compression {
                    Compression::None => "application/vnd.docker.image.rootfs.diff.tar",
                    Compression::Gzip => "application/vnd.docker.image.rootfs.diff.tar.gzip",
                    Compression::Zstd | Compression::ZstdLarge => {
                        panic!("Docker has no name for layers of zstd")
                    }
                },
            ),
        };
        let layers: Vec<Value> = blobs.iter().map(|blob| descriptor(layer, blob)).collect();
        encode(&json!({
            "schemaVersion": 2,
            "mediaType": manifest,
            "config": descriptor(config, &self.config_bytes()),
            "layers": layers,
        }))
    }

    /// What an index says of the manifest.
    pub(crate) fn descriptor(&self) -> Value {
        let media_type = match self.media_types {
            MediaTypes::Oci => "application/vnd.oci.image.manifest.v1+json",
            MediaTypes::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        };
        descriptor(media_type, &self.manifest_bytes())
    }

    /// The digest of the manifest.
    pub fn digest(&self) -> String {
        digest(&self.manifest_bytes())
    }

    /// Writes an OCI layout whose index has this image under `tag` (OCI image specification, "Image Layout").
    pub fn write_layout(&self, folder: &Path, tag: &str) {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap_or_else(|error| panic!("create {}: {error}", blobs.display()));
        let layers = self.layer_blobs();
        let manifest = self.manifest_of(&layers);
        let mut entry = self.descriptor();
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        entry["platform"] = json!({ "os": self.os, "architecture": self.architecture });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        });
        for blob in layers.into_iter().chain([self.config_bytes(), manifest]) {
            write(&blobs.join(digest(&blob).trim_start_matches("sha256:")), &blob);
        }
        write(&folder.join("oci-layout"), &encode(&json!({ "imageLayoutVersion": "1.0.0" })));
        write(&folder.join("index.json"), &encode(&index));
    }

    /// Writes the folder that `skopeo` calls `dir:`, which takes manifests of both kinds.
    pub(crate) fn write_dir(&self, folder: &Path) {
        let layers = self.layer_blobs();
        write(&folder.join("version"), b"Directory Transport Version: 1.1\n");
        write(&folder.join("manifest.json"), &self.manifest_of(&layers));
        for blob in layers.into_iter().chain([self.config_bytes()]) {
            write(&folder.join(digest(&blob).trim_start_matches("sha256:")), &blob);
        }
    }
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(blob), "size": blob.len() })
}

fn encode(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("a JSON value encodes")
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}

fn compress(tar: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => tar.to_vec(),
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(tar).and_then(|()| encoder.finish()).expect("compress to memory")
        }
        Compression::Zstd => zstd::encode_all(tar, 1).expect("compress to memory"),
        Compression::ZstdLarge => {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("compress to memory");
            encoder.window_log(26).expect("64 MiB are a window");
            encoder.write_all(tar).expect("compress to memory");
            encoder.finish().expect("compress to memory")
        }
    }
}
