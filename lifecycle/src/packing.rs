//! Archives of layers, each read once for all who want it: the image, the cache's folder, the cache's image.
//!
//! Several layers are packed at once, and each is compressed while it is read; none is ever in memory as a whole.
//! `docs/decisions/0012-each-layer-is-read-once.md` says what that costs and what else was tried.

mod tee;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use coracle_images::pack::PackError;
use coracle_images::{Digest, Hashing, Layer};

use crate::export::Outbox;

use tee::{Packed, Tee};

pub(crate) use tee::link_or_copy;

/// How many layers are packed at once, at most; each is compressed by threads of its own.
const AT_ONCE: usize = 4;

/// Writes an archive; the same each time.
pub(crate) type Pack<'a> = Box<dyn Fn(&mut dyn Write) -> Result<(), PackError> + Sync + 'a>;

/// A layer to pack, and for whom.
pub(crate) struct Job<'a> {
    pub(crate) pack: Pack<'a>,
    pub(crate) image: Option<Blob<'a>>,
    pub(crate) cache: Option<ForCache<'a>>,
}

/// What a cache wants of a layer.
pub(crate) enum ForCache<'a> {
    Archive(Archive<'a>),
    Blob(Blob<'a>),
}

/// A compressed layer is wanted in an outbox, unless it is one of those that are known.
pub(crate) struct Blob<'a> {
    pub(crate) outbox: &'a Outbox,
    pub(crate) known: Vec<Layer>,
    /// Whether it is to be expected that it is: then nothing is compressed before that is certain.
    pub(crate) likely: bool,
}

/// An archive is wanted in a folder.
pub(crate) struct Archive<'a> {
    pub(crate) staging: &'a Path,
    pub(crate) old: Option<Old>,
}

/// The archive of the last build: if it is the same, a link to it is enough.
pub(crate) struct Old {
    pub(crate) path: PathBuf,
    pub(crate) diff_id: Digest,
    /// Whether it is known that what is in it is what it is called by.
    pub(crate) verified: bool,
}

/// Where a layer of the image is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Known without reading it.
    Unread,
    /// Known by what it is.
    Known,
    Written,
}

/// What became of a job.
pub(crate) struct Done {
    pub(crate) diff_id: Digest,
    pub(crate) image: Option<(Layer, Origin)>,
    pub(crate) cache: Option<Result<InCache, PackError>>,
}

/// A layer of the cache.
#[derive(Debug)]
pub(crate) struct InCache {
    pub(crate) diff_id: Digest,
    pub(crate) reused: bool,
    /// Whether nobody read the layer's folder to learn that.
    pub(crate) unread: bool,
    /// In a cache that is an image.
    pub(crate) layer: Option<Layer>,
}

/// Packs layers, and hands each over in the order of the jobs, to the thread that called. Its first error ends the rest.
pub(crate) fn run<E>(
    jobs: &[Job<'_>],
    mut each: impl FnMut(usize, Result<Done, PackError>) -> Result<(), E>,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(1, usize::from).min(AT_ONCE).min(jobs.len());
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..workers {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(at) else { break };
                    if sender.send((at, job.run())).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut expected = 0;
        for (at, done) in receiver {
            early.insert(at, done);
            while let Some(done) = early.remove(&expected) {
                each(expected, done).inspect_err(|_| next.store(jobs.len(), Ordering::Relaxed))?;
                expected += 1;
            }
        }
        Ok(())
    })
}

impl Job<'_> {
    fn run(&self) -> Result<Done, PackError> {
        let mut packed = self.pass()?;
        let image = self.image.as_ref().map(|wanted| self.blob(wanted, &mut packed)).transpose();
        let cache = match &self.cache {
            None => None,
            Some(ForCache::Archive(_)) => packed.archive.take().map(|archive| {
                let reused = archive?;
                Ok(InCache { diff_id: packed.diff_id.clone(), reused, unread: false, layer: None })
            }),
            Some(ForCache::Blob(wanted)) => Some(self.blob(wanted, &mut packed).map(|(layer, origin)| {
                let reused = origin == Origin::Known;
                InCache { diff_id: packed.diff_id.clone(), reused, unread: false, layer: Some(layer) }
            })),
        };
        Ok(Done { diff_id: packed.diff_id, image: image?, cache })
    }

    /// Reads the layer once; twice where the cache's archive, with which it was compared, could not be read to the end.
    fn pass(&self) -> Result<Packed, PackError> {
        for with_old in [true, false] {
            let mut tee = Tee::new(self, with_old)?;
            match (self.pack)(&mut tee).and_then(|()| tee.end().map_err(PackError::Write)) {
                Err(_) if tee.lost_old() => {}
                Err(error) => return Err(error),
                Ok(()) => return tee.packed().map_err(PackError::Write),
            }
        }
        Err(PackError::Write(io::Error::other("the archive was compared with none")))
    }

    /// The compressed layer: one that is known, that was made while it was read, or that is made now.
    fn blob(&self, wanted: &Blob<'_>, packed: &mut Packed) -> Result<(Layer, Origin), PackError> {
        if let Some(layer) = wanted.known.iter().find(|layer| layer.diff_id == packed.diff_id) {
            return Ok((layer.clone(), Origin::Known));
        }
        let outboxes = self.image.iter().map(|image| image.outbox).chain([wanted.outbox]);
        if let Some(layer) = outboxes.into_iter().find_map(|outbox| outbox.layer(&packed.diff_id)) {
            return Ok((layer, Origin::Written));
        }
        if let Some(staged) = packed.blob.take() {
            let layer = wanted.outbox.keep(staged, packed.diff_id.clone()).map_err(PackError::Write)?;
            return Ok((layer, Origin::Written));
        }
        let mut writer = Hashing::new(wanted.outbox.stage().map_err(PackError::Write)?);
        if let Some(archive) = &packed.spool {
            writer.write_all(archive).map_err(PackError::Write)?;
        } else if let Some(mut file) = packed.file.as_ref().and_then(|path| File::open(path).ok()) {
            io::copy(&mut file, &mut writer).map_err(PackError::Write)?;
        } else {
            (self.pack)(&mut writer)?;
        }
        let (writer, diff_id, _) = writer.finish();
        let staged = writer.finish().map_err(PackError::Write)?;
        Ok((wanted.outbox.keep(staged, diff_id).map_err(PackError::Write)?, Origin::Written))
    }
}
