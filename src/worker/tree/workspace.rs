//! The copy of the application that stays between builds (docs/decisions/0030-the-applications-copy-stays.md).
//!
//! | below the tree | what |
//! |---|---|
//! | `workspace` | `/workspace` of the build that runs, and what stays of it until the next |
//! | `source.known` | its signature when nobody but us had touched it, and what its entries and the source's were then |
//!
//! What programs of a build have touched there is gone with that build, and copied again by the next: `workspace/touched.rs`.

use std::fs::{self, File, FileTimes};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use coracle_images::Digest;
use coracle_lifecycle::signature::{Probe, Signature, is_told_of_changes, look, look_at_each};
use serde::{Deserialize, Serialize};

use super::{Clocks, Tree, is_folder};
use crate::worker::AnyError;
use crate::worker::delete::delete;
use crate::worker::evidence::{Entry, Evidence};
use crate::worker::source::{Copied, Stayed, copy_tree, renew_tree};

/// Why programs of a build that has not ended have to do with it.
const CHANGED: &str = "it was changed";

/// Of the record. Others are thrown away: the next build copies everything.
const FORM: u32 = 2;

/// A copy as it was when it was made, or when what programs had touched of it was gone.
#[derive(Debug, Clone)]
pub(super) struct Copy {
    about: About,
    /// What entries of the source were when they were copied.
    known: Evidence,
    /// What entries of the copy are since.
    intact: Evidence,
}

/// All but the entries.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct About {
    form: u32,
    signature: Digest,
    user: (u32, u32),
    /// As of the layers: what of a file had not reached the disk is not what the kernel says.
    boot: String,
    /// Nanoseconds since 1970.
    signed: i128,
    /// Whether it was made of an earlier one, because its source was changed.
    renewed: bool,
    /// Whether something is gone, because programs had touched it.
    has_gaps: bool,
    /// Paths below the source that were left out.
    excluded: Vec<PathBuf>,
    /// How many entries of the source are known; those of the copy come next.
    known: u64,
}

impl Copy {
    pub(super) fn is_renewed(&self) -> bool {
        self.about.renewed
    }
}

impl Tree {
    pub(super) fn workspace(&self) -> PathBuf {
        self.root.join("workspace")
    }

    fn evidence(&self) -> PathBuf {
        self.root.join("source.known")
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
        let mut stayed = self.copy();
        let mut refused = match &stayed {
            None => Some("none stayed"),
            Some(copy) => self.refused_copy(copy, excluded, now)?,
        };
        if refused == Some(CHANGED) {
            // A build was killed.
            stayed = self.without_touched()?;
            refused = refused.filter(|_| stayed.is_none());
        }
        let stayed = stayed.filter(|_| refused.is_none());
        if refused.is_some() {
            self.forget_workspace()?;
        }
        let nothing = Evidence::default();
        let (known, has_gaps) =
            stayed.as_ref().map_or((&nothing, false), |copy| (&copy.known, copy.about.has_gaps));
        let copied = renew_tree(source, &self.workspace(), self.user, excluded, Stayed { known, has_gaps })?;
        let mut notes = vec![told(&copied, refused)];
        match stayed {
            Some(copy) if !copied.changed => {
                if copy.known != copied.known
                    && let Some(copy) = self.read_copy(true)
                {
                    self.write_copy(&Copy { known: copied.known.clone(), ..copy })?;
                }
            }
            earlier => {
                let renewed = earlier.is_some_and(|copy| copy.known != copied.known);
                let about = (renewed, false, excluded.to_vec());
                if let Err(error) = self.sign(about, copied.known.clone()) {
                    let why = coracle_runtime::with_causes(&*error);
                    notes.push(format!("the copy of the source does not stay: {why}"));
                }
            }
        }
        Ok((copied, notes))
    }

    /// While no program of a build runs: whether it was renewed, whether it has gaps, and what was left out.
    fn sign(
        &self,
        (renewed, has_gaps, excluded): (bool, bool, Vec<PathBuf>),
        known: Evidence,
    ) -> Result<Copy, AnyError> {
        let probe = Probe::new(self.root.join("probe"))?;
        let (Signature { digest, newest }, intact) = look_at_each(File::open(self.workspace())?.as_fd())?;
        newest.settle();
        if !probe.shows()? || SystemTime::now() <= newest.time() {
            return Err("the file system does not tell of changes".into());
        }
        let (user, boot, signed) = (self.user, self.boot.clone(), Clocks::now().real);
        let (form, signature) = (FORM, digest);
        let about =
            About { form, signature, user, boot, signed, renewed, has_gaps, excluded, known: known.len() };
        let copy = Copy { about, known, intact: Evidence::of(intact) };
        self.write_copy(&copy)?;
        Ok(copy)
    }

