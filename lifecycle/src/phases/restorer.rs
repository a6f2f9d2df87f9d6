//! `restorer`: what the last build left, for this one (Platform API, "restorer").

use std::fs::File;
use std::os::fd::AsFd as _;
use std::time::SystemTime;

use coracle_cnb::Group;
use coracle_images::unpack::SingleOwner;

use super::{Call, PhaseError, analyzed, needed};
use crate::file::FileError;
use crate::restore::{RestoreInput, RestoreStep, restore};

pub(super) fn run(call: &Call<'_>) -> Result<(), PhaseError> {
    let arguments = &call.arguments;
    let group: Group = needed("group.toml", &arguments.path("group"))?;
    let analyzed = analyzed(arguments)?;
    let layers_path = arguments.path("layers");
    let layers_dir =
        File::open(&layers_path).map_err(|source| FileError::Read { path: layers_path.clone(), source })?;
    let cache = call.cache();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let steps = restore(&RestoreInput {
        group: &group,
        metadata: &analyzed.metadata,
        cache: &cache,
        skip_layers: arguments.on("skip-layers"),
        layers_dir: layers_dir.as_fd(),
        layers_path: &layers_path.to_string_lossy(),
        owner: owner(call),
        now: now.cast_signed(),
    })
    .map_err(PhaseError::Restore)?;
    for step in &steps {
        match step {
            RestoreStep::Damaged { source, .. } => call.warn_because(&step.to_string(), source),
            step => call.say(&step.to_string()),
        }
    }
    Ok(())
}

/// Files are the process's own, unless it may give them to the build's user.
fn owner(call: &Call<'_>) -> SingleOwner {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if uid.is_root() {
        return SingleOwner { uid: call.arguments.id("uid"), gid: call.arguments.id("gid") };
    }
    SingleOwner { uid: uid.as_raw(), gid: gid.as_raw() }
}
