//! The lifecycle in a builder: ours, for other platforms, or the one that its description names
//! (docs/decisions/0032-builders-hold-a-lifecycle.md).

use std::fs;

use coracle_fixtures::RunImage;
use serde_json::{Value, json};

use crate::builder::{DEFINITION, Kitchen};

fn without_lifecycle() -> String {
    DEFINITION.replace("[lifecycle]\nuri = \"other\"\n", "")
}

/// What the published builder's metadata say of its lifecycle.
fn lifecycle_label(kitchen: &Kitchen, name: &str) -> Value {
    let config: Value = serde_json::from_slice(&kitchen.registry.config(name)).expect("a configuration");
    let text = config["config"]["Labels"]["io.buildpacks.builder.metadata"].as_str().expect("a label");
    let metadata: Value = serde_json::from_str(text).expect("a label of JSON");
    metadata["lifecycle"].clone()
}

#[test]
fn other_platforms_find_our_lifecycle_in_it_and_builds_with_either_are_the_same() {
    let kitchen = Kitchen::new();
    kitchen.define(&without_lifecycle());
    kitchen.registry.push(&RunImage::new().image(), "run", "latest");
    let name = kitchen.registry.reference("team/made:1");
    let config = kitchen.config.to_str().expect("a path");
    kitchen.home.ok(&["builder", "create", &name, "--config", config, "--publish"]);

    let label = lifecycle_label(&kitchen, "team/made:1");
    assert_eq!(label["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(label["api"], json!({ "buildpack": "0.7", "platform": "0.7" }));
    assert_eq!(label["apis"]["platform"]["supported"][8], "0.15");
    let script =
        "cd /cnb/lifecycle && ls -1 && stat -c '%u:%g %a' . lifecycle launcher && ./exporter -version";
    let listed = kitchen.home.ok(&["run", &name, "sh", "-c", script]).stdout;
    let documents = ["cdx", "spdx", "syft"]
        .map(|kind| ["launcher", "lifecycle"].map(|program| format!("{program}.sbom.{kind}.json")));
    let programs =
        "analyzer builder creator detector exporter extender launcher lifecycle rebaser restorer".split(' ');
    let mut expected: Vec<String> =
        programs.map(str::to_owned).chain(documents.into_iter().flatten()).collect();
    expected.sort_unstable();
    let about = ["0:0 755", "0:0 755", "0:0 755", env!("CARGO_PKG_VERSION")].map(str::to_owned);
    assert_eq!(listed.lines().collect::<Vec<_>>(), [expected, about.to_vec()].concat());

    let application = kitchen.home.path().join("application");
    fs::create_dir(&application).expect("make a folder");
    let path = application.to_str().expect("a path");
    let build = |image: &str, more: &[&str]| {
        let words = ["build", image, "--path", path, "--builder", &name, "--publish", "--trust-builder"];
        kitchen.home.ok(&[&words[..], more].concat())
    };
    let (one, two) = (kitchen.registry.reference("one"), kitchen.registry.reference("two"));
    let native = build(&one, &[]);
    assert!(!native.stderr.contains("is not used"), "{}", native.stderr);
    let own = build(&two, &["--lifecycle", "builder"]);
    let version = env!("CARGO_PKG_VERSION");
    let played = format!("the lifecycle of builder {name} (version {version}) plays the phases");
    assert!(own.stderr.contains(&played), "{}", own.stderr);
    let manifest = |name: &str| String::from_utf8(kitchen.registry.manifest(name)).expect("is text");
    assert_eq!(manifest("one:latest"), manifest("two:latest"));
}

#[test]
fn the_lifecycle_that_the_file_names_is_in_it() {
    let kitchen = Kitchen::new();
    let create = |name: &str| {
        let config = kitchen.config.to_str().expect("a path");
        kitchen.home.ok(&[
            "builder",
            "create",
            &kitchen.registry.reference(name),
            "--config",
            config,
            "--publish",
        ])
    };
    let of_folder = create("made:1");
    let expected = json!({
        "version": "7.8.9",
        "api": { "buildpack": "0.7", "platform": "0.7" },
        "apis": {
            "buildpack": { "deprecated": ["0.7"], "supported": ["0.10"] },
            "platform": { "deprecated": [], "supported": ["0.7", "0.13"] },
        },
    });
    assert_eq!(lifecycle_label(&kitchen, "made:1"), expected);
    let ran = kitchen.home.ok(&["run", &kitchen.registry.reference("made:1"), "/cnb/lifecycle/analyzer"]);
    assert_eq!(ran.stdout, "7.8.9\n");

    // Its release archive gives the same builder.
    let archive = kitchen.home.path().join("lifecycle.tgz");
    let tar = std::process::Command::new("tar")
        .args(["-czf", archive.to_str().expect("a path"), "-C"])
        .arg(kitchen.home.path().join("other"))
        .args(["lifecycle.toml", "lifecycle"])
        .status();
    assert!(tar.expect("start tar").success());
    kitchen.define(&DEFINITION.replace("\"other\"", "\"lifecycle.tgz\""));
    assert_eq!(create("made:2").stdout, of_folder.stdout);
}

#[test]
fn a_lifecycle_that_cannot_be_put_in_is_refused_with_what_to_do() {
    let kitchen = Kitchen::new();
    let error = kitchen.refused(&DEFINITION.replace("\"other\"", "\"nowhere\""));
    assert!(error.starts_with("error: could not read ") && error.contains("/nowhere\n"), "{error}");
    fs::remove_file(kitchen.home.path().join("other/lifecycle/exporter")).expect("remove");
    let error = kitchen.refused(DEFINITION);
    assert!(error.contains("/other has no program exporter in its folder lifecycle"), "{error}");
    assert_eq!(kitchen.home.leftovers(), Vec::<String>::new());
}

#[test]
fn a_lifecycle_by_its_version_is_not_fetched_and_that_is_said() {
    let kitchen = Kitchen::new();
    kitchen.define(&without_lifecycle());
    let plain = kitchen.home.ok(&kitchen.create(&[]));
    kitchen.define(&format!("{}\n[lifecycle]\nversion = \"0.20.0\"\n", without_lifecycle()));
    let made = kitchen.home.ok(&kitchen.create(&[]));
    let said = "builder.toml asks for the lifecycle 0.20.0, which is not fetched: the builder gets the one inside this program";
    assert!(made.stderr.contains(said), "{}", made.stderr);
    assert_eq!(made.stdout, plain.stdout);
    let quiet = kitchen.home.ok(&kitchen.create(&["--quiet"]));
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), (made.stdout.as_str(), ""));
}
