//! The exporter as a program, after an analyzer: into registries with a password, and into layout folders.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

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

#[test]
fn a_second_export_sends_no_layer() {
    let registry = DockerRegistry::start(RegistryAccess::Password);
    registry.push(&run_fixture(), "team/run", "latest");
    let mut build = Build::new(&registry.reference("team/run:latest"));
    build.write("docker/config.json", &registry.docker_config());
    let config = build.at("docker");
    build.env.insert("DOCKER_CONFIG".into(), config.into());
    let (name, other) = (registry.reference("team/app:1"), registry.reference("other/app:2"));

    build.analyze(&[&name]);
    let analyzed = uploads(&registry.access_log());
    build.export(&[&name, &other]).unwrap();
    assert!(!build.at("scratch/outbox").exists());
    let config: Value = serde_json::from_slice(&registry.config("team/app:1")).unwrap();
    assert_eq!(registry.manifest("team/app:1"), registry.manifest("other/app:2"));
    let labels = &config["config"]["Labels"];
    assert_eq!((&labels["base"], &labels["mine"]), (&"kept".into(), &"yes".into()));
    assert!(labels.get("io.buildpacks.builder.metadata").is_none(), "{labels}");
    let metadata: Value = serde_json::from_str(labels[LABEL].as_str().unwrap()).unwrap();
    let sha = metadata["buildpacks"][0]["layers"]["kept"]["sha"].as_str().unwrap();
    assert!(config["rootfs"]["diff_ids"].as_array().unwrap().iter().any(|diff_id| diff_id == sha));
    assert_eq!(metadata["runImage"]["image"], registry.reference("team/run:latest"));
    assert_eq!(config["config"]["Entrypoint"][0], "/cnb/process/web");
    assert_eq!(config["config"]["Env"][0], "PATH=/cnb/process:/cnb/lifecycle:/bin");
    let report = build.report();
    let manifest = registry.manifest("team/app:1");
    assert_eq!(report["image"]["tags"], toml::Value::from(vec![name.clone(), other]));
    assert_eq!(report["image"]["digest"].as_str().unwrap(), coracle_images::Digest::of(&manifest).as_str());
    assert_eq!(report["image"]["manifest-size"].as_integer(), Some(manifest.len() as i64));

    // The same again: neither a layer nor the configuration goes over the wire.
    let before = uploads(&registry.access_log());
    // Six layers and a configuration, and in the second repository the configuration: the rest was taken over there, and the run
    // image's layer everywhere.
    assert_eq!(before, analyzed + 8, "{}", registry.access_log());
    build.analyze(&[&name]);
    build.export(&[&name]).unwrap();
    assert_eq!(uploads(&registry.access_log()), before);
    assert_eq!(registry.manifest("team/app:1"), manifest);

    // Nor with layers that are for the cache or for later buildpacks: no image has them, nor speaks of them.
    for kind in ["cache", "build"] {
        build.write(&format!("layers/a_one/{kind}-only.toml"), &format!("[types]\n{kind} = true\n"));
        build.write(&format!("layers/a_one/{kind}-only/file"), kind);
    }
    build.analyze(&[&name]);
    build.export(&[&name]).unwrap();
    assert_eq!(uploads(&registry.access_log()), before);
    assert_eq!(registry.manifest("team/app:1"), manifest);

    // The buildpack left no folder: its layer is the previous image's. The application changed: one layer, one configuration.
    fs::remove_dir_all(build.at("layers/a_one/kept")).unwrap();
    build.write("app/main", "changed");
    build.analyze(&[&name]);
    build.export(&[&name]).unwrap();
    assert_eq!(uploads(&registry.access_log()), before + 2);
    let config: Value = serde_json::from_slice(&registry.config("team/app:1")).unwrap();
    assert!(config["rootfs"]["diff_ids"].as_array().unwrap().iter().any(|diff_id| diff_id == sha));

    build.write("docker/config.json", "{}");
    let error = build.export(&[&name]).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(
        with_causes(&error).contains("the registry refuses access; log in to it"),
        "{}",
        with_causes(&error)
    );
}

