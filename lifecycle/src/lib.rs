//! The phases of a build, each a function from what lies in folders to a value or to files in folders.
//!
//! Nothing here reads the environment of the process, and nothing but the phases as programs prints: callers hand both over.

#[cfg(feature = "phases")]
pub mod analyze;
pub mod api;
#[cfg(feature = "phases")]
mod bom;
#[cfg(feature = "phases")]
pub mod build;
#[cfg(feature = "phases")]
pub mod cache;
#[cfg(feature = "phases")]
pub mod describe;
#[cfg(feature = "phases")]
pub mod detect;
pub mod env;
#[cfg(feature = "phases")]
pub mod export;
pub mod file;
#[cfg(feature = "phases")]
pub mod folder;
#[cfg(feature = "phases")]
pub mod generate;
#[cfg(feature = "phases")]
pub mod known;
pub mod launcher;
#[cfg(feature = "phases")]
mod packing;
#[cfg(feature = "phases")]
pub mod phases;
#[cfg(feature = "phases")]
mod processes;
#[cfg(feature = "phases")]
pub mod rebase;
#[cfg(feature = "phases")]
pub mod restore;
#[cfg(feature = "phases")]
pub mod signature;
#[cfg(feature = "phases")]
pub(crate) mod stamp;
#[cfg(feature = "phases")]
pub mod surroundings;

/// An error with its causes, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
