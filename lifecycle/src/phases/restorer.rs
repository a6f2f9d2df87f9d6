//! `restorer`: what the last build left, for this one (Platform API, "restorer").

use std::fs::File;
use std::os::fd::AsFd as _;
use std::time::SystemTime;

use coracle_cnb::{Analyzed, Group};
use coracle_images::Digest;
use coracle_images::unpack::SingleOwner;
use serde::{Deserialize, Serialize};

use super::caching::CachePlace;
use super::chosen::look_up;
use super::{Call, PhaseError, analyzed, group};
use crate::file::{self, FileError};
use crate::known::KnownLayers;
use crate::restore::{Destination, RestoreInput, RestoreStep, restore};

/// What the restorer leaves word of for the exporter of the same build (our own flag `verified`): the archives of the cache
/// that it has just read to the end and found right. Nobody writes to the cache in between.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Verified {
    pub(super) archives: Vec<Digest>,
}

pub(super) fn run(call: &Call<'_>) -> Result<(), PhaseError> {
    let arguments = &call.arguments;
    let group = group(call)?;
    let known = match analyzed(arguments) {
        Ok(mut known) => {
            let was = known.clone();
            look_up(call, &group, &mut known)?;
            // Whoever wrote it: what was not understood is gone, as with the reference.
            let written = file::rewrite_document(&arguments.path("analyzed"), &known);
            match written {
                // Where it says nothing else, the platform may keep it to itself.
                Err(FileError::Write { .. }) if known == was => {}
                written => written?,
            }
            known
        }
        Err(error) => {
            call.warn_because("what the analyzer found cannot be read and counts as nothing", &error);
            Analyzed::default()
        }
    };
    let archives = restore_layers(call, &group, &known)?;
    let verified = arguments.path("verified");
    if !verified.as_os_str().is_empty() {
        file::write_document(&verified, &Verified { archives })?;
    }
    Ok(())
}

/// Brings back what the last build left; says which archives of the cache it has read to the end and found right.
pub(super) fn restore_layers(
    call: &Call<'_>,
    group: &Group,
    analyzed: &Analyzed,
) -> Result<Vec<Digest>, PhaseError> {
    let layers = Layers::open(call)?;
    let place = CachePlace::of(call, None)?;
    if place.is_nowhere() {
        call.warn("no cached data will be used, no cache specified");
    }
    let cache = place.open(call);
    let steps = restore(&RestoreInput {
        group,
        metadata: &analyzed.metadata,
        cache: &cache,
        skip_layers: call.skips_layers(),
        platform_api: call.api,
        unchanged: &unchanged(call)?,
        to: layers.destination(call),
    })
    .map_err(PhaseError::Restore)?;
    for step in &steps {
        match step {
            RestoreStep::Damaged { source, .. } => call.warn_because(&step.to_string(), source),
            step => call.say(&step.to_string()),
        }
    }
    let archive = |step: RestoreStep| match step {
        RestoreStep::Content { diff_id, .. } => Some(diff_id),
        _ => None,
    };
    Ok(steps.into_iter().filter_map(archive).collect())
}

/// What the conductor has verified of layers that lie unpacked. Where foreign programs run, nobody can write to the list.
pub(super) fn unchanged(call: &Call<'_>) -> Result<KnownLayers, FileError> {
    match call.arguments.path("unchanged") {
        path if path.as_os_str().is_empty() => Ok(KnownLayers::default()),
        path => Ok(file::read_document("unchanged.toml", &path)?.unwrap_or_default()),
    }
}

/// The folder of the buildpacks' layers.
pub(super) struct Layers {
    dir: File,
    path: String,
}

impl Layers {
    pub(super) fn open(call: &Call<'_>) -> Result<Self, FileError> {
        let path = call.arguments.path("layers");
        let dir = File::open(&path).map_err(|source| FileError::Read { path: path.clone(), source })?;
        Ok(Self { dir, path: path.to_string_lossy().into_owned() })
    }

    /// Where layers come back to, now.
    pub(super) fn destination(&self, call: &Call<'_>) -> Destination<'_> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let owner = owner(call);
        Destination { layers_dir: self.dir.as_fd(), layers_path: &self.path, owner, now: now.cast_signed() }
    }
}

/// Files are the process's own, unless it may give them to the build's user.
fn owner(call: &Call<'_>) -> SingleOwner {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if uid.is_root() {
        let (uid, gid) = call.owner();
        return SingleOwner { uid, gid };
    }
    SingleOwner { uid: uid.as_raw(), gid: gid.as_raw() }
}
