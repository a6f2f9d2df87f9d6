//! What stays after the one container of a trusted builder (docs/decisions/0041-who-packs-again-what-a-creator-packed.md).
//!
//! In it programs of buildpacks ran beside the exporter, as the same user. So nothing that it left is believed: its documents say at most
//! which layers are worth looking at, and what their archives are is found out here, by reading them.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use coracle_cnb::{BuildpackId, Metadata};
use coracle_images::Digest;
use coracle_lifecycle::cache::Cache;
use coracle_lifecycle::export::{App, Layers};
use coracle_lifecycle::folder;
use coracle_lifecycle::known::{KnownApplication, KnownLayer, KnownLayers};
use coracle_lifecycle::restore::is_layer_name;

use super::{Checked, Clocks, Tree};
use crate::build::folders::guest;
use crate::worker::AnyError;

impl Tree {
    /// Keeps those layers of the cache `data` that are what it has, and the application with them. `owner` has all files, as ids of the
    /// guest. Of the others says why not. Without any, the workspace alone stays, if nobody has touched it.
    pub(in crate::worker) fn keep_created(
        &self,
        data: &Path,
        owner: (u32, u32),
        since: Clocks,
    ) -> Result<Vec<String>, AnyError> {
        let (layers, mut notes) = self.packed_again(&listed(data), owner)?;
        if layers.is_empty() {
            self.leave()?;
            return Ok(notes);
        }
        let nothing = KnownLayers::default();
        let Checked { workspace, .. } = self.unchanged(&nothing, since)?;
        // Without its signature nobody asks for it again.
        let application = workspace.as_ref().and_then(|_| self.application_again(owner).ok());
        let packed = KnownLayers { layers, application, ..KnownLayers::default() };
        notes.extend(self.keep(&packed, &nothing, workspace)?);
        Ok(notes)
    }

    /// Those of the layers whose archives would be what is said of them.
    fn packed_again(
        &self,
        listed: &[KnownLayer],
        owner: (u32, u32),
    ) -> Result<(Vec<KnownLayer>, Vec<String>), AnyError> {
        let paths: Vec<PathBuf> =
            listed.iter().map(|layer| Path::new(&layer.buildpack).join(&layer.name)).collect();
        let dir = File::open(self.layers())?;
        // Archives hold the owners of the folders above; all but the user's are somebody else's affair.
        let all =
            Layers { dir: dir.as_fd(), path: guest::LAYERS, above: &[], owner, owner_above: Some(owner) };
        let (mut same, mut notes) = (Vec::new(), Vec::new());
        if !fits(&paths.iter().map(|path| self.layers().join(path)).collect::<Vec<_>>()) {
            notes.push("no layer stays unpacked: what the cache lists is too much to be read".to_owned());
            return Ok((same, notes));
        }
        for (layer, found) in listed.iter().zip(all.diff_ids(&paths)) {
            let why = match found {
                Err(error) => coracle_runtime::with_causes(&error),
                Ok(found) if found != layer.diff_id => "the cache has another".to_owned(),
                Ok(_) if !self.is_users(layer)? => "a folder above it belongs to somebody else".to_owned(),
                Ok(_) => {
                    same.push(layer.clone());
                    continue;
                }
            };
            notes.push(format!("{}:{} does not stay unpacked: {why}", layer.buildpack, layer.name));
        }
        Ok((same, notes))
    }

    fn is_users(&self, layer: &KnownLayer) -> Result<bool, AnyError> {
        Ok(self.above(layer)?.iter().all(|above| (above.uid, above.gid) == self.user))
    }

    /// What the application's archives would be. Which slices it has, only buildpacks could say: with others it is another application.
    fn application_again(&self, owner: (u32, u32)) -> Result<KnownApplication, AnyError> {
        if !fits(&[self.workspace()]) {
            return Err("the application is too much to be read".into());
        }
        let (layers, dir) = (File::open(self.layers())?, File::open(self.workspace())?);
        let metadata: Option<Metadata> =
            folder::document("metadata.toml", layers.as_fd(), Path::new("config/metadata.toml"))?;
        let slices = metadata.unwrap_or_default().slices;
        let app = App { dir: dir.as_fd(), path: guest::WORKSPACE, above: &[], owner };
        let diff_ids = app.diff_ids(&slices)?;
        Ok(KnownApplication { path: guest::WORKSPACE.to_owned(), owner, diff_ids, slices })
    }
}

/// As much as buildpacks write without being ended, whose files without blocks nobody has counted.
const MOST_BYTES: u64 = 64 << 30;
const MOST_ENTRIES: usize = 10_000_000;

/// Whether these folders can be read in a time that a build may take. Nothing of the build runs any more.
fn fits(folders: &[PathBuf]) -> bool {
    let (mut bytes, mut entries, mut open) = (0_u64, 0, folders.to_vec());
    while let Some(folder) = open.pop() {
        // What is no folder, or cannot be listed, is told of where it is read.
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(about) = entry.metadata() else { continue };
            entries += 1;
            if about.is_dir() {
                open.push(entry.path());
            } else if about.is_file() {
                bytes = bytes.saturating_add(about.len());
            }
            if bytes > MOST_BYTES || entries > MOST_ENTRIES {
                return false;
            }
        }
    }
    true
}

/// What the list of a cache speaks of that can be a layer. One that cannot be read is empty, as for the restorer.
fn listed(data: &Path) -> Vec<KnownLayer> {
    let cache = Cache::open(data).unwrap_or_default();
    let (mut listed, mut names) = (Vec::new(), BTreeSet::new());
    for buildpack in &cache.metadata().buildpacks {
        let Ok(id) = buildpack.key.parse::<BuildpackId>() else { continue };
        for (name, layer) in buildpack.layers.iter().flatten().filter(|(name, _)| is_layer_name(name)) {
            let diff_id: Option<Digest> = layer.sha.parse().ok();
            let known = |diff_id| KnownLayer { buildpack: id.dir(), name: name.clone(), diff_id };
            // Who lists one twice has it read once.
            if names.insert((id.dir(), name.clone())) {
                listed.extend(diff_id.map(known));
            }
        }
    }
    listed
}

#[cfg(test)]
mod tests;
