//! Layers made of what lies on the host: whole archives, folders, small files. They end in the store, compressed, but
//! belong to no image yet.

use std::fs::{self, File};
use std::io::{self, BufReader, Cursor, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use coracle_images::pack::{EPOCH, TarWriter};
use coracle_images::{Layer, LayerCompression, LayerWriter, Store, uncompressed};
use serde::{Deserialize, Serialize};

use super::{AnyError, Job};
use crate::stage::STORE;

/// Make these layers, one for each source.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PackLayers {
    pub(crate) layers: Vec<LayerSource>,
}

/// What one layer is made of. Paths on the host are those in the stage's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LayerSource {
    /// An archive that is a layer as it is.
    Archive(PathBuf),
    /// Entries, in this order.
    Entries(Vec<Entry>),
}

/// A part of a layer. Nothing of the host's owners, times and finer permissions enters a layer, so that equal content
/// gives equal digests: folders and programs are 0755, other files 0644.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Entry {
    /// An empty folder.
    Folder { path: String, uid: u32, gid: u32 },
    /// A file of root's.
    File { path: String, text: String },
    /// A folder of the host with all below it, root's.
    Tree { source: PathBuf, path: String },
}

impl Job for PackLayers {
    type Answer = Vec<Layer>;

    fn carry_out(self) -> Result<Vec<Layer>, AnyError> {
        let store = Store::open(STORE)?;
        self.layers.iter().map(|source| pack(&store, source)).collect()
    }
}

fn pack(store: &Store, source: &LayerSource) -> Result<Layer, AnyError> {
    let mut layer = LayerWriter::new(store.writer()?, LayerCompression::default());
    match source {
        LayerSource::Archive(path) => {
            io::copy(&mut open_archive(path)?, &mut layer)
                .map_err(|error| format!("could not read the archive to its end: {error}"))?;
        }
        LayerSource::Entries(entries) => {
            let mut tar = TarWriter::new(&mut layer, EPOCH);
            entries.iter().try_for_each(|entry| write_entry(&mut tar, entry))?;
            tar.finish()?;
        }
    }
    let (blob, written) = layer.finish()?;
    blob.commit(Some(&written.digest))?;
    Ok(written.layer())
}

/// The archive's uncompressed bytes. Looked at before anything is stored: what else is given by mistake (another
/// compression, an image that was saved, a web page) is told at once.
fn open_archive(path: &Path) -> Result<impl Read, AnyError> {
    const BLOCK: u64 = 512;
    let mut archive = uncompressed(BufReader::with_capacity(1 << 17, File::open(path)?))?;
    let mut header = Vec::new();
    archive.by_ref().take(BLOCK).read_to_end(&mut header)?;
    // tar(5): `ustar` at 257 marks both of the formats in use, POSIX's and GNU's.
    if header.get(257..262) != Some(b"ustar") {
        return Err(
            "it is not a tar archive; plain ones and those compressed with gzip or zstd can be imported"
                .into(),
        );
    }
    Ok(Cursor::new(header).chain(archive))
}

fn write_entry(tar: &mut TarWriter<'_>, entry: &Entry) -> Result<(), AnyError> {
    match entry {
        Entry::Folder { path, uid, gid } => Ok(tar.folder(path, 0o755, *uid, *gid)?),
        Entry::File { path, text } => {
            Ok(tar.file(path, 0o644, 0, 0, text.len() as u64, &mut text.as_bytes())?)
        }
        Entry::Tree { source, path } => {
            tar.folder(path, 0o755, 0, 0)?;
            write_below(tar, source, path)
        }
    }
}

/// What is in a folder, in the order of the names' bytes; links are kept, not followed.
fn write_below(tar: &mut TarWriter<'_>, folder: &Path, image_path: &str) -> Result<(), AnyError> {
    let at = |error: io::Error| format!("{image_path}: {error}");
    let mut names = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>())
        .map_err(at)?;
    names.sort_unstable();
    for name in names {
        let source = folder.join(&name);
        let name =
            name.to_str().ok_or_else(|| format!("{image_path}/{}: its name is not UTF-8", name.display()))?;
        let path = format!("{image_path}/{name}");
        let at = |error: io::Error| format!("{path}: {error}");
        let found = fs::symlink_metadata(&source).map_err(at)?;
        if found.is_dir() {
            tar.folder(&path, 0o755, 0, 0)?;
            write_below(tar, &source, &path)?;
        } else if found.is_symlink() {
            let target = fs::read_link(&source).map_err(at)?;
            let target = target.to_str().ok_or_else(|| format!("{path}: its target is not UTF-8"))?;
            tar.symlink(&path, target, 0o777, 0, 0)?;
        } else if found.is_file() {
            let mode = if found.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
            let mut file = File::open(&source).map_err(at)?;
            tar.file(&path, mode, 0, 0, found.len(), &mut file)?;
        } else {
            return Err(format!("{path}: it is neither a file, a folder nor a link").into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(folder: &Path) -> Result<Vec<u8>, AnyError> {
        let mut bytes = Vec::new();
        let mut tar = TarWriter::new(&mut bytes, EPOCH);
        write_entry(&mut tar, &Entry::Tree { source: folder.to_owned(), path: "/cnb/x".to_owned() })?;
        tar.finish()?;
        Ok(bytes)
    }

    #[test]
    fn modes_and_owners_of_the_host_do_not_matter() {
        let make = |file: u32, program: u32| {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("bin")).unwrap();
            for (name, mode) in [("bin/build", program), ("b.toml", file)] {
                fs::write(folder.path().join(name), name).unwrap();
                fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
            }
            std::os::unix::fs::symlink("bin/build", folder.path().join("link")).unwrap();
            packed(folder.path()).unwrap()
        };
        let bytes = make(0o644, 0o755);
        assert_eq!(bytes, make(0o600, 0o700));
        assert_eq!(bytes, make(0o664, 0o4775));
        let names: Vec<String> = bytes
            .chunks(512)
            .filter(|block| block[257..262] == *b"ustar")
            .map(|block| String::from_utf8_lossy(&block[..100]).trim_end_matches('\0').to_owned())
            .collect();
        assert_eq!(names, ["/cnb/x", "/cnb/x/b.toml", "/cnb/x/bin", "/cnb/x/bin/build", "/cnb/x/link"]);
    }

    #[test]
    fn what_has_no_place_in_a_layer_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        let error = packed(folder.path()).unwrap_err().to_string();
        assert_eq!(error, "/cnb/x/socket: it is neither a file, a folder nor a link");
    }

    #[test]
    fn only_archives_are_taken_for_archives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it");
        for content in [&b""[..], b"<html>", &[0; 2048]] {
            fs::write(&path, content).unwrap();
            let error = open_archive(&path).err().expect("an error").to_string();
            assert!(error.starts_with("it is not a tar archive"), "{error}");
        }
        fs::write(&path, b"\xfd7zXZ\0").unwrap();
        let error = open_archive(&path).err().expect("an error").to_string();
        assert!(
            error.starts_with("it is compressed with xz; layers are plain, or compressed with"),
            "{error}"
        );
        let mut bytes = Vec::new();
        let mut tar = TarWriter::new(&mut bytes, EPOCH);
        tar.folder("x", 0o755, 0, 0).unwrap();
        tar.finish().unwrap();
        fs::write(&path, &bytes).unwrap();
        let mut read = Vec::new();
        open_archive(&path).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
    }
}
