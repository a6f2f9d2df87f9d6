//! The cache that an export leaves, in a folder or an image.

use super::*;

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
    build.export(&["-cache-image", &elsewhere, &name]).unwrap();
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
