//! Where phases find the cache, and where the exporter leaves it: in a folder or in an image, and nowhere unless told.

use std::path::PathBuf;

use coracle_images::{Digest, Image, Reference, Registry};

use super::images::Images;
use super::outputs::reference;
use super::{Call, PhaseError};
use crate::cache::{Cache, CacheError, CacheStep, Nearby, Saved, Saving};
use crate::export::Outbox;

/// Where the cache is.
pub(super) enum CachePlace {
    Nowhere,
    Folder(PathBuf),
    Image(Registry, Reference),
}

impl CachePlace {
    /// As `-cache-image` says, else `-cache-dir`. The image is in a registry wherever others are (Platform API, "Layout").
    pub(super) fn of(call: &Call<'_>, images: Option<&Images>) -> Result<Self, PhaseError> {
        let arguments = &call.arguments;
        if let Some(name) = arguments.text("cache-image") {
            let name = reference(&name.to_string_lossy())?;
            let registry = match images {
                Some(Images::Registry(registry)) => registry.clone(),
                _ => Images::registry(call)?,
            };
            return Ok(Self::Image(registry, name));
        }
        let dir = arguments.path("cache-dir");
        Ok(if dir.as_os_str().is_empty() { Self::Nowhere } else { Self::Folder(dir) })
    }

    pub(super) fn is_nowhere(&self) -> bool {
        matches!(self, Self::Nowhere)
    }

    /// The cache of the last build, empty where there is none that can be used.
    pub(super) fn open(&self, call: &Call<'_>) -> Cache {
        let opened = match self {
            Self::Nowhere => Ok(Cache::default()),
            Self::Folder(dir) => Cache::open(dir),
            Self::Image(registry, name) => Cache::of_image(registry, name),
        };
        opened.unwrap_or_else(|error| {
            call.warn_because("the cache is not usable and counts as empty", &error);
            Cache::default()
        })
    }

    /// Begins the next cache. What of an image is new goes to `outbox`; `near` is where its other layers may be.
    pub(super) fn begin<'a>(
        &self,
        call: &Call<'_>,
        cache: &'a Cache,
        verified: &'a [Digest],
        outbox: &'a Outbox,
        near: Option<&Image>,
    ) -> Option<Saving<'a>> {
        let saving = match self {
            Self::Nowhere => return None,
            Self::Folder(dir) => Saving::to_folder(dir, cache, verified),
            Self::Image(..) => Ok(Saving::to_image(outbox, cache, verified, near)),
        };
        saving.map_err(|error| not_saved(call, &error)).ok()
    }

    /// Makes the next cache the one that is found. Without it the next build is only slower.
    pub(super) fn commit(
        &self,
        call: &Call<'_>,
        saving: &Saving<'_>,
        saved: Result<Saved, CacheError>,
        from: &Nearby<'_>,
    ) {
        let committed = saved.and_then(|saved| {
            match self {
                Self::Image(registry, name) => saving.send(&saved, registry, name, from),
                _ => saving.commit(&saved),
            }
            .map(|()| saved.steps())
        });
        match committed {
            Ok(steps) => steps.iter().for_each(|step| match step {
                CacheStep::LeftOut { .. } => call.warn(&step.to_string()),
                _ => {
                    call.say(&step.to_string());
                    call.whisper(&step.because());
                }
            }),
            Err(error) => not_saved(call, &error),
        }
    }
}

fn not_saved(call: &Call<'_>, error: &CacheError) {
    call.warn_because("the cache is not saved", error);
}
