//! The archive as a sequence of entries, read strictly: what two readers could understand differently is refused.
//!
//! Where formats leave room, this follows Go's `archive/tar`, by which nearly all layers are written and read.

use std::fs::File;
use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::pax::Pax;
use super::{Components, Limits, UnpackError, shown};

const BLOCK: usize = 512;

/// One member of the archive; its data, if any, is read by [`Archive::copy_data`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) mode: u32,
    pub(super) mtime: (i64, i64),
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry makes; for a device, major and minor number in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Link,
    Symlink,
    Folder,
    Fifo,
    Device(u64),
}

pub(super) struct Archive<'a, R> {
    source: R,
    limits: &'a Limits,
    at: u64,
    entries: u64,
    /// Data of the current entry, and the padding after it.
    data: u64,
    padding: u64,
    buffer: Vec<u8>,
}

/// Headers that describe the next entry.
#[derive(Default)]
struct Pending {
    pax: Option<Pax>,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<'a, R: Read> Archive<'a, R> {
    pub(super) fn new(source: R, limits: &'a Limits) -> Self {
        Self { source, limits, at: 0, entries: 0, data: 0, padding: 0, buffer: vec![0; 1 << 17] }
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    pub(super) fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut pending = Pending::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                if pending.pax.is_some() || pending.long_path.is_some() || pending.long_link.is_some() {
                    return Err(self.damaged("it ends after an extended header"));
                }
                return Ok(None);
            };
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(UnpackError::Limit { what: "entries", limit: self.limits.entries });
            }
            let size = number(&header.as_old().size).map_err(|what| self.damaged(what))?;
            match header.entry_type() {
                EntryType::XHeader if pending.pax.is_none() => {
                    let text = self.text(size)?;
                    let pax = Pax::parse(&text, self.limits.attributes);
                    pending.pax = Some(pax.map_err(|what| self.damaged(what))?);
                }
                EntryType::XGlobalHeader => {
                    let text = self.text(size)?;
                    Pax::check_global(&text).map_err(|what| self.damaged(what))?;
                }
                EntryType::GNULongName if pending.long_path.is_none() => {
                    pending.long_path = Some(self.long_name(size)?);
                }
                EntryType::GNULongLink if pending.long_link.is_none() => {
                    pending.long_link = Some(self.long_name(size)?);
                }
                EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink => {
                    return Err(self.damaged("an entry has two extended headers of a kind"));
                }
                _ => return self.entry(&header, size, pending).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, size: u64, pending: Pending) -> Result<Entry, UnpackError> {
        let old = header.as_old();
        let parsed = |field: &[u8]| number(field);
        let (uid, gid) = (parsed(&old.uid), parsed(&old.gid));
        let mode = parsed(&old.mode).map_err(|what| self.damaged(what))?;
        // Of the two, Go believes the older one and others the newer one.
        let pax_names = pending.pax.as_ref().map(|pax| (pax.path.as_ref(), pax.link.as_ref()));
        let (pax_path, pax_link) = pax_names.unwrap_or_default();
        let two = |long: &Option<Vec<u8>>, pax: Option<&Vec<u8>>| {
            long.is_some() && pax.is_some() && long.as_ref() != pax
        };
        if two(&pending.long_path, pax_path) || two(&pending.long_link, pax_link) {
            return Err(self.damaged("an entry has two names"));
        }
        let mut entry = Entry {
            path: pending.long_path.unwrap_or_else(|| path(header)),
            link: pending.long_link.unwrap_or_else(|| until_nul(&old.linkname).to_owned()),
            kind: Kind::File,
            uid: uid.map_err(|what| self.damaged(what))?,
            gid: gid.map_err(|what| self.damaged(what))?,
            mode: u32::try_from(mode & 0o7777).unwrap_or_default(),
            mtime: (signed(&old.mtime).map_err(|what| self.damaged(what))?, 0),
            attributes: Vec::new(),
        };
        let mut size = size;
        if let Some(pax) = pending.pax {
            if let Some(real) = pax.size {
                if size != 0 && size != real {
                    return Err(self.damaged("a file has two sizes"));
                }
                size = real;
            }
            pax.apply(&mut entry);
        }
        entry.kind = self.kind(header, &entry)?;
        // By the kind in the header: an old folder has a file's data, if any, and Go skips it.
        if matches!(header.entry_type(), EntryType::Regular | EntryType::Continuous) {
            self.data = size;
            self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
            if size > self.limits.bytes {
                return Err(UnpackError::Limit { what: "bytes", limit: self.limits.bytes });
            }
        }
        Ok(entry)
    }

    fn kind(&self, header: &Header, entry: &Entry) -> Result<Kind, UnpackError> {
        let refused = |why| UnpackError::Refused { path: shown(&entry.path), why };
        Ok(match header.entry_type() {
            // Before ustar, a folder was a file whose name ends in a slash.
            EntryType::Regular if header.as_old().linkflag == [0] && entry.path.ends_with(b"/") => {
                Kind::Folder
            }
            EntryType::Regular | EntryType::Continuous if entry.path.ends_with(b"/") => {
                return Err(refused("a file's name ends in a slash"));
            }
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Link => Kind::Link,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Directory => Kind::Folder,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char | EntryType::Block => {
                // At the same place in POSIX and GNU headers; older ones have zeros there.
                let bytes = header.as_bytes();
                let (Ok(major), Ok(minor)) = (number(&bytes[329..337]), number(&bytes[337..345])) else {
                    return Err(refused("its device number cannot be read"));
                };
                Kind::Device(major << 32 | minor)
            }
            EntryType::GNUSparse => return Err(refused("sparse files are not supported in layers")),
            _ => return Err(refused("this kind of entry is unknown")),
        })
    }

