//! A builder's layers and documents, in the form other platforms give them (Platform specification, "Builder").

use std::collections::BTreeMap;
use std::path::Path;

use coracle_cnb::{
    ApiVersion, DocumentError, Order, OrderGroup, RunImageEntry, RunToml, Stack, StackRunImage, SystemToml,
    Target, write_json, write_toml,
};
use coracle_images::{Config, History, Image, Layer};
use serde::Serialize;

use super::BuilderError;
use super::buildpacks::Buildpack;
use super::definition::Definition;
use crate::import::CREATED;
use crate::lifecycle_files::Descriptor;
use crate::worker::{Entry, LayerSource};

/// The user of the specification, whom the build image names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// What a builder has above its build image.
pub(super) struct Contents<'a> {
    pub(super) definition: &'a Definition,
    pub(super) buildpacks: &'a [Buildpack],
    pub(super) order: &'a Order,
    /// What goes around each group of it.
    pub(super) system: &'a SystemToml,
    pub(super) lifecycle: &'a Descriptor,
    /// The folder with its programs.
    pub(super) lifecycle_programs: &'a Path,
}

/// Where the worker finds the folder of buildpack `number`.
pub(super) fn source(number: usize) -> String {
    format!("/in/buildpack-{number}")
}

impl Contents<'_> {
    /// What the layers above the build image are made of, lowest first: folders, lifecycle, buildpacks, documents.
    pub(super) fn layers(&self, user: User) -> Result<Vec<LayerSource>, DocumentError> {
        let buildpacks = self.buildpacks.iter().enumerate().map(|(number, buildpack)| {
            vec![
                root_folder(&buildpack.image_folder()),
                Entry::Tree { source: source(number).into(), path: buildpack.image_path() },
            ]
        });
        let lifecycle =
            Entry::Tree { source: self.lifecycle_programs.to_owned(), path: "/cnb/lifecycle".to_owned() };
        let below = [folders(user), vec![root_folder("/cnb"), lifecycle]];
        let layers = below.into_iter().chain(buildpacks).chain([self.documents()?]);
        Ok(layers.map(LayerSource::Entries).collect())
    }

    fn documents(&self) -> Result<Vec<Entry>, DocumentError> {
        let file = |path: &str, text| Entry::File { path: path.to_owned(), text };
        let stack = StackToml { run_image: self.stack_run_image() };
        let run = RunToml { images: self.definition.run_images.clone() };
        let mut documents = vec![file("/cnb/order.toml", write_toml(self.order)?)];
        if !self.system.system.is_empty() {
            documents.push(file("/cnb/system.toml", write_toml(self.system)?));
        }
        documents.push(file("/cnb/run.toml", write_toml(&run)?));
        documents.push(file("/cnb/stack.toml", write_toml(&stack)?));
        Ok(documents)
    }

    /// The image: `base` under `layers`, which [`Contents::layers`] was made into.
    pub(super) fn image(&self, base: &Image, layers: &[Layer]) -> Result<Image, BuilderError> {
        let mut config = base.config.clone();
        config.created = Some(CREATED.to_owned());
        config.config.working_dir = "/layers".to_owned();
        extend_history(&mut config, base.manifest.layers.len(), layers.len());
        for (name, text) in self.labels(layers)? {
            config.config.labels.insert(name.to_owned(), text);
        }
        let layers = base.layers().into_iter().chain(layers.iter().cloned()).collect();
        Ok(Image::assemble(config, layers)?)
    }

    fn labels(&self, layers: &[Layer]) -> Result<Vec<(&'static str, String)>, DocumentError> {
        let metadata = Metadata {
            description: &self.definition.description,
            buildpacks: self.buildpacks.iter().map(ModuleInfo::of).collect(),
            stack: StackMetadata { run_image: self.stack_run_image() },
            lifecycle: self.lifecycle.within_builder(),
            created_by: CreatedBy { name: "Coracle", version: env!("CARGO_PKG_VERSION") },
            images: &self.definition.run_images,
        };
        let mut modules: BTreeMap<&str, BTreeMap<&str, ModuleLayer>> = BTreeMap::new();
        // Below them are the folders and the lifecycle.
        for (buildpack, layer) in self.buildpacks.iter().zip(&layers[2..]) {
            let versions = modules.entry(buildpack.toml.buildpack.id.as_str()).or_default();
            versions.insert(buildpack.version(), ModuleLayer::of(buildpack, layer));
        }
        let mut labels = vec![
            (coracle_cnb::BUILDER_METADATA_LABEL, write_json(&metadata)?),
            ("io.buildpacks.buildpack.order", write_json(&self.order.order)?),
            ("io.buildpacks.buildpack.layers", write_json(&modules)?),
        ];
        if !self.system.system.is_empty() {
            labels.push(("io.buildpacks.buildpack.system", write_json(&self.system.system)?));
        }
        Ok(labels)
    }

    /// For tools that know one run image only: the first.
    fn stack_run_image(&self) -> StackRunImage {
        let first = self.definition.run_images.first();
        first.map_or_else(StackRunImage::default, |run| StackRunImage {
            image: run.image.clone(),
            mirrors: run.mirrors.clone(),
        })
    }
}

