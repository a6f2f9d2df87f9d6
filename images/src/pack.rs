//! Folders to layer archives, byte for byte as Go's `archive/tar` writes them.
//!
//! Digests of layers are compared across builders, so the archive's form is a contract: ustar headers, an extended
//! header only for what ustar cannot hold, entries in lexical order, one time for all of them, no user names.

mod again;
mod header;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, major, minor};

pub use self::again::pack_again;
use self::header::Fields;
use crate::unpack::shown;

/// 1980-01-01T00:00:01Z, the time builders give every file.
pub const EPOCH: i64 = 315_532_801;

/// How a folder becomes a layer.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// Owner of all entries.
    pub uid: u32,
    /// Group of all entries.
    pub gid: u32,
    /// Folders above, written first, with attributes of their own.
    pub parents: Vec<Parent>,
    /// Time of all entries, in seconds since 1970.
    pub mtime: i64,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self { uid: 0, gid: 0, parents: Vec::new(), mtime: EPOCH }
    }
}

/// A folder above the packed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Path in the image.
    pub path: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permissions.
    pub mode: u32,
}

/// What can go wrong while packing.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file cannot be read.
    #[error("cannot {act} `{path}` for a layer")]
    Read {
        /// The deed.
        act: &'static str,
        /// Path in the image, escaped.
        path: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A file became shorter while it was read.
    #[error("`{path}` changed while it was packed; stop what writes to it and build again")]
    Changed {
        /// Path in the image, escaped.
        path: String,
    },
    /// An entry has no form in the archive.
    #[error("`{path}` cannot be part of a layer: {why}")]
    Unfit {
        /// Path in the image, escaped.
        path: String,
        /// Why.
        why: &'static str,
    },
    /// An archive cannot be written again.
    #[error("an archive cannot be part of an image: at byte {at}: {why}")]
    Archive {
        /// Where in it, uncompressed.
        at: u64,
        /// What is wrong there.
        why: &'static str,
        /// What reading said.
        #[source]
        source: Option<io::Error>,
    },
    /// The archive cannot be written.
    #[error("cannot write the layer")]
    Write(#[source] io::Error),
}

/// Packs a folder as the tree at `image_path`, and ends the archive.
///
/// # Errors
///
/// When something in it cannot be read, or the archive cannot be written.
pub fn pack_dir(
    dir: BorrowedFd<'_>,
    image_path: &str,
    options: &PackOptions,
    out: &mut dyn Write,
) -> Result<(), PackError> {
    let mut tar = TarWriter::new(out, options.mtime);
    tar.parents(&options.parents)?;
    tar.tree(dir, image_path, options.uid, options.gid)?;
    tar.finish()
}

/// Packs these paths of a folder, each without what is below it, in the given order, and ends the archive.
///
/// # Errors
///
/// When one is missing or cannot be read, or the archive cannot be written.
pub fn pack_paths(
    dir: BorrowedFd<'_>,
    image_path: &str,
    paths: &[PathBuf],
    options: &PackOptions,
    out: &mut dyn Write,
) -> Result<(), PackError> {
    let mut tar = TarWriter::new(out, options.mtime);
    tar.parents(&options.parents)?;
    for path in paths {
        tar.path(dir, image_path, path, options.uid, options.gid)?;
    }
    tar.finish()
}

/// Writes an archive entry by entry.
#[expect(missing_debug_implementations, reason = "there is nothing to say of a `dyn Write`")]
pub struct TarWriter<'a> {
    out: &'a mut dyn Write,
    mtime: i64,
}

impl<'a> TarWriter<'a> {
    /// An archive whose entries all carry this time.
    pub fn new(out: &'a mut dyn Write, mtime: i64) -> Self {
        Self { out, mtime }
    }

