//! Entries as Go's `archive/tar` reads them.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use super::PackError;

/// Longest extended header (Go's `maxSpecialFileSize`).
const LONGEST: i64 = 1 << 20;

/// Keyword to value of an extended header.
pub(super) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Seconds since 1970, and nanoseconds after that.
pub(super) type Time = (i64, i64);

/// Forms that an entry may have been written in; none where that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forms {
    pub(super) ustar: bool,
    pub(super) pax: bool,
    pub(super) gnu: bool,
}

impl Forms {
    pub(super) const ALL: Self = Self { ustar: true, pax: true, gnu: true };
    pub(super) const NONE: Self = Self { ustar: false, pax: false, gnu: false };
    pub(super) const PAX: Self = Self { pax: true, ..Self::NONE };
    const POSIX: Self = Self { gnu: false, ..Self::ALL };
    const GNU: Self = Self { gnu: true, ..Self::NONE };

    pub(super) fn and(self, other: Self) -> Self {
        Self { ustar: self.ustar && other.ustar, pax: self.pax && other.pax, gnu: self.gnu && other.gnu }
    }
}

/// What an entry's headers say.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: u8,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: i64,
    pub(super) device: (i64, i64),
    pub(super) atime: Option<Time>,
    pub(super) ctime: Option<Time>,
    pub(super) records: Records,
    pub(super) forms: Forms,
}

impl Header {
    /// Whether nothing follows the header, whatever it says of a size.
    fn is_alone(&self) -> bool {
        matches!(self.kind, b'1'..=b'6')
    }
}

pub(super) struct Source<R> {
    inner: R,
    at: u64,
    /// Data of the current entry, and the padding after it.
    data: u64,
    padding: u64,
}

const BAD: &str = "a header cannot be read";

