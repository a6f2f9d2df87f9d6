//! What older Platform APIs want of an image and of the report, with the exporter as a program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::{OsStr, OsString};
use std::fs;

use coracle_fixtures::{DockerRegistry, Entry, Image as Fixture, Layer};
use coracle_images::Platform;
use coracle_images::{AuthFile, Image, Registry, RegistryOptions};
use coracle_lifecycle::env::Env;
use coracle_lifecycle::phases::{Launcher, PhaseError, main};
use serde_json::Value;

const METADATA: &str = r#"
[[bom]]
  name = "l"
  [bom.metadata]
    whole = 2.0
  [bom.buildpack]
    id = "a/one"
    version = "1"

[[buildpacks]]
  id = "a/one"
  version = "1"
  api = "0.8"
"#;

fn phase(name: &str, api: &str, args: &[&str]) -> Result<(), PhaseError> {
    let env: Env = [("CNB_PLATFORM_API".into(), api.into()), ("SOURCE_DATE_EPOCH".into(), "0".into())].into();
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    let launcher = Launcher { program: b"launcher", metadata: serde_json::json!({ "version": "1" }) };
    main(OsStr::new(name), &args, &env, &launcher)
}

/// Analyzes and exports; returns the image and the report.
fn export(registry: &DockerRegistry, api: &str, flags: &[&str]) -> Result<(Image, toml::Table), PhaseError> {
    let dir = tempfile::tempdir().unwrap();
    let run = registry.reference("team/run:latest");
    for (path, text) in [
        ("config/metadata.toml", METADATA),
        ("group.toml", "[[group]]\nid = \"a/one\"\nversion = \"1\"\napi = \"0.8\"\n"),
        ("a_one/build.toml", "[[bom]]\nname = \"b\"\n[bom.metadata]\nkey = \"k\"\n"),
        ("sbom/launch/sbom.legacy.json", "null\n"),
        ("app/main", "m"),
        ("stack.toml", &format!("[run-image]\nimage = \"{run}\"\n")),
    ] {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let layers = dir.path().to_str().unwrap();
    let at = |name: &str| format!("{layers}/{name}");
    let name = registry.reference(&format!("team/app:{api}"));
    let stack = ["-layers", layers, "-stack", &at("stack.toml")];
    phase("analyzer", api, &[&stack[..], &[&name]].concat()).unwrap();
    let own = ["-app", &at("app"), "-scratch", &at("scratch")];
    phase("exporter", api, &[&stack[..], &own, flags, &[&name]].concat())?;
    let auth = AuthFile::parse(b"{}").unwrap();
    let client = Registry::new(RegistryOptions { insecure: Vec::new(), auth, ca_bundle: None }).unwrap();
    let image = client.image(&name.parse().unwrap(), &Platform::host()).unwrap();
    Ok((image, fs::read_to_string(at("report.toml")).unwrap().parse().unwrap()))
}

fn registry() -> DockerRegistry {
    let registry = DockerRegistry::open();
    let layer = Layer::new(&[Entry::dir("etc"), Entry::file("etc/os", "run")]);
    registry.push(&Fixture::new(vec![layer]).env("PATH", "/bin"), "team/run", "latest");
    registry
}

fn lifecycle_metadata(image: &Image) -> Value {
    serde_json::from_str(image.config.label("io.buildpacks.lifecycle.metadata").unwrap()).unwrap()
}

#[test]
fn bills_of_materials_and_dates_by_platform_api() {
    let registry = registry();
    let bom = r#"[{"name":"l","metadata":{"whole":2},"buildpack":{"id":"a/one","version":"1"}}]"#;
    let report = "[[build.bom]]\nname = \"b\"\nmetadata.key = \"k\"\nbuildpack = { id = \"a/one\", version = \"1\" }\n";
    let reported: toml::Table = report.parse().unwrap();
    for (api, has_bom, has_layer, created) in [
        ("0.7", true, false, "1980-01-01T00:00:01Z"),
        ("0.8", true, true, "1980-01-01T00:00:01Z"),
        ("0.9", false, true, "1970-01-01T00:00:00Z"),
    ] {
        let (image, report) = export(&registry, api, &[]).unwrap();
        let label = image.config.label("io.buildpacks.build.metadata").unwrap();
        assert_eq!(label.contains(&format!(r#"{{"bom":{bom},"#)), has_bom, "{api}: {label}");
        assert_eq!(report.get("build"), reported.get("build").filter(|_| has_bom), "{api}");
        let metadata = lifecycle_metadata(&image);
        assert_eq!(metadata.get("sbom").is_some(), has_layer, "{api}: {metadata}");
        assert_eq!(image.config.created.as_deref(), Some(created), "{api}");
    }
}

#[test]
fn a_launcher_that_the_caller_names_is_the_image_s() {
    let registry = registry();
    let dir = tempfile::tempdir().unwrap();
    let given = dir.path().join("launcher");
    let mut layers = Vec::new();
    for content in ["launcher", "another"] {
        fs::write(&given, content).unwrap();
        let (image, _) =
            export(&registry, "0.11", &["-parallel", "-launcher", given.to_str().unwrap()]).unwrap();
        layers.push(lifecycle_metadata(&image)["launcher"]["sha"].clone());
    }
    let (image, _) = export(&registry, "0.11", &[]).unwrap();
    assert_eq!(lifecycle_metadata(&image)["launcher"]["sha"], layers[0]);
    assert_ne!(layers[0], layers[1]);
    let error = export(&registry, "0.11", &["-launcher", "/nowhere/launcher"]).unwrap_err();
    assert_eq!(error.exit_code(), 62);
    assert_eq!(
        coracle_lifecycle::with_causes(&error),
        "read the launcher that -launcher (CNB_LAUNCHER_PATH) names: `/nowhere/launcher`: No such file or directory (os error 2)"
    );
}
