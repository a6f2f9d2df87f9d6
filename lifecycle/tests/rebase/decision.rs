//! Whether an image may be rebased, and how that is said.

use super::*;

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

#[test]
fn an_equal_layer_of_the_run_image_does_not_mislead() {
    let run = app(&["new"], &|_, _| {});
    let old = app(&["same", "more", "same"], &|_, _| {});
    let layers = rebased(&old, &run).rootfs.diff_ids;
    assert_eq!(layers, [Digest::of("new"), Digest::of("own"), Digest::of("own")]);
}
