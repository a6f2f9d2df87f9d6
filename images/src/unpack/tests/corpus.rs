//! Names that people and file systems take for one another, and archives that ask for too much.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::*;

impl Tar {
    /// A file with any bytes as its name, which must be short.
    fn named(mut self, name: &[u8], data: &[u8]) -> Self {
        self.0.extend(header(b'0', name, b"", 0o644, data.len() as u64));
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
}

#[test]
fn t17_twins_stay_two() {
    // By case, and by the two ways to write an accent in Unicode.
    for (one, other) in [("readme", "README"), ("caf\u{e9}", "cafe\u{301}")] {
        let ground = Ground::new();
        ground.unpack(Tar::default().file(one, "1").file(other, "2")).unwrap();
        let read = |name: &str| fs::read_to_string(ground.root().join(name)).unwrap();
        assert_eq!((read(one), read(other)), ("1".to_owned(), "2".to_owned()));
    }
}

#[test]
fn t18_names_are_kept_byte_for_byte_and_shown_harmlessly() {
    let names: [&[u8]; 5] =
        [b"not utf-8 \xff\xfe", b"two\nlines", b"\x1b[2Jclear", "\u{202e}txt.exe".as_bytes(), b"\x7f\x9b31m"];
    let ground = Ground::new();
    let tar = names.iter().fold(Tar::default(), |tar, name| tar.named(name, b"x"));
    ground.unpack(tar).unwrap();
    for name in names {
        assert_eq!(fs::read(ground.root().join(OsStr::from_bytes(name))).unwrap(), b"x");
        let shown = shown(name);
        let harmful = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!shown.contains(harmful), "{shown:?}");
        // As part of an error, which is where names of an archive reach a terminal.
        let refused = [name, b"/"].concat();
        let error = Ground::new().unpack(Tar::default().named(&refused, b"x")).unwrap_err();
        assert!(error.to_string().contains(&shown) && !error.to_string().contains(harmful), "{error:?}");
    }
    assert_eq!(shown(b"two\nlines\x1b"), "two\\u{a}lines\\u{1b}");
    assert!(shown(&[b'n'; 5000]).len() < 400);
}

#[test]
fn t26_many_entries_links_and_attributes() {
    let ground = Ground::new();
    let files = (0..1001).fold(Tar::default(), |tar, number| tar.file(&number.to_string(), ""));
    let limits = Limits { entries: 1000, ..Limits::default() };
    let error = ground.unpack_bytes(&files.0, &limits).unwrap_err();
    assert!(matches!(error, UnpackError::Limit { what: "entries", limit: 1000 }), "{error}");

    // A file system has its own limit (ext4: 65,000), and reaching it is an error like any other.
    let ground = Ground::new();
    let links =
        (0..66_000).fold(Tar::default().file("f", ""), |tar, number| tar.link(&number.to_string(), "f"));
    match ground.unpack(links) {
        Ok(unpacked) => assert_eq!(unpacked.entries, 66_001),
        Err(UnpackError::Make { source, .. }) => assert_eq!(source.raw_os_error(), Some(nix::libc::EMLINK)),
        Err(error) => panic!("{error}"),
    }

    let records: String = (100..10_000).map(|n| format!("30 SCHILY.xattr.user.{n:04}=xxx\n")).collect();
    let ground = Ground::new();
    let error =
        ground.unpack(Tar::default().raw(b'x', "p", "", 0, records.as_bytes()).file("a", "")).unwrap_err();
    assert!(error.to_string().contains("attributes of a file are too large"), "{error}");
}

#[test]
fn t25_a_small_layer_may_not_become_a_large_one() {
    let limits = Limits { bytes: 1 << 40, ratio: 10, free: 1000, ..Limits::default() };
    let bytes = |compressed| limits.for_compressed(compressed).bytes;
    assert_eq!((bytes(0), bytes(100), bytes(101)), (1000, 1000, 1010));
    assert_eq!(bytes(u64::MAX), 1 << 40);
    // What follows the end of an archive counts as well: it is read for the digest.
    let trailing = [Tar::default().file("a", "x").0, vec![0; 20_000]].concat();
    let error = Ground::new().unpack_bytes(&trailing, &limits.for_compressed(1500)).unwrap_err();
    assert!(matches!(error, UnpackError::Limit { what: "bytes", limit: 15_000 }), "{error}");
    Ground::new().unpack_bytes(&trailing, &limits.for_compressed(2200)).unwrap();
}
