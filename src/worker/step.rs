//! The folders that one buildpack of the group sees when it runs by itself.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::path::Path;

use coracle_cnb::Group;
use coracle_lifecycle::build::{SharedLayer, is_open};
use coracle_runtime::IdMap;
use serde::{Deserialize, Serialize};

use super::decide::read_toml;
use super::{AnyError, Job, User};
use crate::build::folders::Folders;

/// Make the folders of one step of the build, and say which of them it may write. Nothing foreign runs meanwhile.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PrepareStep {
    pub(crate) folders: Folders,
    pub(crate) ids: IdMap,
    /// The user of the phase.
    pub(crate) user: User,
    /// What the user lets later buildpacks change.
    pub(crate) shared: Vec<String>,
    /// The buildpack's number in the group.
    pub(crate) number: usize,
}

/// A folder below `/layers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) folder: String,
    pub(crate) writable: bool,
}

impl Job for PrepareStep {
    /// Bills of materials, earlier buildpacks, and the one that runs. Later ones have nothing there yet that concerns it.
    type Answer = Vec<Place>;

    fn carry_out(self) -> Result<Vec<Place>, AnyError> {
        let owner = (self.ids.outer(u64::from(self.user.uid))?, self.ids.outer(u64::from(self.user.gid))?);
        let group: Group = read_toml(&self.folders.control(), "group.toml")?;
        let shared: Vec<SharedLayer> =
            self.shared.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        let layers = File::open(self.folders.layers())?;
        let mut places = vec![Place { folder: "sbom".to_owned(), writable: true }];
        for (number, element) in group.group.iter().enumerate().take(self.number + 1) {
            let folder = element.id.dir();
            let writable = number == self.number || is_open(layers.as_fd(), element, &shared)?;
            // Ids that differ in `/` and `_` alone have one folder.
            places.retain(|place| place.folder != folder);
            places.push(Place { folder, writable });
        }
        for place in &places {
            make(&self.folders.layers().join(&place.folder), owner)?;
        }
        Ok(places)
    }
}

/// A folder may be there: the restorer made it, or an earlier step. A link would lead the mount elsewhere.
fn make(folder: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(folder) {
        Ok(()) => lchown(folder, Some(uid), Some(gid)),
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Err(_) if fs::symlink_metadata(folder)?.is_dir() => Ok(()),
        Err(_) => Err(io::Error::other(format!("{} is no folder", folder.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_place_of_a_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let me = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        let folder = dir.path().join("a_buildpack");
        make(&folder, me).unwrap();
        make(&folder, me).unwrap();
        fs::remove_dir(&folder).unwrap();
        std::os::unix::fs::symlink("/", &folder).unwrap();
        let error = make(&folder, me).unwrap_err().to_string();
        assert_eq!(error, format!("{} is no folder", folder.display()));
    }
}
