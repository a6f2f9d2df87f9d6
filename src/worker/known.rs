//! What a published image says it runs on.

use coracle_images::{Platform, Reference};
use coracle_lifecycle::rebase::{known_run_image, metadata_of};
use serde::{Deserialize, Serialize};

use super::remote::Remote;
use super::{AnyError, Job};
use crate::build::PLATFORM_API;

/// Ask an image's registry what the image says of its run image.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KnownRunImage {
    pub(crate) image: Remote,
}

/// A run image, as an image's label speaks of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RunImageOfLabel {
    /// By which names it is known. What is no name is left out: nobody will ask for it.
    pub(crate) names: Vec<Reference>,
    /// What the image stands on.
    pub(crate) reference: String,
}

impl Job for KnownRunImage {
    type Answer = RunImageOfLabel;

    fn carry_out(self) -> Result<RunImageOfLabel, AnyError> {
        let image = self.image.registry()?.image(&self.image.reference, &Platform::host())?;
        let metadata = metadata_of(&image)?;
        let known = known_run_image(&metadata, PLATFORM_API)?;
        let names = std::iter::once(known.image).chain(known.mirrors);
        let names = names.filter_map(|name| name.parse().ok()).collect();
        Ok(RunImageOfLabel { names, reference: metadata.run_image.reference })
    }
}
