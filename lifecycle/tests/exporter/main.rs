//! The exporter as a program, after an analyzer: into registries, into layout folders, and with caches.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod caches;
mod launch_cache;
mod layouts;
mod refused;
mod registries;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use coracle_fixtures::{DockerRegistry, Entry, Image as Fixture, Layer, RegistryAccess};
use coracle_images::{Image, Reference, read_layout, write_sparse_layout};
use coracle_lifecycle::env::Env;
use coracle_lifecycle::phases::{Launcher, PhaseError, layout_path, main};
use coracle_lifecycle::with_causes;
use serde_json::Value;
use tempfile::TempDir;

const LABEL: &str = "io.buildpacks.lifecycle.metadata";

const METADATA: &str = r#"buildpack-default-process-type = "web"

[[buildpacks]]
  id = "a/one"
  version = "1"
  api = "0.10"

[[labels]]
  key = "io.buildpacks.lifecycle.metadata"
  value = "forged"

[[labels]]
  key = "io.buildpacks.builder.metadata"
  value = "{}"

[[labels]]
  key = "mine"
  value = "yes"

[[processes]]
  type = "web"
  command = ["serve"]
  direct = true
  buildpack-id = "a/one"
"#;

/// What a build left, and where the phases work.
struct Build {
    dir: TempDir,
    env: Env,
}

impl Build {
    fn new(run_name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let build = Self { dir, env: [("CNB_PLATFORM_API".into(), "0.13".into())].into() };
        for (path, text) in [
            ("layers/a_one/kept.toml", "[types]\nlaunch = true\n[metadata]\nversion = 1\n"),
            ("layers/a_one/kept/file", "kept"),
            ("layers/config/metadata.toml", METADATA),
            ("layers/group.toml", "[[group]]\nid = \"a/one\"\nversion = \"1\"\napi = \"0.10\"\n"),
            ("layers/sbom/launch/sbom.legacy.json", "null\n"),
            ("app/main", "m"),
        ] {
            build.write(path, text);
        }
        build.write("run.toml", &format!("[[images]]\nimage = \"{run_name}\"\n"));
        build
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn phase(&self, name: &str, args: &[&str]) -> Result<(), PhaseError> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let launcher = Launcher { program: b"launcher", metadata: serde_json::json!({ "version": "1" }) };
        main(OsStr::new(name), &args, &self.env, &launcher)
    }

    fn analyze(&self, args: &[&str]) {
        let (layers, run) = (self.at("layers"), self.at("run.toml"));
        let own = ["-layers", layers.to_str().unwrap(), "-run", run.to_str().unwrap()];
        self.phase("analyzer", &[&own[..], args].concat()).unwrap();
    }

    fn export(&self, args: &[&str]) -> Result<(), PhaseError> {
        let [layers, run, app, scratch] = ["layers", "run.toml", "app", "scratch"].map(|path| self.at(path));
        let own = ["-layers", layers.to_str().unwrap(), "-run", run.to_str().unwrap()];
        let more = ["-app", app.to_str().unwrap(), "-scratch", scratch.to_str().unwrap()];
        self.phase("exporter", &[&own[..], &more, &["-uid", "1001", "-gid", "1002"], args].concat())
    }

    fn report(&self) -> toml::Table {
        fs::read_to_string(self.at("layers/report.toml")).unwrap().parse().unwrap()
    }
}

fn run_fixture() -> Fixture {
    let layer = Layer::new(&[Entry::dir("etc"), Entry::file("etc/os", "run")]);
    Fixture::new(vec![layer]).env("PATH", "/bin").label("base", "kept")
}

/// Uploads of content that a registry finished.
fn uploads(log: &str) -> usize {
    log.lines().filter(|line| line.contains("\"PUT ") && line.contains("/blobs/uploads/")).count()
}

/// A layout folder with a run image without its layers, and the flags that name it.
fn layout(build: &Build) -> (PathBuf, Vec<String>) {
    let dir = build.at("layout");
    let whole = build.at("whole");
    run_fixture().write_layout(&whole, "run");
    let run: Reference = "example.org/run:latest".parse().unwrap();
    write_sparse_layout(&read_layout(&whole, None).unwrap(), None, &layout_path(&dir, &run)).unwrap();
    let flags = vec!["-layout".into(), "-layout-dir".into(), dir.to_str().unwrap().into()];
    (dir, flags)
}

fn blobs(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("blobs/sha256")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
