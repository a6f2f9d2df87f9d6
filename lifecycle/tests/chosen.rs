//! What extensions have chosen, looked up by the restorer and exported. What the reference does with the same is in the values.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use coracle_fixtures::{DockerRegistry, Entry, Image as Fixture, Layer};
use coracle_images::{Reference, read_layout};
use coracle_lifecycle::env::Env;
use coracle_lifecycle::phases::{Launcher, PhaseError, main};
use coracle_lifecycle::with_causes;
use serde_json::Value;
use tempfile::TempDir;

struct Site {
    registry: DockerRegistry,
    dir: TempDir,
}

const GROUP: &str = "[[group]]\nid = \"one\"\nversion = \"1\"\napi = \"0.10\"\n";
const EXTENSIONS: &str = "[[group-extensions]]\nid = \"an/ext\"\nversion = \"2\"\napi = \"0.10\"\n";
const METADATA: &str = "[[buildpacks]]\nid = \"one\"\nversion = \"1\"\napi = \"0.10\"\n[[extensions]]\nid = \"an/ext\"\nversion = \"2\"\napi = \"0.10\"\nhomepage = \"h\"\n";

impl Site {
    /// A registry with two images, and analyzed.toml as a detector leaves it whose extensions chose `other`.
    fn new(extend: bool) -> Self {
        let registry = DockerRegistry::open();
        for name in ["run", "other"] {
            let layer = Layer::new(&[Entry::file(name, name)]);
            let image = Fixture::new(vec![layer]).label("io.buildpacks.base.distro.name", name);
            registry.push(&image, name, "latest");
        }
        let site = Self { registry, dir: tempfile::tempdir().unwrap() };
        let other = site.registry.reference("other");
        let extend = if extend { "extend = true\n" } else { "" };
        site.write(
            "analyzed.toml",
            &format!("[run-image]\nreference = \"{other}\"\nimage = \"{other}\"\n{extend}"),
        );
        site.write("group.toml", &format!("{GROUP}{EXTENSIONS}"));
        site.write("run.toml", &format!("[[images]]\nimage = \"{}\"\n", site.registry.reference("run")));
        site.write("layers/config/metadata.toml", METADATA);
        fs::create_dir(site.at("app")).unwrap();
        site
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    fn phase(&self, name: &str, api: &str, more: &[(&str, &Path)], words: &[&str]) -> Result<(), PhaseError> {
        let paths = [("-analyzed", "analyzed.toml"), ("-group", "group.toml"), ("-layers", "layers")];
        let mut args: Vec<OsString> = Vec::new();
        for (flag, path) in paths.map(|(flag, path)| (flag, self.at(path))) {
            args.extend([flag.into(), path.into()]);
        }
        for (flag, path) in more {
            args.extend([flag.into(), path.into()]);
        }
        args.extend(words.iter().map(OsString::from));
        let env: Env = [("CNB_PLATFORM_API".into(), api.into())].into();
        let launcher = Launcher { program: b"launcher", metadata: Value::Null };
        main(OsStr::new(name), &args, &env, &launcher)
    }

    fn restore(&self, api: &str, words: &[&str]) -> Result<(), PhaseError> {
        let (kaniko, run) = (self.at("kaniko"), self.at("run.toml"));
        let mut more = vec![("-kaniko", kaniko.as_path())];
        more.extend((api == "0.14").then_some(("-run", run.as_path())));
        self.phase("restorer", api, &more, words)
    }

    fn export(&self, name: &str) -> Result<(), PhaseError> {
        let [run, app, scratch] = ["run.toml", "app", "scratch"].map(|path| self.at(path));
        let more = [("-run", run.as_path()), ("-app", &app), ("-scratch", &scratch)];
        self.phase("exporter", "0.13", &more, &["-uid", "1001", "-gid", "1002", name])
    }

    fn analyzed(&self) -> toml::Table {
        fs::read_to_string(self.at("analyzed.toml")).unwrap().parse().unwrap()
    }

    fn digest(&self, name: &str) -> String {
        coracle_images::Digest::of(self.registry.manifest(&format!("{name}:latest"))).to_string()
    }
}

#[test]
fn a_run_image_that_was_chosen_is_looked_up() {
    for (api, has_target) in [("0.10", false), ("0.13", true), ("0.14", true)] {
        let site = Site::new(false);
        fs::create_dir(site.at("kaniko")).unwrap();
        site.restore(api, &[]).unwrap();
        let analyzed = site.analyzed();
        let run = &analyzed["run-image"];
        let pinned = format!("{}@{}", site.registry.reference("other"), site.digest("other"));
        assert_eq!(run["reference"].as_str().unwrap(), pinned, "{api}");
        assert_eq!(run["image"].as_str().unwrap(), site.registry.reference("other"), "{api}");
        let distro = run.get("target").map(|target| target["distro"]["name"].as_str().unwrap());
        assert_eq!(distro, has_target.then_some("other"), "{api}");
        assert!(
            fs::read_dir(site.at("kaniko")).unwrap().next().is_none(),
            "{api}: nothing is to be extended"
        );
    }
}

#[test]
fn nothing_is_looked_up_where_nobody_chose() {
    let target = "[run-image.target]\nos = \"linux\"\narch = \"amd64\"\n";
    for (api, group, target) in [("0.9", EXTENSIONS, ""), ("0.13", "", ""), ("0.13", EXTENSIONS, target)] {
        let site = Site::new(false);
        site.write("group.toml", &format!("{GROUP}{group}"));
        let chosen = fs::read_to_string(site.at("analyzed.toml")).unwrap();
        site.write("analyzed.toml", &format!("{chosen}{target}"));
        let run_image = || {
            let analyzed: toml::Table =
                fs::read_to_string(site.at("analyzed.toml")).unwrap().parse().unwrap();
            analyzed["run-image"].clone()
        };
        let before = run_image();
        site.restore(api, &[]).unwrap();
        assert_eq!(run_image(), before, "{api}");
        assert!(!site.registry.access_log().contains("GET /v2/other/"), "{api}");
    }
}

#[test]
fn what_is_to_be_extended_is_left_for_an_extender() {
    let site = Site::new(true);
    fs::create_dir(site.at("kaniko")).unwrap();
    let builder = site.registry.reference("run");
    site.restore("0.13", &["-build-image", &builder]).unwrap();
    let analyzed = site.analyzed();
    let digests = [site.digest("other"), site.digest("run")];
    assert_eq!(analyzed["build-image"]["reference"].as_str().unwrap(), format!("{builder}@{}", digests[1]));
    assert_eq!(analyzed["run-image"]["extend"].as_bool(), Some(true));
    for digest in digests {
        let folder = site.at("kaniko/cache/base").join(&digest);
        let image = read_layout(&folder, None).unwrap();
        assert_eq!(image.digest.to_string(), digest);
        assert!(!folder.join("blobs/sha256").join(image.manifest.layers[0].digest.hex()).exists());
    }
}

#[test]
fn an_image_that_is_not_there_is_named() {
    let site = Site::new(false);
    let gone = site.registry.reference("gone");
    let error = site.restore("0.13", &["-build-image", &gone]).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(
        with_causes(&error).contains(&format!("look up build image `{gone}`")),
        "{}",
        with_causes(&error)
    );
    assert!(with_causes(&error).contains("does not exist"), "{}", with_causes(&error));
    let error = site.restore("0.13", &["-build-image", "NO NAME"]).unwrap_err();
    assert!(with_causes(&error).contains("look up build image `NO NAME`"), "{}", with_causes(&error));
    fs::create_dir_all(site.at("kaniko")).unwrap();
    site.write("kaniko/cache", "in the way");
    let error = site.restore("0.13", &["-build-image", &site.registry.reference("run")]).unwrap_err();
    assert!(with_causes(&error).contains("for the extender"), "{}", with_causes(&error));
    // A run image that the platform offers is looked at again since Platform API 0.14, even where nobody chose it.
    site.write("group.toml", GROUP);
    site.write("run.toml", &format!("[[images]]\nimage = \"x.example/y\"\nmirrors = [\"{gone}\"]\n"));
    site.write("analyzed.toml", &format!("[run-image]\nreference = \"{gone}\"\nimage = \"{gone}\"\n"));
    site.restore("0.13", &[]).unwrap();
    let error = site.restore("0.14", &[]).unwrap_err();
    assert!(with_causes(&error).contains(&format!("look up run image `{gone}`")), "{}", with_causes(&error));
}

#[test]
fn an_image_on_a_chosen_run_image_says_so() {
    let site = Site::new(false);
    site.restore("0.13", &[]).unwrap();
    let name = site.registry.reference("app:1");
    site.export(&name).unwrap();
    let config: Value = serde_json::from_slice(&site.registry.config("app:1")).unwrap();
    let label = |name: &str| -> Value {
        serde_json::from_str(config["config"]["Labels"][name].as_str().unwrap()).unwrap()
    };
    let build = label("io.buildpacks.build.metadata");
    assert_eq!(build["extensions"], serde_json::json!([{ "id": "an/ext", "version": "2", "homepage": "h" }]));
    let run = &label("io.buildpacks.lifecycle.metadata")["runImage"];
    let other = site.registry.reference("other");
    assert_eq!(run["image"].as_str(), Some(other.as_str()));
    let reference: Reference = run["reference"].as_str().unwrap().parse().unwrap();
    assert_eq!(reference.digest.unwrap().to_string(), site.digest("other"));
    assert_eq!(run["topLayer"], config["rootfs"]["diff_ids"][0]);
}

/// An exporter's call; its exit code and what it says.
fn refused(site: &Site) -> (u8, String) {
    let error = site.export(&site.registry.reference("app:1")).unwrap_err();
    (error.exit_code(), with_causes(&error))
}

#[test]
fn an_extended_run_image_that_is_missing_or_unusable_is_named() {
    let site = Site::new(true);
    let (code, text) = refused(&site);
    let run = site.at("layers/extended/run");
    let expected = format!(
        "analyzed.toml has `extend = true` for the run image, but there is no extended run image in `{}`: run an extender before",
        run.display()
    );
    assert!(code == 1 && text.starts_with(&expected), "{code} {text}");
    let layout = "layers/extended/run/sha256:1";
    let digest = coracle_images::Digest::of("{}");
    let index = |manifests: &str| format!("{{\"schemaVersion\":2,\"manifests\":[{manifests}]}}");
    let manifest = |digest: &str| {
        format!(
            "{{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"{digest}\",\"size\":2}}"
        )
    };
    for (file, text, told) in [
        ("oci-layout", String::new(), "has no `index.json`".to_owned()),
        ("index.json", "[".to_owned(), "read the index of the extended run image in `".to_owned()),
        ("index.json", index(""), "holds 0 images, expected the one that was extended".to_owned()),
        ("index.json", index(&manifest(digest.as_str())), format!("has no `blobs/sha256/{}`", digest.hex())),
        (
            &format!("blobs/sha256/{}", digest.hex()),
            "{}".to_owned(),
            "is damaged: cannot read the manifest".to_owned(),
        ),
    ] {
        site.write(&format!("{layout}/{file}"), &text);
        let (code, text) = refused(&site);
        assert!(code == 1 && text.contains(&told), "{told}: {code} {text}");
    }
    // What it is does not count where it was not asked for, but that it is there does.
    let analyzed = fs::read_to_string(site.at("analyzed.toml")).unwrap();
    site.write("analyzed.toml", &analyzed.replace("extend = true", ""));
    assert_eq!(refused(&site).0, 62);
    site.write("layers/extended/run/sha256:2/index.json", "");
    let (code, text) = refused(&site);
    assert!(code == 62 && text.contains("holds 2 images, expected the one"), "{code} {text}");
    fs::remove_dir_all(site.at("layers/extended")).unwrap();
    site.write("layers/extended", "no folder");
    let (code, text) = refused(&site);
    assert!(code == 62 && text.contains("read the extended run image in `"), "{code} {text}");
}

/// An extender's folder with a run image whose second layer holds `added`; gives that layer's path.
fn extended(site: &Site) -> PathBuf {
    let client = coracle_images::Registry::new(Default::default()).unwrap();
    let other: Reference = site.registry.reference("other").parse().unwrap();
    let base = client.image(&other, &coracle_images::Platform::host()).unwrap();
    let layer = Layer::new(&[Entry::file("added", "added")]);
    let descriptor = |layer: &Layer| {
        let digest: coracle_images::Digest = layer.diff_id().parse().unwrap();
        let media_type = coracle_images::media::OCI_LAYER;
        coracle_images::Layer {
            descriptor: coracle_images::Descriptor::new(media_type, digest.clone(), layer.tar().len() as u64),
            diff_id: digest,
        }
    };
    let layers = base.layers().into_iter().chain([descriptor(&layer)]).collect();
    let image = coracle_images::Image::assemble(base.config.clone(), layers).unwrap();
    let folder = site.at("layers/extended/run").join(image.digest.as_str());
    coracle_images::write_sparse_layout(&image, None, &folder).unwrap();
    let blob = folder.join("blobs/sha256").join(descriptor(&layer).diff_id.hex());
    fs::write(&blob, layer.tar()).unwrap();
    blob
}

fn layer_count(site: &Site) -> usize {
    site.export(&site.registry.reference("app:1")).unwrap();
    let config: Value = serde_json::from_slice(&site.registry.config("app:1")).unwrap();
    config["rootfs"]["diff_ids"].as_array().unwrap().len()
}

#[test]
fn layers_that_a_buildpack_may_have_put_there_count_for_nothing_without_extensions() {
    let site = Site::new(true);
    site.restore("0.13", &[]).unwrap();
    extended(&site);
    let with = layer_count(&site);
    let analyzed = fs::read_to_string(site.at("analyzed.toml")).unwrap();
    site.write("analyzed.toml", &analyzed.replace("extend = true", ""));
    site.write("group.toml", GROUP);
    assert_eq!(layer_count(&site), with - 1);
}

#[test]
fn an_extender_s_layer_is_not_read_through_a_link() {
    let site = Site::new(true);
    site.restore("0.13", &[]).unwrap();
    let blob = extended(&site);
    fs::rename(&blob, site.at("elsewhere")).unwrap();
    std::os::unix::fs::symlink(site.at("elsewhere"), &blob).unwrap();
    let (code, text) = refused(&site);
    assert!(code == 1 && text.contains("open without following links: `run/sha256:"), "{code} {text}");
    fs::remove_file(&blob).unwrap();
    nix::unistd::mkfifo(&blob, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (code, text) = refused(&site);
    assert!(code == 1 && text.contains("is not a regular file"), "{code} {text}");
}
