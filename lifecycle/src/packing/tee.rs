//! One pass over a layer.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use coracle_images::pack::PackError;
use coracle_images::{Digest, Hashing};

use super::{Archive, Blob, ForCache, Job, Old};
use crate::cache::{archive_name, regular};
use crate::export::{Staged, Staging};

/// Where a layer is probably a known one, so much of its archive is kept for the case that it is not. Most layers are smaller; a
/// larger one is read again then.
const SPOOL: usize = 4 << 20;

const BUFFER: usize = 1 << 17;

/// Takes an archive, and hands it to all who want it.
///
/// While it is the same as the cache's archive of the last build, nothing is written. If the two part, what was equal is taken
/// from that archive, not read from the build's folders again.
pub(super) struct Tee<'a> {
    job: &'a Job<'a>,
    hash: Hashing<io::Sink>,
    old: Option<Compared<'a>>,
    lost_old: bool,
    archive: Option<io::Result<NewArchive>>,
    blob: Option<Staging>,
    spool: Option<Vec<u8>>,
    done: Option<Same>,
}

/// Whether the archive is that of the last build.
struct Same(bool);

/// A layer after its pass.
pub(super) struct Packed {
    pub(super) diff_id: Digest,
    /// Whether the cache's archive of the last build is the one, where it is to have one.
    pub(super) archive: Option<Result<bool, PackError>>,
    pub(super) blob: Option<Staged>,
    /// The whole archive, if it is small.
    pub(super) spool: Option<Vec<u8>>,
    /// A file with the archive.
    pub(super) file: Option<PathBuf>,
}

impl<'a> Tee<'a> {
    pub(super) fn new(job: &'a Job<'a>, with_old: bool) -> Result<Self, PackError> {
        let old = job.archive().and_then(|archive| archive.old.as_ref()).filter(|_| with_old);
        let old = old.and_then(Compared::new);
        let mut blobs = job.blobs();
        let spool = old.is_none() && job.blobs().next().is_some() && job.blobs().all(|blob| blob.likely);
        let blob = blobs.find(|blob| !blob.likely).map(|blob| blob.outbox.stage());
        let mut tee = Self {
            job,
            hash: Hashing::new(io::sink()),
            old,
            lost_old: false,
            archive: None,
            blob: blob.transpose().map_err(PackError::Write)?,
            spool: spool.then(Vec::new),
            done: None,
        };
        if tee.old.is_none() {
            tee.archive = job.archive().map(NewArchive::new);
        }
        Ok(tee)
    }

    /// Whether the cache's archive could not be read when it was needed.
    pub(super) fn lost_old(&self) -> bool {
        self.lost_old
    }

    /// The archive has ended.
    pub(super) fn end(&mut self) -> io::Result<()> {
        let same = self
            .old
            .as_mut()
            .is_some_and(|old| old.has_ended() && (old.of.verified || self.hash.digest() == old.of.diff_id));
        if !same {
            self.part()?;
        }
        self.done = Some(Same(same));
        Ok(())
    }

    /// What came of it.
    pub(super) fn packed(self) -> io::Result<Packed> {
        let blob = self.blob.map(Staging::finish).transpose()?;
        let old = self.old.filter(|_| matches!(self.done, Some(Same(true))));
        let diff_id = old.as_ref().map_or_else(|| self.hash.digest(), |old| old.of.diff_id.clone());
        let mut file = None;
        let finish = |archive: &Archive<'_>| -> io::Result<bool> {
            let target = archive.staging.join(archive_name(&diff_id));
            match (&old, self.archive) {
                (Some(old), _) => link_or_copy(&old.of.path, &target)?,
                (None, new) => new.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))?.finish(&target)?,
            }
            file = Some(target);
            Ok(old.is_some())
        };
        let archive = self.job.archive().map(|archive| finish(archive).map_err(PackError::Write));
        Ok(Packed { diff_id, archive, blob, spool: self.spool, file })
    }

    /// The archive is another than the cache's: all who had waited for that get what was equal.
    fn part(&mut self) -> io::Result<()> {
        let Some(old) = self.old.take() else { return Ok(()) };
        self.archive = self.job.archive().map(NewArchive::new);
        let late = match self.blob {
            Some(_) => None,
            None => self.job.blobs().next().map(|blob| blob.outbox.stage()).transpose()?,
        };
        let mut late = late;
        let mut buffer = vec![0; BUFFER];
        let mut at = 0;
        while at < old.equal {
            let want = usize::try_from(old.equal - at).unwrap_or(BUFFER).min(BUFFER);
            let read = old.file.get_ref().read_exact_at(&mut buffer[..want], at);
            read.inspect_err(|_| self.lost_old = true)?;
            let bytes = &buffer[..want];
            if old.of.verified {
                self.hash.write_all(bytes)?;
            }
            self.archive(bytes);
            late.as_mut().map_or(Ok(()), |blob| blob.write_all(bytes))?;
            at += want as u64;
        }
        self.blob = self.blob.take().or(late);
        Ok(())
    }

    /// A cache that cannot be written is the cache's loss, not the image's.
    fn archive(&mut self, bytes: &[u8]) {
        if let Some(Ok(archive)) = &mut self.archive
            && let Err(error) = archive.file.write_all(bytes)
        {
            self.archive = Some(Err(error));
        }
    }
}

