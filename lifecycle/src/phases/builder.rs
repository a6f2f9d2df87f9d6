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
    let built = build::build(&BuildInput {
        group: &group,
        plan: &plan,
        buildpacks_dir: &arguments.path("buildpacks"),
        app_dir: &arguments.path("app"),
        layers_dir: &layers_dir,
        platform_dir: &arguments.path("platform"),
        build_config_dir: &arguments.path("build-config"),
        scratch_dir: scratch.path(),
        target: Some(&target(&analyzed)?),
        exec_env: call.exec_env().as_deref(),
        outer_env: call.env,
    })?;
    let metadata = build::compose(&built)?;
    Ok(file::write_document(&layers_dir.join("config/metadata.toml"), &metadata)?)
}