impl<R: Read> Source<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, at: 0, data: 0, padding: 0 }
    }

    /// The next entry, when the data of the last has been copied.
    pub(super) fn next(&mut self) -> Result<Option<Header>, PackError> {
        let mut forms = Forms::ALL;
        let mut records = Records::new();
        let (mut long_name, mut long_link) = (Vec::new(), Vec::new());
        loop {
            self.skip_padding()?;
            let Some(block) = self.block()? else { return Ok(None) };
            let mut header = parse(&block).ok_or_else(|| self.damaged(BAD))?;
            forms = forms.and(header.forms);
            match header.kind {
                b'x' => {
                    forms = forms.and(Forms::PAX);
                    let text = self.text(header.size)?;
                    records = parse_records(&text).ok_or_else(|| self.damaged(BAD))?;
                }
                b'g' => return Err(self.damaged("a global extended header has no place in a layer")),
                b'L' | b'K' => {
                    forms = forms.and(Forms::GNU);
                    let text = self.text(header.size)?;
                    let name = until_nul(&text).to_owned();
                    *(if header.kind == b'L' { &mut long_name } else { &mut long_link }) = name;
                }
                _ => {
                    merge(&mut header, &records).ok_or_else(|| self.damaged(BAD))?;
                    header.records = records;
                    let long = |long: Vec<u8>, short| if long.is_empty() { short } else { long };
                    header.name = long(long_name, header.name);
                    header.link = long(long_link, header.link);
                    if header.kind == 0 {
                        header.kind = if header.name.ends_with(b"/") { b'5' } else { b'0' };
                    }
                    if is_sparse(&header) {
                        return Err(self.damaged("sparse files are not supported in layers"));
                    }
                    let size = u64::try_from(header.size).map_err(|_| self.damaged(BAD))?;
                    self.expect(if header.is_alone() { 0 } else { size });
                    if forms.ustar && forms.pax {
                        forms = Forms { pax: false, gnu: false, ..forms };
                    }
                    return Ok(Some(Header { forms, ..header }));
                }
            }
        }
    }

    /// Copies the current entry's data; says how much that was.
    pub(super) fn copy_data(&mut self, out: &mut dyn Write) -> Result<u64, PackError> {
        let size = self.data;
        let mut buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX).min(1 << 16)];
        while self.data > 0 {
            let want = usize::try_from(self.data).unwrap_or(usize::MAX).min(buffer.len());
            self.fill(&mut buffer[..want])?;
            out.write_all(&buffer[..want]).map_err(PackError::Write)?;
            self.data -= want as u64;
        }
        Ok(size)
    }

    fn expect(&mut self, data: u64) {
        (self.data, self.padding) = (data, data.next_multiple_of(512) - data);
    }

    fn skip_padding(&mut self) -> Result<(), PackError> {
        let mut rest = [0; 512];
        let padding = usize::try_from(std::mem::take(&mut self.padding)).unwrap_or_default();
        // An archive may end without the padding of its last entry.
        self.read(&mut rest[..padding]).map(drop)
    }

    /// The next header block; none at the end, with or without the blocks of zeros that mark it.
    fn block(&mut self) -> Result<Option<[u8; 512]>, PackError> {
        let mut block = [0; 512];
        for seen in 0..2 {
            match self.read(&mut block)? {
                0 => return Ok(None),
                512 => {}
                _ => return Err(self.damaged("it ends within a header")),
            }
            match (block == [0; 512], seen) {
                (true, 0) => {}
                (true, _) => return Ok(None),
                (false, 0) => return Ok(Some(block)),
                (false, _) => return Err(self.damaged("a header follows its end")),
            }
        }
        Ok(None)
    }

    fn text(&mut self, size: i64) -> Result<Vec<u8>, PackError> {
        let size = usize::try_from(size).ok().filter(|_| size <= LONGEST);
        let mut text = vec![0; size.ok_or_else(|| self.damaged("an extended header is too long"))?];
        self.fill(&mut text)?;
        self.expect(text.len() as u64);
        self.data = 0;
        Ok(text)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), PackError> {
        if self.read(buffer)? == buffer.len() { Ok(()) } else { Err(self.damaged("it ends within a file")) }
    }

    /// Reads until the buffer is full or nothing is left.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, PackError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.inner.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(PackError::Archive {
                        at: self.at,
                        why: "it cannot be read",
                        source: Some(error),
                    });
                }
            }
        }
        self.at += filled as u64;
        Ok(filled)
    }

    fn damaged(&self, why: &'static str) -> PackError {
        PackError::Archive { at: self.at, why, source: None }
    }
}

fn parse(block: &[u8; 512]) -> Option<Header> {
    let sum = octal(&block[148..156])?;
    let byte = |at: usize| if (148..156).contains(&at) { b' ' } else { block[at] };
    let unsigned: i64 = (0..512).map(|at| i64::from(byte(at))).sum();
    let signed: i64 = (0..512).map(|at| i64::from(byte(at).cast_signed())).sum();
    if sum != unsigned && sum != signed {
        return None;
    }
    let number = |range: std::ops::Range<usize>| numeric(&block[range]);
    number(136..148)?;
    let mut header = Header {
        name: until_nul(&block[..100]).to_owned(),
        link: until_nul(&block[157..257]).to_owned(),
        kind: block[156],
        mode: number(100..108)?,
        uid: number(108..116)?,
        gid: number(116..124)?,
        size: number(124..136)?,
        device: (0, 0),
        atime: None,
        ctime: None,
        records: Records::new(),
        forms: Forms::NONE,
    };
    if header.size < 0 && !header.is_alone() {
        return None;
    }
    let prefix = match (&block[257..263], &block[263..265], &block[508..]) {
        (b"ustar\0", _, b"tar\0") => {
            header.device = (number(329..337)?, number(337..345)?);
            until_nul(&block[345..476])
        }
        (b"ustar\0", ..) => {
            header.device = (number(329..337)?, number(337..345)?);
            let ends = [107, 115, 123, 135, 147, 336, 344];
            if block.is_ascii() && ends.iter().all(|end| block[*end] == 0) {
                header.forms = Forms::POSIX;
            }
            until_nul(&block[345..500])
        }
        (b"ustar ", b" \0", _) => {
            header.device = (number(329..337)?, number(337..345)?);
            let time = |at: usize| {
                if block[at] == 0 {
                    Some(None)
                } else {
                    number(at..at + 12).map(|seconds| Some((seconds, 0)))
                }
            };
            match (time(345), time(357)) {
                (Some(atime), Some(ctime)) => {
                    (header.atime, header.ctime, header.forms) = (atime, ctime, Forms::GNU);
                    &[]
                }
                // Written by an old writer, which put the start of the name there.
                _ => Some(until_nul(&block[345..500])).filter(|prefix| prefix.is_ascii()).unwrap_or_default(),
            }
        }
        _ => &[],
    };
    if !prefix.is_empty() {
        header.name = [prefix, b"/", &header.name].concat();
    }
    Some(header)
}

