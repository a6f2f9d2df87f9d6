//! Headers in the form that Go's `archive/tar` gives to an entry that it has read.

use super::super::header::{GNU, USTAR, ascii, extended, put_text, record, seal, split};
use super::source::{Forms, Header, Records, Time};

/// Records that repeat what headers say (Go's `basicKeys`).
const BASIC: [&[u8]; 10] =
    [b"path", b"linkpath", b"size", b"uid", b"gid", b"uname", b"gname", b"mtime", b"atime", b"ctime"];

/// One block, with those of an extended header or of long names before it, where they are needed.
pub(super) fn encode(header: &Header, mtime: i64) -> Result<Vec<u8>, &'static str> {
    if matches!(header.kind, b'0' | b'3' | b'4' | b'6') && header.name.ends_with(b"/") {
        return Err("a file's name ends in a slash");
    }
    let (forms, records) = choose(header, mtime);
    let octal: fn(&mut [u8], i64) = put_octal;
    if forms.ustar {
        let (prefix, name) = split(&header.name).unwrap_or((b"", &header.name));
        let mut block = block(header, (name, &header.link), mtime, octal);
        put_text(&mut block[345..500], prefix);
        return Ok(seal(block, USTAR).to_vec());
    }
    let mut out = Vec::new();
    if forms.pax {
        let data: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        if !data.is_empty() {
            put_file(&mut out, extended(&header.name, data.len()), &data);
        }
        let block = block(header, (&ascii(&header.name), &ascii(&header.link)), mtime, octal);
        out.extend(seal(block, USTAR));
        return Ok(out);
    }
    if !forms.gnu {
        return Err("no form of archive can hold what its headers say");
    }
    for (kind, name) in [(b'L', &header.name), (b'K', &header.link)] {
        if name.len() > 100 {
            put_file(&mut out, long(kind, name.len() + 1), &[name, &b"\0"[..]].concat());
        }
    }
    let mut block = block(header, (&header.name, &header.link), mtime, put_numeric);
    for (time, field) in [(header.atime, 345..357), (header.ctime, 357..369)] {
        if let Some((seconds, _)) = time {
            put_numeric(&mut block[field], seconds);
        }
    }
    out.extend(seal(block, GNU));
    Ok(out)
}

/// The forms that can hold all of it, of those that it was read in; and what an extended header has to say.
fn choose(header: &Header, mtime: i64) -> (Forms, Records) {
    let mut forms = Forms::ALL;
    let mut records = Records::new();
    let mut prefers_pax = false;
    let is_given = |key: &[u8], value: &[u8]| header.records.get(key).is_some_and(|given| given == value);
    for (key, value) in [
        (&b"path"[..], &header.name),
        (b"linkpath", &header.link),
        (b"uname", &Vec::new()),
        (b"gname", &Vec::new()),
    ] {
        let fits = value.len() <= 100 && is_ascii(value);
        forms.ustar &= fits || key == b"path" && split(value).is_some();
        if !fits || is_given(key, value) {
            records.insert(key.to_owned(), value.clone());
        }
    }
    let Header { mode, uid, gid, size, device: (major, minor), .. } = *header;
    for (key, width, value) in [
        (None, 8, mode),
        (Some(&b"uid"[..]), 8, uid),
        (Some(b"gid"), 8, gid),
        (Some(b"size"), 12, size),
        (None, 8, major),
        (None, 8, minor),
    ] {
        forms.gnu &= fits_numeric(width, value);
        let fits = fits_octal(width, value);
        forms.ustar &= fits;
        forms.pax &= fits || key.is_some();
        let text = value.to_string().into_bytes();
        if let Some(key) = key.filter(|key| !fits || is_given(key, &text)) {
            records.insert(key.to_owned(), text);
        }
    }
    // Where the form is not known, only the time of change counts.
    let others =
        (header.forms != Forms::NONE).then_some([(&b"atime"[..], header.atime), (b"ctime", header.ctime)]);
    for (key, time) in others.into_iter().flatten().chain([(&b"mtime"[..], Some((mtime, 0)))]) {
        let Some(time) = time else { continue };
        let fits = key == b"mtime" && fits_octal(12, time.0);
        forms.ustar &= fits;
        prefers_pax |= !fits;
        let text = decimal(time);
        if !fits || is_given(key, &text) {
            records.insert(key.to_owned(), text);
        }
    }
    if !header.records.is_empty() {
        forms = forms.and(Forms::PAX);
        let own = header
            .records
            .iter()
            .filter(|(key, _)| !BASIC.contains(&key.as_slice()) && !key.starts_with(b"GNU.sparse."));
        records.extend(own.map(|(key, value)| (key.clone(), value.clone())));
    }
    if header.forms != Forms::NONE {
        let wanted = header.forms;
        forms = forms.and(Forms { ustar: wanted.ustar || wanted.pax && !prefers_pax, ..wanted });
    }
    (forms, records)
}

