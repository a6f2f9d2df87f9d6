//! What the reference recorded of images, composed again; and the program against folders and real registries.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::{OsStr, OsString};
use std::path::Path;

use coracle_cnb::write_toml;
use coracle_fixtures::{DockerRegistry, Entry, Image as Fixture, Layer, RegistryAccess};
use coracle_images::{Config, Image, Reference, write_sparse_layout};
use coracle_lifecycle::analyze::{AnalyzeInput, Found, analyze};
use coracle_lifecycle::env::Env;
use coracle_lifecycle::phases::{Launcher, PhaseError, layout_path, main};

const LABEL: &str = "io.buildpacks.lifecycle.metadata";

fn run_config() -> Config {
    let mut config = Config { architecture: "amd64".into(), os: "linux".into(), ..Config::default() };
    for (name, value) in [("name", "debian"), ("version", "12")] {
        config.config.labels.insert(format!("io.buildpacks.base.distro.{name}"), value.into());
    }
    config
}

/// The value of `reference` in a table of the recorded text.
fn recorded_reference(text: &str, table: &str) -> String {
    let text = text.split(&format!("[{table}]\n")).nth(1).unwrap();
    text.split('"').nth(1).unwrap().to_owned()
}

#[test]
fn says_what_the_reference_said() {
    let data: serde_json::Value = serde_json::from_str(include_str!("data/restore.json")).unwrap();
    let mut compared = 0;
    for case in data["cases"].as_array().unwrap() {
        for round in case["rounds"].as_array().unwrap() {
            let expected = round["analyzed"].as_str().unwrap();
            let args: Vec<&str> =
                round["analyzer_args"].as_array().unwrap().iter().filter_map(|a| a.as_str()).collect();
            let (run, mut previous) = (run_config(), Config::default());
            let of_other = args.contains(&"-previous-image");
            if let Some(label) = round["previous_label"].as_str().filter(|_| !of_other) {
                previous.config.labels.insert(LABEL.into(), label.into());
            }
            let (image, run_image) =
                (recorded_reference(expected, "image"), recorded_reference(expected, "run-image"));
            let run_name = args.iter().position(|arg| *arg == "-run-image").map(|at| args[at + 1]);
            let found = |reference: &'_ str| !reference.is_empty();
            let analyzed = analyze(&AnalyzeInput {
                previous: found(&image).then_some(Found { reference: &image, config: &previous }),
                run_name: run_name.unwrap_or("REGISTRY/golden/run:latest"),
                run: found(&run_image).then_some(Found { reference: &run_image, config: &run }),
                has_targets: true,
            })
            .unwrap();
            // Where nothing was known of a launcher, the recording put its placeholder for the empty text.
            let expected = if of_other { expected.replace("LAUNCHER", "") } else { expected.to_owned() };
            assert_eq!(write_toml(&analyzed).unwrap(), expected, "{}", case["name"]);
            compared += 1;
        }
    }
    assert!(compared > 80, "{compared}");
}

const LAUNCHER: Launcher<'_> = Launcher { program: b"", metadata: serde_json::Value::Null };

fn analyzer(args: &[&str], env: &[(&str, &OsStr)]) -> Result<(), PhaseError> {
    phase("analyzer", args, env)
}

fn phase(name: &str, args: &[&str], env: &[(&str, &OsStr)]) -> Result<(), PhaseError> {
    let mut all: Env = env.iter().map(|(name, value)| (name.into(), (*value).to_owned())).collect();
    all.insert("CNB_PLATFORM_API".into(), "0.13".into());
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    main(OsStr::new(&format!("/cnb/lifecycle/{name}")), &args, &all, &LAUNCHER)
}

/// The message with its causes, and the exit code.
fn failure(result: Result<(), PhaseError>) -> (u8, String) {
    let error = result.unwrap_err();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    (error.exit_code(), text)
}

fn sparse(dir: &Path, name: &str, config: Config) -> Image {
    let image = Image::assemble(config, Vec::new()).unwrap();
    let folder = layout_path(dir, &name.parse().unwrap());
    write_sparse_layout(&image, None, &folder).unwrap();
    image
}

