//! Images as one file. That others read it, the integration tests show.

use super::*;

/// A stored image with one layer, twice.
fn stored(store: &Store) -> Image {
    let (bytes, layer) = layer();
    let mut writer = store.writer().unwrap();
    writer.write_all(&bytes).unwrap();
    writer.commit(Some(&layer.descriptor.digest)).unwrap();
    let image = Image::assemble(Config::default(), vec![layer.clone(), layer]).unwrap();
    store.put_image(&image).unwrap();
    image
}

fn names(names: &[&str]) -> Vec<Reference> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// The paths of an archive and what they hold.
fn entries(archive: &[u8]) -> Vec<(String, String)> {
    let entry = |entry: io::Result<tar::Entry<&[u8]>>| {
        let mut entry = entry.unwrap();
        let (mut content, path) = (Vec::new(), entry.path().unwrap().to_str().unwrap().to_owned());
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
        if path.starts_with("blobs/") && !content.is_empty() {
            assert_eq!(path, format!("blobs/sha256/{}", Digest::of(&content).hex()));
            content = b"as its name says".to_vec();
        }
        (path, String::from_utf8(content).unwrap())
    };
    tar::Archive::new(archive).entries().unwrap().map(entry).collect()
}

#[test]
fn an_archive_has_each_blob_once_and_then_the_documents_of_both_formats() {
    let (_dir, store) = store();
    let image = stored(&store);
    let write = |list: &[&str]| {
        let mut archive = Vec::new();
        store.write_archive(&image, &names(list), &mut archive).unwrap();
        archive
    };
    let archive = write(&["demo", "localhost:5000/demo:1"]);
    let digest_of = |digest: &Digest| digest.hex().to_owned();
    let (layer, config, manifest) = (
        digest_of(&image.manifest.layers[0].digest),
        digest_of(&image.manifest.config.digest),
        digest_of(&image.digest),
    );
    let size = image.manifest_bytes.len();
    let blob = |hex: &str| (format!("blobs/sha256/{hex}"), "as its name says".to_owned());
    let document = |path: &str, text: String| (path.to_owned(), text);
    let entry = |name: &str, tag: &str| {
        format!(
            r#"{{"mediaType":"{}","size":{size},"digest":"sha256:{manifest}","annotations":{{"io.containerd.image.name":"{name}","org.opencontainers.image.ref.name":"{tag}"}}}}"#,
            media::OCI_MANIFEST
        )
    };
    let index = |entries: &str| {
        format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{entries}]}}"#, media::OCI_INDEX)
    };
    let hub = entry("docker.io/library/demo:latest", "latest");
    let other = entry("localhost:5000/demo:1", "1");
    let expected = [
        document("blobs/", String::new()),
        document("blobs/sha256/", String::new()),
        blob(&layer),
        blob(&config),
        blob(&manifest),
        document("index.json", index(&format!("{hub},{other}"))),
        document(
            "manifest.json",
            format!(
                r#"[{{"Config":"blobs/sha256/{config}","RepoTags":["docker.io/library/demo:latest","localhost:5000/demo:1"],"Layers":["blobs/sha256/{layer}","blobs/sha256/{layer}"]}}]"#
            ),
        ),
        document("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#.to_owned()),
    ];
    assert_eq!(entries(&archive), expected);
    assert_eq!(archive, write(&["demo", "localhost:5000/demo:1"]), "equal images give equal bytes");
    // What has no name but its digest gets none.
    let pinned = write(&[&format!("demo@{}", image.digest)]);
    let unnamed = entries(&pinned);
    assert!(unnamed[5].1.contains(&manifest) && !unnamed[5].1.contains("annotations"), "{}", unnamed[5].1);
    assert!(unnamed[6].1.contains(r#""RepoTags":[]"#), "{}", unnamed[6].1);
}

#[test]
fn what_the_store_has_lost_or_damaged_does_not_get_out_as_an_image() {
    let (_dir, store) = store();
    let image = stored(&store);
    let digest = &image.manifest.layers[0].digest;
    let path = store.blob_path(digest);
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[20] ^= 1;
    let refused = || {
        let mut archive = Vec::new();
        let error = store.write_archive(&image, &names(&["demo"]), &mut archive).unwrap_err();
        assert!(!String::from_utf8_lossy(&archive).contains("manifest.json"));
        error.to_string()
    };
    fs::write(&path, &flipped).unwrap();
    let found = Digest::of(&flipped);
    assert_eq!(
        refused(),
        format!("the stored blob {digest} is damaged (it is {found} now); pull or build the image again")
    );
    fs::remove_file(&path).unwrap();
    assert_eq!(
        refused(),
        format!("{digest} of the image is not in the store any more; pull or build the image again")
    );
}

#[test]
fn whoever_takes_no_more_is_told_of() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_dir, store) = store();
    let error = store.write_archive(&stored(&store), &names(&["demo"]), &mut Full).unwrap_err();
    assert_eq!(error.to_string(), "could not write the archive");
    assert!(matches!(error, crate::ArchiveError::Write(cause) if cause.kind() == io::ErrorKind::StorageFull));
}
