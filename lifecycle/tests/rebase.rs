//! Rebasing: the decision against 44 recordings of the reference, and the program against a registry and layout folders.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::{OsStr, OsString};
use std::path::Path;

use coracle_fixtures::{DockerRegistry, Entry, Image as Fixture, Layer as FixtureLayer, RegistryAccess};
use coracle_images::{Config, Descriptor, Digest, Image, Layer, Reference, read_layout, write_sparse_layout};
use coracle_lifecycle::env::Env;
use coracle_lifecycle::phases::{Launcher, PhaseError, layout_path, main};
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
    let text = include_str!("data/rebase.json").replace("REGISTRY", REGISTRY);
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

#[test]
fn what_speaks_against_it_is_named_and_can_be_overruled() {
    let run = app(&["new"], &|config, _| {
        config.variant = "v2".into();
        config.config.labels.insert("io.buildpacks.base.distro.name".into(), "debian".into());
    });
    let fitting = |config: &mut Config, _: &mut Value| {
        config.config.labels.insert("io.buildpacks.base.distro.name".into(), "debian".into());
    };
    let app = |below: &[&str], change: &dyn Fn(&mut Config, &mut Value)| {
        app(below, &|config, metadata| {
            fitting(config, metadata);
            change(config, metadata);
        })
    };
    let nothing = |_: &mut Config, _: &mut Value| {};
    assert_eq!(try_rebase(&app(&["old"], &nothing), &run, false).unwrap(), Vec::<String>::new());
    for (change, word) in [
        (
            &(|config: &mut Config, _: &mut Value| {
                config.config.labels.insert("io.buildpacks.rebasable".into(), "false".into());
            }) as &dyn Fn(&mut Config, &mut Value),
            "marked as not rebasable",
        ),
        (
            &|config, _| config.architecture = "arm64".into(),
            "the run image is for linux/amd64/v2 with debian, the image for linux/arm64 with debian",
        ),
        (&|config, _| config.variant = "v3".into(), "the image for linux/amd64/v3 with debian"),
        (
            &|config, _| {
                config.config.labels.insert("io.buildpacks.base.distro.name".into(), "alpine".into());
            },
            "the image for linux/amd64 with alpine",
        ),
        (
            &|_, metadata| metadata["runImage"]["image"] = "other:1".into(),
            "`run:1` is none of the run images",
        ),
    ] {
        let app = app(&["old"], change);
        let error = try_rebase(&app, &run, false).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        assert!(try_rebase(&app, &run, true).unwrap()[0].contains(word));
    }
    let mirror = app(&["old"], &|_, metadata| {
        metadata["runImage"]["image"] = "other:1".into();
        metadata["runImage"]["mirrors"] = json!(["docker.io/library/run:1"]);
    });
    assert_eq!(try_rebase(&mirror, &run, false).unwrap(), Vec::<String>::new());
    for (change, word) in [
        (
            &(|config: &mut Config, _: &mut Value| config.config.env = vec!["CNB_PLATFORM_API=x".into()])
                as &dyn Fn(&mut Config, &mut Value),
            "which is no version",
        ),
        (&|_, metadata| metadata["runImage"]["topLayer"] = "sha256:0".into(), "has no layer sha256:0"),
        (&|config, _| config.config.env.clear(), "the image has no label io.buildpacks.stack.id"),
    ] {
        let error = try_rebase(&app(&["old"], change), &run, true).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    assert!(matches!(
        try_rebase(&Image::assemble(Config::default(), Vec::new()).unwrap(), &run, true),
        Err(RebaseError::NoMetadata)
    ));
}

/// The reference fails where the label is anything but a list of texts, and reads `null` as Go does.
#[test]
fn mixins_that_cannot_be_read_are_not_taken_for_none() {
    let with = |below: &[&str], mixins: &str| {
        app(below, &|config, _| {
            config.config.env = vec!["CNB_PLATFORM_API=0.11".into()];
            for (name, value) in [("id", "s"), ("mixins", mixins)] {
                config.config.labels.insert(format!("io.buildpacks.stack.{name}"), value.into());
            }
        })
    };
    let rebased = |old: &str, new: &str| {
        try_rebase(&with(&["old"], old), &with(&["new"], new), false).map_err(|error| error.to_string())
    };
    for (old, new) in [("", ""), ("null", "[]"), ("[\"a\"]", "[\"b\", \"run:a\"]"), ("[null]", "[\"\"]")] {
        assert_eq!(rebased(old, new), Ok(Vec::new()), "{old} {new}");
    }
    for broken in ["\"a\"", "{}", "[1]", "a", "[\"a\"", "3"] {
        let text = "its label io.buildpacks.stack.mixins is no list of texts in JSON";
        assert_eq!(rebased(broken, "[]"), Err(format!("read the mixins of the image: {text}")), "{broken}");
        assert_eq!(
            rebased("[]", broken),
            Err(format!("read the mixins of the run image: {text}")),
            "{broken}"
        );
    }
}

/// As the reference leaves them: who made the image is gone, and what its system needs; numbers are Go's.
#[test]
fn what_is_said_of_an_image_is_written_again_as_the_reference_writes_it() {
    let run = app(&["new"], &|config, _| {
        (config.os_version, config.os_features) = ("2".into(), vec!["new".into()]);
        config.author = "other".into();
    });
    let old = app(&["old"], &|config, metadata| {
        (config.os_version, config.os_features) = ("1".into(), vec!["old".into()]);
        config.author = "me".into();
        config.docker_version = "1".into();
        config.other.insert("id".into(), "x".into());
        metadata["stack"] = json!({"runImage": {"image": "", "mirrors": ["m"]}});
        metadata["buildpacks"] = json!([
            {"key": "a", "version": "1", "layers": {"l": {"sha": "s", "data": {
                "big": 12_345_678_901_234_567_890_u64, "exact": 9_007_199_254_740_992_i64, "list": [1, -9_007_199_254_740_993_i64, 1.5],
            }}}, "store": {"metadata": {"n": 1_234_567_890_123_456_789_i64}}},
            {"key": "b", "version": "1", "layers": null},
        ]);
    });
    let input = RebaseInput {
        image: &old,
        run: &run,
        run_name: "run:1",
        run_reference: "r",
        force: false,
        platform_api: "0.13".parse().unwrap(),
    };
    let config = rebase(&input).unwrap().image.config;
    assert_eq!((config.author.as_str(), config.os_version.as_str()), ("", "2"));
    assert!(config.os_features.is_empty() && config.other.is_empty() && config.docker_version.is_empty());
    let label = config.label(LABEL).unwrap();
    for part in [
        r#""big":12345678901234567000,"exact":9007199254740992,"list":[1,-9007199254740992,1.5]"#,
        r#""store":{"metadata":{"n":1234567890123456800}}"#,
        r#""stack":{"runImage":{"mirrors":["m"]}}"#,
    ] {
        assert!(label.contains(part), "{label}");
    }
}

/// A history is optional, and where there is none the reference loses layers, or finds none
/// (docs/decisions/0009-phases-for-other-platforms.md).
#[test]
fn images_without_a_history_keep_their_layers() {
    let history =
        |config: &mut Config| vec![coracle_images::History::default(); config.rootfs.diff_ids.len()];
    let [old, new] = ["old", "new"].map(|below| app(&[below], &|_, _| {}));
    assert!(old.config.history.is_empty() && new.config.history.is_empty());
    let mut with = new.clone();
    with.config.history = history(&mut with.config);
    for run in [&new, &with] {
        let input = RebaseInput {
            image: &old,
            run,
            run_name: "run:1",
            run_reference: "r",
            force: false,
            platform_api: "0.13".parse().unwrap(),
        };
        let rebased = rebase(&input).unwrap().image;
        assert_eq!(rebased.config.rootfs.diff_ids, ["new", "own", "own"].map(Digest::of));
        assert_eq!(rebased.config.history.len(), 3);
    }
}

/// What either side says of its target, against what the other says.
#[test]
fn a_run_image_is_held_to_what_it_names_of_its_target() {
    let distro = |words: &'static str| {
        move |config: &mut Config, _: &mut Value| {
            for (label, word) in ["name", "version"].iter().zip(words.split_whitespace()) {
                config.config.labels.insert(format!("io.buildpacks.base.distro.{label}"), word.into());
            }
        }
    };
    let variant = |word: &'static str| move |config: &mut Config, _: &mut Value| config.variant = word.into();
    let moves = |old: Image, new: Image| match try_rebase(&old, &new, false) {
        Ok(overruled) => overruled.is_empty(),
        Err(error) => panic_unless_target(&error),
    };
    // By column the run image's: nothing, a name, a name and a version.
    for (old, wanted) in [
        ("", [true, false, false]),
        ("debian", [true, true, false]),
        ("debian 12", [true, true, true]),
        ("debian 11", [true, true, false]),
        ("alpine 12", [true, false, false]),
    ] {
        let found = ["", "debian", "debian 12"]
            .map(|new| moves(app(&["old"], &distro(old)), app(&["new"], &distro(new))));
        assert_eq!(found, wanted, "distribution of the application: `{old}`");
    }
    for (old, wanted) in [("", [true; 3]), ("v7", [true, true, false]), ("v8", [true, false, true])] {
        let found =
            ["", "v7", "v8"].map(|new| moves(app(&["old"], &variant(old)), app(&["new"], &variant(new))));
        assert_eq!(found, wanted, "variant of the application: `{old}`");
    }
}

