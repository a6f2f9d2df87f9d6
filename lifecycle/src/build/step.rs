//! One buildpack of the group by itself, in a container where the folders of earlier ones are read-only
//! (docs/decisions/0013-layers-of-earlier-buildpacks.md, "strict").

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use coracle_cnb::{GroupElement, LayerToml};
use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, statvfs};

use super::keep::{KeepError, Keeper, SharedLayer};
use super::layers::NOT_LAYERS;
use super::state::State;
use super::{BuildError, BuildInput, sbom};
use crate::api::LEGACY_BOM_FILES;
use crate::detect::read_one;
use crate::folder::{self, FolderError};

/// Runs the program of one buildpack, by its number in the group. What it learns of those before it comes from their folders.
/// Folders of theirs that can be written, because a layer in them is shared, are kept as `snapshot` keeps them. The last
/// step collects the bills of materials; nothing is composed.
pub fn build_step(input: &BuildInput<'_>, number: usize) -> Result<(), BuildError> {
    let group = &input.group.group;
    let Some((element, earlier)) = group.get(..=number).and_then(<[_]>::split_last) else {
        return Err(BuildError::NoStep(number));
    };
    let file_error = |source| BuildError::File { name: element.name(), source };
    if earlier.is_empty() {
        sbom::empty(input.layers_dir).map_err(file_error)?;
    }
    let mut state = State::new(input);
    let mut keeper = Keeper::new(input.layers_dir, &state.own_layers(element))?;
    for element in earlier {
        let folder = state.own_layers(element);
        let layers = state.take_over(element, read_one(&input.around.buildpacks_dir, element)?)?;
        if can_be_written(&folder)? {
            keeper.keep(element, layers, input.shared)?;
        }
    }
    let toml = read_one(&input.around.buildpacks_dir, element)?;
    state.run(element, &toml)?;
    keeper.undo(element)?.iter().for_each(input.note);
    state.take_in(element, toml)?;
    if number + 1 == group.len() {
        // Of what was collected on the way, later buildpacks may have made what they like.
        sbom::empty(input.layers_dir).map_err(file_error)?;
        state.collect_bills()?;
        if input.platform_api >= LEGACY_BOM_FILES {
            sbom::finish(input.layers_dir, &state.build_bom, &state.launch_bom).map_err(file_error)?;
        }
    }
    Ok(())
}

/// The kernel's word, not that of whoever mounted the folder.
fn can_be_written(folder: &Path) -> Result<bool, KeepError> {
    match statvfs(folder) {
        Ok(found) => Ok(!found.flags().contains(FsFlags::ST_RDONLY)),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(KeepError::Record { path: folder.to_owned(), source: errno.into() }),
    }
}

/// Whether later buildpacks write into the folder of this one: a layer in it is shared. No link is followed.
pub fn is_open(
    layers_dir: BorrowedFd<'_>,
    element: &GroupElement,
    shared: &[SharedLayer],
) -> Result<bool, FolderError> {
    if shared.iter().any(|shared| shared.buildpack == element.id) {
        return Ok(true);
    }
    let folder = PathBuf::from(element.id.dir());
    for entry in folder::entries(layers_dir, &folder)?.into_iter().filter(|entry| !entry.is_dir) {
        let layer = entry.name.to_str().and_then(|name| name.strip_suffix(".toml"));
        if layer.is_none_or(|layer| NOT_LAYERS.contains(&layer)) {
            continue;
        }
        let toml: Option<LayerToml> = folder::document("layer TOML", layers_dir, &folder.join(&entry.name))?;
        if toml.is_some_and(|toml| toml.coracle.shared) {
            return Ok(true);
        }
    }
    Ok(false)
}
