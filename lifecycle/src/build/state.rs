//! The steps of one buildpack, and what it hands on to those after it.

use std::path::PathBuf;
use std::time::Instant;

use coracle_cnb::{Bom, BuildToml, BuildpackToml, GroupElement, LaunchToml, Plan, Require};

use super::layers::{self, Layer};
use super::{BuildError, BuildInput, Note, sbom};
use crate::bom;
use crate::detect::{Module, buildpack_dir};
use crate::env::{self, Env};
use crate::file::{self, FileError};

/// What earlier buildpacks leave to later ones, and to the image.
pub(super) struct State<'a> {
    input: &'a BuildInput<'a>,
    env: Env,
    /// What of the plan is met.
    met: Vec<String>,
    done: Vec<Done>,
    pub(super) build_bom: Vec<Bom>,
    pub(super) launch_bom: Vec<Bom>,
}

/// A buildpack that has run.
struct Done {
    element: GroupElement,
    toml: BuildpackToml,
    layers: Vec<Layer>,
    launch: LaunchToml,
}

impl<'a> State<'a> {
    /// Before the first buildpack.
    pub(super) fn new(input: &'a BuildInput<'a>) -> Self {
        let env = env::build_env(input.around.outer_env);
        let (build_bom, launch_bom) = (Vec::new(), Vec::new());
        Self { input, env, met: Vec::new(), done: Vec::new(), build_bom, launch_bom }
    }

    /// Runs a buildpack's program.
    pub(super) fn run(&self, element: &GroupElement, toml: &BuildpackToml) -> Result<(), BuildError> {
        let name = element.name();
        let file_error = |source| BuildError::File { name: name.clone(), source };
        let around = self.input.around;
        let own_layers = self.own_layers(element);
        std::fs::create_dir_all(&own_layers)
            .map_err(|source| file_error(FileError::Write { path: own_layers.clone(), source }))?;
        let plan_path = around.scratch_dir.join(element.id.dir()).join("plan.toml");
        let entries = plan_of(self.input.plan, element, &self.met);
        file::write_document(&plan_path, &BuildpackPlan { entries: &entries }).map_err(file_error)?;
        let dir = buildpack_dir(&around.buildpacks_dir, element);
        let program = dir.join("bin/build");
        let paths = [("CNB_LAYERS_DIR", own_layers.as_path()), ("CNB_BP_PLAN_PATH", &plan_path)];
        let began = Instant::now();
        let status = around
            .command(&program, (&Module::buildpack(element), &dir, toml), self.env.clone(), &paths)
            .map_err(file_error)?
            .args([&own_layers, &around.platform_dir, &plan_path])
            .status()
            .map_err(|source| BuildError::Start { program, source })?;
        (self.input.note)(&Note::Took { buildpack: name.clone(), took: began.elapsed() });
        if status.success() { Ok(()) } else { Err(BuildError::Failed { name, status }) }
    }

    /// Takes in what a buildpack has left; gives its layers.
    pub(super) fn take_in(
        &mut self,
        element: &GroupElement,
        toml: BuildpackToml,
    ) -> Result<&[Layer], BuildError> {
        let layers = self.layers_of(element)?;
        layers::set_aside(&layers).map_err(|source| BuildError::File { name: element.name(), source })?;
        self.collect(element, &toml, &layers)?;
        self.learn(element, toml, layers)
    }

    /// Takes in what a buildpack left that ran in another process: its folder is as it was left, and may be read-only.
    pub(super) fn take_over(
        &mut self,
        element: &GroupElement,
        toml: BuildpackToml,
    ) -> Result<&[Layer], BuildError> {
        let layers = self.layers_of(element)?;
        self.learn(element, toml, layers)
    }

    fn layers_of(&self, element: &GroupElement) -> Result<Vec<Layer>, BuildError> {
        let name = element.name();
        let layers = layers::read(&self.own_layers(element))
            .map_err(|source| BuildError::File { name: name.clone(), source })?;
        match layers.iter().find(|layer| layer.toml.has_old_flags()) {
            Some(layer) => Err(BuildError::OldFlags { name, layer: layer.name.clone() }),
            None => Ok(layers),
        }
    }

