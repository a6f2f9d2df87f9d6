//! The content of layers, from the archives of the cache.

use std::ffi::OsStr;
use std::io::BufReader;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use coracle_images::unpack::{Limits, unpack_layer_at};
use coracle_images::{Digest, Hashing};
use nix::fcntl::{AtFlags, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, fstatat};

use super::place::{failed, make_folder, remove};
use super::{Planned, RestoreError, RestoreInput, RestoreStep, is_layer_name};
use crate::folder;

/// How many layers are unpacked at once; more would only wait for the same disk.
const WORKERS: usize = 4;

/// Unpacks the planned layers' content, several at once, and the bills of materials.
pub(super) fn restore(
    input: &RestoreInput<'_>,
    planned: &[Planned],
) -> Result<Vec<RestoreStep>, RestoreError> {
    let layers: Vec<(&Planned, &Digest)> =
        planned.iter().filter_map(|layer| Some((layer, layer.content.as_ref()?))).collect();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS.min(layers.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some((layer, diff_id)) = layers.get(at) else { break };
                    let step = restore_layer(input, at, layer, diff_id);
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((at, step));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    let mut steps = done.into_iter().map(|(_, step)| step).collect::<Result<Vec<_>, _>>()?;
    steps.extend(bills(input, layers.len())?);
    Ok(steps)
}

fn restore_layer(
    input: &RestoreInput<'_>,
    at: usize,
    layer: &Planned,
    diff_id: &Digest,
) -> Result<RestoreStep, RestoreError> {
    let unpacked = Unpacked::new(input, at)?;
    let restored =
        unpacked.archive(diff_id).and_then(|()| unpacked.publish(diff_id, &layer.folder, &layer.name));
    unpacked.remove()?;
    let name = layer.identifier.clone();
    let Err(source) = restored else { return Ok(RestoreStep::Content(name)) };
    // Without its file a layer does not exist; what of its folder was published is nothing.
    let folder = make_folder(input.layers_dir, &layer.folder)?;
    let file = format!("{}.toml", layer.name);
    remove(folder.as_fd(), OsStr::new(&file)).map_err(|errno| failed("remove", &file, errno))?;
    Ok(RestoreStep::Damaged { layer: name, source })
}

/// Puts the bills of cached layers beside the layers' files.
fn bills(input: &RestoreInput<'_>, at: usize) -> Result<Option<RestoreStep>, RestoreError> {
    let sha = &input.cache.metadata().sbom.sha;
    let Ok(diff_id) = sha.parse::<Digest>() else { return Ok(None) };
    let unpacked = Unpacked::new(input, at)?;
    let restored = unpacked.archive(&diff_id).and_then(|()| unpacked.publish_bills("cache"));
    unpacked.remove()?;
    let layer = "buildpacksio/lifecycle:cache.sbom".to_owned();
    Ok(restored.err().map(|source| RestoreStep::Damaged { layer, source }))
}

/// A folder into which one archive is unpacked; what is good moves out of it.
struct Unpacked<'a> {
    input: &'a RestoreInput<'a>,
    name: String,
    folder: OwnedFd,
}

impl<'a> Unpacked<'a> {
    fn new(input: &'a RestoreInput<'a>, at: usize) -> Result<Self, RestoreError> {
        let name = format!(".restoring-{at}");
        remove(input.layers_dir, OsStr::new(&name)).map_err(|errno| failed("remove", &name, errno))?;
        let folder = make_folder(input.layers_dir, &name)?;
        Ok(Self { input, name, folder })
    }

    fn archive(&self, diff_id: &Digest) -> Result<(), RestoreError> {
        let archive = self.input.cache.archive(diff_id)?;
        let archive = archive.ok_or_else(|| RestoreError::NoArchive(diff_id.clone()))?;
        let mut archive = Hashing::new(BufReader::with_capacity(1 << 17, archive));
        let (owner, now) = (&self.input.owner, self.input.now);
        unpack_layer_at(&mut archive, self.folder.as_fd(), owner, &Limits::default(), now)
            .map_err(|source| RestoreError::Unpack { diff_id: diff_id.clone(), source })?;
        let found = archive.digest();
        if found != *diff_id {
            return Err(RestoreError::OtherContent { expected: diff_id.clone(), found });
        }
        Ok(())
    }

    /// Where the archive has what the build has at this path.
    fn path(&self, path: &str) -> PathBuf {
        Path::new(self.input.layers_path.trim_start_matches('/')).join(path)
    }

    fn publish(&self, diff_id: &Digest, buildpack: &str, layer: &str) -> Result<(), RestoreError> {
        let missing =
            || RestoreError::NoFolder { diff_id: diff_id.clone(), path: format!("{buildpack}/{layer}") };
        let above = folder::folder(self.folder.as_fd(), &self.path(buildpack))?.ok_or_else(missing)?;
        let from = folder::folder(above.as_fd(), Path::new(layer))?.ok_or_else(missing)?;
        let to = make_folder(self.input.layers_dir, buildpack)?;
        let failed = |act, errno| failed(act, layer, errno);
        remove(to.as_fd(), OsStr::new(layer)).map_err(|errno| failed("remove", errno))?;
        // A folder that is closed to its owner can be neither left nor moved.
        let mode = Mode::from_bits_truncate(fstat(&from).map_err(|errno| failed("look at", errno))?.st_mode);
        fchmod(&above, Mode::S_IRWXU).map_err(|errno| failed("open", errno))?;
        fchmod(&from, mode | Mode::S_IRWXU).map_err(|errno| failed("open", errno))?;
        renameat(&above, layer, &to, layer).map_err(|errno| failed("move", errno))?;
        fchmod(&from, mode).map_err(|errno| failed("close", errno))
    }

    /// Bills of materials of one kind, each to its layer (`sbom/KIND/BUILDPACK/LAYER/sbom.FORMAT.json`), where the buildpack has
    /// anything at all.
    fn publish_bills(&self, kind: &str) -> Result<(), RestoreError> {
        for element in &self.input.group.group {
            let dir = element.id.dir();
            let Some(to) = folder::folder(self.input.layers_dir, Path::new(&dir))? else { continue };
            let bills = self.path(&format!("sbom/{kind}/{dir}"));
            for layer in folder::entries(self.folder.as_fd(), &bills)? {
                let Some(layer) = layer.name.to_str().filter(|name| layer.is_dir && is_layer_name(name))
                else {
                    continue;
                };
                let path = bills.join(layer);
                let Some(from) = folder::folder(self.folder.as_fd(), &path)? else { continue };
                for file in folder::entries(self.folder.as_fd(), &path)? {
                    let name = file.name.to_str().unwrap_or_default();
                    let stat = fstatat(&from, name, AtFlags::AT_SYMLINK_NOFOLLOW);
                    let stat = stat.map_err(|errno| failed("look at", name, errno))?;
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

    fn remove(self) -> Result<(), RestoreError> {
        remove(self.input.layers_dir, OsStr::new(&self.name))
            .map_err(|errno| failed("remove", &self.name, errno))
    }
}