/// The numbers that the build image's environment names (Platform specification, "Build Image").
pub(super) fn user_of(base: &Image) -> Result<User, BuilderError> {
    let id = |name: &'static str| {
        let image = || base.reference.as_ref().map(ToString::to_string).unwrap_or_default();
        let text = base.config.env(name).unwrap_or_default();
        match text.parse() {
            Ok(0) => Err(BuilderError::Root { image: image(), name }),
            Ok(id) => Ok(id),
            Err(_) => Err(BuilderError::User { image: image(), name, found: text.to_owned() }),
        }
    };
    Ok(User { uid: id("CNB_USER_ID")?, gid: id("CNB_GROUP_ID")? })
}

fn root_folder(path: &str) -> Entry {
    Entry::Folder { path: path.to_owned(), uid: 0, gid: 0 }
}

fn folders(user: User) -> Vec<Entry> {
    let own = |path: &str| Entry::Folder { path: path.to_owned(), uid: user.uid, gid: user.gid };
    let mut entries = vec![own("/workspace"), own("/layers")];
    entries.extend(
        ["/cnb", "/cnb/buildpacks", "/cnb/extensions", "/platform", "/platform/env"].map(root_folder),
    );
    entries.extend(["/cnb/build-config", "/cnb/build-config/env"].map(root_folder));
    entries
}

/// One line for each new layer. A base whose history does not tell of each of its layers gets a nameless one for each,
/// so that the lines stay beside their layers.
fn extend_history(config: &mut Config, base: usize, new: usize) {
    let line = |created_by: &str| History {
        created: Some(CREATED.to_owned()),
        created_by: created_by.to_owned(),
        ..History::default()
    };
    if config.history.iter().filter(|line| !line.empty_layer).count() != base {
        config.history = vec![line(""); base];
    }
    config.history.extend(std::iter::repeat_n(line("coracle builder create"), new));
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct StackToml {
    run_image: StackRunImage,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    description: &'a str,
    buildpacks: Vec<ModuleInfo<'a>>,
    stack: StackMetadata,
    lifecycle: serde_json::Value,
    created_by: CreatedBy<'a>,
    images: &'a [RunImageEntry],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StackMetadata {
    run_image: StackRunImage,
}

#[derive(Serialize)]
struct CreatedBy<'a> {
    name: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
struct ModuleInfo<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    homepage: Option<&'a str>,
}

impl<'a> ModuleInfo<'a> {
    fn of(buildpack: &'a Buildpack) -> Self {
        let info = &buildpack.toml.buildpack;
        Self {
            id: info.id.as_str(),
            name: &info.name,
            version: &info.version,
            description: &info.description,
            homepage: info.homepage.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct ModuleLayer<'a> {
    api: ApiVersion,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stacks: Vec<StackLabel<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<TargetLabel<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    order: &'a [OrderGroup],
    #[serde(rename = "layerDiffID")]
    diff_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    homepage: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
}

impl<'a> ModuleLayer<'a> {
    fn of(buildpack: &'a Buildpack, layer: &'a Layer) -> Self {
        let toml = &buildpack.toml;
        Self {
            api: toml.api,
            stacks: toml.stacks.iter().map(StackLabel::of).collect(),
            targets: toml.targets.iter().map(TargetLabel::of).collect(),
            order: &toml.order,
            diff_id: layer.diff_id.as_str(),
            homepage: toml.buildpack.homepage.as_deref(),
            name: &toml.buildpack.name,
        }
    }
}

#[derive(Serialize)]
struct StackLabel<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    mixins: &'a [String],
}

impl<'a> StackLabel<'a> {
    fn of(stack: &'a Stack) -> Self {
        Self { id: &stack.id, mixins: &stack.mixins }
    }
}

#[derive(Serialize)]
struct TargetLabel<'a> {
    os: &'a str,
    arch: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    variant: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    distros: &'a [coracle_cnb::Distro],
}

impl<'a> TargetLabel<'a> {
    fn of(target: &'a Target) -> Self {
        Self { os: &target.os, arch: &target.arch, variant: &target.variant, distros: &target.distros }
    }
}
