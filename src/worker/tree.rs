//! The layers tree: cached layers stay unpacked between builds (docs/decisions/0022-the-layers-tree-stays.md).
//!
//! It lies in the application's cache, which one build holds at a time, where no guest sees anything but `layers`:
//!
//! | below it | what |
//! |---|---|
//! | `layers` | `/layers` of the build that runs |
//! | `kept/BUILDPACK/LAYER` | what stays until the next |
//! | `records.json` | for each of those the digest of its archive, and its signature; the same of the application |
//!
//! and what `tree/workspace.rs` says. What one container made that was all phases, `tree/created.rs` looks at.
//!
//! A record counts only while the signature holds, whatever happened to the folders meanwhile. So no order of writing, moving
//! and being killed can do harm, and what of `layers` is left is looked for there by the next build.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use coracle_images::Digest;
use coracle_lifecycle::folder;
use coracle_lifecycle::known::{KnownApplication, KnownLayer, KnownLayers};
use coracle_lifecycle::signature::{Newest, Probe, look, seal};
use serde::{Deserialize, Serialize};

use super::AnyError;
use super::delete::delete;

/// Where the kernel says which start of the machine this is (`random(4)`).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The tree of one application.
pub(super) struct Tree {
    root: PathBuf,
    /// Who owns all layers, as ids of the stage.
    user: (u32, u32),
    boot: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Records {
    layers: Vec<Record>,
    #[serde(default)]
    application: Option<Application>,
}

/// The application as it was when its archives were made.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Application {
    application: KnownApplication,
    /// Of the workspace.
    signature: Digest,
    /// The version that made them: which paths a slice has is its affair.
    program: String,
}

/// A layer as it was when its archive was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    layer: KnownLayer,
    signature: Digest,
    /// The folders above, which are in its archive too: of all layers, and of the buildpack's.
    above: [Above; 2],
    user: (u32, u32),
    /// Until the machine stops; what of a file had not reached the disk then is not what the kernel says.
    boot: String,
    /// Nanoseconds since 1970.
    signed: i128,
}

/// What was found after the programs of a build had ended.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) known: KnownLayers,
    /// Why which layers are read again.
    pub(super) notes: Vec<String>,
    /// The signature of the workspace, if it is what it was before they ran.
    pub(super) workspace: Option<Digest>,
}

/// What of a folder is in the archives of layers below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Above {
    mode: u32,
    uid: u32,
    gid: u32,
}

/// What two clocks say at once, in nanoseconds: the one that can be set, and the one that cannot.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Clocks {
    real: i128,
    boot: i128,
}

impl Clocks {
    pub(crate) fn now() -> Self {
        let read = |clock| {
            let time = rustix::time::clock_gettime(clock);
            i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
        };
        Self { real: read(rustix::time::ClockId::Realtime), boot: read(rustix::time::ClockId::Boottime) }
    }

    /// Whether the clock was set back since. While it is only made to run slower, it loses less than a thousandth.
    fn went_back(self, now: Self) -> bool {
        let passed = now.boot - self.boot;
        now.real - self.real < passed - passed / 1000 - 100_000_000
    }
}

impl Tree {
    pub(super) fn new(root: &Path, user: (u32, u32)) -> io::Result<Self> {
        Ok(Self { root: root.to_owned(), user, boot: fs::read_to_string(BOOT)?.trim().to_owned() })
    }

    fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    fn kept(&self) -> PathBuf {
        self.root.join("kept")
    }

    /// Makes an empty folder of layers. What a build that ended early left there is kept or deleted.
    pub(super) fn begin(&self, clear: bool) -> io::Result<()> {
        if !is_folder(&self.root)? {
            make(&self.root)?;
        }
        if clear {
            self.forget()?;
        }
        self.end()?;
        make(&self.layers())?;
        lchown(self.layers(), Some(self.user.0), Some(self.user.1))
    }

    /// After a build of which there is no image.
    pub(super) fn leave(&self) -> io::Result<()> {
        self.end_workspace()?;
        self.end()
    }

    /// Deletes what nobody needs between builds.
    pub(super) fn end(&self) -> io::Result<()> {
        if !is_folder(&self.root)? {
            return Ok(());
        }
        self.take_back(&self.records())?;
        for name in ["layers", "old"].map(|name| self.root.join(name)) {
            if is_folder(&name)? {
                delete(&name)?;
            }
        }
        Ok(())
    }

