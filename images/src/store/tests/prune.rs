//! What no image names is deleted, and nothing else.

use super::*;

const DRY: Prune<'static> = Prune { idmap_key: "one", all: false, dry_run: true };
const REAL: Prune<'static> = Prune { dry_run: false, ..DRY };

/// Takes a layer in whose only file holds `content`.
fn bring(store: &Store, content: &str, key: &str) -> Layer {
    let mut writer = LayerWriter::new(Vec::new(), LayerCompression::default());
    let mut tar = TarWriter::new(&mut writer, 1);
    tar.folder("/a", 0o555, 0, 0).unwrap();
    tar.file("/a/b", 0o644, 0, 0, content.len() as u64, &mut content.as_bytes()).unwrap();
    tar.finish().unwrap();
    let (bytes, written) = writer.finish().unwrap();
    let layer = written.layer();
    ingest_layer(store, &bytes[..], &layer, key, &me(), &Limits::default(), &|_| {}).unwrap();
    layer
}

/// An image of one layer, as a pull leaves it.
fn named(store: &Store, name: &str) -> Image {
    let image = Image::assemble(Config::default(), vec![bring(store, name, "one")]).unwrap();
    store.put_image(&image).unwrap();
    store.tag(&name.parse().unwrap(), &image.descriptor()).unwrap();
    image
}

/// Names of blobs and of unpacked layers, and how many locks of layers.
fn content(store: &Store) -> (Vec<String>, usize) {
    let list = |folder: &str| -> Vec<String> {
        let entries = fs::read_dir(store.root().join(folder)).into_iter().flatten().flatten();
        entries.map(|entry| format!("{folder}/{}", entry.file_name().to_string_lossy())).collect()
    };
    let mut names = ["blobs/sha256", "layers/one", "layers/other"].map(list).concat();
    names.sort();
    (names, list("locks").iter().filter(|name| name.contains("layer-")).count())
}

#[test]
fn what_no_image_names_is_deleted_and_the_rest_stays() {
    let (_dir, store) = store();
    let image = named(&store, "example.org/kept:1");
    let (kept, _) = content(&store);
    bring(&store, "unnamed", "one");
    // The ids of another range, of which nobody knows whether they come back.
    bring(&store, "example.org/kept:1", "other");
    fs::create_dir(store.root().join("layers/one/.77-0-left")).unwrap();
    let (before, locks) = content(&store);
    assert_eq!((before.len(), locks), (kept.len() + 4, 3));

    let would = store.prune(DRY, || false).unwrap().unwrap();
    assert_eq!((would.images.len(), would.layers, would.blobs), (0, 3, 1));
    assert!(would.bytes > 0);
    assert_eq!(content(&store), (before, locks));

    assert_eq!(store.prune(REAL, || false).unwrap(), Some(would));
    assert_eq!(content(&store), (kept, 0));
    assert_eq!(staged(&store), [""; 0]);
    let name: Reference = "example.org/kept:1".parse().unwrap();
    assert_eq!(store.image(&name).unwrap().unwrap().digest, image.digest);
    assert!(store.layer_dir("one", &image.layers()[0].diff_id).is_some());
    assert_eq!(store.prune(REAL, || false).unwrap(), Some(Pruned::default()));
    remove_tree(&store.root().join("layers")).unwrap();
}

#[test]
fn all_images_are_forgotten_where_that_is_asked_for() {
    let (_dir, store) = store();
    named(&store, "example.org/one:1");
    named(&store, "example.org/two:1");
    let pruned = store.prune(Prune { all: true, ..REAL }, || false).unwrap().unwrap();
    assert_eq!(pruned.images, ["example.org/one:1", "example.org/two:1"]);
    assert_eq!((pruned.layers, pruned.blobs), (2, 6));
    assert_eq!(content(&store), (Vec::new(), 0));
    assert_eq!(store.images().unwrap(), []);
}

#[test]
fn nothing_is_deleted_while_somebody_else_has_the_store_open_or_is_busy() {
    let (_dir, store) = store();
    bring(&store, "unnamed", "one");
    let before = content(&store);
    let other = Store::open(store.root()).unwrap();
    assert_eq!(store.prune(REAL, || false).unwrap(), None);
    drop(other);
    assert_eq!(store.prune(REAL, || true).unwrap(), None);
    assert_eq!(content(&store), before);
    assert_eq!(store.prune(REAL, || false).unwrap().unwrap().layers, 1);
}

#[test]
fn an_image_that_cannot_be_read_ends_it_before_anything_is_deleted() {
    let (_dir, store) = store();
    let image = named(&store, "example.org/damaged:1");
    bring(&store, "unnamed", "one");
    fs::write(store.blob_path(&image.digest), "{").unwrap();
    let before = content(&store);
    let error = store.prune(REAL, || false).unwrap_err();
    assert_eq!(error.to_string(), "the stored image `example.org/damaged:1` is damaged; pull it again");
    assert_eq!(content(&store), before);
    remove_tree(&store.root().join("layers")).unwrap();
}
