//! What extensions ask for, decided on the word of their programs: as everything that foreign programs left, it is a stranger's.

use std::fs;
use std::os::unix::fs::chown;

use coracle_cnb::{Analyzed, Group, Plan, RunImage};
use coracle_images::{Reference, Store};
use coracle_lifecycle::generate::without_provided;
use coracle_lifecycle::phases::Chosen;
use coracle_runtime::IdMap;
use serde::{Deserialize, Serialize};

use super::decide::read_toml;
use super::prepare::lay_out;
use super::{AnyError, Job, User};
use crate::build::folders::Folders;
use crate::stage::STORE;

/// Read what the programs of extensions left, and take what extensions provide out of the plan.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Generate {
    pub(crate) folders: Folders,
}

/// What extensions ask for.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Generated {
    /// Nothing that changes an image.
    Nothing,
    /// Another run image.
    RunImage(String),
    /// Images that are extended, by these Dockerfiles.
    Extended(Vec<String>),
}

impl Job for Generate {
    type Answer = Generated;

    fn carry_out(self) -> Result<Generated, AnyError> {
        let chosen: Chosen = read_toml(&self.folders.out("generate-programs"), "chosen.toml")?;
        if !chosen.extending.is_empty() {
            return Ok(Generated::Extended(chosen.extending));
        }
        let control = self.folders.control();
        let group: Group = read_toml(&control, "group.toml")?;
        let plan: Plan = read_toml(&control, "plan.toml")?;
        let plan = without_provided(plan, &group.group_extensions);
        fs::write(control.join("plan.toml"), coracle_cnb::write_toml(&plan)?)?;
        Ok(chosen.run_image.map_or(Generated::Nothing, Generated::RunImage))
    }
}

/// Have the restorer look up another run image than the analyzer did.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SwitchRunImage {
    pub(crate) folders: Folders,
    pub(crate) ids: IdMap,
    /// The user of the phases.
    pub(crate) user: User,
    pub(crate) run_image: Reference,
    /// Whether phases find images in folders.
    pub(crate) layout: bool,
}

impl Job for SwitchRunImage {
    type Answer = ();

    fn carry_out(self) -> Result<(), AnyError> {
        let user = (self.ids.outer(u64::from(self.user.uid))?, self.ids.outer(u64::from(self.user.gid))?);
        let mut analyzed: Analyzed = read_toml(&self.folders.control(), "analyzed.toml")?;
        let name = self.run_image.to_string();
        analyzed.run_image = Some(RunImage { reference: name.clone(), image: name, ..RunImage::default() });
        let path = self.folders.out("restorer").join("analyzed.toml");
        fs::write(&path, coracle_cnb::write_toml(&analyzed)?)?;
        chown(&path, Some(user.0), Some(user.1))?;
        if self.layout {
            lay_out(&Store::open(STORE)?, &self.run_image, &self.folders.layout(), user)?;
        }
        Ok(())
    }
}
