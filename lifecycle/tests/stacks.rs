//! Before Platform API 0.12 all images of a build are of one stack: known before detection (docs/decisions/0010).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::{OsStr, OsString};
use std::path::Path;

use coracle_fixtures::{DockerRegistry, Image as Fixture};
use coracle_lifecycle::env::Env;
use coracle_lifecycle::phases::{Launcher, main};
use coracle_lifecycle::with_causes;

const STACK: &str = "io.buildpacks.stack.id";
const MIXINS: &str = "io.buildpacks.stack.mixins";

/// Analyzes with a run image for a build image of the stack `a`; the exit code and what it says, or analyzed.toml.
fn analyze(api: &str, layers: &Path, args: &[&str]) -> (u8, String) {
    let env: Env = [("CNB_PLATFORM_API".into(), api.into()), ("CNB_STACK_ID".into(), "a".into())].into();
    let own = ["-layers", layers.to_str().unwrap()];
    let args: Vec<OsString> = own.iter().chain(args).map(OsString::from).collect();
    let launcher = Launcher { program: b"", metadata: serde_json::Value::Null };
    match main(OsStr::new("analyzer"), &args, &env, &launcher) {
        Ok(()) => (0, std::fs::read_to_string(layers.join("analyzed.toml")).unwrap()),
        Err(error) => (error.exit_code(), with_causes(&error)),
    }
}

#[test]
fn images_of_other_stacks_are_refused_or_built_anew() {
    let registry = DockerRegistry::open();
    let dir = tempfile::tempdir().unwrap();
    let image =
        |stack: &str, mixins: &str| Fixture::new(Vec::new()).label(STACK, stack).label(MIXINS, mixins);
    registry.push(&image("a", "[\"build:x\", \"run:one\", \"two\"]"), "run", "a");
    registry.push(&image("b", "[]"), "run", "b");
    registry.push(&Fixture::new(Vec::new()), "run", "none");
    registry.push(&image("a", "[\"one\"]"), "app", "same");
    registry.push(&image("a", "[\"one\", \"three\"]"), "app", "more");
    registry.push(&image("b", "[]"), "app", "other");
    registry.push(&Fixture::new(Vec::new()), "app", "none");
    let [run_a, run_b, run_none] = ["a", "b", "none"].map(|tag| registry.reference(&format!("run:{tag}")));
    let app = registry.reference("app:same");

    for api in ["0.7", "0.11"] {
        let (code, text) = analyze(api, dir.path(), &["-run-image", &run_b, &app]);
        assert_eq!(
            (code, text),
            (
                32,
                format!(
                    "analyze: run image `{run_b}` is of stack `b`, the build image of stack `a` (CNB_STACK_ID): take a run image of that stack"
                )
            )
        );
        assert!(!dir.path().join("analyzed.toml").exists());
    }
    assert_eq!(analyze("0.12", dir.path(), &["-run-image", &run_b, &app]).0, 0);
    // Who says nothing of stacks cannot be of another.
    assert_eq!(analyze("0.11", dir.path(), &["-run-image", &run_none, &app]).0, 0);

    for (api, tag, counts) in [
        ("0.11", "same", true),
        ("0.11", "none", true),
        ("0.11", "more", false),
        ("0.11", "other", false),
        ("0.7", "other", false),
        ("0.12", "other", true),
    ] {
        let app = registry.reference(&format!("app:{tag}"));
        let (code, text) = analyze(api, dir.path(), &["-run-image", &run_a, &app]);
        assert_eq!(code, 0, "{text}");
        assert_eq!(text.contains("/app@sha256:"), counts, "{api} {tag}: {text}");
    }
}
