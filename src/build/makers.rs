//! Who made what a build would take layers over from. Buildpacks are told apart by their ids alone, and anybody's builder may use
//! anybody's id: what a stranger's builder left under a name, as image or as cache image, must reach no later build with another one.
//!
//! A home remembers who wrote to a name last. Of a name that it never wrote to it knows nothing, and whoever may push there is believed.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use coracle_cnb::Analyzed;
use coracle_images::{Digest, Reference};

use super::phase::Plan;
use super::{Build, BuildRequest, tree};
use crate::error::Error;
use crate::home::Home;
use crate::worker::Disbelieve;

/// The makers of a build, and what the home remembers of others.
#[derive(Debug)]
pub(super) struct Makers {
    current: String,
    /// A file for each name that is written to, with a line for each who may have written there last.
    image: PathBuf,
    tags: Vec<PathBuf>,
    cache_image: Option<PathBuf>,
    /// Held from the beginning to the end by everybody who may write to these names.
    writing: OnceLock<Vec<File>>,
}

impl Makers {
    pub(super) fn of(home: &Home, request: &BuildRequest) -> Self {
        let record = |name: &Reference| home.makers(name);
        Self {
            current: Digest::of(tree::makers(request).join("\n")).hex().to_owned(),
            image: record(&request.image),
            tags: request.tags.iter().map(record).collect(),
            cache_image: request.cache_image.as_ref().map(record),
            writing: OnceLock::new(),
        }
    }

    /// Whether others may have made the image that is there under the build's name.
    pub(super) fn of_image_are_others(&self) -> Result<bool, Error> {
        Ok(known(&self.image)?.iter().any(|makers| *makers != self.current))
    }

    /// The same of the cache image.
    pub(super) fn of_cache_are_others(&self) -> Result<bool, Error> {
        let makers = self.cache_image.as_deref().map(known).transpose()?.unwrap_or_default();
        Ok(makers.iter().any(|makers| *makers != self.current))
    }

    /// From now on this build may write there.
    pub(super) fn begin(&self) -> Result<(), Error> {
        let writing = self.records().map(shared).collect::<Result<_, _>>()?;
        let _ = self.writing.set(writing);
        self.records().try_for_each(|record| {
            let _one = changing(record)?;
            let mut makers = known(record)?;
            if makers.contains(&self.current) {
                return Ok(());
            }
            makers.push(self.current.clone());
            remember(record, &makers)
        })
    }

    /// This build has written there. Where others are about to, what they leave may come after.
    pub(super) fn end(&self) -> Result<(), Error> {
        let makers = std::slice::from_ref(&self.current);
        let writing = self.writing.get().map(Vec::as_slice).unwrap_or_default();
        self.records().zip(writing).try_for_each(|(record, writing)| {
            let _one = changing(record)?;
            let is_alone = writing.try_lock().is_ok();
            if is_alone && known(record)? != makers {
                remember(record, makers)?;
            }
            writing.unlock().map_err(Error::folder("unlock", record))
        })
    }

    fn records(&self) -> impl Iterator<Item = &Path> {
        self.tags.iter().chain([&self.image]).chain(&self.cache_image).map(PathBuf::as_path)
    }
}

/// Something else than a build writes to this name: what is there then, no build made.
pub(crate) fn written_by(home: &Home, name: &Reference, command: &str) -> Result<(), Error> {
    remember(&home.makers(name), &[Digest::of(command).hex().to_owned()])
}

/// Whoever may write to a name holds this, beside others.
fn shared(record: &Path) -> Result<File, Error> {
    let lock = lock_file(record, "writing")?;
    lock.lock_shared().map_err(Error::folder("lock", record))?;
    Ok(lock)
}

/// One at a time.
fn changing(record: &Path) -> Result<File, Error> {
    let lock = lock_file(record, "changing")?;
    lock.lock().map_err(Error::folder("lock", record))?;
    Ok(lock)
}

fn lock_file(record: &Path, kind: &str) -> Result<File, Error> {
    let folder = record.parent().unwrap_or(record);
    fs::create_dir_all(folder).map_err(Error::folder("create", folder))?;
    let path = record.with_extension(kind);
    let opened = File::options().create(true).truncate(false).write(true).open(&path);
    opened.map_err(Error::folder("open", path))
}

fn known(record: &Path) -> Result<Vec<String>, Error> {
    match fs::read_to_string(record) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::folder("read", record)(error)),
    }
}

fn remember(record: &Path, makers: &[String]) -> Result<(), Error> {
    let folder = record.parent().unwrap_or(record);
    fs::create_dir_all(folder).map_err(Error::folder("create", folder))?;
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
        makers.iter().try_for_each(|makers| writeln!(file, "{makers}"))?;
        Ok(file.persist(record)?)
    });
    written.map(drop).map_err(Error::folder("write", record))
}

impl Build<'_> {
    /// After the analysis: where others may have made the image, nothing of it is used.
    pub(super) fn disbelieve_others(&self, plan: &Plan, analyzed: &str) -> Result<(), Error> {
        let document: Analyzed =
            coracle_cnb::read_toml("analyzed.toml", analyzed).map_err(Error::Document)?;
        let is_there = document.image.is_some_and(|image| !image.reference.is_empty());
        if is_there && self.makers.of_image_are_others()? {
            self.note(format!(
                "{} was made with another builder or other buildpacks before: nothing of it is used",
                plan.image
            ));
            self.stage.work(Disbelieve { folders: plan.folders.clone() })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn makers(folder: &Path, current: &str) -> Makers {
        Makers {
            current: current.to_owned(),
            image: folder.join("makers/image"),
            tags: vec![folder.join("makers/tag")],
            cache_image: Some(folder.join("makers/cache")),
            writing: OnceLock::new(),
        }
    }

    #[test]
    fn whoever_may_have_written_is_remembered_until_another_has() {
        let folder = tempfile::tempdir().unwrap();
        let (evil, good) = (makers(folder.path(), "evil"), makers(folder.path(), "good"));
        let others = |makers: &Makers| {
            let found = (makers.of_image_are_others().unwrap(), makers.of_cache_are_others().unwrap());
            assert_eq!(found.0, found.1);
            found.0
        };
        // Nobody knows.
        assert!(!others(&good) && !others(&evil));
        good.begin().unwrap();
        good.end().unwrap();
        assert!(!others(&good) && others(&evil));
        // Killed while it may have written.
        makers(folder.path(), "evil").begin().unwrap();
        assert!(others(&good) && others(&evil));
        // As long as nobody has written for certain.
        good.begin().unwrap();
        assert!(others(&good));
        good.end().unwrap();
        assert!(!others(&good) && others(&evil));
    }

    #[test]
    fn whoever_is_still_about_to_write_is_not_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let (evil, good) = (makers(folder.path(), "evil"), makers(folder.path(), "good"));
        evil.begin().unwrap();
        good.begin().unwrap();
        good.end().unwrap();
        assert!(good.of_image_are_others().unwrap(), "its image may come after");
        // And then it was ended.
        drop(evil);
        let again = makers(folder.path(), "good");
        again.begin().unwrap();
        again.end().unwrap();
        assert!(!good.of_image_are_others().unwrap());
    }
}
