//! The programs of a lifecycle: another one, taken from the user's disk into a folder of one build or found in an image, or ours for other platforms.

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use coracle_images::unpack::{Limits, unpack_layer};
use coracle_images::{Digest, Hashing, fetch, uncompressed};
use coracle_lifecycle::folder;
use coracle_runtime::{IdMap, PROGRAM};
use serde::{Deserialize, Serialize};

use super::pull::Owners;
use super::source::copy_tree;
use super::{AnyError, Job};
use crate::lifecycle_files;

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
    pub(crate) verified: Verified,
}

/// Who says which digest an archive has.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Verified {
    /// Nobody: the user named the file.
    Not,
    /// A file beside it, with `.sha256` at the end of its name.
    Beside,
    /// The user.
    By(Digest),
}

impl Job for TakeLifecycle {
    /// The text of lifecycle.toml.
    type Answer = String;

    fn carry_out(self) -> Result<String, AnyError> {
        let Self { source, name, into, ids, verified } = self;
        let root = ids.outer(0)?;
        let cnb = into.join("cnb");
        fs::create_dir_all(&into)?;
        if fs::metadata(&source)?.is_dir() {
            copy_tree(&source, &cnb, (root, root), &[])?;
        } else {
            fs::create_dir(&cnb)?;
            let expected = match verified {
                Verified::Not => None,
                Verified::Beside => Some((digest_beside(&source, &name)?, "the file beside it says")),
                Verified::By(digest) => Some((digest, "lifecycle-digests of your configuration says")),
            };
            let found = unpacked(&source, &cnb, ids).map_err(|error| {
                let why = coracle_runtime::with_causes(&*error);
                format!(
                    "{name} is no release archive of a lifecycle, and no folder with what is in one: {why}"
                )
            })?;
            if let Some((expected, says)) = expected.filter(|(expected, _)| *expected != found) {
                return Err(format!(
                    "{name} has the digest {found}, and {says} {expected}; nothing of it is used"
                )
                .into());
            }
        }
        let text = folder::text(File::open(&cnb)?.as_fd(), Path::new("lifecycle.toml"))?;
        let text = text.ok_or_else(|| {
            format!("{name} has no lifecycle.toml; name a release archive of a lifecycle, or the folder with what is in one")
        })?;
        check(&cnb.join("lifecycle"), &name)?;
        Ok(text)
    }
}

/// Make a folder of this program with all that belongs to it as a lifecycle, `cnb` in `into`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WriteLifecycle {
    pub(crate) into: PathBuf,
}

impl Job for WriteLifecycle {
    /// The text of lifecycle.toml.
    type Answer = String;

    fn carry_out(self) -> Result<String, AnyError> {
        let cnb = self.into.join("cnb");
        lifecycle_files::write_into(&cnb)?;
        fs::copy(PROGRAM, cnb.join("lifecycle/lifecycle"))?;
        Ok(fs::read_to_string(cnb.join("lifecycle.toml"))?)
    }
}

/// Unpack an archive; gives its digest.
fn unpacked(archive: &Path, into: &Path, ids: IdMap) -> Result<Digest, AnyError> {
    let mut file = Hashing::new(BufReader::new(File::open(archive)?));
    let limits = Limits::default().for_compressed(fs::metadata(archive)?.len());
    unpack_layer(uncompressed(&mut file)?, File::open(into)?.as_fd(), &Owners(ids), &limits)?;
    io::copy(&mut file, &mut io::sink())?;
    Ok(file.digest())
}

/// The digest that was published beside an archive, as `sha256sum` writes it.
fn digest_beside(archive: &Path, name: &str) -> Result<Digest, AnyError> {
    let mut path = archive.as_os_str().to_owned();
    path.push(".sha256");
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(DIGEST_LIMIT).read_to_string(&mut text));
    read.map_err(|error| {
        format!("{name} has no digest beside it (.sha256), and is not used without: {error}; {OWN_DIGEST}")
    })?;
    let hash = text.split_whitespace().next().unwrap_or_default().to_lowercase();
    format!("sha256:{hash}").parse().map_err(|_| {
        format!("what lies beside {name} (.sha256) is no digest, and it is not used without").into()
    })
}

/// What helps where none is published.
const OWN_DIGEST: &str =
    "where you know it, say so with: coracle config lifecycle-archives --digest VERSION=sha256:HEX";

/// A line with a digest and the name of a file.
const DIGEST_LIMIT: u64 = 4096;

/// Larger than any release of a lifecycle: they have 30 MB.
const ARCHIVE_LIMIT: u64 = 256 << 20;

/// Fetch an archive, and the digest beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FetchLifecycle {
    pub(crate) url: String,
    /// The new file; the digest's is beside it.
    pub(crate) into: PathBuf,
    /// Whether the digest is wanted.
    pub(crate) digest: bool,
}

impl Job for FetchLifecycle {
    type Answer = ();

    fn carry_out(self) -> Result<(), AnyError> {
        let Self { url, into, digest } = self;
        if digest {
            let mut beside = into.as_os_str().to_owned();
            beside.push(".sha256");
            let fetched = fetch(&format!("{url}.sha256"), DIGEST_LIMIT, &mut File::create_new(beside)?);
            fetched.map_err(|error| {
                let why = coracle_runtime::with_causes(&error);
                format!(
                    "{url} has no digest beside it (.sha256), and is not used without: {why}; {OWN_DIGEST}"
                )
            })?;
        }
        Ok(fetch(&url, ARCHIVE_LIMIT, &mut File::create_new(into)?)?)
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
