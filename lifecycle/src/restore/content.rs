//! The content of layers, from the archives of the cache.

use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use coracle_images::Digest;

use super::place::{failed, make_folder, remove};
use super::unpacked::Unpacked;
use super::{Planned, RestoreError, RestoreInput, RestoreStep};
use crate::folder;

/// How many layers are unpacked at once; more would only wait for the same disk.
const WORKERS: usize = 4;

/// Unpacks the planned layers' content, several at once.
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
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((at, step));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, step)| step).collect()
}

fn restore_layer(
    input: &RestoreInput<'_>,
    at: usize,
    layer: &Planned,
    diff_id: &Digest,
) -> Result<RestoreStep, RestoreError> {
    let place = Path::new(&layer.folder).join(&layer.name);
    if input.unchanged.diff_id(&layer.folder, &layer.name) == Some(diff_id)
        && folder::folder(input.to.layers_dir, &place)?.is_some()
    {
        return Ok(RestoreStep::Unchanged { layer: layer.identifier.clone() });
    }
    let unpacked = Unpacked::new(input.to, &at.to_string())?;
    let restored = unpacked
        .cached(input.cache, diff_id)
        .and_then(|()| unpacked.publish(diff_id, &layer.folder, &layer.name));
    unpacked.remove()?;
    let name = layer.identifier.clone();
    let Err(source) = restored else {
        return Ok(RestoreStep::Content { layer: name, diff_id: diff_id.clone() });
    };
    // Without its file a layer does not exist; what of its folder was published is nothing.
    let folder = make_folder(input.to.layers_dir, &layer.folder)?;
    let file = format!("{}.toml", layer.name);
    remove(folder.as_fd(), OsStr::new(&file)).map_err(|errno| failed("remove", &file, errno))?;
    Ok(RestoreStep::Damaged { layer: name, source })
}
