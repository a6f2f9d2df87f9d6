//! What builds cost, in things that can be counted on any machine: requests, containers, workers, files.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use coracle_fixtures::Buildpack;
use serde_json::Value;

use crate::harness::ran;
use crate::isolation_cost::Traced;
use crate::site::Site;

fn site() -> Site {
    let worker = Buildpack::passing("fixture/worker")
        .build("test -e \"$1/kept/content\" && { printf '[types]\\nlaunch = true\\ncache = true\\n' >\"$1/kept.toml\"; exit 0; }")
        .layer("kept", &["launch", "cache"], "kept");
    Site::new(&[worker])
}

/// How often each path was asked for with GET since `before` bytes of the registry's log, what the client asks to log in left out.
fn got(site: &Site, before: usize) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for line in site.registry.access_log()[before..].lines() {
        let request = line.split_once("\"GET ").and_then(|(_, rest)| rest.split(' ').next());
        *times.entry(request.filter(|path| *path != "/v2/").unwrap_or_default().to_owned()).or_default() += 1;
    }
    times.remove("");
    times
}

/// Digests of the layers of an image.
fn layers(site: &Site, name: &str) -> Vec<String> {
    let manifest: Value = serde_json::from_slice(&site.registry.manifest(name)).expect("a manifest");
    let layers = manifest["layers"].as_array().expect("layers").iter();
    layers.map(|layer| layer["digest"].as_str().expect("a digest").to_owned()).collect()
}

/// `containers N, with mounts M; workers W` of a build.
fn started(site: &Site, image: &str) -> String {
    let ran = site.built(image, &["--publish", "--verbose"]);
    let line = ran.stderr.lines().find_map(|line| line.strip_prefix("started: ").map(str::to_owned));
    line.expect("a line of what was started")
}

#[test]
fn builds_start_so_many_processes() {
    let site = site();
    let image = site.registry.reference("app");
    assert_eq!(started(&site, &image), "containers 6, with mounts 43; workers 11");
    // The builder is here.
    assert_eq!(started(&site, &image), "containers 6, with mounts 43; workers 10");
}

#[test]
fn a_cold_build_asks_for_nothing_twice_and_for_no_layer_of_the_run_image() {
    let site = site();
    let before = site.registry.access_log().len();
    site.built(&site.registry.reference("app"), &["--publish"]);
    let times = got(&site, before);
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    for layer in layers(&site, "builder") {
        assert!(times.contains_key(&format!("/v2/builder/blobs/{layer}")), "{layer}: {times:?}");
    }
    for layer in layers(&site, "run") {
        assert!(!times.contains_key(&format!("/v2/run/blobs/{layer}")), "{layer}: {times:?}");
    }
}

#[test]
fn eight_builds_at_once_fetch_their_builder_once() {
    let site = site();
    let before = site.registry.access_log().len();
    let children: Vec<_> = (0..8)
        .map(|number| {
            let args = site.args(&site.registry.reference(&format!("app{number}")), &["--publish"]);
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let mut command = site.home.command(&args);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start coracle")
        })
        .collect();
    for child in children {
        let ran = ran(child.wait_with_output().expect("wait"));
        assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    }
    let times = got(&site, before);
    for layer in layers(&site, "builder") {
        assert_eq!(times.get(&format!("/v2/builder/blobs/{layer}")), Some(&1), "{layer}: {times:?}");
    }
    assert_eq!(site.home.leftovers(), Vec::<String>::new());
}

#[test]
fn a_rebuild_with_nothing_changed_writes_little() {
    let site = site();
    let image = site.registry.reference("app");
    site.built(&image, &["--publish"]);
    site.built(&image, &["--publish"]);
    let stamp = site.home.path().join("stamp");
    std::fs::write(&stamp, "").expect("write a file");
    site.built(&image, &["--publish"]);
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--map-auto", "find"])
        .arg(site.home.path().join(".local/share/coracle"))
        .args(["-type", "f", "-newer"])
        .arg(&stamp)
        .args(["-printf", "%f\n"])
        .output()
        .expect("start unshare");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut names: Vec<&str> = text.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["io.buildpacks.lifecycle.cache.metadata", "records.json"]);
}

/// How many files and folders a rebuild opens in which nothing was changed, of a layer and an application of so many files each.
fn opened(files: usize, trust: &str) -> usize {
    let fill = format!("i=0; while [ $i -lt {files} ]; do : >\"$1/kept/$i\"; i=$((i + 1)); done");
    let keeper = Buildpack::passing("fixture/keeper")
        .build("if test -e \"$1/kept/content\"; then printf '[types]\\nlaunch = true\\ncache = true\\n' >\"$1/kept.toml\"; exit 0; fi")
        .layer("kept", &["launch", "cache"], "kept")
        .build(&fill);
    let site = Site::new(&[keeper]);
    for number in 0..files {
        std::fs::write(site.app().join(format!("file-{number}")), "").expect("write the application");
    }
    let traced = Traced::new(&site);
    let args = ["--publish", "--verbose", trust];
    site.built(&site.registry.reference("app"), &args);
    let (calls, _) = traced.build(&args);
    ["open", "openat", "openat2"].iter().filter_map(|name| calls.get(*name)).sum()
}

#[test]
fn a_rebuild_with_nothing_changed_opens_no_file_of_a_layer_or_of_the_application() {
    let (few, many) = (opened(10, "--trust-builder=false"), opened(400, "--trust-builder=false"));
    // Not to the last one: threads that wait look again.
    assert!(many < few + 50, "{few}, {many}");
    // Nor of what the one container of a trusted builder left.
    let trusted = opened(400, "--trust-builder");
    assert!(trusted < few + 50, "{few}, {trusted}");
    // 2,226 as measured, by some hundred programs that start and look for what they are made of.
    assert!(few < 2500, "{few}");
}
