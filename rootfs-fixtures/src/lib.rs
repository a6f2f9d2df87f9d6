//! Root filesystems, builders, buildpacks and registries for tests.
//!
//! This crate depends on none of the others, so that what it writes is a second opinion: a mistake in how
//! `coracle-images` reads or writes a document is not repeated here. What is made is always the same bytes: the
//! clock is fixed, owners and order are given by the caller.
//!
//! Everything here is for tests, so what goes wrong panics and says what was tried.

pub mod builder;
pub mod buildpack;
pub mod gate;
pub mod image;
pub mod layer;
mod programs;
pub mod registry;

pub use builder::{Builder, RunImage};
pub use buildpack::Buildpack;
pub use gate::Gate;
pub use image::{Compression, Image, MediaTypes};
pub use layer::{Entry, Layer};
pub use programs::{built_program, demo, demo_buildpack, probe};
pub use registry::{DockerRegistry, RegistryAccess};
