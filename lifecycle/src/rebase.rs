//! An application on another run image, without a build (Platform API, "rebaser").
//!
//! [`rebase`] is pure: it exchanges the layers below the application, and what the labels say of them. Layers move by digest; none
//! is read.

use coracle_cnb::{
    ApiVersion, Distro, DocumentError, LIFECYCLE_METADATA_LABEL, LifecycleMetadata, RunImageEntry,
    RunImageTarget, read_json, write_json,
};
use coracle_images::{Config, Digest, History, Image, ImageError};
use serde_json::Value;

use crate::analyze::target;
use crate::api::TARGETS;
use crate::export::{CREATED, without_digest};

/// Says whether an image may be rebased.
const REBASABLE_LABEL: &str = "io.buildpacks.rebasable";
pub(crate) const STACK_ID_LABEL: &str = "io.buildpacks.stack.id";
const STACK_MIXINS_LABEL: &str = "io.buildpacks.stack.mixins";

/// An application and what it is to stand on.
#[derive(Debug, Clone, Copy)]
pub struct RebaseInput<'input> {
    pub image: &'input Image,
    pub run: &'input Image,
    /// The run image as the user or the image's label names it.
    pub run_name: &'input str,
    /// The same, pinned by digest.
    pub run_reference: &'input str,
    /// Whether what speaks against it is only told.
    pub force: bool,
    /// Of the phase; the image has its own.
    pub platform_api: ApiVersion,
}

/// An application on its new run image.
#[derive(Debug)]
pub struct Rebased {
    pub image: Image,
    /// What spoke against it, but was overruled.
    pub overruled: Vec<RebaseError>,
}

