//! Layers of earlier buildpacks while later ones run (docs/decisions/0013-layers-of-earlier-buildpacks.md).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use coracle_fixtures::{Buildpack, DockerRegistry, RunImage};
use serde_json::Value;

use crate::harness::{Ran, coracle, ran};
use crate::site::Site;

/// Brings a Python of a kind: its program fills a cache beside what it loads, where it may.
fn python() -> Buildpack {
    Buildpack::passing("fixture/python").build(
        r#"
echo "python finds $(cd "$1" && find . -type f | sort | tr '\n' ' ')"
mkdir -p "$1/python/bin" "$1/python/lib"
printf '[types]\nbuild = true\nlaunch = true\ncache = true\n' >"$1/python.toml"
echo 'import pip' >"$1/python/lib/pip.py"
cat >"$1/python/bin/python" <<'END'
#!/bin/bash
lib=$(dirname "$0")/../lib
if mkdir -p "$lib/__pycache__" && date +%N.$$ >"$lib/__pycache__/pip.pyc"; then echo cached; else echo not cached; fi 2>&1
END
chmod 755 "$1/python/bin/python""#,
    )
}

/// Uses it, to make a layer of its own.
fn pip() -> Buildpack {
    Buildpack::passing("fixture/pip").build(
        r#"
python
mkdir -p "$1/packages"; echo dependency >"$1/packages/dependency"
printf '[types]\nlaunch = true\n' >"$1/packages.toml""#,
    )
}

const TOLD: &str = "warning: buildpack `fixture/pip@1.0.0` changed layer `python` of buildpack `fixture/python@1.0.0` in 1 place, such as `python/lib/__pycache__`: that is undone (see --shared-layer and --build-layers)";

/// The diff id of the layer `python` of the image `app`, the same in its metadata and among its layers.
fn diff_id(registry: &DockerRegistry) -> String {
    let config: Value = serde_json::from_slice(&registry.config("app")).expect("a configuration");
    let label = config["config"]["Labels"]["io.buildpacks.lifecycle.metadata"].as_str().expect("a label");
    let metadata: Value = serde_json::from_str(label).expect("metadata");
    let diff_id =
        metadata["buildpacks"][0]["layers"]["python"]["sha"].as_str().expect("a diff id").to_owned();
    let all = config["rootfs"]["diff_ids"].as_array().expect("a list");
    assert!(all.iter().any(|other| *other == diff_id), "{diff_id} in {all:?}");
    diff_id
}

#[test]
fn the_diff_id_of_a_layer_stays_when_a_later_buildpack_writes_into_it() {
    let site = Site::new(&[python(), pip()]);
    let name = site.registry.reference("app:latest");
    let build = |more: &[&str]| site.built(&name, &[&["--publish"], more].concat());
    let first = build(&[]);
    assert!(first.stdout.contains("[builder] cached"), "{}", first.stdout);
    assert!(first.stderr.contains(TOLD), "{}", first.stderr);
    let known = diff_id(&site.registry);

    let again = build(&[]);
    let said = format!("{}{}", again.stdout, again.stderr);
    assert!(said.contains(TOLD), "{said}");
    assert!(said.contains("Reusing layer 'fixture/python:python'"), "{said}");
    assert!(said.contains("Reusing cache layer 'fixture/python:python'"), "{said}");
    assert!(said.contains("./python/lib/pip.py") && !said.contains("pip.pyc"), "{said}");
    assert_eq!(diff_id(&site.registry), known);

    let shared = build(&["--build-layers", "shared"]);
    assert!(!format!("{}{}", shared.stdout, shared.stderr).contains("is undone"));
    assert_ne!(diff_id(&site.registry), known);
    let own = build(&["--shared-layer", "fixture/python:python"]);
    assert!(own.stdout.contains("python/lib/__pycache__/pip.pyc"), "{}", own.stdout);
    assert!(!format!("{}{}", own.stdout, own.stderr).contains("is undone"));
    assert_ne!(diff_id(&site.registry), known);
}

/// The phases on this machine's own folders, one after the other.
struct Pipeline {
    dir: tempfile::TempDir,
    registry: DockerRegistry,
}

