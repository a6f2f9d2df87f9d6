//! Headers of archive entries, in the choice of formats Go's `archive/tar` makes.

use std::collections::BTreeMap;

const NAME: usize = 100;
const PREFIX: usize = 155;

/// Magic and version of POSIX headers.
pub(super) const USTAR: &[u8; 8] = b"ustar\x0000";
/// Of GNU's.
pub(super) const GNU: &[u8; 8] = b"ustar  \0";

/// What a header says.
pub(super) struct Fields<'a> {
    pub(super) name: &'a [u8],
    pub(super) link: &'a [u8],
    pub(super) kind: u8,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) device: (u64, u64),
}

impl Fields<'_> {
    /// One block, or an extended header before it where ustar has no room.
    pub(super) fn encode(&self) -> Result<Vec<u8>, &'static str> {
        if self.name.contains(&0) || self.link.contains(&0) {
            return Err("its name holds a NUL");
        }
        if !fits(8, self.device.0) || !fits(8, self.device.1) {
            return Err("its device number is too large");
        }
        let mtime = u64::try_from(self.mtime).map_err(|_| "its time is before 1970")?;
        let mut records = BTreeMap::new();
        let mut ustar = true;
        let split = split(self.name);
        if self.name.len() > NAME || !self.name.is_ascii() {
            // Recorded even where the name can be split: if anything else needs the extended header, it holds this too.
            records.insert("path", self.name.to_vec());
            ustar &= split.is_some();
        }
        if self.link.len() > NAME || !self.link.is_ascii() {
            records.insert("linkpath", self.link.to_vec());
            ustar = false;
        }
        for (key, width, value) in [
            ("uid", 8, u64::from(self.uid)),
            ("gid", 8, u64::from(self.gid)),
            ("size", 12, self.size),
            ("mtime", 12, mtime),
        ] {
            if !fits(width, value) {
                records.insert(key, value.to_string().into_bytes());
                ustar = false;
            }
        }
        if ustar {
            let (prefix, name) = split.unwrap_or((b"", self.name));
            let mut block = self.block(name, self.link, mtime);
            put_text(&mut block[345..500], prefix);
            return Ok(seal(block, USTAR).to_vec());
        }
        let mut data = Vec::new();
        for (key, value) in &records {
            data.extend(record(key.as_bytes(), value));
        }
        let mut out = extended(self.name, data.len()).to_vec();
        out.extend(&data);
        out.resize(out.len().next_multiple_of(512), 0);
        out.extend(seal(self.block(&ascii(self.name), &ascii(self.link), mtime), USTAR));
        Ok(out)
    }

    fn block(&self, name: &[u8], link: &[u8], mtime: u64) -> [u8; 512] {
        let mut block = [0; 512];
        put_text(&mut block[0..100], name);
        put_octal(&mut block[100..108], u64::from(self.mode));
        put_octal(&mut block[108..116], u64::from(self.uid));
        put_octal(&mut block[116..124], u64::from(self.gid));
        put_octal(&mut block[124..136], self.size);
        put_octal(&mut block[136..148], mtime);
        block[156] = self.kind;
        put_text(&mut block[157..257], link);
        put_octal(&mut block[329..337], self.device.0);
        put_octal(&mut block[337..345], self.device.1);
        block
    }
}

/// The header of the extended header: a name beside the real one, and nothing else of it.
pub(super) fn extended(name: &[u8], size: usize) -> [u8; 512] {
    let (folder, file) = match name.iter().rposition(|&b| b == b'/') {
        Some(slash) => name.split_at(slash + 1),
        None => (&b""[..], name),
    };
    let mut path = ascii(&clean(folder, file));
    path.truncate(NAME);
    while path.last() == Some(&b'/') {
        path.pop();
    }
    let mut block = [0; 512];
    put_text(&mut block[0..100], &path);
    for field in [100..108, 108..116, 116..124, 136..148] {
        put_octal(&mut block[field], 0);
    }
    put_octal(&mut block[124..136], size as u64);
    block[156] = b'x';
    seal(block, USTAR)
}

/// `folder/PaxHeaders.0/file`, with the repeated slashes and dots of Go's `path.Join` gone.
fn clean(folder: &[u8], file: &[u8]) -> Vec<u8> {
    let absolute = folder.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in folder.split(|&b| b == b'/').chain([&b"PaxHeaders.0"[..], file]) {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => drop(parts.pop()),
            b".." if absolute => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    match (absolute, joined.is_empty()) {
        (true, _) => [b"/", joined.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

/// Where a long name can be cut for ustar's two fields.
pub(super) fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME || !name.is_ascii() {
        return None;
    }
    let mut length = name.len();
    if length > PREFIX + 1 {
        length = PREFIX + 1;
    } else if name.ends_with(b"/") {
        length -= 1;
    }
    let slash = name[..length].iter().rposition(|&b| b == b'/')?;
    let rest = name.len() - slash - 1;
    let fits = slash > 0 && slash <= PREFIX && (1..=NAME).contains(&rest);
    fits.then(|| (&name[..slash], &name[slash + 1..]))
}

/// `LENGTH KEY=VALUE\n`, the length counting itself.
pub(super) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let bare = key.len() + value.len() + 3;
    let mut length = bare + bare.to_string().len();
    if bare + length.to_string().len() != length {
        length = bare + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn fits(width: u32, value: u64) -> bool {
    value < 1 << ((width - 1) * 3)
}

pub(super) fn ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(u8::is_ascii).collect()
}

pub(super) fn put_text(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
    // Cut off at a slash, a file would look like a folder to old readers.
    if text.len() > field.len() && field.last() == Some(&b'/') {
        let end = text[..length - 1].iter().rposition(|&b| b != b'/').map_or(0, |last| last + 1);
        field[end] = 0;
    }
}

/// Octal with leading zeros and a final NUL; what does not fit is written as 0 and said in the extended header.
fn put_octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    let value = if fits(u32::try_from(field.len()).unwrap_or(12), value) { value } else { 0 };
    field[..width].copy_from_slice(format!("{value:0width$o}").as_bytes());
    field[width] = 0;
}

/// Says which form the block has, and sums it up.
pub(super) fn seal(mut block: [u8; 512], form: &[u8; 8]) -> [u8; 512] {
    block[257..265].copy_from_slice(form);
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&b| u64::from(b)).sum();
    put_octal(&mut block[148..155], sum);
    block
}
