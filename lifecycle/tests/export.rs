//! Images of recorded builds are what the reference made of the same folders.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use coracle_cnb::ApiVersion;
use coracle_images::{Config, Descriptor, Digest, Image, Layer};
use coracle_lifecycle::export::{ExportInput, Launcher, Outbox, export};
use coracle_lifecycle::known::KnownLayers;
use serde_json::Value;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Makes the tree; with `open`, only its folders, so that all in it can be removed again.
fn materialise(root: &Path, tree: &Value, open: bool) {
    fs::create_dir_all(root).unwrap();
    set_mode(root, 0o755);
    let mut folders = Vec::new();
    for (path, entry) in tree.as_object().unwrap() {
        let path = root.join(path);
        let mode = entry["mode"].as_str().map(|mode| u32::from_str_radix(mode, 8).unwrap());
        if let Some(target) = entry["link"].as_str().filter(|_| !open) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
        } else if let Some(text) = entry["text"].as_str().filter(|_| !open) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text.chars().map(|c| c as u8).collect::<Vec<_>>()).unwrap();
            set_mode(&path, mode.unwrap());
        } else if let (Some(mode), true) = (mode, entry["text"].is_null()) {
            fs::create_dir_all(&path).unwrap();
            set_mode(&path, 0o755);
            folders.push((path, mode));
        }
    }
    // A folder may be closed to its owner, so what is in it comes first.
    folders.iter().filter(|_| !open).for_each(|(path, mode)| set_mode(path, *mode));
}

fn platform_api(config: &Value) -> ApiVersion {
    let env = config["Env"].as_array().unwrap().iter();
    env.filter_map(|entry| entry.as_str().unwrap().strip_prefix("CNB_PLATFORM_API="))
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn recorded_images() {
    let data: Value = serde_json::from_str(include_str!("data/export.json")).unwrap();
    let mut config: Config = serde_json::from_value(data["base_config"].clone()).unwrap();
    (config.author, config.docker_version, config.container) = ("me".into(), "1".into(), "c".into());
    config.os_features = vec!["f".into()];
    config.other.insert("id".into(), "x".into());
    let layer = Layer {
        descriptor: Descriptor::new("application/vnd.oci.image.layer.v1.tar+gzip", Digest::of("b"), 1),
        diff_id: config.rootfs.diff_ids[0].clone(),
    };
    let base = Image::assemble(config, vec![layer]).unwrap();
    let run = toml::from_str("[[images]]\nimage = \"REGISTRY/golden/run:latest\"").unwrap();
    for case in data["cases"].as_array().unwrap() {
        let mut previous: Option<Image> = None;
        for round in case["rounds"].as_array().unwrap() {
            let dir = tempfile::tempdir().unwrap();
            let (layers, app) = (dir.path().join("l"), dir.path().join("a"));
            materialise(&layers, &round["layers"], false);
            materialise(&app, &round["app"], false);
            let text = |name: &str| round[name].as_str().unwrap();
            let args: Vec<&str> =
                round["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
            let kind = args.iter().position(|a| *a == "-process-type").map(|at| args[at + 1]);
            let wanted = &round["image"];
            let (layers_dir, app_dir) = (File::open(&layers).unwrap(), File::open(app).unwrap());
            let exported = export(
                &ExportInput {
                    group: &toml::from_str(text("group")).unwrap(),
                    metadata: &toml::from_str(text("metadata")).unwrap(),
                    analyzed: &toml::from_str(text("analyzed")).unwrap(),
                    run: &run,
                    project: &toml::from_str(case["project"].as_str().unwrap_or_default()).unwrap(),
                    base: &base,
                    extended: None,
                    previous: previous.as_ref(),
                    layers_dir: layers_dir.as_fd(),
                    layers_path: "/layers",
                    above_layers: &[],
                    app_dir: app_dir.as_fd(),
                    app_path: "/workspace",
                    above_app: &[],
                    config_as_it_is: false,
                    launcher: &Launcher { program: b"launcher", metadata: "L".into() },
                    bills: None,
                    unchanged: &KnownLayers::default(),
                    owner: (1001, 1002),
                    owner_above: Some((1001, 1002)),
                    process_type: kind,
                    exec_env: wanted["labels"]["io.buildpacks.exec-env"].as_str(),
                    platform_api: platform_api(&wanted["config"]),
                    created: wanted["created"].as_str().unwrap(),
                },
                &Outbox::new(&dir.path().join("out")).unwrap(),
                None,
                &mut |_| {},
            )
            .unwrap();
            materialise(&layers, &round["layers"], true);
            let launcher = exported.metadata.launcher.sha.clone();
            let made = serde_json::to_string(&exported.image.config).unwrap();
            let made = made.replace(&launcher, "LAUNCHER").replace(r#"\"L\""#, "LAUNCHER");
            let made: Value = serde_json::from_str(&made).unwrap();
            let name = case["name"].as_str().unwrap();
            // Of what the run image says of itself, as the reference has it.
            let of_base = ["author", "docker_version", "os.features"].map(|member| made[member].clone());
            assert_eq!(of_base, ["me".into(), "1".into(), Value::from(vec!["f"])], "{name}");
            assert!(made.get("container").is_none() && made.get("id").is_none(), "{name}");
            assert_eq!(made["rootfs"]["diff_ids"], wanted["diff_ids"], "{name}");
            assert_eq!(made["config"]["Labels"], wanted["labels"], "{name}");
            assert_eq!(made["history"], wanted["history"], "{name}");
            for key in ["Env", "Entrypoint", "User", "WorkingDir", "Cmd"] {
                assert_eq!(made["config"][key], wanted["config"][key], "{name}");
            }
            previous = Some(exported.image);
        }
    }
}
