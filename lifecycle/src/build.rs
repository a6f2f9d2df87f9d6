//! Execution of the group's `bin/build` programs (Platform API, "builder"), and what is composed of what they wrote.
//!
//! [`build`] runs in the sandbox. [`compose`] and [`read_launch`] also work outside of it, on the files that were left: the
//! metadata of an image does not depend on what a program in the sandbox claims.

mod compose;
mod layers;
mod sbom;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use coracle_cnb::{ApiVersion, Bom, BuildToml, Group, GroupElement, LaunchToml, Plan, Require};

pub use compose::{ComposeError, compose, in_form_of, read_launch};

use crate::api::LEGACY_BOM_FILES;
use crate::bom;
use crate::detect::{CatalogError, Module, buildpack_dir, read_one};
use crate::env::{self, Env};
use crate::file::{self, FileError};
use crate::surroundings::Surroundings;

/// The group, its plan, and what its programs find.
#[derive(Debug)]
pub struct BuildInput<'input> {
    pub group: &'input Group,
    pub plan: &'input Plan,
    pub layers_dir: &'input Path,
    pub around: &'input Surroundings<'input>,
    pub platform_api: ApiVersion,
}

/// Why the build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The group has image extensions.
    #[error("image extensions are not supported: group.toml has [[group-extensions]]")]
    Extensions,
    /// A buildpack is not in the builder.
    #[error("build")]
    Catalog(#[from] CatalogError),
    /// A file could not be read or written.
    #[error("build with buildpack `{name}`")]
    File {
        name: String,
        #[source]
        source: FileError,
    },
    /// The program could not be started.
    #[error("run `{program}`")]
    Start {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The program said that it failed (exit 51).
    #[error("buildpack `{name}` failed: {status}")]
    Failed { name: String, status: ExitStatus },
    /// A layer's file has its flags in the form before Buildpack API 0.6.
    #[error("layer `{layer}` of buildpack `{name}`: launch, build and cache belong into the table [types]")]
    OldFlags { name: String, layer: String },
    /// build.toml names something as unmet that was not in the plan.
    #[error("buildpack `{name}`: build.toml says `{unmet}` is unmet, which is not in its plan")]
    Unmet { name: String, unmet: String },
    /// Since Buildpack API 0.7 versions are metadata.
    #[error(
        "buildpack `{name}`: entry `{entry}` of [[bom]] has a version of its own: it belongs into the entry's metadata"
    )]
    BomVersion { name: String, entry: String },
    /// Nobody could say which process the buildpack means.
    #[error("buildpack `{0}`: launch.toml has more than one process with `default = true`")]
    Defaults(String),
    /// A bill of materials has a type that buildpack.toml does not declare.
    #[error("buildpack `{name}`: `{path}` has a type that sbom-formats in buildpack.toml does not declare")]
    Sbom { name: String, path: PathBuf },
}

impl BuildError {
    /// The exit code of the builder (Platform API, "builder").
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed { .. } => 51,
            Self::Catalog(CatalogError::Api { .. }) => 12,
            _ => 52,
        }
    }
}

/// Runs the group's programs one after the other. Their output goes where the caller's goes. Returns the launch.toml of each.
pub fn build(input: &BuildInput<'_>) -> Result<Vec<(GroupElement, LaunchToml)>, BuildError> {
    if !input.group.group_extensions.is_empty() {
        return Err(BuildError::Extensions);
    }
    let file_error = |name: &str| {
        let name = name.to_owned();
        move |source| BuildError::File { name, source }
    };
    sbom::start(input.layers_dir).map_err(file_error("(all)"))?;
    let mut env = env::build_env(input.around.outer_env);
    let mut met: Vec<String> = Vec::new();
    let mut built = Vec::new();
    let (mut build_bom, mut launch_bom) = (Vec::new(), Vec::new());
    for element in &input.group.group {
        let name = element.name();
        let toml = read_one(&input.around.buildpacks_dir, element)?;
        let own_layers = input.layers_dir.join(element.id.dir());
        std::fs::create_dir_all(&own_layers).map_err(|source| BuildError::File {
            name: name.clone(),
            source: FileError::Write { path: own_layers.clone(), source },
        })?;
        let requires = plan_of(input.plan, element, &met);
        let plan_path = input.around.scratch_dir.join(element.id.dir()).join("plan.toml");
        file::write_document(&plan_path, &BuildpackPlan { entries: &requires }).map_err(file_error(&name))?;
        run(input, element, &toml, &env, &own_layers, &plan_path)?;

        let layers = layers::read(&own_layers).map_err(file_error(&name))?;
        if let Some(layer) = layers.iter().find(|layer| layer.toml.has_old_flags()) {
            return Err(BuildError::OldFlags { name, layer: layer.name.clone() });
        }
        layers::set_aside(&layers).map_err(file_error(&name))?;
        layers::add_to_build_env(&layers, &mut env).map_err(file_error(&name))?;
        sbom::collect(
            input.platform_api,
            input.layers_dir,
            &own_layers,
            element,
            &toml.buildpack.sbom_formats,
            &layers,
        )?;

        let answer: BuildToml = file::read_foreign_document("build.toml", &own_layers.join("build.toml"))
            .map_err(file_error(&name))?
            .unwrap_or_default();
        let in_plan = |unmet: &str| requires.iter().any(|require| require.name == unmet);
        if let Some(unmet) = answer.unmet.iter().find(|unmet| !in_plan(&unmet.name)) {
            return Err(BuildError::Unmet { name, unmet: unmet.name.clone() });
        }
        let is_unmet = |require: &&Require| answer.unmet.iter().any(|unmet| unmet.name == require.name);
        met.extend(requires.iter().filter(|require| !is_unmet(require)).map(|require| require.name.clone()));
        let launch: LaunchToml = file::read_foreign_document("launch.toml", &own_layers.join("launch.toml"))
            .map_err(file_error(&name))?
            .unwrap_or_default();
        if launch.processes.iter().filter(|process| process.default).count() > 1 {
            return Err(BuildError::Defaults(name));
        }
        refuse_versions(&name, answer.bom.iter().chain(&launch.bom))?;
        build_bom.extend(bom::signed(element, &answer.bom));
        launch_bom.extend(bom::signed(element, &launch.bom));
        built.push((GroupElement { api: Some(toml.api), ..element.clone() }, launch));
    }
    if input.platform_api >= LEGACY_BOM_FILES {
        sbom::finish(input.layers_dir, &build_bom, &launch_bom).map_err(file_error("(all)"))?;
    }
    Ok(built)
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

fn run(
    input: &BuildInput<'_>,
    element: &GroupElement,
    toml: &coracle_cnb::BuildpackToml,
    env: &Env,
    own_layers: &Path,
    plan_path: &Path,
) -> Result<(), BuildError> {
    let name = element.name();
    let file_error = |source| BuildError::File { name: name.clone(), source };
    let dir = buildpack_dir(&input.around.buildpacks_dir, element);
    let program = dir.join("bin/build");
    let paths = [("CNB_LAYERS_DIR", own_layers), ("CNB_BP_PLAN_PATH", plan_path)];
    let status = input
        .around
        .command(&program, (&Module::buildpack(element), &dir, toml), env.clone(), &paths)
        .map_err(file_error)?
        .args([own_layers, &input.around.platform_dir, plan_path])
        .status()
        .map_err(|source| BuildError::Start { program, source })?;
    if status.success() { Ok(()) } else { Err(BuildError::Failed { name, status }) }
}
