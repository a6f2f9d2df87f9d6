//! Bills of materials: from the buildpacks' folders to `<layers>/sbom` (Buildpack API, "Bill-of-Materials").

use std::path::Path;

use coracle_cnb::{ApiVersion, Bom, BuildMetadataBom, GroupElement, write_json};

use super::BuildError;
use super::layers::Layer;
use crate::api::SBOM_FILES;
use crate::file::{self, FileError};

const FORMATS: [(&str, &str); 3] = [
    ("cdx.json", "application/vnd.cyclonedx+json"),
    ("spdx.json", "application/spdx+json"),
    ("syft.json", "application/vnd.syft+json"),
];

/// Empties `<layers>/sbom`.
pub(super) fn start(layers_dir: &Path) -> Result<(), FileError> {
    let dir = layers_dir.join("sbom");
    match std::fs::remove_dir_all(&dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(FileError::Write { path: dir, source })
        }
        _ => Ok(()),
    }
}

/// The same where `<layers>/sbom` is a mount point, which stays.
pub(super) fn empty(layers_dir: &Path) -> Result<(), FileError> {
    let dir = layers_dir.join("sbom");
    for entry in file::entries(&dir)? {
        let is_folder = std::fs::symlink_metadata(&entry.path).is_ok_and(|found| found.is_dir());
        let removed =
            if is_folder { std::fs::remove_dir_all(&entry.path) } else { std::fs::remove_file(&entry.path) };
        removed.map_err(|source| FileError::Write { path: entry.path, source })?;
    }
    Ok(())
}

/// Adds to the bills of a build that succeeded the two files that hold the older, unstructured one.
pub(super) fn finish(layers_dir: &Path, build: &[Bom], launch: &[Bom]) -> Result<(), FileError> {
    for (folder, bom) in [("build", build), ("launch", launch)] {
        let path = layers_dir.join("sbom").join(folder).join("sbom.legacy.json");
        let json = write_json(&BuildMetadataBom::new(bom))
            .map_err(|source| FileError::Document { path: path.clone(), source })?;
        file::write(&path, format!("{json}\n").as_bytes())?;
    }
    Ok(())
}

/// Copies what one buildpack wrote, unless the Platform API is older than that. All must be of a type that it declared.
pub(super) fn collect(
    platform_api: ApiVersion,
    layers_dir: &Path,
    own_layers: &Path,
    element: &GroupElement,
    declared: &[String],
    layers: &[Layer],
) -> Result<(), BuildError> {
    let failed = |source| BuildError::File { name: element.name(), source };
    for entry in file::entries(own_layers).map_err(failed)?.into_iter().filter(|entry| !entry.is_dir) {
        let Some((of, format)) = entry.name().to_str().and_then(parts) else { continue };
        let kinds = kinds(of, layers);
        if kinds.is_empty() {
            continue;
        }
        let known = FORMATS.iter().find(|(suffix, _)| format.strip_suffix(suffix) == Some(".sbom."));
        let Some((format, _)) = known.filter(|(_, media)| declared.iter().any(|one| is_of(one, media)))
        else {
            return Err(BuildError::Sbom { name: element.name(), path: entry.path.clone() });
        };
        if platform_api < SBOM_FILES {
            continue;
        }
        let bytes = file::read_foreign_bytes(&entry.path).map_err(failed)?.unwrap_or_default();
        for kind in kinds {
            let mut target = layers_dir.join("sbom").join(kind).join(element.id.dir());
            if !matches!(of, "launch" | "build") {
                target.push(of);
            }
            file::write(&target.join(format!("sbom.{format}")), &bytes).map_err(failed)?;
        }
    }
    Ok(())
}

/// Of whom a bill is, and the rest of its name, if it is the name of one. Layers with a dot in their names can have none.
fn parts(name: &str) -> Option<(&str, &str)> {
    name.strip_suffix(".json").filter(|rest| rest.contains(".sbom."))?;
    name.find('.').map(|dot| name.split_at(dot))
}

/// Whether a declared media type, whatever its parameters and case (RFC 2045), is this one.
fn is_of(declared: &str, media: &str) -> bool {
    declared.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media)
}

/// Under which of `launch`, `build` and `cache` a bill belongs: under none where there is no such layer.
fn kinds(of: &str, layers: &[Layer]) -> Vec<&'static str> {
    match of {
        "launch" => vec!["launch"],
        "build" => vec!["build"],
        layer => {
            let Some(layer) = layers.iter().find(|known| known.name == layer) else { return Vec::new() };
            let types = layer.toml.types;
            let mut kinds = vec![if types.launch { "launch" } else { "build" }];
            if types.cache {
                kinds.push("cache");
            }
            kinds
        }
    }
}
