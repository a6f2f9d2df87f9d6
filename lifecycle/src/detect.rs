//! Which buildpacks, and extensions, take part (Platform API, "detector").
//!
//! [`resolve`] goes through the order group by group and asks whoever knows ([`Reports`]) what the programs of a group said.
//! [`Programs`] executes them, all of one group at once and none of groups that are not reached. Where foreign programs must
//! not reach the decision, that happens in the sandbox and only what they said comes out: outside, [`resolve`] decides on
//! that, the order, and the builder's buildpack.toml files.

mod catalog;
mod explain;
mod module;
mod outcome;
mod programs;
mod resolve;
mod search;
pub(crate) mod system;
mod targets;
mod trial;

pub use catalog::{Catalog, CatalogError, Unusable};
pub(crate) use catalog::{buildpack_dir, module_dir, read_module, read_one};
pub use explain::{Tried, Verdict};
pub use module::Module;
pub use programs::{DetectRun, Programs, Reports, Watch};
pub use resolve::{Detected, Given, ResolveError, resolve};
pub use targets::complete;
pub use trial::Obstacle;
