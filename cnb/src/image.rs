//! What analyze and export write, and what the platform gives them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Bom, BuildpackLayers, Distro, LayerMetadata, LifecycleMetadata, Sha, StackRunImage};

/// `analyzed.toml` (Platform API, "analyzed.toml").
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Analyzed {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_image: Option<ImageReference>,
    /// The previous image; an empty reference says that there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageReference>,
    #[serde(default, serialize_with = "metadata_as_toml")]
    pub metadata: LifecycleMetadata,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_image: Option<RunImage>,
}

/// The keys of [`LifecycleMetadata`] are others in TOML than in the label.
fn metadata_as_toml<S: serde::Serializer>(
    metadata: &LifecycleMetadata,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let layer = |layer: &LayerMetadata| TomlLayer {
        sha: layer.sha.clone(),
        build: layer.build,
        launch: layer.launch,
        cache: layer.cache,
        metadata: crate::toml_of_json(&layer.data),
    };
    let buildpack = |buildpack: &BuildpackLayers| TomlBuildpack {
        key: buildpack.key.clone(),
        version: buildpack.version.clone(),
        layers: buildpack
            .layers
            .as_ref()
            .map(|layers| layers.iter().map(|(name, of)| (name.clone(), layer(of))).collect()),
        store: buildpack
            .store
            .as_ref()
            .map(|store| TomlStore { metadata: crate::toml_of_json(&store.metadata) }),
    };
    TomlMetadata {
        app: metadata.app.as_deref(),
        sbom: metadata.sbom.as_ref(),
        buildpacks: metadata.buildpacks.as_ref().map(|list| list.iter().map(buildpack).collect()),
        config: &metadata.config,
        launcher: &metadata.launcher,
        process_types: &metadata.process_types,
        run_image: TomlRunImage {
            top_layer: &metadata.run_image.top_layer,
            reference: &metadata.run_image.reference,
            image: &metadata.run_image.image,
            mirrors: &metadata.run_image.mirrors,
        },
        stack: metadata.stack.as_ref().map(|stack| TomlStack { run_image: &stack.run_image }),
    }
    .serialize(serializer)
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct TomlMetadata<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<&'a [Sha]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sbom: Option<&'a Sha>,
    #[serde(skip_serializing_if = "Option::is_none")]
    buildpacks: Option<Vec<TomlBuildpack>>,
    config: &'a Sha,
    launcher: &'a Sha,
    process_types: &'a Sha,
    run_image: TomlRunImage<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stack: Option<TomlStack<'a>>,
}

#[derive(Serialize)]
struct TomlBuildpack {
    key: String,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<BTreeMap<String, TomlLayer>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<TomlStore>,
}

#[derive(Serialize)]
struct TomlLayer {
    sha: String,
    build: bool,
    launch: bool,
    cache: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<toml::Value>,
}

#[derive(Serialize)]
struct TomlStore {
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<toml::Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct TomlRunImage<'a> {
    top_layer: &'a str,
    reference: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    image: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    mirrors: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct TomlStack<'a> {
    run_image: &'a StackRunImage,
}

/// An image by digest (or, in a daemon, by its id).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageReference {
    #[serde(default)]
    pub reference: String,
}

/// `[run-image]` of [`Analyzed`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunImage {
    #[serde(default)]
    pub reference: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub extend: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<RunImageTarget>,
}

/// What the run image runs on: `CNB_TARGET_*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunImageTarget {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub arch: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub arch_variant: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distro: Option<Distro>,
}

/// `run.toml` (Platform API, "run.toml").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunToml {
    #[serde(default)]
    pub images: Vec<RunImageEntry>,
}

/// `stack.toml`, which says before Platform API 0.12 what `run.toml` says since.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StackToml {
    #[serde(default)]
    pub run_image: RunImageEntry,
}

/// One run image with its mirrors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunImageEntry {
    #[serde(default)]
    pub image: String,
    #[serde(default, deserialize_with = "crate::nullable", skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
}

/// `report.toml` (Platform API, "report.toml").
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Before Platform API 0.9, where buildpacks wrote an unstructured bill of materials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<ReportBuild>,
    #[serde(default)]
    pub image: ReportImage,
}

/// `[build]` of a [`Report`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReportBuild {
    #[serde(default)]
    pub bom: Vec<Bom>,
}

/// `[image]` of a [`Report`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReportImage {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_size: Option<u64>,
}

/// `project-metadata.toml` and the label `io.buildpacks.project.metadata`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProjectMetadata {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ProjectSource>,
}

/// Where the application came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProjectSource {
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(
        default,
        deserialize_with = "crate::go_json::free_map",
        skip_serializing_if = "serde_json::Map::is_empty"
    )]
    pub version: serde_json::Map<String, serde_json::Value>,
    #[serde(
        default,
        deserialize_with = "crate::go_json::free_map",
        skip_serializing_if = "serde_json::Map::is_empty"
    )]
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn analyzed_reads_what_it_wrote() {
        let label = r#"{"app":[{"sha":"sha256:a"}],"buildpacks":[{"key":"a/one","version":"1","layers":{"x":{"sha":"s","data":{"data":"d","n":1.5},"build":false,"launch":true,"cache":false}},"store":{"metadata":{"k":"v"}}}],"config":{"sha":"c"},"launcher":{"sha":"l"},"process-types":{"sha":"p"},"runImage":{"topLayer":"t","reference":"r","image":"i"},"stack":{"runImage":{"image":"i"}}}"#;
        let metadata: LifecycleMetadata = crate::read_json("label", label).unwrap();
        assert_eq!(crate::write_json(&metadata).unwrap(), label);
        let analyzed = Analyzed {
            metadata,
            image: Some(ImageReference { reference: "x@y".into() }),
            ..Analyzed::default()
        };
        let text = crate::write_toml(&analyzed).unwrap();
        assert!(text.contains("[metadata.buildpacks.layers.x.metadata]"), "{text}");
        assert!(text.contains("top-layer = \"t\""), "{text}");
        assert_eq!(crate::read_toml::<Analyzed>("analyzed.toml", &text).unwrap(), analyzed);
    }
}
