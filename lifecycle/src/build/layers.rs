//! The layers that one buildpack left.

use std::path::{Path, PathBuf};

use coracle_cnb::LayerToml;

use crate::env::{Action, Env, EnvDelta, Purpose, add_layer_dirs};
use crate::file::{self, FileError};

/// Files of a buildpack that are no layers.
pub(super) const NOT_LAYERS: [&str; 3] = ["launch", "build", "store"];

/// A layer by its `<layer>.toml`.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) toml: LayerToml,
}

/// Every layer in the order of the files' names. The files that are no layers count as ones without flags, as with the reference: a
/// folder of that name is for nothing.
pub(crate) fn read(own_layers: &Path) -> Result<Vec<Layer>, FileError> {
    let mut layers = Vec::new();
    for entry in file::entries(own_layers)?.into_iter().filter(|entry| !entry.is_dir) {
        let name = entry.name().to_str().and_then(|name| name.strip_suffix(".toml")).map(str::to_owned);
        let Some(name) = name else { continue };
        let toml = file::read_foreign_document("layer TOML", &entry.path)?.unwrap_or_default();
        layers.push(Layer { path: own_layers.join(&name), name, toml });
    }
    Ok(layers)
}

/// Renames folders that are for nothing to `<layer>.ignore`, where later programs do not look.
pub(super) fn set_aside(layers: &[Layer]) -> Result<(), FileError> {
    for layer in layers {
        let types = layer.toml.types;
        if types.launch || types.build || types.cache {
            continue;
        }
        let aside = layer.path.with_file_name(format!("{}.ignore", layer.name));
        match std::fs::rename(&layer.path, &aside) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(FileError::Write { path: aside, source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Adds what `build` layers bring to the environment of later buildpacks: one after the other, each its folders, then its files. It is
/// for launch that the folders of all come first.
pub(super) fn add_to_build_env(layers: &[Layer], env: &mut Env) -> Result<(), FileError> {
    for layer in layers.iter().filter(|layer| layer.toml.types.build) {
        add_layer_dirs(env, &layer.path, Purpose::Build);
        EnvDelta::read(&layer.path.join("env"), Action::Override)?.apply(env);
        EnvDelta::read(&layer.path.join("env.build"), Action::Override)?.apply(env);
    }
    Ok(())
}
