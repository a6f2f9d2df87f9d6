//! What a published image says it runs on.

use std::fmt;

use coracle_images::{AuthFile, Platform, Reference, Registry, RegistryOptions};
use coracle_lifecycle::rebase::{known_run_image, metadata_of};
use serde::{Deserialize, Serialize};

use super::{AnyError, Job};
use crate::build::PLATFORM_API;

/// Ask an image's registry by which names the image knows its run image.
#[derive(Serialize, Deserialize)]
pub(crate) struct KnownRunImage {
    pub(crate) reference: Reference,
    pub(crate) insecure: Vec<String>,
    /// A `config.json` with the credentials of the image's registry alone.
    pub(crate) auth: String,
}

impl fmt::Debug for KnownRunImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownRunImage").field("reference", &self.reference).finish_non_exhaustive()
    }
}

impl Job for KnownRunImage {
    /// What is no name is left out: nobody will ask for it.
    type Answer = Vec<Reference>;

    fn carry_out(self) -> Result<Vec<Reference>, AnyError> {
        let auth = AuthFile::parse(self.auth.as_bytes())?;
        let options = RegistryOptions { insecure: self.insecure, auth, ca_bundle: None };
        let image = Registry::new(options)?.image(&self.reference, &Platform::host())?;
        let known = known_run_image(&metadata_of(&image)?, PLATFORM_API)?;
        let names = std::iter::once(known.image).chain(known.mirrors);
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    }
}
