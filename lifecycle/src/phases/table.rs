//! Which phases there are, and what each understands.

use coracle_cnb::ApiVersion;

use super::{Call, PhaseError};
use super::{
    analyzer, builder, creator, demands, describe_builder, detect_programs, detector, exporter,
    generate_programs, rebaser, restorer,
};

/// One phase: what it is called by, which flags and how many image names it understands, and what it does.
pub(super) struct Phase {
    pub(super) name: &'static str,
    pub(super) flags: &'static [Has],
    pub(super) images: Names,
    pub(super) holds: Holds,
    pub(super) run: fn(&Call<'_>) -> Result<(), PhaseError>,
}

/// What of two things that must never meet is in a phase: programs of buildpacks, and credentials for registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// Credentials; no programs but ours.
    Credentials,
    /// Programs; no credentials.
    Programs,
    /// Both, kept apart.
    Both,
    /// No credentials, and whatever programs `coracle build` has seen to.
    Neither,
}

/// A flag of a phase, and the Platform APIs that have it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Has {
    pub(super) flag: &'static str,
    /// The first with it, where it is younger than the oldest that is spoken.
    pub(super) since: Option<ApiVersion>,
    /// The first without it again.
    pub(super) until: Option<ApiVersion>,
    /// Whether there is only its variable.
    pub(super) is_variable: bool,
}

impl Has {
    /// Whether a Platform API has the flag, or its variable.
    pub(super) fn at(&self, api: ApiVersion) -> bool {
        self.since.is_none_or(|since| since <= api) && self.until.is_none_or(|until| api < until)
    }
}

/// A flag of every Platform API.
const fn always(flag: &'static str) -> Has {
    Has { flag, since: None, until: None, is_variable: false }
}

/// A flag that came with Platform API 0.`minor`.
const fn since(minor: u32, flag: &'static str) -> Has {
    Has { flag, since: Some(ApiVersion::new(0, minor)), until: None, is_variable: false }
}

/// A flag that Platform API 0.`minor` no longer has.
const fn until(minor: u32, flag: &'static str) -> Has {
    Has { flag, since: None, until: Some(ApiVersion::new(0, minor)), is_variable: false }
}

/// What a variable says, where the phase has no such flag.
const fn variable(flag: &'static str) -> Has {
    Has { flag, since: None, until: None, is_variable: true }
}

/// How many names of images follow the flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    None,
    One,
    Some,
}

