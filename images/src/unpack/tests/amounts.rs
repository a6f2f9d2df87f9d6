//! Archives that ask for too much: T25, T26.

use super::*;

#[test]
fn t26_many_entries_links_and_attributes() {
    let ground = Ground::new();
    let files = (0..1001).fold(Tar::default(), |tar, number| tar.file(&number.to_string(), ""));
    let limits = Limits { entries: 1000, ..Limits::default() };
    let error = ground.unpack_bytes(&files.0, &limits).unwrap_err();
    assert_eq!(error.to_string(), "the archive exceeds the limit of 1000 entries");

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
    assert_eq!(
        error.to_string(),
        "the archive is damaged at byte 297512: the extended attributes of a file are too large"
    );
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
    assert_eq!(error.to_string(), "the archive exceeds the limit of 15000 bytes");
    Ground::new().unpack_bytes(&trailing, &limits.for_compressed(2200)).unwrap();
}
