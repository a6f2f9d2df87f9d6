//! The images that a build goes on with, looked up again by the restorer: those that extensions have chosen since the analyzer looked
//! (Platform API, "restorer").

use std::path::PathBuf;

use coracle_cnb::{Analyzed, Group, ImageReference, RunToml};
use coracle_images::{Image, LayoutError, Reference, ReferenceError, write_sparse_layout};

use super::images::{Images, ImagesError};
use super::{Call, PhaseError, run_toml};
use crate::analyze;
use crate::api::{COMMAND_LISTS, RUN_IMAGE_IS_CHECKED, TARGETS};
use crate::export::without_digest;

/// Why an image that the build needs could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ChosenError {
    /// A text of analyzed.toml or the platform that names no image.
    #[error("look up {what} image `{name}`")]
    Name {
        what: &'static str,
        name: String,
        #[source]
        source: ReferenceError,
    },
    /// It is not there, or may not be read.
    #[error("look up {what} image `{name}`")]
    Image {
        what: &'static str,
        name: String,
        #[source]
        source: Box<ImagesError>,
    },
    /// The extender's copy could not be written.
    #[error("save {what} image `{name}` for the extender")]
    Save {
        what: &'static str,
        name: String,
        #[source]
        source: Box<LayoutError>,
    },
}

/// Looks up the build image, if the platform names one, and a run image that extensions have chosen or that is to be extended.
/// What is to be extended is left for an extender, without layers. Where there is nothing to look up, no registry is spoken to.
pub(super) fn look_up(call: &Call<'_>, group: &Group, analyzed: &mut Analyzed) -> Result<(), PhaseError> {
    let build_image = call.arguments.text("build-image").map(|name| name.to_string_lossy().into_owned());
    if let Some(name) = build_image.filter(|name| !name.is_empty()) {
        let (reference, image) = found(call, "build", &name)?;
        save(call, "build", &name, &image)?;
        analyzed.build_image = Some(ImageReference { reference });
    }
    let Some(run_image) = analyzed.run_image.as_mut().filter(|run_image| !run_image.image.is_empty()) else {
        return Ok(());
    };
    let name = run_image.image.clone();
    let extend = run_image.extend && call.api >= TARGETS;
    let is_known = run_image.target.as_ref().is_some_and(|target| !target.os.is_empty());
    let is_chosen = call.api >= COMMAND_LISTS && !group.group_extensions.is_empty() && !is_known;
    // Nobody forbids what would be in a layout folder.
    let is_checked =
        call.api >= RUN_IMAGE_IS_CHECKED && !call.arguments.on("layout") && offers(&run_toml(call)?, &name);
    if !(extend || is_chosen || is_checked) {
        return Ok(());
    }
    let (reference, image) = found(call, "run", &name)?;
    if extend {
        save(call, "run", &name, &image)?;
    }
    if extend || is_chosen {
        run_image.reference = reference;
        run_image.target = (call.api >= TARGETS).then(|| analyze::target(&image.config));
    }
    Ok(())
}

/// Whether run.toml lists an image, or has it as a mirror; by which tag counts, by which digest does not.
pub fn offers(run: &RunToml, wanted: &str) -> bool {
    let wanted = without_digest(wanted);
    let mut names = run.images.iter().flat_map(|entry| std::iter::once(&entry.image).chain(&entry.mirrors));
    names.any(|name| without_digest(name) == wanted)
}

/// An image, and how analyzed.toml refers to it.
fn found(call: &Call<'_>, what: &'static str, name: &str) -> Result<(String, Image), PhaseError> {
    let images = Images::new(call)?;
    let failed = |source| ChosenError::Name { what, name: name.to_owned(), source };
    let reference: Reference = name.parse().map_err(failed)?;
    let image = images.image(&reference);
    let failed = |source| ChosenError::Image { what, name: name.to_owned(), source: Box::new(source) };
    let image = image.map_err(failed)?;
    Ok((images.pinned(&reference, &image.digest), image))
}

/// Extenders look for images in this folder; where a platform has none, there is no extender.
fn save(call: &Call<'_>, what: &'static str, name: &str, image: &Image) -> Result<(), ChosenError> {
    let folder: PathBuf = call.arguments.path("kaniko");
    if !folder.is_dir() {
        call.warn(&format!(
            "{what} image `{name}` is not saved for an extender: there is no folder `{}`",
            folder.display()
        ));
        return Ok(());
    }
    let folder = folder.join("cache/base").join(image.digest.as_str());
    write_sparse_layout(image, None, &folder).map_err(|source| ChosenError::Save {
        what,
        name: name.to_owned(),
        source: Box::new(source),
    })
}
