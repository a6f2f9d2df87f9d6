//! Archives written again, against what the reference lifecycle makes of the same: `data/again.json` holds archives that GNU tar and
//! Python wrote in every form, some of them damaged, each with the digest of what the reference wrote, or why it did not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::error::Error as _;
use std::io::Write as _;

use base64::Engine as _;
use coracle_images::Digest;
use coracle_images::pack::{EPOCH, pack_again};
use flate2::write::GzEncoder;
use serde_json::Value;

fn again(archive: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    match pack_again(archive, EPOCH, &mut out) {
        Ok(()) => Ok(out),
        Err(error) => Err([error.to_string()]
            .into_iter()
            .chain(error.source().map(ToString::to_string))
            .collect::<Vec<_>>()
            .join(": ")),
    }
}

#[test]
fn archives_are_written_again_as_the_reference_does() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("data/again.json")).unwrap();
    let mut wrong = Vec::new();
    for case in &cases {
        let archive = base64::engine::general_purpose::STANDARD.decode(case["archive"].as_str().unwrap());
        let result = again(&archive.unwrap()).map(|out| Digest::of(&out).to_string());
        match (&result, case["digest"].as_str()) {
            (Ok(found), Some(digest)) if found == digest => {}
            (Err(_), None) => {}
            (result, _) => wrong.push(format!("{}: {result:?}, not {}", case["name"], case)),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() > 90);
}

/// An archive of one entry, whose header is changed before it is summed up.
fn archive(kind: u8, size: u64, change: impl Fn(&mut [u8; 512])) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path("name").unwrap();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(1);
    change(header.as_mut_bytes());
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn what_cannot_be_written_again_is_told_with_its_place() {
    let whole = |kind, size| [archive(kind, size, |_| ()), vec![0; 1536]].concat();
    let record = |text: &[u8]| {
        let mut record = archive(b'x', text.len() as u64, |_| ());
        record.extend(text);
        record.resize(1024, 0);
        [record, whole(b'0', 5)].concat()
    };
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&whole(b'0', 5)).unwrap();
    let gzip = gzip.finish().unwrap();
    for (archive, told) in [
        (vec![1; 512], "at byte 512: a header cannot be read"),
        (vec![0; 100], "at byte 100: it ends within a header"),
        ([vec![0; 512], whole(b'0', 5)].concat(), "at byte 1024: a header follows its end"),
        (archive(b'0', 5, |_| ()), "at byte 512: it ends within a file"),
        (whole(b'g', 5), "at byte 512: a global extended header has no place in a layer"),
        (whole(b'S', 5), "at byte 512: sparse files are not supported in layers"),
        (
            record(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"),
            "sparse files are not supported in layers",
        ),
        (record(b"24 GNU.sparse.offset=12\n"), "sparse files are not supported in layers"),
        (whole(b'L', 2 << 20), "at byte 512: an extended header is too long"),
        (record(b"7 a=b c\n"), "at byte 520: a header cannot be read"),
        (
            archive(b'0', 0, |header| header[4] = b'/'),
            "`name/` cannot be part of a layer: a file's name ends in a slash",
        ),
        (
            archive(b'5', 0, |header| {
                header[..4].fill(0);
                header[345..465].fill(b'c');
            }),
            "no form of archive can hold what its headers say",
        ),
        (gzip[..gzip.len() - 20].to_vec(), "it cannot be read: "),
    ] {
        let said = again(&archive).unwrap_err();
        assert!(said.contains(told), "{told}: {said}");
    }
    assert_eq!(again(&gzip).unwrap().len(), 2048);
    assert_eq!(again(&[]).unwrap(), [0; 1024]);
}
