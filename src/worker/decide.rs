//! Decisions on what phases with foreign programs left behind. Their files are opened below a handle, links are not
//! followed, and everything in them is a stranger's word.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use coracle_cnb::{Analyzed, ApiVersion, Group, GroupElement};
use coracle_lifecycle::api::runs_buildpack_api;
use coracle_lifecycle::describe::Description;
use coracle_lifecycle::detect::{Catalog, DetectRun, Given, complete, resolve};
use coracle_lifecycle::phases::DetectRuns;
use coracle_lifecycle::{build, folder};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{AnyError, Job, left};
use crate::build::folders::Folders;
use crate::build::foreign::ANALYZES_FIRST;
use crate::build::foreign::left::Tree;

/// Bring documents that a phase wrote to those that later phases read.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Keep {
    pub(crate) folders: Folders,
    pub(crate) phase: String,
    /// File names; what a phase did not write is not missed here.
    pub(crate) documents: Vec<String>,
}

impl Job for Keep {
    /// The texts, in the order asked for; empty for what is not there.
    type Answer = Vec<String>;

    fn carry_out(self) -> Result<Vec<String>, AnyError> {
        let out = File::open(self.folders.out(&self.phase))?;
        let keep = |name: &String| -> Result<String, AnyError> {
            let Some(text) = folder::text(out.as_fd(), Path::new(name))? else { return Ok(String::new()) };
            fs::write(self.folders.control().join(name), &text)?;
            Ok(text)
        };
        self.documents.iter().map(keep).collect()
    }
}

/// Use nothing of the image that the analyzer found.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Disbelieve {
    pub(crate) folders: Folders,
}

impl Job for Disbelieve {
    type Answer = ();

    fn carry_out(self) -> Result<(), AnyError> {
        let control = self.folders.control();
        let analyzed: Analyzed = read_toml(&control, "analyzed.toml")?;
        let known = Analyzed { image: None, metadata: Default::default(), ..analyzed };
        fs::write(control.join("analyzed.toml"), coracle_cnb::write_toml(&known)?)?;
        // Its bills of materials.
        Ok(folder::remove(File::open(self.folders.layers())?.as_fd(), "sbom".as_ref())?)
    }
}

/// Choose group and plan from what the programs said.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Detect {
    pub(crate) folders: Folders,
    /// What the image is for.
    pub(crate) exec_env: String,
}

/// What was chosen, and what each program said.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Detected {
    /// The buildpacks that take part, by id and version; or the phase's exit code, and why none do.
    pub(crate) group: Result<Vec<String>, (u8, String)>,
    /// The extensions that take part, too.
    pub(crate) extensions: Vec<String>,
    pub(crate) runs: Vec<DetectLine>,
    /// What became of each group that was tried, for people.
    pub(crate) tried: Vec<String>,
}

/// One program's result, for people.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DetectLine {
    pub(crate) buildpack: String,
    pub(crate) exit: i32,
    pub(crate) output: String,
}

impl Job for Detect {
    type Answer = Detected;

    fn carry_out(self) -> Result<Detected, AnyError> {
        let description: Description = read_json(&self.folders.out("describe-builder"), "builder.json")?;
        let runs: DetectRuns = read_toml(&self.folders.out("detect-programs"), "detect-runs.toml")?;
        let analyzed: Analyzed = read_toml(&self.folders.control(), "analyzed.toml")?;
        let target = analyzed.run_image.as_ref().and_then(|image| image.target.as_ref());
        let target = complete(target, description.distro.as_ref());
        let catalog = Catalog::of(description.buildpacks, description.extensions, description.unusable);
        let given = Given { target: Some(&target), exec_env: Some(&self.exec_env) };
        let (detected, tried) = resolve(&description.order, &catalog, given, &mut runs.runs.as_slice());
        let mut extensions = Vec::new();
        let group = match detected {
            Ok(detected) => {
                let control = self.folders.control();
                fs::write(control.join("group.toml"), coracle_cnb::write_toml(&detected.group)?)?;
                fs::write(control.join("plan.toml"), coracle_cnb::write_toml(&detected.plan)?)?;
                extensions.extend(detected.group.group_extensions.iter().map(GroupElement::name));
                Ok(detected.group.group.iter().map(GroupElement::name).collect())
            }
            Err(error) => Err((error.exit_code(), error.to_string())),
        };
        let line = |run: DetectRun| DetectLine {
            buildpack: run.module.to_string(),
            exit: run.exit,
            output: run.output,
        };
        let tried = tried.iter().map(ToString::to_string).collect();
        Ok(Detected { group, extensions, runs: runs.runs.into_iter().map(line).collect(), tried })
    }
}

/// Compose the image's metadata from each buildpack's own launch.toml.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Compose {
    pub(crate) folders: Folders,
    /// In the form of this Platform API.
    pub(crate) api: ApiVersion,
    /// Whether the exporter is another lifecycle's, which looks among the layers.
    pub(crate) among_layers: bool,
    /// Whether the builder is another lifecycle's, which composed them for buildpacks that ours does not know.
    pub(crate) built_elsewhere: bool,
}

impl Job for Compose {
    /// What buildpacks left that another lifecycle's exporter is not given, for people.
    type Answer = Vec<String>;

    fn carry_out(self) -> Result<Vec<String>, AnyError> {
        let group: Group = read_toml(&self.folders.control(), "group.toml")?;
        let layers = File::open(self.folders.layers())?;
        let is_known = |element: &GroupElement| element.api.is_some_and(runs_buildpack_api);
        let ours = self.api >= ANALYZES_FIRST && group.group.iter().all(is_known);
        if self.built_elsewhere && !ours {
            super::foreign::check_metadata(layers.as_fd(), &group)?;
            return self.left(layers.as_fd(), &group);
        }
        let built = build::read_launch(layers.as_fd(), &group)?;
        let mut metadata = build::compose(&built, &group)?;
        build::in_form_of(self.api, &built, &mut metadata);
        let text = coracle_cnb::write_toml(&metadata)?;
        if self.among_layers {
            super::foreign::put_among_layers(layers.as_fd(), &text)?;
        }
        fs::write(self.folders.control().join("metadata.toml"), text)?;
        self.left(layers.as_fd(), &group)
    }
}

impl Compose {
    /// Our own exporter needs nobody to look before it.
    fn left(&self, layers: BorrowedFd<'_>, group: &Group) -> Result<Vec<String>, AnyError> {
        if !self.among_layers {
            return Ok(Vec::new());
        }
        let workspace = File::open(self.folders.workspace())?;
        let mut removed = left::check(Tree::Layers, layers, group)?;
        removed.extend(left::check(Tree::Workspace, workspace.as_fd(), group)?);
        Ok(removed)
    }
}

pub(super) fn read_toml<T: DeserializeOwned>(dir: &Path, name: &'static str) -> Result<T, AnyError> {
    let found = folder::document(name, File::open(dir)?.as_fd(), Path::new(name))?;
    found.ok_or_else(|| format!("a phase ended without writing {name}").into())
}

pub(super) fn read_json<T: DeserializeOwned>(dir: &Path, name: &'static str) -> Result<T, AnyError> {
    let found = folder::text(File::open(dir)?.as_fd(), Path::new(name))?;
    let text = found.ok_or_else(|| format!("a phase ended without writing {name}"))?;
    serde_json::from_str(&text).map_err(|error| format!("could not read {name}: {error}").into())
}
