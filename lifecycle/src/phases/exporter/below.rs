//! What an image is made on top of, and after.

use coracle_cnb::Analyzed;
use coracle_images::{Image, Reference};

use super::ExporterError;
use crate::export::{Extended, Outbox};
use crate::phases::Call;
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
    /// `by_name`: the label of an image in a layout names its run image as labels of images in registries do.
    pub(super) fn find(
        images: &Images,
        by_name: bool,
        analyzed: &mut Analyzed,
        extended: Option<&'a Extended>,
    ) -> Result<Self, ExporterError> {
        let run = analyzed.run_image.as_mut().filter(|run| !run.reference.is_empty());
        let run = run.ok_or(ExporterError::NoRunImage)?;
        let run_name = images.named(&run.reference)?;
        let mut image = images.image(&run_name)?;
        // Whoever wrote analyzed.toml may have named it by a tag only.
        if by_name || matches!(images, Images::Registry(_)) {
            let pinned = Reference { tag: None, ..run_name.with_digest(image.digest.clone()) };
            run.reference = pinned.to_string();
        }
        if let Some(extended) = extended.filter(|_| run.extend) {
            image.config.config = extended.image.config.config.clone();
        }
        let run = image;
        let previous = analyzed.image.as_ref().map(|image| image.reference.as_str());
        let name = previous.filter(|reference| !reference.is_empty()).map(|name| images.named(name));
        let name = name.transpose()?;
        let previous = name.as_ref().map(|name| images.find(name)).transpose()?.flatten();
        Ok(Self { run_name, run, extended, previous: name.zip(previous) })
    }

    /// Puts what the image has of these into its layout folder, as far as they have it in theirs, as the reference does. Whoever wants it
    /// without leaves it out there.
    pub(super) fn complete(
        &self,
        call: &Call<'_>,
        images: &Images,
        image: &Image,
        outbox: &Outbox,
    ) -> Result<(), ExporterError> {
        let previous = self.previous.iter().map(|(name, _)| name);
        let names: Vec<&Reference> = std::iter::once(&self.run_name).chain(previous).collect();
        for layer in image.layers().iter().filter(|layer| !outbox.has(&layer.descriptor.digest)) {
            for name in &names {
                let Some(blob) = images.layer(name, layer)? else { continue };
                if outbox.take(layer, blob)? {
                    break;
                }
                let digest = &layer.descriptor.digest;
                call.warn(&format!("blob {digest} of `{name}` is not what it is called, and left out"));
            }
        }
        Ok(())
    }
}
