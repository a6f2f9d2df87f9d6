//! The plan, carried out.

use std::collections::BTreeMap;

use coracle_cnb::{
    BuildpackLayers, LayerMetadata, LifecycleMetadata, MetadataRunImage, MetadataStack, RunImage,
    RunImageEntry, RunToml, Sha, StackRunImage, StoreMetadata, json_of_toml, write_json,
};
use coracle_images::{Digest, History, Image, Layer, Reference};

use crate::api::TARGETS;

use super::outbox::{LayerError, Origin, layer_of};
use super::pack::pack;
use super::{ExportError, ExportInput, ExportPlan, Exported, Found, LayerSource, Outbox, Step};

/// Packs the image's layers into the outbox, and says what the image is. `tell` hears of every step.
pub fn export(
    input: &ExportInput<'_>,
    outbox: &mut Outbox,
    tell: &mut dyn FnMut(Step),
) -> Result<Exported, ExportError> {
    if !input.group.group_extensions.is_empty() {
        return Err(ExportError::Extensions);
    }
    let found = Found::read(input.group, input.layers_dir, input.app_dir)?;
    let plan = ExportPlan::new(input, &found)?;
    let mut layers = input.base.layers();
    let mut metadata = start(input, &found);
    let mut app = (0, 0);
    for planned in &plan.layers {
        let (layer, origin) = match &planned.source {
            LayerSource::Previous { diff_id, layer, buildpack } => {
                let digest: Digest =
                    diff_id.parse().map_err(|source| ExportError::Digest { layer: layer.clone(), source })?;
                let name = found.buildpacks[*buildpack].element.name();
                let known = input.previous.and_then(|image| layer_of(image, &digest));
                (known.ok_or_else(|| ExportError::Unknown { name, layer: layer.clone() })?, Origin::Previous)
            }
            source => {
                outbox.layer(&|out| pack(input, &found, source, out), input.previous).map_err(|error| {
                    match error {
                        LayerError::Pack(source) => {
                            ExportError::Pack { layer: planned.created_by.clone(), source }
                        }
                        LayerError::Outbox(source) => source.into(),
                    }
                })?
            }
        };
        if planned.source == LayerSource::Launcher {
            tell(Step::App { reused: app.0, added: app.1 });
        }
        match (&planned.source, origin) {
            (LayerSource::App(_), Origin::Previous) => app.0 += 1,
            (LayerSource::App(_), Origin::Written) => app.1 += 1,
            (_, Origin::Previous) => tell(Step::Reused(planned.name.clone())),
            (_, Origin::Written) => tell(Step::Added(planned.name.clone())),
        }
        record(&mut metadata, &found, &planned.source, &layer.diff_id);
        layers.push(layer);
    }
    plan.refused_labels.iter().for_each(|label| tell(Step::RefusedLabel(label.clone())));
    let image = assemble(input, &plan, &metadata, layers)?;
    Ok(Exported { image, metadata })
}

fn start(input: &ExportInput<'_>, found: &Found) -> LifecycleMetadata {
    let run = input.analyzed.run_image.clone().unwrap_or_default();
    let entry = run_entry(input.run, &run);
    let has_targets = input.platform_api >= TARGETS;
    let buildpacks = found.buildpacks.iter().map(|buildpack| BuildpackLayers {
        key: buildpack.element.id.to_string(),
        version: buildpack.element.version.clone(),
        layers: BTreeMap::new(),
        store: buildpack.store.as_ref().map(|store| StoreMetadata {
            metadata: json_of_toml(&toml::Value::Table(store.metadata.clone())),
        }),
    });
    LifecycleMetadata {
        app: Some(Vec::new()),
        buildpacks: Some(buildpacks.collect()),
        run_image: MetadataRunImage {
            top_layer: input.base.config.rootfs.diff_ids.last().map(ToString::to_string).unwrap_or_default(),
            reference: run.reference.clone(),
            image: if has_targets { entry.image.clone() } else { String::new() },
            mirrors: if has_targets { entry.mirrors.clone() } else { Vec::new() },
        },
        stack: Some(MetadataStack {
            run_image: StackRunImage { image: entry.image, mirrors: entry.mirrors },
        }),
        ..LifecycleMetadata::default()
    }
}

/// The run image with its mirrors, by any of their names: what a later rebase looks for. As the reference does, the first of
/// run.toml stands in for a run image that is not in there.
fn run_entry(known: &RunToml, run: &RunImage) -> RunImageEntry {
    let wanted = without_digest(&run.image);
    let names = |entry: &RunImageEntry| {
        std::iter::once(&entry.image).chain(&entry.mirrors).any(|name| without_digest(name) == wanted)
    };
    known.images.iter().find(|entry| names(entry)).or(known.images.first()).cloned().unwrap_or_default()
}

/// A name in full, so that short and long forms are the same.
pub(crate) fn without_digest(name: &str) -> String {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.to_string())
}

fn record(metadata: &mut LifecycleMetadata, found: &Found, source: &LayerSource, diff_id: &Digest) {
    let sha = Sha { sha: diff_id.to_string() };
    match source {
        LayerSource::Buildpack { buildpack, layer } | LayerSource::Previous { buildpack, layer, .. } => {
            let known = found.buildpacks[*buildpack].layers.iter().find(|known| known.name == *layer);
            let toml = known.map(|known| known.toml.clone()).unwrap_or_default();
            let data =
                toml.metadata.map(|table| json_of_toml(&toml::Value::Table(table))).unwrap_or_default();
            let types = toml.types;
            let (build, launch, cache) = (types.build, types.launch, types.cache);
            if let Some(list) = &mut metadata.buildpacks {
                let layer_metadata = LayerMetadata { sha: sha.sha, data, build, launch, cache };
                list[*buildpack].layers.insert(layer.clone(), layer_metadata);
            }
        }
        LayerSource::Sbom => metadata.sbom = Some(sha),
        LayerSource::App(_) => metadata.app.get_or_insert_default().push(sha),
        LayerSource::Launcher => metadata.launcher = sha,
        LayerSource::Config => metadata.config = sha,
        LayerSource::ProcessTypes => metadata.process_types = sha,
    }
}

fn assemble(
    input: &ExportInput<'_>,
    plan: &ExportPlan,
    metadata: &LifecycleMetadata,
    layers: Vec<Layer>,
) -> Result<Image, ExportError> {
    let mut config = input.base.config.clone();
    let label = coracle_cnb::LIFECYCLE_METADATA_LABEL;
    let text = write_json(metadata).map_err(|source| ExportError::Label { label, source })?;
    config.config.labels.extend(plan.labels.clone());
    config.config.labels.insert(label.to_owned(), text);
    plan.env.iter().for_each(|(name, value)| config.set_env(name, value));
    config.config.entrypoint.clone_from(&plan.entrypoint);
    config.config.cmd.clear();
    input.app_path.clone_into(&mut config.config.working_dir);
    config.created = Some(input.created.to_owned());
    config.docker_version.clear();
    config.container.clear();
    config.history.retain(|step| !step.empty_layer);
    let below = input.base.manifest.layers.len();
    if config.history.len() != below {
        config.history = vec![History::default(); below];
    }
    config.history.extend(
        plan.layers
            .iter()
            .map(|layer| History { created_by: layer.created_by.clone(), ..History::default() }),
    );
    if input.platform_api < TARGETS {
        // Before there was a history worth the name, each layer had a line that says nothing.
        config.history.fill(History::default());
    }
    config.history.iter_mut().for_each(|step| step.created = Some(input.created.to_owned()));
    Ok(Image::assemble(config, layers)?)
}
