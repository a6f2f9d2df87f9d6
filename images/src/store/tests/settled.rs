//! Unpacked layers and the machine's power.

use super::*;

/// Unpacks the layer, or finds it; says whether it was unpacked.
fn ingest(store: &Store) -> bool {
    let (bytes, layer) = layer();
    let (path, unpacked) =
        ingest_layer(store, &bytes[..], &layer, "one", &me(), &Limits::default(), &|_| {}).unwrap();
    assert_eq!(fs::read(path.join("a/b")).unwrap(), b"hello");
    unpacked.is_some()
}

fn mark(store: &Store) -> PathBuf {
    store.root().join("unsettled").join(format!("one_{}", layer().1.diff_id.hex()))
}

#[test]
fn a_layer_of_another_run_of_the_machine_is_unpacked_again_unless_somebody_waited_for_the_disk() {
    let (_dir, store) = store();
    assert!(ingest(&store));
    assert!(!ingest(&store), "in the same run it is believed");
    // The power went: what the kernel had not written is empty.
    let spoil = |store: &Store| {
        let file = store.root().join("layers/one").join(layer().1.diff_id.hex()).join("a/b");
        fs::set_permissions(file.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(file, "").unwrap();
    };
    for text in ["another run\n", ""] {
        spoil(&store);
        fs::write(mark(&store), text).unwrap();
        assert_eq!(store.layer_dir("one", &layer().1.diff_id), None);
        assert!(ingest(&store), "{text:?}");
    }
    assert!(
        !store
            .root()
            .join("layers/one")
            .read_dir()
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().ends_with("doubted") })
    );
    store.settle().unwrap();
    assert!(!mark(&store).exists());
    assert!(!ingest(&store), "without a mark it is believed in every run");
    remove_tree(&store.root().join("layers")).unwrap();
}

#[test]
fn marks_of_another_run_stay_and_old_ones_ask_for_the_disk() {
    let (_dir, store) = store();
    assert!(ingest(&store));
    assert!(!store.is_unsettled(), "just now");
    let file = fs::File::options().write(true).open(mark(&store)).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(60)).unwrap();
    assert!(store.is_unsettled());
    fs::write(mark(&store), "another run\n").unwrap();
    store.settle().unwrap();
    assert!(mark(&store).exists(), "nobody knows what became of that layer");
    let file = fs::File::options().write(true).open(mark(&store)).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(60)).unwrap();
    assert!(!store.is_unsettled(), "and nobody can find out");
    remove_tree(&store.root().join("layers")).unwrap();
    store.settle().unwrap();
    assert!(!mark(&store).exists(), "of a layer that is gone");
}
