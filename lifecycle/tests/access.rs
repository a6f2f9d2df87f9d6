//! The analyzer first: whether every image of a build may be read or written is known before anything else happens.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::{OsStr, OsString};
use std::path::Path;

use coracle_fixtures::{DockerRegistry, Image as Fixture};
use coracle_lifecycle::env::Env;
use coracle_lifecycle::phases::{Launcher, main};
use coracle_lifecycle::with_causes;

/// Runs the analyzer with a folder of layers that holds no group.toml; its exit code, and what it says.
fn analyze(layers: &Path, args: &[&str]) -> (u8, String) {
    let env: Env = [("CNB_PLATFORM_API".into(), "0.13".into())].into();
    let own = ["-layers", layers.to_str().unwrap()];
    let args: Vec<OsString> = own.iter().chain(args).map(OsString::from).collect();
    let launcher = Launcher { program: b"", metadata: serde_json::Value::Null };
    match main(OsStr::new("analyzer"), &args, &env, &launcher) {
        Ok(()) => (0, String::new()),
        Err(error) => (error.exit_code(), with_causes(&error)),
    }
}

#[test]
fn an_image_that_cannot_be_had_or_left_ends_the_analyzer_with_its_name_and_the_cause() {
    let registry = DockerRegistry::open();
    let pinned = registry.push(&Fixture::new(Vec::new()), "team/run", "latest");
    // A file where the registry wants to make the repository's folder.
    let repositories = registry.storage().join("repositories/team");
    std::fs::write(repositories.join("closed"), "").unwrap();
    let [run, app, closed] =
        ["run", "app", "closed"].map(|name| registry.reference(&format!("team/{name}:latest")));
    let nobody = "127.0.0.1:1/team/nobody:latest";
    let dir = tempfile::tempdir().unwrap();
    let analyzed = dir.path().join("analyzed.toml");

    let refused = "Connection refused";
    let broken = "500";
    for (args, name, deed, cause) in [
        (vec!["-run-image", &run, nobody], nobody, "read", refused),
        (vec!["-run-image", nobody, &app], nobody, "read", refused),
        (vec!["-run-image", &run, "-previous-image", nobody, &app], nobody, "read", refused),
        (vec!["-run-image", &run, "-previous-image", &run, &closed], &closed, "write to", broken),
        (vec!["-run-image", &run, "-tag", &closed, &app], &closed, "write to", broken),
        (vec!["-run-image", &run, "-cache-image", &closed, &app], &closed, "write to", broken),
        (vec!["-run-image", &run, "-tag", &app, "-tag", &closed, &app], &closed, "write to", broken),
    ] {
        let (code, text) = analyze(dir.path(), &args);
        assert_eq!(code, 32, "{args:?}: {text}");
        assert!(
            text.contains(&format!("{deed} ")) && text.contains(&format!("`{name}`")),
            "{args:?}: {text}"
        );
        assert!(text.contains(cause), "{args:?}: {text}");
        assert!(!analyzed.exists(), "{args:?}");
    }
    let run_toml = dir.path().join("run.toml");
    std::fs::write(&run_toml, format!("[[images]]\nimage = \"{nobody}\"\n")).unwrap();
    let (code, text) = analyze(dir.path(), &["-run", run_toml.to_str().unwrap(), &app]);
    assert!(
        code == 3 && text.contains(&format!("no run image can be read; tried: `{nobody}`")),
        "{code} {text}"
    );

    assert_eq!(
        analyze(dir.path(), &["-run-image", &run, "-tag", &registry.reference("other/app"), &app]).0,
        0
    );
    let text = std::fs::read_to_string(&analyzed).unwrap();
    assert!(text.contains(&format!("reference = \"{pinned}\"")), "{text}");
}
