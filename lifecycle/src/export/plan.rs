//! What the image will be, before a byte of it is packed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use coracle_cnb::{
    BuildMetadata, BuildMetadataBom, BuildMetadataBuildpack, BuildMetadataProcess, GroupElement, write_json,
};

use super::bills::Bills;
use super::found::{Found, FoundBuildpack, FoundLayer};
use super::slices::slice;
use crate::api::{LEGACY_BOM_FILES, SBOM_FILES};

use super::{ExportError, ExportInput, is_reserved};
use crate::cache::saving::Cached;

/// Where the content of a layer comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerSource {
    /// An extender, by the layer's place among those that it made.
    Extension(usize),
    /// A folder of a buildpack, by the buildpack's place in the group.
    Buildpack { buildpack: usize, layer: String },
    /// The previous image: the build left no folder.
    Previous { buildpack: usize, layer: String, diff_id: String },
    /// The bills of materials.
    Sbom,
    /// Paths of the application.
    App(Vec<PathBuf>),
    /// The program that starts processes.
    Launcher,
    /// What that program reads.
    Config,
    /// A link for each process.
    ProcessTypes,
}

/// A layer to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedLayer {
    pub source: LayerSource,
    /// As logs name it; layers of the application have no name.
    pub name: String,
    /// `created_by` of its history.
    pub created_by: String,
}

impl PlannedLayer {
    /// Whether this is a layer of the cache, too.
    pub(crate) fn is(&self, cached: &Cached<'_>) -> bool {
        matches!(&self.source, LayerSource::Buildpack { buildpack, layer } if cached.is(*buildpack, layer))
    }
}

/// What the image gets on top of the run image.
#[derive(Debug)]
pub struct ExportPlan {
    /// Lowest first.
    pub layers: Vec<PlannedLayer>,
    /// All but the label that names the layers' digests.
    pub labels: BTreeMap<String, String>,
    /// Labels that buildpacks asked for and do not get.
    pub refused_labels: Vec<String>,
    pub env: Vec<(String, String)>,
    pub entrypoint: Vec<String>,
}

impl ExportPlan {
    /// Plans an image. Pure.
    pub fn new(input: &ExportInput<'_>, found: &Found) -> Result<Self, ExportError> {
        let asked = input.metadata.labels.iter().map(|label| label.key.clone());
        Ok(Self {
            layers: layers(input, found)?,
            labels: labels(input)?,
            refused_labels: asked.filter(|label| is_reserved(label)).collect(),
            env: env(input),
            entrypoint: vec![entrypoint(input)?],
        })
    }
}

fn layers(input: &ExportInput<'_>, found: &Found) -> Result<Vec<PlannedLayer>, ExportError> {
    let mut layers = Vec::new();
    let mut add = |source, name: String, created_by: String| {
        layers.push(PlannedLayer { source, name, created_by });
    };
    for (place, layer) in input.extended.iter().flat_map(|extended| &extended.layers).enumerate() {
        add(LayerSource::Extension(place), layer.name.clone(), layer.created_by.clone());
    }
    for (place, buildpack) in found.buildpacks.iter().enumerate() {
        for layer in buildpack.layers.iter().filter(|layer| layer.toml.types.launch) {
            let created_by =
                format!("Layer: '{}', Created by buildpack: {}", layer.name, buildpack.element.name());
            let name = format!("{}:{}", buildpack.element.id, layer.name);
            add(source(input, buildpack, place, layer)?, name, created_by);
        }
    }
    let own_bills = input.bills.is_some_and(Bills::are_in_image);
    if (found.sbom || own_bills) && input.platform_api >= SBOM_FILES {
        add(LayerSource::Sbom, own("launch.sbom"), "Software Bill-of-Materials".to_owned());
    }
    let slices = slice(&found.app, &input.metadata.slices)?;
    let sliced = slices.len() > 1;
    for (index, paths) in slices.into_iter().enumerate() {
        let created_by =
            if sliced { format!("Application Slice: {}", index + 1) } else { "Application Layer".to_owned() };
        add(LayerSource::App(paths), String::new(), created_by);
    }
    add(LayerSource::Launcher, own("launcher"), "Buildpacks Application Launcher".to_owned());
    add(LayerSource::Config, own("config"), "Buildpacks Launcher Config".to_owned());
    if !input.metadata.processes.is_empty() {
        input.metadata.processes.iter().try_for_each(|process| process.kind.fits())?;
        add(LayerSource::ProcessTypes, own("process-types"), "Buildpacks Process Types".to_owned());
    }
    Ok(layers)
}

