//! A folder as it was: looked at once, compared later, and put back where it differs.
//!
//! Everything is found by name below an open folder and no link is followed. No other process of the build runs meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, fstatat, futimens,
    mkdirat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{mkfifoat, symlinkat};

use super::record::{Place, Record};
use crate::folder::{self, FolderError};
use crate::stamp::Stamp;

/// Why a folder could not be looked at or put back.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
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
}

type Result<T> = std::result::Result<T, TreeError>;

/// One file or folder as it was.
#[derive(Debug)]
pub(super) struct Node {
    stamp: Stamp,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Folder(BTreeMap<OsString, Node>),
    File(Place),
    Link(OsString),
    Fifo,
    /// Not kept, whatever it is.
    Free,
}

/// A walk through folders.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    record: &'a mut Record,
    path: PathBuf,
    /// Paths below the folder where the walk began that were not as they had been.
    pub(super) changed: Vec<PathBuf>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(record: &'a mut Record) -> Self {
        Self { record, path: PathBuf::new(), changed: Vec::new() }
    }

    /// Looks at a folder and at all below it, of folders in it only at those of these names.
    pub(super) fn look(
        &mut self,
        at: BorrowedFd<'_>,
        name: &OsStr,
        folders: &BTreeSet<OsString>,
    ) -> Result<Node> {
        let stamp =
            self.stamp(at, name)?.ok_or(Errno::ENOENT).map_err(|errno| self.failed("look at", errno))?;
        let is_free = |name: &OsStr, stamp: &Stamp| stamp.kind() == SFlag::S_IFDIR && !folders.contains(name);
        self.folder(at, name, stamp, &is_free)
    }

    fn folder(
        &mut self,
        at: BorrowedFd<'_>,
        name: &OsStr,
        stamp: Stamp,
        is_free: &dyn Fn(&OsStr, &Stamp) -> bool,
    ) -> Result<Node> {
        let dir = self.enter(at, name, &stamp)?;
        let mut nodes = BTreeMap::new();
        for entry in folder::entries(dir.as_fd(), Path::new("."))? {
            self.path.push(&entry.name);
            if let Some(node) = self.node(dir.as_fd(), &entry.name, is_free)? {
                nodes.insert(entry.name, node);
            }
            self.path.pop();
        }
        let stamp = self.leave(&dir, stamp.permissions())?;
        Ok(Node { stamp, kind: Kind::Folder(nodes) })
    }

    /// Looks at one entry; sockets and devices are not part of layers.
    fn node(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        is_free: &dyn Fn(&OsStr, &Stamp) -> bool,
    ) -> Result<Option<Node>> {
        let Some(mut stamp) = self.stamp(dir, name)? else { return Ok(None) };
        let kind = match stamp.kind() {
            _ if is_free(name, &stamp) => Kind::Free,
            SFlag::S_IFDIR => return self.folder(dir, name, stamp, &|_, _| false).map(Some),
            SFlag::S_IFREG => {
                let file = self.open(dir, name, &stamp)?;
                let place = self.record.add(&file).map_err(|error| self.failed("keep", error))?;
                stamp = self.stamp_of(&file)?;
                Kind::File(place)
            }
            SFlag::S_IFLNK => Kind::Link(self.target(dir, name)?),
            SFlag::S_IFIFO => Kind::Fifo,
            _ => return Ok(None),
        };
        Ok(Some(Node { stamp, kind }))
    }

    /// Compares an entry with what it was, and puts back what differs.
    pub(super) fn put_back(&mut self, at: BorrowedFd<'_>, name: &OsStr, node: &mut Node) -> Result<()> {
        let found = self.stamp(at, name)?;
        let Node { stamp, kind } = node;
        let Some(found) = found.filter(|found| found.kind() == stamp.kind()) else {
            return match kind {
                Kind::Free => Ok(()),
                _ => self.replace(at, name, node),
            };
        };
        if found == *stamp && !matches!(kind, Kind::Folder(_)) {
            return Ok(());
        }
        let same = match kind {
            Kind::Folder(nodes) => return self.put_folder_back(at, name, (stamp, found), nodes),
            Kind::Free => true,
            Kind::Fifo => found.mode == stamp.mode,
            Kind::Link(target) => self.target(at, name)? == *target,
            Kind::File(place) if found.mode == stamp.mode && found.size == stamp.size => {
                let place = *place;
                let file = self.open(at, name, &found)?;
                self.record.is(place, &file).map_err(|error| self.failed("read", error))?
            }
            Kind::File(_) => false,
        };
        if !same {
            return self.replace(at, name, node);
        }
        // Touched, or given one more name: its content is what it was.
        if let Some(now) = self.stamp(at, name)? {
            *stamp = now;
        }
        Ok(())
    }

    fn put_folder_back(
        &mut self,
        at: BorrowedFd<'_>,
        name: &OsStr,
        (stamp, found): (&mut Stamp, Stamp),
        nodes: &mut BTreeMap<OsString, Node>,
    ) -> Result<()> {
        let dir = self.enter(at, name, &found)?;
        if found != *stamp {
            for entry in folder::entries(dir.as_fd(), Path::new("."))? {
                if nodes.contains_key(&entry.name) {
                    continue;
                }
                self.path.push(&entry.name);
                let kind = self.stamp(dir.as_fd(), &entry.name)?.map(|stamp| stamp.kind());
                if !matches!(kind, None | Some(SFlag::S_IFSOCK | SFlag::S_IFCHR | SFlag::S_IFBLK)) {
                    self.remove(dir.as_fd(), &entry.name)?;
                    self.changed.push(self.path.clone());
                }
                self.path.pop();
            }
            if found.mode != stamp.mode {
                self.changed.push(self.path.clone());
            }
        }
        for (name, node) in nodes {
            self.path.push(name);
            self.put_back(dir.as_fd(), name, node)?;
            self.path.pop();
        }
        *stamp = self.leave_as(&dir, stamp)?;
        Ok(())
    }

    fn replace(&mut self, at: BorrowedFd<'_>, name: &OsStr, node: &mut Node) -> Result<()> {
        self.changed.push(self.path.clone());
        self.remove(at, name)?;
        self.make(at, name, node)
    }

    /// Makes an entry anew where there is none.
    fn make(&mut self, at: BorrowedFd<'_>, name: &OsStr, node: &mut Node) -> Result<()> {
        let times = node.stamp.times();
        let permissions = node.stamp.permissions();
        node.stamp = match &mut node.kind {
            Kind::Free => return Ok(()),
            Kind::Folder(nodes) => {
                mkdirat(at, name, Mode::S_IRWXU).map_err(|errno| self.failed("make", errno))?;
                let made = Stamp { mode: SFlag::S_IFDIR.bits() | Mode::S_IRWXU.bits(), ..node.stamp };
                let dir = self.enter(at, name, &made)?;
                for (name, node) in nodes {
                    self.path.push(name);
                    self.make(dir.as_fd(), name, node)?;
                    self.path.pop();
                }
                self.leave_as(&dir, &node.stamp)?
            }
            Kind::File(place) => {
                let flags =
                    OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let file = openat(at, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
                    .map_err(|errno| self.failed("make", errno))?;
                let file = File::from(file);
                self.record.write(*place, &file).map_err(|error| self.failed("write", error))?;
                fchmod(&file, permissions).map_err(|errno| self.failed("set the mode of", errno))?;
                futimens(&file, &times.0, &times.1).map_err(|errno| self.failed("set the time of", errno))?;
                self.stamp_of(&file)?
            }
            Kind::Link(target) => {
                symlinkat(target.as_os_str(), at, name).map_err(|errno| self.failed("make", errno))?;
                self.finish(at, name, times)?
            }
            Kind::Fifo => {
                mkfifoat(at, name, permissions).map_err(|errno| self.failed("make", errno))?;
                fchmodat(at, name, permissions, FchmodatFlags::FollowSymlink)
                    .map_err(|errno| self.failed("set the mode of", errno))?;
                self.finish(at, name, times)?
            }
        };
        Ok(())
    }

    fn finish(&mut self, at: BorrowedFd<'_>, name: &OsStr, times: (TimeSpec, TimeSpec)) -> Result<Stamp> {
        utimensat(at, name, &times.0, &times.1, UtimensatFlags::NoFollowSymlink)
            .map_err(|errno| self.failed("set the time of", errno))?;
        self.stamp(at, name)?.ok_or(Errno::ENOENT).map_err(|errno| self.failed("look at", errno))
    }

    fn remove(&self, at: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        folder::remove(at, name).map_err(|errno| self.failed("remove", errno))
    }

    fn target(&self, at: BorrowedFd<'_>, name: &OsStr) -> Result<OsString> {
        readlinkat(at, name).map_err(|errno| self.failed("read the link", errno))
    }

    fn stamp(&mut self, at: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Stamp>> {
        match fstatat(at, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(self.seen(&stat))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.failed("look at", errno)),
        }
    }

    fn stamp_of(&mut self, file: impl std::os::fd::AsFd) -> Result<Stamp> {
        let stat = fstat(file).map_err(|errno| self.failed("look at", errno))?;
        Ok(self.seen(&stat))
    }

    fn seen(&mut self, stat: &FileStat) -> Stamp {
        let stamp = Stamp::of(stat);
        self.record.newest.saw(stamp.changed);
        stamp
    }

    /// Opens a file for reading, one that is closed to its owner too.
    fn open(&self, at: BorrowedFd<'_>, name: &OsStr, stamp: &Stamp) -> Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let open = || openat(at, name, flags, Mode::empty());
        let file = match open() {
            Err(Errno::EACCES) => {
                let permissions = stamp.permissions();
                self.chmod(at, name, permissions | Mode::S_IRUSR)?;
                let file = open();
                self.chmod(at, name, permissions)?;
                file
            }
            file => file,
        };
        file.map(File::from).map_err(|errno| self.failed("open", errno))
    }

    /// Opens a folder and whatever in it is closed to its owner.
    fn enter(&self, at: BorrowedFd<'_>, name: &OsStr, stamp: &Stamp) -> Result<OwnedFd> {
        folder::check_depth(&self.path)?;
        if !stamp.permissions().contains(Mode::S_IRWXU) {
            self.chmod(at, name, stamp.permissions() | Mode::S_IRWXU)?;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(at, name, flags, Mode::empty()).map_err(|errno| self.failed("open", errno))
    }

    fn chmod(&self, at: BorrowedFd<'_>, name: &OsStr, mode: Mode) -> Result<()> {
        fchmodat(at, name, mode, FchmodatFlags::FollowSymlink)
            .map_err(|errno| self.failed("set the mode of", errno))
    }

    /// Gives a folder its permissions back.
    fn leave(&mut self, dir: &OwnedFd, permissions: Mode) -> Result<Stamp> {
        let now = self.stamp_of(dir)?;
        if now.permissions() == permissions {
            return Ok(now);
        }
        fchmod(dir, permissions).map_err(|errno| self.failed("set the mode of", errno))?;
        self.stamp_of(dir)
    }

    /// Gives a folder its permissions and its time back.
    fn leave_as(&mut self, dir: &OwnedFd, stamp: &Stamp) -> Result<Stamp> {
        if self.stamp_of(dir)?.modified != stamp.modified {
            let times = stamp.times();
            futimens(dir, &times.0, &times.1).map_err(|errno| self.failed("set the time of", errno))?;
        }
        self.leave(dir, stamp.permissions())
    }

    fn failed(&self, act: &'static str, source: impl Into<io::Error>) -> TreeError {
        TreeError::Call { act, path: self.path.clone(), source: source.into() }
    }
}
