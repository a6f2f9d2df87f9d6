//! Calls of phases that end before anything is done: exit codes and texts (docs/decisions/0010).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::{OsStr, OsString};

use coracle_lifecycle::env::Env;
use coracle_lifecycle::phases::{Launcher, main};
use coracle_lifecycle::with_causes;

/// Calls a phase at Platform API 0.13 unless `env` says otherwise; its exit code, and what it says.
fn call(phase: &str, args: &[&str], env: &[(&str, &str)]) -> (u8, String) {
    let mut all: Env = [("CNB_PLATFORM_API".into(), "0.13".into())].into();
    all.extend(env.iter().map(|(name, value)| (name.into(), value.into())));
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    let launcher = Launcher { program: b"", metadata: serde_json::json!({ "version": "1" }) };
    match main(OsStr::new(phase), &args, &all, &launcher) {
        Ok(()) => (0, String::new()),
        Err(error) => (error.exit_code(), with_causes(&error)),
    }
}

const ALL: [&str; 8] =
    ["analyzer", "builder", "creator", "detector", "exporter", "extender", "rebaser", "restorer"];

#[test]
fn platform_apis_that_are_not_spoken() {
    for phase in ALL {
        for api in ["0.6", "0.16", "1.0", "x", "0.7.1"] {
            let (code, text) = call(phase, &[], &[("CNB_PLATFORM_API", api)]);
            let wanted = format!(
                "Platform API `{api}` is not supported: set CNB_PLATFORM_API to one from 0.7 to 0.15"
            );
            assert!(code == 11 && text.starts_with(&wanted), "{phase} {api}: {code} {text}");
            assert!(text.ends_with("take its own lifecycle (--lifecycle builder)"), "{text}");
        }
        let (code, text) = call(phase, &[], &[("CNB_PLATFORM_API", "")]);
        assert_eq!(
            (code, text.as_str()),
            (11, "CNB_PLATFORM_API is not set: it says which Platform API is meant (0.7 to 0.15)")
        );
    }
}

#[test]
fn every_phase_tells_its_version() {
    for phase in ALL {
        for args in
            [&["-version"][..], &["--version"], &["-log-level", "info", "-version"], &["-version=true"]]
        {
            assert_eq!(call(phase, args, &[]), (0, String::new()), "{phase} {args:?}");
        }
        assert_eq!(call(phase, &["-version"], &[("CNB_PLATFORM_API", "")]), (0, String::new()), "{phase}");
    }
    assert_eq!(call("analyzer", &["-version=false"], &[]).0, 3);
}

/// Whatever comes after it, or as its value, as with the reference; what comes before it is read.
#[test]
fn every_phase_tells_its_flags() {
    for phase in ALL {
        for args in [&["-h"][..], &["--help"], &["-help=x"], &["-log-level", "info", "-h", "-nope"]] {
            assert_eq!(call(phase, args, &[]), (0, String::new()), "{phase} {args:?}");
        }
        assert_eq!(call(phase, &["-nope", "-h"], &[]).0, 3, "{phase}");
        assert_eq!(call(phase, &["-h"], &[("CNB_PLATFORM_API", "x")]).0, 11, "{phase}");
    }
    assert_eq!(call("-h", &[], &[]).0, 3);
    assert_eq!(call("-h", &[], &[("CNB_PLATFORM_API", "x")]).0, 11);
}

/// Where the reference takes them for 0, which is root (docs/decisions/0010-what-older-platforms-get.md).
#[test]
fn users_that_are_no_numbers_are_refused() {
    for variable in ["CNB_USER_ID", "CNB_GROUP_ID"] {
        for value in ["x", "-1", "1.5", " 1", "0x10"] {
            let flag = if variable == "CNB_USER_ID" { "uid" } else { "gid" };
            let (code, text) = call("exporter", &["image"], &[(variable, value)]);
            let wanted =
                format!("flag `-{flag}`, or its variable: `{value}` is not a number of a user or group");
            assert!(code == 3 && text.contains(&wanted), "{code} {text}");
        }
    }
}

#[test]
fn a_daemon_is_refused_by_every_phase_before_it_does_anything() {
    let image = |phase: &str| match phase {
        "analyzer" | "creator" | "exporter" | "rebaser" => vec!["image"],
        _ => vec![],
    };
    for phase in ALL {
        for (args, env) in [(&["-daemon"][..], &[][..]), (&[], &[("CNB_USE_DAEMON", "true")])] {
            let (code, text) = call(phase, &[args, &image(phase)].concat(), env);
            assert!(
                code == 3 && text.starts_with("images are not exchanged with a daemon"),
                "{phase}: {code} {text}"
            );
            for way in ["-layout and -layout-dir", "`coracle build`", "--publish"] {
                assert!(text.contains(way), "{text}");
            }
        }
        let (_, text) =
            call(phase, &[&["-daemon=false"][..], &image(phase)].concat(), &[("CNB_USE_DAEMON", "true")]);
        assert!(!text.contains("daemon"), "{phase}: {text}");
    }
}