    fn forget(&self) -> io::Result<()> {
        self.write(&Records::default())?;
        self.forget_workspace()?;
        if is_folder(&self.kept())? {
            delete(&self.kept())?;
        }
        Ok(())
    }

    /// What cannot be read is nothing: it was being written when the machine stopped.
    fn records(&self) -> Records {
        let text = fs::read(self.root.join("records.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn write(&self, records: &Records) -> io::Result<()> {
        let new = self.root.join("records.new");
        fs::write(&new, serde_json::to_vec(records)?)?;
        fs::rename(new, self.root.join("records.json"))
    }

    /// Moves layers with a record from where the build had them to where they stay. What a program of the build has put in the place of
    /// one is none.
    fn take_back(&self, records: &Records) -> io::Result<()> {
        for Record { layer, .. } in &records.layers {
            let (from, to) = (self.layers().join(&layer.buildpack), self.kept().join(&layer.buildpack));
            let is_there = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
            if is_folder(&self.layers())? && is_there(&from) && is_there(&from.join(&layer.name)) {
                if !is_folder(&to)? {
                    make(&to)?;
                }
                if !is_folder(&to.join(&layer.name))? {
                    fs::rename(from.join(&layer.name), to.join(&layer.name))?;
                }
            }
        }
        Ok(())
    }

    /// Moves those of the wanted layers that are what they were to where the build has them. Of the others says why not.
    pub(super) fn reuse(
        &self,
        wanted: Vec<KnownLayer>,
        now: Clocks,
    ) -> Result<(KnownLayers, Vec<String>), AnyError> {
        let (records, mut known, mut notes) = (self.records(), KnownLayers::default(), Vec::new());
        for layer in wanted {
            let found = records.layers.iter().find(|record| record.layer == layer);
            let refused = match found {
                None => Some("no layer with its digest is here"),
                Some(record) => self.refused(record, &self.kept(), now)?,
            };
            let to = self.layers().join(&layer.buildpack);
            if let Some(why) = refused {
                notes.push(format!("{}:{} is unpacked from the cache: {why}", layer.buildpack, layer.name));
            } else {
                make(&to)?;
                lchown(&to, Some(self.user.0), Some(self.user.1))?;
                fs::rename(self.kept().join(&layer.buildpack).join(&layer.name), to.join(&layer.name))?;
                known.layers.push(layer);
            }
        }
        Ok((known, notes))
    }

    /// Those of the layers that are what they were before the build, and why the others are not; and the application, if it is what
    /// it was when an image was last made of it. No foreign program runs any more.
    pub(super) fn unchanged(&self, known: &KnownLayers, since: Clocks) -> Result<Checked, AnyError> {
        let (records, now) = (self.records(), Clocks::now());
        let (mut layers, mut notes) = (Vec::new(), Vec::new());
        for layer in &known.layers {
            let refused = match records.layers.iter().find(|record| record.layer == *layer) {
                None => Some("no layer with its digest is here"),
                Some(_) if since.went_back(now) => Some("the clock was set back"),
                Some(record) => match self.refused(record, &self.layers(), now)? {
                    None if self.above(layer)? != record.above => Some("a folder above it was changed"),
                    refused => refused,
                },
            };
            match refused {
                None => layers.push(layer.clone()),
                Some(why) => notes.push(format!("{}:{} is read again: {why}", layer.buildpack, layer.name)),
            }
        }
        let workspace = self.look_at_workspace().ok().map(|seen| seen.digest);
        let copy = workspace.as_ref().and_then(|signature| self.untouched(signature));
        let workspace = workspace.filter(|_| !since.went_back(now) && copy.is_some());
        let made = |record: &Application| {
            Some(&record.signature) == workspace.as_ref() && record.program == env!("CARGO_PKG_VERSION")
        };
        let application = records.application.filter(made).map(|record| record.application);
        let application_changed = application.is_none() && copy.is_some_and(|copy| copy.is_renewed());
        Ok(Checked { known: KnownLayers { application_changed, layers, application }, notes, workspace })
    }

    /// Why a layer below `top` does not count as what it was.
    fn refused(&self, record: &Record, top: &Path, now: Clocks) -> Result<Option<&'static str>, AnyError> {
        if let Some(why) = self.refused_at(record.user, &record.boot, record.signed, now) {
            return Ok(Some(why));
        }
        match self.look(&record.layer, top) {
            Ok(Some(signature)) if signature == record.signature => Ok(None),
            Ok(_) => Ok(Some("it was changed")),
            Err(_) => Ok(Some("it cannot be looked at")),
        }
    }

    /// Why a signature does not count, whatever it says.
    fn refused_at(&self, user: (u32, u32), boot: &str, signed: i128, now: Clocks) -> Option<&'static str> {
        let reasons = [
            (user != self.user, "the build's user is another"),
            (boot != self.boot, "the machine was started since"),
            (now.real <= signed, "the clock was set back"),
        ];
        reasons.into_iter().find(|(is, _)| *is).map(|(_, why)| why)
    }

