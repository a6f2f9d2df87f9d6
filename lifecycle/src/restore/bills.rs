//! Bills of materials: of cached layers from the cache, of others from the previous image (Platform API, "restorer").
//!
//! They lie at `sbom/KIND/BUILDPACK/LAYER/sbom.FORMAT.json` and come back as `BUILDPACK/LAYER.sbom.FORMAT.json`.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::Path;

use coracle_images::Digest;
use nix::fcntl::{AtFlags, renameat};
use nix::sys::stat::{SFlag, fstatat};

use super::place::{failed, remove};
use super::unpacked::Unpacked;
use super::{Destination, RestoreError, RestoreInput, RestoreStep, is_layer_name};
use crate::api::SBOM_FILES;
use crate::folder;

/// Unpacks the previous image's bills to `<layers>/sbom/launch`, from where [`super::restore`] takes them: the analyzer's part, which
/// is the one that speaks to registries.
pub fn restore_launch_bills(
    to: Destination<'_>,
    diff_id: &Digest,
    archive: impl Read,
) -> Result<(), RestoreError> {
    let unpacked = Unpacked::new(to, "bills")?;
    let restored =
        unpacked.archive(archive, diff_id).and_then(|()| unpacked.publish(diff_id, "sbom", "launch"));
    unpacked.remove()?;
    restored
}

/// Puts the bills of both kinds beside the files of their layers. What cannot be read is told of.
pub(super) fn restore(input: &RestoreInput<'_>) -> Result<Vec<RestoreStep>, RestoreError> {
    let mut steps = Vec::new();
    if input.platform_api < SBOM_FILES {
        return Ok(steps);
    }
    let mut tell = |kind: &str, result: Result<(), RestoreError>| {
        let layer = format!("buildpacksio/lifecycle:{kind}.sbom");
        steps.extend(result.err().map(|source| RestoreStep::Damaged { layer, source }));
    };
    if let Ok(diff_id) = input.cache.metadata().sbom.sha.parse::<Digest>() {
        let unpacked = Unpacked::new(input.to, "bills")?;
        let bills = unpacked.path("sbom/cache");
        let restored =
            unpacked.cached(input.cache, &diff_id).and_then(|()| publish(input, unpacked.folder(), &bills));
        unpacked.remove()?;
        tell("cache", restored);
    }
    tell("launch", publish(input, input.to.layers_dir, Path::new("sbom/launch")));
    // The build begins its own.
    remove(input.to.layers_dir, OsStr::new("sbom")).map_err(|errno| failed("remove", "sbom", errno))?;
    Ok(steps)
}

/// Moves bills to the folders of those buildpacks that have anything at all.
fn publish(input: &RestoreInput<'_>, root: BorrowedFd<'_>, bills: &Path) -> Result<(), RestoreError> {
    for element in &input.group.group {
        let dir = element.id.dir();
        let Some(to) = folder::folder(input.to.layers_dir, Path::new(&dir))? else { continue };
        let bills = bills.join(&dir);
        for layer in folder::entries(root, &bills)? {
            let Some(layer) = layer.name.to_str().filter(|name| layer.is_dir && is_layer_name(name)) else {
                continue;
            };
            let path = bills.join(layer);
            let Some(from) = folder::folder(root, &path)? else { continue };
            for file in folder::entries(root, &path)? {
                let name = file.name.to_str().unwrap_or_default();
                let stat = fstatat(&from, name, AtFlags::AT_SYMLINK_NOFOLLOW)
                    .map_err(|errno| failed("look at", name, errno))?;
                let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
                if kind != SFlag::S_IFREG || !name.starts_with("sbom.") || !name.ends_with(".json") {
                    continue;
                }
                let target = format!("{layer}.{name}");
                renameat(&from, name, &to, target.as_str())
                    .map_err(|errno| failed("move", &target, errno))?;
            }
        }
    }
    Ok(())
}
