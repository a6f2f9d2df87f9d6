//! What extensions want images to be extended with (Image Extension, "Phase #2: Generation"): their `bin/generate` programs,
//! the Dockerfiles that they leave, and what follows for run image and plan. The images themselves are not touched here.

mod dockerfile;
mod output;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use coracle_cnb::{Analyzed, ApiVersion, BuildpackToml, Entry, GroupElement, Plan, Require, RunImage};

use dockerfile::Dockerfile;
pub use dockerfile::DockerfileError;
use output::{Kind, Output};

use crate::api::{EXTENSIONS_KEEP_FOLDERS, TARGETS};
use crate::detect::{CatalogError, Module, module_dir, read_module};
use crate::env;
use crate::file::{self, FileError};
use crate::folder::FolderError;
use crate::surroundings::Surroundings;

/// Whether a text is a `run.Dockerfile`, and a `build.Dockerfile`: for fuzz targets.
#[doc(hidden)]
pub fn dockerfiles(text: &str) -> [Result<(), DockerfileError>; 2] {
    [Dockerfile::run(text).map(drop), Dockerfile::build(text).map(drop)]
}

/// What generation has to do with.
#[derive(Debug)]
pub struct GenerateInput<'a> {
    /// Those of the group.
    pub extensions: &'a [GroupElement],
    pub plan: Plan,
    pub analyzed: Analyzed,
    /// Where Dockerfiles go.
    pub generated_dir: &'a Path,
    pub around: &'a Surroundings<'a>,
    pub platform_api: ApiVersion,
}

/// What came of it.
#[derive(Debug, PartialEq)]
pub struct Generated {
    /// With the run image as extensions want it.
    pub analyzed: Analyzed,
    /// Without what extensions provided.
    pub plan: Plan,
}

/// What people should know of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The image that replaces the run image.
    pub new_base: Option<String>,
    /// The Dockerfiles by which images are to be extended, each with its extension: where there are none, nothing is left to be done
    /// but to take another run image.
    pub extending: Vec<String>,
    /// What is better not done.
    pub warnings: Vec<String>,
}

/// Why nothing was generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// An extension is not in the builder.
    #[error("generate")]
    Catalog(#[from] CatalogError),
    /// A file could not be read or written.
    #[error("generate with extension `{name}`")]
    File {
        name: String,
        #[source]
        source: FileError,
    },
    /// What a program left could not be read.
    #[error("generate with extension `{name}`: read what it left")]
    Output {
        name: String,
        #[source]
        source: FolderError,
    },
    /// A program could not be started.
    #[error("start `{program}`")]
    Start {
        program: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A program failed.
    #[error("extension `{name}`: bin/generate failed: {status}")]
    Failed { name: String, status: ExitStatus },
    /// A Dockerfile is not as it has to be.
    #[error("extension `{name}`: {document} is refused")]
    Dockerfile {
        name: String,
        document: String,
        #[source]
        source: DockerfileError,
    },
    /// extend-config.toml names an argument that the extender sets itself.
    #[error(
        "extension `{name}`: extend-config.toml sets `{argument}`, which the extender does: rename the argument"
    )]
    Argument { name: String, argument: String },
    /// It cannot be said which folder is meant.
    #[error(
        "extension `{name}`: there is a folder `context` and one for build or run besides: keep one kind"
    )]
    Contexts { name: String },
}

impl GenerateError {
    /// The exit code of the detector (Platform API, "detector").
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed { .. } | Self::Start { .. } => 91,
            _ => 92,
        }
    }
}