impl Pipeline {
    fn new(buildpacks: &[Buildpack]) -> Self {
        let pipeline =
            Self { dir: tempfile::tempdir().expect("make a folder"), registry: DockerRegistry::open() };
        pipeline.registry.push(&RunImage::new().image(), "run", "latest");
        for folder in ["app", "platform", "bin", "buildpacks", "cache"] {
            fs::create_dir(pipeline.at(folder)).expect("make a folder");
        }
        let mut order = "[[order]]\n".to_owned();
        for buildpack in buildpacks {
            let folder = pipeline.at("buildpacks").join(buildpack.id.replace('/', "_"));
            fs::create_dir(&folder).expect("make a folder");
            buildpack.write(&folder.join(&buildpack.version));
            order.push_str(&format!(
                "[[order.group]]\nid = \"{}\"\nversion = \"{}\"\n",
                buildpack.id, buildpack.version
            ));
        }
        fs::write(pipeline.at("order.toml"), order).expect("write a file");
        for name in ["analyzer", "detector", "restorer", "builder", "exporter"] {
            symlink(coracle(), pipeline.at("bin").join(name)).expect("make a link");
        }
        pipeline
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn phase(&self, name: &str, words: &[&str]) -> Ran {
        let mut command = Command::new(self.at("bin").join(name));
        command.args(words).env_clear().env("PATH", "/usr/bin:/bin").env("CNB_PLATFORM_API", "0.13");
        for (name, path) in [
            ("CNB_APP_DIR", "app"),
            ("CNB_LAYERS_DIR", "layers"),
            ("CNB_BUILDPACKS_DIR", "buildpacks"),
            ("CNB_CACHE_DIR", "cache"),
            ("CNB_ORDER_PATH", "order.toml"),
            ("CNB_PLATFORM_DIR", "platform"),
            ("CNB_RUN_PATH", "run.toml"),
            ("CNB_BUILD_CONFIG_DIR", "no-build-config"),
        ] {
            command.env(name, self.at(path));
        }
        let ran = ran(command.output().expect("start a phase"));
        assert_eq!(ran.code, Some(0), "{name}: {}{}", ran.stdout, ran.stderr);
        ran
    }

    /// A whole build with new folders; gives what the builder and the exporter said.
    fn build(&self, more: &[&str]) -> (Ran, Ran) {
        let _ = fs::remove_dir_all(self.at("layers"));
        fs::create_dir(self.at("layers")).expect("make a folder");
        let (run, app) = (self.registry.reference("run:latest"), self.registry.reference("app:latest"));
        self.phase("analyzer", &["-run-image", &run, &app]);
        self.phase("detector", &[]);
        self.phase("restorer", &[]);
        let built = self.phase("builder", more);
        (built, self.phase("exporter", &[&app]))
    }
}

#[test]
fn the_builder_of_other_platforms_keeps_layers_too() {
    let pipeline = Pipeline::new(&[python(), pip()]);
    let (first, _) = pipeline.build(&[]);
    assert_eq!(first.stderr, format!("{TOLD}\n"));
    assert!(first.stdout.contains("cached"), "{}", first.stdout);
    let known = diff_id(&pipeline.registry);
    let (again, exported) = pipeline.build(&["-build-layers", "snapshot"]);
    assert_eq!(again.stderr, format!("{TOLD}\n"));
    assert!(exported.stdout.contains("Reusing layer 'fixture/python:python'"), "{}", exported.stdout);
    assert!(exported.stdout.contains("Reusing cache layer 'fixture/python:python'"), "{}", exported.stdout);
    assert_eq!(diff_id(&pipeline.registry), known);

    let (shared, _) = pipeline.build(&["-build-layers", "shared"]);
    assert_eq!(shared.stderr, "");
    assert_ne!(diff_id(&pipeline.registry), known);
}

#[test]
fn what_the_flags_of_the_builder_cannot_be_is_said() {
    let pipeline = Pipeline::new(&[python()]);
    fs::create_dir(pipeline.at("layers")).expect("make a folder");
    fs::write(pipeline.at("layers/group.toml"), "").expect("write a file");
    fs::write(pipeline.at("layers/plan.toml"), "").expect("write a file");
    for (words, expected) in [
        (
            ["-build-layers", "strict"],
            "flag `-build-layers`, or its variable: `strict` takes a container for each buildpack, which `coracle build` makes and a phase by itself does not; `snapshot` keeps layers here",
        ),
        (
            ["-build-layers", "loose"],
            "flag `-build-layers`, or its variable: `loose` is not `snapshot` or `shared`",
        ),
        (
            ["-step", "first"],
            "flag `-step`, or its variable: `first` is not a buildpack's number in the group",
        ),
        (
            ["-shared-layer", "a b"],
            "flag `-shared-layer`, or its variable: `a b` is not BUILDPACK or BUILDPACK:LAYER",
        ),
    ] {
        let mut command = Command::new(pipeline.at("bin/builder"));
        command
            .args(words)
            .env_clear()
            .env("CNB_PLATFORM_API", "0.13")
            .env("CNB_LAYERS_DIR", pipeline.at("layers"));
        let ran = ran(command.output().expect("start the builder"));
        assert_eq!(ran.code, Some(3), "{}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    }
}