/// Why an application stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum RebaseError {
    /// No build of this kind made the image.
    #[error(
        "the image has no label {LIFECYCLE_METADATA_LABEL}: only images that buildpacks built can be rebased"
    )]
    NoMetadata,
    /// Nor is it known what made it.
    #[error("read what the image says of itself")]
    Metadata(#[source] DocumentError),
    /// The variable of the image holds no version.
    #[error("the image's variable CNB_PLATFORM_API is `{0}`, which is no version")]
    Api(String),
    /// Neither the user nor the image names a run image.
    #[error("the image names no run image: name one with -run-image")]
    NoRunImage,
    /// The layers of the image are not what its label says.
    #[error("the image has no layer {0}, which its label says is the run image's highest: build it again")]
    NoTopLayer(String),
    /// The label of the image says so.
    #[error("the image is marked as not rebasable ({REBASABLE_LABEL}): build it again, or force it")]
    NotRebasable,
    /// The run image is for another kind of machine or another distribution.
    #[error("the run image is for {found}, the image for {wanted}: build again, or force it")]
    OtherTarget { found: String, wanted: String },
    /// The image was built for another run image.
    #[error(
        "`{name}` is none of the run images that the image was built for ({known}): build again, or force it"
    )]
    OtherRunImage { name: String, known: String },
    /// Before Platform API 0.12: an image says nothing of its stack.
    #[error("{0} has no label {STACK_ID_LABEL}")]
    NoStack(&'static str),
    /// Before Platform API 0.12: stacks do not mix.
    #[error("the run image is of stack `{found}`, the image of stack `{wanted}`: build it again")]
    OtherStack { found: String, wanted: String },
    /// Before Platform API 0.12: the run image has less in it.
    #[error("the run image lacks mixins of the image: {0}")]
    Mixins(String),
    /// Before Platform API 0.12: nobody knows what is in it.
    #[error("read the mixins of {whose}: its label {STACK_MIXINS_LABEL} is no list of texts in JSON")]
    MixinsLabel {
        whose: &'static str,
        #[source]
        source: DocumentError,
    },
    /// A label cannot be written.
    #[error("write label {LIFECYCLE_METADATA_LABEL}")]
    Label(#[source] DocumentError),
    /// The image has no text.
    #[error("write the image's documents")]
    Image(#[from] ImageError),
}

/// What an image says of itself in its label.
pub fn metadata_of(image: &Image) -> Result<LifecycleMetadata, RebaseError> {
    let label = image.config.label(LIFECYCLE_METADATA_LABEL).ok_or(RebaseError::NoMetadata)?;
    let mut metadata: LifecycleMetadata =
        read_json(LIFECYCLE_METADATA_LABEL, label).map_err(RebaseError::Metadata)?;
    for buildpack in metadata.buildpacks.iter_mut().flatten() {
        buildpack.layers.iter_mut().flatten().for_each(|(_, layer)| take_numbers_for_floats(&mut layer.data));
        buildpack.store.iter_mut().for_each(|store| take_numbers_for_floats(&mut store.metadata));
    }
    Ok(metadata)
}

/// As Go reads what buildpacks said: an integer that no float holds becomes the nearest that one does.
fn take_numbers_for_floats(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(take_numbers_for_floats),
        Value::Object(members) => members.values_mut().for_each(take_numbers_for_floats),
        Value::Number(number) => {
            let is_exact =
                number.as_i64().is_some_and(|whole| whole.unsigned_abs() <= 1 << f64::MANTISSA_DIGITS);
            if let Some(float) = number.as_f64().filter(|_| !is_exact) {
                *value = Value::from(float);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The run image that an image names, with its mirrors; older images name it as their stack's.
pub fn known_run_image(
    metadata: &LifecycleMetadata,
    platform_api: ApiVersion,
) -> Result<RunImageEntry, RebaseError> {
    let run = &metadata.run_image;
    if platform_api >= TARGETS && !run.image.is_empty() {
        return Ok(RunImageEntry { image: run.image.clone(), mirrors: run.mirrors.clone() });
    }
    let stack = metadata.stack.as_ref().map(|stack| &stack.run_image).filter(|run| !run.image.is_empty());
    let stack = stack.ok_or(RebaseError::NoRunImage)?;
    Ok(RunImageEntry { image: stack.image.clone(), mirrors: stack.mirrors.clone() })
}

/// Exchanges the run image below an application. Pure.
pub fn rebase(input: &RebaseInput<'_>) -> Result<Rebased, RebaseError> {
    let (image, run) = (input.image, input.run);
    let mut metadata = metadata_of(image)?;
    let api = image_api(&image.config)?;
    let mut overruled = Vec::new();
    let objections = if api < TARGETS {
        of_stack(&image.config, &run.config).map(|()| Vec::new())?
    } else {
        of_target(&image.config, &run.config)
    };
    for objection in objections.into_iter().chain(of_name(input, &metadata)) {
        if !input.force {
            return Err(objection);
        }
        overruled.push(objection);
    }

    let above = above(image, &metadata)?;
    let layers = run.layers().into_iter().chain(image.layers().into_iter().skip(above)).collect::<Vec<_>>();
    name_run_image(&mut metadata, input);
    let mut config = image.config.clone();
    let kinds = if input.platform_api < TARGETS { &["stack"][..] } else { &["stack", "base"] };
    sync_labels(&mut config, &run.config, kinds);
    let label = write_json(&metadata).map_err(RebaseError::Label)?;
    config.config.labels.insert(LIFECYCLE_METADATA_LABEL.to_owned(), label);
    let of_run = |value: &str| value.to_owned();
    (config.os, config.architecture) = (of_run(&run.config.os), of_run(&run.config.architecture));
    (config.variant, config.os_version) = (of_run(&run.config.variant), of_run(&run.config.os_version));
    config.os_features.clear();
    config.author.clear();
    // As the reference: a history of nothing but the time, a line for each layer.
    let step = History { created: Some(CREATED.to_owned()), ..History::default() };
    config.history = vec![step; layers.len()];
    config.created = Some(CREATED.to_owned());
    config.docker_version.clear();
    config.container.clear();
    config.other.clear();
    Ok(Rebased { image: Image::assemble(config, layers)?, overruled })
}

/// The Platform API that the image was built with; none is older than all that have the variable.
fn image_api(config: &Config) -> Result<ApiVersion, RebaseError> {
    let text = config.env("CNB_PLATFORM_API").unwrap_or_default();
    if text.is_empty() {
        return Ok(ApiVersion::new(0, 0));
    }
    text.parse().map_err(|_| RebaseError::Api(text.to_owned()))
}

/// Whether a run image is of the stack of an image, with all of its mixins.
pub(crate) fn of_stack(image: &Config, run: &Config) -> Result<(), RebaseError> {
    let stack = |config: &Config, whose| match config.label(STACK_ID_LABEL) {
        Some(id) if !id.is_empty() => Ok(id.to_owned()),
        _ => Err(RebaseError::NoStack(whose)),
    };
    let (wanted, found) = (stack(image, "the image")?, stack(run, "the run image")?);
    if wanted != found {
        return Err(RebaseError::OtherStack { found, wanted });
    }
    // Of whichever stage: an image that says it has those of a build image is held to them.
    let mixins = |config, whose| match all_mixins(config) {
        Ok(mixins) => Ok(mixins.iter().map(|mixin| without_stage(mixin).to_owned()).collect::<Vec<_>>()),
        Err(source) => Err(RebaseError::MixinsLabel { whose, source }),
    };
    let (wanted, offered) = (mixins(image, "the image")?, mixins(run, "the run image")?);
    let lacking: Vec<String> = wanted.into_iter().filter(|mixin| !offered.contains(mixin)).collect();
    if lacking.is_empty() { Ok(()) } else { Err(RebaseError::Mixins(lacking.join(", "))) }
}

/// The mixins of a run image: those of build images are marked. A label that cannot be read names none.
pub(crate) fn mixins(config: &Config) -> Vec<String> {
    let all = all_mixins(config).unwrap_or_default();
    all.iter().filter_map(|mixin| of_run_images(mixin)).map(str::to_owned).collect()
}

fn all_mixins(config: &Config) -> Result<Vec<String>, DocumentError> {
    let label = config.label(STACK_MIXINS_LABEL).filter(|text| !text.is_empty());
    // Go reads `null` as an empty list, and as an empty text.
    let read =
        label.map(|text| read_json::<Option<Vec<Option<String>>>>(STACK_MIXINS_LABEL, text)).transpose()?;
    Ok(read.flatten().unwrap_or_default().into_iter().map(Option::unwrap_or_default).collect())
}

fn without_stage(mixin: &str) -> &str {
    mixin.split_once(':').map_or(mixin, |(_, name)| name)
}

/// The name of a mixin that run images have; nothing for one of build images.
pub(crate) fn of_run_images(mixin: &str) -> Option<&str> {
    (!mixin.starts_with("build:")).then(|| mixin.strip_prefix("run:").unwrap_or(mixin))
}

/// What of the image itself speaks against the run image.
fn of_target(image: &Config, run: &Config) -> Vec<RebaseError> {
    let mut objections = Vec::new();
    if image.label(REBASABLE_LABEL) == Some("false") {
        objections.push(RebaseError::NotRebasable);
    }
    let (wanted, found) = (target(image), target(run));
    if !fits(&wanted, &found) {
        let shown = |target: &RunImageTarget| {
            let distro = target.distro.iter().map(|distro| {
                let words = [&*distro.name, &*distro.version].into_iter().filter(|word| !word.is_empty());
                format!(" with {}", words.collect::<Vec<_>>().join(" "))
            });
            let variant = Some(&target.arch_variant).filter(|variant| !variant.is_empty());
            let variant = variant.map(|variant| format!("/{variant}")).unwrap_or_default();
            format!("{}/{}{variant}{}", target.os, target.arch, distro.collect::<String>())
        };
        objections.push(RebaseError::OtherTarget { found: shown(&found), wanted: shown(&wanted) });
    }
    objections
}

/// Whether a run image is for what an image is for. A variant that either does not name fits any; a distribution counts as far as the
/// run image names one.
fn fits(wanted: &RunImageTarget, found: &RunImageTarget) -> bool {
    let is_known = |distro: &Distro| {
        let wanted = wanted.distro.as_ref();
        let same = |found: &str, wanted: &str| found.is_empty() || found == wanted;
        wanted
            .is_some_and(|wanted| same(&distro.name, &wanted.name) && same(&distro.version, &wanted.version))
    };
    wanted.os == found.os
        && wanted.arch == found.arch
        && (wanted.arch_variant.is_empty()
            || found.arch_variant.is_empty()
            || wanted.arch_variant == found.arch_variant)
        && found.distro.as_ref().is_none_or(is_known)
}

/// Since Platform API 0.12 an image keeps to the run images that it was built for, under either of the two keys that name them.
fn of_name(input: &RebaseInput<'_>, metadata: &LifecycleMetadata) -> Option<RebaseError> {
    if input.platform_api < TARGETS {
        return None;
    }
    let run = (&metadata.run_image.image, &metadata.run_image.mirrors);
    let stack = metadata.stack.iter().map(|stack| (&stack.run_image.image, &stack.run_image.mirrors));
    let known = std::iter::once(run).chain(stack);
    let known = known.flat_map(|(image, mirrors)| std::iter::once(image).chain(mirrors));
    let mut names: Vec<String> = known.filter(|name| !name.is_empty()).cloned().collect();
    names.dedup();
    let wanted = without_digest(input.run_name);
    if names.iter().any(|name| without_digest(name) == wanted) {
        return None;
    }
    let known = if names.is_empty() { "it names none".to_owned() } else { names.join(", ") };
    Some(RebaseError::OtherRunImage { name: input.run_name.to_owned(), known })
}

/// How many layers of the image are the old run image's. Where the layer that the label names is there twice, the application's own
/// layers tell.
fn above(image: &Image, metadata: &LifecycleMetadata) -> Result<usize, RebaseError> {
    let top = &metadata.run_image.top_layer;
    let known = |sha: &str| usize::from(!sha.is_empty());
    let own = metadata.app.iter().flatten().count()
        + metadata.sbom.as_ref().map_or(0, |sbom| known(&sbom.sha))
        + [&metadata.config, &metadata.launcher, &metadata.process_types]
            .map(|layer| known(&layer.sha))
            .iter()
            .sum::<usize>()
        + metadata
            .buildpacks
            .iter()
            .flatten()
            .flat_map(|buildpack| buildpack.layers.iter().flatten())
            .filter(|(_, layer)| layer.launch)
            .count();
    let diff_ids: &[Digest] = &image.config.rootfs.diff_ids;
    let is_top =
        |end: usize| end.checked_sub(1).and_then(|at| diff_ids.get(at)).is_some_and(|id| id.as_str() == *top);
    let by_count = diff_ids.len().checked_sub(own).filter(|end| is_top(*end));
    let found = by_count.or_else(|| (1..=diff_ids.len()).find(|end| is_top(*end)));
    found.ok_or_else(|| RebaseError::NoTopLayer(top.clone()))
}

fn name_run_image(metadata: &mut LifecycleMetadata, input: &RebaseInput<'_>) {
    let is_new = of_name(input, metadata).is_some();
    let run = &mut metadata.run_image;
    run.top_layer = input.run.config.rootfs.diff_ids.last().map(ToString::to_string).unwrap_or_default();
    input.run_reference.clone_into(&mut run.reference);
    if is_new {
        input.run_name.clone_into(&mut run.image);
        run.mirrors.clear();
        let stack = &mut metadata.stack.get_or_insert_default().run_image;
        input.run_name.clone_into(&mut stack.image);
        stack.mirrors.clear();
    }
}

/// Labels that say what the run image is become the new one's; what that does not say is gone.
fn sync_labels(config: &mut Config, run: &Config, kinds: &[&str]) {
    let of_run = |name: &str| kinds.iter().any(|kind| name.starts_with(&format!("io.buildpacks.{kind}.")));
    config.config.labels.retain(|name, _| !of_run(name));
    let labels = run.config.labels.iter().filter(|(name, _)| of_run(name));
    config.config.labels.extend(labels.map(|(name, value)| (name.clone(), value.clone())));
}
