//! `builder`: the `bin/build` programs of the group, and the metadata composed of what they left.

use coracle_cnb::{Group, Plan};

use super::scratch::Scratch;
use super::{Call, PhaseError, analyzed, needed, target};
use crate::build::{self, BuildInput};
use crate::file;

pub(super) fn run(call: &Call<'_>) -> Result<(), PhaseError> {
    let arguments = &call.arguments;
    let layers_dir = arguments.path("layers");
    let group: Group = needed("group.toml", &arguments.path("group"))?;
    let plan: Plan = needed("plan.toml", &arguments.path("plan"))?;
    let analyzed = analyzed(arguments)?;
    let scratch = Scratch::of(call)?;
    let (target, exec_env) = (target(&analyzed)?, call.exec_env());
    let around = call.surroundings(&scratch, Some(&target), exec_env.as_deref());
    let built =
        build::build(&BuildInput { group: &group, plan: &plan, layers_dir: &layers_dir, around: &around })?;
    let metadata = build::compose(&built)?;
    Ok(file::write_document(&layers_dir.join("config/metadata.toml"), &metadata)?)
}
