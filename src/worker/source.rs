//! Copies of the user's folders for a guest: owned by the guest's ids, at one instant, links as they are.
//!
//! A copy that stays is made the same as its source again by copying what of the source is not known to be what it was
//! (docs/decisions/0030-the-applications-copy-stays.md).

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::SystemTime;

use coracle_lifecycle::folder;
use coracle_lifecycle::signature::Stamp;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{FileStat, SFlag, UtimensatFlags, fstat, fstatat, futimens, utimensat};
use nix::sys::time::TimeSpec;

use super::evidence::{Entry, Evidence};

/// The modification time of every copy, 1980-01-01T00:00:01Z: what buildpacks see does not depend on when a
/// repository was checked out.
const INSTANT: TimeSpec = TimeSpec::new(315_532_801, 0);

/// How many files are copied at once, and how many of them make it worth another thread.
const AT_ONCE: usize = 8;
const EACH: usize = 64;

/// A file or folder could not be copied.
#[derive(Debug, thiserror::Error)]
#[error("could not copy `{path}` of the source")]
pub(super) struct CopyError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// What there is of a copy that was made before, and of the source that it was made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stayed<'a> {
    /// What the source's entries were when they were copied.
    pub(super) known: &'a Evidence,
    /// Whether entries may be gone, below folders that have another time than we give them.
    pub(super) has_gaps: bool,
}

/// What became of a copy.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// Sockets, FIFOs and devices, which have no content to copy.
    pub(super) skipped: usize,
    /// Files and links that are there because they stayed.
    pub(super) stayed: usize,
    /// Files and links that were copied.
    pub(super) copied: usize,
    /// Their content, bytes.
    pub(super) bytes: u64,
    /// Whether the copy is another one than it was.
    pub(super) changed: bool,
    /// The entries of the source that will be known again.
    pub(super) known: Evidence,
}

/// Copy what is in `source` into the new folder `target`, giving it to `owner` (ids of the stage). `excluded` are
/// paths below `source`.
pub(super) fn copy_tree(
    source: &Path,
    target: &Path,
    owner: (u32, u32),
    excluded: &[PathBuf],
) -> Result<Copied, CopyError> {
    Copying::new(source, target, owner, excluded, None)?.run()
}

/// As [`copy_tree`], where `target` may be what stayed of a copy. Nobody has touched that since.
pub(super) fn renew_tree(
    source: &Path,
    target: &Path,
    owner: (u32, u32),
    excluded: &[PathBuf],
    stayed: Stayed<'_>,
) -> Result<Copied, CopyError> {
    Copying::new(source, target, owner, excluded, Some(stayed))?.run()
}

struct Copying<'a> {
    root: File,
    target: &'a Path,
    owner: (u32, u32),
    excluded: &'a [PathBuf],
    /// If entries are to be known again, what is known, and the file system and the time for which that can be said.
    known: Option<(Stayed<'a>, u64, SystemTime)>,
    seen: Vec<Entry>,
    files: Vec<PathBuf>,
    /// Folders of the copy that are being filled, with their modes.
    filled: Vec<(PathBuf, u32)>,
    done: Copied,
}

/// A folder of the copy that is looked at.
struct Here<'a> {
    path: &'a Path,
    /// Of the source's.
    mode: u32,
    /// Whether there was none.
    is_new: bool,
    /// Whether entries of it may be gone that are known.
    has_gaps: bool,
    is_filled: bool,
}

impl<'a> Copying<'a> {
    fn new(
        source: &Path,
        target: &'a Path,
        owner: (u32, u32),
        excluded: &'a [PathBuf],
        stayed: Option<Stayed<'a>>,
    ) -> Result<Self, CopyError> {
        let failed = |source| CopyError { path: PathBuf::new(), source };
        let now = SystemTime::now();
        let root = File::open(source).map_err(failed)?;
        let device = fstat(&root).map_err(|errno| failed(errno.into()))?.st_dev;
        let known = stayed.map(|stayed| (stayed, device, now));
        let (seen, files, filled, done) = (Vec::new(), Vec::new(), Vec::new(), Copied::default());
        Ok(Self { root, target, owner, excluded, known, seen, files, filled, done })
    }

    fn run(mut self) -> Result<Copied, CopyError> {
        let is_new = DirBuilder::new().mode(0o700).create(self.target);
        let is_new = match is_new {
            Err(error) if self.known.is_some() && error.kind() == io::ErrorKind::AlreadyExists => false,
            made => made.map(|()| true).map_err(|source| CopyError { path: PathBuf::new(), source })?,
        };
        let mut pending = VecDeque::from([(PathBuf::new(), is_new)]);
        while let Some((path, is_new)) = pending.pop_front() {
            self.folder(&path, is_new, &mut pending)?;
        }
        self.copy_files()?;
        // Last of all, and the lowest first: a folder that may not be written must still be filled.
        for (path, mode) in self.filled.iter().rev() {
            self.close(path, *mode).map_err(|source| CopyError { path: path.clone(), source })?;
        }
        self.done.changed = !self.filled.is_empty();
        self.done.known = Evidence::of(self.seen);
        Ok(self.done)
    }

