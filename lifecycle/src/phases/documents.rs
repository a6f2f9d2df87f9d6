//! The documents that phases read: those that the platform brings along, and those that another phase left.

use std::path::Path;

use coracle_cnb::{Analyzed, ApiVersion, Group, RunToml, StackToml};
use serde::Deserialize;

use super::{Arguments, Call, PhaseError};
use crate::api::{TARGETS, runs_buildpack_api};
use crate::file::{self, FileError};

/// The run images that the platform offers: in run.toml, before Platform API 0.12 the one of stack.toml.
pub(super) fn run_toml(call: &Call<'_>) -> Result<RunToml, FileError> {
    run_images(call.api, &call.arguments)
}

/// As [`run_toml`], before there is a call.
pub(super) fn run_images(api: ApiVersion, arguments: &Arguments) -> Result<RunToml, FileError> {
    if api >= TARGETS {
        return Ok(file::read_document("run.toml", &arguments.path("run"))?.unwrap_or_default());
    }
    let stack: Option<StackToml> = file::read_document("stack.toml", &arguments.path("stack"))?;
    Ok(RunToml { images: stack.into_iter().map(|stack| stack.run_image).collect() })
}

/// The group that was detected, of buildpacks that can all be run.
pub(super) fn group(call: &Call<'_>) -> Result<Group, PhaseError> {
    /// The part of group.toml that says whether the rest can be understood.
    #[derive(Deserialize)]
    struct Apis {
        #[serde(default)]
        group: Vec<Element>,
    }
    #[derive(Deserialize)]
    struct Element {
        id: String,
        #[serde(default)]
        version: String,
        #[serde(default)]
        api: String,
    }
    let path = call.arguments.path("group");
    let text = found("group.toml", &path, file::read_foreign_text(&path))?;
    // Both are of one reading: what is checked is what the phase goes on with.
    for Element { id, version, api } in file::document::<Apis>("group.toml", &path, &text)?.group {
        let name = format!("{id}@{version}");
        if api.is_empty() {
            return Err(PhaseError::NoBuildpackApi(name));
        }
        if !api.parse().is_ok_and(runs_buildpack_api) {
            return Err(PhaseError::BuildpackApi { name, api });
        }
    }
    Ok(file::document("group.toml", &path, &text)?)
}

/// What the analyzer left, if it did.
pub(super) fn analyzed(arguments: &Arguments) -> Result<Analyzed, FileError> {
    Ok(file::read_foreign_document("analyzed.toml", &arguments.path("analyzed"))?.unwrap_or_default())
}

/// A document that the platform brings along, maybe by a link.
pub(super) fn needed<T: serde::de::DeserializeOwned>(
    document: &'static str,
    path: &Path,
) -> Result<T, PhaseError> {
    found(document, path, file::read_document(document, path))
}

/// A document that a phase before this one left, where programs of buildpacks could write since.
pub(super) fn left<T: serde::de::DeserializeOwned>(
    document: &'static str,
    path: &Path,
) -> Result<T, PhaseError> {
    found(document, path, file::read_foreign_document(document, path))
}

fn found<T>(
    document: &'static str,
    path: &Path,
    read: Result<Option<T>, FileError>,
) -> Result<T, PhaseError> {
    read?.ok_or_else(|| PhaseError::NoFile { document, path: path.to_owned() })
}