    /// What is left of the copy when all is gone that programs have touched. Where nothing can be, or its record does not count any
    /// more, nothing.
    fn without_touched(&self) -> io::Result<Option<Copy>> {
        let Some(copy) = self.read_copy(true).filter(|copy| self.counts(copy)) else { return Ok(None) };
        if !is_folder(&self.workspace())? {
            return Ok(None);
        }
        let top = File::open(self.workspace())?;
        let remove = || -> Result<Copy, AnyError> {
            fs::remove_file(self.evidence())?;
            remove_touched(top.as_fd(), &copy.intact)?;
            // Its own time of change does not count, nor does its mode from now on.
            top.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH))?;
            self.sign((false, true, copy.about.excluded.clone()), copy.known.clone())
        };
        // Whatever the reason is: everything can be copied.
        Ok(remove().ok())
    }

    /// Whether what its record says of its entries can be believed.
    fn counts(&self, copy: &Copy) -> bool {
        let About { user, boot, signed, .. } = &copy.about;
        self.refused_at(*user, boot, *signed, Clocks::now()).is_none()
    }

    /// Why the workspace does not count as the copy that it was.
    fn refused_copy(
        &self,
        copy: &Copy,
        excluded: &[PathBuf],
        now: Clocks,
    ) -> Result<Option<&'static str>, AnyError> {
        let About { user, boot, signed, .. } = &copy.about;
        if let Some(why) = self.refused_at(*user, boot, *signed, now) {
            return Ok(Some(why));
        }
        if copy.about.excluded != excluded {
            return Ok(Some("something else is left out of it"));
        }
        Ok((!self.is_copy(copy)?).then_some(CHANGED))
    }

    fn is_copy(&self, copy: &Copy) -> io::Result<bool> {
        Ok(is_folder(&self.workspace())?
            && self.look_at_workspace().is_ok_and(|seen| seen.digest == copy.about.signature))
    }

    pub(super) fn look_at_workspace(&self) -> Result<Signature, AnyError> {
        Ok(look(File::open(self.workspace())?.as_fd())?)
    }

    /// The copy of this signature, which nobody but us has touched.
    pub(super) fn untouched(&self, signature: &Digest) -> Option<Copy> {
        self.copy().filter(|copy| copy.about.signature == *signature && !copy.known.is_empty())
    }

    /// What programs of a build have touched does not stay.
    pub(super) fn end_workspace(&self) -> io::Result<()> {
        if !is_folder(&self.workspace())? {
            return Ok(());
        }
        let is_copy = self.copy().map(|copy| self.is_copy(&copy)).transpose()?;
        if is_copy == Some(true) || self.without_touched()?.is_some() {
            Ok(())
        } else {
            self.forget_workspace()
        }
    }

    pub(super) fn forget_workspace(&self) -> io::Result<()> {
        let older = self.root.join("source.json");
        for name in [self.evidence(), self.root.join("source.new"), older] {
            match fs::remove_file(name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if is_folder(&self.workspace())? { delete(&self.workspace()) } else { Ok(()) }
    }

    /// What cannot be read is nothing, as with the records. What its own entries are is only read where they are asked for.
    fn copy(&self) -> Option<Copy> {
        self.read_copy(false)
    }

    fn read_copy(&self, with_intact: bool) -> Option<Copy> {
        let mut file = BufReader::new(File::open(self.evidence()).ok()?);
        let length = file.get_ref().metadata().ok()?.len();
        let mut line = Vec::new();
        file.read_until(b'\n', &mut line).ok()?;
        let about: About = serde_json::from_slice(&line).ok()?;
        let rest = length.checked_sub(line.len() as u64)?;
        let of_source = about.known.checked_mul(size_of::<Entry>() as u64)?;
        let of_copy = rest.checked_sub(of_source)?;
        let known = Evidence::read(&mut file, of_source)?;
        let intact = if with_intact { Evidence::read(&mut file, of_copy)? } else { Evidence::default() };
        let is_whole = of_copy.is_multiple_of(size_of::<Entry>() as u64);
        (about.form == FORM && is_whole).then_some(Copy { about, known, intact })
    }

    fn write_copy(&self, copy: &Copy) -> io::Result<()> {
        let new = self.root.join("source.new");
        let mut file = io::BufWriter::new(File::create(&new)?);
        let about = About { known: copy.known.len(), ..copy.about.clone() };
        serde_json::to_writer(&mut file, &about)?;
        for bytes in [b"\n", copy.known.as_bytes(), copy.intact.as_bytes()] {
            file.write_all(bytes)?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?;
        fs::rename(new, self.evidence())
    }
}

fn told(copied: &Copied, refused: Option<&'static str>) -> String {
    let Copied { copied, stayed, bytes, .. } = copied;
    let why = refused.map(|why| format!("; of an earlier copy: {why}")).unwrap_or_default();
    format!("of the source {copied} files and links were copied ({bytes} bytes), {stayed} had stayed{why}")
}

mod touched;

use self::touched::remove_touched;

#[cfg(test)]
mod tests;
