//! Archives, extended headers, and compressed layers.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use coracle_images::uncompressed;
use coracle_images::unpack::{Limits, SingleOwner, UnpackError, Unpacked, unpack_layer};

/// Small, so that asking for much is refused soon.
fn limits() -> Limits {
    Limits { entries: 200, bytes: 1 << 20, ..Limits::default() }
}

/// Unpacks beside a canary and looks at what there is afterwards.
fn unpack(archive: impl Read) -> Result<Unpacked, UnpackError> {
    let ground = tempfile::Builder::new().prefix("fuzz").tempdir().expect("make a folder");
    let root = ground.path().join("root");
    fs::create_dir(&root).expect("make the root");
    fs::write(ground.path().join("canary"), "sings").expect("write the canary");
    let folder = fs::File::open(&root).expect("open the root");
    let unpacked = unpack_layer(archive, folder.as_fd(), &me(), &limits());
    let mut beside: Vec<_> =
        fs::read_dir(ground.path()).expect("list").flatten().map(|e| e.file_name()).collect();
    beside.sort();
    assert_eq!(beside, ["canary", "root"], "something was made beside the root");
    assert_eq!(fs::read(ground.path().join("canary")).expect("read the canary"), b"sings");
    match &unpacked {
        Ok(unpacked) => assert!(unpacked.entries <= limits().entries && unpacked.bytes <= limits().bytes),
        Err(error) => assert!(!error.to_string().contains(|c: char| c.is_control()), "{error}"),
    }
    remove(&root);
    unpacked
}

pub(crate) fn me() -> SingleOwner {
    SingleOwner { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
}

/// Also folders that an archive closed.
pub(crate) fn remove(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).expect("open a folder");
    for entry in fs::read_dir(folder).expect("list a folder").flatten() {
        if entry.file_type().expect("look at a file").is_dir() {
            remove(&entry.path());
        } else {
            fs::remove_file(entry.path()).expect("remove a file");
        }
    }
    fs::remove_dir(folder).expect("remove a folder");
}

/// An uncompressed archive. Every header's checksum is made right, or no mutation would come further.
pub fn archive(bytes: &[u8]) {
    let mut archive = bytes.to_vec();
    let mut at = 0;
    while let Some(block) = archive.get_mut(at..at + 512) {
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
            .sum();
        // A header is told from data by what a checksum starts with.
        if block[148] == b'0' {
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        at += 512;
    }
    let _ = unpack(&archive[..]);
    let _ = unpack(bytes);
}

/// The records of an extended header, before a file.
pub fn pax(bytes: &[u8]) {
    let mut archive = Vec::new();
    for (kind, name, data) in [(b'x', "pax", bytes), (b'0', "file", &b""[..])] {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkflag = [kind];
        header.set_size(data.len() as u64);
        for set in [tar::Header::set_uid, tar::Header::set_gid, tar::Header::set_mtime] {
            set(&mut header, 0);
        }
        header.set_mode(0o644);
        header.set_cksum();
        archive.extend(header.as_bytes());
        archive.extend(data);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    if let Ok(unpacked) = unpack(&archive[..]) {
        assert_eq!(unpacked.entries, 2);
    }
}

/// A layer as it comes, compressed in whatever way its first bytes say.
pub fn layer(bytes: &[u8]) {
    if let Ok(archive) = uncompressed(bytes) {
        let _ = unpack(archive);
    }
}