impl Write for Tee<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.old.as_mut().is_some_and(|old| !old.goes_on_with(bytes)) {
            self.part()?;
        }
        if self.old.as_ref().is_none_or(|old| !old.of.verified) {
            self.hash.write_all(bytes)?;
        }
        self.archive(bytes);
        if let Some(blob) = &mut self.blob {
            blob.write_all(bytes)?;
        }
        if let Some(spool) = &mut self.spool {
            spool.extend_from_slice(bytes);
        }
        if self.spool.as_ref().is_some_and(|spool| spool.len() > SPOOL) {
            self.spool = None;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> Job<'a> {
    fn archive(&self) -> Option<&Archive<'a>> {
        match &self.cache {
            Some(ForCache::Archive(archive)) => Some(archive),
            _ => None,
        }
    }

    fn blobs(&self) -> impl Iterator<Item = &Blob<'a>> {
        let cache = match &self.cache {
            Some(ForCache::Blob(blob)) => Some(blob),
            _ => None,
        };
        self.image.iter().chain(cache)
    }
}

/// The cache's archive, as far as it was found to be equal.
struct Compared<'a> {
    of: &'a Old,
    file: BufReader<File>,
    equal: u64,
}

impl<'a> Compared<'a> {
    fn new(of: &'a Old) -> Option<Self> {
        let file = regular(&of.path).ok()??;
        Some(Self { of, file: BufReader::with_capacity(BUFFER, file), equal: 0 })
    }

    /// Whether these bytes come next in it.
    fn goes_on_with(&mut self, mut bytes: &[u8]) -> bool {
        let all = bytes.len() as u64;
        while !bytes.is_empty() {
            let Ok(next) = self.file.fill_buf() else { return false };
            let length = next.len().min(bytes.len());
            if length == 0 || next[..length] != bytes[..length] {
                return false;
            }
            self.file.consume(length);
            bytes = &bytes[length..];
        }
        self.equal += all;
        true
    }

    fn has_ended(&mut self) -> bool {
        matches!(self.file.read(&mut [0]), Ok(0))
    }
}

/// A new archive of the cache, under a name that no other has; removed unless it is finished.
struct NewArchive {
    path: Option<PathBuf>,
    file: BufWriter<File>,
}

impl NewArchive {
    fn new(wanted: &Archive<'_>) -> io::Result<Self> {
        let mut number = 0u32;
        loop {
            let path = wanted.staging.join(format!("new-{number}"));
            match File::create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                made => {
                    let file = BufWriter::with_capacity(BUFFER, made?);
                    return Ok(Self { path: Some(path), file });
                }
            }
        }
    }

    fn finish(mut self, target: &Path) -> io::Result<()> {
        self.file.flush()?;
        self.path.take().map_or(Ok(()), |path| fs::rename(path, target))
    }
}

impl Drop for NewArchive {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

/// Not every file system has links.
pub(crate) fn link_or_copy(old: &Path, new: &Path) -> io::Result<()> {
    match fs::hard_link(old, new) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => fs::copy(old, new).map(drop),
        _ => Ok(()),
    }
}
