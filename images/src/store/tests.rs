//! The store: what arrives is verified, and nothing half done is visible.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::*;
use crate::compression::{LayerCompression, LayerWriter};
use crate::config::Config;
use crate::digest::Unverified;
use crate::document::{Descriptor, media};
use crate::image::Layer;
use crate::pack::TarWriter;
use crate::unpack::{Allowed, Limits, SingleOwner};

mod archive;
mod hostile;
mod prune;
mod settled;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    (dir, store)
}

fn me() -> SingleOwner {
    SingleOwner { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
}

/// A compressed layer with one read-only folder and a file in it.
fn layer() -> (Vec<u8>, Layer) {
    let mut writer = LayerWriter::new(Vec::new(), LayerCompression::default());
    let mut tar = TarWriter::new(&mut writer, 1);
    tar.folder("/a", 0o555, 0, 0).unwrap();
    tar.file("/a/b", 0o644, 0, 0, 5, &mut &b"hello"[..]).unwrap();
    tar.finish().unwrap();
    let (bytes, written) = writer.finish().unwrap();
    (bytes, written.layer())
}

fn staged(store: &Store) -> Vec<String> {
    let list = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.file_name());
    list(store.root().join("layers/one"))
        .chain(list(store.session.path.clone()))
        .map(|name| name.into_string().unwrap())
        .filter(|name| name != "lock" && name.len() != 64)
        .collect()
}