    fn learn(
        &mut self,
        element: &GroupElement,
        toml: BuildpackToml,
        layers: Vec<Layer>,
    ) -> Result<&[Layer], BuildError> {
        let name = element.name();
        let file_error = |source| BuildError::File { name: name.clone(), source };
        let own_layers = self.own_layers(element);
        layers::add_to_build_env(&layers, &mut self.env).map_err(file_error)?;
        let answer: BuildToml = file::read_foreign_document("build.toml", &own_layers.join("build.toml"))
            .map_err(file_error)?
            .unwrap_or_default();
        let requires = plan_of(self.input.plan, element, &self.met);
        let in_plan = |unmet: &str| requires.iter().any(|require| require.name == unmet);
        if let Some(unmet) = answer.unmet.iter().find(|unmet| !in_plan(&unmet.name)) {
            return Err(BuildError::Unmet { name, unmet: unmet.name.clone() });
        }
        let is_unmet = |require: &&Require| answer.unmet.iter().any(|unmet| unmet.name == require.name);
        let met = requires.iter().filter(|require| !is_unmet(require)).map(|require| require.name.clone());
        self.met.extend(met);
        let launch: LaunchToml = file::read_foreign_document("launch.toml", &own_layers.join("launch.toml"))
            .map_err(file_error)?
            .unwrap_or_default();
        if launch.processes.iter().filter(|process| process.default).count() > 1 {
            return Err(BuildError::Defaults(name));
        }
        refuse_versions(&name, answer.bom.iter().chain(&launch.bom))?;
        self.build_bom.extend(bom::signed(element, &answer.bom));
        self.launch_bom.extend(bom::signed(element, &launch.bom));
        let element = GroupElement { api: Some(toml.api), ..element.clone() };
        self.done.push(Done { element, toml, layers, launch });
        Ok(self.done.last().map(|done| done.layers.as_slice()).unwrap_or_default())
    }

    /// Copies the bills of all buildpacks.
    pub(super) fn collect_bills(&self) -> Result<(), BuildError> {
        self.done.iter().try_for_each(|done| self.collect(&done.element, &done.toml, &done.layers))
    }

    /// The launch.toml of each buildpack.
    pub(super) fn into_launch(self) -> Vec<(GroupElement, LaunchToml)> {
        self.done.into_iter().map(|done| (done.element, done.launch)).collect()
    }

    fn collect(
        &self,
        element: &GroupElement,
        toml: &BuildpackToml,
        layers: &[Layer],
    ) -> Result<(), BuildError> {
        let BuildInput { platform_api, layers_dir, .. } = self.input;
        let own_layers = self.own_layers(element);
        sbom::collect(*platform_api, layers_dir, &own_layers, element, &toml.buildpack.sbom_formats, layers)
    }

    pub(super) fn own_layers(&self, element: &GroupElement) -> PathBuf {
        self.input.layers_dir.join(element.id.dir())
    }
}

fn refuse_versions<'bom>(name: &str, mut entries: impl Iterator<Item = &'bom Bom>) -> Result<(), BuildError> {
    match entries.find(|entry| !entry.version.is_empty()) {
        Some(entry) => Err(BuildError::BomVersion { name: name.to_owned(), entry: entry.name.clone() }),
        None => Ok(()),
    }
}

/// The plan as one buildpack reads it.
#[derive(Debug, serde::Serialize)]
struct BuildpackPlan<'plan> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    entries: &'plan [Require],
}

/// What is asked of a buildpack: the entries it provides and that no earlier one met.
fn plan_of(plan: &Plan, element: &GroupElement, met: &[String]) -> Vec<Require> {
    let provides =
        |entry: &&coracle_cnb::Entry| entry.providers.iter().any(|provider| provider.id == element.id);
    let requires = plan.entries.iter().filter(provides).flat_map(|entry| &entry.requires);
    requires.filter(|require| !met.contains(&require.name)).cloned().collect()
}
