//! Whether a folder is still what it was when its archive was made, without reading what is in its files: one digest of what the
//! kernel says of it and of all below it.
//!
//! `docs/decisions/0022-the-layers-tree-stays.md` says why nobody can change a file and keep what the kernel says of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use coracle_images::{Digest, Hashing};
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fstat, fstatat, utimensat};
use nix::sys::time::TimeSpec;
use rustix::fs::llistxattr;

use crate::folder::{self, FolderError};

pub use crate::stamp::{Newest, Stamp};

/// Names that say in an archive that another file is deleted (OCI image specification, layer.md, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";

/// The one attribute that a system gives files by itself, those of an archive too.
const LABEL: &[u8] = b"security.selinux";

/// Why a folder has no signature.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// A system call failed.
    #[error("{act} `{path}`")]
    Call {
        act: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A folder could not be listed.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Its archive would bring back something else.
    #[error("`{path}` {why}, which its archive would not bring back")]
    Unfit { path: PathBuf, why: &'static str },
}

/// What was seen of a folder.
#[derive(Debug)]
pub struct Signature {
    pub digest: Digest,
    /// A change within one tick of the file system's clock after this may not show.
    pub newest: Newest,
}

/// What a folder must be to be the same as if it came from its archive.
#[derive(Debug, Clone, Copy)]
struct Seal {
    owner: (u32, u32),
    /// The time of everything in it, in seconds since 1970.
    instant: i64,
}

/// Looks at a folder and at all below it. Nothing is opened but folders.
///
/// Of the folder itself the time of the last change does not count: it is another one wherever the folder is moved to.
pub fn look(dir: BorrowedFd<'_>) -> Result<Signature, SignatureError> {
    Walk::new(None).all(dir)
}

/// As [`look`], and for each entry below what it is known by ([`Stamp::evidence`], with its path).
pub fn look_at_each(dir: BorrowedFd<'_>) -> Result<(Signature, Vec<[u8; 32]>), SignatureError> {
    let mut walk = Walk { each: Some(Vec::new()), ..Walk::new(None) };
    let signature = walk.all(dir)?;
    Ok((signature, walk.each.unwrap_or_default()))
}

/// As [`look`], of a folder whose archive was made a moment ago: gives everything in it one time, and makes sure that the archive,
/// unpacked for `owner`, would be the same: no further names of a file (hard links), no attributes, nothing but files, folders and
/// symbolic links.
pub fn seal(dir: BorrowedFd<'_>, owner: (u32, u32), instant: i64) -> Result<Signature, SignatureError> {
    Walk::new(Some(Seal { owner, instant })).all(dir)
}

struct Walk {
    hash: Hashing<io::Sink>,
    newest: Newest,
    path: PathBuf,
    seal: Option<Seal>,
    each: Option<Vec<[u8; 32]>>,
}

impl Walk {
    fn new(seal: Option<Seal>) -> Self {
        Self {
            hash: Hashing::new(io::sink()),
            newest: Newest::default(),
            path: PathBuf::new(),
            seal,
            each: None,
        }
    }

    fn all(&mut self, dir: BorrowedFd<'_>) -> Result<Signature, SignatureError> {
        let mut stamp = self.stamp_of(dir)?;
        self.check_attributes(dir, OsStr::new("."))?;
        if let Some(seal) = self.seal {
            self.check(&stamp, 1, seal)?;
            stamp = self.set_time(dir, OsStr::new("."), stamp, seal)?;
        }
        self.add(OsStr::new(""), &Stamp { changed: (0, 0), ..stamp });
        self.folder(dir)?;
        Ok(Signature { digest: self.hash.digest(), newest: self.newest })
    }

    fn folder(&mut self, dir: BorrowedFd<'_>) -> Result<(), SignatureError> {
        let entries = folder::entries(dir, Path::new("."))?;
        // With their number, so that no two trees say the same.
        let _ = self.hash.write_all(&(entries.len() as u64).to_le_bytes());
        for entry in entries {
            self.path.push(&entry.name);
            self.entry(dir, &entry.name)?;
            self.path.pop();
        }
        Ok(())
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), SignatureError> {
        let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| self.failed("look at", errno))?;
        let mut stamp = Stamp::of(&stat);
        if let Some(seal) = self.seal {
            self.check(&stamp, stat.st_nlink, seal)?;
            self.check_attributes(dir, name)?;
            stamp = self.set_time(dir, name, stamp, seal)?;
        }
        self.newest.saw(stamp.changed);
        self.add(name, &stamp);
        if let Some(each) = &mut self.each {
            each.push(stamp.evidence(self.path.as_os_str()));
        }
        if stamp.kind() != SFlag::S_IFDIR {
            return Ok(());
        }
        folder::check_depth(&self.path)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let inner = openat(dir, name, flags, Mode::empty()).map_err(|errno| self.failed("open", errno))?;
        self.folder(inner.as_fd())
    }

    fn check(&self, stamp: &Stamp, names: u64, seal: Seal) -> Result<(), SignatureError> {
        let kind = stamp.kind();
        let name = self.path.file_name().unwrap_or_default();
        let unfit = [
            (!matches!(kind, SFlag::S_IFDIR | SFlag::S_IFREG | SFlag::S_IFLNK), "is no file, folder or link"),
            (kind != SFlag::S_IFDIR && names != 1, "has more names than one"),
            (stamp.owner != seal.owner, "belongs to somebody else"),
            (name.as_bytes().starts_with(WHITEOUT), "is named like a deleted file"),
        ];
        unfit.into_iter().find(|(is, _)| *is).map_or(Ok(()), |(_, why)| Err(self.unfit(why)))
    }

    fn check_attributes(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), SignatureError> {
        let has = has_attributes(dir, name).map_err(|error| self.failed("read the attributes of", error))?;
        if has { Err(self.unfit("has attributes")) } else { Ok(()) }
    }

    fn set_time(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        stamp: Stamp,
        seal: Seal,
    ) -> Result<Stamp, SignatureError> {
        if stamp.modified == (seal.instant, 0) {
            return Ok(stamp);
        }
        let time = TimeSpec::new(seal.instant, 0);
        utimensat(dir, name, &time, &time, UtimensatFlags::NoFollowSymlink)
            .map_err(|errno| self.failed("set the time of", errno))?;
        let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| self.failed("look at", errno))?;
        Ok(Stamp::of(&stat))
    }

    fn stamp_of(&mut self, dir: BorrowedFd<'_>) -> Result<Stamp, SignatureError> {
        let stat = fstat(dir).map_err(|errno| self.failed("look at", errno))?;
        Ok(Stamp::of(&stat))
    }

    fn add(&mut self, name: &OsStr, stamp: &Stamp) {
        stamp.put(name, &mut self.hash);
    }

    fn unfit(&self, why: &'static str) -> SignatureError {
        SignatureError::Unfit { path: self.path.clone(), why }
    }

    fn failed(&self, act: &'static str, source: impl Into<io::Error>) -> SignatureError {
        SignatureError::Call { act, path: self.path.clone(), source: source.into() }
    }
}

