//! Files beneath one open folder, made without ever following a link.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{
    FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstatat, futimens, makedev, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{
    Gid, LinkatFlags, Uid, UnlinkatFlags, fchown, fchownat, linkat, mkfifoat, symlinkat, unlinkat,
};
use rustix::fs::XattrFlags;

use super::{Components, UnpackError, shown};

/// What an inode gets besides its content.
#[derive(Debug, Clone)]
pub(super) struct Metadata {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    pub(super) mtime: (i64, i64),
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

pub(super) struct Tree<'a> {
    root: BorrowedFd<'a>,
    /// The folder last worked in: archives go folder by folder.
    near: Option<(Components, OwnedFd)>,
    implied: Vec<Components>,
}

type Result<T> = std::result::Result<T, UnpackError>;

impl<'a> Tree<'a> {
    pub(super) fn new(root: BorrowedFd<'a>) -> Self {
        Self { root, near: None, implied: Vec::new() }
    }

    /// Folders that were made without an entry of their own.
    pub(super) fn implied(&mut self) -> Vec<Components> {
        let implied = std::mem::take(&mut self.implied);
        implied.into_iter().filter(|path| self.open(path).is_ok()).collect()
    }

    pub(super) fn exists(&self, path: &Components) -> Result<bool> {
        Ok(self.stat(path)?.is_some())
    }

    /// Makes a folder; true if something else had to give way.
    pub(super) fn folder(&mut self, path: &Components) -> Result<bool> {
        let replaced = match self.stat(path)? {
            Some(stat) if is(&stat, SFlag::S_IFDIR) => return Ok(false),
            Some(_) => self.remove(path)?,
            None => false,
        };
        let (parent, name) = self.parent(path)?;
        mkdirat(parent, name, Mode::S_IRWXU).map_err(|e| failed("make the folder", path, e))?;
        Ok(replaced)
    }

