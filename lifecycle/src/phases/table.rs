//! Which phases there are, and what each understands.

use super::{Call, PhaseError};
use super::{analyzer, builder, describe_builder, detect_programs, detector, exporter, rebaser, restorer};
use crate::api::{PLATFORM_APIS, PlatformApis, REBASER_APIS};

/// One phase: what it is called by, which flags and how many image names it understands, and what it does.
pub(super) struct Phase {
    pub(super) name: &'static str,
    pub(super) flags: &'static [&'static str],
    pub(super) images: Names,
    /// The Platform APIs that it speaks.
    pub(super) apis: PlatformApis,
    /// Whether programs of buildpacks run in it.
    pub(super) foreign: bool,
    pub(super) run: fn(&Call<'_>) -> Result<(), PhaseError>,
}

/// How many names of images follow the flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    None,
    One,
    Some,
}

/// The phases that are here.
pub(super) const PHASES: [Phase; 8] = [
    Phase {
        name: "analyzer",
        flags: &[
            "analyzed",
            "gid",
            "insecure-registry",
            "layers",
            "layout",
            "layout-dir",
            "previous-image",
            "run",
            "run-image",
            "skip-layers",
            "stack",
            "tag",
            "uid",
        ],
        images: Names::One,
        apis: PLATFORM_APIS,
        foreign: false,
        run: analyzer::run,
    },
    Phase {
        name: "describe-builder",
        flags: &["buildpacks", "description", "layers", "order"],
        images: Names::None,
        apis: PLATFORM_APIS,
        foreign: false,
        run: describe_builder::run,
    },
    Phase {
        name: "detect-programs",
        flags: &[
            "analyzed",
            "app",
            "build-config",
            "buildpacks",
            "layers",
            "order",
            "platform",
            "runs",
            "scratch",
        ],
        images: Names::None,
        apis: PLATFORM_APIS,
        foreign: true,
        run: detect_programs::run,
    },
    Phase {
        name: "detector",
        flags: &[
            "analyzed",
            "app",
            "build-config",
            "buildpacks",
            "group",
            "layers",
            "order",
            "plan",
            "platform",
            "run",
            "scratch",
            "system",
        ],
        images: Names::None,
        apis: PLATFORM_APIS,
        foreign: true,
        run: detector::run,
    },
    Phase {
        name: "restorer",
        flags: &[
            "analyzed",
            "cache-dir",
            "gid",
            "group",
            "insecure-registry",
            "layers",
            "layout",
            "layout-dir",
            "run",
            "skip-layers",
            "uid",
            "verified",
        ],
        images: Names::None,
        apis: PLATFORM_APIS,
        foreign: false,
        run: restorer::run,
    },
    Phase {
        name: "builder",
        flags: &[
            "analyzed",
            "app",
            "build-config",
            "buildpacks",
            "group",
            "layers",
            "plan",
            "platform",
            "scratch",
        ],
        images: Names::None,
        apis: PLATFORM_APIS,
        foreign: true,
        run: builder::run,
    },
    Phase {
        name: "exporter",
        flags: &[
            "analyzed",
            "app",
            "cache-dir",
            "gid",
            "group",
            "insecure-registry",
            "layers",
            "layout",
            "layout-dir",
            "metadata",
            "process-type",
            "project-metadata",
            "report",
            "run",
            "scratch",
            "stack",
            "uid",
            "verified",
        ],
        images: Names::Some,
        apis: PLATFORM_APIS,
        foreign: false,
        run: exporter::run,
    },
    Phase {
        name: "rebaser",
        flags: &[
            "force",
            "gid",
            "image",
            "insecure-registry",
            "layout",
            "layout-dir",
            "previous-image",
            "report",
            "run-image",
            "uid",
        ],
        images: Names::Some,
        apis: REBASER_APIS,
        foreign: false,
        run: rebaser::run,
    },
];

/// Phases that only `coracle build` knows.
pub(super) const OF_OURS: [&str; 2] = ["describe-builder", "detect-programs"];

/// Phases of the specification that are not here yet.
pub(super) const MISSING: [&str; 2] = ["creator", "extender"];
