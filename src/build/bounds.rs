//! What the container of a phase may use and change. Pure; the snapshots of `phase.rs` show it.

use coracle_runtime::{Bounds, Network};

use super::phase::{Phase, Plan};

/// No file of a build needs more, and an export reads what it finds to its end: a hole of a petabyte costs a buildpack
/// nothing to make.
const FILE_SIZE: u64 = 64 << 30;

/// Where the programs of a builder's root may write: temporary files and what their environment names for it.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// Foreign code gets the network, and the time, that the user gave it; ours a network only to speak to registries, and all
/// the time that they take.
pub(super) fn bounds(phase: Phase, plan: &Plan) -> Bounds {
    if !phase.runs_foreign_code() {
        let network = if phase.speaks_to_registries(plan) { Network::Host } else { Network::None };
        return Bounds { network, writes_below: Some(Vec::new()), ..Bounds::default() };
    }
    let mut folders: Vec<_> = TEMPORARY.map(std::path::PathBuf::from).into();
    let named = ["HOME", "TMPDIR"].map(|name| plan.env.iter().find(|(known, _)| known == name));
    folders.extend(named.into_iter().flatten().map(|(_, folder)| folder.into()));
    folders.push(plan.user.home.as_str().into());
    folders.dedup();
    Bounds {
        network: plan.network,
        seconds: Some(plan.time.as_secs().max(1)),
        file_size: Some(FILE_SIZE),
        writes_below: Some(folders),
    }
}
