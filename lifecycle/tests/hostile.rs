//! What a buildpack can leave where a document is expected: each is an error that names the file, at once, and with nothing in
//! it of what a link leads to.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use coracle_cnb::{ApiVersion, Group, Plan};
use coracle_lifecycle::build::{BuildInput, BuildLayers, build, read_launch};
use coracle_lifecycle::env::Env;
use coracle_lifecycle::export::Found;
use coracle_lifecycle::surroundings::Surroundings;
use coracle_lifecycle::with_causes;

/// Commands of a shell that make `$F` something else than it should be, and what is said of it.
const KINDS: [(&str, &str); 8] = [
    ("ln -s \"$SECRET\" \"$F\"", "link"),
    ("ln -s nowhere \"$F\"", "link"),
    ("ln -s /dev/zero \"$F\"", "link"),
    ("mkfifo \"$F\"", "is not a regular file"),
    ("truncate -s 1G \"$F\"", "16777216 bytes"),
    ("printf '\\377' >\"$F\"", "utf-8"),
    ("{ printf 'a = '; head -c 100000 /dev/zero | tr '\\0' '['; } >\"$F\"", "recursion"),
    ("{ printf 'a'; head -c 100000 /dev/zero | sed 's/\\x0/.a/g'; echo ' = 1'; } >\"$F\"", "recursion"),
];

const SECRET: &str = "secret = what only the phase may read";

fn group() -> Group {
    toml::from_str("[[group]]\nid = \"one\"\nversion = \"1\"\napi = \"0.10\"\n").unwrap()
}

/// The error of everything that reads, where the buildpack leaves `file` as `script` makes it.
fn errors(dir: &Path, file: &str, script: &str) -> Vec<Result<(), String>> {
    let program = dir.join("buildpacks/one/1/bin/build");
    std::fs::create_dir_all(program.parent().unwrap()).unwrap();
    for folder in ["app", "layers", "platform", "scratch"] {
        std::fs::create_dir_all(dir.join(folder)).unwrap();
    }
    std::fs::write(dir.join("secret"), SECRET).unwrap();
    let toml = "api = \"0.10\"\n[buildpack]\nid = \"one\"\nversion = \"1\"\nsbom-formats = [\"application/spdx+json\"]\n";
    std::fs::write(dir.join("buildpacks/one/1/buildpack.toml"), toml).unwrap();
    let secret = dir.join("secret").display().to_string();
    let text = format!("#!/bin/sh\nset -e\nSECRET='{secret}' F=\"$1/{file}\"\n{script}\n");
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let env: Env = [("PATH".into(), std::env::var_os("PATH").unwrap())].into();
    let around = Surroundings {
        buildpacks_dir: dir.join("buildpacks"),
        extensions_dir: dir.join("extensions"),
        app_dir: dir.join("app"),
        platform_dir: dir.join("platform"),
        build_config_dir: dir.join("build-config"),
        scratch_dir: dir.join("scratch"),
        target: None,
        exec_env: None,
        outer_env: &env,
    };
    let layers_dir = dir.join("layers");
    let (group, plan) = (group(), Plan::default());
    let platform_api = ApiVersion::new(0, 13);
    let input = BuildInput {
        group: &group,
        plan: &plan,
        layers_dir: &layers_dir,
        around: &around,
        platform_api,
        build_layers: BuildLayers::Shared,
        shared: &[],
        note: &|_| {},
    };
    let said = |error: &dyn std::error::Error| with_causes(error);
    let built = build(&input).map(drop).map_err(|error| said(&error));
    let layers = std::fs::File::open(&layers_dir).unwrap();
    let app = std::fs::File::open(dir.join("app")).unwrap();
    let composed = read_launch(layers.as_fd(), &group).map(drop).map_err(|error| said(&error));
    let exported = Found::read(&group, layers.as_fd(), app.as_fd()).map(drop).map_err(|error| said(&error));
    vec![built, composed, exported]
}

#[test]
fn what_is_no_document_is_an_error_that_names_it() {
    // By document, who reads it: the builder, who composes the metadata, the exporter.
    for (file, readers) in [
        ("x.toml", [true, false, true]),
        ("launch.toml", [true, true, false]),
        ("build.toml", [true, false, false]),
        ("store.toml", [true, false, true]),
        ("launch.sbom.spdx.json", [true, false, false]),
    ] {
        for (script, why) in KINDS {
            let is_copied = file.ends_with(".json") && ["utf-8", "recursion"].contains(&why);
            let dir = tempfile::tempdir().unwrap();
            for (result, reads) in errors(dir.path(), file, script).into_iter().zip(readers) {
                let expected = reads && !is_copied;
                assert_eq!(result.is_err(), expected, "{file} {script}: {result:?}");
                let Err(text) = result else { continue };
                let text = text.to_lowercase();
                assert!(text.contains(file) && text.contains(why), "{file} {script}: {text}");
                assert!(!text.contains("what only the phase"), "{text}");
            }
        }
    }
}
