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
        let Some((of, format)) = entry.name().to_str().and_then(|name| name.split_once(".sbom.")) else {
            continue;
        };
        let known = FORMATS.iter().find(|(suffix, _)| *suffix == format);
        if !known.is_some_and(|(_, media)| declared.iter().any(|declared| declared == media)) {
            return Err(BuildError::Sbom { name: element.name(), path: entry.path.clone() });
        }
        if platform_api < SBOM_FILES {
            continue;
        }
        let bytes = file::read_foreign_bytes(&entry.path).map_err(failed)?.unwrap_or_default();
        for kind in kinds(of, layers) {
            let mut target = layers_dir.join("sbom").join(kind).join(element.id.dir());
            if !matches!(of, "launch" | "build") {
                target.push(of);
            }
            file::write(&target.join(format!("sbom.{format}")), &bytes).map_err(failed)?;
        }
    }
    Ok(())
}

/// Under which of `launch`, `build` and `cache` a bill belongs.
fn kinds(of: &str, layers: &[Layer]) -> Vec<&'static str> {
    match of {
        "launch" => vec!["launch"],
        "build" => vec!["build"],
        layer => {
            let types = layers
                .iter()
                .find(|known| known.name == layer)
                .map(|known| known.toml.types)
                .unwrap_or_default();
            let mut kinds = vec![if types.launch { "launch" } else { "build" }];
            if types.cache {
                kinds.push("cache");
            }
            kinds
        }
    }
}
