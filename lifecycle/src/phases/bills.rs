//! Bills of materials of the lifecycle's own programs, for the image and for the platform (Platform API 0.11, "exporter").

use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::Call;
use super::exporter::ExporterError;
use crate::api::OWN_BILLS;
use crate::export::{Bills, ExportError, LIFECYCLE_FOLDER};

/// Reads them and writes them into the layers' folder. Under `coracle build` that is read-only here, and only the image gets them.
pub(super) fn placed(call: &Call<'_>, layers_dir: BorrowedFd<'_>) -> Result<Option<Bills>, ExporterError> {
    if call.api < OWN_BILLS {
        return Ok(None);
    }
    let given = call.arguments.path("launcher-sbom");
    let mut bills = Bills::beside_programs(Path::new(LIFECYCLE_FOLDER))?;
    if !given.as_os_str().is_empty() && given.as_os_str() != LIFECYCLE_FOLDER {
        let failed = |source| ExporterError::LauncherBills { path: given.clone(), source };
        std::fs::read_dir(&given).map_err(failed)?;
        bills = bills.with_launchers(&given)?;
    }
    if fstatvfs(layers_dir).is_ok_and(|about| about.flags().contains(FsFlags::ST_RDONLY)) {
        bills.missing.retain(|name| !name.starts_with("lifecycle."));
    } else {
        bills.place(layers_dir).map_err(ExportError::from)?;
    }
    if !bills.missing.is_empty() {
        call.warn(&format!("no SBOM in {LIFECYCLE_FOLDER}: {}", bills.missing.join(", ")));
    }
    Ok(Some(bills))
}