    /// Copies links of a folder of the source, makes its folders, and takes note of its files.
    fn folder(
        &mut self,
        path: &Path,
        is_new: bool,
        pending: &mut VecDeque<(PathBuf, bool)>,
    ) -> Result<(), CopyError> {
        let failed = |source| CopyError { path: path.to_owned(), source };
        let from = open(&self.root, path, OFlag::O_DIRECTORY).map_err(failed)?;
        let stat = fstat(&from).map_err(|errno| failed(errno.into()))?;
        let entries = list(&from).map_err(failed)?;
        let names: Vec<PathBuf> = entries.into_iter().map(|name| path.join(name)).collect();
        let names: Vec<PathBuf> = names.into_iter().filter(|below| !self.excluded.contains(below)).collect();
        let has_gaps = !is_new && self.has_gaps(path).map_err(failed)?;
        let mut here = Here { path, mode: stat.st_mode, is_new, has_gaps, is_filled: false };
        let evidence = self.evidence(path, &stat);
        if is_new {
            self.fill(&mut here).map_err(failed)?;
        } else if has_gaps || !self.is_known(evidence.as_ref()) {
            self.compare(&mut here, &names).map_err(failed)?;
        }
        self.seen.extend(evidence);
        for below in names {
            let source = |source| CopyError { path: below.clone(), source };
            let is_folder = self.entry(&mut here, &from, &below).map_err(source)?;
            pending.extend(is_folder.map(|is_new| (below, is_new)));
        }
        Ok(())
    }

    /// Whether an entry is a folder, and then, whether a new one. All others are copied, but for the content of files.
    fn entry(&mut self, here: &mut Here<'_>, from: &File, path: &Path) -> io::Result<Option<bool>> {
        let (name, to) = (path.file_name().unwrap_or_default(), self.target.join(path));
        let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let kind = kind(stat.st_mode);
        if kind == SFlag::S_IFDIR {
            if !here.is_new && fs::symlink_metadata(&to).is_ok_and(|about| about.is_dir()) {
                return Ok(Some(false));
            }
            self.make_way(here, name)?;
            DirBuilder::new().mode(0o700).create(&to)?;
            return Ok(Some(true));
        }
        let has_content = kind == SFlag::S_IFREG || kind == SFlag::S_IFLNK;
        self.done.skipped += usize::from(!has_content);
        let evidence = self.evidence(path, &stat);
        let is_there = || !here.has_gaps || fs::symlink_metadata(&to).is_ok();
        if !here.is_new && self.is_known(evidence.as_ref()) && is_there() {
            self.done.stayed += usize::from(has_content);
            self.seen.extend(evidence);
            return Ok(None);
        }
        self.make_way(here, name)?;
        if kind == SFlag::S_IFREG {
            self.files.push(path.to_owned());
            return Ok(None);
        }
        if kind == SFlag::S_IFLNK {
            symlink(readlinkat(from, name)?, &to)?;
            lchown(&to, Some(self.owner.0), Some(self.owner.1))?;
            utimensat(AT_FDCWD, &to, &INSTANT, &INSTANT, UtimensatFlags::NoFollowSymlink)?;
            self.done.copied += 1;
        }
        self.seen.extend(evidence);
        Ok(None)
    }

    /// Removes what the copy of a folder has and the source has not.
    fn compare(&mut self, here: &mut Here<'_>, names: &[PathBuf]) -> io::Result<()> {
        let to = self.target.join(here.path);
        if here.has_gaps || fs::symlink_metadata(&to)?.mode() & 0o7777 != here.mode & 0o7777 {
            self.fill(here)?;
        }
        let names: HashSet<&OsStr> = names.iter().filter_map(|path| path.file_name()).collect();
        for name in list(&File::open(&to)?)?.iter().filter(|name| !names.contains(name.as_os_str())) {
            self.make_way(here, name)?;
        }
        Ok(())
    }

    /// Removes what the copy of a folder has of this name.
    fn make_way(&mut self, here: &mut Here<'_>, name: &OsStr) -> io::Result<()> {
        self.fill(here)?;
        if !here.is_new {
            folder::remove(File::open(self.target.join(here.path))?.as_fd(), name)?;
        }
        Ok(())
    }

