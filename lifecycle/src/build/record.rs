//! Where the content of kept files lies: one file without a name, which no other process can open.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::stamp::Newest;

/// From this size on a file's content begins at a block, so that file systems which share blocks need not copy it.
const WORTH_A_BLOCK: u64 = 1 << 16;
const BLOCK: u64 = 4096;

/// Contents of files, and the newest time at which one of them was found changed.
#[derive(Debug)]
pub(super) struct Record {
    file: File,
    end: u64,
    pub(super) newest: Newest,
}

/// Where a content lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    at: u64,
    pub(super) size: u64,
}

impl Record {
    /// An empty record on the file system of `dir`. To be made before foreign programs run: where no file can be made without a name,
    /// it has one for a moment.
    pub(super) fn new(dir: BorrowedFd<'_>) -> io::Result<Self> {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let unnamed = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let file = match openat(dir, ".", unnamed, mode) {
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT | Errno::EINVAL) => {
                let name = format!(".coracle-kept-{}", std::process::id());
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC;
                let file = openat(dir, name.as_str(), flags, mode)?;
                unlinkat(dir, name.as_str(), UnlinkatFlags::NoRemoveDir)?;
                file
            }
            file => file?,
        };
        Ok(Self { file: File::from(file), end: 0, newest: Newest::default() })
    }

    /// Adds what can be read of a file.
    pub(super) fn add(&mut self, content: &File) -> io::Result<Place> {
        if content.metadata()?.len() >= WORTH_A_BLOCK {
            self.end = self.end.next_multiple_of(BLOCK);
        }
        let at = self.end;
        (&self.file).seek(SeekFrom::Start(at))?;
        let size = io::copy(&mut (&*content), &mut &self.file)?;
        self.end += size;
        Ok(Place { at, size })
    }

    /// Writes a content to a file.
    pub(super) fn write(&self, place: Place, to: &File) -> io::Result<()> {
        (&self.file).seek(SeekFrom::Start(place.at))?;
        let written = io::copy(&mut (&self.file).take(place.size), &mut (&*to))?;
        if written == place.size { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Whether a file has this content.
    pub(super) fn is(&self, place: Place, content: &File) -> io::Result<bool> {
        let (mut own, mut other) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let mut at = 0;
        while at < place.size {
            let length = usize::try_from(place.size - at).unwrap_or(usize::MAX).min(own.len());
            self.file.read_exact_at(&mut own[..length], place.at + at)?;
            match content.read_exact_at(&mut other[..length], at) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                read => read?,
            }
            if own[..length] != other[..length] {
                return Ok(false);
            }
            at += length as u64;
        }
        Ok(content.metadata()?.len() == place.size)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn contents_come_back_and_nothing_has_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = File::open(dir.path()).unwrap();
        let mut record = Record::new(at.as_fd()).unwrap();
        let other = tempfile::tempdir().unwrap();
        let mut places = Vec::new();
        for size in [0, 5, 70_000, 1, 200_000] {
            let content: Vec<u8> = (0..size).map(|byte: usize| (byte % 251) as u8).collect();
            let path = other.path().join(size.to_string());
            std::fs::write(&path, &content).unwrap();
            places.push((record.add(&File::open(&path).unwrap()).unwrap(), path, content));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(nix::sys::stat::fstat(&record.file).unwrap().st_nlink, 0);
        for (place, path, content) in places {
            assert!(record.is(place, &File::open(&path).unwrap()).unwrap());
            let new = path.with_extension("new");
            record.write(place, &File::create(&new).unwrap()).unwrap();
            assert_eq!(std::fs::read(&new).unwrap(), content);
            std::fs::write(&new, [content.as_slice(), b"x"].concat()).unwrap();
            assert!(!record.is(place, &File::open(&new).unwrap()).unwrap(), "longer");
            if let Some(last) = content.len().checked_sub(1) {
                std::fs::write(&new, &content[..last]).unwrap();
                assert!(!record.is(place, &File::open(&new).unwrap()).unwrap(), "shorter");
            }
        }
    }
}
