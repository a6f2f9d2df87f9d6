//! The program against a registry and layout folders.

use super::*;

/// From one repository into others with a password; the old layers are not fetched, the report names the result.
#[test]
fn images_move_within_a_registry() {
    let registry = DockerRegistry::start(RegistryAccess::Password);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), registry.docker_config()).unwrap();
    let env: Env = [
        ("CNB_PLATFORM_API".into(), "0.13".into()),
        ("DOCKER_CONFIG".into(), dir.path().into()),
        ("CNB_REPORT_PATH".into(), dir.path().join("report.toml").into()),
    ]
    .into();
    registry.push(&fixture(&["old"], &[]), "base/run", "1");
    let old: Value = config(&registry, "base/run:1");
    let run_name = registry.reference("base/run:1");
    let metadata = json!({
        "app": [{"sha": "x"}],
        "runImage": {"topLayer": old["rootfs"]["diff_ids"][0], "reference": "r", "image": run_name},
    });
    registry.push(&fixture(&["old", "own"], &[(LABEL, &metadata.to_string())]), "team/app", "1");
    registry.push(&fixture(&["new", "patch"], &[("io.buildpacks.base.id", "2")]), "base/run", "1");

    let (source, target, other) = (
        registry.reference("team/app:1"),
        registry.reference("team/app:rebased"),
        registry.reference("elsewhere/app:1"),
    );
    let before = registry.access_log().len();
    phase(&["-previous-image", &source, &target, &other], &env).unwrap();
    let log = registry.access_log().split_off(before);
    let manifest: Value = serde_json::from_slice(&registry.manifest("team/app:1")).unwrap();
    for layer in manifest["layers"].as_array().unwrap() {
        let digest = layer["digest"].as_str().unwrap();
        assert!(!log.lines().any(|line| line.contains("\"GET ") && line.contains(digest)), "{log}");
    }
    assert_eq!(registry.manifest("team/app:rebased"), registry.manifest("elsewhere/app:1"));
    let (new, app, moved) = (
        config(&registry, "base/run:1"),
        config(&registry, "team/app:1"),
        config(&registry, "team/app:rebased"),
    );
    let ids = |config: &Value| config["rootfs"]["diff_ids"].as_array().unwrap().clone();
    assert_eq!(ids(&moved), [ids(&new), ids(&app)[1..].to_vec()].concat());
    let label: Value = serde_json::from_str(moved["config"]["Labels"][LABEL].as_str().unwrap()).unwrap();
    assert_eq!(label["runImage"]["topLayer"], ids(&new)[1]);
    let reference = label["runImage"]["reference"].as_str().unwrap();
    assert_eq!(
        reference,
        format!("{}@{}", registry.reference("base/run"), Digest::of(registry.manifest("base/run:1")))
    );
    assert_eq!(moved["config"]["Labels"]["io.buildpacks.base.id"], "2");
    let report: toml::Table =
        std::fs::read_to_string(dir.path().join("report.toml")).unwrap().parse().unwrap();
    assert_eq!(
        report["image"]["digest"].as_str().unwrap(),
        Digest::of(registry.manifest("team/app:rebased")).as_str()
    );
    assert_eq!(report["image"]["tags"], toml::Value::from(vec![target, other]));

    let exit = |args: &[&str]| phase(args, &env).map_err(|error| error.exit_code());
    let none = registry.reference("base/none:1");
    assert_eq!(exit(&["-run-image", &none, &source]), Err(1));
    // Whoever wants to tell that from all else is told.
    assert_eq!(exit(&["-distinct", "-run-image", &none, &source]), Err(RUN_IMAGE_UNREADABLE));
    assert_eq!(exit(&["-distinct", &registry.reference("team/none:1")]), Err(72));
    registry.push(&fixture(&["new"], &[]), "base/other", "1");
    assert_eq!(exit(&["-run-image", &registry.reference("base/other:1"), &source]), Err(72));
    assert_eq!(exit(&["-force", "-run-image", &registry.reference("base/other:1"), &source]), Ok(()));
    assert_eq!(exit(&[&registry.reference("base/other:1")]), Err(72));
}

/// The recorded images as sparse layouts: no layer is there, and none is needed.
#[test]
fn layout_folders_without_layers_suffice() {
    let data = data();
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, image: &Image| {
        let folder = layout_path(dir.path(), &name.parse().unwrap());
        write_sparse_layout(image, Some("x"), &folder).unwrap();
    };
    let (app_name, run_name) = (format!("{REGISTRY}/golden/app:1"), format!("{REGISTRY}/golden/run:new"));
    put(&app_name, &image(&data["apps"]["rebase-app-0.15"]));
    put(&run_name, &run_image(&data, "new").unwrap());
    let at = |path: &str| dir.path().join(path).display().to_string();
    let env: Env =
        [("CNB_PLATFORM_API".into(), "0.15".into()), ("CNB_REPORT_PATH".into(), at("report.toml").into())]
            .into();
    phase(&["-layout", "-layout-dir", &at(""), "-force", "-run-image", &run_name, &app_name], &env).unwrap();
    let moved =
        read_layout(Path::new(&layout_path(dir.path(), &app_name.parse().unwrap())), Some("1")).unwrap();
    let case = data["cases"]
        .as_array()
        .unwrap()
        .iter()
        .find(|case| case["name"] == "rebase-0.15-new-force")
        .unwrap();
    assert_eq!(moved.config_bytes, image(&case["image"]).config_bytes);
}
