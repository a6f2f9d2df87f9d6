//! `--compression`: the same layers in other blobs, which everything here and elsewhere reads.

use coracle_fixtures::{Buildpack, Entry, RunImage};
use serde_json::Value;

use crate::harness::TestHome;
use crate::site::Site;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn site() -> Site {
    let worker = Buildpack::passing("fixture/worker")
        .layer("kept", &["launch", "cache"], &"words ".repeat(200_000))
        .process(&[
            "sh",
            "-c",
            "cat hello; wc -c </layers/fixture_worker/kept/content; cat /etc/patched 2>/dev/null || true",
        ]);
    Site::new(&[worker])
}

const SAYS: &str = "hello from the application\n1200000\n";

/// The media types of an image's layers, and their digests.
fn layers(site: &Site, name: &str) -> Vec<(String, String)> {
    let manifest: Value = serde_json::from_slice(&site.registry.manifest(name)).expect("a manifest");
    let text = |layer: &Value, key: &str| layer[key].as_str().expect("a text").to_owned();
    let layers = manifest["layers"].as_array().expect("layers").iter();
    layers.map(|layer| (text(layer, "mediaType"), text(layer, "digest"))).collect()
}

fn diff_ids(site: &Site, name: &str) -> Value {
    let config: Value = serde_json::from_slice(&site.registry.config(name)).expect("a configuration");
    config["rootfs"]["diff_ids"].clone()
}

#[test]
fn the_same_layers_in_other_blobs_are_pulled_run_and_rebased() {
    let site = site();
    let usual = site.registry.reference("usual");
    site.built(&usual, &["--publish"]);
    let run_image = layers(&site, "run").len();
    let newer = RunImage::new().file(Entry::file("etc/patched", "patched\n")).image();
    for (number, (compression, suffix)) in
        [("gzip:9", "+gzip"), ("zstd", "+zstd"), ("zstd:19", "+zstd"), ("none", "")].into_iter().enumerate()
    {
        for trust in ["--trust-builder=false", "--trust-builder"] {
            let name = format!("app{number}{}", trust.len());
            let image = site.registry.reference(&name);
            site.built(&image, &["--publish", "--compression", compression, trust]);
            let made = layers(&site, &name);
            assert_eq!(made[..run_image], layers(&site, "run")[..], "{compression} {trust}");
            for (kind, _) in &made[run_image..] {
                assert_eq!(*kind, format!("{LAYER}{suffix}"), "{compression} {trust}");
            }
            assert_ne!(made, layers(&site, "usual"));
            assert_eq!(diff_ids(&site, &name), diff_ids(&site, "usual"), "{compression} {trust}");
            let elsewhere = TestHome::new();
            elsewhere.ok(&["pull", &image]);
            assert_eq!(elsewhere.ok(&["run", &image]).stdout, SAYS, "{compression} {trust}");
        }
        // What stays here, on another run image too.
        site.built("app", &["--compression", compression]);
        assert_eq!(site.home.ok(&["run", "app"]).stdout, SAYS, "{compression}");
        site.registry.push(&newer, &format!("newer{number}"), "latest");
        let newer = site.registry.reference(&format!("newer{number}"));
        site.home.ok(&["rebase", "app", "--run-image", &newer, "--force"]);
        assert_eq!(site.home.ok(&["run", "app"]).stdout, format!("{SAYS}patched\n"), "{compression}");
    }
}

#[test]
fn layers_that_did_not_change_keep_their_blobs_and_the_cache_is_what_it_was() {
    let site = site();
    let image = site.registry.reference("app");
    site.built(&image, &["--publish"]);
    let before = layers(&site, "app");
    let again = site.built(&image, &["--publish", "--compression", "zstd"]);
    assert_eq!(layers(&site, "app"), before);
    assert!(again.stdout.contains("Reusing cache layer 'fixture/worker:kept'"), "{}", again.stdout);
    std::fs::write(site.app().join("more"), "more").expect("change the application");
    site.built(&image, &["--publish", "--compression", "zstd"]);
    let after = layers(&site, "app");
    let changed: Vec<&str> =
        before.iter().zip(&after).filter(|(old, new)| old != new).map(|(_, new)| &*new.0).collect();
    assert_eq!((changed, after.len()), (vec!["application/vnd.oci.image.layer.v1.tar+zstd"], before.len()));
}

#[test]
fn a_cache_image_with_layers_of_any_compression_is_restored() {
    let site = site();
    let (image, cache) = (site.registry.reference("app"), site.registry.reference("cache"));
    for compression in ["zstd", "none"] {
        let with = ["--publish", "--cache-image", &cache, "--compression", compression];
        site.built(&image, &with);
        let again = site.built(&image, &with);
        for said in [
            "Restoring data for \"fixture/worker:kept\" from cache",
            "Reusing cache layer 'fixture/worker:kept'",
        ] {
            assert!(again.stdout.contains(said), "{compression}: {said}: {}", again.stdout);
        }
        std::fs::write(site.app().join(compression), "").expect("change the application");
    }
}
