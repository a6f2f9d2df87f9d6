//! Hostile archives, by the numbers of docs/security/archives.md. Each runs beside a canary folder that must not change in
//! any way.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::*;

mod amounts;
mod damage;
mod entries;
mod oracle;
mod owners;
mod paths;
mod whiteouts;

/// Builds archives, also such as no honest program writes.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn raw(self, kind: u8, name: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        self.header(header(kind, name.as_bytes(), link.as_bytes(), mode, data.len() as u64)).data(data)
    }
    fn header(mut self, header: [u8; 512]) -> Self {
        self.0.extend(header);
        self
    }
    fn data(mut self, data: &[u8]) -> Self {
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    /// Changes a field of the last header, whose entry has no data; its checksum stays right.
    fn field(mut self, at: usize, value: &[u8]) -> Self {
        let start = self.0.len() - 512;
        self.0[start + at..start + at + value.len()].copy_from_slice(value);
        sign(&mut self.0[start..]);
        self
    }
    /// A device, the header's magic and version given.
    fn device(self, kind: u8, name: &str, magic: &[u8; 8], major: u32, minor: u32) -> Self {
        let numbers = format!("{major:07o}\0{minor:07o}\0");
        self.raw(kind, name, "", 0o600, b"").field(257, magic).field(329, numbers.as_bytes())
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
    fn pax(self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.raw(b'x', "pax", "", 0, &record(key, value.as_ref()))
    }
}

/// A record of an extended header.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let mut length = rest.len() + 1;
    while length.to_string().len() + rest.len() != length {
        length += 1;
    }
    [length.to_string().as_bytes(), &rest].concat()
}

/// Makes a header's checksum right.
fn sign(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
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
                let name = shown(path.strip_prefix(self.root()).unwrap().as_os_str().as_bytes());
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

/// Archives and what comes of each: the tree, one `kind path` after the other, or `! ` and the error with its causes.
#[derive(Default)]
struct Corpus(Vec<String>);

impl Corpus {
    /// `build` is given an empty archive and the canary's path, which is `CANARY` in `expected`.
    fn case(&mut self, name: &str, build: impl FnOnce(Tar, &str) -> Tar, expected: &str) {
        let ground = Ground::new();
        let archive = build(Tar::default(), &ground.canary());
        self.found(name, &ground, ground.unpack(archive), expected);
    }
    /// The same for bytes that are not ended as an archive should be.
    fn bytes(&mut self, name: &str, bytes: &[u8], expected: &str) {
        let ground = Ground::new();
        self.found(name, &ground, ground.unpack_bytes(bytes, &Limits::default()), expected);
    }
    fn found(&mut self, name: &str, ground: &Ground, result: Result<Unpacked, UnpackError>, expected: &str) {
        let found = match result {
            Ok(_) => ground.tree().join(", "),
            Err(error) => format!("! {}", with_causes(&error)).replace(&ground.canary()[1..], "CANARY"),
        };
        if found != expected {
            self.0.push(format!("{name}\n  expected {expected}\n  found    {found}"));
        }
    }
}

impl Drop for Corpus {
    fn drop(&mut self) {
        assert!(self.0.is_empty() || std::thread::panicking(), "{}", self.0.join("\n"));
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
