//! The plan, carried out.

use std::collections::BTreeMap;
use std::io::Write;

use coracle_cnb::{
    BuildpackLayers, LifecycleMetadata, MetadataRunImage, MetadataStack, RunImage, RunImageEntry, RunToml,
    Sha, StackRunImage, StoreMetadata, json_of_toml, write_json,
};
use coracle_images::pack::PackError;
use coracle_images::{Digest, History, Image, Layer, Reference};

use crate::api::TARGETS;

use super::pack::pack;
use super::settled::{Settled, settled};
use super::{
    ExportError, ExportInput, ExportPlan, Exported, Found, LayerSource, Outbox, PlannedLayer, Step, Why,
};
use crate::cache::CacheError;
use crate::cache::saving::{self, Cached, Saved, Saving};
use crate::packing::{self, Blob, InCache, Job, Origin};

/// Packs the image's layers into the outbox and the cache's into theirs, each once for both, and says what the image is. `tell`
/// hears of every step.
pub fn export(
    input: &ExportInput<'_>,
    outbox: &Outbox,
    cache: Option<&Saving<'_>>,
    tell: &mut dyn FnMut(Step),
) -> Result<Exported, ExportError> {
    let found = Found::read(input.group, input.layers_dir, input.app_dir)?;
    let plan = ExportPlan::new(input, &found)?;
    let cached = cache.map(|_| saving::wanted(&found.buildpacks, input.layers())).transpose()?;
    let cached = cached.unwrap_or_default();
    let mut making = Making::new(input, &found, &plan, tell)?;
    let mut saved = cache.map(|_| Ok(Saved::new(&found.buildpacks)));
    let mut done: Vec<&Cached<'_>> = Vec::new();
    let both = cache.zip(Some(cached.as_slice()));
    for Settled { planned, cached } in settled(input, &found, &plan, &making.previous, both) {
        if let Some((at, layer)) = planned {
            making.add(at, Some((layer, Origin::Unread)));
        }
        if let Some((cached, layer)) = cached {
            add(&mut saved, cached, Ok(layer));
            done.push(cached);
        }
    }
    let mut jobs = Vec::new();
    // For each job its layer in the plan, and its layer in the cache.
    let mut roles: Vec<(Option<usize>, Option<&Cached<'_>>)> = Vec::new();
    for (at, planned) in plan.layers.iter().enumerate().filter(|(at, _)| making.layers[*at].is_none()) {
        let also = cached.iter().find(|cached| planned.is(cached));
        let image = Blob { outbox, known: making.previous.clone(), likely: likely(input, &found, planned) };
        let cache = cache.zip(also).map(|(cache, also)| cache.wants(also));
        let pack = |out: &mut dyn Write| pack(input, &found, &planned.source, out);
        jobs.push(Job { pack: Box::new(pack), image: Some(image), cache });
        roles.push((Some(at), also));
    }
    if let Some(cache) = cache {
        let only = |cached: &&Cached<'_>| {
            !plan.layers.iter().any(|planned| planned.is(cached))
                && !done.iter().any(|done| std::ptr::eq(*done, *cached))
        };
        for cached in cached.iter().filter(only) {
            jobs.push(cache.job(cached));
            roles.push((None, Some(cached)));
        }
    }
    packing::run(&jobs, |job, done| {
        let (planned, cached) = roles[job];
        let in_cache = match (planned, done) {
            (Some(at), done) => {
                let layer = plan.layers[at].created_by.clone();
                let done = done.map_err(|source| ExportError::Pack { layer, source })?;
                making.add(at, done.image);
                done.cache
            }
            (None, done) => done.map(|done| done.cache).unwrap_or_else(|error| Some(Err(error))),
        };
        if let (Some(cached), Some(layer)) = (cached, in_cache) {
            add(&mut saved, cached, layer);
        }
        Ok::<_, ExportError>(())
    })?;
    let Making { layers, metadata, .. } = making;
    let of_app = plan.layers.iter().zip(layers.iter().flatten());
    let of_app = of_app.filter(|(planned, _)| matches!(planned.source, LayerSource::App(_)));
    let application = input.application(of_app.map(|(_, (layer, _))| layer.diff_id.clone()).collect());
    plan.refused_labels.iter().for_each(|label| tell(Step::RefusedLabel(label.clone())));
    let new = layers.into_iter().flatten().map(|(layer, _)| layer);
    let image = assemble(input, &plan, &metadata, input.base.layers().into_iter().chain(new).collect())?;
    Ok(Exported { image, metadata, application, cache: saved })
}

/// Adds a layer to the cache; without it there is none.
fn add(
    saved: &mut Option<Result<Saved, CacheError>>,
    cached: &Cached<'_>,
    layer: Result<InCache, PackError>,
) {
    if let Some(Ok(all)) = saved
        && let Err(error) = all.add(cached, layer)
    {
        *saved = Some(Err(error));
    }
}

/// Whether a layer is probably one of the previous image's.
fn likely(input: &ExportInput<'_>, found: &Found, planned: &PlannedLayer) -> bool {
    let Some(previous) = input.previous else { return false };
    // Of several slices most may be what they were.
    if matches!(planned.source, LayerSource::App(_)) && input.metadata.slices.is_empty() {
        return !input.unchanged.application_changed;
    }
    let LayerSource::Buildpack { buildpack, layer } = &planned.source else { return true };
    let id = found.buildpacks[*buildpack].element.id.as_str();
    let known = input.analyzed.metadata.buildpacks.iter().flatten().find(|known| known.key == id);
    let known = known.and_then(|known| known.layer(layer));
    known.is_some_and(|known| previous.config.rootfs.diff_ids.iter().any(|id| id.as_str() == known.sha))
}

