//! What a build does with the layers tree: before layers are restored, before they are exported, and after.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use coracle_cnb::{Analyzed, Group};
use coracle_images::Digest;
use coracle_lifecycle::cache::Cache;
use coracle_lifecycle::known::{KnownLayer, KnownLayers};
use coracle_lifecycle::{folder, restore};
use coracle_runtime::IdMap;
use serde::{Deserialize, Serialize};

use super::decide::read_toml;
use super::tree::{Checked, Clocks, Tree};
use super::{AnyError, Job, User};
use crate::build::PLATFORM_API;
use crate::build::folders::{self, Folders, PACKED, UNCHANGED};

/// Put the layers that the restorer would unpack, and that are here still, where it finds them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ReuseLayers {
    pub(crate) folders: Folders,
    pub(crate) ids: IdMap,
    /// The user of the phases.
    pub(crate) user: User,
}

impl Job for ReuseLayers {
    /// When it was, and why which layers are unpacked all the same.
    type Answer = (Clocks, Vec<String>);

    fn carry_out(self) -> Result<Self::Answer, AnyError> {
        let group: Group = read_toml(&self.folders.control(), "group.toml")?;
        let analyzed: Analyzed = read_toml(&self.folders.control(), "analyzed.toml")?;
        // One that cannot be read is empty for the restorer too, which says so.
        let cache = Cache::open(&Path::new(folders::CACHE).join(folders::CACHE_DATA)).unwrap_or_default();
        let (planned, _) = restore::plan(&group, &analyzed.metadata, &cache, PLATFORM_API);
        let wanted = planned.into_iter().filter_map(|layer| {
            Some(KnownLayer { buildpack: layer.folder, name: layer.name, diff_id: layer.content? })
        });
        let now = Clocks::now();
        let (known, notes) = tree(self.ids, &self.user)?.reuse(wanted.collect(), now)?;
        write(&self.folders, &known)?;
        Ok((now, notes))
    }
}

/// Tell the exporter which of the layers that were reused are what they were.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CheckLayers {
    pub(crate) folders: Folders,
    pub(crate) ids: IdMap,
    pub(crate) user: User,
    /// When they were reused.
    pub(crate) since: Clocks,
}

impl Job for CheckLayers {
    /// Why which layers are read again, and the signature of the workspace, if it is what it was.
    type Answer = (Vec<String>, Option<Digest>);

    fn carry_out(self) -> Result<Self::Answer, AnyError> {
        let known: KnownLayers = read_toml(&self.folders.control(), UNCHANGED)?;
        let Checked { known, notes, workspace } =
            tree(self.ids, &self.user)?.unchanged(&known, self.since)?;
        write(&self.folders, &known)?;
        Ok((notes, workspace))
    }
}

/// Keep the layers of a build for the next one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeepLayers {
    pub(crate) folders: Folders,
    pub(crate) ids: IdMap,
    pub(crate) user: User,
    /// The signature of the workspace, if programs of the build left it as it was.
    pub(crate) workspace: Option<Digest>,
}

impl Job for KeepLayers {
    /// Why which layers do not stay.
    type Answer = Vec<String>;

    fn carry_out(self) -> Result<Vec<String>, AnyError> {
        let out = File::open(self.folders.out("exporter"))?;
        let packed = folder::document(PACKED, out.as_fd(), Path::new(PACKED))?.unwrap_or_default();
        let unchanged = read_toml(&self.folders.control(), UNCHANGED)?;
        tree(self.ids, &self.user)?.keep(&packed, &unchanged, self.workspace)
    }
}

/// Keep the layers that the one container of a trusted builder left, of which nobody's word is to be had.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeepCreated {
    pub(crate) folders: Folders,
    pub(crate) ids: IdMap,
    pub(crate) user: User,
    /// Before it was started.
    pub(crate) since: Clocks,
}

impl Job for KeepCreated {
    /// Why which layers do not stay.
    type Answer = Vec<String>;

    fn carry_out(self) -> Result<Vec<String>, AnyError> {
        let data = Path::new(folders::CACHE).join(folders::CACHE_DATA);
        tree(self.ids, &self.user)?.keep_created(&data, (self.user.uid, self.user.gid), self.since)
    }
}

/// Leave the layers of the last build, and its copy of the application, for the next one, where they are still what they were; there
/// is no image of this build.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LeaveLayers {}

impl Job for LeaveLayers {
    type Answer = ();

    fn carry_out(self) -> Result<(), AnyError> {
        Ok(Tree::new(Path::new(folders::TREE), (0, 0))?.leave()?)
    }
}

pub(super) fn tree(ids: IdMap, user: &User) -> Result<Tree, AnyError> {
    let owner = (ids.outer(u64::from(user.uid))?, ids.outer(u64::from(user.gid))?);
    Ok(Tree::new(Path::new(folders::TREE), owner)?)
}

fn write(folders: &Folders, known: &KnownLayers) -> Result<(), AnyError> {
    Ok(fs::write(folders.control().join(UNCHANGED), coracle_cnb::write_toml(known)?)?)
}
