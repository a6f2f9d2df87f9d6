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

fn group(ids: &[&str]) -> Group {
    let element = |id| format!("[[group]]\nid = \"{id}\"\nversion = \"1\"\napi = \"0.10\"\n");
    toml::from_str(&ids.iter().map(element).collect::<String>()).unwrap()
}

fn buildpack(dir: &Path, id: &str, script: &str) {
    let dir = dir.join("buildpacks").join(id).join("1");
    let program = dir.join("bin/build");
    std::fs::create_dir_all(program.parent().unwrap()).unwrap();
    let toml = format!(
        "api = \"0.10\"\n[buildpack]\nid = \"{id}\"\nversion = \"1\"\nsbom-formats = [\"application/spdx+json\"]\n"
    );
    std::fs::write(dir.join("buildpack.toml"), toml).unwrap();
    std::fs::write(&program, format!("#!/bin/sh\nset -e\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The error of everything that reads, where the buildpack leaves `file` as `script` makes it.
fn errors(dir: &Path, file: &str, script: &str) -> Vec<Result<(), String>> {
    let secret = dir.join("secret").display().to_string();
    buildpack(dir, "one", &format!("SECRET='{secret}' F=\"$1/{file}\"\n{script}"));
    results(dir, &["one"])
}

/// What the builder, who composes metadata, and the exporter come to.
fn results(dir: &Path, ids: &[&str]) -> Vec<Result<(), String>> {
    for folder in ["app", "layers", "platform", "scratch"] {
        std::fs::create_dir_all(dir.join(folder)).unwrap();
    }
    std::fs::write(dir.join("secret"), SECRET).unwrap();
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
    let (group, plan) = (group(ids), Plan::default());
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

/// Variables of a layer are for the buildpacks after the one that made it.
#[test]
fn what_is_no_variable_of_a_layer_is_an_error_that_names_it() {
    for (script, file, why) in [
        ("mkfifo env/A", "env/A", "is not a regular file"),
        ("mkfifo env.build/A", "env.build/A", "is not a regular file"),
        ("ln -s /dev/zero env.build/A", "env.build/A", "is not a regular file"),
        ("truncate -s 100M env/A.append", "env/A.append", "16777216 bytes"),
        ("ln -s nowhere env.build/A", "env.build/A", "entity not found"),
        // What is for the image's processes is nobody's here, nor are folders.
        ("mkfifo env.launch/A; mkdir env/A; printf a >env.build/A", "", "a"),
        ("printf odd >\"env/$(printf '\\377')\"; printf a >env.build/A", "", "a"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let make = "mkdir -p \"$1/x/env\" \"$1/x/env.build\" \"$1/x/env.launch\"; printf '[types]\\nbuild = true\\n' >\"$1/x.toml\"";
        buildpack(dir.path(), "one", &format!("{make}; cd \"$1/x\"; {script}"));
        buildpack(dir.path(), "two", "printf '%s' \"$A\" >said");
        let built = results(dir.path(), &["one", "two"]).remove(0);
        if file.is_empty() {
            assert_eq!(
                (built, std::fs::read_to_string(dir.path().join("app/said")).unwrap()),
                (Ok(()), why.to_owned())
            );
            continue;
        }
        let text = built.unwrap_err();
        assert!(text.contains(&format!("layers/one/x/{file}")) && text.contains(why), "{script}: {text}");
        assert!(!dir.path().join("app/said").exists(), "{script}");
    }
}
