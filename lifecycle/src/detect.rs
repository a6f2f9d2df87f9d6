//! Which buildpacks take part (Platform API, "detector").
//!
//! In two halves. [`run_programs`] executes every `bin/detect` that the order can reach, in the sandbox, and only reports.
//! [`resolve`] decides, outside, from those reports, the order and the builder's buildpack.toml files: a program that
//! shares a user and folders with the detector cannot reach the decision.

mod catalog;
mod explain;
mod programs;
mod resolve;
mod trial;

pub use catalog::{Catalog, CatalogError};
pub(crate) use catalog::{buildpack_dir, read_one};
pub use explain::{Tried, Verdict};
pub use programs::{DetectRun, run_programs};
pub use resolve::{Detected, ResolveError, explain, resolve};
pub use trial::Obstacle;
