//! Honest archives: what GNU tar packs, we unpack to the same tree; and what we pack, GNU tar unpacks to the same tree.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;
use crate::pack::TarWriter;

/// What to make at a path; a hard link is one to the file made last.
#[derive(Debug, Clone)]
enum Made {
    File(Vec<u8>, u32),
    Folder(u32),
    Symlink(String),
    Link,
}

type Tree = Vec<(Vec<String>, Made, u32)>;

fn trees() -> impl Strategy<Value = Tree> {
    let name = prop_oneof![
        4 => "[a-c]",
        2 => "[a-zA-Z0-9 ._+=,@-]{1,20}x",
        1 => "[a-z]{90,120}",
        1 => "\\PC{1,10}".prop_map(|name| name.replace(['/', '\\'], "_") + "x"),
    ];
    let made = prop_oneof![
        4 => (prop::collection::vec(any::<u8>(), 0..1500), 0o400_u32..0o7777).prop_map(|(data, mode)| Made::File(data, mode | 0o400)),
        2 => (0o700_u32..0o1777).prop_map(|mode| Made::Folder(mode | 0o700)),
        1 => "[a-z/.]{1,150}".prop_map(Made::Symlink),
        1 => Just(Made::Link),
    ];
    prop::collection::vec((prop::collection::vec(name, 1..4), made, any::<u32>()), 1..20)
}

/// Makes what can be made of it: later entries that would need to replace earlier ones are left out.
fn make(root: &Path, tree: &Tree) {
    let mut last = None;
    for (parts, made, _) in tree {
        // A name that means a whiteout is none of an honest tree.
        if parts.iter().any(|part| part.starts_with(".wh.")) {
            continue;
        }
        let path = root.join(parts.join("/"));
        if fs::symlink_metadata(&path).is_ok() || fs::create_dir_all(path.parent().unwrap()).is_err() {
            continue;
        }
        // A link on the way leads out of the tree.
        if !path.parent().unwrap().canonicalize().is_ok_and(|parent| parent.starts_with(root)) {
            continue;
        }
        let mode = |mode: u32| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        match made {
            Made::File(data, bits) => {
                fs::write(&path, data).unwrap();
                mode(*bits);
                last = Some(path.clone());
            }
            Made::Folder(bits) => {
                fs::create_dir(&path).unwrap();
                mode(*bits);
            }
            Made::Symlink(target) => symlink(target, &path).unwrap(),
            Made::Link => last.iter().for_each(|last| fs::hard_link(last, &path).unwrap()),
        }
    }
    for (parts, _, seconds) in tree.iter().rev() {
        let time = nix::sys::time::TimeSpec::new(i64::from(*seconds), 0);
        let flags = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
        nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, &root.join(parts.join("/")), &time, &time, flags)
            .ok();
    }
}

/// Everything of a tree that an archive says.
fn facts(root: &Path) -> BTreeMap<PathBuf, String> {
    let said = |path: &Path| {
        let found = fs::symlink_metadata(path).unwrap();
        let content = match found.file_type() {
            kind if kind.is_symlink() => format!("{:?}", fs::read_link(path).unwrap()),
            kind if kind.is_dir() => String::new(),
            _ => format!("{} {:?}", found.nlink(), fs::read(path).unwrap()),
        };
        format!("{:o} {} {} {} {content}", found.mode(), found.uid(), found.gid(), found.mtime())
    };
    let relative = |path: &PathBuf| path.strip_prefix(root).unwrap().to_owned();
    snapshot(root).keys().filter(|path| *path != root).map(|path| (relative(path), said(path))).collect()
}

fn tar(arguments: &[&str], folder: &Path, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("tar")
        .arg("-C")
        .arg(folder)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().ok();
    assert!(output.status.success(), "tar {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The tree as an archive of ours, below the folder `tree`.
fn pack(root: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = TarWriter::new(&mut bytes, 1_000_000_000);
    let folder = fs::File::open(root).unwrap();
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    writer.tree(folder.as_fd(), "/tree", uid, gid).unwrap();
    writer.finish().unwrap();
    bytes
}

/// Without times and numbers of links, which our archives have no two of.
fn bare(facts: BTreeMap<PathBuf, String>) -> BTreeMap<PathBuf, String> {
    facts
        .into_iter()
        .map(|(path, text)| {
            let mut words: Vec<&str> = text.splitn(6, ' ').collect();
            words[3] = "";
            if words.len() == 6 {
                words[4] = "";
            }
            (path, words.join(" "))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_gnu_tar_packs_is_unpacked_to_the_same_tree(tree in trees()) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("tree");
        fs::create_dir(&root).unwrap();
        make(&root, &tree);
        for format in ["gnu", "posix"] {
            let archive = tar(&["-c", &format!("--format={format}"), "--numeric-owner", "."], &root, b"");
            let ground = Ground::new();
            let unpacked = ground.unpack_bytes(&archive, &Limits::default());
            prop_assert!(unpacked.is_ok(), "{:?}", unpacked);
            prop_assert_eq!(facts(&ground.root()), facts(&root));
        }
    }

    #[test]
    fn what_is_packed_here_is_unpacked_here_and_by_gnu_tar_to_the_same_tree(tree in trees()) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("tree");
        fs::create_dir(&root).unwrap();
        make(&root, &tree);
        let archive = pack(&root);
        let ground = Ground::new();
        ground.unpack_bytes(&archive, &Limits::default()).unwrap();
        prop_assert_eq!(bare(facts(&ground.root().join("tree"))), bare(facts(&root)));
        let other = dir.path().join("other");
        fs::create_dir(&other).unwrap();
        tar(&["-xp", "--delay-directory-restore"], &other, &archive);
        prop_assert_eq!(bare(facts(&other.join("tree"))), bare(facts(&root)));
        // Packed once more, it is the same archive.
        prop_assert_eq!(pack(&ground.root().join("tree")), archive);
    }
}