#[test]
fn content_appears_when_verified() {
    let (_dir, store) = store();
    let mut writer = store.writer().unwrap();
    writer.write_all(b"abc").unwrap();
    let other = Digest::of("other");
    assert!(matches!(writer.commit(Some(&other)), Err(StoreError::OtherContent { .. })));
    assert!(!store.has(&other) && !store.has(&Digest::of("abc")));
    drop(store.writer().unwrap());
    assert_eq!(staged(&store), [""; 0]);
    let mut writer = store.writer().unwrap();
    writer.write_all(b"abc").unwrap();
    let blob = writer.commit(None).unwrap();
    assert_eq!((blob.digest.clone(), blob.size), (Digest::of("abc"), 3));
    assert_eq!(fs::read(store.blob_path(&blob.digest)).unwrap(), b"abc");
    assert_eq!(fs::metadata(store.root()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn names() {
    let (dir, store) = store();
    let image = Image::assemble(Config::default(), Vec::new()).unwrap();
    let name: Reference = "example.org/app:1".parse().unwrap();
    assert_eq!(store.image(&name).unwrap(), None);
    store.put_image(&image).unwrap();
    store.tag(&name, &Descriptor::new("old", Digest::of("old"), 3)).unwrap();
    store.tag(&name, &image.descriptor()).unwrap();
    let found = store.image(&name).unwrap().unwrap();
    assert_eq!((found.reference, found.digest), (Some(name.clone()), image.digest.clone()));
    assert!(store.image(&name.with_digest(image.digest.clone())).unwrap().is_some());
    let again = Store::open(dir.path().join("store")).unwrap();
    let images = again.images().unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!((&images[0].0, &images[0].1.digest), (&name, &image.digest));
}

#[test]
fn damaged_manifest_is_not_an_image() {
    let (_dir, store) = store();
    let image = Image::assemble(Config::default(), Vec::new()).unwrap();
    store.put_image(&image).unwrap();
    let mut bytes = image.manifest_bytes.clone();
    bytes.push(b' ');
    fs::write(store.blob_path(&image.digest), bytes).unwrap();
    let name = "example.org/app".parse::<Reference>().unwrap().with_digest(image.digest);
    assert!(matches!(store.image(&name), Err(StoreError::OtherContent { .. })));
}

#[test]
fn layer_in_one_pass() {
    let (_dir, store) = store();
    let (bytes, layer) = layer();
    let seen = AtomicU64::new(0);
    let (path, unpacked) = ingest_layer(&store, &bytes[..], &layer, "one", &me(), &Limits::default(), &|n| {
        seen.store(n, Relaxed);
    })
    .unwrap();
    assert_eq!(unpacked.unwrap().entries, 2);
    assert_eq!(seen.into_inner(), bytes.len() as u64);
    assert_eq!(fs::read(path.join("a/b")).unwrap(), b"hello");
    assert_eq!(fs::read(store.blob_path(&layer.descriptor.digest)).unwrap(), bytes);
    assert_eq!(store.layer_dir("one", &layer.diff_id), Some(path));
    assert_eq!(store.layer_dir("two", &layer.diff_id), None);
    let (_, again) =
        ingest_layer(&store, io::empty(), &layer, "one", &me(), &Limits::default(), &|_| {}).unwrap();
    assert_eq!(again, None);
    // Opens the read-only folder again, so that the temporary folder can be removed.
    remove_tree(&store.root().join("layers")).unwrap();
}

#[test]
fn a_layer_in_another_compression_is_stored_beside_its_tree() {
    let (_dir, store) = store();
    let (bytes, first) = layer();
    ingest_layer(&store, &bytes[..], &first, "one", &me(), &Limits::default(), &|_| {}).unwrap();
    let mut plain = Vec::new();
    io::copy(
        &mut crate::compression::inflate(&bytes[..], crate::compression::LARGEST_WINDOW).unwrap(),
        &mut plain,
    )
    .unwrap();
    let named = |content: &[u8]| Layer {
        descriptor: Descriptor::new(media::OCI_LAYER, Digest::of(content), content.len() as u64),
        diff_id: first.diff_id.clone(),
    };
    let (_, unpacked) =
        ingest_layer(&store, &plain[..], &named(&plain), "one", &me(), &Limits::default(), &|_| {}).unwrap();
    assert_eq!(unpacked, None, "the tree is there");
    assert_eq!(fs::read(store.blob_path(&Digest::of(&plain))).unwrap(), plain);
    // What claims to be the same layer must be it.
    let other = [&plain[..], &[0; 512]].concat();
    let refused = ingest_layer(&store, &other[..], &named(&other), "one", &me(), &Limits::default(), &|_| {});
    assert!(matches!(refused, Err(IngestError::OtherDiffId { .. })));
    assert!(!store.has(&Digest::of(&other)));
    remove_tree(&store.root().join("layers")).unwrap();
}

#[test]
fn nothing_of_a_wrong_layer_stays() {
    let (_dir, store) = store();
    let (bytes, good) = layer();
    let with = |digest: Digest, size: u64, diff_id: Digest| Layer {
        descriptor: Descriptor::new(media::OCI_LAYER_GZIP, digest, size),
        diff_id,
    };
    let (digest, size) = (good.descriptor.digest.clone(), good.descriptor.size);
    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let longer = [&bytes[..], b"more"].concat();
    for (name, bytes, layer) in [
        ("digest", &bytes[..], with(Digest::of("x"), size, good.diff_id.clone())),
        ("diff id", &bytes[..], with(digest.clone(), size, Digest::of("x"))),
        ("size", &bytes[..], with(digest.clone(), size + 1, good.diff_id.clone())),
        ("smaller", &bytes[..], with(digest.clone(), size - 1, good.diff_id.clone())),
        ("cut", &bytes[..bytes.len() - 9], good.clone()),
        ("flipped", &flipped[..], good.clone()),
        ("longer", &longer[..], good.clone()),
    ] {
        assert!(
            ingest_layer(&store, bytes, &layer, "one", &me(), &Limits::default(), &|_| {}).is_err(),
            "{name}"
        );
        assert_eq!(staged(&store), [""; 0], "{name}");
        assert!(!store.has(&digest), "{name}");
        assert_eq!(store.layer_dir("one", &layer.diff_id), None, "{name}");
    }
}

/// A layer with these bytes, whatever they are.
fn claimed(bytes: &[u8]) -> Layer {
    let descriptor = Descriptor::new(media::OCI_LAYER_GZIP, Digest::of(bytes), bytes.len() as u64);
    Layer { descriptor, diff_id: Digest::of("nobody asks") }
}

#[test]
fn t25_bombs_are_refused_before_they_are_written() {
    let (_dir, store) = store();
    // A file of 2 GiB, and as many of its zeros as would fill an honest layer of this length.
    let mut header = tar::Header::new_ustar();
    header.set_path("zeros").unwrap();
    header.set_size(2 << 30);
    header.set_cksum();
    let content = [&header.as_bytes()[..], &vec![0; 1 << 20]].concat();
    let mut gzip = LayerWriter::new(Vec::new(), LayerCompression::default());
    gzip.write_all(&content).unwrap();
    for bomb in [gzip.finish().unwrap().0, zstd::encode_all(&content[..], 1).unwrap()] {
        let error =
            ingest_layer(&store, &bomb[..], &claimed(&bomb), "one", &me(), &Limits::default(), &|_| {})
                .unwrap_err();
        assert!(matches!(error, IngestError::TooLarge { limit, .. } if limit == 1 << 30), "{error}");
        assert_eq!(staged(&store), [""; 0]);
    }
}

#[test]
fn t25_other_compressions_are_damage() {
    let (_dir, store) = store();
    let (gzip, _) = layer();
    let zeros = [&gzip[..], &[0; 512]].concat();
    let (xz, bzip2) = (b"\xfd7zXZ\0rest".repeat(100), b"BZh91AY&SY".repeat(100));
    for (name, bytes) in [("zeros after gzip", zeros), ("xz", xz), ("bzip2", bzip2)] {
        let error =
            ingest_layer(&store, &bytes[..], &claimed(&bytes), "one", &me(), &Limits::default(), &|_| {})
                .unwrap_err();
        assert!(matches!(error, IngestError::Unpack { .. } | IngestError::Read { .. }), "{name}: {error}");
        assert_eq!(staged(&store), [""; 0], "{name}");
    }
}

#[test]
fn what_somebody_else_has_brought_meanwhile_is_not_asked_for() {
    let (_dir, store) = store();
    let (bytes, layer) = layer();
    let from = |open: &dyn Fn() -> Result<&'static [u8], Box<dyn std::error::Error + Send + Sync>>| {
        let open = || open().map(Unverified::new);
        ingest_layer_from(&store, open, &layer, "one", &me(), &Limits::default(), &|_| {})
    };
    let error = from(&|| Err("nobody answers".into())).unwrap_err();
    assert_eq!((error.to_string().as_str(), staged(&store)), ("nobody answers", Vec::new()));
    ingest_layer(&store, &bytes[..], &layer, "one", &me(), &Limits::default(), &|_| {}).unwrap();
    assert_eq!(from(&|| panic!("asked")).unwrap().1, None);
    remove_tree(&store.root().join("layers")).unwrap();
}

#[test]
fn keys_stay_in_the_store() {
    let (_dir, store) = store();
    for key in ["", ".", "..", "../x", "a/b", "a:b", "a,b"] {
        assert!(matches!(store.stage_layer(key, &Digest::of("")), Err(StoreError::Name { .. })), "{key}");
    }
}

#[test]
fn one_unpacks_others_wait() {
    let (_dir, store) = store();
    let (bytes, layer) = layer();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (store, bytes, layer) = (store.clone(), bytes.clone(), layer.clone());
            std::thread::spawn(move || {
                ingest_layer(&store, &bytes[..], &layer, "one", &me(), &Limits::default(), &|_| {})
                    .unwrap()
                    .1
                    .is_some()
            })
        })
        .collect();
    let unpacked = threads.into_iter().map(|t| t.join().unwrap()).filter(|&did| did).count();
    assert_eq!(unpacked, 1);
    remove_tree(&store.root().join("layers")).unwrap();
}