fn panic_unless_target(error: &RebaseError) -> bool {
    assert!(matches!(error, RebaseError::OtherTarget { .. }), "{error}");
    false
}

/// What of a run image's labels goes over is the rebaser's Platform API's to say, whatever the application's.
#[test]
fn labels_of_the_base_go_over_since_the_rebaser_s_platform_api_0_12() {
    let labels = |value: &'static str, api: &'static str| {
        move |config: &mut Config, _: &mut Value| {
            config.config.env = vec![format!("CNB_PLATFORM_API={api}")];
            for label in ["io.buildpacks.stack.maintainer", "io.buildpacks.base.maintainer"] {
                config.config.labels.insert(label.into(), value.into());
            }
            config.config.labels.insert("io.buildpacks.stack.id".into(), "s".into());
        }
    };
    for (app_api, platform_api, base) in
        [("0.13", "0.11", "old"), ("0.11", "0.13", "new"), ("0.11", "0.11", "old"), ("0.13", "0.13", "new")]
    {
        let rebased = rebase(&RebaseInput {
            image: &app(&["old"], &labels("old", app_api)),
            run: &app(&["new"], &labels("new", app_api)),
            run_name: "run:1",
            run_reference: "r",
            force: false,
            platform_api: platform_api.parse().unwrap(),
        });
        let config = rebased.unwrap().image.config;
        let label =
            |kind: &str| config.label(&format!("io.buildpacks.{kind}.maintainer")).unwrap().to_owned();
        assert_eq!(
            (label("stack").as_str(), label("base").as_str()),
            ("new", base),
            "{app_api} {platform_api}"
        );
    }
}