#[test]
fn reads_images_from_layout_folders() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, out) = (dir.path().join("layout"), dir.path().join("out/analyzed.toml"));
    let run = sparse(&layout, "example.org/run:1", run_config());
    let (layout_text, out_text) = (layout.to_str().unwrap(), out.to_str().unwrap());
    let flags =
        ["-layout", "-layout-dir", layout_text, "-analyzed", out_text, "-run-image", "example.org/run:1"];
    let read = || std::fs::read_to_string(&out).unwrap();
    analyzer(&[&flags[..], &["app"]].concat(), &[]).unwrap();
    let first = read();
    assert_eq!(recorded_reference(&first, "image"), "");
    let pinned = format!("{layout_text}/example.org/run/1@{}", run.digest);
    assert_eq!(recorded_reference(&first, "run-image"), pinned);
    // As the reference, the folder for the name, but where the name is asked for.
    assert!(first.contains(&format!("image = \"{layout_text}/example.org/run/1\"\n")), "{first}");
    analyzer(&[&["-by-name"], &flags[..], &["app"]].concat(), &[]).unwrap();
    assert!(read().contains("image = \"example.org/run:1\"\n"), "{}", read());
    // Nobody looks which of the names has an image.
    let run_toml = dir.path().join("run.toml");
    std::fs::write(&run_toml, "[[images]]\nimage = \"a.org/none\"\nmirrors = [\"example.org/run:1\"]\n")
        .unwrap();
    analyzer(&[&flags[..5], &["-run", run_toml.to_str().unwrap(), "app"]].concat(), &[]).unwrap();
    assert!(read().contains("/a.org/none/latest\"\n"), "{}", read());

    let mut config = run_config();
    config.config.labels.insert(LABEL.into(), r#"{"config":{"sha":"sha256:c"}}"#.into());
    let app = sparse(&layout, "app", config);
    analyzer(&[&flags[..], &["app"]].concat(), &[]).unwrap();
    assert!(read().contains("[metadata.config]\n    sha = \"sha256:c\"\n"), "{}", read());
    assert_eq!(
        recorded_reference(&read(), "image"),
        format!("{layout_text}/index.docker.io/library/app/latest@{}", app.digest)
    );
    // A damaged previous image is replaced, not read.
    let folder = layout_path(&layout, &"app".parse().unwrap());
    std::fs::write(folder.join("blobs/sha256").join(app.manifest.config.digest.hex()), "{}").unwrap();
    analyzer(&[&flags[..], &["app"]].concat(), &[]).unwrap();
    assert_eq!(read(), first);
}

#[test]
fn arguments_that_cannot_be_have_exit_code_3() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run.toml");
    let base = ["-layout", "-layout-dir", dir.path().to_str().unwrap(), "-run", run.to_str().unwrap()];
    let fails = |args: &[&str]| failure(analyzer(&[&base[..], args].concat(), &[]));
    assert_eq!(fails(&["app"]).0, 3);
    assert!(fails(&["app"]).1.contains("no run image is known"), "{}", fails(&["app"]).1);
    std::fs::write(&run, "[[images]]\nimage = \"Not an image\"\n").unwrap();
    let (exit, text) = fails(&["app"]);
    assert!(exit == 3 && text.ends_with("tried: `Not an image`"), "{exit} {text}");
    let (exit, text) = fails(&["-tag", "b.org/app", "a.org/app"]);
    assert!(exit == 3 && text.contains("one registry, not in a.org, b.org"), "{exit} {text}");
    let (exit, text) = fails(&["-run-image", "a.org/run", "Not an image"]);
    assert!(exit == 3 && text.contains("`Not an image` is not an image name"), "{exit} {text}");
    let (exit, text) = failure(analyzer(&["-layout", "app"], &[]));
    assert!(exit == 3 && text.ends_with("flag `-layout-dir` is missing"), "{exit} {text}");
    assert!(fails(&["-nonsense", "app"]).1.ends_with("flag `-nonsense` is not implemented"));
}

