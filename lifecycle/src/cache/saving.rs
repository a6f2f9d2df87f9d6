//! A cache in the making.
//!
//! A folder's is made in `staging` and takes the place of `committed` at once; a process that is killed leaves the one or the
//! other. An image's is there with its manifest. Archives of layers that are no longer cached are gone afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use coracle_cnb::{BuildpackLayers, CACHE_METADATA_LABEL, CacheMetadata, Group, Sha, write_json};
use coracle_images::pack::{EPOCH, PackError, Parent, TarWriter};
use coracle_images::{Config, Digest, History, Image, Layer, Reference, Registry};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{COMMITTED, Cache, CacheError};
use crate::export::{CREATED, FoundBuildpack, FoundLayer, Layers, Outbox, Publisher, Source};
use crate::folder;
use crate::known::KnownLayer;
use crate::packing::{self, Archive, Blob, ForCache, InCache, Job, Old};
use crate::with_causes;

/// What became of a layer. The words are those people look for in a build's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheStep {
    /// The layer is new, or another one than before.
    Added(String),
    /// The cache had it. Whether it was not read to learn that.
    Reused { layer: String, unread: bool },
    /// It could not be read: the cache is there without it.
    LeftOut { layer: String, why: String },
}

impl std::fmt::Display for CacheStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Added(layer) => write!(f, "Adding cache layer '{layer}'"),
            Self::Reused { layer, .. } => write!(f, "Reusing cache layer '{layer}'"),
            Self::LeftOut { layer, why } => write!(f, "layer '{layer}' is not cached: {why}"),
        }
    }
}

impl CacheStep {
    /// Why that became of it.
    pub fn because(&self) -> String {
        match self {
            Self::Added(layer) => format!("  '{layer}' was read, and the cache has nothing like it"),
            Self::Reused { layer, unread: true } => {
                format!("  '{layer}' was changed by nobody since the cache has it, and not read")
            }
            Self::Reused { layer, unread: false } => {
                format!("  '{layer}' was read, and is what the cache has")
            }
            Self::LeftOut { layer, .. } => format!("  '{layer}' could not be read"),
        }
    }
}

/// What a cache is made of.
#[derive(Debug)]
pub struct SaveInput<'input> {
    pub group: &'input Group,
    /// Folder of the buildpacks' layers.
    pub layers_dir: BorrowedFd<'input>,
    /// Where that folder is for the build.
    pub layers_path: &'input str,
    /// The folders above that one, from the root, as archives have them.
    pub above_layers: &'input [Parent],
    /// Owner and group of what the build made.
    pub owner: (u32, u32),
    /// Owner and group of the layers' folder and those between it and layers, if not their own.
    pub owner_above: Option<(u32, u32)>,
}

/// A cache in the making. Nothing is left of one that is not committed.
#[derive(Debug)]
pub struct Saving<'a> {
    previous: &'a Cache,
    /// Archives that were verified since this build took the cache, and that nobody has written to since.
    verified: &'a [Digest],
    to: To<'a>,
}

#[derive(Debug)]
enum To<'a> {
    Folder { dir: PathBuf, staging: PathBuf },
    Image { outbox: &'a Outbox, near: Vec<Layer> },
}

/// Where layers of a cache image may be already.
#[derive(Debug, Clone, Copy)]
pub struct Nearby<'a> {
    /// What is new in the application's image.
    pub outbox: &'a Outbox,
    /// The application's image before, in a registry.
    pub previous: Option<Source<'a>>,
    /// The application's image now, in a registry.
    pub made: Option<Source<'a>>,
}

/// The cache's layers, packed.
#[derive(Debug)]
pub struct Saved {
    metadata: CacheMetadata,
    known: Vec<KnownLayer>,
    layers: BTreeMap<Slot, (CacheStep, Option<Layer>)>,
}

/// The place of a layer: its buildpack's in the group, and its name. The bills of materials come last.
type Slot = (usize, String);

