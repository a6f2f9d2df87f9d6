//! Images go into registries, and nothing twice.

use super::*;

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
