//! Hostile archives. Each runs beside a canary folder that must not change in any way.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::*;

mod corpus;

/// Builds archives, also such as no honest program writes.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn raw(mut self, kind: u8, name: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        self.0.extend(header(kind, name.as_bytes(), link.as_bytes(), mode, data.len() as u64));
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    /// A character device 5:1, the header's magic and version given.
    fn device(mut self, name: &str, magic: &[u8; 8]) -> Self {
        let start = self.0.len();
        self = self.raw(b'3', name, "", 0o600, b"");
        let header = &mut self.0[start..start + 512];
        header[257..265].copy_from_slice(magic);
        header[329..345].copy_from_slice(b"0000005\x000000001\0");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self
    }
    fn file(self, name: &str, data: &str) -> Self {
        self.raw(b'0', name, "", 0o644, data.as_bytes())
    }
    fn folder(self, name: &str, mode: u32) -> Self {
        self.raw(b'5', name, "", mode, b"")
    }
    fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(b'2', name, target, 0o777, b"")
    }
    fn link(self, name: &str, target: &str) -> Self {
        self.raw(b'1', name, target, 0o644, b"")
    }
    fn pax(self, key: &str, value: &str) -> Self {
        let mut length = key.len() + value.len() + 4;
        while format!("{length} {key}={value}\n").len() != length {
            length += 1;
        }
        self.raw(b'x', "pax", "", 0, format!("{length} {key}={value}\n").as_bytes())
    }
}

fn header(kind: u8, name: &[u8], link: &[u8], mode: u32, size: u64) -> [u8; 512] {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(1_000_000_000);
    header.as_old_mut().linkflag = [kind];
    header.set_cksum();
    *header.as_bytes()
}

struct Ground {
    dir: tempfile::TempDir,
    before: BTreeMap<PathBuf, String>,
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("canary/folder")).unwrap();
        fs::write(dir.path().join("canary/file"), "sings").unwrap();
        fs::write(dir.path().join("canary/folder/x"), "inner").unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        let before = snapshot(&dir.path().join("canary"));
        Self { dir, before }
    }
    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }
    fn canary(&self) -> String {
        self.dir.path().join("canary").to_str().unwrap().to_owned()
    }
    fn unpack(&self, tar: Tar) -> Result<Unpacked, UnpackError> {
        let mut bytes = tar.0;
        bytes.extend([0; 1024]);
        self.unpack_bytes(&bytes, &Limits::default())
    }
    fn unpack_bytes(&self, bytes: &[u8], limits: &Limits) -> Result<Unpacked, UnpackError> {
        let root = fs::File::open(self.root()).unwrap();
        let me = SingleOwner { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() };
        let result = unpack_layer(bytes, root.as_fd(), &me, limits);
        assert_eq!(snapshot(&self.dir.path().join("canary")), self.before, "the canary changed");
        let beside: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(beside.len(), 2, "something was made beside the root: {beside:?}");
        result
    }
    fn tree(&self) -> Vec<String> {
        snapshot(&self.root())
            .keys()
            .map(|path| {
                let metadata = fs::symlink_metadata(path).unwrap();
                let kind = match metadata.file_type() {
                    t if t.is_dir() => "d",
                    t if t.is_symlink() => "l",
                    t if t.is_fifo() => "p",
                    t if t.is_char_device() => "w",
                    _ => "f",
                };
                let name = path.strip_prefix(self.root()).unwrap().to_str().unwrap().to_owned();
                format!("{kind} {name}")
            })
            .filter(|line| line != "d ")
            .collect()
    }
    fn opaque(&self, name: &str) -> bool {
        let mut value = [0; 8];
        rustix::fs::lgetxattr(self.root().join(name), "user.overlay.opaque", &mut value[..])
            .is_ok_and(|n| &value[..n] == b"y")
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        crate::store::remove_tree(&self.root()).ok();
    }
}

/// Everything about a tree but access times.
fn snapshot(path: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let metadata = fs::symlink_metadata(path).unwrap();
    let content = if metadata.is_file() { fs::read(path).unwrap_or_default() } else { Vec::new() };
    let facts = (metadata.mode(), metadata.uid(), metadata.gid(), metadata.nlink());
    let times = (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec());
    found.insert(path.to_owned(), format!("{facts:?} {times:?} {content:?}"));
    if metadata.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten() {
            found.extend(snapshot(&entry.unwrap().path()));
        }
    }
    found
}

