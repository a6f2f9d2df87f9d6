//! Documents on their way to and from phases that another lifecycle plays.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::chown;

use coracle_cnb::{Group, GroupElement, Plan};
use coracle_lifecycle::describe::Description;
use coracle_lifecycle::folder;
use coracle_runtime::IdMap;
use serde::{Deserialize, Serialize};

use super::decide::{read_json, read_toml};
use super::{AnyError, Job, User};
use crate::build::folders::Folders;
use crate::build::foreign::group;

/// Give a phase copies of documents that it changes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Lend {
    pub(crate) folders: Folders,
    pub(crate) ids: IdMap,
    /// The user of the phase.
    pub(crate) user: User,
    pub(crate) phase: String,
    /// File names; what is not there is not missed here.
    pub(crate) documents: Vec<String>,
}

impl Job for Lend {
    type Answer = ();

    fn carry_out(self) -> Result<(), AnyError> {
        let Self { folders, ids, user, phase, documents } = self;
        let (uid, gid) = (ids.outer(u64::from(user.uid))?, ids.outer(u64::from(user.gid))?);
        let out = folders.out(&phase);
        fs::create_dir_all(&out)?;
        chown(&out, Some(uid), Some(gid))?;
        let control = File::open(folders.control())?;
        for name in documents {
            if let Some(text) = folder::text(control.as_fd(), name.as_ref())? {
                let path = out.join(name);
                fs::write(&path, text)?;
                chown(&path, Some(uid), Some(gid))?;
            }
        }
        Ok(())
    }
}

/// Take what another lifecycle's detector chose, if the builder can have led to it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TakeDetected {
    pub(crate) folders: Folders,
    pub(crate) phase: String,
}

impl Job for TakeDetected {
    /// The buildpacks that take part, by id and version; or the phase's exit code, and why none do.
    type Answer = Result<Vec<String>, (u8, String)>;

    fn carry_out(self) -> Result<Self::Answer, AnyError> {
        let description: Description = read_json(&self.folders.out("describe-builder"), "builder.json")?;
        let out = self.folders.out(&self.phase);
        let group: Group = read_toml(&out, "group.toml")?;
        let plan: Plan = read_toml(&out, "plan.toml")?;
        if !group.group_extensions.is_empty() {
            return Ok(Err(not_extended(&group.group_extensions)));
        }
        let group = group::checked(&group, &description)?;
        let plan = group::checked_plan(plan, &group)?;
        let control = self.folders.control();
        fs::write(control.join("group.toml"), coracle_cnb::write_toml(&group)?)?;
        fs::write(control.join("plan.toml"), coracle_cnb::write_toml(&plan)?)?;
        Ok(Ok(group.group.iter().map(GroupElement::name).collect()))
    }
}

/// The exit code for an image that could not be extended (Platform API, "Exit Codes").
const EXTEND: u8 = 102;

fn not_extended(extensions: &[GroupElement]) -> (u8, String) {
    let names: Vec<String> = extensions.iter().map(GroupElement::name).collect();
    let why = format!(
        "image extensions take part ({}), which Coracle's own detector has to see to: add --native-phase detector",
        names.join(", ")
    );
    (EXTEND, why)
}

/// Put the metadata where other lifecycles' exporters look for it, in the place of what programs of buildpacks may have left there.
pub(super) fn put_among_layers(layers: BorrowedFd<'_>, text: &str) -> Result<(), AnyError> {
    folder::remove(layers, "config".as_ref())?;
    let config = folder::make_all(layers, "config".as_ref())?;
    Ok(folder::replace(config.as_fd(), "metadata.toml", text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_replace_what_is_there_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (layers, other) = (folder.path().join("layers"), folder.path().join("other"));
        fs::create_dir_all(layers.join("config")).unwrap();
        fs::create_dir(&other).unwrap();
        let read = || fs::read_to_string(layers.join("config/metadata.toml")).unwrap();
        let put = || put_among_layers(File::open(&layers).unwrap().as_fd(), "ours").unwrap();
        fs::write(layers.join("config/metadata.toml"), "theirs").unwrap();
        put();
        assert_eq!(read(), "ours");
        fs::remove_dir_all(layers.join("config")).unwrap();
        std::os::unix::fs::symlink(&other, layers.join("config")).unwrap();
        put();
        assert_eq!(read(), "ours");
        assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
    }
}