/// Runs the programs of the group's extensions, one after the other. Their output goes where the caller's goes.
///
/// # Errors
/// [`GenerateError`], whose exit code says whether it was a program.
pub fn generate(input: GenerateInput<'_>) -> Result<(Generated, Told), GenerateError> {
    let GenerateInput { extensions, mut plan, mut analyzed, generated_dir, around, platform_api } = input;
    let keep = platform_api >= EXTENSIONS_KEEP_FOLDERS;
    let place = if keep { generated_dir.to_owned() } else { around.scratch_dir.join("generated") };
    let (mut outputs, mut warnings) = (Vec::new(), Vec::new());
    for element in extensions {
        let module = Module::extension(element);
        let toml = read_module(&around.extensions_dir, &module)?;
        let requires = take_provided(&mut plan, element);
        let output = run(around, &module, &toml, &requires, &place.join(element.id.dir()))?;
        warnings.extend(output.warnings());
        outputs.push(output);
    }
    let (new_base, extend) = run_image_of(&mut outputs);
    let known = analyzed.run_image.as_ref().map(|run_image| run_image.image.as_str()).unwrap_or_default();
    let new_base = new_base.filter(|base| platform_api < TARGETS || base != known);
    if let Some(base) = &new_base {
        analyzed.run_image =
            Some(RunImage { reference: base.clone(), image: base.clone(), extend, ..RunImage::default() });
    }
    if let Some(run_image) = analyzed.run_image.as_mut().filter(|_| extend) {
        run_image.extend = true;
    }
    for output in &outputs {
        if keep { output.set_aside()? } else { output.copy_to(generated_dir)? }
    }
    let extending = outputs.iter().flat_map(Output::extending).collect();
    Ok((Generated { analyzed, plan }, Told { new_base, extending, warnings }))
}

/// What extensions leave of a plan to buildpacks.
pub fn without_provided(mut plan: Plan, extensions: &[GroupElement]) -> Plan {
    for element in extensions {
        take_provided(&mut plan, element);
    }
    plan
}

/// Takes out of the plan what an extension is to provide, and says what that is.
fn take_provided(plan: &mut Plan, element: &GroupElement) -> Vec<Require> {
    let requires = requires_of(plan, element);
    plan.entries.retain(|entry| !provided(entry, &requires));
    requires
}

/// The entries of the plan that an extension is to provide.
fn requires_of(plan: &Plan, element: &GroupElement) -> Vec<Require> {
    let is_provider = |entry: &&Entry| {
        entry.providers.iter().any(|provider| provider.extension && provider.id == element.id)
    };
    plan.entries.iter().filter(is_provider).flat_map(|entry| entry.requires.clone()).collect()
}

/// Whether an entry has been provided: an extension leaves nothing of its plan to others.
fn provided(entry: &Entry, met: &[Require]) -> bool {
    entry.requires.iter().any(|require| met.iter().any(|met| met.name == require.name))
}

#[derive(serde::Serialize)]
struct ExtensionPlan<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    entries: &'a [Require],
}

fn run(
    around: &Surroundings<'_>,
    module: &Module,
    toml: &BuildpackToml,
    requires: &[Require],
    place: &Path,
) -> Result<Output, GenerateError> {
    let name = module.to_string();
    let file_error = |source| GenerateError::File { name: name.clone(), source };
    let made = |source| file_error(FileError::Write { path: place.to_owned(), source });
    std::fs::create_dir_all(place).map_err(made)?;
    let plan = around.scratch_dir.join("generate").join(module.id.dir()).join("plan.toml");
    file::write_document(&plan, &ExtensionPlan { entries: requires }).map_err(file_error)?;
    let dir = module_dir(&around.extensions_dir, module);
    let program = dir.join("bin/generate");
    if !program.exists() {
        return Output::read(module, &dir.join("generate"), false);
    }
    let inherited = env::build_env(around.outer_env);
    let paths = [("CNB_BP_PLAN_PATH", plan.as_path()), ("CNB_OUTPUT_DIR", place)];
    let status = around
        .command(&program, (module, &dir, toml), inherited, &paths)
        .map_err(file_error)?
        // These an extension has at every API.
        .envs(paths)
        .env("CNB_PLATFORM_DIR", &around.platform_dir)
        // What an image is extended with does not depend on what the application is for.
        .env_remove("CNB_EXEC_ENV")
        .args([place, &around.platform_dir, &plan])
        .status()
        .map_err(|source| GenerateError::Start { program, source })?;
    if !status.success() {
        return Err(GenerateError::Failed { name, status });
    }
    Output::read(module, place, true)
}

/// The image that the last `run.Dockerfile` with one names, and whether it, or one after it, is to be extended; those before
/// it count no more.
fn run_image_of(outputs: &mut [Output]) -> (Option<String>, bool) {
    let (mut base, mut extend) = (None, false);
    for output in outputs.iter_mut().rev() {
        let Some(file) = output.files.get_mut(&Kind::Run) else { continue };
        if base.is_some() {
            file.ignored = true;
            continue;
        }
        extend |= file.extends;
        base = file.other_base.take();
    }
    (base, extend)
}