    pub(super) fn file(
        &mut self,
        path: &Components,
        metadata: &Metadata,
        fill: impl FnOnce(&mut File) -> Result<()>,
    ) -> Result<Vec<String>> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|e| failed("make the file", path, e))?;
        let mut file = File::from(fd);
        fill(&mut file)?;
        adorn(&file, path, metadata)
    }

    pub(super) fn fifo(&mut self, path: &Components, metadata: &Metadata) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        mkfifoat(parent, name, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|e| failed("make the FIFO", path, e))?;
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(parent, name, flags, Mode::empty()).map_err(|e| failed("open the FIFO", path, e))?;
        adorn(&fd, path, &Metadata { attributes: Vec::new(), ..metadata.clone() }).map(drop)
    }

    pub(super) fn symlink(&mut self, path: &Components, target: &[u8], metadata: &Metadata) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        symlinkat(target, parent, name).map_err(|e| failed("make the symbolic link", path, e))?;
        let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
        fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|e| failed("give an owner to", path, e))?;
        let time = time(metadata);
        utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)
            .map_err(|e| failed("set the time of", path, e))
    }

    /// Whether there is something that a hard link may lead to.
    pub(super) fn may_link(&self, path: &Components, target: &Components) -> Result<bool> {
        match self.stat(target)? {
            Some(stat) if is(&stat, SFlag::S_IFDIR) => {
                let path = shown(&path.join(&b'/'));
                Err(UnpackError::Refused { path, why: "a hard link to a folder" })
            }
            found => Ok(found.is_some()),
        }
    }

    /// Links to an inode of this tree, be it a symbolic link itself; false if there is none yet.
    pub(super) fn link(&mut self, path: &Components, target: &Components) -> Result<bool> {
        if !self.may_link(path, target)? {
            return Ok(false);
        }
        let Some((leaf, above)) = target.split_last() else { return Ok(false) };
        let from = self.open(above).map_err(|e| failed("open the folder of", target, e))?;
        let (parent, name) = self.parent(path)?;
        linkat(&from, leaf.as_slice(), parent, name, LinkatFlags::empty())
            .map_err(|e| failed("make the hard link", path, e))?;
        Ok(true)
    }

    /// Removes whatever is at this path; true if there was something.
    pub(super) fn remove(&mut self, path: &Components) -> Result<bool> {
        let Some(stat) = self.stat(path)? else { return Ok(false) };
        let Some((leaf, above)) = path.split_last() else { return Ok(false) };
        let parent = self.open(above).map_err(|e| failed("open the folder of", path, e))?;
        if is(&stat, SFlag::S_IFDIR) {
            self.near = None;
            remove_folder(parent.as_fd(), leaf).map_err(|e| failed("replace the folder", path, e))?;
        } else {
            unlinkat(&parent, leaf.as_slice(), UnlinkatFlags::NoRemoveDir)
                .map_err(|e| failed("replace", path, e))?;
        }
        Ok(true)
    }

    /// Hides this path of the layers below. True if this layer has a folder there, which then must be opaque.
    pub(super) fn whiteout(&mut self, path: &Components) -> Result<bool> {
        if let Some(stat) = self.stat(path)? {
            return Ok(is(&stat, SFlag::S_IFDIR));
        }
        if self.is_blocked(path)? {
            return Ok(false);
        }
        let (parent, name) = self.parent(path)?;
        mknodat(parent, name, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))
            .map_err(|e| failed("make the whiteout", path, e))?;
        Ok(false)
    }

    /// Hides the contents of this folder in the layers below.
    pub(super) fn opaque(&mut self, path: &Components) -> Result<()> {
        match self.stat(path)? {
            Some(stat) if !is(&stat, SFlag::S_IFDIR) => return Ok(()),
            Some(_) => {}
            None if self.is_blocked(path)? => return Ok(()),
            None => {
                self.folder(path)?;
                self.implied.push(path.clone());
            }
        }
        let folder = self.open_for_change(path)?;
        rustix::fs::fsetxattr(&folder, "user.overlay.opaque", b"y", XattrFlags::empty()).map_err(
            |e| match e {
                rustix::io::Errno::NOTSUP => UnpackError::NoAttributes { path: shown(&path.join(&b'/')) },
                e => failed_io("mark as opaque", path, e.into()),
            },
        )
    }

    /// Whether a parent is there and no folder: everything of the layers below is hidden there already.
    fn is_blocked(&self, path: &Components) -> Result<bool> {
        for depth in 1..path.len() {
            match self.stat(&path[..depth].to_vec())? {
                Some(stat) if !is(&stat, SFlag::S_IFDIR) => return Ok(true),
                Some(_) => {}
                None => break,
            }
        }
        Ok(false)
    }

    pub(super) fn finish_folder(&mut self, path: &Components, metadata: &Metadata) -> Result<Vec<String>> {
        let folder = self.open_for_change(path)?;
        adorn(&folder, path, metadata)
    }

    fn open_for_change(&self, path: &[Vec<u8>]) -> Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        beneath(self.root, path, flags).map_err(|e| failed("open the folder", path, e))
    }

    fn open(&self, path: &[Vec<u8>]) -> nix::Result<OwnedFd> {
        beneath(self.root, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
    }

    /// What is at this path, itself not followed; nothing where a parent is missing or no folder.
    fn stat(&self, path: &Components) -> Result<Option<FileStat>> {
        let gone = [Errno::ENOENT, Errno::ENOTDIR, Errno::ELOOP];
        let (leaf, found) = match path.split_last() {
            None => (&b"."[..], self.open(&[])),
            Some((leaf, above)) => match &self.near {
                Some((near, folder)) if near == above => {
                    return stat_at(folder.as_fd(), leaf).map_err(|e| failed("look at", path, e));
                }
                _ => (leaf.as_slice(), self.open(above)),
            },
        };
        match found {
            Ok(folder) => stat_at(folder.as_fd(), leaf).map_err(|e| failed("look at", path, e)),
            Err(errno) if gone.contains(&errno) => Ok(None),
            Err(errno) => Err(failed("open the folder of", path, errno)),
        }
    }

    /// The folder of this path, made where missing, in place of anything that is no folder.
    fn parent<'s, 'p>(&'s mut self, path: &'p Components) -> Result<(BorrowedFd<'s>, &'p [u8])> {
        let Some((leaf, above)) = path.split_last() else {
            return Err(UnpackError::Path { path: String::new(), why: "it is the root" });
        };
        if self.near.as_ref().is_none_or(|(near, _)| near != above) {
            let folder = match self.open(above) {
                Ok(folder) => folder,
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {
                    self.make_way(above)?;
                    self.open(above).map_err(|e| failed("open the folder", above, e))?
                }
                Err(errno) => return Err(failed("open the folder", above, errno)),
            };
            self.near = Some((above.to_vec(), folder));
        }
        let folder = self.near.as_ref().map_or(self.root, |(_, folder)| folder.as_fd());
        Ok((folder, leaf))
    }

    fn make_way(&mut self, path: &[Vec<u8>]) -> Result<()> {
        for depth in 1..=path.len() {
            let part = path[..depth].to_vec();
            match self.stat(&part)? {
                Some(stat) if is(&stat, SFlag::S_IFDIR) => continue,
                Some(_) => drop(self.remove(&part)?),
                None => {}
            }
            let above = self.open(&part[..depth - 1]).map_err(|e| failed("open the folder of", &part, e))?;
            mkdirat(&above, part[depth - 1].as_slice(), Mode::S_IRWXU)
                .map_err(|e| failed("make the folder", &part, e))?;
            self.implied.push(part);
        }
        Ok(())
    }
}