#[test]
fn a_run_image_of_another_registry_is_copied() {
    let (far, near) = (DockerRegistry::open(), DockerRegistry::open());
    far.push(&run_fixture(), "run", "latest");
    let build = Build::new(&far.reference("run:latest"));
    let name = near.reference("app:latest");
    build.analyze(&[&name]);
    build.export(&[&name]).unwrap();
    let manifest: Value = serde_json::from_slice(&near.manifest("app:latest")).unwrap();
    let base: Value = serde_json::from_slice(&far.manifest("run:latest")).unwrap();
    assert_eq!(manifest["layers"][0]["digest"], base["layers"][0]["digest"]);
    // A layer is verified while it is read.
    let client = coracle_images::Registry::new(Default::default()).unwrap();
    let layer = serde_json::from_value(manifest["layers"][0].clone()).unwrap();
    let mut content = client.blob(&name.parse().unwrap(), &layer).unwrap();
    std::io::copy(&mut content, &mut std::io::sink()).unwrap();
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

#[test]
fn a_layout_holds_what_is_new() {
    let build = Build::new("example.org/run:latest");
    let (dir, flags) = layout(&build);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let name = "example.org/app:1";
    build.analyze(&[&flags[..], &[name]].concat());
    build.export(&[&flags[..], &[name, "example.org/app:also"]].concat()).unwrap();
    let folder = layout_path(&dir, &name.parse().unwrap());
    let image = read_layout(&folder, Some(name)).unwrap();
    // Run image, buildpack's layer, bill of materials, application, launcher, its configuration, process types.
    assert_eq!(image.manifest.layers.len(), 7);
    let has = |image: &Image, at: usize| {
        let digest = &image.manifest.layers[at].digest;
        folder.join("blobs/sha256").join(digest.hex()).exists()
    };
    assert!(!has(&image, 0) && (1..7).all(|at| has(&image, at)));
    let also = layout_path(&dir, &"example.org/app:also".parse().unwrap());
    assert_eq!(read_layout(&also, None).unwrap().digest, image.digest);
    assert_eq!(blobs(&also).len(), blobs(&folder).len());
    let metadata: Value = serde_json::from_str(image.config.label(LABEL).unwrap()).unwrap();
    let reference = metadata["runImage"]["reference"].as_str().unwrap();
    assert!(reference.starts_with("example.org/run@sha256:"), "{reference}");
    assert_eq!(build.report()["image"]["digest"].as_str().unwrap(), image.digest.as_str());

    // The previous image without its layers is enough to leave out all that did not change.
    fs::remove_dir_all(&folder).unwrap();
    write_sparse_layout(&image, None, &folder).unwrap();
    build.write("app/main", "changed");
    build.analyze(&[&flags[..], &[name]].concat());
    build.export(&[&flags[..], &[name]].concat()).unwrap();
    let second = read_layout(&folder, Some(name)).unwrap();
    let new: Vec<usize> = (0..7).filter(|at| has(&second, *at)).collect();
    assert_eq!(new, [3]);
    assert_eq!(second.manifest.layers[1], image.manifest.layers[1]);
}

/// The folders of an archive: path, mode, owner and group (POSIX.1, "ustar Interchange Format").
fn folders(archive: &Path) -> Vec<(PathBuf, u32, u32, u32)> {
    let bytes = fs::read(archive).unwrap();
    let (mut at, mut folders) = (0, Vec::new());
    while bytes.len() > at + 512 && bytes[at] != 0 {
        let text = |from: usize, length: usize| {
            let field = &bytes[at + from..at + from + length];
            std::str::from_utf8(field).unwrap().trim_end_matches('\0').to_owned()
        };
        let number = |from, length| u32::from_str_radix(text(from, length).trim(), 8).unwrap();
        if bytes[at + 156] == b'5' {
            let path = PathBuf::from(text(345, 155)).join(text(0, 100));
            folders.push((path, number(100, 8), number(108, 8), number(116, 8)));
        }
        at += 512 + (number(124, 12) as usize).next_multiple_of(512);
    }
    folders
}

/// Platforms mount what they have, such as folders of another group: whoever unpacks a layer finds those above it as they were. Only
/// the layer is the build's user's.
#[test]
fn folders_above_layers_stay_as_they_are() {
    let build = Build::new("example.org/run:latest");
    let (dir, flags) = layout(&build);
    build.write("workspace/source/main", "m");
    build.write("layers/a_one/kept.toml", "[types]\nlaunch = true\ncache = true\n");
    for (path, mode) in
        [("layers", 0o2775), ("layers/a_one", 0o2750), ("layers/sbom", 0o711), ("workspace", 0o1777)]
    {
        fs::set_permissions(build.at(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let (app, cache) = (build.at("workspace/source"), build.at("cache"));
    let own = ["-app", app.to_str().unwrap(), "-cache-dir", cache.to_str().unwrap()];
    let name = "example.org/app:1";
    let more = ["-uid", "54321", "-gid", "54322", "-compression", "none", name];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    build.analyze(&[&flags[..], &[name]].concat());
    build.export(&[&flags[..], &own, &more].concat()).unwrap();

    let folder = layout_path(&dir, &name.parse().unwrap());
    let image = read_layout(&folder, Some(name)).unwrap();
    let layers = &image.manifest.layers;
    let blob = |at: usize| folder.join("blobs/sha256").join(layers[at].digest.hex());
    let kept = image.config.rootfs.diff_ids[1].to_string();
    let cached = cache.join("committed").join(format!("{kept}.tar"));
    for (archive, layer) in [
        (blob(1), build.at("layers/a_one/kept")),
        (cached, build.at("layers/a_one/kept")),
        (blob(2), build.at("layers/sbom/launch")),
        (blob(3), app),
        (blob(5), build.at("layers/config")),
    ] {
        let wanted = |path: &Path| {
            let about = fs::metadata(path).unwrap();
            let own = if path == layer { (54321, 54322) } else { (about.uid(), about.gid()) };
            // What says which process starts is written for the image, in a folder as it would be made there.
            let mode = if path.ends_with("layers/config") { 0o2755 } else { about.mode() & 0o7777 };
            (path.to_owned(), mode, own.0, own.1)
        };
        let mut above: Vec<&Path> = layer.ancestors().filter(|path| path.parent().is_some()).collect();
        above.reverse();
        let wanted: Vec<_> = above.into_iter().map(wanted).collect();
        assert_eq!(folders(&archive)[..wanted.len()], wanted, "{}", layer.display());
    }
}

#[test]
fn what_foreign_code_left_is_not_followed() {
    let build = Build::new("example.org/run:latest");
    let (_, flags) = layout(&build);
    let args: Vec<&str> = flags.iter().map(String::as_str).chain(["example.org/app"]).collect();
    build.analyze(&args);
    build.write("secret/file", "[types]\nlaunch = true\n");
    for (link, to) in [
        ("layers/a_one/evil.toml", "secret/file"),
        ("layers/a_one/kept", "secret"),
        ("layers/a_one/store.toml", "secret/file"),
        ("layers/sbom/launch", "secret"),
        ("layers/a_one", "secret"),
    ] {
        let link_path = build.at(link);
        let aside = build.at("aside");
        let was = fs::rename(&link_path, &aside).is_ok();
        symlink(build.at(to), &link_path).unwrap();
        let error = build.export(&args).unwrap_err();
        assert_eq!(error.exit_code(), 62, "{link}");
        assert!(
            with_causes(&error).contains("open without following links"),
            "{link}: {}",
            with_causes(&error)
        );
        fs::remove_file(&link_path).unwrap();
        if was {
            fs::rename(&aside, &link_path).unwrap();
        }
    }
    // Links in the application and in layers are content.
    symlink("/etc/passwd", build.at("app/link")).unwrap();
    symlink("/etc", build.at("layers/a_one/kept/link")).unwrap();
    build.export(&args).unwrap();
}

#[test]
fn the_cache_is_saved() {
    let build = Build::new("example.org/run:latest");
    let (_, flags) = layout(&build);
    let cache = build.at("cache");
    let args = ["-cache-dir", cache.to_str().unwrap(), "example.org/app"];
    let args: Vec<&str> = flags.iter().map(String::as_str).chain(args).collect();
    build.analyze(&[&args[..3], &args[5..]].concat());
    build.write("layers/a_one/cached.toml", "[types]\ncache = true\n");
    build.write("layers/a_one/cached/file", "cached");
    build.export(&args).unwrap();
    let text = fs::read_to_string(cache.join("committed/io.buildpacks.lifecycle.cache.metadata")).unwrap();
    let metadata: Value = serde_json::from_str(&text).unwrap();
    let layers = metadata["buildpacks"][0]["layers"].as_object().unwrap();
    assert_eq!(layers.keys().collect::<Vec<_>>(), ["cached"]);
    let archive = format!("committed/{}.tar", layers["cached"]["sha"].as_str().unwrap());
    assert!(cache.join(archive).exists());

    // A cache that cannot be written costs the next build its time, and this one nothing.
    fs::remove_dir_all(&cache).unwrap();
    fs::write(&cache, "").unwrap();
    build.export(&args).unwrap();
}

#[test]
fn a_cache_image_shares_layers_with_the_image() {
    let registry = DockerRegistry::open();
    registry.push(&run_fixture(), "run", "latest");
    let build = Build::new(&registry.reference("run:latest"));
    build.write("layers/a_one/kept.toml", "[types]\nlaunch = true\ncache = true\n");
    build.write("layers/a_one/only/file", "only");
    build.write("layers/a_one/only.toml", "[types]\ncache = true\n");
    let (name, cache) = (registry.reference("app:1"), registry.reference("cache:1"));
    build.analyze(&["-cache-image", &cache, &name]);
    let before = uploads(&registry.access_log());
    // It goes before a folder.
    let folder = build.at("cache");
    let args = ["-cache-image", &cache, "-cache-dir", folder.to_str().unwrap()];
    build.export(&[&args[..], &[&name]].concat()).unwrap();
    assert!(!folder.exists() && !build.at("scratch/cache-outbox").exists());
    let layers = |name: &str| -> Vec<Value> {
        let manifest: Value = serde_json::from_slice(&registry.manifest(name)).unwrap();
        manifest["layers"].as_array().unwrap().clone()
    };
    let (image, cached) = (layers("app:1"), layers("cache:1"));
    assert_eq!(cached.len(), 2);
    assert!(image.contains(&cached[0]) && !image.contains(&cached[1]));
    // Six layers and a configuration; for the cache a layer and a configuration.
    assert_eq!(uploads(&registry.access_log()), before + 9, "{}", registry.access_log());

    // Elsewhere, where nothing can be taken over.
    let far = DockerRegistry::open();
    let elsewhere = far.reference("cache:1");
    // What a daemon's images would be kept in is left alone.
    let launch = build.at("launch-cache");
    let args = ["-launch-cache", launch.to_str().unwrap(), "-cache-image", &elsewhere, &name];
    build.export(&args).unwrap();
    assert!(!launch.exists());
    assert_eq!(far.config("cache:1"), registry.config("cache:1"));
    let (_, flags) = layout(&build);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let run = build.at("layout").join(registry.reference("run")).join("latest");
    fs::create_dir_all(run.parent().unwrap()).unwrap();
    fs::rename(build.at("layout/example.org/run/latest"), &run).unwrap();
    build.analyze(&[&flags[..], &["-cache-image", &elsewhere, &name]].concat());
    let again = far.reference("cache:2");
    build.export(&[&flags[..], &["-cache-image", &again, &name]].concat()).unwrap();
    assert_eq!(far.manifest("cache:2"), far.manifest("cache:1"));

    // One that cannot be written: the analyzer says so, the exporter only warns.
    let locked = DockerRegistry::start(RegistryAccess::Password);
    let refused = locked.reference("cache:1");
    build.analyze(&[&name]);
    build.export(&["-cache-image", &refused, &name]).unwrap();
    let run = build.at("run.toml");
    let error = build.phase("analyzer", &["-run", run.to_str().unwrap(), "-cache-image", &refused, &name]);
    let error = error.unwrap_err();
    assert_eq!(error.exit_code(), 32);
    assert!(
        with_causes(&error).contains("the registry refuses access; log in to it"),
        "{}",
        with_causes(&error)
    );
}

#[test]
fn refusals() {
    let build = Build::new("example.org/run:latest");
    let (_, flags) = layout(&build);
    let args: Vec<&str> = flags.iter().map(String::as_str).chain(["example.org/app"]).collect();
    let error = build.export(&args).unwrap_err();
    assert_eq!((error.exit_code(), with_causes(&error).contains("no run image")), (3, true));
    build.analyze(&args);
    let refused = |change: &[&str], code: u8, text: &str| {
        let error = build.export(&[change, &args[..]].concat()).unwrap_err();
        assert_eq!(error.exit_code(), code, "{}", with_causes(&error));
        assert!(with_causes(&error).contains(text), "{}", with_causes(&error));
    };
    refused(&["-process-type", "worker"], 62, "process type `worker` is not defined; defined are: `web`");
    refused(&["-launcher-sbom", "/nowhere"], 62, "where -launcher-sbom says that they are: `/nowhere`");
    let odd = std::os::unix::ffi::OsStrExt::from_bytes(b"odd\xff.toml");
    let odd = build.at("layers/a_one").join::<&OsStr>(odd);
    fs::write(&odd, "").unwrap();
    refused(&[], 62, "its name is not UTF-8");
    fs::remove_file(odd).unwrap();
    build.write("layers/a_one/kept.toml", "launch = true");
    refused(
        &[],
        62,
        "layer `kept` of buildpack `a/one@1`: launch, build and cache belong into the table [types]",
    );
    build.write("layers/a_one/kept.toml", "[types");
    refused(&[], 62, "read document: `a_one/kept.toml`");
    build.write("layers/a_one/kept.toml", &"#".repeat(17 << 20));
    refused(&[], 62, "is not a regular file of at most");
    build.write("layers/a_one/kept.toml", "");
    build.write("layers/a_one/gone.toml", "[types]\nlaunch = true");
    refused(
        &[],
        62,
        "layer `gone` of buildpack `a/one@1` has no folder, and the previous image has no such layer",
    );
    build.write("layers/group.toml", "[[group]]\nid = \"a/one\"\nversion = \"1\"\napi = \"0.99\"\n");
    refused(&[], 12, "Buildpack API 0.99");
}