/// Puts what an extended header says in the place of what the header does.
fn merge(header: &mut Header, records: &Records) -> Option<()> {
    for (key, value) in records.iter().filter(|(_, value)| !value.is_empty()) {
        match key.as_slice() {
            b"path" => header.name.clone_from(value),
            b"linkpath" => header.link.clone_from(value),
            b"uid" => header.uid = decimal(value)?,
            b"gid" => header.gid = decimal(value)?,
            b"size" => header.size = decimal(value)?,
            b"mtime" => drop(time(value)?),
            b"atime" => header.atime = Some(time(value)?),
            b"ctime" => header.ctime = Some(time(value)?),
            _ => {}
        }
    }
    Some(())
}

fn is_sparse(header: &Header) -> bool {
    let record = |key: &[u8]| header.records.get(key).map(Vec::as_slice).unwrap_or_default();
    header.kind == b'S'
        || match (record(b"GNU.sparse.major"), record(b"GNU.sparse.minor")) {
            (b"0", b"0" | b"1") | (b"1", b"0") => true,
            (b"", b"") => {
                !record(b"GNU.sparse.map").is_empty()
                    || header.records.contains_key(b"GNU.sparse.offset".as_slice())
            }
            _ => false,
        }
}

/// `LENGTH KEY=VALUE\n`, the length counting all of it; the last of a key counts.
fn parse_records(mut text: &[u8]) -> Option<Records> {
    let mut records = Records::new();
    while !text.is_empty() {
        let space = text.iter().position(|&byte| byte == b' ')?;
        let length = usize::try_from(decimal(&text[..space])?).ok().filter(|length| *length >= 5)?;
        let (&end, record) = text.get(space + 1..length)?.split_last()?;
        let equals = record.iter().position(|&byte| byte == b'=').filter(|at| *at > 0)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let checked = if matches!(key, b"path" | b"linkpath" | b"uname" | b"gname") { value } else { key };
        if end != b'\n' || checked.contains(&0) {
            return None;
        }
        records.insert(key.to_owned(), value.to_owned());
        text = &text[length..];
    }
    Some(records)
}

/// Seconds, with an optional fraction; negative means before 1970.
fn time(text: &[u8]) -> Option<Time> {
    let (seconds, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &[][..]),
    };
    let seconds_read = decimal(seconds)?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| fraction.get(at).map_or(0, |digit| i64::from(digit - b'0'));
    let nanos = (0..9).fold(0, |nanos, at| nanos * 10 + digit(at));
    Some(if seconds.starts_with(b"-") && nanos > 0 {
        (seconds_read.checked_sub(1)?, 1_000_000_000 - nanos)
    } else {
        (seconds_read, nanos)
    })
}

fn decimal(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Octal digits, or a big-endian two's complement that the highest bit marks.
fn numeric(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 == 0 {
        return octal(field);
    }
    let start = i128::from(i8::from_be_bytes([first << 1]) >> 1);
    let value =
        rest.iter().try_fold(start, |value, &byte| Some(value.checked_mul(256)? | i128::from(byte)))?;
    i64::try_from(value).ok()
}

fn octal(field: &[u8]) -> Option<i64> {
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let end = field.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    let digits = until_nul(&field[start..end]);
    if start == end {
        return Some(0);
    }
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u64::from_str_radix(digits, 8).ok().map(u64::cast_signed)
}
