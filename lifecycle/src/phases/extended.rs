//! What an extender has left for the exporter.

use super::detector::guard_experiment;
use super::exporter::{Documents, ExporterError};
use super::{Call, PhaseError};
use crate::api;
use crate::export::Extended;

/// What an extender has left. Buildpacks may write there too, so it counts only where there were extensions
/// (docs/decisions/0015-extensions-that-choose-and-those-that-extend.md).
pub(super) fn extended(call: &Call<'_>, documents: &Documents) -> Result<Option<Extended>, PhaseError> {
    if call.api < api::TARGETS {
        return Ok(None);
    }
    let path = call.arguments.path("extended");
    let is_wanted = documents.analyzed.run_image.as_ref().is_some_and(|run_image| run_image.extend);
    if !is_wanted && documents.group.group_extensions.is_empty() {
        if path.join("run").exists() {
            call.warn(&format!(
                "what lies in `{}` is left out: no image extension takes part",
                path.join("run").display()
            ));
        }
        return Ok(None);
    }
    let extended = Extended::find(&path);
    let extended = extended.map_err(|source| ExporterError::Extended { source, is_wanted })?;
    match &extended {
        Some(_) => guard_experiment(call, "there is an extended run image (-extended)")?,
        None if is_wanted => return Err(ExporterError::NotExtended { path: path.join("run") }.into()),
        None => {}
    }
    Ok(extended)
}
