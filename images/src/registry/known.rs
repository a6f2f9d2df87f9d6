//! Images whose documents were read before: by its digest, nothing of an image can be another one the next time.

use super::Registry;
use crate::digest::Digest;
use crate::image::Image;
use crate::reference::Reference;

impl Registry {
    /// From now on, [`Registry::image`] answers with this image where its own repository and digest are asked for, and asks nobody. An image
    /// without a name is in no repository, and is not kept.
    pub fn know(&self, image: Image) {
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !known.iter().any(|other| is(other, &image.digest, image.reference.as_ref())) {
            known.push(image);
        }
    }

    /// All that were read or made known, under the names by which they were asked for.
    #[must_use]
    pub fn known(&self) -> Vec<Image> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub(super) fn known_by(&self, reference: &Reference) -> Option<Image> {
        let digest = reference.digest.as_ref()?;
        let known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let image = known.iter().find(|image| is(image, digest, Some(reference)))?;
        Some(Image { reference: Some(reference.clone()), ..image.clone() })
    }
}

fn is(image: &Image, digest: &Digest, reference: Option<&Reference>) -> bool {
    let repository = |name: &Reference| (name.registry.clone(), name.repository.clone());
    image.digest == *digest && image.reference.as_ref().map(repository) == reference.map(repository)
}
