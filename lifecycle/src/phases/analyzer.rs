//! `analyzer`: may the images be read and written, and what is known of them (Platform API, "analyzer").

use std::thread;

use coracle_cnb::Analyzed;
use coracle_images::{Digest, Image, LayoutError, Reference, RegistryError, uncompressed};

use super::caching::CachePlace;
use super::exporter::not_used;
use super::images::{Images, ImagesError, layout_path};
use super::outputs::{Outputs, reference};
use super::restorer::Layers;
use super::stacks::{self, RunStack};
use super::{Call, PhaseError, run_toml};
use crate::analyze::{AnalyzeInput, Found, analyze, choose_run_image};
use crate::api::{SBOM_FILES, TARGETS};
use crate::cache::LaunchCache;
use crate::file::{self, FileError};
use crate::known::KnownImages;
use crate::restore::restore_launch_bills;

pub(super) fn run(call: &Call<'_>) -> Result<(), PhaseError> {
    let outputs = Outputs::of(&call.arguments)?;
    let images = Images::new(call)?;
    let analyzed = analyze_images(call, &images, &outputs.names)?;
    let known = call.arguments.path("known-images");
    if let Images::Registry(registry) = &images
        && !known.as_os_str().is_empty()
    {
        file::write_document(&known, &KnownImages::of(registry))?;
    }
    Ok(file::write_document(&call.arguments.path("analyzed"), &analyzed)?)
}

/// What is known of the images, which before Platform API 0.12 are to be of one stack, as the buildpacks are. Restores the bills of
/// materials of the last one.
pub(super) fn analyze_images(
    call: &Call<'_>,
    images: &Images,
    outputs: &[Reference],
) -> Result<Analyzed, PhaseError> {
    let arguments = &call.arguments;
    let previous = match arguments.text("previous-image") {
        Some(name) => reference(&name.to_string_lossy())?,
        None => outputs[0].clone(),
    };
    let cache = CachePlace::of(call, Some(images))?;
    let run_name = run_name(call, images, &outputs[0])?;
    let run = reference(&run_name)?;

    // Nobody should wait for a build to hear that its result cannot be written, nor for one answer before the next question.
    let (previous_image, run_image) = thread::scope(|scope| {
        let run_image = scope.spawn(|| images.find(&run));
        let mut writes: Vec<_> =
            outputs.iter().map(|output| scope.spawn(|| images.check_write(output))).collect();
        if let CachePlace::Image(registry, name) = &cache {
            writes.push(scope.spawn(|| Ok(registry.check_write(name)?)));
        }
        let previous_image = previous_image(call, images.find(&previous), &previous)?;
        let run_image = joined(run_image).map_err(PhaseError::AnalyzeImages)?;
        writes.into_iter().try_for_each(joined).map_err(PhaseError::AnalyzeImages)?;
        Ok::<_, PhaseError>((previous_image, run_image))
    })?;
    if run_image.is_none() {
        call.warn(&format!("run image `{run_name}` does not exist: nothing can be exported onto it"));
    }

    let previous_image = match run_image.as_ref().filter(|_| call.api < TARGETS) {
        Some(run_image) => stacks::fitting(call, (&run_name, run_image), &previous, previous_image)?,
        None => previous_image,
    };
    let run_stack = run_image.as_ref().filter(|_| call.api < TARGETS);
    if let Some(stack) = run_stack.and_then(|image| RunStack::of(&run_name, &image.config)) {
        stack.check_mixins(call)?;
    }
    let pinned = |image: &Image, name| images.pinned(name, &image.digest);
    let previous_pinned = previous_image.as_ref().map(|image| (pinned(image, &previous), &image.config));
    let run_pinned = run_image.as_ref().map(|image| (pinned(image, &run), &image.config));
    // As the reference, but where `coracle build` asks for the name: a folder of the build means nothing afterwards.
    let run_name = match images {
        Images::Layout(dir) if !arguments.on("by-name") => layout_path(dir, &run).display().to_string(),
        _ => run_name,
    };
    let mut analyzed = analyze(&AnalyzeInput {
        previous: previous_pinned.as_ref().map(|(reference, config)| Found { reference, config }),
        run_name: &run_name,
        run: run_pinned.as_ref().map(|(reference, config)| Found { reference, config }),
        has_targets: call.api >= TARGETS,
    })
    .map_err(PhaseError::Analyze)?;
    if let Some(run_image) = analyzed.run_image.as_mut().filter(|_| call.api < TARGETS) {
        (run_image.image, run_image.target) = (String::new(), None);
    }
    let has_bills = call.api >= SBOM_FILES && !call.skips_layers();
    if let Some(image) = previous_image.as_ref().filter(|_| has_bills)
        && let Err(error) = launch_bills(call, images, &previous, image, &analyzed)
    {
        call.warn_because("the bills of materials of the previous image do not come back", &error);
    }
    Ok(analyzed)
}

