//! The documents of the Cloud Native Buildpacks specification, as types.
//!
//! No input or output happens here: a caller reads a file and hands over its text. What is written is written in the
//! reference lifecycle's own layout ([`write_toml`], [`write_json`]), because one of the documents
//! (`config/metadata.toml`) becomes an image layer whose digest should not depend on which lifecycle wrote it.

mod build;
mod go_decode;
mod go_json;
mod go_toml;
mod go_toml_serializer;
mod go_values;
mod group;
mod ids;
mod image;
mod labels;

use go_decode::AsGo;

pub use build::{
    Bom, BomBuildpack, BuildToml, Command, Label, LaunchToml, LayerToml, LayerTypes, Metadata, OwnLayerKeys,
    Process, Slice, StoreToml, Unmet,
};
pub use go_json::{json_of_toml, toml_of_json, write_json};
pub use go_toml::write_toml;
pub use group::{
    BuildPlan, BuildpackInfo, BuildpackToml, Distro, Entry, ExtensionToml, Group, GroupElement, License,
    Order, OrderGroup, Plan, PlanSections, Provide, Provider, Require, Stack, System, SystemBuildpacks,
    SystemToml, Target,
};
pub use ids::{ApiVersion, BuildpackId, IdError, ProcessType};
pub use image::{
    Analyzed, ImageReference, ProjectMetadata, ProjectSource, Report, ReportBuild, ReportImage, RunImage,
    RunImageEntry, RunImageTarget, RunToml, StackToml,
};
pub use labels::{
    BuildMetadata, BuildMetadataBom, BuildMetadataBuildpack, BuildMetadataProcess, BuilderMetadata,
    BuildpackLayers, CacheMetadata, LayerMetadata, LifecycleMetadata, MetadataRunImage, MetadataStack, Sha,
    StackRunImage, StoreMetadata,
};

/// Why a document could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The text is not the document it should be.
    #[error("parse {document}")]
    Parse {
        /// Which document: a file name of the specification.
        document: &'static str,
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The label is not the JSON it should be.
    #[error("parse label {label}")]
    ParseLabel {
        /// The label's key.
        label: &'static str,
        #[source]
        source: serde_json::Error,
    },
    /// The value has no form in TOML.
    #[error("write as TOML: {0}")]
    Write(String),
    /// The value has no form in JSON.
    #[error("write as JSON")]
    WriteJson(#[source] serde_json::Error),
}

/// Reads a TOML document; `document` names it in the error.
pub fn read_toml<T: serde::de::DeserializeOwned>(
    document: &'static str,
    text: &str,
) -> Result<T, DocumentError> {
    toml::Deserializer::parse(text)
        .and_then(|deserializer| T::deserialize(AsGo(deserializer)))
        .map_err(|source| DocumentError::Parse { document, source: Box::new(source) })
}

/// Reads a label's JSON; `label` names it in the error.
pub fn read_json<T: serde::de::DeserializeOwned>(
    label: &'static str,
    text: &str,
) -> Result<T, DocumentError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    T::deserialize(AsGo(&mut deserializer))
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|source| DocumentError::ParseLabel { label, source })
}

/// `io.buildpacks.lifecycle.metadata`: see [`LifecycleMetadata`].
pub const LIFECYCLE_METADATA_LABEL: &str = "io.buildpacks.lifecycle.metadata";
/// `io.buildpacks.build.metadata`: see [`BuildMetadata`].
pub const BUILD_METADATA_LABEL: &str = "io.buildpacks.build.metadata";
/// `io.buildpacks.project.metadata`: see [`ProjectMetadata`].
pub const PROJECT_METADATA_LABEL: &str = "io.buildpacks.project.metadata";
/// `io.buildpacks.builder.metadata`: see [`BuilderMetadata`].
pub const BUILDER_METADATA_LABEL: &str = "io.buildpacks.builder.metadata";
/// The label, and the file name, of the cache's [`CacheMetadata`].
pub const CACHE_METADATA_LABEL: &str = "io.buildpacks.lifecycle.cache.metadata";

/// A table of any content. The reference takes everything else for no table at all, rather than for an error.
pub(crate) fn free_table<'de, D>(deserializer: D) -> Result<Option<toml::Table>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    match <toml::Value as serde::Deserialize>::deserialize(deserializer)? {
        toml::Value::Table(table) => Ok(Some(table)),
        _ => Ok(None),
    }
}

/// Go writes an empty list as `null`.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + serde::Deserialize<'de>,
{
    Ok(<Option<T> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}
