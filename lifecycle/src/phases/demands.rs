//! What platforms may demand and do not get, or only with a warning.

use std::ffi::OsStr;

use super::{Arguments, Call, PhaseError};
use crate::env::Env;

/// What is refused before anything is done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DemandError {
    /// Images would go to and come from a container engine.
    #[error(
        "images are not exchanged with a daemon (-daemon, CNB_USE_DAEMON): leave the flag out for a registry, give -layout and -layout-dir for a folder, or let `coracle build` keep the image in its store (with --load, hand it to docker or podman; with --publish, to a registry)"
    )]
    Daemon,
    /// The platform wants nothing that might change.
    #[error("-layout is experimental in the specification, and CNB_EXPERIMENTAL_MODE=error forbids that")]
    Experimental,
    /// Image extensions.
    #[error(
        "extend: image extensions are not supported yet: take a builder without them, or the builder's own lifecycle (--lifecycle builder)"
    )]
    Extender,
}

impl DemandError {
    /// The exit code of the phase (Platform API, "Exit Codes").
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Daemon => 3,
            Self::Experimental => 1,
            Self::Extender => 102,
        }
    }
}

/// Refuses a daemon, and layouts where the platform says so. To be called before a phase does anything.
pub(super) fn refuse(arguments: &Arguments, env: &Env) -> Result<(), DemandError> {
    if arguments.on("daemon") {
        return Err(DemandError::Daemon);
    }
    // Layouts are as good as registries here, so nobody has to allow them (the reference's default is `error`).
    if arguments.on("layout") && mode(env) == Some("error") {
        return Err(DemandError::Experimental);
    }
    Ok(())
}

/// Warns of layouts where the platform wants to hear of them.
pub(super) fn warn(call: &Call<'_>) {
    if call.arguments.on("layout") && mode(call.env) == Some("warn") {
        call.warn("-layout is experimental in the specification (CNB_EXPERIMENTAL_MODE=warn)");
    }
}

fn mode(env: &Env) -> Option<&str> {
    env.get(OsStr::new("CNB_EXPERIMENTAL_MODE"))?.to_str()
}

/// `extender`: all of its flags are understood, and none of what they ask for is done.
pub(super) fn extend(_: &Call<'_>) -> Result<(), PhaseError> {
    Err(DemandError::Extender.into())
}
