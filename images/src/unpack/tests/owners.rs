//! Whose files are, and their attributes: T30, T31.

use super::*;

/// Ids as in a container with 65,536 of them.
struct Range;

impl OwnerMap for Range {
    fn owner(&self, uid: u64, gid: u64) -> Result<(u32, u32), OwnerError> {
        if uid.max(gid) > 65_535 {
            return Err(OwnerError { uid, gid, why: "WHY".into() });
        }
        let me = nix::unistd::geteuid().as_raw();
        Ok((me, nix::unistd::getegid().as_raw()))
    }
}

#[test]
fn t30_ids_are_never_cut_to_size() {
    let unpack = |tar: Tar| {
        let ground = Ground::new();
        let root = fs::File::open(ground.root()).unwrap();
        let result = unpack_layer(&tar.0[..], root.as_fd(), &Range, &Limits::default());
        assert_eq!(ground.tree().len(), usize::from(result.is_ok()));
        result.map_err(|error| with_causes(&error))
    };
    let expected = |id: u64| {
        Err(format!("cannot give `a` its owner: the image's user {id} and group 0 have no place here: WHY"))
    };
    for id in [65_536, 70_000, 1 << 31, u64::from(u32::MAX), 4_294_967_301, u64::MAX] {
        assert_eq!(unpack(Tar::default().pax("uid", id.to_string()).file("a", "")), expected(id));
    }
    for id in [1_u64 << 31, u64::from(u32::MAX), 4_294_967_301] {
        let field = [&[0x80, 0, 0][..], &id.to_be_bytes()[3..]].concat();
        assert_eq!(unpack(Tar::default().raw(b'0', "a", "", 0o644, b"").field(108, &field)), expected(id));
    }
    let negative = "the archive is damaged at byte 512: a header's number is out of range".to_owned();
    assert_eq!(unpack(Tar::default().raw(b'0', "a", "", 0o644, b"").field(108, &[0xff; 8])), Err(negative));
    // Names mean nothing: what `root` is on this machine is nobody's in the image.
    let lies = Tar::default().raw(b'0', "a", "", 0o644, b"").field(265, b"root").field(297, b"wheel");
    assert_eq!(unpack(lies).unwrap().entries, 1);
    assert_eq!(unpack(Tar::default().pax("uid", "65535").file("a", "")).unwrap().entries, 2);
}

#[test]
fn t30_owners_are_set_on_links_themselves() {
    if !nix::unistd::geteuid().is_root() {
        return in_user_namespace("unpack::tests::owners::t30_owners_are_set_on_links_themselves");
    }
    let ground = Ground::new();
    let root = fs::File::open(ground.root()).unwrap();
    let other = SingleOwner { uid: 1234, gid: 567 };
    let tar = Tar::default()
        .raw(b'0', "owned", "", 0o4755, b"x")
        .symlink("l", "owned")
        .raw(b'6', "p", "", 0o644, b"");
    unpack_layer(&tar.0[..], root.as_fd(), &other, &Limits::default()).unwrap();
    for name in ["owned", "l", "p"] {
        let metadata = fs::symlink_metadata(ground.root().join(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (1234, 567), "{name}");
    }
    assert_eq!(fs::metadata(ground.root().join("owned")).unwrap().mode() & 0o7777, 0o4755);
}

/// Says that this is a user namespace.
const INSIDE: &str = "CORACLE_TEST_INSIDE";

/// Runs a test once more as root of a user namespace with the user's subordinate ids, as workers do. Root itself has no
/// such ids.
fn in_user_namespace(test: &str) {
    let root = nix::unistd::geteuid().is_root();
    let map: &[&str] = if root { &["--map-root-user"] } else { &["--map-root-user", "--map-auto"] };
    let ran = std::process::Command::new("unshare")
        .arg("--user")
        .args(map)
        .env(INSIDE, "1")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

#[test]
fn t31_attributes_that_steer_others_are_dropped_and_told() {
    let kept = ["user.note", "user.overlayed"];
    let dropped = [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.metacopy",
        "trusted.x",
        "user.overlay.opaque",
        "user.overlay.redirect",
        "user.overlay.metacopy",
        "user.overlay.whiteout",
        "user.containers.override_stat",
        "user.rootlesscontainers",
        "user.fuseoverlayfs.opaque",
        "security.selinux",
        "security.ima",
        "security.evm",
        "security.apparmor",
        "system.posix_acl_access",
        "system.nfs4_acl",
        "",
    ];
    let ground = Ground::new();
    let records: Vec<u8> =
        kept.iter().chain(&dropped).flat_map(|name| record(&format!("SCHILY.xattr.{name}"), b"v")).collect();
    let unpacked = ground.unpack(Tar::default().raw(b'x', "p", "", 0, &records).file("a", "x")).unwrap();
    assert_eq!(unpacked.attributes, dropped.map(|name| format!("a: {name}")));
    let mut names = [0_u8; 1024];
    let length = rustix::fs::llistxattr(ground.root().join("a"), &mut names[..]).unwrap();
    let mut found: Vec<_> = names[..length]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    found.sort();
    assert_eq!(found, kept);
    // On folders too; and a name of the archive is shown harmlessly.
    let unpacked = ground.unpack(Tar::default().pax("SCHILY.xattr.\u{1b}x", "v").folder("d", 0o755)).unwrap();
    assert_eq!(unpacked.attributes, ["d: \\u{1b}x"]);
}

#[test]
fn t31_file_capabilities_in_a_user_namespace() {
    if std::env::var_os(INSIDE).is_none() {
        return in_user_namespace("unpack::tests::owners::t31_file_capabilities_in_a_user_namespace");
    }
    // linux/capability.h: revision and flags, then permitted and inheritable sets; since revision 3 the id of root.
    let v1 = [&0x0100_0000_u32.to_le_bytes()[..], &[0; 8]].concat();
    let v2 = [&0x0200_0001_u32.to_le_bytes()[..], &(1_u32 << 10).to_le_bytes(), &[0; 12]].concat();
    let v3 = |root: u32| {
        [&0x0300_0001_u32.to_le_bytes()[..], &(1_u32 << 10).to_le_bytes(), &[0; 12], &root.to_le_bytes()]
            .concat()
    };
    let stored = |value: &[u8]| {
        let ground = Ground::new();
        let unpacked = ground
            .unpack(Tar::default().pax("SCHILY.xattr.security.capability", value).file("a", "x"))
            .unwrap();
        let mut found = [0; 64];
        let length = rustix::fs::lgetxattr(ground.root().join("a"), "security.capability", &mut found[..]);
        (length.ok().map(|length| found[..length].to_vec()), unpacked.attributes)
    };
    let dropped = (None, vec!["a: security.capability".to_owned()]);
    assert_eq!(stored(&v2), (Some(v2.clone()), Vec::new()), "read back in the namespace of the writer");
    assert_eq!(stored(&v1), dropped);
    assert_eq!(stored(b"rubbish"), dropped);
    // Root of this namespace may be named; an id that is not mapped may not.
    assert_eq!(stored(&v3(u32::MAX - 1)), dropped);
}
