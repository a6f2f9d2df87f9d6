//! `--build-layers strict`: a container for each buildpack, in which the folders of those before it are read-only
//! (docs/decisions/0013-layers-of-earlier-buildpacks.md).

use std::path::Path;

use coracle_lifecycle::build::BuildLayers as InOneContainer;
use coracle_runtime::{Access, SandboxSpec};

use super::Build;
use super::bounds::watched;
use super::folders::guest;
use super::phase::{Phase, Plan, mount, sandbox};
use crate::error::Error;
use crate::worker::{Place, PrepareStep};

/// What later buildpacks may do with layers of earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BuildLayers {
    /// What they do to a `build` layer is told of and undone.
    #[default]
    Snapshot,
    /// What they like.
    Shared,
    /// They cannot write there: each runs in a container of its own.
    Strict,
}

impl BuildLayers {
    /// What the one container is told in which all of them run.
    pub(super) fn in_one_container(self) -> Option<InOneContainer> {
        match self {
            Self::Snapshot => Some(InOneContainer::Snapshot),
            Self::Shared => Some(InOneContainer::Shared),
            Self::Strict => None,
        }
    }
}

impl Build<'_> {
    /// Run the group's buildpacks, by id and version, one after the other.
    pub(super) fn steps(&self, buildpacks: &[String], plan: &Plan) -> Result<(), Error> {
        self.started(Phase::Build.title());
        for (number, name) in buildpacks.iter().enumerate() {
            let places = self.stage.work(PrepareStep {
                folders: plan.folders.clone(),
                ids: self.stage.ids,
                user: plan.user.clone(),
                shared: plan.shared_layers.iter().map(ToString::to_string).collect(),
                number,
            })?;
            let spec = step(number, name, &places, plan);
            let watched = watched(Phase::Build, plan, &spec);
            self.launched(Phase::Build.title(), spec, &watched)?;
        }
        Ok(())
    }
}

/// The container of one buildpack: the build phase's, with folders of `/layers` in place of all of it.
pub(super) fn step(number: usize, name: &str, places: &[Place], plan: &Plan) -> SandboxSpec {
    let mut spec = sandbox(Phase::Build, plan);
    spec.mounts.retain(|mount| mount.target != Path::new(guest::LAYERS));
    for Place { folder, writable } in places {
        let access = if *writable { Access::ReadWrite } else { Access::ReadOnly };
        let target = format!("{}/{folder}", guest::LAYERS);
        spec.mounts.push(mount(plan.folders.layers().join(folder), &target, access));
    }
    let id = name.rsplit_once('@').map_or(name, |(id, _)| id);
    spec.files.extend(plan.brought.files_of(id));
    spec.argv.extend(["-step".to_owned(), number.to_string()]);
    spec
}
