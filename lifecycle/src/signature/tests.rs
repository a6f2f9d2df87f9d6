use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;

const INSTANT: i64 = 1_700_000_000;

fn owner() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

/// A layer with a bit of everything.
fn layer() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("lib/deep")).unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    fs::write(dir.path().join("lib/a"), "one").unwrap();
    fs::write(dir.path().join("lib/b"), "two").unwrap();
    fs::write(dir.path().join("lib/deep/c"), "three").unwrap();
    symlink("a", dir.path().join("lib/link")).unwrap();
    dir
}

fn opened(dir: &tempfile::TempDir) -> File {
    File::open(dir.path()).unwrap()
}

fn sealed(dir: &tempfile::TempDir) -> Digest {
    let signature = seal(opened(dir).as_fd(), owner(), INSTANT).unwrap();
    signature.newest.settle();
    signature.digest
}

fn now(dir: &tempfile::TempDir) -> Digest {
    look(opened(dir).as_fd()).unwrap().digest
}

#[test]
fn what_nobody_touched_is_what_it_was() {
    let dir = layer();
    let known = sealed(&dir);
    assert_eq!(now(&dir), known);
    for path in ["", "empty", "lib", "lib/a", "lib/link", "lib/deep/c"] {
        let about = fs::symlink_metadata(dir.path().join(path)).unwrap();
        assert_eq!((about.mtime(), about.mtime_nsec()), (INSTANT, 0), "{path}");
    }
    // Moved to another folder, as a whole.
    let other = tempfile::tempdir().unwrap();
    fs::rename(dir.path(), other.path().join("moved")).unwrap();
    let moved = File::open(other.path().join("moved")).unwrap();
    assert_eq!(look(moved.as_fd()).unwrap().digest, known);
}

/// Each way to change a layer, with the old size and the old time of the content wherever somebody can have them.
#[test]
fn whatever_is_changed_shows() {
    type Change = fn(&Path);
    let keep_time = |path: &Path| {
        let time = TimeSpec::new(INSTANT, 0);
        utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink).unwrap();
    };
    let changes: &[(&str, Change)] = &[
        ("content", |dir| fs::write(dir.join("lib/a"), "eno").unwrap()),
        ("another file", |dir| {
            fs::write(dir.join("lib/new"), "eno").unwrap();
            fs::rename(dir.join("lib/new"), dir.join("lib/a")).unwrap();
        }),
        ("exchanged", |dir| {
            fs::rename(dir.join("lib/a"), dir.join("lib/x")).unwrap();
            fs::rename(dir.join("lib/b"), dir.join("lib/a")).unwrap();
            fs::rename(dir.join("lib/x"), dir.join("lib/b")).unwrap();
        }),
        ("a file more", |dir| fs::write(dir.join("empty/new"), "").unwrap()),
        ("a file less", |dir| fs::remove_file(dir.join("lib/b")).unwrap()),
        ("a folder more", |dir| fs::create_dir(dir.join("empty/new")).unwrap()),
        ("a folder less", |dir| fs::remove_dir(dir.join("empty")).unwrap()),
        ("a folder's mode", |dir| {
            fs::set_permissions(dir.join("lib/deep"), Permissions::from_mode(0o700)).unwrap();
        }),
        ("the layer's own mode", |dir| fs::set_permissions(dir, Permissions::from_mode(0o777)).unwrap()),
        ("mode", |dir| fs::set_permissions(dir.join("lib/a"), Permissions::from_mode(0o755)).unwrap()),
        ("link", |dir| {
            fs::remove_file(dir.join("lib/link")).unwrap();
            symlink("b", dir.join("lib/link")).unwrap();
        }),
        ("a second name elsewhere", |dir| {
            let other = dir.with_extension("other");
            fs::hard_link(dir.join("lib/a"), &other).unwrap();
            fs::remove_file(other).unwrap();
        }),
        ("renamed", |dir| fs::rename(dir.join("lib/a"), dir.join("lib/aa")).unwrap()),
        ("moved down", |dir| fs::rename(dir.join("lib/deep/c"), dir.join("lib/c")).unwrap()),
        ("a folder moved", |dir| fs::rename(dir.join("lib/deep"), dir.join("empty/deep")).unwrap()),
    ];
    for (what, change) in changes {
        let dir = layer();
        let known = sealed(&dir);
        change(dir.path());
        for path in ["", "empty", "lib", "lib/a", "lib/b", "lib/link", "lib/deep"] {
            let path = dir.path().join(path);
            if path.symlink_metadata().is_ok() {
                keep_time(&path);
            }
        }
        assert_ne!(now(&dir), known, "{what}");
    }
}

