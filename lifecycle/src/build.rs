//! Execution of the group's `bin/build` programs (Platform API, "builder"), and what is composed of what they wrote.
//!
//! [`build`] runs in the sandbox. [`compose`] and [`read_launch`] also work outside of it, on the files that were left: the
//! metadata of an image does not depend on what a program in the sandbox claims.

mod compose;
mod keep;
mod layers;
mod record;
mod sbom;
mod state;
mod step;
mod tree;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use coracle_cnb::{ApiVersion, Group, GroupElement, LaunchToml, Plan};

pub use compose::{ComposeError, compose, in_form_of, read_launch, remarks};
pub use keep::{BuildLayers, KeepError, Note, SharedLayer};
pub use step::{build_step, is_open};
pub use tree::TreeError;

use crate::api::LEGACY_BOM_FILES;
use crate::detect::{CatalogError, read_one};
use crate::file::FileError;
use crate::surroundings::Surroundings;

use keep::Keeper;
use state::State;

/// The group, its plan, and what its programs find.
pub struct BuildInput<'input> {
    pub group: &'input Group,
    pub plan: &'input Plan,
    pub layers_dir: &'input Path,
    pub around: &'input Surroundings<'input>,
    pub platform_api: ApiVersion,
    /// What later buildpacks may do with layers of earlier ones. Where they may not do everything, this process ends what they
    /// leave running: it must have no children that are started meanwhile by anybody else.
    pub build_layers: BuildLayers,
    /// Layers with which they may do everything.
    pub shared: &'input [SharedLayer],
    /// Gets to know what was undone.
    pub note: &'input dyn Fn(&Note),
}

impl std::fmt::Debug for BuildInput<'_> {
    /// Without what cannot be shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuildInput")
            .field("group", self.group)
            .field("layers_dir", &self.layers_dir)
            .finish_non_exhaustive()
    }
}

/// Why the build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A step is asked for that the build does not have.
    #[error("the group has no buildpack number {0}")]
    NoStep(usize),
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
    /// The program could not be started, in the application's folder (exit 51).
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
    /// Layers could not be kept as their buildpack left them.
    #[error(transparent)]
    Keep(#[from] KeepError),
}

impl BuildError {
    /// The exit code of the builder (Platform API, "builder").
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed { .. } | Self::Start { .. } => 51,
            Self::Catalog(error) if error.is_of_api() => 12,
            _ => 52,
        }
    }
}

/// Runs the group's buildpacks one after the other; its extensions have done their part already. Their output goes where the caller's goes. Returns the launch.toml of each.
pub fn build(input: &BuildInput<'_>) -> Result<Vec<(GroupElement, LaunchToml)>, BuildError> {
    let file_error = |source| BuildError::File { name: "(all)".to_owned(), source };
    sbom::start(input.layers_dir).map_err(file_error)?;
    let mut keeper = match input.build_layers {
        BuildLayers::Snapshot => Some(Keeper::new(input.layers_dir, input.layers_dir)?),
        BuildLayers::Shared => None,
    };
    let mut state = State::new(input);
    for (number, element) in input.group.group.iter().enumerate() {
        let toml = read_one(&input.around.buildpacks_dir, element)?;
        state.run(element, &toml)?;
        if let Some(keeper) = &mut keeper {
            keeper.undo(element)?.iter().for_each(input.note);
        }
        let layers = state.take_in(element, toml)?;
        let is_last = number + 1 == input.group.group.len();
        if let Some(keeper) = keeper.as_mut().filter(|_| !is_last) {
            keeper.keep(element, layers, input.shared)?;
        }
    }
    if keeper.is_some() {
        // Of what was collected on the way, later buildpacks may have made what they like.
        sbom::start(input.layers_dir).map_err(file_error)?;
        state.collect_bills()?;
    }
    if input.platform_api >= LEGACY_BOM_FILES {
        sbom::finish(input.layers_dir, &state.build_bom, &state.launch_bom).map_err(file_error)?;
    }
    Ok(state.into_launch())
}
