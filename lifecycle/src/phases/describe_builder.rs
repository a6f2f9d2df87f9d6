//! `describe-builder`: what the builder offers, read before anything foreign has run.

use std::path::Path;

use super::{Call, PhaseError};
use crate::describe::{DescribeError, Orders, describe};
use crate::file::{self, FileError};

pub(super) fn run(call: &Call<'_>) -> Result<(), PhaseError> {
    let arguments = &call.arguments;
    let os_release = Path::new("/etc/os-release");
    let [order, system, buildpacks, extensions] =
        ["order", "system", "buildpacks", "extensions"].map(|flag| arguments.path(flag));
    let orders = Orders { order: &order, system: &system };
    let description = describe(&orders, &buildpacks, &extensions, os_release, arguments.on("any-api"))?;
    let path = arguments.path("description");
    let text = serde_json::to_vec(&description).map_err(|error| {
        DescribeError::File(FileError::Write { path: path.clone(), source: error.into() })
    })?;
    Ok(file::write(&path, &text)?)
}
