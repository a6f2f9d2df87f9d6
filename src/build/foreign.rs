//! Phases that another lifecycle plays: the builder's own, one from an image, from an archive or from a folder.
//!
//! | file | what it holds |
//! |---|---|
//! | `choice.rs` | what can be asked for |
//! | `described.rs` | what a lifecycle says of itself, and the Platform API that both sides know |
//! | `interface.rs` | flags and documents of each phase at each Platform API, a table |
//! | `sandbox.rs` | the container of each phase |
//! | `obtain.rs` | where the programs come from |
//! | `group.rs` | whether what a detector chose can be |
//! | `left.rs` | what buildpacks may leave where an exporter is about to read |
//! | `stacks.rs` | whether images and buildpacks are of one stack |

mod choice;
mod described;
pub(crate) mod group;
mod interface;
pub(crate) mod left;
mod obtain;
mod sandbox;
pub(crate) mod stacks;

use std::path::PathBuf;

use coracle_cnb::{ApiVersion, DocumentError};

pub use choice::{
    ChoiceError, LifecycleArchives, LifecycleChoice, LifecycleDigest, LifecycleImage, NativePhase,
};
pub(crate) use interface::{ANALYZES_FIRST, LAYOUTS, REPORTS};
pub(crate) use sandbox::sandbox;

use super::phase::Phase;

/// Where the archive or folder of a lifecycle is in the stage's root.
pub(crate) const SOURCE: &str = "/lifecycle";

/// Another lifecycle, and what it plays.
#[derive(Debug)]
pub(crate) struct Foreign {
    /// Where the phases with foreign code around them find it.
    pub(crate) with_buildpacks: Place,
    /// Where those with credentials do.
    pub(crate) privileged: Place,
    /// What this program plays all the same.
    pub(crate) native: Vec<Phase>,
}

/// Where a lifecycle's programs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In this unpacked layer, which holds nothing else. It lies above the builder's own, or is all there is.
    Layer(PathBuf),
    /// In the builder.
    InBuilder,
}

impl Foreign {
    /// Whether a phase is this lifecycle's.
    pub(crate) fn plays(&self, phase: Phase) -> bool {
        !matches!(phase, Phase::Describe | Phase::Generate) && !self.native.contains(&phase)
    }

    fn place(&self, phase: Phase) -> &Place {
        if phase.runs_foreign_code() { &self.with_buildpacks } else { &self.privileged }
    }
}

/// Why a lifecycle cannot play what it was chosen for.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// It speaks another language.
    #[error(
        "{name} speaks Platform API {offered}, and none of them is known here (known: {first} to {last}); take --lifecycle native"
    )]
    NoApi {
        /// The lifecycle.
        name: String,
        /// What it speaks.
        offered: String,
        /// The first that is known.
        first: ApiVersion,
        /// The last that is known.
        last: ApiVersion,
    },
    /// What it says of itself makes no sense.
    #[error("could not read what {name} says of itself")]
    Described {
        /// The lifecycle.
        name: String,
        /// The cause.
        #[source]
        source: DocumentError,
    },
    /// A builder without a lifecycle, or one that does not say which.
    #[error(
        "builder {0} does not say which lifecycle it has; take --lifecycle native, or name an image or an archive of one with --lifecycle"
    )]
    NoneInBuilder(String),
    /// A lifecycle for the phases with credentials, which an untrusted builder does not play.
    #[error(
        "builder {builder} has the lifecycle {version}, and for the phases with credentials no other copy of it was found ({looked}); trust the builder with --trust-builder, take --lifecycle native, or name an image of a lifecycle with --lifecycle"
    )]
    Unavailable {
        /// The builder.
        builder: String,
        /// The version that it has.
        version: String,
        /// Where was looked, and what came of it.
        looked: String,
    },
    /// It writes into registries only.
    #[error(
        "{name} speaks Platform API {api}, and lifecycles write images into folders only since 0.12; send the image to its registry with --publish, or take --lifecycle native"
    )]
    NoLayouts {
        /// The lifecycle.
        name: String,
        /// The highest that both sides know.
        api: ApiVersion,
    },
    /// Our own phases are younger.
    #[error(
        "{name} speaks Platform API {api}, and Coracle's own phases speak 0.7 and later; leave --native-phase out"
    )]
    TooOldToMix {
        /// The lifecycle.
        name: String,
        /// The highest that both sides know.
        api: ApiVersion,
    },
    /// Something that this Platform API cannot be told.
    #[error("{name} speaks Platform API {api}, in which {what}; leave it out, or take --lifecycle native")]
    TooOld {
        /// The lifecycle.
        name: String,
        /// The highest that both sides know.
        api: ApiVersion,
        /// What it cannot be told, and since when.
        what: &'static str,
    },
    /// Something that only our phase does.
    #[error(
        "{option} is what Coracle's own {phase} does; add --native-phase {phase}, or take --lifecycle native"
    )]
    OursAlone {
        /// As typed.
        option: &'static str,
        /// The phase.
        phase: &'static str,
    },
    /// All phases are native without asking.
    #[error(
        "--native-phase says which phases another lifecycle is not to play; add --lifecycle, or leave it out"
    )]
    NothingForeign,
    /// An analysis of what the image never was.
    #[error(
        "the {phase} of {name} says in analyzed.toml (image.reference) that the image was `{found}` before, and it is to be `{expected}`; nothing of it is used: take --lifecycle native, or another lifecycle"
    )]
    OtherPreviousImage {
        /// Who wrote it.
        phase: &'static str,
        /// The lifecycle.
        name: String,
        /// As written.
        found: String,
        /// What is built.
        expected: String,
    },
    /// An analysis that speaks of another image.
    #[error(
        "the {phase} of {name} says in analyzed.toml ({field}) that the image is to run on `{found}`, and it is to run on `{expected}`; nothing of it is used: take --lifecycle native, or another lifecycle"
    )]
    OtherRunImage {
        /// Who wrote it.
        phase: &'static str,
        /// The lifecycle.
        name: String,
        /// Of analyzed.toml.
        field: &'static str,
        /// As written.
        found: String,
        /// As resolved.
        expected: String,
    },
}
