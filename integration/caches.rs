//! A creator of another platform finds a cache that is not what it left: what is told, and what the image is then.

use std::fs;
use std::path::PathBuf;

use coracle_fixtures::{DockerRegistry, Image as Fixture};
use serde_json::Value;

use crate::phases::{Platform, order, ran};

/// Makes a layer unless it comes back, and says so.
const BUILD: &str = r#"
if [ -e "$1/kept/file" ]; then echo "it came back"; else echo "it is made"; mkdir -p "$1/kept"; echo content >"$1/kept/file"; fi
printf '[types]\nlaunch = true\ncache = true\n' >"$1/kept.toml"
"#;

struct Builds {
    platform: Platform,
    registry: DockerRegistry,
}

impl Builds {
    fn new() -> Self {
        let builds = Self { platform: Platform::new(&order(&["one"])), registry: DockerRegistry::open() };
        builds.registry.push(&Fixture::new(Vec::new()), "run", "1");
        builds.platform.buildpack("one", "detect", "exit 0");
        builds.platform.buildpack("one", "build", BUILD);
        builds
    }

    fn at(&self, path: &str) -> String {
        self.platform.at(path).to_str().expect("is text").to_owned()
    }

    /// Builds, with nothing left of the last build but cache and image: the digest of the image, and what was told and warned of.
    fn create(&self, words: &[&str]) -> (String, String, String) {
        fs::remove_dir_all(self.platform.at("layers")).expect("remove the layers");
        fs::create_dir(self.platform.at("layers")).expect("make a folder");
        let [run, app] = ["run:1", "app:1"].map(|name| self.registry.reference(name));
        let words = [&["create", "-run-image", &run], words, &[&app]].concat();
        let (code, stdout, stderr) = ran(&mut self.platform.phase("lifecycle", &words));
        assert_eq!(code, Some(0), "{stderr}");
        let image = coracle_images::Digest::of(self.registry.manifest("app:1"));
        (image.to_string(), stdout, stderr)
    }

    /// The digest of the buildpack's layer as an archive.
    fn diff_id(&self) -> String {
        let config: Value = serde_json::from_slice(&self.registry.config("app:1")).expect("is JSON");
        config["rootfs"]["diff_ids"][0].as_str().expect("is text").to_owned()
    }

    fn archive(&self, cache: &str) -> PathBuf {
        self.platform.at(&format!("{cache}/committed/{}.tar", self.diff_id()))
    }
}

#[test]
fn a_damaged_cache_folder_is_told_of_by_name_and_the_image_is_as_it_was() {
    let builds = Builds::new();
    let cache = builds.at("cache");
    let words = ["-cache-dir", cache.as_str()];
    let (image, stdout, _) = builds.create(&words);
    assert!(stdout.contains("it is made"), "{stdout}");
    let (again, stdout, stderr) = builds.create(&words);
    assert!(again == image && stdout.contains("it came back"), "{stdout}");
    assert!(!stderr.contains("cache"), "{stderr}");

    let archive = builds.archive("cache");
    let bytes = fs::read(&archive).expect("read the archive");
    let found = |bytes: &[u8]| coracle_images::Digest::of(bytes).to_string();
    let other = String::from_utf8_lossy(&bytes).replace("content", "CONTENT").into_bytes();
    let diff_id = builds.diff_id();
    let start = "warning: cannot restore \"one:kept\" from cache, so that it is made again: ";
    for (bytes, cause) in [
        (Some(&other[..]), format!("the archive named {diff_id} is {}", found(&other))),
        (Some(&bytes[..700]), format!("unpack {diff_id}: ")),
        (None, format!("the cache has no archive {diff_id}")),
    ] {
        fs::remove_file(&archive).expect("remove the archive");
        bytes.iter().for_each(|bytes| fs::write(&archive, bytes).expect("write the archive"));
        let (again, stdout, stderr) = builds.create(&words);
        assert!(stderr.contains(&format!("{start}{cause}")), "{stderr}");
        assert!(again == image && stdout.contains("it is made"), "{stdout}");
        // And the next finds a whole one.
        let (again, stdout, _) = builds.create(&words);
        assert!(again == image && stdout.contains("it came back"), "{stdout}");
    }

    let list = builds.platform.at("cache/committed/io.buildpacks.lifecycle.cache.metadata");
    fs::write(&list, "{ \"buildpacks\"").expect("write the list");
    let (again, stdout, stderr) = builds.create(&words);
    let text =
        format!("warning: the cache is not usable and counts as empty: read cache: `{}`: ", list.display());
    assert!(stderr.contains(&text), "{stderr}");
    assert!(again == image && stdout.contains("it is made"), "{stdout}");
}