    /// Copies the current entry's data.
    pub(super) fn copy_data(&mut self, file: &mut File, path: &Components) -> Result<(), UnpackError> {
        while self.data > 0 {
            let want = usize::try_from(self.data).unwrap_or(usize::MAX).min(self.buffer.len());
            let read = self.source.read(&mut self.buffer[..want]).map_err(UnpackError::Read)?;
            if read == 0 {
                return Err(self.damaged("it ends within a file"));
            }
            file.write_all(&self.buffer[..read]).map_err(|source| UnpackError::Make {
                act: "write",
                path: shown(&path.join(&b'/')),
                source,
            })?;
            self.data -= read as u64;
            self.advance(read as u64)?;
        }
        Ok(())
    }

    /// Reads what follows the archive: it counts for the digest.
    pub(super) fn drain(&mut self) -> Result<u64, UnpackError> {
        loop {
            match self.source.read(&mut self.buffer) {
                Ok(0) => return Ok(self.at),
                Ok(read) => self.advance(read as u64)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(UnpackError::Read(error)),
            }
        }
    }

    fn skip(&mut self) -> Result<(), UnpackError> {
        let mut left = self.data + self.padding;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let read = self.source.read(&mut self.buffer[..want]).map_err(UnpackError::Read)?;
            if read == 0 {
                return Err(self.damaged("it ends within a file"));
            }
            left -= read as u64;
            self.advance(read as u64)?;
        }
        (self.data, self.padding) = (0, 0);
        Ok(())
    }

    /// The next header; none at the end, with or without the block of zeros that marks it.
    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(self.damaged("it ends within a header")),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(UnpackError::Read(error)),
            }
        }
        if block.iter().all(|&b| b == 0) {
            self.advance(BLOCK as u64)?;
            return Ok(None);
        }
        let field = 148..156;
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(i, &b)| u64::from(if field.contains(&i) { b' ' } else { b }))
            .sum();
        if number(&block[field]) != Ok(sum) {
            return Err(self.damaged("a header's checksum is wrong"));
        }
        self.advance(BLOCK as u64)?;
        Ok(Some(header))
    }

    fn text(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        if size > self.limits.extended_header {
            let limit = self.limits.extended_header;
            return Err(UnpackError::Limit { what: "bytes in an extended header", limit });
        }
        let mut text = Vec::new();
        self.source.by_ref().take(size).read_to_end(&mut text).map_err(UnpackError::Read)?;
        if text.len() as u64 != size {
            return Err(self.damaged("it ends within an extended header"));
        }
        self.advance(size)?;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        Ok(text)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        let text = self.text(size)?;
        let name = until_nul(&text);
        if text[name.len()..].iter().any(|&b| b != 0) {
            return Err(self.damaged("a long name holds a NUL"));
        }
        Ok(name.to_owned())
    }

    fn advance(&mut self, read: u64) -> Result<(), UnpackError> {
        self.at += read;
        if self.at > self.limits.bytes {
            return Err(UnpackError::Limit { what: "bytes", limit: self.limits.bytes });
        }
        Ok(())
    }

    fn damaged(&self, what: &'static str) -> UnpackError {
        UnpackError::Damaged { at: self.at, what }
    }
}

/// The name in the header; only POSIX's own ustar has a prefix.
fn path(header: &Header) -> Vec<u8> {
    let name = until_nul(&header.as_old().name);
    match header.as_ustar().map(|ustar| until_nul(&ustar.prefix)) {
        Some(prefix) if !prefix.is_empty() => [prefix, b"/", name].concat(),
        _ => name.to_owned(),
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or_default()
}

/// A field that cannot be negative.
fn number(field: &[u8]) -> Result<u64, &'static str> {
    let bad = "a header's number is out of range";
    signed(field).and_then(|n| u64::try_from(n).map_err(|_| bad))
}

/// Octal digits, or GNU's big-endian two's complement marked by the highest bit.
fn signed(field: &[u8]) -> Result<i64, &'static str> {
    let bad = "a header's number cannot be read";
    let (&first, rest) = field.split_first().ok_or(bad)?;
    if first & 0x80 != 0 {
        let mut value = i128::from(i8::from_be_bytes([first << 1]) >> 1);
        for &byte in rest {
            value = value.checked_mul(256).ok_or(bad)? | i128::from(byte);
        }
        return i64::try_from(value).map_err(|_| bad);
    }
    let blank = |b: &u8| matches!(b, b' ' | 0);
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let digits: &[u8] = field[start..].split(blank).next().unwrap_or_default();
    if field[start + digits.len()..].iter().any(|b| !blank(b)) {
        return Err(bad);
    }
    digits.iter().try_fold(0i64, |value, &b| match b {
        b'0'..=b'7' => value.checked_mul(8).map(|v| v + i64::from(b - b'0')).ok_or(bad),
        _ => Err(bad),
    })
}
