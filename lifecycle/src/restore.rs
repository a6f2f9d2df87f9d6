//! What a build finds of the last one (Platform API, "restorer"; Buildpack API, "Layer Types").
//!
//! [`plan`] is pure: it says which layers' metadata come back, and which layers' content. [`restore`] does it. Content is unpacked
//! in a folder of its own and takes its place only when its digest is right; names and archives may be anybody's, so nothing is
//! opened through a link, and nothing of an archive is taken but the layer's own folder.

mod bills;
mod content;
mod place;
mod unpacked;

use std::os::fd::BorrowedFd;

use coracle_cnb::{ApiVersion, DocumentError, Group, GroupElement, LayerMetadata, LifecycleMetadata};
use coracle_images::Digest;
use coracle_images::unpack::SingleOwner;
use serde_json::Value;

use crate::api::CACHE_ALONE;
use crate::cache::Cache;
use crate::folder::FolderError;
use crate::known::KnownLayers;

pub use bills::restore_launch_bills;

/// What there is to restore, and whereto.
#[derive(Debug)]
pub struct RestoreInput<'input> {
    pub group: &'input Group,
    /// Of the previous image: see analyzed.toml.
    pub metadata: &'input LifecycleMetadata,
    pub cache: &'input Cache,
    /// Nothing but what buildpacks keep in store.toml comes back.
    pub skip_layers: bool,
    pub platform_api: ApiVersion,
    /// What lies where it belongs already, verified.
    pub unchanged: &'input KnownLayers,
    pub to: Destination<'input>,
}

/// Where layers come back to.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'input> {
    /// Folder of the buildpacks' layers.
    pub layers_dir: BorrowedFd<'input>,
    /// Where that folder is for the build.
    pub layers_path: &'input str,
    /// Who gets the files.
    pub owner: SingleOwner,
    /// The time of all files, in seconds since 1970.
    pub now: i64,
}

/// One layer that comes back.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// `buildpack:layer`, as logs name it.
    pub identifier: String,
    /// The buildpack's folder.
    pub folder: String,
    pub name: String,
    pub metadata: Value,
    pub from: Source,
    /// The content in the cache, for layers that have it.
    pub content: Option<Digest>,
}

/// Where a layer's metadata come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Image,
    Cache,
}

/// What happens on the way. The words are those people look for in a build's log.
#[derive(Debug)]
pub enum RestoreStep {
    /// A layer's metadata came back.
    Metadata { layer: String, from: Source },
    /// A layer's content came back, from an archive whose digest is right.
    Content { layer: String, diff_id: Digest },
    /// A layer's content is there: it was not away.
    Unchanged { layer: String },
    /// A layer does not come back, because the cache has none, or another one.
    Removed { layer: String, why: &'static str },
    /// A layer's archive is damaged, or is no such layer: it does not come back, and the buildpack makes it again.
    Damaged { layer: String, source: RestoreError },
}

impl std::fmt::Display for RestoreStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Metadata { layer, from: Source::Image } => {
                write!(f, "Restoring metadata for \"{layer}\" from app image")
            }
            Self::Metadata { layer, from: Source::Cache } => {
                write!(f, "Restoring metadata for \"{layer}\" from cache")
            }
            Self::Content { layer, .. } | Self::Unchanged { layer } => {
                write!(f, "Restoring data for \"{layer}\" from cache")
            }
            Self::Removed { layer, why } => write!(f, "Removing \"{layer}\", {why}"),
            Self::Damaged { layer, .. } => {
                write!(f, "cannot restore \"{layer}\" from cache, so that it is made again")
            }
        }
    }
}

/// Why nothing can be restored, or not this.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A buildpack's API is not spoken.
    #[error("buildpack `{name}` has Buildpack API `{api}`, which is not supported")]
    Api { name: String, api: String },
    /// A folder or file could not be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A folder or file could not be written.
    #[error("{act} `{path}`")]
    Write {
        act: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
    /// Metadata have no form in TOML.
    #[error("write metadata of `{layer}`")]
    Document {
        layer: String,
        #[source]
        source: DocumentError,
    },
    /// The cache could not be read.
    #[error(transparent)]
    Cache(#[from] crate::cache::CacheError),
    /// The cache's list names an archive that is not there.
    #[error("the cache has no archive {0}")]
    NoArchive(Digest),
    /// An archive could not be unpacked.
    #[error("unpack {diff_id}")]
    Unpack {
        diff_id: Digest,
        #[source]
        source: coracle_images::unpack::UnpackError,
    },
    /// An archive is another than its name says.
    #[error("the archive named {expected} is {found}")]
    OtherContent { expected: Digest, found: Digest },
    /// An archive holds no such layer.
    #[error("the archive {diff_id} holds no folder `{path}`")]
    NoFolder { diff_id: Digest, path: String },
}

impl RestoreError {
    /// The exit code of the restorer (Platform API, "restorer").
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Api { .. }) { 12 } else { 42 }
    }
}