/// A layer that belongs into the cache.
pub(crate) struct Cached<'a> {
    slot: Slot,
    /// As logs name it.
    pub(crate) name: String,
    /// Below the layers' folder.
    path: PathBuf,
    layers: Layers<'a>,
    /// None for the bills of materials.
    of: Option<(&'a FoundBuildpack, &'a FoundLayer)>,
}

/// The layers that belong into the cache, in its order.
pub(crate) fn wanted<'a>(
    found: &'a [FoundBuildpack],
    layers: Layers<'a>,
) -> Result<Vec<Cached<'a>>, crate::export::ExportError> {
    let mut wanted = Vec::new();
    for (place, buildpack) in found.iter().enumerate() {
        for layer in buildpack.layers.iter().filter(|layer| layer.toml.types.cache && layer.has_folder) {
            wanted.push(Cached {
                slot: (place, layer.name.clone()),
                name: format!("{}:{}", buildpack.element.id, layer.name),
                path: Path::new(&buildpack.element.id.dir()).join(&layer.name),
                layers,
                of: Some((buildpack, layer)),
            });
        }
    }
    let path = PathBuf::from("sbom/cache");
    if folder::folder(layers.dir, &path)?.is_some() {
        let (slot, name) = ((found.len(), String::new()), "buildpacksio/lifecycle:cache.sbom".to_owned());
        wanted.push(Cached { slot, name, path, layers, of: None });
    }
    Ok(wanted)
}

impl Cached<'_> {
    /// Whose layer this is, by the buildpack's place in the group, and its name; nothing for the bills of materials.
    pub(crate) fn place(&self) -> Option<(usize, &str)> {
        self.of.map(|_| (self.slot.0, self.slot.1.as_str()))
    }

    /// Whether this is the layer of a buildpack, by its place in the group.
    pub(crate) fn is(&self, buildpack: usize, layer: &str) -> bool {
        self.place() == Some((buildpack, layer))
    }
}

impl<'a> Saving<'a> {
    /// A cache in a folder.
    pub fn to_folder(dir: &Path, previous: &'a Cache, verified: &'a [Digest]) -> Result<Self, CacheError> {
        let staging = dir.join("staging");
        remove(&staging)?;
        fs::create_dir_all(&staging).map_err(|source| CacheError::Write { path: staging.clone(), source })?;
        Ok(Self { previous, verified, to: To::Folder { dir: dir.to_owned(), staging } })
    }

    /// A cache in an image. What is new is put into the outbox; `near` is an image of the same registry.
    pub fn to_image(
        outbox: &'a Outbox,
        previous: &'a Cache,
        verified: &'a [Digest],
        near: Option<&Image>,
    ) -> Self {
        let near = near.map(Image::layers).unwrap_or_default();
        Self { previous, verified, to: To::Image { outbox, near } }
    }

