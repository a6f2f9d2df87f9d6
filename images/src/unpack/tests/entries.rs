//! What entries are: T28, T29, T32, T33.

use super::*;

#[test]
fn t28_kinds() {
    let mut corpus = Corpus::default();
    corpus.case("FIFO", |t, _| t.raw(b'6', "p", "", 0o644, b""), "p p");
    corpus.case("contiguous", |t, _| t.raw(b'7', "c", "", 0o644, b"x"), "f c");
    // Devices, whatever kind of header tells their numbers.
    for magic in [b"ustar\x0000", b"ustar  \0"] {
        corpus.case("/dev/null", |t, _| t.device(b'3', "null", magic, 1, 3), "");
        corpus.case("/dev/sda", |t, _| t.device(b'4', "sda", magic, 8, 0), "");
    }
    let garbage = |t: Tar, _: &str| t.device(b'3', "d", b"ustar\x0000", 1, 3).field(329, b"garbage\0");
    corpus.case(
        "no numbers",
        garbage,
        "! the archive's entry `d` is refused: its device number cannot be read",
    );
    // A device takes the place of what was there, by being nothing.
    corpus.case("over a file", |t, _| t.file("d", "x").device(b'3', "d", b"ustar\x0000", 1, 3), "");
    for kind in [b'Z', b'A', b'D', b'M', b'N', b'V', b'X', b'8', 0xff] {
        corpus.case(
            "unknown",
            |t, _| t.raw(kind, "a", "", 0o644, b""),
            "! the archive's entry `a` is refused: this kind of entry is unknown",
        );
    }
    let ground = Ground::new();
    let unpacked = ground.unpack(Tar::default().device(b'3', "dev/null", b"ustar\x0000", 1, 3)).unwrap();
    assert_eq!(unpacked.devices, ["dev/null"]);
}

#[test]
fn t29_modes() {
    let ground = Ground::new();
    let tar = Tar::default()
        .raw(b'0', "all", "", 0o7777, b"x")
        .raw(b'0', "more", "", 0o100_644, b"x")
        .raw(b'6', "fifo", "", 0o620, b"")
        .folder("closed", 0o000)
        .file("closed/in", "x")
        .folder("group", 0o2775)
        .folder("group/below", 0o755)
        .file("implied/in", "x")
        .folder("sticky", 0o3777);
    ground.unpack(tar).unwrap();
    let mode = |name: &str| fs::symlink_metadata(ground.root().join(name)).unwrap().mode() & 0o7777;
    // A folder below one with set-group-id does not inherit the bit: the archive says what each is.
    for (name, expected) in [
        ("all", 0o7777),
        ("more", 0o644),
        ("fifo", 0o620),
        ("closed", 0),
        ("group", 0o2775),
        ("group/below", 0o755),
        ("implied", 0o755),
        ("sticky", 0o3777),
    ] {
        assert_eq!(mode(name), expected, "{name}");
    }
    fs::set_permissions(ground.root().join("closed"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .unwrap();
    assert_eq!(mode("closed/in"), 0o644);
    // The root is an entry like any other.
    let ground = Ground::new();
    ground.unpack(Tar::default().folder("./", 0o1750)).unwrap();
    assert_eq!(fs::metadata(ground.root()).unwrap().mode() & 0o7777, 0o1750);
}

#[test]
fn t32_times() {
    let time = |tar: Tar, name: &str| {
        let ground = Ground::new();
        ground.unpack(tar).unwrap();
        let found = fs::symlink_metadata(ground.root().join(name)).unwrap();
        (found.mtime(), found.mtime_nsec())
    };
    let tar = Tar::default;
    assert_eq!(time(tar().file("a", ""), "a"), (1_000_000_000, 0));
    assert_eq!(
        time(tar().folder("a", 0o755).file("a/b", ""), "a"),
        (1_000_000_000, 0),
        "filling a folder changes its time"
    );
    assert_eq!(time(tar().symlink("a", "b"), "a"), (1_000_000_000, 0));
    assert_eq!(time(tar().file("i/b", ""), "i"), (0, 0), "a folder that no entry describes");
    assert_eq!(time(tar().pax("mtime", "-1").file("a", ""), "a"), (-1, 0));
    assert_eq!(time(tar().pax("mtime", "-1.25").file("a", ""), "a"), (-2, 750_000_000));
    assert_eq!(time(tar().pax("mtime", "1.123456789999").file("a", ""), "a"), (1, 123_456_789));
    assert_eq!(time(tar().raw(b'0', "a", "", 0o644, b"").field(136, &[0xff; 12]), "a"), (-1, 0));
    // What no file system can hold, it clamps; what no clock can hold is damage.
    time(tar().raw(b'0', "a", "", 0o644, b"").field(136, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"), "a");
    let mut corpus = Corpus::default();
    for bad in ["9223372036854775808", "1.x", ".5", "--1", "1e9"] {
        corpus.case(
            bad,
            |t, _| t.pax("mtime", bad).file("a", ""),
            &format!(
                "! the archive is damaged at byte {}: an extended header breaks the pax format",
                512 + record("mtime", bad.as_bytes()).len()
            ),
        );
    }
    corpus.case(
        "2^63",
        |t, _| t.raw(b'0', "a", "", 0o644, b"").field(136, b"\x80\0\0\0\x80\0\0\0\0\0\0\0"),
        "! the archive is damaged at byte 512: a header's number cannot be read",
    );
}

#[test]
fn t33_targets_of_symbolic_links() {
    let mut corpus = Corpus::default();
    let refused = "! the archive's entry `a` is refused: a symbolic link's target has 1 to 4095 bytes";
    corpus.case("empty", |t, _| t.symlink("a", ""), refused);
    corpus.case("4095 bytes", |t, _| t.pax("linkpath", "t".repeat(4095)).symlink("a", "x"), "l a");
    corpus.case("4096 bytes", |t, _| t.pax("linkpath", "t".repeat(4096)).symlink("a", "x"), refused);
    corpus.case("NUL", |t, _| t.pax("linkpath", "a\0b").symlink("a", "x"), refused);
    for target in ["/etc/shadow", "../../..", "/proc/1/root", "loop", "\u{1b}[2J"] {
        let ground = Ground::new();
        ground.unpack(Tar::default().symlink("loop", target)).unwrap();
        assert_eq!(fs::read_link(ground.root().join("loop")).unwrap(), Path::new(target));
    }
}
