//! What the container of a phase may use and change. Pure; the snapshots of `phase.rs` show it.

use coracle_runtime::{Access, Bounds, Network, Rootfs, SandboxSpec};

use super::folders::CACHE;
use super::phase::{Phase, Plan};
use crate::watch::{DiskLimit, Watched};

/// No file of a build needs more, and an export reads what it finds to its end: a hole of a petabyte costs a buildpack
/// nothing to make.
const FILE_SIZE: u64 = 64 << 30;

/// Where the programs of a builder's root may write: temporary files and what their environment names for it.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// Seconds for a phase that runs none of the builder's programs: registries are slow at times, and one that sends a byte a minute
/// never ends. Who has more time for buildpacks has it for these as well.
const OWN_TIME: u64 = 3600;

/// What is watched while a phase's container runs: how long programs of the build say nothing, and how much what runs writes. What
/// programs of detection print goes into files, so their silence says nothing.
pub(super) fn watched(phase: Phase, plan: &Plan, spec: &SandboxSpec) -> Watched {
    if !phase.runs_foreign_code() {
        return Watched::default();
    }
    let mut folders = vec![plan.folders.layers(), plan.folders.workspace()];
    if let Rootfs::Overlay { scratch, .. } = &spec.rootfs {
        folders.push(scratch.clone());
    }
    // What else of the work folder it may write to, such as what it hands over.
    let written = spec.mounts.iter().filter(|mount| mount.access == Access::ReadWrite);
    for source in written.map(|mount| &mount.source).filter(|source| source.starts_with(&plan.folders.root)) {
        if !folders.iter().any(|folder| source.starts_with(folder)) {
            folders.push(source.clone());
        }
    }
    let idle = (phase == Phase::Build).then_some(plan.idle.as_secs().max(1));
    // A creator's cache, which it fills for the next build.
    let growing = spec.mounts.iter().filter(|mount| mount.access == Access::ReadWrite);
    let growing = growing.map(|mount| &mount.source).filter(|source| source.starts_with(CACHE));
    let growing = growing.filter(|source| !folders.iter().any(|folder| source.starts_with(folder)));
    let growing = growing.cloned().collect();
    Watched { idle, disk: Some(DiskLimit { bytes: plan.disk, folders, growing }) }
}

/// Foreign code gets the network, and the time, that the user gave it; other phases a network only to speak to registries, and
/// an hour.
pub(super) fn bounds(phase: Phase, plan: &Plan) -> Bounds {
    let time = plan.time.as_secs().max(1);
    if !phase.runs_foreign_code() {
        let network = if phase.speaks_to_registries(plan) { Network::Host } else { Network::None };
        let seconds = Some(time.max(OWN_TIME));
        return Bounds { network, seconds, writes_below: Some(Vec::new()), ..Bounds::default() };
    }
    let mut folders: Vec<_> = TEMPORARY.map(std::path::PathBuf::from).into();
    let named = ["HOME", "TMPDIR"].map(|name| plan.env.iter().find(|(known, _)| known == name));
    folders.extend(named.into_iter().flatten().map(|(_, folder)| folder.into()));
    folders.push(plan.user.home.as_str().into());
    folders.dedup();
    Bounds {
        network: plan.network,
        seconds: Some(time),
        file_size: Some(FILE_SIZE),
        writes_below: Some(folders),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::build::phase::tests::plan;

    #[test]
    fn who_gives_buildpacks_little_time_does_not_take_it_from_registries() {
        for (given, others) in [(2, OWN_TIME), (2 * OWN_TIME, 2 * OWN_TIME)] {
            let plan = Plan { time: Duration::from_secs(given), ..plan(true) };
            let seconds = |phase| bounds(phase, &plan).seconds;
            assert_eq!([Phase::Detect, Phase::Build].map(seconds), [Some(given); 2]);
            assert_eq!([Phase::Analyze, Phase::Restore, Phase::Export].map(seconds), [Some(others); 3]);
        }
    }
}