    /// What the cache wants of a layer.
    pub(crate) fn wants(&self, cached: &Cached<'_>) -> ForCache<'_> {
        let known = match cached.of {
            Some((buildpack, layer)) => {
                let known = self.previous.buildpack(buildpack.element.id.as_str());
                known.and_then(|known| known.layer(&layer.name)).map(|known| known.sha.as_str())
            }
            None => Some(self.previous.metadata().sbom.sha.as_str()),
        };
        let known: Option<Digest> = known.and_then(|sha| sha.parse().ok());
        match &self.to {
            To::Folder { staging, .. } => {
                let old = known.and_then(|diff_id| {
                    let verified = self.verified.contains(&diff_id);
                    Some(Old { path: self.previous.path(&diff_id)?, diff_id, verified })
                });
                ForCache::Archive(Archive { staging, old })
            }
            To::Image { outbox, near } => {
                // What a cache image says of its layers is only taken where this build has read them.
                let mut layers = self.previous.layers();
                layers.retain(|layer| self.verified.contains(&layer.diff_id));
                layers.extend(near.iter().cloned());
                let likely = layers.iter().any(|layer| Some(&layer.diff_id) == known.as_ref());
                ForCache::Blob(Blob { outbox, known: layers, likely })
            }
        }
    }

    /// A layer that is the same as in the last cache, if that is a folder and has it: its archive stays.
    pub(crate) fn kept(&self, diff_id: &Digest) -> Option<InCache> {
        let To::Folder { staging, .. } = &self.to else { return None };
        let old = self.previous.path(diff_id)?;
        super::regular(&old).ok()??;
        packing::link_or_copy(&old, &staging.join(archive_name(diff_id))).ok()?;
        Some(InCache { diff_id: diff_id.clone(), reused: true, unread: true, layer: None })
    }

    /// What nobody but the cache wants.
    pub(crate) fn job<'job>(&'job self, cached: &'job Cached<'_>) -> Job<'job> {
        let pack = |out: &mut dyn io::Write| cached.layers.pack(&cached.path, TarWriter::new(out, EPOCH));
        Job { pack: Box::new(pack), image: None, cache: Some(self.wants(cached)) }
    }

    /// Packs the layers marked `cache = true`, for nobody but the cache.
    pub fn pack(&self, input: &SaveInput<'_>) -> Result<Saved, CacheError> {
        let foreign = |source| CacheError::Layers(Box::new(source));
        let found = input.group.group.iter();
        let found = found.map(|element| FoundBuildpack::read(input.layers_dir, element));
        let found: Vec<_> = found.collect::<Result<_, _>>().map_err(foreign)?;
        let layers = Layers {
            dir: input.layers_dir,
            path: input.layers_path,
            above: input.above_layers,
            owner: input.owner,
            owner_above: input.owner_above,
        };
        let wanted = wanted(&found, layers).map_err(foreign)?;
        let jobs: Vec<Job<'_>> = wanted.iter().map(|cached| self.job(cached)).collect();
        let mut saved = Saved::new(&found);
        packing::run(&jobs, |at, done| {
            let layer = done.map(|done| done.cache).transpose();
            layer.map_or(Ok(()), |layer| saved.add(&wanted[at], layer.flatten()))
        })?;
        Ok(saved)
    }

    /// Makes what was saved the cache in its folder. Archives that it had are linked, not written again; those of other layers
    /// are gone afterwards. On an error the cache is as it was.
    pub fn commit(&self, saved: &Saved) -> Result<(), CacheError> {
        let To::Folder { dir, staging } = &self.to else { return Ok(()) };
        let path = staging.join(CACHE_METADATA_LABEL);
        let text = write_json(&saved.metadata).map_err(CacheError::Document)?;
        fs::write(&path, format!("{text}\n")).map_err(|source| CacheError::Write { path, source })?;
        put_in_place(dir)
    }

    /// Makes what was saved the cache of this name.
    pub fn send(
        &self,
        saved: &Saved,
        registry: &Registry,
        name: &Reference,
        from: &Nearby<'_>,
    ) -> Result<(), CacheError> {
        let To::Image { outbox, .. } = &self.to else { return Ok(()) };
        let image = image(saved, outbox)?;
        let known = self.previous.image();
        if known.is_some_and(|known| known.digest == image.digest) {
            return Ok(());
        }
        let own = known.map(|image| Source { name, image });
        let sources: Vec<Source<'_>> = own.into_iter().chain(from.previous).collect();
        let made: Vec<Source<'_>> = from.made.into_iter().collect();
        Publisher::new(registry, &[outbox, from.outbox], &sources, &made)
            .publish(&image, std::slice::from_ref(name))?;
        Ok(())
    }
}

impl Drop for Saving<'_> {
    fn drop(&mut self) {
        if let To::Folder { staging, .. } = &self.to {
            // Half a cache is of no use, and may be what filled the disk.
            let _ = remove(staging);
        }
    }
}

impl Saved {
    pub(crate) fn new(found: &[FoundBuildpack]) -> Self {
        let buildpacks = found.iter();
        let buildpacks = buildpacks
            .map(|buildpack| BuildpackLayers {
                key: buildpack.element.id.to_string(),
                version: buildpack.element.version.clone(),
                layers: Some(BTreeMap::new()),
                store: None,
            })
            .collect();
        let metadata = CacheMetadata { buildpacks, ..CacheMetadata::default() };
        Self { metadata, known: Vec::new(), layers: BTreeMap::new() }
    }