/// Which layers come back; for those that do not, the reason where there is one to tell. Since Platform API 0.14 a cached layer for
/// launch comes back if the previous image does not have it.
pub fn plan(
    group: &Group,
    metadata: &LifecycleMetadata,
    cache: &Cache,
    platform_api: ApiVersion,
) -> (Vec<Planned>, Vec<RestoreStep>) {
    let mut planned = Vec::new();
    let mut steps = Vec::new();
    for element in &group.group {
        let id = element.id.as_str();
        let of_image = metadata.buildpacks.iter().flatten().find(|buildpack| buildpack.key == id);
        let of_image = of_image.and_then(|buildpack| buildpack.layers.as_ref());
        let cached = cache.buildpack(id).and_then(|buildpack| buildpack.layers.as_ref());
        let in_cache = |name: &str| cached.and_then(|cached| cached.get(name)).filter(|layer| layer.cache);
        let mut of_buildpack = Vec::new();
        for (name, layer) in of_image.into_iter().flatten() {
            let cached = in_cache(name);
            // A cached layer that only the build sees now is the cache's to tell of.
            let comes = layer.launch
                && (layer.cache || !layer.build)
                && (cached.is_some() || !layer.cache)
                && cached.is_none_or(|cached| cached.launch);
            if !comes || !is_layer_name(name) {
                continue;
            }
            let content = cached.map(|cached| cached.sha.clone());
            if content.as_ref().is_some_and(|sha| *sha != layer.sha) {
                let layer = format!("{id}:{name}");
                steps.push(RestoreStep::Removed { layer, why: "wrong sha" });
                continue;
            }
            of_buildpack.push(planned_layer(element, name, layer, Source::Image, content));
        }
        for (name, layer) in cached.into_iter().flatten() {
            let only_here = of_image.is_none_or(|of_image| !of_image.contains_key(name));
            let comes = !layer.launch || (platform_api >= CACHE_ALONE && only_here);
            if layer.cache && comes && is_layer_name(name) {
                of_buildpack.push(planned_layer(
                    element,
                    name,
                    layer,
                    Source::Cache,
                    Some(layer.sha.clone()),
                ));
            }
        }
        planned.extend(of_buildpack.into_iter().filter_map(|layer| {
            layer.map_err(|layer| steps.push(RestoreStep::Removed { layer, why: "its digest is none" })).ok()
        }));
    }
    (planned, steps)
}

fn planned_layer(
    element: &GroupElement,
    name: &str,
    layer: &LayerMetadata,
    from: Source,
    content: Option<String>,
) -> Result<Planned, String> {
    let identifier = format!("{}:{name}", element.id);
    let content = content.map(|sha| sha.parse()).transpose().map_err(|_| identifier.clone())?;
    let (folder, metadata) = (element.id.dir(), layer.data.clone());
    Ok(Planned { identifier, folder, name: name.to_owned(), metadata, from, content })
}

/// Names come from labels, which anybody may have written: one that would lead elsewhere is no layer's.
pub fn is_layer_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() < 250 && !name.contains(['/', '\0'])
}

/// Restores what [`plan`] says, `store.toml`, and bills of materials. What of the cache is damaged is told of and left out.
pub fn restore(input: &RestoreInput<'_>) -> Result<Vec<RestoreStep>, RestoreError> {
    for element in &input.group.group {
        if !element.api.is_some_and(crate::api::runs_buildpack_api) {
            let api = element.api.map(|api| api.to_string()).unwrap_or_default();
            return Err(RestoreError::Api { name: element.name(), api });
        }
    }
    place::stores(input)?;
    if input.skip_layers {
        return place::remove_others(input, &[]);
    }
    let (planned, mut steps) = plan(input.group, input.metadata, input.cache, input.platform_api);
    for step in place::remove_others(input, &planned)? {
        let is_told = |told: &RestoreStep| told.to_string() == step.to_string();
        if !steps.iter().any(is_told) {
            steps.push(step);
        }
    }
    for layer in &planned {
        place::metadata(input, layer)?;
        steps.push(RestoreStep::Metadata { layer: layer.identifier.clone(), from: layer.from });
    }
    steps.extend(content::restore(input, &planned)?);
    steps.extend(bills::restore(input)?);
    Ok(steps)
}