    /// A folder.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn folder(&mut self, path: &str, mode: u32, uid: u32, gid: u32) -> Result<(), PackError> {
        self.entry(path.as_bytes(), b"", b'5', mode, (uid, gid), 0, (0, 0))
    }

    /// A symbolic link. Linux shows 0777 for one; archives of other builders may say something else.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn symlink(
        &mut self,
        path: &str,
        target: &str,
        mode: u32,
        uid: u32,
        gid: u32,
    ) -> Result<(), PackError> {
        self.entry(path.as_bytes(), target.as_bytes(), b'2', mode, (uid, gid), 0, (0, 0))
    }

    /// A file of `size` bytes.
    ///
    /// # Errors
    ///
    /// When the content ends early, or cannot be written.
    pub fn file(
        &mut self,
        path: &str,
        mode: u32,
        uid: u32,
        gid: u32,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), PackError> {
        self.entry(path.as_bytes(), b"", b'0', mode, (uid, gid), size, (0, 0))?;
        self.content(path.as_bytes(), size, content)
    }

    /// Folders with attributes of their own.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn parents(&mut self, parents: &[Parent]) -> Result<(), PackError> {
        parents.iter().try_for_each(|p| self.folder(&p.path, p.mode, p.uid, p.gid))
    }

    /// A folder and all below it, in lexical order; links are not followed, sockets left out.
    ///
    /// # Errors
    ///
    /// When something cannot be read or written.
    pub fn tree(
        &mut self,
        dir: BorrowedFd<'_>,
        image_path: &str,
        uid: u32,
        gid: u32,
    ) -> Result<(), PackError> {
        let path = image_path.as_bytes();
        let stat = fstat(dir).map_err(|e| failed("look at", path, e))?;
        self.entry(path, b"", b'5', stat.st_mode & 0o7777, (uid, gid), 0, (0, 0))?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let again = openat(dir, ".", flags, Mode::empty()).map_err(|e| failed("open", path, e))?;
        self.below(again, path, (uid, gid))
    }

    /// One path of a folder, without what is below it.
    ///
    /// # Errors
    ///
    /// When it cannot be read or written.
    pub fn path(
        &mut self,
        dir: BorrowedFd<'_>,
        image_path: &str,
        path: &Path,
        uid: u32,
        gid: u32,
    ) -> Result<(), PackError> {
        use std::os::unix::ffi::OsStrExt;
        let full = [image_path.as_bytes(), b"/", path.as_os_str().as_bytes()].concat();
        let unfit = || PackError::Unfit { path: shown(&full), why: "it is not below the packed folder" };
        let name = path.file_name().ok_or_else(unfit)?;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let folder = openat2(dir, parent, how).map_err(|e| failed("open the folder of", &full, e))?;
        self.member(folder.as_fd(), name.as_bytes(), &full, (uid, gid)).map(drop)
    }

    /// Ends the archive.
    ///
    /// # Errors
    ///
    /// When the end cannot be written.
    pub fn finish(self) -> Result<(), PackError> {
        self.out.write_all(&[0; 1024]).and_then(|()| self.out.flush()).map_err(PackError::Write)
    }

    fn below(&mut self, folder: OwnedFd, path: &[u8], owner: (u32, u32)) -> Result<(), PackError> {
        let mut folder = Dir::from_fd(folder).map_err(|e| failed("list", path, e))?;
        let mut names: Vec<Vec<u8>> = folder
            .iter()
            .map(|entry| entry.map(|entry| entry.file_name().to_bytes().to_vec()))
            .collect::<nix::Result<_>>()
            .map_err(|e| failed("list", path, e))?;
        names.retain(|name| !matches!(name.as_slice(), b"." | b".."));
        names.sort_unstable();
        for name in names {
            let full = [path.strip_suffix(b"/").unwrap_or(path), b"/", &name].concat();
            if self.member(folder.as_fd(), &name, &full, owner)? {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let inner = openat(&folder, name.as_slice(), flags, Mode::empty())
                    .map_err(|e| failed("open", &full, e))?;
                self.below(inner, &full, owner)?;
            }
        }
        Ok(())
    }

    /// Writes one member; true if it is a folder.
    fn member(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &[u8],
        full: &[u8],
        owner: (u32, u32),
    ) -> Result<bool, PackError> {
        let stat =
            fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|e| failed("look at", full, e))?;
        let mode = stat.st_mode & 0o7777;
        let device = (major(stat.st_rdev), minor(stat.st_rdev));
        match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => self.entry(full, b"", b'5', mode, owner, 0, (0, 0))?,
            SFlag::S_IFLNK => {
                let target = readlinkat(folder, name).map_err(|e| failed("read the link", full, e))?;
                self.entry(full, target.as_encoded_bytes(), b'2', mode, owner, 0, (0, 0))?;
            }
            SFlag::S_IFREG => self.regular(folder, name, full, owner)?,
            SFlag::S_IFIFO => self.entry(full, b"", b'6', mode, owner, 0, (0, 0))?,
            SFlag::S_IFCHR => self.entry(full, b"", b'3', mode, owner, 0, device)?,
            SFlag::S_IFBLK => self.entry(full, b"", b'4', mode, owner, 0, device)?,
            _ => {}
        }
        Ok(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
    }

    fn regular(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &[u8],
        full: &[u8],
        owner: (u32, u32),
    ) -> Result<(), PackError> {
        // Nonblocking: whoever owns the folder may put a FIFO here meanwhile.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = openat(folder, name, flags, Mode::empty()).map_err(|e| failed("open", full, e))?;
        let stat: FileStat = fstat(&fd).map_err(|e| failed("look at", full, e))?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return Err(PackError::Changed { path: shown(full) });
        }
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        self.entry(full, b"", b'0', stat.st_mode & 0o7777, owner, size, (0, 0))?;
        self.content(full, size, &mut File::from(fd))
    }

    fn content(&mut self, path: &[u8], size: u64, content: &mut dyn Read) -> Result<(), PackError> {
        let mut buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX).min(1 << 16)];
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let read = content.read(&mut buffer[..want]).map_err(|source| PackError::Read {
                act: "read",
                path: shown(path),
                source,
            })?;
            if read == 0 {
                return Err(PackError::Changed { path: shown(path) });
            }
            self.out.write_all(&buffer[..read]).map_err(PackError::Write)?;
            left -= read as u64;
        }
        let padding = usize::try_from((512 - size % 512) % 512).unwrap_or_default();
        self.out.write_all(&[0; 512][..padding]).map_err(PackError::Write)
    }

    #[expect(clippy::too_many_arguments, reason = "a header has that many fields")]
    fn entry(
        &mut self,
        name: &[u8],
        link: &[u8],
        kind: u8,
        mode: u32,
        owner: (u32, u32),
        size: u64,
        device: (u64, u64),
    ) -> Result<(), PackError> {
        let (uid, gid) = owner;
        let fields = Fields { name, link, kind, mode, uid, gid, size, mtime: self.mtime, device };
        let bytes = fields.encode().map_err(|why| PackError::Unfit { path: shown(name), why })?;
        self.out.write_all(&bytes).map_err(PackError::Write)
    }
}

fn failed(act: &'static str, path: &[u8], errno: nix::errno::Errno) -> PackError {
    PackError::Read { act, path: shown(path), source: errno.into() }
}

#[cfg(test)]
mod tests;