#[test]
fn layouts_are_refused_only_to_those_who_forbid_what_is_experimental() {
    let layout = tempfile::tempdir().unwrap();
    let args = ["-layout", "-layout-dir", layout.path().to_str().unwrap(), "-run", "/nowhere", "image"];
    let (code, text) = call("analyzer", &args, &[("CNB_EXPERIMENTAL_MODE", "error")]);
    assert_eq!(
        (code, text.as_str()),
        (1, "-layout is experimental in the specification, and CNB_EXPERIMENTAL_MODE=error forbids that")
    );
    for mode in ["", "quiet", "silent", "warn", "else"] {
        let (code, text) = call("analyzer", &args, &[("CNB_EXPERIMENTAL_MODE", mode)]);
        assert!(code == 3 && text.contains("no run image is known"), "{mode}: {code} {text}");
    }
}

#[test]
fn the_extender_reads_its_flags_and_refuses() {
    let flags = [
        "-analyzed",
        "-app",
        "-buildpacks",
        "-extended",
        "-generated",
        "-gid",
        "-group",
        "-kaniko-cache-ttl",
        "-kind",
        "-layers",
    ];
    let mut args: Vec<&str> = flags.iter().flat_map(|flag| [*flag, "1"]).collect();
    args.extend(["-plan", "p", "-platform", "p", "-uid", "1"]);
    let (code, text) = call("extender", &args, &[]);
    assert_eq!(code, 102);
    assert!(
        text.contains("image extensions are not supported yet") && text.contains("--lifecycle builder"),
        "{text}"
    );
    let (code, text) = call("extender", &["-kind", "run"], &[("CNB_PLATFORM_API", "0.11")]);
    assert!(code == 3 && text.contains("it came with 0.12"), "{code} {text}");
}

#[test]
fn buildpack_apis_that_are_not_spoken() {
    let layers = tempfile::tempdir().unwrap();
    let dir = layers.path().to_str().unwrap();
    let group = "[[group]]\nid = \"a/one\"\nversion = \"1\"\napi = \"0.2\"\n";
    std::fs::write(layers.path().join("group.toml"), group).unwrap();
    std::fs::create_dir(layers.path().join("config")).unwrap();
    std::fs::write(layers.path().join("config/metadata.toml"), "").unwrap();
    for args in [vec!["-layers", dir], vec!["-layers", dir, "image"]] {
        let phase = if args.len() == 2 { "restorer" } else { "exporter" };
        let (code, text) = call(phase, &args, &[]);
        assert_eq!(
            (code, text.as_str()),
            (
                12,
                "buildpack `a/one@1` is for Buildpack API 0.2, which is not supported (supported: 0.7 to 0.12): take the builder's own lifecycle (--lifecycle builder)"
            ),
            "{phase}"
        );
    }
}

#[test]
fn documents_that_are_not_there_or_cannot_be_read() {
    let layers = tempfile::tempdir().unwrap();
    let dir = layers.path().to_str().unwrap();
    let write = |name: &str, text: &str| std::fs::write(layers.path().join(name), text).unwrap();
    write("group.toml", "[[group]]\nid = \"a/one\"\nversion = \"1\"\n");
    let (code, text) = call("restorer", &["-layers", dir], &[]);
    assert!(
        code == 12 && text.contains("does not say which Buildpack API buildpack `a/one@1` is for"),
        "{text}"
    );
    write("group.toml", "");
    write("analyzed.toml", "broken");
    assert_eq!(call("restorer", &["-layers", dir], &[]), (0, String::new()));
    let (code, text) = call("exporter", &["-layers", dir, "image"], &[]);
    assert!(
        code == 3 && text.starts_with(&format!("export: read document: `{dir}/analyzed.toml`")),
        "{text}"
    );
    write("analyzed.toml", "");
    let (code, text) = call("exporter", &["-layers", dir, "image"], &[]);
    assert!(
        code == 62 && text.contains(&format!("there is no `{dir}/config/metadata.toml`")),
        "{code} {text}"
    );
}

#[test]
fn modes_for_what_is_deprecated_are_understood_and_nothing_is() {
    for mode in ["quiet", "warn", "error", "else"] {
        for minor in 7..=15 {
            let env = [("CNB_DEPRECATION_MODE", mode), ("CNB_PLATFORM_API", &format!("0.{minor}"))];
            let (code, text) = call("restorer", &["-layers", "/nowhere"], &env);
            assert!(code == 1 && text.contains("/nowhere/group.toml"), "{mode} 0.{minor}: {code} {text}");
        }
    }
}

#[test]
fn calls_of_nothing() {
    assert_eq!(call("/cnb/lifecycle/exporter", &[], &[]).0, 3);
    let (code, text) = call("nonsense", &[], &[]);
    assert!(code == 3 && text.starts_with("`nonsense` is not a phase (phases: analyzer"), "{code} {text}");
    let (code, text) = call("restorer", &["-layers", "/nowhere", "-no-color"], &[]);
    assert!(code == 1 && text.contains("there is no `/nowhere/group.toml`"), "{code} {text}");
}
