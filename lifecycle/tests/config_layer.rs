//! The layer of what the launcher reads, and the name of the run image in the label: as the reference makes them of what others wrote.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use coracle_fixtures::{DockerRegistry, Entry, Image as Fixture, Layer};
use coracle_lifecycle::env::Env;
use coracle_lifecycle::phases::{Launcher, main};
use coracle_lifecycle::with_causes;
use serde_json::Value;

/// What a builder left, and other programs beside it.
struct Build {
    dir: tempfile::TempDir,
    registry: DockerRegistry,
    digest: String,
}

impl Build {
    fn new() -> Self {
        let registry = DockerRegistry::open();
        let layer = Layer::new(&[Entry::dir("etc"), Entry::file("etc/os", "run")]);
        let pinned = registry.push(&Fixture::new(vec![layer]), "run", "latest");
        let digest = pinned.split_once('@').unwrap().1.to_owned();
        let build = Self { dir: tempfile::tempdir().unwrap(), registry, digest };
        fs::create_dir(build.at("app")).unwrap();
        let run = build.registry.reference("run:latest");
        build.write(
            "layers/analyzed.toml",
            &format!("[run-image]\nreference = \"{run}\"\nimage = \"{run}\"\n"),
        );
        build.write("layers/group.toml", "");
        build.write("layers/config/metadata.toml", "# written by somebody\nprocesses = []\n");
        build.write("run.toml", "");
        build
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    /// Exports, and returns the label and the names, modes and sizes in the layer that the label calls `config`.
    fn export(&self, more: &[&str]) -> Result<(Value, Vec<String>), String> {
        let [layers, run, app, scratch] = ["layers", "run.toml", "app", "scratch"].map(|path| self.at(path));
        let paths = [("-layers", &layers), ("-run", &run), ("-app", &app), ("-scratch", &scratch)];
        let mut args: Vec<OsString> =
            paths.into_iter().flat_map(|(flag, path)| [flag.into(), path.into()]).collect();
        args.extend(["-uid", "1001", "-gid", "1002"].iter().chain(more).map(OsString::from));
        args.push(self.registry.reference("app:1").into());
        let launcher = Launcher { program: b"launcher", metadata: serde_json::json!({ "version": "1" }) };
        let env: Env = [("CNB_PLATFORM_API".into(), "0.12".into())].into();
        main(OsStr::new("exporter"), &args, &env, &launcher).map_err(|error| with_causes(&error))?;
        let config: Value = serde_json::from_slice(&self.registry.config("app:1")).unwrap();
        let label = config["config"]["Labels"]["io.buildpacks.lifecycle.metadata"].as_str().unwrap();
        let label: Value = serde_json::from_str(label).unwrap();
        let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
        let place = diff_ids.iter().position(|diff_id| *diff_id == label["config"]["sha"]).unwrap();
        let manifest: Value = serde_json::from_slice(&self.registry.manifest("app:1")).unwrap();
        let layer = serde_json::from_value(manifest["layers"][place].clone()).unwrap();
        let client = coracle_images::Registry::new(Default::default()).unwrap();
        let name = self.registry.reference("app:1").parse().unwrap();
        let archive = coracle_images::uncompressed(client.blob(&name, &layer).unwrap()).unwrap();
        let mut archive = tar::Archive::new(archive);
        let config = self.at("layers/config");
        let entries = archive.entries().unwrap().map(|entry| entry.unwrap()).filter_map(|entry| {
            let (path, header) = (entry.path().unwrap().into_owned(), entry.header());
            let within = Path::new("/").join(path).strip_prefix(&config).ok()?.display().to_string();
            let owner = (header.uid().unwrap(), header.gid().unwrap());
            assert_eq!(owner, (1001, 1002), "{within}");
            Some(format!("{within} {:o} {}", header.mode().unwrap(), header.size().unwrap()))
        });
        Ok((label, entries.collect()))
    }
}

/// With permissions, order and all, also what a program of a buildpack put there; not where the platform brings metadata.toml along.
#[test]
fn all_of_the_folder_is_the_layer_unless_metadata_toml_comes_from_elsewhere() {
    let build = Build::new();
    build.write("layers/config/d/z", "y\n");
    build.write("layers/config/other", "x\n");
    symlink("other", build.at("layers/config/link")).unwrap();
    for (path, mode) in
        [("", 0o750), ("d", 0o700), ("d/z", 0o644), ("other", 0o600), ("metadata.toml", 0o640)]
    {
        fs::set_permissions(build.at("layers/config").join(path), Permissions::from_mode(mode)).unwrap();
    }
    let (_, entries) = build.export(&[]).unwrap();
    assert_eq!(
        entries,
        [" 750 0", "d 700 0", "d/z 644 2", "link 777 0", "metadata.toml 640 37", "other 600 2"]
    );

    fs::rename(build.at("layers/config/metadata.toml"), build.at("metadata.toml")).unwrap();
    let metadata = build.at("metadata.toml");
    let (_, entries) = build.export(&["-metadata", metadata.to_str().unwrap()]).unwrap();
    assert_eq!(entries, [" 755 0", "metadata.toml 644 15"]);
}

#[test]
fn a_link_in_the_folder_s_place_is_refused() {
    let build = Build::new();
    fs::rename(build.at("layers/config"), build.at("elsewhere")).unwrap();
    symlink(build.at("elsewhere"), build.at("layers/config")).unwrap();
    let error = build.export(&[]).unwrap_err();
    assert!(error.contains("config") && error.contains("link"), "{error}");
}

#[test]
fn the_label_names_the_run_image_by_digest_whatever_analyzed_toml_says() {
    let build = Build::new();
    let (label, _) = build.export(&[]).unwrap();
    let wanted = format!("{}@{}", build.registry.reference("run"), build.digest);
    assert_eq!(label["runImage"]["reference"], wanted);
}
