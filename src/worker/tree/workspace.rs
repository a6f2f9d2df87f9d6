//! The copy of the application that stays between builds (docs/decisions/0030-the-applications-copy-stays.md).
//!
//! | below the tree | what |
//! |---|---|
//! | `workspace` | `/workspace` of the build that runs, and what stays of it until the next |
//! | `source.json` | its signature when nobody but us had touched it, and what the source's entries were then |
//!
//! It stays as a whole or not at all: what programs of a build have written there is gone with that build.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use coracle_images::Digest;
use coracle_lifecycle::signature::{Probe, Signature, is_told_of_changes, look};
use serde::{Deserialize, Serialize};

use super::{Clocks, Tree, is_folder};
use crate::worker::AnyError;
use crate::worker::delete::delete;
use crate::worker::source::{Copied, Known, copy_tree, renew_tree};

/// A copy as it was when it was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Copy {
    signature: Digest,
    user: (u32, u32),
    /// As of the layers: what of a file had not reached the disk is not what the kernel says.
    boot: String,
    /// Nanoseconds since 1970.
    signed: i128,
    /// Whether it was made of an earlier one, because its source was changed.
    renewed: bool,
    /// Paths below the source that were left out.
    excluded: Vec<PathBuf>,
    known: Known,
}

impl Copy {
    pub(super) fn is_renewed(&self) -> bool {
        self.renewed
    }
}

impl Tree {
    pub(super) fn workspace(&self) -> PathBuf {
        self.root.join("workspace")
    }

    fn evidence(&self) -> PathBuf {
        self.root.join("source.json")
    }

    /// Makes the workspace a copy of `source`, of what stayed and what did not. Says what was done, or why nothing stays.
    pub(in crate::worker) fn copy_source(
        &self,
        source: &Path,
        excluded: &[PathBuf],
        now: Clocks,
    ) -> Result<(Copied, Vec<String>), AnyError> {
        if !is_told_of_changes(source)? {
            self.forget_workspace()?;
            let why = "the copy of the source does not stay: its file system does not tell of every change";
            return Ok((copy_tree(source, &self.workspace(), self.user, excluded)?, vec![why.to_owned()]));
        }
        let stayed = self.copy();
        let refused = match &stayed {
            None => Some("none stayed"),
            Some(copy) => self.refused_copy(copy, excluded, now)?,
        };
        let stayed = stayed.filter(|_| refused.is_none());
        if refused.is_some() {
            self.forget_workspace()?;
        }
        let nothing = Known::new();
        let known = stayed.as_ref().map_or(&nothing, |copy| &copy.known);
        let copied = renew_tree(source, &self.workspace(), self.user, excluded, known)?;
        let mut notes = vec![told(&copied, refused)];
        match stayed {
            Some(copy) if !copied.changed => {
                if copy.known != copied.known {
                    self.write_copy(&Copy { known: copied.known.clone(), ..copy })?;
                }
            }
            earlier => {
                if let Err(error) = self.sign(excluded, &copied, earlier.is_some()) {
                    let why = coracle_runtime::with_causes(&*error);
                    notes.push(format!("the copy of the source does not stay: {why}"));
                }
            }
        }
        Ok((copied, notes))
    }

    /// Before any program of the build runs.
    fn sign(&self, excluded: &[PathBuf], copied: &Copied, renewed: bool) -> Result<(), AnyError> {
        let probe = Probe::new(self.root.join("probe"))?;
        let Signature { digest, newest } = self.look_at_workspace()?;
        newest.settle();
        if !probe.shows()? || SystemTime::now() <= newest.time() {
            return Err("the file system does not tell of changes".into());
        }
        let (user, boot, signed) = (self.user, self.boot.clone(), Clocks::now().real);
        let (excluded, known) = (excluded.to_vec(), copied.known.clone());
        Ok(self.write_copy(&Copy { signature: digest, user, boot, signed, renewed, excluded, known })?)
    }

    /// Why the workspace does not count as the copy that it was.
    fn refused_copy(
        &self,
        copy: &Copy,
        excluded: &[PathBuf],
        now: Clocks,
    ) -> Result<Option<&'static str>, AnyError> {
        if let Some(why) = self.refused_at(copy.user, &copy.boot, copy.signed, now) {
            return Ok(Some(why));
        }
        if copy.excluded != excluded {
            return Ok(Some("something else is left out of it"));
        }
        Ok((!self.is_copy(copy)?).then_some("it was changed"))
    }

    fn is_copy(&self, copy: &Copy) -> io::Result<bool> {
        Ok(is_folder(&self.workspace())?
            && self.look_at_workspace().is_ok_and(|seen| seen.digest == copy.signature))
    }

    pub(super) fn look_at_workspace(&self) -> Result<Signature, AnyError> {
        Ok(look(File::open(self.workspace())?.as_fd())?)
    }

    /// The copy of this signature, which nobody but us has touched.
    pub(super) fn untouched(&self, signature: &Digest) -> Option<Copy> {
        self.copy().filter(|copy| copy.signature == *signature && !copy.known.is_empty())
    }

    /// What programs of a build have touched does not stay.
    pub(super) fn end_workspace(&self) -> io::Result<()> {
        if !is_folder(&self.workspace())? {
            return Ok(());
        }
        let is_copy = self.copy().map(|copy| self.is_copy(&copy)).transpose()?;
        if is_copy == Some(true) { Ok(()) } else { self.forget_workspace() }
    }

    pub(super) fn forget_workspace(&self) -> io::Result<()> {
        for name in [self.evidence(), self.root.join("source.new")] {
            match fs::remove_file(name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if is_folder(&self.workspace())? { delete(&self.workspace()) } else { Ok(()) }
    }

    /// What cannot be read is nothing, as with the records.
    fn copy(&self) -> Option<Copy> {
        serde_json::from_slice(&fs::read(self.evidence()).ok()?).ok()
    }

    fn write_copy(&self, copy: &Copy) -> io::Result<()> {
        let new = self.root.join("source.new");
        fs::write(&new, serde_json::to_vec(copy)?)?;
        fs::rename(new, self.evidence())
    }
}

fn told(copied: &Copied, refused: Option<&'static str>) -> String {
    let Copied { copied, stayed, bytes, .. } = copied;
    let why = refused.map(|why| format!("; of an earlier copy: {why}")).unwrap_or_default();
    format!("of the source {copied} files and links were copied ({bytes} bytes), {stayed} had stayed{why}")
}

#[cfg(test)]
mod tests;
