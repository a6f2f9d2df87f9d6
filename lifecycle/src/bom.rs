//! The unstructured bill of materials: `[[bom]]` of launch.toml and build.toml. Before Platform API 0.9 it is part of the image's
//! metadata and of the report, since then a file among the bills of materials.

use std::os::fd::BorrowedFd;
use std::path::Path;

use coracle_cnb::{Bom, BomBuildpack, BuildToml, Group, GroupElement};

use crate::folder::{self, FolderError};

/// The entries of a buildpack, with its name on them.
pub(crate) fn signed(element: &GroupElement, bom: &[Bom]) -> Vec<Bom> {
    let buildpack = BomBuildpack { id: element.id.to_string(), version: element.version.clone() };
    bom.iter().map(|entry| Bom { buildpack: Some(buildpack.clone()), ..entry.clone() }).collect()
}

/// What went into the build, but not into the image: the entries of every build.toml. No link is followed.
pub(crate) fn of_build(layers_dir: BorrowedFd<'_>, group: &Group) -> Result<Vec<Bom>, FolderError> {
    let mut all = Vec::new();
    for element in &group.group {
        let path = Path::new(&element.id.dir()).join("build.toml");
        let build: Option<BuildToml> = folder::document("build.toml", layers_dir, &path)?;
        all.extend(signed(element, &build.unwrap_or_default().bom));
    }
    Ok(all)
}
