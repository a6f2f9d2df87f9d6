//! Files and folders below the layers' folder. Foreign programs may have written there: nothing is followed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use coracle_cnb::{toml_of_json, write_toml};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat, mkdirat};
use serde_json::Value;

use super::{Planned, RestoreError, RestoreInput, RestoreStep};
use crate::folder;

pub(super) use crate::folder::remove;

/// Writes `store.toml` of each buildpack that had one.
pub(super) fn stores(input: &RestoreInput<'_>) -> Result<(), RestoreError> {
    for element in &input.group.group {
        let known = input.metadata.buildpacks.iter().flatten();
        let known = known.into_iter().find(|buildpack| buildpack.key == element.id.as_str());
        if let Some(store) = known.and_then(|buildpack| buildpack.store.as_ref()) {
            let folder = make_folder(input.to.layers_dir, &element.id.dir())?;
            document(folder.as_fd(), "store.toml", &store.metadata, element.id.as_str())?;
        }
    }
    Ok(())
}

/// Writes a layer's file, with its metadata only: a buildpack that wants the layer says again what it is for.
pub(super) fn metadata(input: &RestoreInput<'_>, layer: &Planned) -> Result<(), RestoreError> {
    let folder = make_folder(input.to.layers_dir, &layer.folder)?;
    document(folder.as_fd(), &format!("{}.toml", layer.name), &layer.metadata, &layer.identifier)
}

/// Removes what an earlier build has left, where platforms keep the layers' folder, of cached layers that do not come back.
pub(super) fn remove_others(
    input: &RestoreInput<'_>,
    planned: &[Planned],
) -> Result<Vec<RestoreStep>, RestoreError> {
    let mut removed = Vec::new();
    for element in &input.group.group {
        let folder = folder::folder(input.to.layers_dir, Path::new(&element.id.dir()))?;
        let cached = input.cache.buildpack(element.id.as_str()).and_then(|cached| cached.layers.as_ref());
        let (Some(folder), Some(cached)) = (folder, cached) else { continue };
        for name in cached.iter().filter(|(_, layer)| layer.cache).map(|(name, _)| name) {
            let layer = format!("{}:{name}", element.id);
            let comes = |one: &Planned| one.identifier == layer && one.content.is_some();
            let is_document = matches!(name.as_str(), "launch" | "build" | "store");
            if is_document || !super::is_layer_name(name) || planned.iter().any(comes) {
                continue;
            }
            let mut is_there = false;
            for entry in [name.clone(), format!("{name}.toml")] {
                if fstatat(&folder, entry.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW).is_ok() {
                    is_there = true;
                    remove(folder.as_fd(), OsStr::new(&entry))
                        .map_err(|errno| failed("remove", &entry, errno))?;
                }
            }
            if is_there {
                removed.push(RestoreStep::Removed { layer, why: "wrong sha" });
            }
        }
    }
    Ok(removed)
}

fn document(at: BorrowedFd<'_>, name: &str, metadata: &Value, layer: &str) -> Result<(), RestoreError> {
    #[derive(serde::Serialize)]
    struct OnlyMetadata {
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata: Option<toml::Value>,
    }
    let text = write_toml(&OnlyMetadata { metadata: toml_of_json(metadata) })
        .map_err(|source| RestoreError::Document { layer: layer.to_owned(), source })?;
    remove(at, OsStr::new(name)).map_err(|errno| failed("remove", name, errno))?;
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(at, name, flags, Mode::from_bits_truncate(0o644));
    let mut file = File::from(file.map_err(|errno| failed("write", name, errno))?);
    let path = name.to_owned();
    file.write_all(text.as_bytes()).map_err(|source| RestoreError::Write { act: "write", path, source })
}

/// A folder below another, made where there is none.
pub(super) fn make_folder(at: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, RestoreError> {
    match mkdirat(at, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(failed("make folder", name, errno)),
    }
    let made = folder::folder(at, Path::new(name))?;
    made.ok_or_else(|| failed("open folder", name, Errno::ENOENT))
}

pub(super) fn failed(act: &'static str, path: &str, errno: Errno) -> RestoreError {
    RestoreError::Write { act, path: path.to_owned(), source: errno.into() }
}