fn beneath(root: BorrowedFd<'_>, path: &[Vec<u8>], flags: OFlag) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    let name = if path.is_empty() { b".".to_vec() } else { path.join(&b'/') };
    openat2(root, name.as_slice(), OpenHow::new().flags(flags).resolve(resolve))
}

fn stat_at(folder: BorrowedFd<'_>, leaf: &[u8]) -> nix::Result<Option<FileStat>> {
    match fstatat(folder, leaf, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn is(stat: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind
}

/// Owner before mode: changing the owner clears set-user-id. Attributes before mode: a read-only file takes none.
fn adorn(file: impl AsFd, path: &Components, metadata: &Metadata) -> Result<Vec<String>> {
    let file = file.as_fd();
    fchown(file, Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)))
        .map_err(|e| failed("give an owner to", path, e))?;
    let mut dropped = Vec::new();
    for (name, value) in &metadata.attributes {
        let kept = allowed(name)
            && match rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
                Ok(()) => true,
                Err(rustix::io::Errno::PERM | rustix::io::Errno::NOTSUP | rustix::io::Errno::INVAL) => false,
                Err(errno) => return Err(failed_io("set an attribute of", path, errno.into())),
            };
        if !kept {
            dropped.push(shown(name));
        }
    }
    fchmod(file, Mode::from_bits_truncate(metadata.mode)).map_err(|e| failed("set the mode of", path, e))?;
    let time = time(metadata);
    futimens(file, &time, &time).map_err(|e| failed("set the time of", path, e))?;
    Ok(dropped)
}

/// Attributes programs in the image may see: its own, not those that steer overlays or security modules.
fn allowed(name: &[u8]) -> bool {
    let steering: [&[u8]; 4] =
        [b"user.overlay.", b"user.containers.", b"user.rootlesscontainers", b"user.fuseoverlayfs."];
    name == b"security.capability"
        || name.starts_with(b"user.") && !steering.iter().any(|prefix| name.starts_with(prefix))
}

fn time(metadata: &Metadata) -> TimeSpec {
    TimeSpec::new(metadata.mtime.0, metadata.mtime.1)
}

fn remove_folder(parent: BorrowedFd<'_>, name: &[u8]) -> nix::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut folder = Dir::openat(parent, name, flags, Mode::empty())?;
    let names: Vec<Vec<u8>> = folder
        .iter()
        .map(|entry| entry.map(|entry| entry.file_name().to_bytes().to_vec()))
        .collect::<nix::Result<_>>()?;
    for inner in names.iter().filter(|n| !matches!(n.as_slice(), b"." | b"..")) {
        match unlinkat(&folder, inner.as_slice(), UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) => remove_folder(folder.as_fd(), inner)?,
            other => other?,
        }
    }
    unlinkat(parent, name, UnlinkatFlags::RemoveDir)
}

fn failed(act: &'static str, path: &[Vec<u8>], errno: Errno) -> UnpackError {
    failed_io(act, path, errno.into())
}

fn failed_io(act: &'static str, path: &[Vec<u8>], source: io::Error) -> UnpackError {
    UnpackError::Make { act, path: shown(&path.join(&b'/')), source }
}
