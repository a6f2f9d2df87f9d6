//! Documents on their way to and from phases that another lifecycle plays.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::chown;

use coracle_cnb::{Group, GroupElement, Plan, Stack};
use coracle_images::{Digest, Platform, RegistryError};
use coracle_lifecycle::describe::Description;
use coracle_lifecycle::export::is_reserved;
use coracle_lifecycle::folder;
use coracle_runtime::IdMap;
use serde::{Deserialize, Serialize};

use super::decide::{read_json, read_toml};
use super::{AnyError, Job, Remote, User};
use crate::build::folders::Folders;
use crate::build::foreign::group;
use crate::build::foreign::stacks::{self, Stacked};

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

/// What an older lifecycle's builder composed, of buildpacks that ours does not know: of this group, and without labels that decide
/// what the image is.
pub(super) fn check_metadata(layers: BorrowedFd<'_>, group: &Group) -> Result<(), AnyError> {
    #[derive(Deserialize)]
    struct Composed {
        #[serde(default)]
        buildpacks: Vec<GroupElement>,
        #[serde(default)]
        labels: Vec<coracle_cnb::Label>,
    }
    let refused = |why: String| {
        AnyError::from(format!("config/metadata.toml of the builder {why}; nothing of it is used"))
    };
    let found = folder::document("metadata.toml", layers, "config/metadata.toml".as_ref())?;
    let Composed { buildpacks, labels } = found.ok_or_else(|| refused("is not there".to_owned()))?;
    let names = |list: &[GroupElement]| list.iter().map(GroupElement::name).collect::<Vec<_>>();
    if names(&buildpacks) != names(&group.group) {
        return Err(refused(format!("speaks of other buildpacks ({})", names(&buildpacks).join(", "))));
    }
    match labels.iter().find(|label| is_reserved(&label.key)) {
        Some(label) => Err(refused(format!("sets the label {}, which is the platform's", label.key))),
        None => Ok(()),
    }
}

/// See whether the images of a build and the builder's buildpacks go together. What is wrong with an image otherwise, the analyzer says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CheckStacks {
    pub(crate) folders: Folders,
    /// The builder's name, and its stack.
    pub(crate) builder: String,
    pub(crate) stack: Option<Stack>,
    pub(crate) run_image: Remote,
    /// By the name of what is built.
    pub(crate) previous: Box<Remote>,
}

impl Job for CheckStacks {
    type Answer = ();

    fn carry_out(self) -> Result<(), AnyError> {
        let description: Description = read_json(&self.folders.out("describe-builder"), "builder.json")?;
        let stack = |image: &Remote| match image.registry()?.find_image(&image.reference, &Platform::host()) {
            Ok(image) => Ok(image.and_then(|image| stacks::of(&image.config))),
            Err(RegistryError::Image { .. } | RegistryError::Platform { .. }) => Ok(None),
            Err(error) => Err(AnyError::from(error)),
        };
        let (run, previous) = (stack(&self.run_image)?, stack(&self.previous)?);
        let names = [&self.run_image, &*self.previous].map(|image| image.reference.to_string());
        Ok(stacks::check(
            &Stacked { name: &self.builder, stack: self.stack.as_ref() },
            &Stacked { name: &names[0], stack: run.as_ref() },
            &Stacked { name: &names[1], stack: previous.as_ref() },
            &description.buildpacks,
        )?)
    }
}

/// Ask a registry for the digest of what was sent there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AskDigest {
    pub(crate) image: Remote,
}

impl Job for AskDigest {
    type Answer = Digest;

    fn carry_out(self) -> Result<Digest, AnyError> {
        Ok(self.image.registry()?.image(&self.image.reference, &Platform::host())?.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_of_an_older_builder_are_of_the_group_and_take_no_label_of_the_platform() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("config")).unwrap();
        let element = "id = \"a\"\nversion = \"1\"\n";
        let group: Group = coracle_cnb::read_toml("group.toml", &format!("[[group]]\n{element}")).unwrap();
        let checked = |text: &str| {
            fs::write(folder.path().join("config/metadata.toml"), text).unwrap();
            let layers = File::open(folder.path()).unwrap();
            check_metadata(layers.as_fd(), &group).map_err(|error| error.to_string())
        };
        let own = format!("[[processes]]\ntype = \"web\"\ncommand = \"run\"\n[[buildpacks]]\n{element}");
        assert_eq!(checked(&own), Ok(()));
        let label = |key: &str| checked(&format!("{own}[[labels]]\nkey = \"{key}\"\nvalue = \"v\"\n"));
        assert_eq!(label("team.example"), Ok(()));
        let said =
            |why: &str| Err(format!("config/metadata.toml of the builder {why}; nothing of it is used"));
        let expected = said("sets the label io.buildpacks.lifecycle.metadata, which is the platform's");
        assert_eq!(label("io.buildpacks.lifecycle.metadata"), expected);
        let other = checked("[[buildpacks]]\nid = \"evil\"\nversion = \"1\"\n");
        assert_eq!(other, said("speaks of other buildpacks (evil@1)"));
        fs::remove_file(folder.path().join("config/metadata.toml")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join("config/metadata.toml")).unwrap();
        let layers = File::open(folder.path()).unwrap();
        assert!(check_metadata(layers.as_fd(), &group).is_err());
    }

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
