//! the phases of a build