#[test]
fn a_damaged_cache_image_is_told_of_by_name_and_the_image_is_as_it_was() {
    let builds = Builds::new();
    // What is damaged is not the application's image's, too.
    let caches = DockerRegistry::open();
    let cache = caches.reference("cache:1");
    let words = ["-cache-image", cache.as_str()];
    let (image, ..) = builds.create(&words);
    let (again, stdout, _) = builds.create(&words);
    assert!(again == image && stdout.contains("it came back"), "{stdout}");

    let manifest: Value = serde_json::from_slice(&caches.manifest("cache:1")).expect("is JSON");
    let digest = manifest["layers"][0]["digest"].as_str().expect("is text");
    let hex = digest.strip_prefix("sha256:").expect("is a digest");
    let blob = caches.storage().join("blobs/sha256").join(&hex[..2]).join(hex).join("data");
    let mut bytes = fs::read(&blob).expect("read the blob");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&blob, bytes).expect("write the blob");
    let (again, stdout, stderr) = builds.create(&words);
    let text = "warning: cannot restore \"one:kept\" from cache, so that it is made again: ";
    assert!(stderr.contains(text) && stderr.contains(&builds.diff_id()), "{stderr}");
    assert!(again == image && stdout.contains("it is made"), "{stdout}");

    // An image that is no cache.
    caches.push(&Fixture::new(Vec::new()), "cache", "1");
    let (again, stdout, stderr) = builds.create(&words);
    let text = "warning: the cache is not usable and counts as empty: `";
    let why = "is no cache image: it has no label `io.buildpacks.lifecycle.cache.metadata`";
    assert!(stderr.contains(text) && stderr.contains(why), "{stderr}");
    assert!(again == image && stdout.contains("it is made"), "{stdout}");
}

#[test]
fn a_damaged_launch_cache_is_told_of_by_name() {
    let builds = Builds::new();
    let cache = builds.at("launch");
    let words = ["-launch-cache", cache.as_str()];
    builds.create(&words);
    let archive = builds.archive("launch");
    fs::write(&archive, "other").expect("write the archive");
    let far = DockerRegistry::open();
    let [previous, run, app] =
        [builds.registry.reference("app:1"), builds.registry.reference("run:1"), far.reference("app:2")];
    let create = |words: &[&str]| {
        let words =
            [&["create", "-run-image", &run, "-previous-image", &previous], words, &[app.as_str()]].concat();
        let (code, _, stderr) = ran(&mut builds.platform.phase("lifecycle", &words));
        assert_eq!(code, Some(0), "{stderr}");
        stderr
    };
    let stderr = create(&words);
    let text = format!(
        "warning: layer {} of the launch cache is not used, and made or fetched again: `{}` holds {}",
        builds.diff_id(),
        archive.display(),
        coracle_images::Digest::of("other")
    );
    assert!(stderr.contains(&text), "{stderr}");
    let manifest: Value = serde_json::from_slice(&far.manifest("app:2")).expect("is JSON");
    let before: Value = serde_json::from_slice(&builds.registry.manifest("app:1")).expect("is JSON");
    assert_eq!(manifest["layers"], before["layers"]);

    let both = builds.at("both");
    let stderr = create(&["-cache-dir", &both, "-launch-cache", &both]);
    let text = format!(
        "warning: -launch-cache and -cache-dir are the same folder, `{both}`: there is no launch cache; name another folder for it"
    );
    assert!(stderr.contains(&text), "{stderr}");

    fs::write(builds.platform.at("file"), "").expect("write a file");
    let stderr = create(&["-launch-cache", &builds.at("file")]);
    assert!(stderr.contains("warning: the launch cache is not saved: write cache: `"), "{stderr}");
}