/// Unpacks and compares the tree; `Err` is a part of the expected message.
fn check(name: &str, build: impl FnOnce(Tar, &str) -> Tar, expected: Result<&[&str], &str>) {
    let ground = Ground::new();
    let result = ground.unpack(build(Tar::default(), &ground.canary()));
    match (result, expected) {
        (Ok(_), Ok(tree)) => assert_eq!(ground.tree(), tree, "{name}"),
        (Err(error), Err(part)) => {
            assert!(error.to_string().contains(part), "{name}: {error}");
        }
        (result, expected) => panic!("{name}: expected {expected:?}, got {result:?}"),
    }
}

#[test]
fn t01_to_t05_paths() {
    check("T01", |t, _| t.file("../x", "x"), Err("may lead out"));
    check("T02", |t, _| t.file("/abs", "x"), Ok(&["f abs"]));
    check("T03", |t, _| t.file("a/../../x", "x"), Err("may lead out"));
    check("T04 link", |t, c| t.symlink(".", c), Err("root of a layer"));
    check("T04 old folder", |t, _| t.raw(0, "./", "", 0o755, b"x"), Ok(&[]));
    check("T04 file", |t, _| t.file("./", "x"), Err("ends in a slash"));
    check("T04 plain file", |t, _| t.file(".", "x"), Err("root of a layer"));
    check("T04 fifo", |t, _| t.raw(b'6', ".", "", 0o644, b""), Err("root of a layer"));
    check("T05", |t, _| t.folder("./a//", 0o755).file(".//a/./b", "x"), Ok(&["d a", "f a/b"]));
    let deep = format!("{}x", "a/".repeat(300));
    check("too deep", |t, _| t.pax("path", &deep).file("x", ""), Err("too deep"));
    let long = "n".repeat(256);
    check("T19", |t, _| t.pax("path", &long).file("x", ""), Err("too long"));
}

#[test]
fn t06_to_t09_links_as_parents() {
    check("T06", |t, c| t.symlink("l", c).file("l/file", "evil"), Ok(&["d l", "f l/file"]));
    check(
        "T07 hops",
        |t, c| t.symlink("a", c).symlink("b", "a").file("b/file", "evil"),
        Ok(&["l a", "d b", "f b/file"]),
    );
    check(
        "T07 dots",
        |t, _| t.symlink("a", "../canary").file("a/folder/x", "evil"),
        Ok(&["d a", "d a/folder", "f a/folder/x"]),
    );
    check("T08", |t, c| t.symlink("l", c).folder("l", 0o777), Ok(&["d l"]));
    check("T09", |t, c| t.symlink("l", c).link("h", "l/file"), Err("does not hold"));
    check(
        "T09 into",
        |t, c| t.file("f", "x").symlink("l", c).link("l/file", "f"),
        Ok(&["f f", "d l", "f l/file"]),
    );
}

#[test]
fn t10_to_t14_hard_links() {
    check("T10", |t, _| t.link("h", "../canary/file"), Err("may lead out"));
    check("T10 absolute", |t, c| t.link("h", &format!("{c}/file")), Err("does not hold"));
    check("T11", |t, c| t.symlink("s", &format!("{c}/file")).link("h", "s"), Ok(&["l h", "l s"]));
    check("T12", |t, _| t.link("h", "f").file("f", "x"), Ok(&["f f", "f h"]));
    check("T13", |t, _| t.link("h", "lower/file"), Err("does not hold"));
    check("T14", |t, _| t.file(".wh.gone", "").link("h", "gone"), Err("does not hold"));
    check("itself", |t, _| t.link("h", "h"), Err("does not hold"));
    check("to a folder", |t, _| t.folder("d", 0o755).link("h", "d"), Err("is refused"));
    let ground = Ground::new();
    ground.unpack(Tar::default().file("f", "x").link("h", "/f")).unwrap();
    assert_eq!(fs::metadata(ground.root().join("h")).unwrap().nlink(), 2);
}

#[test]
fn t15_t16_replacing() {
    check("file over folder", |t, _| t.file("a/b/c", "x").file("a", "y"), Ok(&["f a"]));
    check("folder over file", |t, _| t.file("a", "x").folder("a", 0o755), Ok(&["d a"]));
    check("file as parent", |t, _| t.file("a", "x").file("a/b", "y"), Ok(&["d a", "f a/b"]));
    check(
        "three times",
        |t, c| t.file("a", "x").symlink("a", c).folder("a", 0o755).file("a", "z"),
        Ok(&["f a"]),
    );
    let ground = Ground::new();
    let canary = format!("{}/file", ground.canary());
    ground.unpack(Tar::default().symlink("a", &canary).file("a", "new")).unwrap();
    assert_eq!(fs::read(ground.root().join("a")).unwrap(), b"new");
}