/// The image's own layers, as far as they are known.
struct Making<'a> {
    found: &'a Found,
    plan: &'a ExportPlan,
    previous: Vec<Layer>,
    layers: Vec<Option<(Layer, Origin)>>,
    told: usize,
    tell: &'a mut dyn FnMut(Step),
    metadata: LifecycleMetadata,
    app: (usize, usize),
}

impl<'a> Making<'a> {
    /// Starts with those that are the previous image's, because the build left nothing to pack.
    fn new(
        input: &ExportInput<'_>,
        found: &'a Found,
        plan: &'a ExportPlan,
        tell: &'a mut dyn FnMut(Step),
    ) -> Result<Self, ExportError> {
        let previous = input.previous.map(Image::layers).unwrap_or_default();
        let kept = |planned: &PlannedLayer| {
            let LayerSource::Previous { diff_id, layer, buildpack } = &planned.source else {
                return Ok(None);
            };
            let digest: Digest =
                diff_id.parse().map_err(|source| ExportError::Digest { layer: layer.clone(), source })?;
            let name = found.buildpacks[*buildpack].element.name();
            let known = previous.iter().find(|layer| layer.diff_id == digest);
            let known = known.ok_or_else(|| ExportError::Unknown { name, layer: layer.clone() })?;
            Ok(Some((known.clone(), Origin::Unread)))
        };
        let layers = plan.layers.iter().map(kept).collect::<Result<_, ExportError>>()?;
        let metadata = start(input, found);
        let mut making = Self { found, plan, previous, layers, told: 0, tell, metadata, app: (0, 0) };
        making.tell_on();
        Ok(making)
    }

    fn add(&mut self, at: usize, layer: Option<(Layer, Origin)>) {
        self.layers[at] = layer;
        self.tell_on();
    }

    /// Tells of all that is known up to the first that is not.
    fn tell_on(&mut self) {
        while let Some(Some((layer, origin))) = self.layers.get(self.told) {
            let planned = &self.plan.layers[self.told];
            if planned.source == LayerSource::Launcher {
                (self.tell)(Step::App { reused: self.app.0, added: self.app.1 });
            }
            match (&planned.source, origin) {
                (LayerSource::App(_), Origin::Written) => self.app.1 += 1,
                (LayerSource::App(_), _) => self.app.0 += 1,
                (_, Origin::Written) => (self.tell)(Step::Added(planned.name.clone())),
                (_, _) => (self.tell)(Step::Reused(planned.name.clone())),
            }
            let why = match (&planned.source, origin) {
                (LayerSource::Previous { .. }, _) => Why::NoFolder,
                (_, Origin::Unread) => Why::Unchanged,
                (_, Origin::Known) => Why::SameContent,
                (_, Origin::Written) if self.previous.is_empty() => Why::NoPrevious,
                (_, Origin::Written) => Why::OtherContent(layer.diff_id.clone()),
            };
            // Layers of the application have no name.
            let name = if planned.name.is_empty() { &planned.created_by } else { &planned.name };
            (self.tell)(Step::Because(name.clone(), why));
            record(&mut self.metadata, self.found, &planned.source, &layer.diff_id);
            self.told += 1;
        }
    }
}

fn start(input: &ExportInput<'_>, found: &Found) -> LifecycleMetadata {
    let run = input.analyzed.run_image.clone().unwrap_or_default();
    let has_targets = input.platform_api >= TARGETS;
    let may_be_switched = has_targets && !input.metadata.extensions.is_empty();
    let entry = run_entry(input.run, &run, may_be_switched);
    let buildpacks = found.buildpacks.iter().map(|buildpack| BuildpackLayers {
        key: buildpack.element.id.to_string(),
        version: buildpack.element.version.clone(),
        layers: Some(BTreeMap::new()),
        store: buildpack.store.as_ref().map(|store| StoreMetadata {
            metadata: store
                .metadata
                .clone()
                .map_or(serde_json::Value::Null, |table| json_of_toml(&toml::Value::Table(table))),
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
/// run.toml stands in for a run image that is not in there, unless an extension may have chosen it.
fn run_entry(known: &RunToml, run: &RunImage, may_be_switched: bool) -> RunImageEntry {
    let wanted = without_digest(&run.image);
    let names = |entry: &RunImageEntry| {
        std::iter::once(&entry.image).chain(&entry.mirrors).any(|name| without_digest(name) == wanted)
    };
    match known.images.iter().find(|entry| names(entry)) {
        None if may_be_switched && !known.images.is_empty() => {
            RunImageEntry { image: run.image.clone(), ..RunImageEntry::default() }
        }
        entry => entry.or(known.images.first()).cloned().unwrap_or_default(),
    }
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
            if let (Some(list), Some(known)) = (&mut metadata.buildpacks, known) {
                let layers = list[*buildpack].layers.get_or_insert_default();
                layers.insert(layer.clone(), known.metadata(diff_id));
            }
        }
        // What is on the run image is the run image's, and not told of.
        LayerSource::Extension(_) => {}
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
    config.container.clear();
    // As the reference, which knows no more members than the specification and Docker's two.
    config.other.clear();
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