    fn look(&self, layer: &KnownLayer, top: &Path) -> Result<Option<Digest>, AnyError> {
        let path = Path::new(&layer.buildpack).join(&layer.name);
        let dir = folder::folder(File::open(top)?.as_fd(), &path)?;
        Ok(dir.map(|dir| look(dir.as_fd())).transpose()?.map(|signature| signature.digest))
    }

    fn above(&self, layer: &KnownLayer) -> io::Result<[Above; 2]> {
        let above = |path: &Path| {
            let about = fs::symlink_metadata(path)?;
            Ok::<_, io::Error>(Above { mode: about.mode() & 0o7777, uid: about.uid(), gid: about.gid() })
        };
        Ok([above(&self.layers())?, above(&self.layers().join(&layer.buildpack))?])
    }

    /// After a build: keeps the layers whose archives are in the cache now. Those of `unchanged` have their records; of the others
    /// that have none says why not. The workspace stays if programs of the build left it as it was, which it is known by.
    pub(super) fn keep(
        &self,
        packed: &KnownLayers,
        unchanged: &KnownLayers,
        workspace: Option<Digest>,
    ) -> Result<Vec<String>, AnyError> {
        let (mut records, old, mut notes) = (Records::default(), self.records(), Vec::new());
        let (mut fresh, mut newest) = (Vec::new(), None::<Newest>);
        for layer in &packed.layers {
            let known = old.layers.iter().find(|record| record.layer == *layer);
            if let Some(known) = known.filter(|_| unchanged.layers.contains(layer)) {
                records.layers.push(known.clone());
                continue;
            }
            match self.sealed(layer) {
                Ok((record, seen)) => {
                    newest = Some(newest.map_or(seen, |newest| newest.and(seen)));
                    fresh.push(record);
                }
                Err(error) => {
                    let why = coracle_runtime::with_causes(&*error);
                    notes.push(format!("{}:{} does not stay unpacked: {why}", layer.buildpack, layer.name));
                }
            }
        }
        if let Some(newest) = newest {
            // Waits as long as it takes until a change shows, also one of the layers: all of them are older than the probe.
            let shows = Probe::new(self.root.join("probe"))?.shows()? && SystemTime::now() > newest.time();
            let signed = Clocks::now().real;
            if shows {
                records.layers.extend(fresh.into_iter().map(|record| Record { signed, ..record }));
            } else {
                notes
                    .push("no new layer stays unpacked: the file system does not tell of changes".to_owned());
            }
        }
        records.application = packed.application.clone().zip(workspace).map(|(application, signature)| {
            Application { application, signature, program: env!("CARGO_PKG_VERSION").to_owned() }
        });
        if records.application.is_none() {
            self.end_workspace()?;
        }
        self.write(&records)?;
        // What is here still, this build had no use for.
        if is_folder(&self.kept())? {
            fs::rename(self.kept(), self.root.join("old"))?;
        }
        self.end()?;
        Ok(notes)
    }

    fn sealed(&self, layer: &KnownLayer) -> Result<(Record, Newest), AnyError> {
        let path = Path::new(&layer.buildpack).join(&layer.name);
        let dir = folder::folder(File::open(self.layers())?.as_fd(), &path)?.ok_or("it is not there")?;
        let instant = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
        let signature = seal(dir.as_fd(), self.user, instant)?;
        let record = Record {
            layer: layer.clone(),
            signature: signature.digest,
            above: self.above(layer)?,
            user: self.user,
            boot: self.boot.clone(),
            signed: 0,
        };
        Ok((record, signature.newest))
    }
}

/// Whether there is a folder. What is there instead of one may lead into the store, and is refused.
fn is_folder(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Ok(true),
        Ok(_) => {
            Err(io::Error::other("what lies in the cache is no folder; delete it, or name another cache"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

mod created;
mod workspace;

#[cfg(test)]
mod tests;