#[test]
fn t27_whiteouts() {
    check("plain", |t, _| t.folder("a", 0o755).file("a/.wh.b", ""), Ok(&["d a", "w a/b"]));
    check("kept, after", |t, _| t.file("b", "x").file(".wh.b", ""), Ok(&["f b"]));
    check("kept, before", |t, _| t.file(".wh.b", "").file("b", "x"), Ok(&["f b"]));
    check("parent gone", |t, _| t.file(".wh.a", "").file("a/.wh.c", ""), Ok(&["w a"]));
    check("empty", |t, _| t.file(".wh.", ""), Err("names a file"));
    check("dot", |t, _| t.file(".wh..", ""), Err("names a file"));
    check("dots", |t, _| t.file("a/.wh...", ""), Err("names a file"));
    check("slash", |t, _| t.folder(".wh./", 0o755), Err("names a file"));
    check("content", |t, _| t.file(".wh.a/b", ""), Err("no content"));
    check("bookkeeping", |t, _| t.file(".wh..wh.plnk/1.2", "x").file(".wh..wh.aufs", ""), Ok(&[]));
    check("through a link", |t, c| t.symlink("l", c).file("l/.wh.file", ""), Ok(&["l l"]));
    check("as folder", |t, _| t.folder(".wh.a", 0o755), Err("empty file"));
    check("as link", |t, c| t.symlink(".wh.a", c), Err("empty file"));
    check("device 0:0", |t, _| t.raw(b'3', "a", "", 0o644, b""), Err("whiteout"));
    check("device 5:1 with a POSIX header", |t, _| t.device("console", b"ustar\x0000"), Ok(&[]));
    check("device 5:1 with a GNU header", |t, _| t.device("console", b"ustar  \0"), Ok(&[]));
}

#[test]
fn t27_opaque() {
    for tar in [
        Tar::default().folder("a", 0o755).file("a/b", "x").file("a/.wh..wh..opq", ""),
        Tar::default().file("a/.wh..wh..opq", "").folder("a", 0o755).file("a/b", "x"),
        Tar::default().file(".wh.a", "").folder("a", 0o755).file("a/b", "x"),
        Tar::default().folder("a", 0o755).file("a/b", "x").file(".wh.a", ""),
    ] {
        let ground = Ground::new();
        ground.unpack(tar).unwrap();
        assert_eq!(ground.tree(), ["d a", "f a/b"]);
        assert!(ground.opaque("a"));
    }
    let ground = Ground::new();
    ground.unpack(Tar::default().pax("SCHILY.xattr.user.overlay.opaque", "y").folder("a", 0o755)).unwrap();
    assert!(!ground.opaque("a"), "an archive set overlayfs's own attribute");
}

#[test]
fn t34_t35_mount_points_and_layers() {
    for name in ["dev", "proc", "sys", "etc/passwd", "run", "tmp", "layers", "workspace", "cnb"] {
        for target in ["/", "../../..", "/proc/self/cwd", "/proc/1/root"] {
            let ground = Ground::new();
            let tar = Tar::default().symlink(name, target).file(&format!("{name}/x"), "evil");
            ground.unpack(tar).unwrap();
            assert!(fs::symlink_metadata(ground.root().join(name)).unwrap().is_dir());
        }
    }
    // T35: a former layer's link is in the way; layers have folders of their own, but even so nothing is followed.
    let ground = Ground::new();
    ground.unpack(Tar::default().symlink("d", &ground.canary())).unwrap();
    ground.unpack(Tar::default().file("d/file", "evil")).unwrap();
    assert_eq!(ground.tree(), ["d d", "f d/file"]);
}

