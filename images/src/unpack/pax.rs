//! Extended headers of the pax interchange format.

use super::archive::Entry;

/// What an extended header overrides.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, i64)>,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

const BAD: &str = "an extended header breaks the pax format";
const SPARSE: &str = "sparse files are not supported in layers";

impl Pax {
    pub(super) fn parse(bytes: &[u8], attributes: usize) -> Result<Self, &'static str> {
        let mut pax = Self::default();
        let mut weight = 0;
        for record in Records(bytes) {
            let (key, value) = record?;
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                weight += name.len() + value.len();
                if weight > attributes {
                    return Err("the extended attributes of a file are too large");
                }
                pax.attributes.push((name.to_owned(), value.to_owned()));
                continue;
            }
            let known = matches!(key, b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime");
            if key.starts_with(b"GNU.sparse.") {
                return Err(SPARSE);
            }
            if !known || value.is_empty() {
                continue;
            }
            match key {
                b"path" => pax.path = Some(value.to_owned()),
                b"linkpath" => pax.link = Some(value.to_owned()),
                b"size" => pax.size = Some(number(value)?),
                b"uid" => pax.uid = Some(number(value)?),
                b"gid" => pax.gid = Some(number(value)?),
                _ => pax.mtime = Some(time(value)?),
            }
        }
        Ok(pax)
    }

    /// A global header may comment; it may not describe files, which readers of layers understand differently.
    pub(super) fn check_global(bytes: &[u8]) -> Result<(), &'static str> {
        let pax = Self::parse(bytes, 0)?;
        let silent = pax.path.is_none()
            && pax.link.is_none()
            && pax.size.is_none()
            && pax.uid.is_none()
            && pax.gid.is_none();
        if silent { Ok(()) } else { Err("a global extended header describes files") }
    }

    pub(super) fn apply(self, entry: &mut Entry) {
        if let Some(path) = self.path {
            entry.path = path;
        }
        if let Some(link) = self.link {
            entry.link = link;
        }
        entry.uid = self.uid.unwrap_or(entry.uid);
        entry.gid = self.gid.unwrap_or(entry.gid);
        entry.mtime = self.mtime.unwrap_or(entry.mtime);
        entry.attributes = self.attributes;
    }
}

/// `LENGTH KEY=VALUE\n`, the length counting all of it.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        Some(self.record().ok_or_else(|| {
            self.0 = &[];
            BAD
        }))
    }
}

impl<'a> Records<'a> {
    fn record(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let space = self.0.iter().take(20).position(|&b| b == b' ')?;
        let length = usize::try_from(number(&self.0[..space]).ok()?).ok()?;
        let record = self.0.get(space + 1..length)?;
        let (&end, record) = record.split_last()?;
        let equals = record.iter().position(|&b| b == b'=')?;
        if end != b'\n' || equals == 0 {
            return None;
        }
        self.0 = &self.0[length..];
        Some((&record[..equals], &record[equals + 1..]))
    }
}

fn number(text: &[u8]) -> Result<u64, &'static str> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| digits).ok_or(BAD)?;
    text.parse().map_err(|_| BAD)
}

/// Seconds, with an optional fraction; negative means before 1970.
fn time(text: &[u8]) -> Result<(i64, i64), &'static str> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut halves = text.splitn(2, |&b| b == b'.');
    let seconds = i64::try_from(number(halves.next().unwrap_or_default())?).map_err(|_| BAD)?;
    let mut nanos = 0;
    if let Some(fraction) = halves.next() {
        if !fraction.iter().all(u8::is_ascii_digit) {
            return Err(BAD);
        }
        for i in 0..9 {
            nanos = nanos * 10 + fraction.get(i).map_or(0, |b| i64::from(b - b'0'));
        }
    }
    Ok(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let pax = Pax::parse(b"10 path=a\n11 size=12\n12 comment=\n", 0).err();
        assert_eq!(pax, None);
        let pax = Pax::parse(b"10 path=a\n11 size=12\n", 0).unwrap();
        assert_eq!((pax.path, pax.size), (Some(b"a".to_vec()), Some(12)));
        for bad in [
            &b"x"[..],
            b"8 path=a\n",
            b"11 path=a\n",
            b"-1 path=a\n",
            b"99999999999999999999 a=b\n",
            b"6 a=b ",
            b"5 =b\n",
            b"12 size=-12\n",
            b"11 uid=+12\n",
        ] {
            assert!(Pax::parse(bad, 0).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert!(Pax::parse(b"22 GNU.sparse.major=1\n", 0).is_err());
        assert!(Pax::parse(b"23 SCHILY.xattr.user.a=b\n", 2).is_err());
    }

    #[test]
    fn times() {
        assert_eq!(time(b"1.5").unwrap(), (1, 500_000_000));
        assert_eq!(time(b"-1").unwrap(), (-1, 0));
        assert_eq!(time(b"-1.25").unwrap(), (-2, 750_000_000));
        assert!(time(b"1.x").is_err() && time(b"9223372036854775808").is_err() && time(b"").is_err());
    }

    #[test]
    fn global_headers_may_only_comment() {
        assert!(Pax::check_global(b"13 comment=x\n").is_ok());
        assert!(Pax::check_global(b"10 path=a\n").is_err());
    }
}
