//! Delete what is of no use any more: images that nothing names, caches of applications that are not built any more, and what
//! operations left that were killed.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coracle_runtime::{Access, Bind, Runtime, Terminator};

use crate::error::Error;
use crate::event::{Event, Observer};
use crate::home::Home;
use crate::stage::{Stage, WORK};
use crate::worker::{Measure, PruneStore};

/// Where the caches are in the stage's root.
const CACHES: &str = "/caches";

/// Said where images stay.
const BUSY: &str =
    "images and layers stay, because another operation is running; prune again when it has ended";

/// What to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneRequest {
    /// Every image and every cache.
    pub all: bool,
    /// Delete nothing.
    pub dry_run: bool,
    /// Caches of applications that were not built for so long.
    pub older_than: Duration,
}

/// What was deleted, or would be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names of images.
    pub images: Vec<String>,
    /// How many unpacked layers.
    pub layers: usize,
    /// How many manifests, configurations and compressed layers.
    pub blobs: usize,
    /// How many caches of applications.
    pub caches: usize,
    /// How many work folders of operations that were killed.
    pub abandoned: usize,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Prune. Nothing is touched that a running operation uses. `hold` gets the handle with which a signal handler ends the work at once.
///
/// # Errors
/// [`Error`]: no user namespaces, a damaged image, or something that cannot be deleted.
pub fn prune(
    home: &Home,
    request: &PruneRequest,
    observer: &dyn Observer,
    hold: &dyn Fn(Terminator),
) -> Result<Pruned, Error> {
    let caches = home.caches();
    let binds = if caches.is_dir() {
        let source = caches.canonicalize().map_err(Error::folder("use", &caches))?;
        vec![Bind { source, target: CACHES.into(), access: Access::ReadOnly }]
    } else {
        Vec::new()
    };
    // It looks like an operation that runs, and what it deletes would be counted here.
    let _none = home.without_sweeper(observer, hold)?;
    let mut stage = Stage::start_with(home, Runtime::Youki, binds, observer, hold)?;
    stage.at_most = None;
    let pruned = delete(home, request, &stage, observer);
    stage.finish_with(pruned)
}

fn delete(
    home: &Home,
    request: &PruneRequest,
    stage: &Stage<'_>,
    observer: &dyn Observer,
) -> Result<Pruned, Error> {
    let PruneRequest { all, dry_run, older_than } = *request;
    let (key, own) = (stage.ids.key(), stage.folder());
    let pruned = stage.work(PruneStore { key, all, dry_run, own })?;
    if pruned.is_none() {
        observer.event(Event::Notice { text: BUSY.to_owned() });
    }
    let coracle_images::Pruned { images, layers, blobs, bytes } = pruned.unwrap_or_default();
    let mut pruned = Pruned { images, layers, blobs, bytes, ..Pruned::default() };

    // What lies in the work folder goes with it when this operation ends, or with the next one's end if this is killed.
    let mut doomed: Vec<PathBuf> = Vec::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = now.saturating_sub(older_than).as_secs();
    for cache in home.unused_caches(Some(since).filter(|_| !all))? {
        let name = cache.path.file_name().unwrap_or_default();
        doomed.push(if dry_run {
            Path::new(CACHES).join(name)
        } else {
            let here = stage.folder_on_host().join(name);
            std::fs::rename(&cache.path, &here).map_err(Error::folder("move away", &cache.path))?;
            stage.folder().join(name)
        });
        pruned.caches += 1;
    }
    // Every operation deletes them at its end, this one whatever it is asked for.
    let abandoned = if dry_run { Vec::new() } else { home.abandoned() };
    pruned.abandoned = abandoned.len();
    let in_stage = abandoned.iter().filter_map(|folder| folder.path.file_name());
    doomed.extend(in_stage.map(|name| Path::new(WORK).join(name)));
    pruned.bytes += stage.work(Measure { folders: doomed })?;
    Ok(pruned)
}