/// The name of a layer that no buildpack made, as people look for it in logs.
fn own(layer: &str) -> String {
    format!("buildpacksio/lifecycle:{layer}")
}

fn source(
    input: &ExportInput<'_>,
    buildpack: &FoundBuildpack,
    place: usize,
    found: &FoundLayer,
) -> Result<LayerSource, ExportError> {
    let (name, layer) = (buildpack.element.name(), found.name.clone());
    if found.has_folder {
        return Ok(LayerSource::Buildpack { buildpack: place, layer });
    }
    if found.toml.types.cache {
        return Err(ExportError::CachedWithoutFolder { name, layer });
    }
    let known = input.analyzed.metadata.buildpacks.iter().flatten();
    let known = known.filter(|known| known.key == buildpack.element.id.as_str());
    let sha = known.filter_map(|known| known.layer(&layer)).map(|known| known.sha.clone()).next();
    match sha {
        Some(diff_id) => Ok(LayerSource::Previous { buildpack: place, layer, diff_id }),
        None => Err(ExportError::Unknown { name, layer }),
    }
}

fn labels(input: &ExportInput<'_>) -> Result<BTreeMap<String, String>, ExportError> {
    let own = |element: &GroupElement| BuildMetadataBuildpack {
        id: element.id.to_string(),
        version: element.version.clone(),
        homepage: element.homepage.clone(),
    };
    let processes = input.metadata.processes.iter().map(|process| BuildMetadataProcess {
        kind: process.kind.to_string(),
        command: process.command.clone(),
        args: process.args.clone(),
        direct: process.direct.unwrap_or_default(),
        buildpack_id: process.buildpack_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        working_dir: process.working_dir.clone().unwrap_or_default(),
        exec_env: process.exec_env.clone(),
    });
    let build = BuildMetadata {
        bom: (input.platform_api < LEGACY_BOM_FILES).then(|| BuildMetadataBom::new(&input.metadata.bom)),
        buildpacks: input.metadata.buildpacks.iter().map(own).collect(),
        extensions: input.metadata.extensions.iter().map(own).collect(),
        launcher: input.launcher.metadata.clone(),
        processes: Some(processes.collect()),
        buildpack_default_process_type: input.metadata.buildpack_default_process_type.clone(),
    };
    let text = |label: &'static str, json: Result<String, _>| {
        json.map(|json| (label.to_owned(), json)).map_err(|source| ExportError::Label { label, source })
    };
    let asked = input.metadata.labels.iter().filter(|label| !is_reserved(&label.key));
    let mut labels: BTreeMap<String, String> =
        asked.map(|label| (label.key.clone(), label.value.clone())).collect();
    labels.extend([
        text(coracle_cnb::BUILD_METADATA_LABEL, write_json(&build))?,
        text(coracle_cnb::PROJECT_METADATA_LABEL, write_json(input.project))?,
    ]);
    if let Some(exec_env) = input.exec_env {
        labels.insert("io.buildpacks.exec-env".to_owned(), exec_env.to_owned());
    }
    Ok(labels)
}

fn env(input: &ExportInput<'_>) -> Vec<(String, String)> {
    let below = input.base.config.env("PATH").map(|path| format!(":{path}")).unwrap_or_default();
    [
        ("CNB_LAYERS_DIR", input.layers_path),
        ("CNB_APP_DIR", input.app_path),
        ("CNB_PLATFORM_API", &input.platform_api.to_string()),
        ("CNB_DEPRECATION_MODE", "quiet"),
        ("PATH", &format!("/cnb/process:/cnb/lifecycle{below}")),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

fn entrypoint(input: &ExportInput<'_>) -> Result<String, ExportError> {
    let kinds = || input.metadata.processes.iter().map(|process| process.kind.as_str());
    match input.process_type {
        Some(wanted) if !kinds().any(|kind| kind == wanted) => {
            let known = kinds().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none".to_owned() } else { known };
            Err(ExportError::UnknownProcess { wanted: wanted.to_owned(), known })
        }
        Some(wanted) => Ok(format!("/cnb/process/{wanted}")),
        None => Ok(match input.metadata.buildpack_default_process_type.as_str() {
            "" => "/cnb/lifecycle/launcher".to_owned(),
            kind => format!("/cnb/process/{kind}"),
        }),
    }
}
