//! Caches in images: written as the reference writes them (docs/decisions/0012), and what becomes of bad ones.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;

use coracle_cnb::CACHE_METADATA_LABEL;
use coracle_fixtures::{DockerRegistry, Entry, Image as Fixture, Layer, RegistryAccess};
use coracle_images::{Digest, Platform, Reference, Registry};
use coracle_lifecycle::cache::{Cache, CacheStep, Nearby, Saving};
use coracle_lifecycle::export::Outbox;
use coracle_lifecycle::with_causes;
use serde_json::Value;

use super::restored::{Builds, GROUP, LIST};
use super::{Folders, uploads};

const TWO: &str = "[[group]]\nid = \"a/one\"\nversion = \"1.2.3\"\napi = \"0.10\"\n[[group]]\nid = \"b/two\"\nversion = \"0.0.1\"\napi = \"0.10\"\n";

/// A registry, and a cache in it.
struct Remote {
    registry: DockerRegistry,
    client: Registry,
    name: Reference,
}

impl Remote {
    fn new() -> Self {
        let registry = DockerRegistry::open();
        let name = registry.reference("cache:latest").parse().unwrap();
        Self { registry, client: Registry::new(Default::default()).unwrap(), name }
    }

    fn cache(&self) -> Cache {
        Cache::of_image(&self.client, &self.name).unwrap()
    }

    /// Saves what the build left at `layers_path`.
    fn save(&self, folders: &Folders, layers_path: &str, verified: &[Digest]) -> Vec<String> {
        let previous = Cache::of_image(&self.client, &self.name).unwrap_or_default();
        let outbox = Outbox::new(&folders.dir.path().join("outbox")).unwrap();
        let saving = Saving::to_image(&outbox, &previous, verified, None);
        let saved = folders.packed(layers_path, &saving).unwrap();
        let nearby = Nearby { outbox: &outbox, previous: None, made: None };
        saving.send(&saved, &self.client, &self.name, &nearby).unwrap();
        saved.steps().iter().map(CacheStep::to_string).collect()
    }

    fn restore(&self, builds: &Builds) {
        builds.restore_after("", &["-cache-image", &self.name.to_string()]).unwrap();
    }

    fn config(&self) -> Vec<u8> {
        self.registry.config("cache:latest")
    }

    fn manifest(&self) -> Value {
        serde_json::from_slice(&self.registry.manifest("cache:latest")).unwrap()
    }