fn block(header: &Header, (name, link): (&[u8], &[u8]), mtime: i64, put: fn(&mut [u8], i64)) -> [u8; 512] {
    let mut block = [0; 512];
    put_text(&mut block[0..100], name);
    put(&mut block[100..108], header.mode);
    put(&mut block[108..116], header.uid);
    put(&mut block[116..124], header.gid);
    put(&mut block[124..136], header.size);
    put(&mut block[136..148], mtime);
    block[156] = header.kind;
    put_text(&mut block[157..257], link);
    put(&mut block[329..337], header.device.0);
    put(&mut block[337..345], header.device.1);
    block
}

/// The header of a long name.
fn long(kind: u8, size: usize) -> [u8; 512] {
    let mut block = [0; 512];
    put_text(&mut block[0..100], b"././@LongLink");
    for field in [100..108, 108..116, 116..124, 136..148] {
        put_octal(&mut block[field], 0);
    }
    put_octal(&mut block[124..136], i64::try_from(size).unwrap_or_default());
    block[156] = kind;
    seal(block, GNU)
}

fn put_file(out: &mut Vec<u8>, header: [u8; 512], data: &[u8]) {
    out.extend(header);
    out.extend(data);
    out.resize(out.len().next_multiple_of(512), 0);
}

fn is_ascii(text: &[u8]) -> bool {
    text.is_ascii() && !text.contains(&0)
}

fn fits_octal(width: u32, value: i64) -> bool {
    (0..1 << ((width - 1) * 3)).contains(&value)
}

fn fits_numeric(width: u32, value: i64) -> bool {
    width >= 9 || (-(1_i64 << ((width - 1) * 8))..1 << ((width - 1) * 8)).contains(&value)
}

/// Octal with leading zeros and a final NUL; 0 where it does not fit.
fn put_octal(field: &mut [u8], value: i64) {
    let width = field.len() - 1;
    let value = if fits_octal(width_of(field), value) { value } else { 0 };
    field[..width].copy_from_slice(format!("{value:0width$o}").as_bytes());
    field[width] = 0;
}

/// Octal, or where that does not fit a big-endian two's complement that the highest bit marks.
fn put_numeric(field: &mut [u8], value: i64) {
    if fits_octal(width_of(field), value) {
        return put_octal(field, value);
    }
    let bytes = i128::from(value).to_be_bytes();
    let start = bytes.len() - field.len();
    field.copy_from_slice(&bytes[start..]);
    field[0] |= 0x80;
}

fn width_of(field: &[u8]) -> u32 {
    u32::try_from(field.len()).unwrap_or(12)
}

/// Seconds with as many digits of a fraction as it takes.
fn decimal((seconds, nanos): Time) -> Vec<u8> {
    if nanos == 0 {
        return seconds.to_string().into_bytes();
    }
    let (sign, seconds, nanos) =
        if seconds < 0 { ("-", -(seconds + 1), 1_000_000_000 - nanos) } else { ("", seconds, nanos) };
    format!("{sign}{seconds}.{nanos:09}").trim_end_matches('0').as_bytes().to_vec()
}