#[test]
fn times_alone_are_no_signature() {
    // Only touched: that is a change, because it cannot be told from one.
    let dir = layer();
    let known = sealed(&dir);
    let time = TimeSpec::new(INSTANT, 0);
    let path = dir.path().join("lib/a");
    utimensat(nix::fcntl::AT_FDCWD, &path, &time, &time, UtimensatFlags::NoFollowSymlink).unwrap();
    assert_ne!(now(&dir), known);
}

#[test]
fn what_an_archive_would_not_bring_back_has_no_signature() {
    type Change = fn(&Path);
    let changes: &[(&str, Change)] = &[
        ("`lib/a` has more names than one", |dir| {
            fs::hard_link(dir.join("lib/a"), dir.join("lib/hard")).unwrap();
        }),
        ("`lib/pipe` is no file, folder or link", |dir| {
            nix::unistd::mkfifo(&dir.join("lib/pipe"), Mode::S_IRWXU).unwrap();
        }),
        ("`lib/socket` is no file, folder or link", |dir| {
            drop(std::os::unix::net::UnixListener::bind(dir.join("lib/socket")).unwrap());
        }),
        ("`lib/.wh.a` is named like a deleted file", |dir| fs::write(dir.join("lib/.wh.a"), "").unwrap()),
        ("`lib/a` has attributes", |dir| attribute(&dir.join("lib/a"))),
        ("`` has attributes", attribute),
    ];
    for (what, change) in changes {
        let dir = layer();
        change(dir.path());
        let error = seal(opened(&dir).as_fd(), owner(), INSTANT).unwrap_err().to_string();
        assert_eq!(error, format!("{what}, which its archive would not bring back"));
    }
    let dir = layer();
    let (uid, gid) = owner();
    let error = seal(opened(&dir).as_fd(), (uid, gid + 1), INSTANT).unwrap_err().to_string();
    assert_eq!(error, "`` belongs to somebody else, which its archive would not bring back");
    // Of the layer's own folder, whose last change does not count, attributes are asked for each time.
    let known = sealed(&dir);
    assert_eq!(now(&dir), known);
    attribute(dir.path());
    assert!(look(opened(&dir).as_fd()).is_err());
}

fn attribute(path: &Path) {
    rustix::fs::lsetxattr(path, "user.x", b"y", rustix::fs::XattrFlags::empty()).unwrap();
}

#[test]
fn too_deep_a_layer_has_no_signature() {
    let dir = tempfile::tempdir().unwrap();
    let mut path = dir.path().to_owned();
    (0..folder::DEPTH + 2).for_each(|_| path.push("d"));
    fs::create_dir_all(&path).unwrap();
    let error = look(opened(&dir).as_fd()).unwrap_err().to_string();
    assert!(error.ends_with(": folders of a layer may be 256 deep, no more"), "{error}");
}

#[test]
fn only_file_systems_that_are_known_to_tell_are_asked() {
    let (overlay, nfs, fuse, cifs, nine) = (0x794c_7630, 0x6969, 0x6573_5546, 0xff53_4d42, 0x0102_1997);
    let tmpfs = 0x0102_1994;
    for kind in [overlay, nfs, fuse, cifs, nine, tmpfs] {
        assert!(!is_known(kind), "{kind:x}");
    }
    assert!(is_known(0xef53));
    assert!(!tells_of_changes(Path::new("/proc/self")).unwrap(), "proc");
}

#[test]
fn a_file_system_that_shows_no_changes_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let probe = Probe::new(dir.path().join("probe")).unwrap();
    let before = probe.before;
    assert!(probe.shows().unwrap());
    // Whatever was seen before the probe was made is older than what changes now, also on kernels whose clock ticks.
    let mut newest = Newest::default();
    newest.saw(before.changed);
    assert!(std::time::SystemTime::now() >= newest.time() + crate::stamp::TICK);
    assert!(!dir.path().join("probe").exists());
    let later = (before.changed.0 + 1, 0);
    assert!(shows(&before, &Stamp { changed: later, ..before }));
    assert!(!shows(&before, &before), "no time of the last change");
    assert!(!shows(&before, &Stamp { changed: (0, 0), ..before }), "one that goes back");
    assert!(!shows(&before, &Stamp { changed: later, inode: 1, ..before }), "numbers that do not stay");
    assert!(!shows(&before, &Stamp { changed: later, modified: later, ..before }), "times that do not stay");
}
