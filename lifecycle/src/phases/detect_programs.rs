//! `detect-programs`: the `bin/detect` programs of the order, and what each of them said. The decision is made elsewhere.

use coracle_cnb::Order;

use super::scratch::Scratch;
use super::{Call, PhaseError, analyzed, needed};
use crate::detect::{Catalog, run_programs};
use crate::file;

/// What `detect-programs` leaves at `-runs`: the reports on which the decision is made elsewhere.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct DetectRuns {
    #[serde(default)]
    pub runs: Vec<crate::detect::DetectRun>,
}

pub(super) fn run(call: &Call<'_>) -> Result<(), PhaseError> {
    let arguments = &call.arguments;
    let order: Order = needed("order.toml", &arguments.path("order"))?;
    let catalog = Catalog::read(&arguments.path("buildpacks"), &order)?;
    let analyzed = analyzed(arguments)?;
    let scratch = Scratch::of(call)?;
    let target = analyzed.run_image.as_ref().and_then(|image| image.target.as_ref());
    let exec_env = call.exec_env();
    let runs = run_programs(&catalog, &call.surroundings(&scratch, target, exec_env.as_deref()));
    Ok(file::write_document(&arguments.path("runs"), &DetectRuns { runs })?)
}
