//! Rebasing: the decision against 44 recordings of the reference, and the program against a registry and layout folders.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod decision;
mod program;
mod written;

use std::ffi::{OsStr, OsString};
use std::path::Path;

use coracle_fixtures::{DockerRegistry, Entry, Image as Fixture, Layer as FixtureLayer, RegistryAccess};
use coracle_images::{Config, Descriptor, Digest, Image, Layer, Reference, read_layout, write_sparse_layout};
use coracle_lifecycle::env::Env;
use coracle_lifecycle::phases::{Launcher, PhaseError, RUN_IMAGE_UNREADABLE, layout_path, main};
use coracle_lifecycle::rebase::{RebaseError, RebaseInput, rebase};
use coracle_lifecycle::with_causes;
use serde_json::{Value, json};

const LABEL: &str = "io.buildpacks.lifecycle.metadata";
/// Where the recordings say `REGISTRY`, and `LAUNCHER`.
const REGISTRY: &str = "registry.example";

fn launcher() -> String {
    Digest::of("launcher").to_string()
}

fn data() -> Value {
    let text = include_str!("../data/rebase.json").replace("REGISTRY", REGISTRY);
    // In one label a digest, in the other an object.
    let text = text.replace(r#""launcher\":LAUNCHER"#, r#""launcher\":{}"#);
    serde_json::from_str(&text.replace("LAUNCHER", &launcher())).unwrap()
}

/// An image whose configuration is as recorded. Its layers exist by name only.
fn image(recorded: &Value) -> Image {
    let mut config = recorded.clone();
    let diff_ids = config.as_object_mut().unwrap().remove("diff_ids").unwrap();
    let labels = config.as_object_mut().unwrap().remove("labels").unwrap();
    config["config"]["Labels"] = labels;
    config.as_object_mut().unwrap().remove("media_types");
    let config: Config = serde_json::from_value(config).unwrap();
    let layer = |diff_id: &Value| {
        let diff_id: Digest = diff_id.as_str().unwrap().parse().unwrap();
        let digest = Digest::of(diff_id.as_str());
        Layer {
            descriptor: Descriptor::new("application/vnd.oci.image.layer.v1.tar+gzip", digest, 1),
            diff_id,
        }
    };
    Image::assemble(config, diff_ids.as_array().unwrap().iter().map(layer).collect()).unwrap()
}

fn run_image(data: &Value, name: &str) -> Option<Image> {
    let recorded = data["run_images"].get(name)?;
    let bytes = |part: &str| recorded[part].as_str().unwrap().as_bytes().to_vec();
    Some(Image::from_bytes(None, bytes("manifest"), bytes("config")).unwrap())
}

#[test]
fn decides_and_writes_as_the_reference_did() {
    let data = data();
    let registry = DockerRegistry::open();
    let (mut moved, mut refused, mut missed) = (0, 0, 0);
    for case in data["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let run_name = case["run_image"].as_str().unwrap();
        let app = image(&data["apps"][case["app_case"].as_str().unwrap()]);
        let Some(run) = run_image(&data, run_name.rsplit(':').next().unwrap()) else {
            let env: Env =
                [("CNB_PLATFORM_API".into(), case["platform_api"].as_str().unwrap().into())].into();
            let missing = registry.reference("golden/run:missing");
            let app = pushed(&registry, &app);
            let error = phase(&["-run-image", &missing, &app], &env).unwrap_err();
            assert_eq!(case["exit"], error.exit_code(), "{name}");
            assert!(with_causes(&error).ends_with(&format!("image `{missing}` does not exist")), "{error}");
            missed += 1;
            continue;
        };
        let reference: Reference = run_name.parse().unwrap();
        let rebased = rebase(&RebaseInput {
            image: &app,
            run: &run,
            run_name,
            run_reference: &reference.with_digest(run.digest.clone()).to_string(),
            force: case["args"].as_array().unwrap().contains(&json!("-force")),
            platform_api: case["platform_api"].as_str().unwrap().parse().unwrap(),
        });
        match (case["exit"].as_i64().unwrap(), rebased) {
            (0, Ok(rebased)) => {
                let expected = image(&case["image"]);
                // By text: labels, their keys' order and all else of the configuration are part of the digest.
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                assert_eq!(text(&rebased.image.config_bytes), text(&expected.config_bytes), "{name}");
                assert_eq!(rebased.overruled.is_empty(), case["args"] == json!([]), "{name}");
                let below = run.layers().len();
                assert_eq!(rebased.image.layers()[..below], run.layers()[..], "{name}");
                assert_eq!(rebased.image.layers()[below..], app.layers()[1..], "{name}");
                moved += 1;
            }
            (72, Err(_)) => refused += 1,
            (exit, rebased) => panic!("{name}: exit {exit}, here {rebased:?}"),
        }
    }
    assert_eq!((moved, refused, missed), (22, 17, 5));
}

/// An image that says of itself what a recorded one does, in a registry.
fn pushed(registry: &DockerRegistry, app: &Image) -> String {
    let labels = app.config.config.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let image = fixture(&["app"], &labels.collect::<Vec<_>>());
    let image = app.config.config.env.iter().fold(image, |image, variable| {
        let (name, value) = variable.split_once('=').unwrap();
        image.env(name, value)
    });
    registry.push(&image, "golden/app", "1");
    registry.reference("golden/app:1")
}

/// An image of a build: on `below`, one layer of its own.
fn app(below: &[&str], change: &dyn Fn(&mut Config, &mut Value)) -> Image {
    let mut metadata = json!({
        "app": [{"sha": Digest::of("own").as_str()}],
        "runImage": {"topLayer": Digest::of(below[below.len() - 1]).as_str(), "reference": "r", "image": "run:1"},
    });
    let mut config = Config { os: "linux".into(), architecture: "amd64".into(), ..Config::default() };
    config.config.env = vec!["CNB_PLATFORM_API=0.13".into()];
    change(&mut config, &mut metadata);
    config.config.labels.insert(LABEL.into(), metadata.to_string());
    let layers = below.iter().chain(&["own"]).map(|content| Layer {
        descriptor: Descriptor::new("application/vnd.oci.image.layer.v1.tar", Digest::of(content), 1),
        diff_id: Digest::of(content),
    });
    Image::assemble(config, layers.collect()).unwrap()
}

fn try_rebase(app: &Image, run: &Image, force: bool) -> Result<Vec<String>, RebaseError> {
    let platform_api = "0.13".parse().unwrap();
    let input =
        RebaseInput { image: app, run, run_name: "run:1", run_reference: "run@d", force, platform_api };
    Ok(rebase(&input)?.overruled.iter().map(ToString::to_string).collect())
}

/// The configuration of an image that was moved.
fn rebased(app: &Image, run: &Image) -> Config {
    let platform_api = "0.13".parse().unwrap();
    let input =
        RebaseInput { image: app, run, run_name: "run:1", run_reference: "r", force: false, platform_api };
    rebase(&input).unwrap().image.config
}

fn phase(args: &[&str], env: &Env) -> Result<(), PhaseError> {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    let launcher = Launcher { program: b"launcher", metadata: json!({ "version": "1" }) };
    main(OsStr::new("rebaser"), &args, env, &launcher)
}

fn fixture(words: &[&str], labels: &[(&str, &str)]) -> Fixture {
    let layers = words.iter().map(|word| FixtureLayer::new(&[Entry::file("file", word)])).collect();
    let image = Fixture::new(layers).env("CNB_PLATFORM_API", "0.13");
    labels.iter().fold(image, |image, (name, value)| image.label(name, value))
}

fn config(registry: &DockerRegistry, name: &str) -> Value {
    serde_json::from_slice(&registry.config(name)).unwrap()
}
