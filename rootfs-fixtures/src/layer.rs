//! Layers from lists of files: no folder on disk is read, so owners and times are the caller's.

use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// The time of every file: 1980-01-01T00:00:01Z, in seconds.
pub const CLOCK: u64 = 315_532_801;

/// One entry of a layer.
#[derive(Debug, Clone)]
pub struct Entry {
    path: String,
    kind: Kind,
    mode: u32,
    owner: (u64, u64),
}

#[derive(Debug, Clone)]
enum Kind {
    Dir,
    File(Vec<u8>),
    Symlink(String),
    Hardlink(String),
    CharDevice(u32, u32),
    Fifo,
}

impl Entry {
    fn new(path: &str, kind: Kind, mode: u32) -> Self {
        Self { path: path.trim_start_matches('/').to_owned(), kind, mode, owner: (0, 0) }
    }

    /// A folder, mode 0755.
    pub fn dir(path: &str) -> Self {
        Self::new(path, Kind::Dir, 0o755)
    }

    /// A file, mode 0644.
    pub fn file(path: &str, content: impl AsRef<[u8]>) -> Self {
        Self::new(path, Kind::File(content.as_ref().to_vec()), 0o644)
    }

    /// A file, mode 0755.
    pub fn program(path: &str, content: impl AsRef<[u8]>) -> Self {
        Self::new(path, Kind::File(content.as_ref().to_vec()), 0o755)
    }

    /// A symbolic link with any text as its target.
    pub fn symlink(path: &str, target: &str) -> Self {
        Self::new(path, Kind::Symlink(target.to_owned()), 0o777)
    }

    /// A hard link to another entry of the layer.
    pub fn hardlink(path: &str, target: &str) -> Self {
        Self::new(path, Kind::Hardlink(target.to_owned()), 0o644)
    }

    /// A character device.
    pub fn char_device(path: &str, major: u32, minor: u32) -> Self {
        Self::new(path, Kind::CharDevice(major, minor), 0o666)
    }

    /// A named pipe.
    pub fn fifo(path: &str) -> Self {
        Self::new(path, Kind::Fifo, 0o644)
    }

    /// The removal of `path` from the layers below (OCI image specification, "Whiteouts").
    pub fn whiteout(path: &str) -> Self {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        Self::new(&format!("{folder}/.wh.{name}"), Kind::File(Vec::new()), 0o644)
    }

    /// Hides what the layers below have in the folder `path` (OCI image specification, "Opaque Whiteout").
    pub fn opaque(path: &str) -> Self {
        Self::new(&format!("{path}/.wh..wh..opq"), Kind::File(Vec::new()), 0o644)
    }

    /// The same entry with another mode.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// The same entry with another owner.
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.owner = (uid, gid);
        self
    }

    fn write(&self, tar: &mut Vec<u8>) {
        let (kind, size, body) = match &self.kind {
            Kind::Dir => (EntryType::Directory, 0, &[][..]),
            Kind::File(content) => (EntryType::Regular, content.len() as u64, content.as_slice()),
            Kind::Symlink(_) => (EntryType::Symlink, 0, &[][..]),
            Kind::Hardlink(_) => (EntryType::Link, 0, &[][..]),
            Kind::CharDevice(..) => (EntryType::Char, 0, &[][..]),
            Kind::Fifo => (EntryType::Fifo, 0, &[][..]),
        };
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(self.mode);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_mtime(CLOCK);
        if let Kind::CharDevice(major, minor) = self.kind {
            header.set_device_major(major).expect("a ustar header has device numbers");
            header.set_device_minor(minor).expect("a ustar header has device numbers");
        }
        let target = match &self.kind {
            Kind::Symlink(target) | Kind::Hardlink(target) => target.as_str(),
            _ => "",
        };
        // Names go in as raw bytes, so that hostile ones (`../x`, `/x`) reach the reader as they are.
        let long_path = !put(&mut header.as_ustar_mut().expect("ustar").name, &self.path);
        let long_target = !put(&mut header.as_ustar_mut().expect("ustar").linkname, target);
        let mut pax = Vec::new();
        if long_path {
            pax.extend(pax_record("path", &self.path));
        }
        if long_target {
            pax.extend(pax_record("linkpath", target));
        }
        if !pax.is_empty() {
            let mut extended = Header::new_ustar();
            extended.set_entry_type(EntryType::XHeader);
            extended.set_size(pax.len() as u64);
            put(&mut extended.as_ustar_mut().expect("ustar").name, "PaxHeaders.0/entry");
            append(tar, &mut extended, &pax);
        }
        append(tar, &mut header, body);
    }
}

/// Copies as much of `text` as fits; true when that is all of it.
fn put(field: &mut [u8], text: &str) -> bool {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
    text.len() <= field.len()
}

/// `"LENGTH KEY=VALUE\n"`, where the length counts itself (POSIX pax, extended header records).
fn pax_record(key: &str, value: &str) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    format!("{length} {key}={value}\n").into_bytes()
}

fn append(tar: &mut Vec<u8>, header: &mut Header, body: &[u8]) {
    header.set_cksum();
    tar.extend_from_slice(header.as_bytes());
    tar.extend_from_slice(body);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

/// One layer: an uncompressed archive.
#[derive(Debug, Clone)]
pub struct Layer {
    tar: Vec<u8>,
}

impl Layer {
    /// The layer with these entries, in this order.
    pub fn new(entries: &[Entry]) -> Self {
        let mut tar = Vec::new();
        entries.iter().for_each(|entry| entry.write(&mut tar));
        tar.resize(tar.len() + 1024, 0);
        Self { tar }
    }

    /// A layer of any bytes, for layers that are no archives or come from elsewhere.
    pub fn from_tar(tar: Vec<u8>) -> Self {
        Self { tar }
    }

    /// The uncompressed archive.
    pub fn tar(&self) -> &[u8] {
        &self.tar
    }

    /// The digest of the uncompressed archive.
    pub fn diff_id(&self) -> String {
        digest(&self.tar)
    }
}

/// `sha256:` and the digest in hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_reader_sees_what_was_written() {
        let long = format!("a/{}/end", "x".repeat(150));
        let layer = Layer::new(&[
            Entry::dir("/a").owner(1000, 1001),
            Entry::program("a/run", "#!/bin/sh\n"),
            Entry::symlink("a/link", &"y".repeat(120)),
            Entry::file(&long, "deep"),
            Entry::whiteout("a/gone"),
            Entry::opaque("a"),
        ]);
        let mut archive = tar::Archive::new(layer.tar());
        let seen: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                let path = entry.path().unwrap().display().to_string();
                format!("{path} {:o} {}", header.mode().unwrap(), header.uid().unwrap())
            })
            .collect();
        let expected = [
            "a 755 1000".to_owned(),
            "a/run 755 0".to_owned(),
            "a/link 777 0".to_owned(),
            format!("{long} 644 0"),
            "a/.wh.gone 644 0".to_owned(),
            "a/.wh..wh..opq 644 0".to_owned(),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_length_of_a_pax_record_counts_itself() {
        for size in 80..120 {
            let record = pax_record("path", &"z".repeat(size));
            let text = String::from_utf8(record.clone()).unwrap();
            let length: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(length, record.len());
        }
    }

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        assert_eq!(digest(b""), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
