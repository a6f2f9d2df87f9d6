//! The folders that the phases of one build see.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use coracle_cnb::{LIFECYCLE_METADATA_LABEL, LifecycleMetadata, read_json};
use coracle_images::{Digest, Image, Reference, Store, write_sparse_layout};
use coracle_lifecycle::phases::layout_path;
use coracle_runtime::IdMap;
use serde::{Deserialize, Serialize};

use super::delete::delete;
use super::source::copy_tree;
use super::{AnyError, Clocks, Job, User, layers};
use crate::build::folders::{self, Folders};
use crate::stage::STORE;

/// Make the folders of a build, with copies of what the user brings.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Prepare {
    pub(crate) folders: Folders,
    pub(crate) ids: IdMap,
    /// The user of the phases.
    pub(crate) user: User,
    /// What of the source is not to be copied.
    pub(crate) excluded: Vec<PathBuf>,
    /// Documents for the phases, by file name.
    pub(crate) control: Vec<(String, String)>,
    /// Folders of buildpacks that the builder does not have, and where they belong in it.
    pub(crate) buildpacks: Vec<(PathBuf, PathBuf)>,
    /// Whether what earlier builds left in the cache is deleted.
    pub(crate) clear_cache: bool,
}

impl Job for Prepare {
    /// How many files of the source were left out because they have no content, and what of an earlier copy stayed.
    type Answer = (usize, Vec<String>);

    fn carry_out(self) -> Result<Self::Answer, AnyError> {
        let root = (self.ids.outer(0)?, self.ids.outer(0)?);
        let user = (self.ids.outer(u64::from(self.user.uid))?, self.ids.outer(u64::from(self.user.gid))?);
        let folders = &self.folders;
        // Runtimes look mounts up as a guest's id; the home above, of mode 0700, keeps everybody else out.
        fs::set_permissions(&folders.root, Permissions::from_mode(0o755))?;
        if folders.tree {
            layers::tree(self.ids, &self.user)?.begin(self.clear_cache)?;
        }
        for folder in folders.of_ours() {
            make(&folder, None)?;
        }
        for folder in folders.of_the_guest() {
            make(&folder, Some(user))?;
        }
        self.make_cache(user)?;
        for (name, text) in &self.control {
            fs::write(folders.control().join(name), text)?;
        }
        for (source, place) in &self.buildpacks {
            let target = folders.buildpacks().join(place.strip_prefix("/").unwrap_or(place));
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            copy_tree(source, &target, root, &[])?;
        }
        give_all(&folders.buildpacks(), root)?;
        let source = Path::new(folders::SOURCE);
        let (copied, notes) = match folders.tree {
            true => layers::tree(self.ids, &self.user)?.copy_source(source, &self.excluded, Clocks::now())?,
            false => (copy_tree(source, &folders.workspace(), user, &self.excluded)?, Vec::new()),
        };
        Ok((copied.skipped, notes))
    }
}

impl Prepare {
    /// The cache outlives the build: its inner folder belongs to the guest.
    fn make_cache(&self, user: (u32, u32)) -> io::Result<()> {
        make_cache_data(&Path::new(folders::CACHE).join(folders::CACHE_DATA), self.clear_cache, user)
    }
}

/// Show the phases images of the store, those that they may ask for. Ones that it does not have are not there for them either.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LayOut {
    pub(crate) folders: Folders,
    pub(crate) ids: IdMap,
    /// The user of the phases.
    pub(crate) user: User,
    pub(crate) images: Vec<Reference>,
}

impl Job for LayOut {
    type Answer = ();

    fn carry_out(self) -> Result<(), AnyError> {
        let user = (self.ids.outer(u64::from(self.user.uid))?, self.ids.outer(u64::from(self.user.gid))?);
        let store = Store::open(STORE)?;
        self.images.iter().try_for_each(|image| lay_out(&store, image, &self.folders.layout(), user))
    }
}

/// Make the folders of one phase that builds nothing: for what it writes, and for what is kept of that.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MakeFolders {
    pub(crate) folders: Folders,
    pub(crate) phase: String,
    pub(crate) ids: IdMap,
    /// The user of the phase.
    pub(crate) user: User,
}

impl Job for MakeFolders {
    type Answer = ();

    fn carry_out(self) -> Result<(), AnyError> {
        let user = (self.ids.outer(u64::from(self.user.uid))?, self.ids.outer(u64::from(self.user.gid))?);
        fs::set_permissions(&self.folders.root, Permissions::from_mode(0o755))?;
        make(&self.folders.control(), None)?;
        Ok(make(&self.folders.out(&self.phase), Some(user))?)
    }
}

/// Make an image of the store, if it has it, one that phases find in folders: what it is, and none of its layers but one.
pub(super) fn lay_out(
    store: &Store,
    reference: &Reference,
    layout: &Path,
    user: (u32, u32),
) -> Result<(), AnyError> {
    let Some(image) = store.image(reference)? else { return Ok(()) };
    let folder = layout_path(layout, reference);
    write_sparse_layout(&image, Some(reference.identifier()), &folder)?;
    if let Some(bills) = bills(&image).filter(|digest| store.has(digest)) {
        fs::copy(store.blob_path(&bills), folder.join("blobs/sha256").join(bills.hex()))?;
    }
    Ok(give_all(layout, user)?)
}

/// The one layer of an image that the next build needs whole: the bills of materials of layers that it will reuse.
fn bills(image: &Image) -> Option<Digest> {
    let label = image.config.label(LIFECYCLE_METADATA_LABEL)?;
    let metadata: LifecycleMetadata = read_json(LIFECYCLE_METADATA_LABEL, label).ok()?;
    let diff_id = metadata.sbom?.sha.parse().ok()?;
    let layer = image.layers().into_iter().find(|layer| layer.diff_id == diff_id)?;
    Some(layer.descriptor.digest)
}

/// Whatever is there instead of a folder may be a link into the store, and is refused.
fn make_cache_data(folder: &Path, clear: bool, user: (u32, u32)) -> io::Result<()> {
    match fs::symlink_metadata(folder) {
        Ok(found) if !found.is_dir() => {
            return Err(io::Error::other(
                "what lies in the cache is no folder; delete it, or name another cache",
            ));
        }
        Ok(_) if clear => delete(folder)?,
        _ => {}
    }
    make(folder, Some(user))
}

fn make(folder: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    owner.map_or(Ok(()), |(uid, gid)| chown(folder, Some(uid), Some(gid)))
}

/// Give a small tree of our own making away.
fn give_all(folder: &Path, owner: (u32, u32)) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            give_all(&entry.path(), owner)?;
        }
        std::os::unix::fs::lchown(entry.path(), Some(owner.0), Some(owner.1))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_cache_gives_nothing_away() {
        let folder = tempfile::tempdir().unwrap();
        let (data, store) = (folder.path().join("data"), folder.path().join("store"));
        fs::create_dir(&store).unwrap();
        fs::write(store.join("kept"), "").unwrap();
        std::os::unix::fs::symlink(&store, &data).unwrap();
        let me = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        for clear in [true, false] {
            assert!(make_cache_data(&data, clear, me).is_err());
        }
        assert!(store.join("kept").exists());
        fs::remove_file(&data).unwrap();
        make_cache_data(&data, false, me).unwrap();
        fs::write(data.join("old"), "").unwrap();
        make_cache_data(&data, false, me).unwrap();
        assert!(data.join("old").exists());
        make_cache_data(&data, true, me).unwrap();
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
    }
}
