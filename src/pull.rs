//! Bring an image into the store, its layers unpacked for this user's ids.

use coracle_images::{Digest, Image, Reference, Store};
use coracle_runtime::{Runtime, Terminator};

use crate::credentials::{Keychain, Keys};
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::home::Home;
use crate::stage::Stage;
use crate::worker::{self, Remote};

/// When an image is fetched that may be in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Each time.
    Always,
    /// If the store does not have it.
    IfNotPresent,
    /// Not at all.
    Never,
}

/// What to pull, and how to speak to its registry.
#[derive(Debug)]
pub struct PullRequest {
    /// The image.
    pub reference: Reference,
    /// Registries spoken to in plain HTTP; those on loopback need not be named.
    pub insecure: Vec<String>,
    /// Credentials; only those of the image leave this process.
    pub auth: Keychain,
}

/// An image that is in the store now.
#[derive(Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Its manifest's digest.
    pub digest: Digest,
    /// How many layers were fetched; the others were there.
    pub fetched: usize,
}

/// Pull. `hold` gets the handle with which a signal handler ends the work at once.
///
/// # Errors
/// [`Error`]: no user namespaces, no subordinate ids, the registry, or what it sent.
pub fn pull(
    home: &Home,
    request: &PullRequest,
    observer: &dyn Observer,
    hold: &dyn Fn(Terminator),
) -> Result<Pulled, Error> {
    let stage = Stage::start(home, Runtime::Youki, observer, hold)?;
    let keys = request.auth.keys(observer, None);
    let pulled = Remote::new(&request.reference, &request.insecure, Some(&keys))
        .and_then(|image| stage.work(worker::Pull { image, ids: stage.ids, allowed: stage.allowed() }));
    let pulled = stage.finish_with(pulled)?;
    Ok(Pulled { digest: pulled.digest, fetched: pulled.fetched })
}

/// Whether all layers of a stored image are unpacked. Those that are not for the ids of now, or may not be whole, are unpacked first of what
/// is stored, if it is.
pub(crate) fn is_unpacked(stage: &Stage<'_>, store: &Store, image: &Image) -> Result<bool, Error> {
    let key = stage.ids.key();
    if image.layers().iter().all(|layer| store.layer_dir(&key, &layer.diff_id).is_some()) {
        return Ok(true);
    }
    let Some(name) = &image.reference else { return Ok(false) };
    let image = name.with_digest(image.digest.clone());
    stage.work(worker::Unpack { image, ids: stage.ids, allowed: stage.allowed() })
}

/// An image of the store, fetched first where the policy says so.
pub(crate) fn fetched(
    stage: &Stage<'_>,
    store: &Store,
    name: &Reference,
    policy: PullPolicy,
    insecure: &[String],
    keys: Option<&Keys<'_>>,
) -> Result<Image, Error> {
    fetched_and_told(stage, store, name, policy, insecure, keys, &|_| ())
}

/// As [`fetched`]. `known` hears of the image as soon as its documents are here; its layers may still be on their way then, or never
/// come.
pub(crate) fn fetched_and_told(
    stage: &Stage<'_>,
    store: &Store,
    name: &Reference,
    policy: PullPolicy,
    insecure: &[String],
    keys: Option<&Keys<'_>>,
    known: &(dyn Fn(Image) + Sync),
) -> Result<Image, Error> {
    let here = || -> Result<Option<Image>, Error> {
        let Some(image) = store.image(name)? else { return Ok(None) };
        Ok(is_unpacked(stage, store, &image)?.then_some(image))
    };
    if policy != PullPolicy::Always
        && let Some(image) = here()?
    {
        known(image.clone());
        return Ok(image);
    }
    if policy == PullPolicy::Never {
        return Err(Error::NoImage(name.to_string()));
    }
    let (image, allowed) = (Remote::new(name, insecure, keys)?, stage.allowed());
    let heard = |event: &Event| {
        if let Event::PullStarted { digest, .. } = event
            // What is wrong with it is told by the worker, or in the end.
            && let Ok(Some(image)) = store.image(&name.with_digest(digest.clone()))
        {
            known(Image { reference: Some(name.clone()), ..image });
        }
    };
    stage.work_and_hear(worker::Pull { image, ids: stage.ids, allowed }, &heard)?;
    here()?.ok_or_else(|| Error::NoImage(name.to_string()))
}
