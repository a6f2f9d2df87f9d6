//! `generate-programs`: the `bin/generate` programs of the group's extensions, and what follows from the files that they left. Whether
//! that is done is decided elsewhere.

use super::detector::generate_with;
use super::{Call, PhaseError, analyzed, group, needed};
use crate::file;

/// What `generate-programs` leaves at `-chosen`.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Chosen {
    /// The run image that an extension asks for, in place of the one that was analyzed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_image: Option<String>,
    /// The Dockerfiles that images would have to be extended with, each with its extension.
    pub extending: Vec<String>,
}

pub(super) fn run(call: &Call<'_>) -> Result<(), PhaseError> {
    let arguments = &call.arguments;
    let plan = needed("plan.toml", &arguments.path("plan"))?;
    let (_, told) = generate_with(call, &group(call)?, plan, analyzed(arguments)?)?;
    let chosen = Chosen { run_image: told.new_base, extending: told.extending };
    Ok(file::write_document(&arguments.path("chosen"), &chosen)?)
}
