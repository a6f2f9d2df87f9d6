//! Archives of few names that get in each other's way, against a model that is too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use coracle_images::unpack::{Limits, unpack_layer};

use crate::layers::{me, remove};

/// A path of the archive, in parts.
type Parts = Vec<String>;

#[derive(Debug)]
enum Act {
    File(Parts),
    Folder(Parts),
    Symlink(Parts),
    Link(Parts, Parts),
    Whiteout(Parts),
    Opaque(Parts),
}

/// What is at a path; files with a number that tells whose content it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    File(usize),
    Folder { opaque: bool },
    Symlink,
    Whiteout,
}

type Tree = BTreeMap<Parts, Node>;

/// Three bytes an act: what, where, and where to. Every path has one to three parts, each `a`, `b` or `c`.
pub fn whiteouts(bytes: &[u8]) {
    let parts = |byte: u8| -> Parts {
        let part = |shift: u8| ["a", "b", "c"][usize::from(byte >> shift & 3) % 3].to_owned();
        (0..=byte >> 6).take(3).map(|i| part(i * 2)).collect()
    };
    let acts: Vec<Act> = bytes
        .chunks_exact(3)
        .take(40)
        .map(|chunk| match (chunk[0] % 6, parts(chunk[1]), parts(chunk[2])) {
            (0, path, _) => Act::File(path),
            (1, path, _) => Act::Folder(path),
            (2, path, _) => Act::Symlink(path),
            (3, path, target) => Act::Link(path, target),
            (4, path, _) => Act::Whiteout(path),
            (_, path, _) => Act::Opaque(path),
        })
        .collect();
    let ground = tempfile::Builder::new().prefix("fuzz").tempdir().expect("make a folder");
    let root = ground.path().join("root");
    fs::create_dir(&root).expect("make the root");
    let folder = fs::File::open(&root).expect("open the root");
    let unpacked = unpack_layer(&archive(&acts)[..], folder.as_fd(), &me(), &Limits::default());
    match (unpacked, model(&acts)) {
        (Ok(_), Some(expected)) => {
            let mut found = Tree::new();
            read(&root, &mut Vec::new(), &mut found);
            assert_eq!(found, expected, "{acts:#?}");
        }
        (Err(_), None) => {}
        (unpacked, expected) => panic!("{unpacked:?} where the model says {expected:?}\n{acts:#?}"),
    }
    remove(&root);
}

