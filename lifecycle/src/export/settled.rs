//! Layers that need not be read: they are what they were when they were packed, and whoever wants them has them.

use coracle_images::{Digest, Layer};

use super::{ExportInput, ExportPlan, Found, LayerSource};
use crate::cache::saving::{Cached, Saving};
use crate::known::KnownApplication;
use crate::packing::InCache;

/// A layer of the image, of the cache, or of both.
pub(super) struct Settled<'a> {
    /// Its place in the plan.
    pub(super) planned: Option<(usize, Layer)>,
    pub(super) cached: Option<(&'a Cached<'a>, InCache)>,
}

/// Those of the unchanged layers that the previous image and the last cache have. Where one of them does not, the layer is packed.
pub(super) fn settled<'a>(
    input: &ExportInput<'_>,
    found: &Found,
    plan: &ExportPlan,
    previous: &[Layer],
    cache: Option<(&Saving<'_>, &'a [Cached<'a>])>,
) -> Vec<Settled<'a>> {
    let mut settled = Vec::new();
    for known in &input.unchanged.layers {
        let is = |buildpack: usize, layer: &str| {
            found.buildpacks[buildpack].element.id.dir() == known.buildpack && layer == known.name
        };
        let planned = plan.layers.iter().position(|planned| {
            matches!(&planned.source, LayerSource::Buildpack { buildpack, layer } if is(*buildpack, layer))
        });
        let layer = previous.iter().find(|layer| layer.diff_id == known.diff_id);
        let wanted = cache.and_then(|(cache, all)| {
            Some((cache, all.iter().find(|cached| cached.place().is_some_and(|(at, layer)| is(at, layer)))?))
        });
        let kept = wanted.map(|(cache, cached)| Some((cached, cache.kept(&known.diff_id)?)));
        if planned.is_some() && layer.is_none() || matches!(kept, Some(None)) {
            continue;
        }
        settled.push(Settled { planned: planned.zip(layer.cloned()), cached: kept.flatten() });
    }
    settled.extend(application(input, plan, previous));
    settled
}

/// Layers of an application whose folder is what it was: of the same slices, they are what they were.
fn application<'a>(
    input: &ExportInput<'_>,
    plan: &ExportPlan,
    previous: &[Layer],
) -> impl Iterator<Item = Settled<'a>> {
    let of_now = input.application(Vec::new());
    let known = input
        .unchanged
        .application
        .as_ref()
        .filter(|known| of_now == KnownApplication { diff_ids: Vec::new(), ..(*known).clone() });
    let planned = plan.layers.iter().enumerate();
    let planned = planned.filter(|(_, planned)| matches!(planned.source, LayerSource::App(_)));
    let both = planned.zip(known.into_iter().flat_map(|known| &known.diff_ids));
    both.filter_map(|((at, _), diff_id)| {
        let layer = previous.iter().find(|layer| layer.diff_id == *diff_id)?;
        Some(Settled { planned: Some((at, layer.clone())), cached: None })
    })
}

impl ExportInput<'_> {
    /// What this image's application is made of, and what came of it.
    pub(super) fn application(&self, diff_ids: Vec<Digest>) -> KnownApplication {
        let (path, slices) = (self.app_path.to_owned(), self.metadata.slices.clone());
        KnownApplication { path, owner: self.owner, diff_ids, slices }
    }
}
