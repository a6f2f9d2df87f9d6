//! What buildpacks write at build, and what is composed of it for export and launch.

use serde::{Deserialize, Serialize};

use crate::go_toml_serializer::ESCAPED;
use crate::go_values::go_text;
use crate::{BuildpackId, GroupElement, ProcessType};

/// `launch.toml` (Buildpack API, "launch.toml").
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct LaunchToml {
    #[serde(default)]
    pub labels: Vec<Label>,
    #[serde(default)]
    pub processes: Vec<Process>,
    #[serde(default)]
    pub slices: Vec<Slice>,
    #[serde(default)]
    pub bom: Vec<Bom>,
}

/// A label for the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    #[serde(default)]
    pub key: String,
    #[serde(default)]
    pub value: String,
}

/// Paths of the application that get a layer of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    #[serde(default)]
    pub paths: Vec<String>,
}

/// An entry of the unstructured bill of materials, which came before files in known formats.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Bom {
    #[serde(default)]
    pub name: String,
    /// Belongs into the metadata since Buildpack API 0.7.
    #[serde(default, skip_serializing)]
    pub version: String,
    /// Absent and empty are told apart: labels say `null` or `{}`.
    #[serde(default, deserialize_with = "crate::free_table", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<toml::Table>,
    /// Whose it is: not for the buildpack to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buildpack: Option<BomBuildpack>,
}

/// The buildpack that an entry of the unstructured bill of materials is of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BomBuildpack {
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub version: String,
}

/// A command, written with `<`, `>` and `&` escaped in TOML as the reference does: text until Buildpack API 0.8 (and Platform API 0.9), a list since.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Command {
    Text(String),
    List(Vec<String>),
    /// Not all are text. Within `metadata.toml` they are taken for text, within `launch.toml` they are an error.
    Mixed(#[serde(deserialize_with = "as_texts")] Vec<String>),
}

fn as_texts<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let values = Vec::<toml::Value>::deserialize(deserializer)?;
    Ok(values.iter().map(go_text).collect())
}

impl Default for Command {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Serialize for Command {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_newtype_struct(ESCAPED, text),
            Self::List(words) | Self::Mixed(words) => serializer.serialize_newtype_struct(ESCAPED, words),
        }
    }
}

impl Command {
    /// The words of the command; text is one word, even if it is empty.
    pub fn words(&self) -> Vec<String> {
        match self {
            Self::Text(text) => vec![text.clone()],
            Self::List(words) | Self::Mixed(words) => words.clone(),
        }
    }
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A process of `launch.toml` or `config/metadata.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Process {
    #[serde(default, rename = "type")]
    pub kind: ProcessType,
    #[serde(default)]
    pub command: Command,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// Absent means: direct since Buildpack API 0.9, by a shell before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<bool>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub default: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buildpack_id: Option<BuildpackId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exec_env: Vec<String>,
}

/// `build.toml` (Buildpack API, "build.toml").
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct BuildToml {
    #[serde(default)]
    pub unmet: Vec<Unmet>,
    #[serde(default)]
    pub bom: Vec<Bom>,
}

/// A plan entry that a buildpack leaves to later ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Unmet {
    #[serde(default)]
    pub name: String,
}

/// `store.toml`: what a buildpack keeps between builds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StoreToml {
    /// Absent and empty are told apart: labels say `null` or `{}`.
    #[serde(default, deserialize_with = "crate::free_table", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<toml::Table>,
}

/// `<layer>.toml` (Buildpack API, "Layer Content Metadata").
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerToml {
    #[serde(default)]
    pub types: LayerTypes,
    /// Anything. Absent and empty are told apart: labels say `null` or `{}`.
    #[serde(default)]
    pub metadata: Option<toml::Value>,
    /// Keys of the form before Buildpack API 0.6, which are an error now.
    #[serde(default, skip_serializing)]
    pub launch: Option<toml::Value>,
    #[serde(default, skip_serializing)]
    pub build: Option<toml::Value>,
    #[serde(default, skip_serializing)]
    pub cache: Option<toml::Value>,
    /// Of ours alone; other lifecycles pass it over.
    #[serde(default, skip_serializing)]
    pub coracle: OwnLayerKeys,
}

/// `[coracle]` of `<layer>.toml`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct OwnLayerKeys {
    /// Whether later buildpacks may change the layer.
    #[serde(default)]
    pub shared: bool,
}

impl LayerToml {
    /// Whether the flags stand at the top, as before Buildpack API 0.6.
    pub fn has_old_flags(&self) -> bool {
        self.launch.is_some() || self.build.is_some() || self.cache.is_some()
    }
}

/// What a layer is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerTypes {
    #[serde(default)]
    pub launch: bool,
    #[serde(default)]
    pub build: bool,
    #[serde(default)]
    pub cache: bool,
}

/// `<layers>/config/metadata.toml` (Platform API, "metadata.toml").
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Before Platform API 0.9.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bom: Vec<Bom>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buildpacks: Vec<GroupElement>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<GroupElement>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Label>,
    /// Written even when there is none: the file becomes a layer, whose digest is compared with the reference's.
    #[serde(default)]
    pub processes: Vec<Process>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<Slice>,
    #[serde(default, rename = "buildpack-default-process-type", skip_serializing_if = "String::is_empty")]
    pub buildpack_default_process_type: String,
}