/// What a thread came to; a panic goes on in this one.
fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Fetches the previous image's bills of materials for the restorer, which speaks to no registry.
fn launch_bills(
    call: &Call<'_>,
    images: &Images,
    name: &Reference,
    image: &Image,
    analyzed: &Analyzed,
) -> Result<(), PhaseError> {
    let diff_id = analyzed.metadata.sbom.as_ref().and_then(|sbom| sbom.sha.parse::<Digest>().ok());
    let layers = image.layers();
    let layer = layers.iter().find(|layer| Some(&layer.diff_id) == diff_id.as_ref());
    // Where the layers' folder is no concern of the analyzer's, neither are they.
    let (Some(layer), Ok(to)) = (layer, Layers::open(call)) else { return Ok(()) };
    let near = call.arguments.path("launch-cache");
    if !near.as_os_str().is_empty() {
        match LaunchCache::new(&near).archive(&layer.diff_id) {
            Ok(None) => {}
            Ok(Some(archive)) => match restore_launch_bills(to.destination(call), &layer.diff_id, archive) {
                Ok(()) => return Ok(()),
                Err(error) => not_used(call, &layer.diff_id, &error),
            },
            Err(error) => not_used(call, &layer.diff_id, &error),
        }
    }
    let archive = images.layer(name, layer).map_err(PhaseError::AnalyzeImages)?;
    let Some(archive) = archive else { return Ok(()) };
    let archive = uncompressed(archive).map_err(|source| {
        let path = layer.descriptor.digest.as_str().into();
        PhaseError::File(FileError::Read { path, source })
    })?;
    restore_launch_bills(to.destination(call), &layer.diff_id, archive).map_err(PhaseError::Restore)
}

/// The image of the last build. One that is damaged counts as none: this build will replace it.
fn previous_image(
    call: &Call<'_>,
    found: Result<Option<Image>, ImagesError>,
    name: &Reference,
) -> Result<Option<Image>, PhaseError> {
    match found {
        Err(
            ImagesError::Registry(RegistryError::Image { .. } | RegistryError::Platform { .. })
            | ImagesError::Layout(LayoutError::Image { .. } | LayoutError::Index { .. }),
        ) => {
            call.warn(&format!(
                "previous image `{name}` is damaged, or for another platform, and counts as none"
            ));
            Ok(None)
        }
        other => other.map_err(PhaseError::AnalyzeImages),
    }
}

/// As `-run-image` says, else one of run.toml.
fn run_name(call: &Call<'_>, images: &Images, output: &Reference) -> Result<String, PhaseError> {
    if let Some(name) = call.arguments.text("run-image") {
        return Ok(name.to_string_lossy().into_owned());
    }
    let run = run_toml(call).map_err(PhaseError::RunImages)?;
    choose_run_image(output, &run, &mut may_read(images)).map_err(PhaseError::Analyze)
}

/// Whether images may be read, one asked for after the other. Nobody forbids what would be in a layout folder.
pub(super) fn may_read(images: &Images) -> impl FnMut(&Reference) -> bool {
    |reference| matches!(images, Images::Layout(_)) || images.find(reference).is_ok()
}
