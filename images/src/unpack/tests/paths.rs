//! Where entries are: T01 to T19.

use std::ffi::OsStr;

use super::*;

const OUT: &str = "it may lead out of the layer";

#[test]
fn t01_to_t05_paths() {
    let mut corpus = Corpus::default();
    corpus.case("T01", |t, _| t.file("../x", "x"), &format!("! the archive holds the path `../x`: {OUT}"));
    corpus.case("T02", |t, _| t.file("/abs", "x"), "f abs");
    corpus.case(
        "T03",
        |t, _| t.file("a/../../x", "x"),
        &format!("! the archive holds the path `a/../../x`: {OUT}"),
    );
    corpus.case(
        "T03 inside",
        |t, _| t.file("a/../x", "x"),
        &format!("! the archive holds the path `a/../x`: {OUT}"),
    );
    let root = "! the archive's entry `.` is refused: the root of a layer is a folder";
    corpus.case("T04 link", |t, c| t.symlink(".", c), root);
    corpus.case("T04 hard link", |t, _| t.file("f", "x").link(".", "f"), root);
    corpus.case("T04 file", |t, _| t.file(".", "x"), root);
    corpus.case("T04 FIFO", |t, _| t.raw(b'6', ".", "", 0o644, b""), root);
    corpus.case("T04 device", |t, _| t.device(b'3', ".", b"ustar\x0000", 1, 3), root);
    let slash = "! the archive's entry `./` is refused: a file's name ends in a slash";
    corpus.case("T04 file with a slash", |t, _| t.file("./", "x"), slash);
    corpus.case("T04 folder before ustar", |t, _| t.raw(0, "./", "", 0o755, b""), "");
    corpus.case(
        "T04 no name",
        |t, _| t.file("", "x"),
        "! the archive's entry `` is refused: the root of a layer is a folder",
    );
    corpus.case("T05", |t, _| t.folder("./a//", 0o755).file(".//a/./b", "x"), "d a, f a/b");
    corpus.case("T05 slashes", |t, _| t.file("//a///b", "x"), "d a, f a/b");
}

#[test]
fn t06_to_t09_links_as_parents() {
    let mut corpus = Corpus::default();
    corpus.case("T06", |t, c| t.symlink("l", c).file("l/file", "evil"), "d l, f l/file");
    let hops = |t: Tar, c: &str| t.symlink("a", c).symlink("b", "a").file("b/file", "evil");
    corpus.case("T07 hops", hops, "l a, d b, f b/file");
    let dots = |t: Tar, _: &str| t.symlink("a", "../canary").file("a/folder/x", "evil");
    corpus.case("T07 dots", dots, "d a, d a/folder, f a/folder/x");
    corpus.case("T08", |t, c| t.symlink("l", c).folder("l", 0o777), "d l");
    let dangling = "! the archive's entry `h` is a hard link to `l/file`, which this layer does not hold";
    corpus.case("T09", |t, c| t.symlink("l", c).link("h", "l/file"), dangling);
    corpus.case(
        "T09 into",
        |t, c| t.file("f", "x").symlink("l", c).link("l/file", "f"),
        "f f, d l, f l/file",
    );
}

#[test]
fn t10_to_t14_hard_links() {
    let mut corpus = Corpus::default();
    let dangling = |name: &str, target: &str| {
        format!("! the archive's entry `{name}` is a hard link to `{target}`, which this layer does not hold")
    };
    let out = format!("! the archive holds the path `../canary/file`: {OUT}");
    corpus.case("T10", |t, _| t.link("h", "../canary/file"), &out);
    corpus.case("T10 absolute", |t, c| t.link("h", &format!("{c}/file")), &dangling("h", "CANARY/file"));
    corpus.case("T11", |t, c| t.symlink("s", &format!("{c}/file")).link("h", "s"), "l h, l s");
    corpus.case("T12", |t, _| t.link("h", "f").file("f", "x"), "f f, f h");
    corpus.case("T12 never", |t, _| t.link("h", "f"), &dangling("h", "f"));
    corpus.case("T12 replaced", |t, _| t.link("a/b", "f").file("a", "x").file("f", "y"), "f a, f f");
    corpus.case("T13", |t, _| t.link("h", "lower/file"), &dangling("h", "lower/file"));
    corpus.case("T14", |t, _| t.file(".wh.gone", "").link("h", "gone"), &dangling("h", "gone"));
    corpus.case("T14 itself", |t, _| t.link("h", "h"), &dangling("h", "h"));
    let folder = |name| format!("! the archive's entry `{name}` is refused: a hard link to a folder");
    corpus.case("T14 folder", |t, _| t.folder("d", 0o755).link("h", "d"), &folder("h"));
    corpus.case("T14 folder itself", |t, _| t.folder("d", 0o755).link("d", "d"), &folder("d"));
    let ground = Ground::new();
    ground.unpack(Tar::default().file("f", "x").link("h", "/f")).unwrap();
    assert_eq!(fs::metadata(ground.root().join("h")).unwrap().nlink(), 2);
}

