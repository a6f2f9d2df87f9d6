//! What a published image says it runs on.

use coracle_images::{Platform, Reference};
use coracle_lifecycle::rebase::{known_run_image, metadata_of};
use serde::{Deserialize, Serialize};

use super::remote::Remote;
use super::{AnyError, Job};
use crate::build::PLATFORM_API;

/// Ask an image's registry by which names the image knows its run image.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KnownRunImage {
    pub(crate) image: Remote,
}

impl Job for KnownRunImage {
    /// What is no name is left out: nobody will ask for it.
    type Answer = Vec<Reference>;

    fn carry_out(self) -> Result<Vec<Reference>, AnyError> {
        let image = self.image.registry()?.image(&self.image.reference, &Platform::host())?;
        let known = known_run_image(&metadata_of(&image)?, PLATFORM_API)?;
        let names = std::iter::once(known.image).chain(known.mirrors);
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    }
}
