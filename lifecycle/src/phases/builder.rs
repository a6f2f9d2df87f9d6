//! `builder`: the `bin/build` programs of the group, and the metadata composed of what they left.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use coracle_cnb::{Analyzed, Group, Metadata, Plan};

use super::scratch::Scratch;
use super::times::{self, Took};
use super::{ArgumentError, Call, PhaseError, analyzed, group, left, target};
use crate::build::{self, BuildError, BuildInput, BuildLayers, Note, SharedLayer};
use crate::file::{self, FileError};

pub(super) fn run(call: &Call<'_>) -> Result<(), PhaseError> {
    let arguments = &call.arguments;
    let group = group(call)?;
    let plan: Plan = left("plan.toml", &arguments.path("plan"))?;
    let analyzed = analyzed(arguments)?;
    if let Some(number) = step(call)? {
        return with_input(call, &group, &plan, &analyzed, |input| build::build_step(input, number));
    }
    build_group(call, &group, &plan, &analyzed)?;
    Ok(())
}

/// Runs the programs, and leaves the metadata where it becomes part of the image.
pub(super) fn build_group(
    call: &Call<'_>,
    group: &Group,
    plan: &Plan,
    analyzed: &Analyzed,
) -> Result<Metadata, PhaseError> {
    let built = with_input(call, group, plan, analyzed, build::build)?;
    let mut metadata = build::compose(&built, group)?;
    build::remarks(&built).iter().for_each(|text| call.warn(text));
    build::in_form_of(call.api, &built, &mut metadata);
    write_metadata(&call.arguments.path("layers").join("config"), &metadata)?;
    Ok(metadata)
}

/// Writes metadata.toml into a folder that becomes a layer: what is new in it has the permissions of an umask of 022, whatever it is.
fn write_metadata(folder: &Path, metadata: &Metadata) -> Result<(), FileError> {
    let path = folder.join("metadata.toml");
    let is_new = |path: &Path| path.symlink_metadata().is_err();
    let new = [(folder, 0o755, is_new(folder)), (&path, 0o644, is_new(&path))];
    file::write_document(&path, metadata)?;
    for (path, mode, _) in new.into_iter().filter(|(.., is_new)| *is_new) {
        let failed = |source| FileError::Write { path: path.to_owned(), source };
        // What a folder takes over of the one that it is made in (mkdir(2)).
        let inherited = path.symlink_metadata().map_err(failed)?.mode() & 0o2000;
        fs::set_permissions(path, Permissions::from_mode(mode | inherited)).map_err(failed)?;
    }
    Ok(())
}

fn with_input<T>(
    call: &Call<'_>,
    group: &Group,
    plan: &Plan,
    analyzed: &Analyzed,
    run: impl FnOnce(&BuildInput<'_>) -> Result<T, BuildError>,
) -> Result<T, PhaseError> {
    let layers_dir = call.arguments.path("layers");
    let scratch = Scratch::of(call)?;
    let (target, exec_env) = (target(analyzed)?, call.exec_env());
    let around = call.surroundings(&scratch, Some(&target), Some(&exec_env));
    Ok(run(&BuildInput {
        group,
        plan,
        layers_dir: &layers_dir,
        around: &around,
        platform_api: call.api,
        build_layers: build_layers(call)?,
        shared: &shared(call)?,
        note: &|note| match note {
            Note::PutBack { .. } => call.warn(&note.to_string()),
            Note::Ended { .. } => call.say(&note.to_string()),
            Note::Took { buildpack, took } if call.arguments.on("times") => {
                call.say(&times::line(&Took { detect: false, buildpack, took: *took }));
            }
            Note::Took { .. } => call.whisper(&note.to_string()),
        },
    })?)
}

/// Which buildpack of the group is to be run by itself, by its number: `coracle build` says so, once for each.
fn step(call: &Call<'_>) -> Result<Option<usize>, ArgumentError> {
    let Some(text) = call.arguments.text("step").map(|text| text.to_string_lossy()) else { return Ok(None) };
    let expected = "a buildpack's number in the group";
    let refused = |_| ArgumentError::Value { flag: "step", value: text.clone().into_owned(), expected };
    text.parse().map(Some).map_err(refused)
}

/// What later buildpacks may do with layers of earlier ones.
fn build_layers(call: &Call<'_>) -> Result<BuildLayers, ArgumentError> {
    let Some(text) = call.arguments.text("build-layers") else { return Ok(BuildLayers::default()) };
    if text == "strict" {
        return Err(ArgumentError::Strict);
    }
    let known = [BuildLayers::Snapshot, BuildLayers::Shared].into_iter().find(|known| text == known.name());
    known.ok_or_else(|| ArgumentError::Value {
        flag: "build-layers",
        value: text.to_string_lossy().into_owned(),
        expected: "`snapshot` or `shared`",
    })
}

fn shared(call: &Call<'_>) -> Result<Vec<SharedLayer>, ArgumentError> {
    let read = |text: String| {
        let refused = |_| ArgumentError::Value {
            flag: "shared-layer",
            value: text.clone(),
            expected: "BUILDPACK or BUILDPACK:LAYER",
        };
        text.parse().map_err(refused)
    };
    call.arguments.texts("shared-layer").into_iter().map(read).collect()
}