/// Whether an entry of a folder has attributes (`xattr(7)`) that nobody but a program can have given it.
pub fn has_attributes(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    // There is no such call that takes a folder and a name before Linux 6.13.
    let path = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    let mut names = [0; 256];
    match llistxattr(&path, &mut names) {
        Ok(length) => {
            Ok(names[..length].split(|byte| *byte == 0).any(|name| !name.is_empty() && name != LABEL))
        }
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(rustix::io::Errno::RANGE) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether the file system of a folder tells of changes as Linux's own do (`statfs(2)`), and lets programs run from there.
/// The others, network and stacked ones among them, take times from elsewhere, or not at all.
pub fn tells_of_changes(dir: &Path) -> io::Result<bool> {
    let flags = nix::sys::statvfs::fstatvfs(File::open(dir)?).map_err(io::Error::from)?.flags();
    Ok(is_told_of_changes(dir)? && !flags.contains(nix::sys::statvfs::FsFlags::ST_NOEXEC))
}

/// The first half of [`tells_of_changes`]: programs need not run from there.
pub fn is_told_of_changes(dir: &Path) -> io::Result<bool> {
    let about = nix::sys::statfs::fstatfs(File::open(dir)?).map_err(io::Error::from)?;
    Ok(is_known(about.filesystem_type().0 as i64))
}

/// By the numbers of `linux/magic.h`: ext2 to ext4, XFS, Btrfs, F2FS, bcachefs. Not tmpfs: a page that was read through a map is
/// written through it unseen.
fn is_known(kind: i64) -> bool {
    [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0xca45_1a4e].contains(&kind)
}

/// A file by which it is seen whether a file system tells of changes as this program needs it.
#[derive(Debug)]
pub struct Probe {
    path: PathBuf,
    before: Stamp,
}

impl Probe {
    /// Makes the file, new.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::write(&path, "one")?;
        let before = Stamp::of(&nix::sys::stat::lstat(&path)?);
        Ok(Self { path, before })
    }

    /// Changes the file to one of the same size, gives it its old time back, and says whether the change shows all the same.
    pub fn shows(&self) -> io::Result<bool> {
        let mut newest = Newest::default();
        newest.saw(self.before.changed);
        newest.settle();
        std::fs::write(&self.path, "two")?;
        let (_, time) = self.before.times();
        let at = nix::fcntl::AT_FDCWD;
        utimensat(at, &self.path, &time, &time, UtimensatFlags::NoFollowSymlink)?;
        let after = Stamp::of(&nix::sys::stat::lstat(&self.path)?);
        std::fs::remove_file(&self.path)?;
        Ok(shows(&self.before, &after))
    }
}

fn shows(before: &Stamp, after: &Stamp) -> bool {
    let as_they_were = Stamp { changed: before.changed, ..*after } == *before;
    as_they_were && after.changed > before.changed
}

#[cfg(test)]
mod tests;
