//! What an image is made on top of, and after.

use coracle_cnb::Analyzed;
use coracle_images::{Image, Reference};

use super::ExporterError;
use crate::export::Extended;
use crate::phases::images::Images;

/// The images that the new one has layers of.
pub(super) struct Below<'a> {
    pub(super) run_name: Reference,
    /// With the configuration of the extended one, where it was to be extended.
    pub(super) run: Image,
    pub(super) extended: Option<&'a Extended>,
    pub(super) previous: Option<(Reference, Image)>,
}

impl<'a> Below<'a> {
    pub(super) fn find(
        images: &Images,
        analyzed: &mut Analyzed,
        extended: Option<&'a Extended>,
    ) -> Result<Self, ExporterError> {
        let run = analyzed.run_image.as_mut().filter(|run| !run.reference.is_empty());
        let run = run.ok_or(ExporterError::NoRunImage)?;
        let run_name = images.named(&run.reference)?;
        if let Images::Layout(_) = images {
            // A folder of this build means nothing to whoever reads the label: the image's name does.
            run.reference = Reference { tag: None, ..run_name.clone() }.to_string();
        }
        let extend = run.extend;
        let mut run = images.image(&run_name)?;
        if let Some(extended) = extended.filter(|_| extend) {
            run.config.config = extended.image.config.config.clone();
        }
        let previous = analyzed.image.as_ref().map(|image| image.reference.as_str());
        let name = previous.filter(|reference| !reference.is_empty()).map(|name| images.named(name));
        let name = name.transpose()?;
        let previous = name.as_ref().map(|name| images.find(name)).transpose()?.flatten();
        Ok(Self { run_name, run, extended, previous: name.zip(previous) })
    }
}