#[test]
fn t15_t16_replacing() {
    let mut corpus = Corpus::default();
    corpus.case("T15 file over folder", |t, _| t.file("a/b/c", "x").file("a", "y"), "f a");
    corpus.case("T15 folder over file", |t, _| t.file("a", "x").folder("a", 0o755), "d a");
    corpus.case("T15 file as parent", |t, _| t.file("a", "x").file("a/b", "y"), "d a, f a/b");
    let thrice = |t: Tar, c: &str| t.file("a", "x").symlink("a", c).folder("a", 0o755).file("a", "z");
    corpus.case("T16", thrice, "f a");
    corpus.case(
        "T16 other order",
        |t, c| t.folder("a", 0o755).raw(b'6', "a", "", 0o644, b"").symlink("a", c),
        "l a",
    );
    let ground = Ground::new();
    let canary = format!("{}/file", ground.canary());
    ground.unpack(Tar::default().symlink("a", &canary).file("a", "new")).unwrap();
    assert_eq!(fs::read(ground.root().join("a")).unwrap(), b"new");
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
    let names: [(&[u8], &str); 6] = [
        (b"not utf-8 \xff\xfe", "not utf-8 \u{fffd}\u{fffd}"),
        (b"two\nlines", "two\\u{a}lines"),
        (b"\x1b[2Jclear", "\\u{1b}[2Jclear"),
        ("\u{202e}txt.exe".as_bytes(), "\\u{202e}txt.exe"),
        ("\u{61c}\u{2066}x".as_bytes(), "\\u{61c}\\u{2066}x"),
        ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
    ];
    let mut corpus = Corpus::default();
    for (name, shown) in names {
        let entry = |t: Tar, name: &[u8]| t.header(header(b'0', name, b"", 0o644, 1)).data(b"x");
        corpus.case(shown, |t, _| entry(t, name), &format!("f {shown}"));
        // As part of an error, which is where names of an archive reach a terminal.
        let refused = format!("! the archive's entry `{shown}/` is refused: a file's name ends in a slash");
        corpus.case(shown, |t, _| entry(t, &[name, b"/"].concat()), &refused);
        let ground = Ground::new();
        ground.unpack(entry(Tar::default(), name)).unwrap();
        assert_eq!(fs::read(ground.root().join(OsStr::from_bytes(name))).unwrap(), b"x");
    }
    assert!(shown(&[b'n'; 5000]).len() < 400);
}

#[test]
fn t19_long_and_deep() {
    let mut corpus = Corpus::default();
    let refused =
        |path: &str, why: &str| format!("! the archive holds the path `{}`: {why}", shown(path.as_bytes()));
    let part = |length: usize| "n".repeat(length);
    let deep = |depth: usize| format!("{}x", "a/".repeat(depth - 1));
    let named = |path: String| move |t: Tar, _: &str| t.pax("path", &path).file("x", "");
    corpus.case("255 bytes", named(part(255)), &format!("f {}", part(255)));
    corpus.case("256 bytes", named(part(256)), &refused(&part(256), "a part of it is too long"));
    corpus.case("5000 deep", named(deep(5000)), &refused(&deep(5000), "it is too long"));
    corpus.case("257 deep", named(deep(257)), &refused(&deep(257), "it is too deep"));
    // Paths on this machine would be too long: find(1) goes from folder to folder.
    let count = |ground: &Ground| {
        let found = std::process::Command::new("find")
            .arg(ground.root())
            .args(["-mindepth", "1", "-printf", "x"])
            .output();
        found.unwrap().stdout.len()
    };
    // Sixteen parts of 255 bytes and the slashes between them are what Linux takes; as a folder it is opened in the end.
    let longest = vec![part(255); 16].join("/");
    assert_eq!(longest.len(), 4095);
    let ground = Ground::new();
    ground.unpack(Tar::default().pax("path", &longest).folder("x", 0o755)).unwrap();
    assert_eq!(count(&ground), 16);
    corpus.case(
        "4096 bytes",
        named(format!("/{longest}")),
        &refused(&longest, "it is too long").replacen("`n", "`/n", 1).replacen("n`", "`", 1),
    );
    let ground = Ground::new();
    ground.unpack(Tar::default().pax("path", deep(256)).file("x", "")).unwrap();
    assert_eq!(count(&ground), 256);
}