    /// Where the registry keeps the only layer.
    fn blob(&self) -> std::path::PathBuf {
        let digest = self.manifest()["layers"][0]["digest"].as_str().unwrap().to_owned();
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.registry.storage().join("blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }
}

/// What the recordings were made of.
fn recorded() -> Folders {
    let folders = Folders::new(TWO);
    for (path, text) in [
        ("a_one/both/file", "both\n"),
        ("a_one/cached/c", "cached\n"),
        ("b_two/lib/l", "lib\n"),
        ("sbom/cache/a_one/both/sbom.cdx.json", "{\"sbom\":1}\n"),
        ("a_one/both.toml", "[types]\nlaunch = true\ncache = true\n[metadata]\nv = \"1\"\n"),
        ("a_one/cached.toml", "[types]\ncache = true\n"),
        ("b_two/lib.toml", "[types]\nbuild = true\ncache = true\n[metadata]\nn = 2\nf = 1.5\n"),
    ] {
        folders.write(path, text);
    }
    symlink("c", folders.layers().join("a_one/cached/link")).unwrap();
    folders
}

#[test]
fn decision_0012_the_configuration_is_the_references_byte_for_byte() {
    let data: Value = serde_json::from_str(include_str!("../data/cache-image.json")).unwrap();
    let remote = Remote::new();
    let steps = remote.save(&recorded(), "/layers", &[]);
    assert_eq!(steps.len(), 4);
    assert!(steps.iter().all(|step| step.starts_with("Adding cache layer '")), "{steps:?}");
    assert_eq!(String::from_utf8(remote.config()).unwrap(), data["config"].as_str().unwrap());
    // Compressed layers are other bytes.
    let text = |manifest: &[u8]| -> String {
        let mut value: Value = serde_json::from_slice(manifest).unwrap();
        for layer in value["layers"].as_array_mut().unwrap() {
            assert_ne!(layer["digest"].take(), layer["size"].take());
        }
        value.to_string()
    };
    let wanted = data["manifest"].as_str().unwrap();
    assert_eq!(text(&remote.registry.manifest("cache:latest")), text(wanted.as_bytes()));
    // A registry need not take an image without layers.
    remote.save(&Folders::new(TWO), "/layers", &[]);
    assert_eq!(String::from_utf8(remote.config()).unwrap(), data["empty"].as_str().unwrap());
}

/// The layer `x`, as the builds' buildpack made it.
fn built() -> Builds {
    let builds = Builds::new(GROUP);
    builds.write("a_one/x/file", "text");
    builds.write("a_one/x.toml", "[types]\ncache = true\n");
    builds
}

fn whole() -> Vec<String> {
    ["a_one/ 755", "a_one/x.toml 644 \"\"", "a_one/x/ 755", "a_one/x/file 644 \"text\""]
        .map(String::from)
        .into()
}

fn tree(builds: &Builds) -> Vec<String> {
    builds.tree().into_iter().collect()
}

#[test]
fn decision_0012_what_did_not_change_is_neither_sent_nor_listed_twice() {
    let (remote, builds) = (Remote::new(), built());
    let path = builds.layers().display().to_string();
    remote.restore(&builds);
    remote.save(&builds, &path, &[]);
    let manifest = remote.manifest();
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    let sha: Digest = remote.cache().metadata().buildpacks[0].layer("x").unwrap().sha.parse().unwrap();
    let sent = uploads(&remote.registry);
    assert_eq!(remote.save(&builds, &path, &[]), ["Adding cache layer 'a/one:x'"]);
    assert_eq!(remote.save(&builds, &path, std::slice::from_ref(&sha)), ["Reusing cache layer 'a/one:x'"]);
    assert_eq!((remote.manifest(), uploads(&remote.registry)), (manifest, sent));
    builds.empty();
    remote.restore(&builds);
    assert_eq!(tree(&builds), whole());
    // One that is found to be another after all.
    builds.write("a_one/x.toml", "[types]\ncache = true\n");
    builds.write("a_one/x/file", &"changed".repeat(1 << 20));
    assert_eq!(remote.save(&builds, &path, &[sha]), ["Adding cache layer 'a/one:x'"]);
    assert_eq!(uploads(&remote.registry), sent + 2);
    builds.empty();
    remote.restore(&builds);
    assert_eq!(fs::metadata(builds.layers().join("a_one/x/file")).unwrap().len(), 7 << 20);
}

#[test]
fn a_cache_image_that_is_none_counts_as_empty() {
    let (remote, builds) = (Remote::new(), built());
    builds.empty();
    let layer = || Layer::new(&[Entry::file("x", "x")]);
    let error = |fixture: Fixture| {
        remote.registry.push(&fixture, "cache", "latest");
        remote.restore(&builds);
        assert!(builds.tree().is_empty());
        with_causes(&Cache::of_image(&remote.client, &remote.name).unwrap_err())
    };
    let foreign = error(Fixture::new(vec![layer()]));
    assert!(
        foreign.ends_with("is no cache image: it has no label `io.buildpacks.lifecycle.cache.metadata`"),
        "{foreign}"
    );
    for text in ["", "{", "7", "{\"buildpacks\":[{\"key\":7}]}", &"[".repeat(100_000)] {
        let broken = error(Fixture::new(vec![layer()]).label(CACHE_METADATA_LABEL, text));
        assert!(broken.starts_with(&format!("read cache: `{}`", remote.name)), "{broken}");
    }
    let locked = DockerRegistry::start(RegistryAccess::Password);
    let name = locked.reference("cache:latest");
    let refused = Cache::of_image(&remote.client, &name.parse().unwrap()).unwrap_err();
    assert!(with_causes(&refused).contains("the registry refuses access; log in to it"), "{refused}");
    builds.restore_after("", &["-cache-image", &name]).unwrap();
    assert!(builds.tree().is_empty());
    assert_eq!(builds.restore_after("", &["-cache-image", "A"]).unwrap_err().exit_code(), 3);
}

/// A cache image of these layers, the list of which names one of `sha`.
fn forge(remote: &Remote, layers: Vec<Layer>, list: &str, sha: &str) {
    let image = Fixture::new(layers).label(CACHE_METADATA_LABEL, &list.replace("SHA", sha));
    remote.registry.push(&image, "cache", "latest");
}

#[test]
fn layers_that_are_not_what_they_should_be_stay_away_and_are_made_again() {
    let (remote, builds) = (Remote::new(), built());
    let path = builds.layers().display().to_string();
    let at = |path: &str| format!("{}/{path}", builds.layers().display());
    let good = Layer::new(&[Entry::dir(&at("a_one/x")), Entry::file(&at("a_one/x/file"), "text")]);
    let other = Layer::new(&[Entry::dir(&at("a_one/x")), Entry::file(&at("a_one/x/file"), "other")]);
    let again = |what: &str| {
        builds.empty();
        remote.restore(&builds);
        assert!(tree(&builds).iter().all(|path| path == "a_one/ 755"), "{what}: {:?}", tree(&builds));
        builds.write("a_one/x/file", "text");
        builds.write("a_one/x.toml", "[types]\ncache = true\n");
        remote.save(&builds, &path, &[]);
        builds.empty();
        remote.restore(&builds);
        assert_eq!(tree(&builds), whole(), "{what}");
    };
    forge(&remote, vec![other.clone()], LIST, &good.diff_id());
    again("the list names a layer that is not there");
    forge(&remote, vec![], LIST, &good.diff_id());
    again("there is no layer");
    forge(&remote, vec![good.clone()], LIST, "sha256:none");
    again("the list names no digest");

    // The image says that the layer is another than the blob is, which is the blob of one that is whole.
    builds.empty();
    builds.write("a_one/x/file", "text");
    builds.write("a_one/x.toml", "[types]\ncache = true\n");
    remote.save(&builds, &path, &[]);
    let sha = remote.cache().metadata().buildpacks[0].layer("x").unwrap().sha.clone();
    forge(&remote, vec![other], LIST, &sha);
    let forged = remote.client.image(&remote.name, &Platform::host()).unwrap();
    let descriptor = forged.manifest.layers[0].clone();
    let lie = coracle_images::Layer { descriptor, diff_id: sha.parse().unwrap() };
    let lie = coracle_images::Image::assemble(forged.config, vec![lie]).unwrap();
    remote.client.push_image(&remote.name, &lie).unwrap();
    again("a wrong diff id");
}

#[test]
fn a_blob_that_is_damaged_on_the_registry_stays_away() {
    for damage in
        [|_: &mut Vec<u8>| (), |bytes: &mut Vec<u8>| bytes.truncate(20), |bytes: &mut Vec<u8>| bytes[30] ^= 1]
    {
        let (remote, builds) = (Remote::new(), built());
        remote.save(&builds, &builds.layers().display().to_string(), &[]);
        let path = remote.blob();
        let mut bytes = fs::read(&path).unwrap();
        let good = bytes.clone();
        damage(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        builds.empty();
        remote.restore(&builds);
        let expected = if bytes == good { whole() } else { vec!["a_one/ 755".to_owned()] };
        assert_eq!(tree(&builds), expected);
    }
}

#[test]
fn an_archive_of_an_image_cannot_reach_beyond_its_layer() {
    let outside = tempfile::tempdir().unwrap();
    let evil = outside.path().to_str().unwrap();
    let (remote, builds) = (Remote::new(), built());
    let at = |path: &str| format!("{}/{path}", builds.layers().display());
    let good = || vec![Entry::dir(&at("a_one/x")), Entry::file(&at("a_one/x/file"), "text")];
    for (more, whole_comes) in [
        (vec![Entry::file("../../../../evil", "evil")], false),
        (vec![Entry::symlink(&at("a_one/y"), evil), Entry::file(&at("a_one/y/evil"), "evil")], true),
        (vec![Entry::file(&at("b_two/y.toml"), "evil"), Entry::file(&format!("{evil}/evil"), "evil")], true),
    ] {
        builds.empty();
        let layer = Layer::new(&[good(), more].concat());
        let sha = layer.diff_id();
        forge(&remote, vec![layer], LIST, &sha);
        remote.restore(&builds);
        let found: BTreeSet<String> = builds.tree();
        if whole_comes {
            assert_eq!(found, whole().into_iter().collect());
        } else {
            assert!(found.iter().all(|line| line.starts_with("a_one/ ")), "{found:?}");
        }
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}