#[test]
fn mixins_count_whatever_stage_they_are_for() {
    let of = |mixins: &'static str| {
        move |config: &mut Config, _: &mut Value| {
            config.config.env = vec!["CNB_PLATFORM_API=0.11".into()];
            config.config.labels.insert("io.buildpacks.stack.id".into(), "s".into());
            config.config.labels.insert("io.buildpacks.stack.mixins".into(), mixins.into());
        }
    };
    for (old, new, lacking) in [
        (r#"["a"]"#, r#"["run:a"]"#, None),
        (r#"["build:a"]"#, r#"["a", "b"]"#, None),
        (r#"["run:a"]"#, r#"["build:a"]"#, None),
        (r#"["build:a", "b"]"#, r#"["run:b"]"#, Some("a")),
        (r#"["run:a:b"]"#, r#"["build:a:b"]"#, None),
    ] {
        let found = try_rebase(&app(&["old"], &of(old)), &app(&["new"], &of(new)), false);
        match (found, lacking) {
            (Ok(_), None) => {}
            (Err(RebaseError::Mixins(found)), Some(lacking)) => assert_eq!(found, lacking),
            (found, _) => panic!("{old} {new}: {found:?}"),
        }
    }
}

/// The older key names run images as well as the newer one.
#[test]
fn a_run_image_of_either_key_is_one_that_the_image_was_built_for() {
    let run = app(&["new"], &|_, _| {});
    for (image, stack, fits) in [
        ("run:1", "other:1", true),
        ("other:1", "run:1", true),
        ("", "run:1", true),
        ("other:1", "more:1", false),
    ] {
        let old = app(&["old"], &|_, metadata| {
            metadata["runImage"]["image"] = image.into();
            metadata["stack"] = json!({"runImage": {"image": stack}});
        });
        match try_rebase(&old, &run, false) {
            Ok(overruled) => assert!(fits && overruled.is_empty(), "{image} {stack}"),
            Err(error) => {
                assert!(!fits, "{image} {stack}: {error}");
                assert!(error.to_string().contains("built for (other:1, more:1)"), "{error}");
            }
        }
    }
    let old = app(&["old"], &|_, metadata| {
        metadata["runImage"]["image"] = "other:1".into();
        metadata["stack"] = json!({"runImage": {"image": "run:1"}});
    });
    let input = RebaseInput {
        image: &old,
        run: &run,
        run_name: "run:1",
        run_reference: "r",
        force: false,
        platform_api: "0.13".parse().unwrap(),
    };
    let config = rebase(&input).unwrap().image.config;
    let label: Value = serde_json::from_str(config.label(LABEL).unwrap()).unwrap();
    assert_eq!(label["runImage"]["image"], "other:1", "it stays");
}

#[test]
fn an_equal_layer_of_the_run_image_does_not_mislead() {
    let run = app(&["new"], &|_, _| {});
    let old = app(&["same", "more", "same"], &|_, _| {});
    let platform_api = "0.13".parse().unwrap();
    let input = RebaseInput {
        image: &old,
        run: &run,
        run_name: "run:1",
        run_reference: "r",
        force: false,
        platform_api,
    };
    let layers = rebase(&input).unwrap().image.config.rootfs.diff_ids;
    assert_eq!(layers, [Digest::of("new"), Digest::of("own"), Digest::of("own")]);
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
    assert_eq!(exit(&["-run-image", &registry.reference("base/none:1"), &source]), Err(1));
    assert_eq!(exit(&[&registry.reference("team/none:1")]), Err(72));
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
    let moved = read_layout(Path::new(&layout_path(dir.path(), &app_name.parse().unwrap())), Some(&app_name))
        .unwrap();
    let case = data["cases"]
        .as_array()
        .unwrap()
        .iter()
        .find(|case| case["name"] == "rebase-0.15-new-force")
        .unwrap();
    assert_eq!(moved.config_bytes, image(&case["image"]).config_bytes);
}
