//! `detect-programs`: the `bin/detect` programs of the order, and what each of them said. The decision is made elsewhere.

use coracle_cnb::Order;

use super::scratch::Scratch;
use super::times;
use super::{Call, PhaseError, analyzed, needed};
use crate::detect::{Catalog, Module, Programs, resolve, system};
use crate::file;

/// What `detect-programs` leaves at `-runs`: the reports on which the decision is made elsewhere.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct DetectRuns {
    #[serde(default)]
    pub runs: Vec<crate::detect::DetectRun>,
}

pub(super) fn run(call: &Call<'_>) -> Result<(), PhaseError> {
    let arguments = &call.arguments;
    let mut order: Order = needed("order.toml", &arguments.path("order"))?;
    system::surround(&mut order, &arguments.path("system"))?;
    let catalog = Catalog::read(&arguments.path("buildpacks"), &arguments.path("extensions"), &order)?;
    let target = super::target(&analyzed(arguments)?)?;
    let scratch = Scratch::of(call)?;
    let exec_env = call.exec_env();
    let around = call.surroundings(&scratch, Some(&target), Some(&exec_env));
    let watch = |module: &Module, took| times::tell(call, module, took);
    let mut programs = Programs::new(&catalog, &around, &watch);
    // What is decided here is only which programs need not run: whoever was told otherwise lacks a report elsewhere.
    let _ = resolve(&order, &catalog, call.given(&target, Some(&exec_env)), &mut programs);
    Ok(file::write_document(&arguments.path("runs"), &DetectRuns { runs: programs.runs })?)
}