#[test]
fn t28_t29_kinds_and_modes() {
    let ground = Ground::new();
    let mut device = Tar::default().raw(b'3', "null", "", 0o666, b"");
    device.0[329..337].copy_from_slice(b"0000001\0");
    device.0[337..345].copy_from_slice(b"0000003\0");
    device.0[148..156].fill(b' ');
    let sum: u32 = device.0[..512].iter().map(|&b| u32::from(b)).sum();
    device.0[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let tar = device
        .raw(b'6', "fifo", "", 0o620, b"")
        .raw(b'7', "contiguous", "", 0o644, b"x")
        .raw(b'0', "suid", "", 0o6755, b"x")
        .folder("closed", 0o000)
        .file("closed/in", "x")
        .folder("sticky", 0o3777);
    let unpacked = ground.unpack(tar).unwrap();
    assert_eq!(unpacked.devices, ["null"]);
    let mode = |name: &str| fs::symlink_metadata(ground.root().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("fifo"), mode("suid"), mode("closed"), mode("sticky")), (0o620, 0o6755, 0, 0o3777));
    assert_eq!(fs::metadata(ground.root().join("sticky")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(fs::metadata(ground.root().join("suid")).unwrap().mtime(), 1_000_000_000);
    for kind in [b'S', b'Z', b'V', b'D'] {
        check("unknown", |t, _| t.raw(kind, "a", "", 0o644, b""), Err("is refused"));
    }
}

#[test]
fn t20_to_t24_damage() {
    check("pax wins", |t, _| t.pax("path", "real").file("false", "x"), Ok(&["f real"]));
    check("pax out", |t, _| t.pax("path", "../x").file("a", "x"), Err("may lead out"));
    check("two pax", |t, _| t.pax("path", "a").pax("path", "b").file("c", ""), Err("two extended"));
    check("pax at the end", |t, _| t.pax("path", "a"), Err("ends after"));
    check("two sizes", |t, _| t.pax("size", "1").file("a", "xy"), Err("two sizes"));
    check("sparse", |t, _| t.pax("GNU.sparse.major", "1").file("a", "x"), Err("sparse"));
    check("long name", |t, _| t.raw(b'L', "l", "", 0, b"long\0").file("a", "x"), Ok(&["f long"]));
    check("NUL", |t, _| t.raw(b'L', "l", "", 0, b"lo\0ng").file("a", "x"), Err("NUL"));
    check("empty target", |t, _| t.symlink("a", ""), Err("symbolic link"));
    let ground = Ground::new();
    let whole = Tar::default().file("a", "content").0;
    for cut in [1, 511, 513, 1023] {
        assert!(ground.unpack_bytes(&whole[..cut], &Limits::default()).is_err(), "{cut}");
    }
    ground.unpack_bytes(&whole, &Limits::default()).unwrap();
    for (at, byte) in [(0, b'b'), (124, 0xff), (124, b'9'), (150, b'x')] {
        let mut damaged = whole.clone();
        damaged[at] = byte;
        assert!(ground.unpack_bytes(&damaged, &Limits::default()).is_err(), "{at}");
    }
}

#[test]
fn limits() {
    let ground = Ground::new();
    let tar = Tar::default().file("a", "1").file("b", "2").0;
    let entries = Limits { entries: 1, ..Limits::default() };
    let bytes = Limits { bytes: 1000, ..Limits::default() };
    for limits in [entries, bytes] {
        assert!(matches!(ground.unpack_bytes(&tar, &limits), Err(UnpackError::Limit { .. })));
    }
    let pax = Tar::default().raw(b'x', "p", "", 0, &vec![b'a'; 2 << 20]).0;
    assert!(matches!(ground.unpack_bytes(&pax, &Limits::default()), Err(UnpackError::Limit { .. })));
}

#[test]
fn attributes_and_owners() {
    let ground = Ground::new();
    let tar = Tar::default()
        .pax("SCHILY.xattr.user.note", "v")
        .file("a", "x")
        .pax("SCHILY.xattr.trusted.overlay.opaque", "y")
        .file("b", "x")
        .pax("SCHILY.xattr.user.containers.override_stat", "0:0:0")
        .file("c", "x");
    let unpacked = ground.unpack(tar).unwrap();
    assert_eq!(unpacked.attributes, ["b: trusted.overlay.opaque", "c: user.containers.override_stat"]);
    let mut value = [0; 8];
    assert_eq!(rustix::fs::lgetxattr(ground.root().join("a"), "user.note", &mut value[..]), Ok(1));

    struct Nobody;
    impl OwnerMap for Nobody {
        fn owner(&self, uid: u64, gid: u64) -> Result<(u32, u32), OwnerError> {
            Err(OwnerError { uid, gid, why: "no range".into() })
        }
    }
    let root = fs::File::open(ground.root()).unwrap();
    let tar = Tar::default().pax("uid", "4294967301").file("a", "x").0;
    let error = unpack_layer(&tar[..], root.as_fd(), &Nobody, &Limits::default()).unwrap_err();
    let UnpackError::Owner { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.uid, 4_294_967_301);

    if nix::unistd::geteuid().is_root() {
        let shifted = SingleOwner { uid: 1234, gid: 5678 };
        let tar = Tar::default().raw(b'0', "owned", "", 0o4755, b"x").symlink("l", "owned").0;
        unpack_layer(&tar[..], root.as_fd(), &shifted, &Limits::default()).unwrap();
        for name in ["owned", "l"] {
            let metadata = fs::symlink_metadata(ground.root().join(name)).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (1234, 5678));
        }
        assert_eq!(fs::metadata(ground.root().join("owned")).unwrap().mode() & 0o7777, 0o4755);
    }
}
