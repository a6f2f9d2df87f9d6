//! Documents that programs of buildpacks replaced by links, before phases that may read and write more than such programs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use coracle_lifecycle::env::Env;
use coracle_lifecycle::phases::{Launcher, PhaseError, main};
use coracle_lifecycle::with_causes;

const SECRET: &str = r#"{"auths":{"r.example":{"auth":"dXNlcjpzZWNyZXQ="}}}"#;

const GROUP: &str = "[[group]]\nid = \"a/one\"\nversion = \"1\"\napi = \"0.10\"\n";

fn phase(name: &str, dir: &Path, args: &[&str]) -> Result<(), PhaseError> {
    let env: Env = [
        ("CNB_PLATFORM_API".into(), "0.13".into()),
        ("CNB_LAYERS_DIR".into(), dir.join("layers").into()),
        ("CNB_APP_DIR".into(), dir.join("app").into()),
        ("CNB_RUN_PATH".into(), dir.join("run.toml").into()),
        ("CNB_LAYOUT_DIR".into(), dir.join("layout").into()),
        ("CNB_USE_LAYOUT".into(), "true".into()),
    ]
    .into();
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    let launcher = Launcher { program: b"launcher", metadata: serde_json::json!({ "version": "1" }) };
    main(OsStr::new(name), &args, &env, &launcher)
}

fn folder(documents: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for path in ["layers/config", "app", "layout"] {
        fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    fs::write(dir.path().join("secret"), SECRET).unwrap();
    for (path, text) in documents {
        fs::write(dir.path().join("layers").join(path), text).unwrap();
    }
    dir
}

#[test]
fn no_error_quotes_a_file_that_a_link_leads_to() {
    for (name, link) in [
        ("restorer", "group.toml"),
        ("builder", "analyzed.toml"),
        ("exporter", "group.toml"),
        ("exporter", "analyzed.toml"),
        ("exporter", "config/metadata.toml"),
        ("exporter", "project-metadata.toml"),
        ("builder", "plan.toml"),
    ] {
        let dir = folder(&[("group.toml", GROUP), ("config/metadata.toml", ""), ("plan.toml", "")]);
        let path = dir.path().join("layers").join(link);
        let _ = fs::remove_file(&path);
        symlink(dir.path().join("secret"), &path).unwrap();
        let args: &[&str] = if name == "exporter" { &["localhost:1/app"] } else { &[] };
        let error = phase(name, dir.path(), args).unwrap_err();
        let text = with_causes(&error);
        assert!(!text.contains("auths") && !format!("{error:?}").contains("auths"), "{name} {link}: {text}");
        let expected = format!("`{}` is a link, and none is followed there", path.display());
        assert!(text.contains(&expected), "{name} {link}: {text}");
    }
}

#[test]
fn nothing_is_left_where_a_link_leads_to() {
    let dir = folder(&[]);
    fs::write(dir.path().join("run.toml"), "[[images]]\nimage = \"localhost:1/run\"\n").unwrap();
    symlink(dir.path().join("secret"), dir.path().join("layers/analyzed.toml")).unwrap();
    let error = phase("analyzer", dir.path(), &["localhost:1/app"]).unwrap_err();
    assert!(with_causes(&error).contains("analyzed.toml` is a link, and none is followed there"), "{error}");
    assert_eq!(fs::read_to_string(dir.path().join("secret")).unwrap(), SECRET);
}
