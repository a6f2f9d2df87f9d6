//! The programs of another lifecycle: taken from the user's disk into a folder of one build, or found in an image.

use std::fs::{self, File};
use std::io::BufReader;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use coracle_images::uncompressed;
use coracle_images::unpack::{Limits, unpack_layer};
use coracle_lifecycle::folder;
use coracle_runtime::IdMap;
use serde::{Deserialize, Serialize};

use super::pull::Owners;
use super::source::copy_tree;
use super::{AnyError, Job};

/// What a lifecycle must have.
const PHASES: [&str; 5] = ["analyzer", "detector", "restorer", "builder", "exporter"];

/// Make a root filesystem of a lifecycle's release archive, or of a folder with what is in one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TakeLifecycle {
    /// In the stage's root.
    pub(crate) source: PathBuf,
    /// As messages call it.
    pub(crate) name: String,
    /// The root filesystem, which is made.
    pub(crate) into: PathBuf,
    pub(crate) ids: IdMap,
}

impl Job for TakeLifecycle {
    /// The text of lifecycle.toml.
    type Answer = String;

    fn carry_out(self) -> Result<String, AnyError> {
        let Self { source, name, into, ids } = self;
        let root = ids.outer(0)?;
        let cnb = into.join("cnb");
        fs::create_dir_all(&into)?;
        if fs::metadata(&source)?.is_dir() {
            copy_tree(&source, &cnb, (root, root), &[])?;
        } else {
            fs::create_dir(&cnb)?;
            let file = File::open(&source)?;
            let limits = Limits::default().for_compressed(file.metadata()?.len());
            uncompressed(BufReader::new(file))
                .map_err(AnyError::from)
                .and_then(|archive| Ok(unpack_layer(archive, File::open(&cnb)?.as_fd(), &Owners(ids), &limits)?))
                .map_err(|error| {
                    let why = coracle_runtime::with_causes(&*error);
                    format!("{name} is no release archive of a lifecycle, and no folder with what is in one: {why}")
                })?;
        }
        let text = folder::text(File::open(&cnb)?.as_fd(), Path::new("lifecycle.toml"))?;
        let text = text.ok_or_else(|| {
            format!("{name} has no lifecycle.toml; name a release archive of a lifecycle, or the folder with what is in one")
        })?;
        check(&cnb.join("lifecycle"), &name)?;
        Ok(text)
    }
}

/// Find the layer with a lifecycle's programs in an image.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FindLifecycle {
    /// The image's unpacked layers, the lowest first.
    pub(crate) layers: Vec<PathBuf>,
    /// As messages call it.
    pub(crate) name: String,
}

impl Job for FindLifecycle {
    type Answer = PathBuf;

    fn carry_out(self) -> Result<PathBuf, AnyError> {
        let is_folder = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
        let has_it =
            |layer: &&PathBuf| is_folder(&layer.join("cnb")) && is_folder(&layer.join("cnb/lifecycle"));
        let found = self.layers.iter().rev().find(has_it);
        let found = found.ok_or_else(|| format!("{} has no folder /cnb/lifecycle", self.name))?;
        check(&found.join("cnb/lifecycle"), &self.name)?;
        Ok(found.clone())
    }
}

/// Whether all phases are there. What they are shows when they are started, where they can do no harm.
fn check(folder: &Path, name: &str) -> Result<(), AnyError> {
    let is_missing = |phase: &&&str| fs::symlink_metadata(folder.join(phase)).is_err();
    match PHASES.iter().find(is_missing) {
        Some(phase) => Err(format!("{name} has no program {phase} in its folder lifecycle").into()),
        None => Ok(()),
    }
}