fn archive(acts: &[Act]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (number, act) in acts.iter().enumerate() {
        let hidden = |path: &Parts| {
            let (name, above) = path.split_last().expect("a path has a part");
            [above, &[format!(".wh.{name}")]].concat().join("/")
        };
        let (kind, name, link) = match act {
            Act::File(path) => (b'0', path.join("/"), String::new()),
            Act::Folder(path) => (b'5', path.join("/"), String::new()),
            Act::Symlink(path) => (b'2', path.join("/"), "/proc/self/cwd".to_owned()),
            Act::Link(path, target) => (b'1', path.join("/"), target.join("/")),
            Act::Whiteout(path) => (b'0', hidden(path), String::new()),
            Act::Opaque(path) => (b'0', format!("{}/.wh..wh..opq", path.join("/")), String::new()),
        };
        let data = if matches!(act, Act::File(_)) { number.to_string() } else { String::new() };
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.as_old_mut().linkflag = [kind];
        header.set_mode(0o755);
        header.set_size(data.len() as u64);
        for set in [tar::Header::set_uid, tar::Header::set_gid, tar::Header::set_mtime] {
            set(&mut header, 0);
        }
        header.set_cksum();
        archive.extend(header.as_bytes());
        archive.extend(data.as_bytes());
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive
}

fn read(folder: &Path, at: &mut Parts, found: &mut Tree) {
    for entry in fs::read_dir(folder).expect("list a folder").flatten() {
        let metadata = fs::symlink_metadata(entry.path()).expect("look at a file");
        at.push(entry.file_name().into_string().expect("a name of ours"));
        let node = match metadata.file_type() {
            kind if kind.is_dir() => {
                let mut value = [0; 8];
                let opaque = rustix::fs::lgetxattr(entry.path(), "user.overlay.opaque", &mut value[..]);
                Node::Folder { opaque: opaque.is_ok() }
            }
            kind if kind.is_symlink() => Node::Symlink,
            kind if kind.is_char_device() => {
                assert_eq!(metadata.rdev(), 0);
                Node::Whiteout
            }
            _ => Node::File(fs::read_to_string(entry.path()).expect("read").parse().expect("a number")),
        };
        let is_folder = matches!(node, Node::Folder { .. });
        found.insert(at.clone(), node);
        if is_folder {
            read(&entry.path(), at, found);
        }
        at.pop();
    }
}

/// The tree as the specification has it, or nothing where the archive must be refused: entries in their order, links
/// whose target comes later at the end, then what they say of the layers below.
fn model(acts: &[Act]) -> Option<Tree> {
    let mut tree = Tree::new();
    let mut later: Vec<(Parts, Parts)> = Vec::new();
    for (number, act) in acts.iter().enumerate() {
        match act {
            Act::File(path) => put(&mut tree, &mut later, path, Node::File(number)),
            Act::Symlink(path) => put(&mut tree, &mut later, path, Node::Symlink),
            Act::Folder(path) => {
                if !matches!(tree.get(path), Some(Node::Folder { .. })) {
                    put(&mut tree, &mut later, path, Node::Folder { opaque: false });
                }
            }
            Act::Link(path, target) if path == target => {
                tree.get(path).filter(|node| !matches!(node, Node::Folder { .. }))?;
            }
            Act::Link(path, target) => {
                clear(&mut tree, &mut later, path);
                match tree.get(target).cloned() {
                    Some(Node::Folder { .. }) => return None,
                    // A file cannot be a folder as well.
                    Some(_) if path.starts_with(target) => return None,
                    Some(node) => put(&mut tree, &mut later, path, node),
                    None => later.push((path.clone(), target.clone())),
                }
            }
            Act::Whiteout(_) | Act::Opaque(_) => {}
        }
    }
    for (path, target) in std::mem::take(&mut later) {
        if !tree.contains_key(&path) {
            let node = tree.get(&target).filter(|node| !matches!(node, Node::Folder { .. }))?.clone();
            if path.starts_with(&target) {
                return None;
            }
            put(&mut tree, &mut later, &path, node);
        }
    }
    let blocked = |tree: &Tree, path: &Parts| {
        (1..path.len()).any(|depth| !matches!(tree.get(&path[..depth]), None | Some(Node::Folder { .. })))
    };
    let opaque: BTreeSet<&Parts> =
        acts.iter().filter_map(|a| if let Act::Opaque(p) = a { Some(p) } else { None }).collect();
    let hidden: BTreeSet<&Parts> =
        acts.iter().filter_map(|a| if let Act::Whiteout(p) = a { Some(p) } else { None }).collect();
    for path in &opaque {
        if blocked(&tree, path) || matches!(tree.get(*path), Some(Node::File(_) | Node::Symlink)) {
            continue;
        }
        put(&mut tree, &mut later, path, Node::Folder { opaque: true });
    }
    for path in hidden {
        match tree.get(path) {
            Some(Node::Folder { .. }) => drop(tree.insert(path.clone(), Node::Folder { opaque: true })),
            Some(_) => {}
            None if blocked(&tree, path) => {}
            None => put(&mut tree, &mut later, path, Node::Whiteout),
        }
    }
    Some(tree)
}

/// Puts this at a path, with the folders above it. A folder keeps what is in it.
fn put(tree: &mut Tree, later: &mut Vec<(Parts, Parts)>, path: &Parts, node: Node) {
    match (&node, tree.get(path)) {
        (Node::Folder { .. }, Some(Node::Folder { .. }) | None) => {}
        (Node::Folder { .. }, Some(_)) => drop(tree.remove(path)),
        _ => clear(tree, later, path),
    }
    for depth in 1..path.len() {
        let above = path[..depth].to_vec();
        if !matches!(tree.get(&above), Some(Node::Folder { .. })) {
            tree.insert(above, Node::Folder { opaque: false });
        }
    }
    tree.insert(path.clone(), node);
}

fn clear(tree: &mut Tree, later: &mut Vec<(Parts, Parts)>, path: &Parts) {
    tree.retain(|known, _| !known.starts_with(path));
    later.retain(|(known, _)| !known.starts_with(path));
}