#[test]
fn what_dead_sessions_left_is_given_to_one_who_asks() {
    let (dir, store) = store();
    let dead = store.root().join("staging/1-dead");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("blob-1"), "half").unwrap();
    fs::create_dir_all(store.root().join("layers/one/.1-dead-abc/x")).unwrap();
    let alive = store.writer().unwrap();
    let again = Store::open(dir.path().join("store")).unwrap();
    let found = again.abandoned().unwrap();
    let paths: Vec<_> = found.iter().flat_map(|session| session.paths.clone()).collect();
    assert_eq!(paths, [again.root().join("layers/one/.1-dead-abc"), again.root().join("staging/1-dead")]);
    alive.commit(None).unwrap();
    // One whose lock is there is one's own as long as one has it.
    fs::write(dead.join("lock"), "").unwrap();
    drop(found);
    let held = again.abandoned().unwrap();
    assert_eq!((held.len(), store.abandoned().unwrap().len()), (1, 0));
    drop(held);
    assert_eq!(store.abandoned().unwrap().len(), 1);
}

#[test]
fn layout_round_trip() {
    let (dir, store) = store();
    let (bytes, layer) = layer();
    let mut writer = store.writer().unwrap();
    writer.write_all(&bytes).unwrap();
    writer.commit(None).unwrap();
    let image = Image::assemble(Config::default(), vec![layer.clone()]).unwrap();
    let out = dir.path().join("out");
    let from_store = |descriptor: &Descriptor| -> io::Result<Box<dyn Read>> {
        Ok(Box::new(fs::File::open(store.blob_path(&descriptor.digest))?))
    };
    write_layout(&image, Some("app"), &out, &from_store).unwrap();
    assert_eq!(read_layout(&out, Some("app")).unwrap(), image);
    assert_eq!(fs::read(out.join("blobs/sha256").join(layer.descriptor.digest.hex())).unwrap(), bytes);
    assert!(matches!(read_layout(&out, Some("other")), Err(LayoutError::Missing { .. })));
    let wrong = |_: &Descriptor| -> io::Result<Box<dyn Read>> { Ok(Box::new(&b"wrong"[..])) };
    let other = dir.path().join("other");
    assert!(matches!(write_layout(&image, None, &other, &wrong), Err(LayoutError::OtherContent { .. })));
    assert!(!other.join("index.json").exists());
}

#[test]
fn sparse_layout_has_documents_and_keeps_layers() {
    let (dir, _store) = store();
    let (bytes, layer) = layer();
    let image = Image::assemble(Config::default(), vec![layer.clone()]).unwrap();
    let out = dir.path().join("out");
    write_sparse_layout(&image, Some("app"), &out).unwrap();
    assert_eq!(read_layout(&out, Some("app")).unwrap(), image);
    assert_eq!(fs::read_dir(out.join("blobs/sha256")).unwrap().count(), 2);
    assert_eq!(fs::read(out.join("oci-layout")).unwrap(), br#"{"imageLayoutVersion":"1.0.0"}"#);
    // A layer that a program adds later survives a second writing under another name.
    let blob = out.join("blobs/sha256").join(layer.descriptor.digest.hex());
    fs::write(&blob, &bytes).unwrap();
    write_sparse_layout(&image, None, &out).unwrap();
    assert_eq!(read_layout(&out, None).unwrap(), image);
    assert!(matches!(read_layout(&out, Some("app")), Err(LayoutError::Missing { .. })));
    assert_eq!(fs::read(blob).unwrap(), bytes);
}