/// The phases that are here.
pub(super) const PHASES: &[Phase] = &[
    Phase {
        name: "analyzer",
        flags: &[
            always("analyzed"),
            variable("buildpacks"),
            always("by-name"),
            always("cache-image"),
            always("gid"),
            since(13, "insecure-registry"),
            always("known-images"),
            since(9, "launch-cache"),
            always("layers"),
            since(12, "layout"),
            since(12, "layout-dir"),
            variable("order"),
            always("previous-image"),
            since(12, "run"),
            always("run-image"),
            since(9, "skip-layers"),
            until(12, "stack"),
            always("tag"),
            always("uid"),
        ],
        images: Names::One,
        holds: Holds::Credentials,
        run: analyzer::run,
    },
    Phase {
        name: "describe-builder",
        flags: &[
            always("any-api"),
            always("buildpacks"),
            always("description"),
            always("extensions"),
            always("layers"),
            always("order"),
            always("system"),
        ],
        images: Names::None,
        holds: Holds::Neither,
        run: describe_builder::run,
    },
    Phase {
        name: "detect-programs",
        flags: &[
            always("analyzed"),
            always("app"),
            always("build-config"),
            always("buildpacks"),
            always("extensions"),
            always("layers"),
            always("order"),
            always("platform"),
            always("runs"),
            always("scratch"),
            always("system"),
            always("times"),
        ],
        images: Names::None,
        holds: Holds::Neither,
        run: detect_programs::run,
    },
    Phase {
        name: "detector",
        flags: &[
            since(10, "analyzed"),
            always("app"),
            since(11, "build-config"),
            always("buildpacks"),
            since(10, "extensions"),
            since(10, "generated"),
            always("group"),
            always("layers"),
            always("order"),
            always("plan"),
            always("platform"),
            since(12, "run"),
            always("scratch"),
            since(15, "system"),
        ],
        images: Names::None,
        holds: Holds::Programs,
        run: detector::run,
    },
    Phase {
        name: "generate-programs",
        flags: &[
            always("analyzed"),
            always("app"),
            always("build-config"),
            always("buildpacks"),
            always("chosen"),
            always("extensions"),
            always("generated"),
            always("group"),
            always("layers"),
            always("plan"),
            always("platform"),
            always("scratch"),
        ],
        images: Names::None,
        holds: Holds::Neither,
        run: generate_programs::run,
    },
    Phase {
        name: "restorer",
        flags: &[
            always("analyzed"),
            since(10, "build-image"),
            always("cache-dir"),
            always("cache-image"),
            since(12, "generated"),
            always("gid"),
            always("group"),
            since(13, "insecure-registry"),
            always("kaniko"),
            always("layers"),
            since(12, "layout"),
            since(12, "layout-dir"),
            since(14, "run"),
            always("skip-layers"),
            always("uid"),
            always("unchanged"),
            always("verified"),
        ],
        images: Names::None,
        holds: Holds::Credentials,
        run: restorer::run,
    },
    Phase {
        name: "builder",
        flags: &[
            since(12, "analyzed"),
            always("app"),
            since(11, "build-config"),
            always("build-layers"),
            always("buildpacks"),
            always("group"),
            always("layers"),
            always("plan"),
            always("platform"),
            always("scratch"),
            always("shared-layer"),
            always("step"),
            always("times"),
        ],
        images: Names::None,
        holds: Holds::Programs,
        run: builder::run,
    },
    Phase {
        name: "exporter",
        flags: &[
            always("analyzed"),
            always("app"),
            always("by-name"),
            always("cache-dir"),
            always("cache-image"),
            always("compression"),
            since(12, "extended"),
            always("gid"),
            always("group"),
            since(13, "insecure-registry"),
            always("known-images"),
            always("launch-cache"),
            always("launcher"),
            since(11, "launcher-sbom"),
            always("layers"),
            since(12, "layout"),
            since(12, "layout-dir"),
            always("metadata"),
            always("packed"),
            always("parallel"),
            always("process-type"),
            always("project-metadata"),
            always("report"),
            since(12, "run"),
            always("scratch"),
            until(12, "stack"),
            always("uid"),
            always("unchanged"),
            always("verified"),
        ],
        images: Names::Some,
        holds: Holds::Credentials,
        run: exporter::run,
    },
    Phase {
        name: "creator",
        flags: &[
            variable("analyzed"),
            always("app"),
            since(11, "build-config"),
            always("build-layers"),
            always("buildpacks"),
            always("by-name"),
            always("cache-dir"),
            always("cache-image"),
            always("compression"),
            since(10, "extensions"),
            since(10, "generated"),
            always("gid"),
            variable("group"),
            since(13, "insecure-registry"),
            always("launch-cache"),
            always("launcher"),
            since(11, "launcher-sbom"),
            always("layers"),
            since(12, "layout"),
            since(12, "layout-dir"),
            always("order"),
            always("parallel"),
            variable("plan"),
            always("platform"),
            always("previous-image"),
            always("process-type"),
            always("project-metadata"),
            always("report"),
            since(12, "run"),
            always("run-image"),
            always("scratch"),
            always("shared-layer"),
            always("skip-restore"),
            always("stack"),
            since(15, "system"),
            always("tag"),
            always("times"),
            always("uid"),
        ],
        images: Names::One,
        holds: Holds::Both,
        run: creator::run,
    },
    Phase {
        name: "extender",
        flags: &[
            always("analyzed"),
            always("app"),
            always("buildpacks"),
            since(12, "extended"),
            always("generated"),
            always("gid"),
            always("group"),
            always("kaniko-cache-ttl"),
            since(12, "kind"),
            always("layers"),
            always("plan"),
            always("platform"),
            always("uid"),
        ],
        images: Names::None,
        holds: Holds::Neither,
        run: demands::extend,
    },
    Phase {
        name: "rebaser",
        flags: &[
            always("distinct"),
            since(12, "force"),
            always("gid"),
            always("image"),
            since(13, "insecure-registry"),
            variable("layers"),
            always("layout"),
            always("layout-dir"),
            since(11, "previous-image"),
            always("report"),
            always("run-image"),
            always("uid"),
        ],
        images: Names::Some,
        holds: Holds::Credentials,
        run: rebaser::run,
    },
];

/// Phases that only `coracle build` knows.
pub(super) const OF_OURS: &[&str] = &["describe-builder", "detect-programs", "generate-programs"];
