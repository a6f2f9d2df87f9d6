//! The launch cache of an export: what it is asked for, and what it gets.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use coracle_images::{Digest, Image, Layer};

use super::Below;
use crate::cache::LaunchCache;
use crate::export::Outbox;
use crate::phases::Call;

/// The launch cache that `-launch-cache` names, if it names one that can be used.
pub(super) fn cache(call: &Call<'_>) -> Option<LaunchCache> {
    let [dir, cache] = ["launch-cache", "cache-dir"].map(|flag| call.arguments.path(flag));
    if dir.as_os_str().is_empty() {
        return None;
    }
    let place = |path: &Path| path.metadata().map(|about| (about.dev(), about.ino())).ok();
    if dir == cache || place(&dir).is_some_and(|dir| Some(dir) == place(&cache)) {
        // Each would take what is the other's for its own of the last build.
        let dir = dir.display();
        call.warn(&format!(
            "-launch-cache and -cache-dir are the same folder, `{dir}`: there is no launch cache; name another folder for it"
        ));
        return None;
    }
    Some(LaunchCache::new(&dir))
}

/// Makes the layout folder of an image hold what the build left alone, too, as far as the cache has it.
pub(super) fn complete(cache: &LaunchCache, image: &Image, below: &Below<'_>, outbox: &Outbox) {
    for layer in own(image, below).iter().filter(|layer| !outbox.has(&layer.descriptor.digest)) {
        cache.blob(layer, outbox);
    }
}

/// Keeps the image's own layers for the next build. Without them it fetches what it could have had here.
pub(super) fn keep(call: &Call<'_>, cache: &LaunchCache, image: &Image, below: &Below<'_>, outbox: &Outbox) {
    let of_build = call.arguments.path("cache-dir");
    let of_build = Some(of_build.as_path()).filter(|dir| !dir.as_os_str().is_empty());
    let kept = cache.keep(&own(image, below), outbox, of_build);
    for (diff_id, error) in &*cache.unusable() {
        not_used(call, diff_id, error);
    }
    if let Err(error) = kept {
        call.warn_because("the launch cache is not saved", &error);
    }
}

/// Tells that a layer of the cache is not used.
pub(in crate::phases) fn not_used(call: &Call<'_>, diff_id: &Digest, error: &dyn std::error::Error) {
    let text = format!("layer {diff_id} of the launch cache is not used, and made or fetched again");
    call.warn_because(&text, error);
}

/// The layers of an image that are not the run image's.
fn own(image: &Image, below: &Below<'_>) -> Vec<Layer> {
    image.layers().split_off(below.run.manifest.layers.len())
}
