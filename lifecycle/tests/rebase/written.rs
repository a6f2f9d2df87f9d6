//! What a rebased image says of itself.

use super::*;

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
    let config = rebased(&old, &run);
    assert_eq!((config.author.as_str(), config.os_version.as_str()), ("", "2"));
    assert!(config.os_features.is_empty() && config.other.is_empty() && config.docker_version.is_empty());
    let label = config.label(LABEL).unwrap();
    for part in [
        r#""big":12345678901234567000,"exact":9007199254740992,"list":[1,-9007199254740992,1.5]"#,
        r#""store":{"metadata":{"n":1234567890123456800}}"#,
        r#"{"key":"b","version":"1","layers":null}"#,
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
    let config = rebased(&old, &run);
    let label: Value = serde_json::from_str(config.label(LABEL).unwrap()).unwrap();
    assert_eq!(label["runImage"]["image"], "other:1", "it stays");
}
