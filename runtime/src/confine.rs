//! What confines a phase, each part alone: for the bench that times them.

use std::path::PathBuf;

use crate::{domain, seccomp};

/// Enter the Landlock domain of a phase that writes below these folders.
///
/// # Errors
/// Why the kernel refuses.
pub fn enter_domain(writes_below: &[PathBuf]) -> Result<(), String> {
    domain::enter(Some(writes_below)).map_err(|error| error.to_string())
}

/// Load the system call filter.
///
/// # Errors
/// Why the kernel refuses.
pub fn load_filter() -> Result<(), String> {
    seccompiler::apply_filter(seccomp::program()).map_err(|error| error.to_string())
}