    /// Lets a folder of the copy be changed, and takes note that it was.
    fn fill(&mut self, here: &mut Here<'_>) -> io::Result<()> {
        if !here.is_filled {
            here.is_filled = true;
            fs::set_permissions(self.target.join(here.path), Permissions::from_mode(0o700))?;
            self.filled.push((here.path.to_owned(), here.mode));
        }
        Ok(())
    }

    fn is_known(&self, evidence: Option<&Entry>) -> bool {
        self.known.zip(evidence).is_some_and(|((stayed, ..), evidence)| stayed.known.contains(evidence))
    }

    /// Whether a folder of the copy is one of those that programs have touched.
    fn has_gaps(&self, path: &Path) -> io::Result<bool> {
        if !self.known.is_some_and(|(stayed, ..)| stayed.has_gaps) {
            return Ok(false);
        }
        let about = fs::symlink_metadata(self.target.join(path))?;
        Ok((about.mtime(), about.mtime_nsec()) != (INSTANT.tv_sec(), INSTANT.tv_nsec()))
    }

    /// Gives a folder that was filled its owner, mode and time.
    fn close(&self, path: &Path, mode: u32) -> io::Result<()> {
        let dir = File::open(self.target.join(path))?;
        fchown(&dir, Some(self.owner.0), Some(self.owner.1))?;
        dir.set_permissions(Permissions::from_mode(mode & 0o7777))?;
        Ok(futimens(&dir, &INSTANT, &INSTANT)?)
    }

    /// By what an entry is known again: nothing where a change might not show.
    fn evidence(&self, path: &Path, stat: &FileStat) -> Option<Entry> {
        let (_, device, now) = self.known?;
        let stamp = Stamp::of(stat);
        (stamp.device() == device && stamp.is_settled(now)).then(|| stamp.evidence(path.as_os_str()))
    }

    /// A file is known again when it is copied: by whoever has seen that nobody has it open to write to it.
    fn copy_files(&mut self) -> Result<(), CopyError> {
        let (next, copying) = (AtomicUsize::new(0), &*self);
        let work = || -> Result<Vec<(u64, Option<Entry>)>, CopyError> {
            let mut done = Vec::new();
            while let Some(path) = copying.files.get(next.fetch_add(1, Ordering::Relaxed)) {
                let copied = copying.file(path).map_err(|source| CopyError { path: path.clone(), source })?;
                done.push(copied);
            }
            Ok(done)
        };
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let threads = processors.min(AT_ONCE).min(self.files.len().div_ceil(EACH));
        let all = thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let joined = threads.into_iter().map(|thread| match thread.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.collect::<Result<Vec<_>, _>>()
        })?;
        for (bytes, evidence) in all.into_iter().flatten() {
            self.done.copied += 1;
            self.done.bytes += bytes;
            self.seen.extend(evidence);
        }
        Ok(())
    }

    /// Copies a file. On file systems that can, std's copy shares the blocks or stays inside the kernel (copy_file_range(2)).
    fn file(&self, path: &Path) -> io::Result<(u64, Option<Entry>)> {
        let mut from = open(&self.root, path, OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        let stat = fstat(&from)?;
        if kind(stat.st_mode) != SFlag::S_IFREG {
            return Err(io::Error::other("it is no regular file any more"));
        }
        // What was written through a map shows no more than once until it is on the disk: see the decision.
        let evidence = self.evidence(path, &stat).filter(|_| coracle_runtime::has_no_writer(&from));
        let mut to = File::create_new(self.target.join(path))?;
        let bytes = io::copy(&mut from, &mut to)?;
        // In the order in which none undoes another.
        fchown(&to, Some(self.owner.0), Some(self.owner.1))?;
        to.set_permissions(Permissions::from_mode(stat.st_mode & 0o7777))?;
        futimens(&to, &INSTANT, &INSTANT)?;
        Ok((bytes, evidence))
    }
}

/// Open what lies below `root`. Others may be able to write there while we read: a folder that has become a link leads
/// nowhere (openat2(2)).
fn open(root: &File, path: &Path, flags: OFlag) -> io::Result<File> {
    // The empty path has no name for the kernel.
    let named = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    Ok(openat2(root.as_fd(), named, how)?.into())
}

fn list(dir: &File) -> io::Result<Vec<OsString>> {
    let entries = folder::entries(dir.as_fd(), Path::new(".")).map_err(io::Error::other)?;
    Ok(entries.into_iter().map(|entry| entry.name).collect())
}

fn kind(mode: u32) -> SFlag {
    SFlag::from_bits_truncate(mode) & SFlag::S_IFMT
}

#[cfg(test)]
mod tests;