#[test]
fn asks_a_registry_before_anything_is_built() {
    let registry = DockerRegistry::start(RegistryAccess::Password);
    let mut image = Fixture::new(Vec::new());
    for (name, value) in [("name", "debian"), ("version", "12")] {
        image = image.label(&format!("io.buildpacks.base.distro.{name}"), value);
    }
    let pinned = registry.push(&image, "golden/run", "latest");
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    std::fs::write(&config, registry.docker_config()).unwrap();
    let (out, run) = (dir.path().join("analyzed.toml"), dir.path().join("run.toml"));
    let mirror = registry.reference("golden/run");
    // Nothing listens at the first name.
    std::fs::write(&run, format!("[[images]]\nimage = \"127.0.0.1:1/run\"\nmirrors = [\"{mirror}\"]\n"))
        .unwrap();
    let app = registry.reference("golden/app");
    let flags = ["-analyzed", out.to_str().unwrap(), "-run", run.to_str().unwrap()];
    let docker = [("DOCKER_CONFIG", dir.path().as_os_str())];
    analyzer(&[&flags[..], &["-tag", &registry.reference("golden/app:2"), &app]].concat(), &docker).unwrap();
    let text = std::fs::read_to_string(&out).unwrap();
    assert_eq!(recorded_reference(&text, "run-image"), pinned);
    assert!(text.contains(&format!("image = \"{mirror}\"")), "{text}");
    assert!(text.contains("name = \"debian\""), "{text}");

    // The last build's image: here, one that says so.
    let previous = image.label(LABEL, r#"{"app":[{"sha":"sha256:a"}]}"#);
    let previous = registry.push(&previous, "golden/app", "latest");
    analyzer(&[&flags[..], &[&app]].concat(), &docker).unwrap();
    let text = std::fs::read_to_string(&out).unwrap();
    assert_eq!(recorded_reference(&text, "image"), previous);
    assert!(text.contains("sha = \"sha256:a\""), "{text}");

    std::fs::remove_file(&out).unwrap();
    let named = app.parse::<Reference>().unwrap().to_string();
    let flags = [&flags[..], &["-run-image", &mirror, &app]].concat();
    for wrong in
        [registry.docker_config().replace("dGVzdGVyOm5vdC1hLXNlY3JldA==", "dGVzdGVyOndyb25n"), "{}".into()]
    {
        std::fs::write(&config, wrong).unwrap();
        let (exit, text) = failure(analyzer(&flags, &docker));
        assert_eq!(exit, 32, "{text}");
        assert!(text.contains(&format!("`{named}`: the registry refuses access; log in")), "{text}");
        assert!(!text.contains("not-a-secret") && !text.contains("wrong"), "{text}");
        assert!(!out.exists());
    }
    std::fs::write(&config, "{").unwrap();
    let (exit, text) = failure(analyzer(&flags, &docker));
    assert!(exit == 1 && text.contains("config.json"), "{exit} {text}");
}

#[test]
fn bills_of_the_previous_image_come_back() {
    let registry = DockerRegistry::open();
    let dir = tempfile::tempdir().unwrap();
    let layers = dir.path().join("layers");
    std::fs::create_dir(&layers).unwrap();
    let bill = |path: &str| Entry::file(&format!("{}/sbom/launch/{path}", layers.display()), "{}");
    let bills =
        Layer::new(&[bill("a_one/l/sbom.cdx.json"), bill("other/l/sbom.cdx.json"), bill("sbom.legacy.json")]);
    let label = format!(
        r#"{{"sbom":{{"sha":"{}"}},"buildpacks":[{{"key":"a/one","version":"1","layers":{{"l":{{"sha":"s","launch":true}}}}}}]}}"#,
        bills.diff_id()
    );
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (analyzed, layers_text, group) = (file("analyzed.toml"), file("layers"), file("group.toml"));
    let args = ["-analyzed", &analyzed, "-layers", &layers_text];
    let run = registry.reference("run");
    registry.push(&Fixture::new(Vec::new()), "run", "latest");
    let app = registry.reference("app");
    registry.push(&Fixture::new(vec![bills.clone()]).label(LABEL, &label), "app", "latest");
    analyzer(&[&args[..], &["-run-image", &run, &app]].concat(), &[]).unwrap();
    assert!(layers.join("sbom/launch/a_one/l/sbom.cdx.json").is_file());

    std::fs::write(&group, "[[group]]\nid = \"a/one\"\nversion = \"1\"\napi = \"0.10\"\n").unwrap();
    phase("restorer", &[&args[..], &["-group", &group]].concat(), &[]).unwrap();
    assert_eq!(std::fs::read_to_string(layers.join("a_one/l.sbom.cdx.json")).unwrap(), "{}");
    assert!(!layers.join("sbom").exists() && !layers.join("other").exists());

    // Anything else than what the label says is left where it is, and analysis goes on.
    let other = label.replace(&bills.diff_id(), &Layer::new(&[]).diff_id());
    registry.push(&Fixture::new(vec![bills]).label(LABEL, &other), "app", "latest");
    analyzer(&[&args[..], &["-run-image", &run, &app]].concat(), &[]).unwrap();
    assert!(!layers.join("sbom").exists());
}
