//! Layers that are not what they say, and stores in trouble, by the numbers of docs/security/archives.md: T25, T36 to T39.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A layer of these bytes, of which the image says the truth.
fn honest(bytes: &[u8], archive: &[u8]) -> Layer {
    let descriptor = Descriptor::new(media::OCI_LAYER_GZIP, Digest::of(bytes), bytes.len() as u64);
    Layer { descriptor, diff_id: Digest::of(archive) }
}

/// What comes of it, `LAYER` standing for its digest; where it is an error, nothing stays.
fn outcome(bytes: &[u8], layer: &Layer, limits: &Limits) -> String {
    let (_dir, store) = store();
    let result = ingest_layer(&store, bytes, layer, "one", &me(), limits, &|_| {});
    let found = match &result {
        Ok(_) => "unpacked".to_owned(),
        Err(error) => with_causes(error).replace(layer.descriptor.digest.as_str(), "LAYER"),
    };
    assert_eq!(staged(&store), [""; 0], "{found}");
    assert_eq!(store.has(&layer.descriptor.digest), result.is_ok());
    assert_eq!(store.layer_dir("one", &layer.diff_id).is_some(), result.is_ok());
    remove_tree(&store.root().join("layers")).unwrap();
    found
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn archive(fill: impl FnOnce(&mut TarWriter<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut tar = TarWriter::new(&mut bytes, 1);
    fill(&mut tar);
    tar.finish().unwrap();
    bytes
}

/// An archive with one file of so many zeros.
fn zeros(length: usize) -> Vec<u8> {
    archive(|tar| tar.file("/zeros", 0o644, 0, 0, length as u64, &mut &vec![0; length][..]).unwrap())
}

#[test]
fn t25_bombs_end_at_the_ceiling_and_the_user_can_raise_it() {
    let archive = zeros(4 << 20);
    // Of a gigabyte in the proportions of megabytes.
    let limits = Limits { free: 1 << 20, ..Limits::default() };
    for bytes in [gzip(&archive), zstd::encode_all(&archive[..], 1).unwrap()] {
        let layer = honest(&bytes, &archive);
        assert!(bytes.len() * 500 < archive.len());
        let limit = limits.for_compressed(bytes.len() as u64).bytes;
        let expected = format!(
            "the layer LAYER of {} bytes unpacks to more than {limit} bytes, and nothing of it was kept; if you trust it, allow more with --max-layer-size",
            bytes.len()
        );
        assert_eq!(outcome(&bytes, &layer, &limits), expected);
        assert_eq!(
            outcome(
                &bytes,
                &layer,
                &Limits::allowing(Allowed { layer: Some(5 << 20), ..Allowed::default() })
            ),
            "unpacked"
        );
        assert!(
            outcome(
                &bytes,
                &layer,
                &Limits::allowing(Allowed { layer: Some(1 << 20), ..Allowed::default() })
            )
            .contains("more than 1048576 bytes")
        );
        // The same where the tree is there already, and the bytes are only read for their digests.
        let (_dir, store) = store();
        let ingest = |bytes: &[u8], layer: &Layer, limits: &Limits| {
            ingest_layer(&store, bytes, layer, "one", &me(), limits, &|_| {})
        };
        ingest(&archive, &honest(&archive, &archive), &Limits::default()).unwrap();
        let error = ingest(&bytes, &layer, &limits).unwrap_err();
        assert_eq!(with_causes(&error).replace(layer.descriptor.digest.as_str(), "LAYER"), expected);
        assert!(!store.has(&layer.descriptor.digest));
        remove_tree(&store.root().join("layers")).unwrap();
    }
}

#[test]
fn t25_compressions() {
    let archive = zeros(100);
    let plain = gzip(&archive);
    let (first, second) = archive.split_at(700);
    let limits = Limits::default();
    let of = |bytes: &[u8]| outcome(bytes, &honest(bytes, &archive), &limits);
    assert_eq!(of(&plain), "unpacked");
    assert_eq!(of(&archive), "unpacked", "whatever the media type says");
    assert_eq!(of(&[gzip(first), gzip(second)].concat()), "unpacked", "gzip of two members");
    assert_eq!(of(&zstd::encode_all(&archive[..], 1).unwrap()), "unpacked");
    let frames = [zstd::encode_all(first, 1).unwrap(), zstd::encode_all(second, 1).unwrap()].concat();
    assert_eq!(of(&frames), "unpacked", "zstd of two frames");
    // As Go reads it. What follows the last member is no part of a layer.
    let after = "cannot unpack the layer LAYER: cannot read the archive: invalid gzip header";
    assert_eq!(of(&[&plain[..], &[0; 512]].concat()), after);
    assert_eq!(of(&[&plain[..], b"rubbish, and more of it"].concat()), after);
    let cut = "cannot unpack the layer LAYER: cannot read the archive: unexpected end of file";
    assert_eq!(of(&plain[..plain.len() - 1]), cut);
    for (name, magic) in [
        ("xz", &b"\xfd7zXZ\0\0\x04"[..]),
        ("bzip2", b"BZh91AY&SY\0\0"),
        ("lz4", b"\x04\x22\x4d\x18\x64\x40"),
        ("compress", b"\x1f\x9d\x90\0"),
    ] {
        let expected = format!(
            "cannot read the layer LAYER: it is compressed with {name}; layers are plain, or compressed with gzip or zstd: the image must be made anew with one of these"
        );
        assert_eq!(of(magic), expected);
    }
    // Memory is asked for before it is taken.
    let mut large = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    large.window_log(27).unwrap();
    large.write_all(&archive).unwrap();
    let large = large.finish().unwrap();
    let expected = "cannot unpack the layer LAYER: cannot read the archive: its zstd frame at byte 0 needs a window of 134217728 bytes, more than the 33554432 bytes that are allowed; if you trust it, allow more with --max-zstd-window, or make the image anew with a smaller window";
    assert_eq!(of(&large), expected);
    let allowed = Allowed { window: Some(128 << 20), ..Allowed::default() };
    assert_eq!(outcome(&large, &honest(&large, &archive), &Limits::allowing(allowed)), "unpacked");
    // A file may be called like a compression.
    let named = self::archive(|tar| tar.file("/BZh91", 0o644, 0, 0, 0, &mut &b""[..]).unwrap());
    assert_eq!(outcome(&named, &honest(&named, &named), &limits), "unpacked");
}

#[test]
fn t36_sizes_and_digests_of_layers() {
    let archive = zeros(100);
    let bytes = gzip(&archive);
    let good = honest(&bytes, &archive);
    let limits = Limits::default();
    let (size, x) = (bytes.len() as u64, Digest::of("x"));
    let larger =
        Layer { descriptor: Descriptor { size: size + 1, ..good.descriptor.clone() }, ..good.clone() };
    assert_eq!(
        outcome(&bytes, &larger, &limits),
        format!("the layer LAYER arrived as LAYER with {size} bytes; nothing of it was kept")
    );
    let smaller =
        Layer { descriptor: Descriptor { size: size - 1, ..good.descriptor.clone() }, ..good.clone() };
    assert_eq!(
        outcome(&bytes, &smaller, &limits),
        format!("cannot read the layer LAYER: more than the promised {} bytes", size - 1)
    );
    let other =
        Layer { descriptor: Descriptor { digest: x.clone(), ..good.descriptor.clone() }, ..good.clone() };
    assert_eq!(
        outcome(&bytes, &other, &limits),
        format!(
            "the layer LAYER arrived as {} with {size} bytes; nothing of it was kept",
            good.descriptor.digest
        )
    );
    let diff_id = Layer { diff_id: x.clone(), ..good.clone() };
    assert_eq!(
        outcome(&bytes, &diff_id, &limits),
        format!("the layer LAYER contains {}, but its image says {x}; nothing of it was kept", good.diff_id)
    );
}

/// Where the store of a process of these tests is.
const STORE: &str = "CORACLE_TEST_STORE";

/// One of these tests in a process of its own, which finds this store.
fn process(test: &str, store: &Path, before: &[&str]) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(before.first().map_or(program.as_os_str(), |first| first.as_ref()));
    if !before.is_empty() {
        command.args(&before[1..]).arg(program);
    }
    command.args(["--exact", &format!("store::tests::hostile::{test}"), "--nocapture"]);
    command.env(STORE, store).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A layer of two hundred files in twenty folders, always the same.
fn many() -> (Vec<u8>, Layer) {
    let archive = archive(|tar| {
        for folder in 0..20 {
            tar.folder(&format!("/{folder}"), 0o755, 0, 0).unwrap();
            for file in 0..10 {
                let content = vec![b'0' + file; 3000];
                tar.file(&format!("/{folder}/{file}"), 0o644, 0, 0, 3000, &mut &content[..]).unwrap();
            }
        }
    });
    let bytes = gzip(&archive);
    let layer = honest(&bytes, &archive);
    (bytes, layer)
}

fn files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(
            |path| {
                if path.is_dir() { files(&path) } else { usize::from(fs::read(path).unwrap().len() == 3000) }
            },
        )
        .sum()
}

#[test]
fn t37_eight_processes_unpack_one_layer_and_some_are_killed() {
    let (bytes, layer) = many();
    if let Some(path) = std::env::var_os(STORE) {
        let store = Store::open(path).unwrap();
        ingest_layer(&store, &bytes[..], &layer, "one", &me(), &Limits::default(), &|_| {}).unwrap();
        return;
    }
    let mut killed = 0;
    for round in 0..6_u64 {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let start = |_| {
            process("t37_eight_processes_unpack_one_layer_and_some_are_killed", &root, &[]).spawn().unwrap()
        };
        let mut children: Vec<_> = (0..8).map(start).collect();
        for (number, child) in (0_u64..).zip(&mut children) {
            // Some before they begin, some while they unpack, some while they wait for another; one is left alone.
            if number != 7 {
                std::thread::sleep(Duration::from_millis((round * 7 + number * 5) % 13));
                child.kill().unwrap();
            }
        }
        for (number, child) in children.into_iter().enumerate() {
            let output = child.wait_with_output().unwrap();
            killed += usize::from(!output.status.success());
            assert!(number != 7 || output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let store = Store::open(&root).unwrap();
        let path = store.layer_dir("one", &layer.diff_id).expect("the layer is there");
        assert_eq!(files(&path), 200);
        assert_eq!(fs::read(store.blob_path(&layer.descriptor.digest)).unwrap(), bytes);
        // What is left of the killed is known, and then nothing is: neither beside the layer nor in the staging folder.
        for path in store.abandoned().unwrap().iter().flat_map(|session| &session.paths) {
            remove_tree(path).unwrap();
        }
        assert_eq!(fs::read_dir(root.join("layers/one")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(root.join("staging")).unwrap().count(), 1, "this process's own");
    }
    assert!(killed > 0, "nobody was killed in time");
}

/// The tests below have file systems of their own, as root of a user namespace.
const NAMESPACE: [&str; 4] = ["unshare", "--user", "--map-root-user", "--mount"];

fn run(test: &str, store: &Path) {
    let output = process(test, store, &NAMESPACE).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn mount(kind: &str, options: &str, folder: &Path) {
    let mounted =
        Command::new("mount").args(["-t", kind, "-o", options, "none"]).arg(folder).status().unwrap();
    assert!(mounted.success(), "mount {kind}");
}

#[test]
fn t38_a_full_file_system_leaves_nothing_behind() {
    let Some(path) = std::env::var_os(STORE).map(PathBuf::from) else {
        let dir = tempfile::tempdir().unwrap();
        return run("t38_a_full_file_system_leaves_nothing_behind", dir.path());
    };
    let (bytes, layer) = many();
    let mut texts = std::collections::BTreeSet::new();
    let mut fitted = false;
    // The archive has 720 KB: it ends in folders, in files, in the copy of the compressed layer, or not at all.
    for kilobytes in (64..=1600).step_by(64) {
        let root = path.join(kilobytes.to_string());
        fs::create_dir(&root).unwrap();
        mount("tmpfs", &format!("size={kilobytes}k"), &root);
        let store = Store::open(root.join("store")).unwrap();
        match ingest_layer(&store, &bytes[..], &layer, "one", &me(), &Limits::default(), &|_| {}) {
            Ok((path, _)) => {
                fitted = true;
                assert_eq!(files(&path), 200);
            }
            Err(error) => {
                let text = with_causes(&error);
                assert!(
                    text.starts_with(&format!(
                        "cannot unpack the layer {}: cannot ",
                        layer.descriptor.digest
                    )),
                    "{text}"
                );
                assert!(text.ends_with(": No space left on device (os error 28)"), "{text}");
                assert_eq!(staged(&store), [""; 0], "{text}");
                assert!(
                    !store.has(&layer.descriptor.digest) && store.layer_dir("one", &layer.diff_id).is_none()
                );
                texts.insert(text);
            }
        }
    }
    assert!(fitted && texts.len() > 3, "{texts:#?}");
}

#[test]
fn t38_no_more_files_leaves_nothing_behind() {
    let Some(path) = std::env::var_os(STORE).map(PathBuf::from) else {
        let dir = tempfile::tempdir().unwrap();
        return run("t38_no_more_files_leaves_nothing_behind", dir.path());
    };
    let (bytes, layer) = many();
    mount("tmpfs", "nr_inodes=100", &path);
    let store = Store::open(path.join("store")).unwrap();
    let error =
        ingest_layer(&store, &bytes[..], &layer, "one", &me(), &Limits::default(), &|_| {}).unwrap_err();
    let text = with_causes(&error);
    assert!(
        text.contains(": cannot make the file `")
            && text.ends_with(": No space left on device (os error 28)"),
        "{text}"
    );
    assert_eq!(staged(&store), [""; 0]);
}

#[test]
fn t39_a_file_system_without_attributes_is_named() {
    let Some(path) = std::env::var_os(STORE).map(PathBuf::from) else {
        let dir = tempfile::tempdir().unwrap();
        return run("t39_a_file_system_without_attributes_is_named", dir.path());
    };
    mount("ramfs", "mode=0700", &path);
    let store = Store::open(path.join("store")).unwrap();
    let ingest = |name: &str| {
        let archive = archive(|tar| tar.file(name, 0o644, 0, 0, 0, &mut &b""[..]).unwrap());
        let layer = honest(&archive, &archive);
        let result = ingest_layer(&store, &archive[..], &layer, "one", &me(), &Limits::default(), &|_| {});
        result
            .map(drop)
            .map_err(|error| with_causes(&error).replace(layer.descriptor.digest.as_str(), "LAYER"))
    };
    // Where nothing needs one, layers are unpacked.
    assert_eq!(ingest("/a/b"), Ok(()));
    let expected = "cannot unpack the layer LAYER: cannot mark the folder `a` as opaque: the file system of the store takes no attributes of users; keep images on another one, with --home or CORACLE_HOME";
    assert_eq!(ingest("/a/.wh..wh..opq"), Err(expected.to_owned()));
    assert_eq!(staged(&store), [""; 0]);
}
