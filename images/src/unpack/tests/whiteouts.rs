//! What a layer says of those below it: T27, T35.

use super::*;

#[test]
fn t27_whiteouts() {
    let refused = |name: &str, why: &str| format!("! the archive's entry `{name}` is refused: {why}");
    let mut corpus = Corpus::default();
    corpus.case("plain", |t, _| t.folder("a", 0o755).file("a/.wh.b", ""), "d a, w a/b");
    corpus.case("kept, after", |t, _| t.file("b", "x").file(".wh.b", ""), "f b");
    corpus.case("kept, before", |t, _| t.file(".wh.b", "").file("b", "x"), "f b");
    corpus.case("parent, then child", |t, _| t.file(".wh.a", "").file("a/.wh.c", ""), "w a");
    corpus.case("child, then parent", |t, _| t.file("a/.wh.c", "").file(".wh.a", ""), "w a");
    corpus.case("file above it", |t, _| t.file("a", "x").file("a/.wh.c", ""), "f a");
    for name in [".wh.", ".wh..", "a/.wh..."] {
        corpus.case(name, |t, _| t.file(name, ""), &refused(name, "a whiteout names a file"));
    }
    corpus.case("slash", |t, _| t.folder(".wh./", 0o755), &refused(".wh./", "a whiteout names a file"));
    corpus.case("content", |t, _| t.file(".wh.a/b", ""), &refused(".wh.a/b", "a whiteout has no content"));
    corpus.case(
        "content of opaque",
        |t, _| t.file(".wh..wh..opq/b", ""),
        &refused(".wh..wh..opq/b", "a whiteout has no content"),
    );
    corpus.case(
        "AUFS's own",
        |t, _| t.file(".wh..wh.plnk/1.2", "x").folder(".wh..wh.orph", 0o700).file(".wh..wh.aufs", ""),
        "",
    );
    corpus.case("through a link", |t, c| t.symlink("l", c).file("l/.wh.file", ""), "l l");
    let empty = refused(".wh.a", "a whiteout is an empty file");
    corpus.case("as folder", |t, _| t.folder(".wh.a", 0o755), &empty);
    corpus.case("as symbolic link", |t, c| t.symlink(".wh.a", c), &empty);
    corpus.case("as device", |t, _| t.device(b'3', ".wh.a", b"ustar\x0000", 1, 3), &empty);
    corpus.case("as FIFO", |t, _| t.raw(b'6', ".wh.a", "", 0o644, b""), &empty);
    corpus.case("with data", |t, _| t.file(".wh.a", "data"), "w a");
    let smuggled = refused("a", "a device 0:0 is overlayfs's whiteout, not content");
    corpus.case("character device 0:0", |t, _| t.device(b'3', "a", b"ustar\x0000", 0, 0), &smuggled);
    corpus.case("block device 0:0", |t, _| t.device(b'4', "a", b"ustar\x0000", 0, 0), &smuggled);
    corpus.case("device 0:0, GNU header", |t, _| t.device(b'3', "a", b"ustar  \0", 0, 0), &smuggled);
    corpus.case("old device", |t, _| t.device(b'3', "a", &[0; 8], 0, 0), &smuggled);
}

#[test]
fn t27_opaque() {
    let mut corpus = Corpus::default();
    corpus.case("missing folder", |t, _| t.file("a/.wh..wh..opq", ""), "d a");
    corpus.case("below a file", |t, _| t.file("a", "x").file("a/b/.wh..wh..opq", ""), "f a");
    corpus.case("of a file", |t, _| t.file("a", "x").file("a/.wh..wh..opq", ""), "f a");
    let opaque = |tar: Tar, expected: &[&str]| {
        let ground = Ground::new();
        ground.unpack(tar).unwrap();
        let found: Vec<_> = ground
            .tree()
            .iter()
            .map(|line| line[2..].to_owned())
            .filter(|name| ground.opaque(name))
            .collect();
        assert_eq!(found, expected);
    };
    let tar = Tar::default;
    opaque(tar().folder("a", 0o755).file("a/b", "x").file("a/.wh..wh..opq", ""), &["a"]);
    opaque(tar().file("a/.wh..wh..opq", "").folder("a", 0o755).file("a/b", "x"), &["a"]);
    opaque(tar().file(".wh.a", "").folder("a", 0o755).file("a/b", "x"), &["a"]);
    opaque(tar().folder("a", 0o755).file("a/b", "x").file(".wh.a", ""), &["a"]);
    // A folder that is there only to be opaque must not bring back what is beside it.
    opaque(tar().file(".wh.a", "").file("a/b/.wh..wh..opq", ""), &["a", "a/b"]);
    // In place of a link, it hides what lay below the link's place.
    opaque(tar().symlink("a", "x").file("a/.wh..wh..opq", ""), &[]);
    opaque(tar().pax("SCHILY.xattr.user.overlay.opaque", "y").folder("a", 0o755), &[]);
    let ground = Ground::new();
    ground.unpack(tar().file(".wh..wh..opq", "").file("a", "")).unwrap();
    assert!(ground.opaque(""), "the whole layer below is hidden");
}

#[test]
fn t35_a_link_of_an_earlier_layer_is_not_followed() {
    // Layers have folders of their own, but even in one nothing would be followed.
    let ground = Ground::new();
    ground.unpack(Tar::default().symlink("d", &ground.canary())).unwrap();
    ground.unpack(Tar::default().file("d/file", "evil")).unwrap();
    assert_eq!(ground.tree(), ["d d", "f d/file"]);
}

#[test]
fn t34_links_where_mounts_will_be() {
    for name in
        ["dev", "proc", "sys", "etc/passwd", "etc/resolv.conf", "run", "tmp", "layers", "workspace", "cnb"]
    {
        for target in ["/", "../../..", "/proc/self/cwd", "/proc/1/root"] {
            let ground = Ground::new();
            ground.unpack(Tar::default().symlink(name, target)).unwrap();
            assert_eq!(fs::read_link(ground.root().join(name)).unwrap(), Path::new(target));
            ground.unpack(Tar::default().symlink(name, target).file(&format!("{name}/x"), "evil")).unwrap();
            assert!(fs::symlink_metadata(ground.root().join(name)).unwrap().is_dir());
        }
    }
}
