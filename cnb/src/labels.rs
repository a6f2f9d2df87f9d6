//! The labels of application images, builders and caches.
//!
//! The same metadata stands in `analyzed.toml` under other names, so a few keys have two spellings: labels are JSON in
//! camel case, TOML has dashes. Reading takes both; [`LifecycleMetadata`] is written as JSON by its own `Serialize` and as TOML within
//! [`crate::Analyzed`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Bom, BomBuildpack, json_of_toml};

/// `io.buildpacks.lifecycle.metadata`: every layer of the image by diff id.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LifecycleMetadata {
    #[serde(default)]
    pub app: Option<Vec<Sha>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sbom: Option<Sha>,
    #[serde(default)]
    pub buildpacks: Option<Vec<BuildpackLayers>>,
    #[serde(default)]
    pub config: Sha,
    #[serde(default)]
    pub launcher: Sha,
    #[serde(default, rename = "process-types")]
    pub process_types: Sha,
    #[serde(default, rename = "runImage", alias = "run-image")]
    pub run_image: MetadataRunImage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<MetadataStack>,
}

/// A layer by its diff id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sha {
    #[serde(default)]
    pub sha: String,
}

/// The layers of one buildpack.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BuildpackLayers {
    pub key: String,
    #[serde(default)]
    pub version: String,
    /// By name. Nothing, in JSON `null`, is not the same as no layers.
    #[serde(default)]
    pub layers: Option<BTreeMap<String, LayerMetadata>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreMetadata>,
}

impl BuildpackLayers {
    /// The layer of this name.
    pub fn layer(&self, name: &str) -> Option<&LayerMetadata> {
        self.layers.as_ref()?.get(name)
    }
}

/// One layer of a buildpack.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerMetadata {
    #[serde(default)]
    pub sha: String,
    #[serde(default, alias = "metadata")]
    pub data: Value,
    #[serde(default)]
    pub build: bool,
    #[serde(default)]
    pub launch: bool,
    #[serde(default)]
    pub cache: bool,
}

/// What a buildpack keeps between builds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StoreMetadata {
    #[serde(default)]
    pub metadata: Value,
}

/// The run image under the application.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataRunImage {
    #[serde(default, rename = "topLayer", alias = "top-layer")]
    pub top_layer: String,
    #[serde(default)]
    pub reference: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    #[serde(default, deserialize_with = "crate::nullable", skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
}

/// The run image as tools before Platform API 0.12 look for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataStack {
    #[serde(default, rename = "runImage", alias = "run-image")]
    pub run_image: StackRunImage,
}

/// Name and mirrors of a run image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackRunImage {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    #[serde(default, deserialize_with = "crate::nullable", skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
}

/// `io.buildpacks.build.metadata`: who built the image, and its processes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BuildMetadata {
    /// Before Platform API 0.9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bom: Option<BuildMetadataBom>,
    #[serde(default)]
    pub buildpacks: Vec<BuildMetadataBuildpack>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<BuildMetadataBuildpack>,
    #[serde(default)]
    pub launcher: Value,
    #[serde(default)]
    pub processes: Option<Vec<BuildMetadataProcess>>,
    #[serde(default, rename = "buildpack-default-process-type", skip_serializing_if = "String::is_empty")]
    pub buildpack_default_process_type: String,
}

/// The unstructured bill of materials as JSON has it; `null` where it is empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BuildMetadataBom(Option<Vec<BuildMetadataBomEntry>>);

/// An entry of [`BuildMetadataBom`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct BuildMetadataBomEntry {
    #[serde(default)]
    name: String,
    #[serde(default)]
    metadata: Value,
    #[serde(default)]
    buildpack: BomBuildpack,
}

impl BuildMetadataBom {
    /// The JSON of these entries.
    pub fn new(bom: &[Bom]) -> Self {
        let entry = |bom: &Bom| BuildMetadataBomEntry {
            name: bom.name.clone(),
            metadata: bom
                .metadata
                .clone()
                .map(toml::Value::Table)
                .as_ref()
                .map(json_of_toml)
                .unwrap_or_default(),
            buildpack: bom.buildpack.clone().unwrap_or_default(),
        };
        Self((!bom.is_empty()).then(|| bom.iter().map(entry).collect()))
    }
}

/// A buildpack as [`BuildMetadata`] names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildMetadataBuildpack {
    pub id: String,
    #[serde(default)]
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub homepage: Option<String>,
}

/// A process as [`BuildMetadata`] names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildMetadataProcess {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub command: crate::Command,
    #[serde(default)]
    pub args: Option<Vec<String>>,
    #[serde(default)]
    pub direct: bool,
    #[serde(default, rename = "buildpackID")]
    pub buildpack_id: String,
    #[serde(default, rename = "working-dir", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(default, rename = "exec-env", skip_serializing_if = "Vec::is_empty")]
    pub exec_env: Vec<String>,
}

/// `io.buildpacks.lifecycle.cache.metadata`: the layers of a cache.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheMetadata {
    #[serde(default)]
    pub sbom: Sha,
    #[serde(default)]
    pub buildpacks: Vec<BuildpackLayers>,
}

/// `io.buildpacks.builder.metadata`: what a builder says of itself; unknown keys are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BuilderMetadata {
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub stack: MetadataStack,
    #[serde(default, deserialize_with = "crate::nullable")]
    pub images: Vec<crate::RunImageEntry>,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}
