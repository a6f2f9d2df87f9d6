//! The phases of a build, each a function from what lies in folders to a value or to files in folders.
//!
//! Nothing here prints, and nothing reads the environment of the process: callers hand both over.

pub mod api;
#[cfg(feature = "phases")]
pub mod build;
#[cfg(feature = "phases")]
pub mod detect;
pub mod env;
#[cfg(feature = "phases")]
pub mod export;
pub mod file;
#[cfg(feature = "phases")]
pub mod folder;
pub mod launcher;
#[cfg(feature = "phases")]
pub mod phases;
