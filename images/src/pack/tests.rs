//! Digests here were computed by Go's `archive/tar` over the same entries.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;
use crate::digest::Digest;

/// Name, link, kind, mode, user, group, data, device.
type Case<'a> = (&'a [u8], &'a [u8], u8, u32, u32, u32, &'a [u8], (u64, u64));
type OwnedCase = (Vec<u8>, Vec<u8>, u8, u32, u32, u32, &'static [u8], (u64, u64));

fn cases() -> Vec<OwnedCase> {
    let slash = |parts: &[String]| format!("/{}", parts.join("/")).into_bytes();
    let many = |c: &str, n: usize| c.repeat(n);
    let long = slash(&[many("d", 60), many("e", 60), many("f", 60)]);
    let none = Vec::new;
    vec![
        (b"/workspace".to_vec(), none(), b'5', 0o755, 1001, 1000, b"", (0, 0)),
        (b"/workspace/a".to_vec(), none(), b'0', 0o4755, 0, 0, b"hello", (0, 0)),
        (b"/workspace/l".to_vec(), b"../target".to_vec(), b'2', 0o777, 1, 2, b"", (0, 0)),
        (long.clone(), none(), b'0', 0o644, 1, 1, b"x", (0, 0)),
        (slash(&["layers".into(), many("n", 120)]), none(), b'0', 0o644, 1, 1, b"y", (0, 0)),
        (
            format!("/{}file", many(&format!("{}/", many("x", 50)), 6)).into_bytes(),
            none(),
            b'0',
            0o644,
            1,
            1,
            b"y",
            (0, 0),
        ),
        (b"/short".to_vec(), vec![b't'; 101], b'2', 0o777, 1, 1, b"", (0, 0)),
        (long, vec![b't'; 150], b'2', 0o777, 1, 1, b"", (0, 0)),
        ("/ü/é".into(), "ö".into(), b'2', 0o777, 1, 1, b"", (0, 0)),
        (b"/\xff\xfe/x".to_vec(), none(), b'0', 0o644, 1, 1, b"z", (0, 0)),
        (b"/big".to_vec(), none(), b'0', 0o644, 3_000_000, u32::MAX - 1, b"", (0, 0)),
        (b"/dev/null".to_vec(), none(), b'3', 0o666, 0, 0, b"", (1, 3)),
        (b"/fifo".to_vec(), none(), b'6', 0o600, 0, 0, b"", (0, 0)),
        (slash(&[many("a", 98), "b".into()]), none(), b'0', 0o644, 0, 0, b"", (0, 0)),
        (slash(&[many("a", 99), many("ü", 3)]), none(), b'0', 0o644, 0, 0, b"", (0, 0)),
        (slash(&[many("p", 154), many("q", 100)]), none(), b'0', 0o644, 0, 0, b"", (0, 0)),
        (slash(&[many("p", 155), many("q", 100)]), none(), b'0', 0o644, 0, 0, b"", (0, 0)),
        (vec![b'k'; 79], [vec![b't'; 96], "éé".into()].concat(), b'2', 0o777, 0, 0, b"", (0, 0)),
    ]
}

fn write(tar: &mut TarWriter<'_>, case: Case<'_>) {
    let (name, link, kind, mode, uid, gid, mut data, device) = case;
    tar.entry(name, link, kind, mode, (uid, gid), data.len() as u64, device).unwrap();
    tar.content(name, data.len() as u64, &mut data).unwrap();
}

#[test]
fn same_bytes_as_go() {
    let expected = [
        "21243f345b1bdeaec992fd4c041ecbed0334b3f64702770465a901d5f8ed9f95",
        "5f69947f5c487c05b8baf4b845488462a8120256a44cd136da692eeb451d63b2",
        "a20fb187a52b974b615fded85d2b49dcbaf3456a4e8dd82920363c62dd64aa58",
        "0c4b48dc08c3a113276591f516d204dcbd70d7cc473ff22c0fcb08bd2f6aceae",
        "d1a143ea70881d175b64b5b32c12cc5db8e6d0d6dac9a723d74e5b779f4d4c2d",
        "ba19633bc0ee5b6f0d2e5f8933ce1c57e84e5ac341d9a522bb9023d7a00c498b",
        "213818bd62e64367e6e4c75ec8c3d5ac301b42a88b6ab16bfe0b4d83054fedd9",
        "bac7d02a925ace1f19c5eb99926713b6f014db77ab159d4cbf874686c90d92f5",
        "94aec74a12deb57db157f51ce29511d595e550e8d993a8d707909e2224fa1d66",
        "08500d35daa70cc691245dda52c1915954f1ae1254c57f24163f42d4fdf90fb0",
        "22e55b9b4f39ab36e8d9aeb14f85090cd00cda06f3a8db9b690708159f4bc00b",
        "e733b8c34cac5f1bc945037e54c490f335ecc6eef8445212a744872265acdfdd",
        "72640c4d89a506fad7cec6d17219e5a6fb4661e18101f12ebd4f20785bd7213e",
        "27db0566150779262568134d117f3b1b1e21ab6ff5d714cd15b03dedc2fd2920",
        "8be656ab5481414d78c3dbecea6943cc78dfa06fd39b1e4692bd40084cc980b3",
        "a109d1b47a4163b2f594a620896c80c796848d6817200c470831356fe8a8ee2f",
        "50fd0a63710d23da50134a25dee81440a2a72e24fa93e7b9fe53039f7bc1aeaa",
        "b6e8104a8294ef7db512df04ea0637c83ed514a0695a6e2994ac9b82c6259335",
    ];
    let cases = cases();
    assert_eq!(cases.len(), expected.len());
    let mut all = Vec::new();
    let mut together = TarWriter::new(&mut all, EPOCH);
    for ((name, link, kind, mode, uid, gid, data, device), expected) in cases.iter().zip(expected) {
        let case = (&name[..], &link[..], *kind, *mode, *uid, *gid, *data, *device);
        let mut one = Vec::new();
        write(&mut TarWriter::new(&mut one, EPOCH), case);
        assert_eq!(Digest::of(&one).hex(), expected, "{}", shown(name));
        write(&mut together, case);
    }
    together.finish().unwrap();
    assert_eq!(all.len(), 23040);
    assert_eq!(Digest::of(&all).hex(), "2e19dbb7c3fdf06c19a990e0450075f908664e00192104531ec5b25baea55c82");
}

#[test]
fn huge_file_as_go() {
    let mut out = Vec::new();
    let mut tar = TarWriter::new(&mut out, EPOCH);
    tar.entry(b"/huge", b"", b'0', 0o644, (0, 0), 9 << 30, (0, 0)).unwrap();
    assert_eq!(Digest::of(&out).hex(), "d60d3fc9283f3942cf2eb0b82b16b74ddc692b100203b32758ae172b510b6e65");
}

fn sample() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("b")).unwrap();
    fs::write(at("b/x"), "x").unwrap();
    fs::write(at("b.txt"), "t").unwrap();
    fs::write(at("B"), "caps").unwrap();
    symlink("/etc/passwd", at("link")).unwrap();
    fs::set_permissions(at("b/x"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::set_permissions(at("b"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    dir
}

fn list(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let line = |entry: tar::Entry<'_, &[u8]>| {
        let header = entry.header();
        format!(
            "{} {:?} {:o} {}:{} {}",
            String::from_utf8_lossy(&entry.path_bytes()),
            header.entry_type(),
            header.mode().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap(),
            header.mtime().unwrap()
        )
    };
    archive.entries().unwrap().map(|entry| line(entry.unwrap())).collect()
}

#[test]
fn tree_in_order() {
    let dir = sample();
    let parent = Parent { path: "/layers".into(), uid: 7, gid: 8, mode: 0o700 };
    let options = PackOptions { uid: 1, gid: 2, parents: vec![parent], mtime: EPOCH };
    let mut out = Vec::new();
    pack_dir(fs::File::open(dir.path()).unwrap().as_fd(), "/layers/x", &options, &mut out).unwrap();
    assert_eq!(
        list(&out),
        [
            "/layers Directory 700 7:8 315532801",
            "/layers/x Directory 755 1:2 315532801",
            "/layers/x/B Regular 644 1:2 315532801",
            "/layers/x/b Directory 1777 1:2 315532801",
            "/layers/x/b/x Regular 4750 1:2 315532801",
            "/layers/x/b.txt Regular 644 1:2 315532801",
            "/layers/x/link Symlink 777 1:2 315532801",
        ]
    );
}

/// As the reference's archives have them. The device is one that any user may make: what overlay file systems hide names with.
#[test]
fn fifos_and_devices_are_entries_and_are_not_opened() {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let dir = tempfile::tempdir().unwrap();
    let mode = Mode::from_bits_truncate(0o640);
    mknod(&dir.path().join("device"), SFlag::S_IFCHR, mode, makedev(0, 0)).unwrap();
    nix::unistd::mkfifo(&dir.path().join("fifo"), mode).unwrap();
    for name in ["device", "fifo"] {
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o640)).unwrap();
    }
    let root = fs::File::open(dir.path()).unwrap();
    let mut out = Vec::new();
    pack_dir(root.as_fd(), "/x", &PackOptions { mtime: EPOCH, ..PackOptions::default() }, &mut out).unwrap();
    assert_eq!(list(&out)[1..], ["/x/device Char 640 0:0 315532801", "/x/fifo Fifo 640 0:0 315532801"]);
    let mut archive = tar::Archive::new(&out[..]);
    let device = archive.entries().unwrap().nth(1).unwrap().unwrap();
    assert_eq!(
        (device.header().device_major().unwrap(), device.header().device_minor().unwrap()),
        (Some(0), Some(0))
    );
    assert_eq!(device.size(), 0);
}

#[test]
fn chosen_paths_stay_below() {
    let dir = sample();
    let root = fs::File::open(dir.path()).unwrap();
    let mut out = Vec::new();
    let paths = [PathBuf::from("b"), PathBuf::from("b/x"), PathBuf::from("link")];
    pack_paths(root.as_fd(), "/w", &paths, &PackOptions::default(), &mut out).unwrap();
    assert_eq!(list(&out).len(), 3);
    for path in ["../x", "link/x", "..", "missing"] {
        let result = pack_paths(root.as_fd(), "/w", &[path.into()], &PackOptions::default(), &mut Vec::new());
        assert!(result.is_err(), "{path}");
    }
}

#[test]
fn short_content_is_an_error() {
    let mut out = Vec::new();
    let mut tar = TarWriter::new(&mut out, EPOCH);
    let result = tar.file("/a", 0o644, 0, 0, 10, &mut &b"short"[..]);
    assert!(matches!(result, Err(PackError::Changed { .. })));
}
