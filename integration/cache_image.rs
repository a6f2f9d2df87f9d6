//! `--cache-image`: what a build leaves for the next one, wherever that runs.

use coracle_fixtures::registry::PASSWORD;
use coracle_fixtures::{Buildpack, DockerRegistry, RegistryAccess};
use serde_json::Value;

use crate::harness::TestHome;
use crate::site::Site;

/// Counts its builds in a cached layer.
fn counter() -> Buildpack {
    Buildpack::passing("fixture/counter").plan("count").build(
        r#"
count=$(cat "$1/kept/count" 2>/dev/null || echo 0)
echo "count=$count"
mkdir -p "$1/kept"; echo $((count + 1)) >"$1/kept/count"
printf '[types]\nbuild = true\ncache = true\n' >"$1/kept.toml""#,
    )
}

/// A site and a second registry for the cache, each behind a password.
fn site() -> (Site, DockerRegistry) {
    let site = Site::with_password(&[counter().probing(&[PASSWORD])]);
    let caches = DockerRegistry::start(RegistryAccess::Password);
    log_in(&site.home, &[&site.registry, &caches]);
    (site, caches)
}

fn log_in(home: &TestHome, registries: &[&DockerRegistry]) {
    let mut config: Value = serde_json::json!({ "auths": {} });
    for registry in registries {
        let one: Value = serde_json::from_str(&registry.docker_config()).expect("is JSON");
        let auths = one["auths"].as_object().expect("has registries").clone();
        config["auths"].as_object_mut().expect("is an object").extend(auths);
    }
    let docker = home.path().join(".docker");
    std::fs::create_dir_all(&docker).expect("make .docker");
    std::fs::write(docker.join("config.json"), config.to_string()).expect("write config.json");
}

#[test]
fn a_build_elsewhere_finds_the_layers_of_the_last_one() {
    let (site, caches) = site();
    let (image, cache) = (site.registry.reference("team/app"), caches.reference("team/cache"));
    let with_cache = ["--publish", "--cache-image", &cache];
    let first = site.built(&image, &with_cache).stdout;
    assert!(
        first.contains("count=0") && first.contains("Adding cache layer 'fixture/counter:kept'"),
        "{first}"
    );
    let config: Value = serde_json::from_slice(&caches.config("team/cache:latest")).expect("is JSON");
    let label = config["config"]["Labels"]["io.buildpacks.lifecycle.cache.metadata"].as_str();
    assert!(label.is_some_and(|label| label.contains("fixture/counter")), "{config}");

    // Nothing but the registries is the same.
    let elsewhere = TestHome::new();
    log_in(&elsewhere, &[&site.registry, &caches]);
    let app = site.app().display().to_string();
    let words = ["build", &image, "--path", &app, "--builder", &site.builder];
    let second = elsewhere.ok(&[&words[..], &with_cache].concat()).stdout;
    assert!(second.contains("count=1"), "{second}");
    assert!(second.contains("Restoring data for \"fixture/counter:kept\" from cache"), "{second}");

    let third = site.built(&image, &[&with_cache[..], &["--build-layers", "strict"]].concat()).stdout;
    assert!(third.contains("count=2"), "{third}");
    let cleared = site.built(&image, &[&with_cache[..], &["--clear-cache"]].concat()).stdout;
    assert!(cleared.contains("count=0"), "{cleared}");
    assert!(!cleared.contains("Restoring data"), "{cleared}");
    let after = site.built(&image, &with_cache).stdout;
    assert!(after.contains("count=1"), "{after}");
}

#[test]
fn no_credentials_for_the_cache_reach_programs_of_buildpacks() {
    let (site, caches) = site();
    let (image, cache) = (site.registry.reference("team/app"), caches.reference("team/cache"));
    for _ in 0..2 {
        let said = site.built(&image, &["--publish", "--cache-image", &cache]).stdout;
        let reports: Vec<Value> = said
            .lines()
            .filter_map(|line| serde_json::from_str(line.split_once("] ")?.1).ok())
            .filter(|report: &Value| report["search"].is_object())
            .collect();
        // One of the program that builds; that of the one that detects is only shown with --verbose.
        assert_eq!(reports.len(), 1, "{said}");
        assert_eq!(crate::isolation::found(&reports[0], PASSWORD), Some(&Vec::new()));
    }
}

#[test]
fn a_cache_image_that_cannot_be_had_is_told_before_anything_runs() {
    let (site, caches) = site();
    let (image, cache) = (site.registry.reference("team/app"), caches.reference("team/cache"));
    let told = site.refused(1, &image, &["--cache-image", &cache]);
    let expected = format!(
        "error: the cache cannot be kept in the image {cache}:latest: it is in a registry, and so must be what is built: add --publish, or keep the cache in a folder (--cache-dir)\n"
    );
    assert_eq!(told, expected);
    let told = site.refused(1, &image, &["--publish", "--cache-image", &image]);
    let expected = format!(
        "error: the cache cannot be kept in the image {image}:latest: this is a name of the image to build; name another with --cache-image\n"
    );
    assert_eq!(told, expected);
    let told = site.refused(2, &image, &["--publish", "--cache-image", &cache, "--cache-dir", "x"]);
    assert!(told.contains("'--cache-image <IMAGE>' cannot be used with '--cache-dir <DIR>'"), "{told}");
    // The analyzer asks whether it may be written.
    log_in(&site.home, &[&site.registry]);
    let args = site.args(&image, &["--publish", "--cache-image", &cache]);
    let ran = site.home.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(ran.code, Some(32), "{}{}", ran.stdout, ran.stderr);
    assert!(
        ran.stderr.contains("team/cache") && ran.stderr.contains("the registry refuses access"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stdout.contains("DETECTOR"), "{}", ran.stdout);
}

#[test]
fn an_image_that_is_no_cache_counts_as_an_empty_one() {
    let (site, caches) = site();
    let (image, cache) = (site.registry.reference("team/app"), caches.reference("team/cache"));
    caches.push(&coracle_fixtures::RunImage::new().image(), "team/cache", "latest");
    let ran = site.built(&image, &["--publish", "--cache-image", &cache]);
    assert!(ran.stdout.contains("count=0"), "{}{}", ran.stdout, ran.stderr);
    assert!(site.built(&image, &["--publish", "--cache-image", &cache]).stdout.contains("count=1"));
}
