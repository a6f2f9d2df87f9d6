//! What a build left in its folders.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use coracle_cnb::{Group, GroupElement, LayerMetadata, LayerToml, StoreToml, json_of_toml};
use coracle_images::Digest;

use super::ExportError;
use crate::folder::{self, FolderError};

/// Documents of a buildpack that have the form of a layer's.
const NOT_LAYERS: [&str; 3] = ["launch", "build", "store"];

/// What lies in the build's folders.
#[derive(Debug, Default)]
pub struct Found {
    pub buildpacks: Vec<FoundBuildpack>,
    /// Whether there is a bill of materials for the image.
    pub sbom: bool,
    /// All paths of the application, relative to its folder.
    pub app: Vec<PathBuf>,
}

/// One buildpack's folder.
#[derive(Debug)]
pub struct FoundBuildpack {
    pub element: GroupElement,
    pub store: Option<StoreToml>,
    /// By name.
    pub layers: Vec<FoundLayer>,
}

/// A layer's file, folder, or both.
#[derive(Debug)]
pub struct FoundLayer {
    pub name: String,
    pub toml: LayerToml,
    pub has_folder: bool,
}

impl FoundLayer {
    /// The layer as labels tell of it.
    pub(crate) fn metadata(&self, diff_id: &Digest) -> LayerMetadata {
        let data = self.toml.metadata.as_ref().map(json_of_toml);
        let types = self.toml.types;
        let (build, launch, cache) = (types.build, types.launch, types.cache);
        LayerMetadata { sha: diff_id.to_string(), data: data.unwrap_or_default(), build, launch, cache }
    }
}

impl Found {
    /// Looks into the folders of layers and application.
    pub fn read(
        group: &Group,
        layers_dir: BorrowedFd<'_>,
        app_dir: BorrowedFd<'_>,
    ) -> Result<Self, ExportError> {
        let buildpacks = group.group.iter().map(|element| FoundBuildpack::read(layers_dir, element));
        let mut app = Vec::new();
        walk(app_dir, Path::new(""), &mut app)?;
        Ok(Self {
            buildpacks: buildpacks.collect::<Result<_, _>>()?,
            sbom: folder::folder(layers_dir, Path::new("sbom/launch"))?.is_some(),
            app,
        })
    }
}

impl FoundBuildpack {
    /// Looks into the folder of one buildpack.
    pub fn read(layers_dir: BorrowedFd<'_>, element: &GroupElement) -> Result<Self, ExportError> {
        let dir = PathBuf::from(element.id.dir());
        let entries = folder::entries(layers_dir, &dir)?;
        let is_folder = |name: &str| entries.iter().any(|entry| entry.is_dir && entry.name == name);
        let mut layers = Vec::new();
        for entry in &entries {
            // A folder is a layer whatever its name is; a file is one by its name, unless its folder came already.
            let name = entry.name.to_str();
            if name.is_none() && (entry.is_dir || entry.name.as_encoded_bytes().ends_with(b".toml")) {
                let layer = entry.name.to_string_lossy().into_owned();
                return Err(ExportError::LayerName { name: element.name(), layer });
            }
            let name = if entry.is_dir { name } else { name.and_then(|name| name.strip_suffix(".toml")) };
            let Some(name) =
                name.filter(|name| entry.is_dir || !NOT_LAYERS.contains(name) && !is_folder(name))
            else {
                continue;
            };
            let path = dir.join(format!("{name}.toml"));
            let toml: LayerToml = folder::document("layer TOML", layers_dir, &path)?.unwrap_or_default();
            if toml.has_old_flags() {
                return Err(ExportError::OldFlags { name: element.name(), layer: name.to_owned() });
            }
            // What is no folder here may still be a link to one: refused, not passed over.
            let has_folder = folder::folder(layers_dir, &dir.join(name))?.is_some();
            layers.push(FoundLayer { name: name.to_owned(), toml, has_folder });
        }
        layers.sort_by(|one, other| one.name.cmp(&other.name));
        let store = folder::document("store.toml", layers_dir, &dir.join("store.toml"))?;
        Ok(Self { element: element.clone(), store, layers })
    }
}

pub(super) fn walk(app: BorrowedFd<'_>, dir: &Path, paths: &mut Vec<PathBuf>) -> Result<(), FolderError> {
    let listed = if dir == Path::new("") { Path::new(".") } else { dir };
    for entry in folder::entries(app, listed)? {
        let path = dir.join(&entry.name);
        paths.push(path.clone());
        if entry.is_dir {
            walk(app, &path, paths)?;
        }
    }
    Ok(())
}