    pub(crate) fn add(
        &mut self,
        cached: &Cached<'_>,
        layer: Result<InCache, PackError>,
    ) -> Result<(), CacheError> {
        let layer = match layer {
            Ok(layer) => layer,
            Err(error @ (PackError::Read { .. } | PackError::Unfit { .. })) => {
                let step = CacheStep::LeftOut { layer: cached.name.clone(), why: with_causes(&error) };
                self.layers.insert(cached.slot.clone(), (step, None));
                return Ok(());
            }
            Err(source) => return Err(CacheError::Pack { layer: cached.name.clone(), source }),
        };
        match cached.of {
            Some((buildpack, found)) => {
                let (name, diff_id) = (found.name.clone(), layer.diff_id.clone());
                let buildpack = buildpack.element.id.dir();
                self.known.push(KnownLayer { buildpack, name, diff_id });
                let saved = found.metadata(&layer.diff_id);
                let buildpack = &mut self.metadata.buildpacks[cached.slot.0];
                buildpack.layers.get_or_insert_default().insert(found.name.clone(), saved);
            }
            None => self.metadata.sbom = Sha { sha: layer.diff_id.to_string() },
        }
        let (name, unread) = (cached.name.clone(), layer.unread);
        let step =
            if layer.reused { CacheStep::Reused { layer: name, unread } } else { CacheStep::Added(name) };
        self.layers.insert(cached.slot.clone(), (step, layer.layer));
        Ok(())
    }

    /// What each buildpack's layer was found to be.
    pub fn known(&self) -> &[KnownLayer] {
        &self.known
    }

    /// What became of each layer.
    pub fn steps(&self) -> Vec<CacheStep> {
        self.layers.values().map(|(step, _)| step.clone()).collect()
    }
}

/// The cache as an image. There is no machine that it would be for; a registry need not take an image without layers.
fn image(saved: &Saved, outbox: &Outbox) -> Result<Image, CacheError> {
    let mut layers: Vec<Layer> = saved.layers.values().filter_map(|(_, layer)| layer.clone()).collect();
    if layers.is_empty() {
        layers.push(outbox.empty()?);
    }
    let created = Some(CREATED.to_owned());
    let mut config = Config { os: "linux".to_owned(), created: created.clone(), ..Config::default() };
    config.rootfs.kind = "layers".to_owned();
    config.history = vec![History { created, ..History::default() }; layers.len()];
    let text = write_json(&saved.metadata).map_err(CacheError::Document)?;
    config.config.labels.insert(CACHE_METADATA_LABEL.to_owned(), text);
    Ok(Image::assemble(config, layers)?)
}

/// Puts the staging folder into the place of the committed one, and removes what that was.
pub(super) fn put_in_place(dir: &Path) -> Result<(), CacheError> {
    let [staging, committed, backup] = ["staging", COMMITTED, "committed-backup"].map(|name| dir.join(name));
    let exchange = RenameFlags::RENAME_EXCHANGE;
    if renameat2(AT_FDCWD, &staging, AT_FDCWD, &committed, exchange).is_err() {
        // There was none yet, or the file system cannot exchange: in two steps, as the reference does.
        remove(&backup)?;
        match fs::rename(&committed, &backup) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved.map_err(|source| CacheError::Write { path: backup.clone(), source })?,
        }
        fs::rename(&staging, &committed).map_err(|source| CacheError::Write { path: committed, source })?;
    }
    remove(&staging)?;
    remove(&backup)
}

pub(super) fn remove(path: &Path) -> Result<(), CacheError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|source| CacheError::Write { path: path.to_owned(), source }),
    }
}

/// The name of a layer's archive in a folder.
pub(crate) fn archive_name(diff_id: &Digest) -> String {
    format!("{diff_id}.tar")
}
