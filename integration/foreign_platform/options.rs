//! A creator that is told everything otherwise than by default: as flags, and as variables.

use std::fs;

use coracle_fixtures::{Buildpack, RegistryAccess, RunImage, layer};
use serde_json::Value;

use super::container::{Container, Who};

/// Variable, flag, and what it is set to; the flag alone where there is no variable. `REGISTRY` is the registry's address.
const OPTIONS: [(&str, &str, &str); 31] = [
    ("CNB_APP_DIR", "-app", "/own/app"),
    ("CNB_BUILD_CONFIG_DIR", "-build-config", "/own/build-config"),
    ("CNB_BUILD_LAYERS", "-build-layers", "shared"),
    ("CNB_BUILDPACKS_DIR", "-buildpacks", "/own/buildpacks"),
    ("CNB_CACHE_DIR", "-cache-dir", "/own/cache"),
    ("", "-compression", "zstd"),
    ("CNB_EXTENSIONS_DIR", "-extensions", "/own/extensions"),
    ("CNB_GENERATED_DIR", "-generated", "/own/generated"),
    ("CNB_GROUP_ID", "-gid", "1004"),
    ("CNB_INSECURE_REGISTRIES", "-insecure-registry", "REGISTRY"),
    ("CNB_LAUNCH_CACHE_DIR", "-launch-cache", "/own/launch-cache"),
    ("CNB_LAUNCHER_PATH", "-launcher", "/own/launcher"),
    ("", "-launcher-sbom", "/own/bills"),
    ("CNB_LAYERS_DIR", "-layers", "/own/layers"),
    ("CNB_LOG_LEVEL", "-log-level", "debug"),
    ("CNB_NO_COLOR", "-no-color", "true"),
    ("CNB_ORDER_PATH", "-order", "/own/order.toml"),
    ("CNB_PARALLEL_EXPORT", "-parallel", "true"),
    ("CNB_PLATFORM_DIR", "-platform", "/own/platform"),
    ("CNB_PREVIOUS_IMAGE", "-previous-image", "REGISTRY/previous"),
    ("CNB_PROCESS_TYPE", "-process-type", "second"),
    ("CNB_PROJECT_METADATA_PATH", "-project-metadata", "/own/project.toml"),
    ("CNB_REPORT_PATH", "-report", "/own/reports/report.toml"),
    ("CNB_RUN_PATH", "-run", "/own/run.toml"),
    ("CNB_RUN_IMAGE", "-run-image", "REGISTRY/second-run"),
    ("CNB_SHARED_LAYERS", "-shared-layer", "test/own"),
    ("CNB_SKIP_RESTORE", "-skip-restore", "true"),
    ("CNB_SYSTEM_PATH", "-system", "/own/system.toml"),
    ("", "-tag", "REGISTRY/tagged:v2"),
    ("CNB_USER_ID", "-uid", "1003"),
    ("CNB_STACK_PATH", "-stack", "/own/stack.toml"),
];

const DOCUMENTS: [(&str, &str); 3] =
    [("CNB_ANALYZED_PATH", "a.toml"), ("CNB_GROUP_PATH", "g.toml"), ("CNB_PLAN_PATH", "p.toml")];

/// Leaves what it was told in a layer of the image.
const TELL: &str = "mkdir -p \"$1/told\"; printf '[types]\\nlaunch = true\\n' >\"$1/told.toml\"
{ pwd; id -u; id -g; echo \"layers $1 platform $2 word ${SAID:-none} config ${CONFIGURED:-none} api\"; ls \"$1\"; } >\"$1/told/text\"
printf '[[processes]]\\ntype = \"first\"\\ncommand = [\"true\"]\\ndefault = true\\n[[processes]]\\ntype = \"second\"\\ncommand = [\"cat\", \"hello\"]\\n' >\"$1/launch.toml\"";

fn container() -> Container {
    let own = Buildpack::passing("test/own").build(TELL);
    let after = Buildpack::passing("test/after").layer("last", &["launch", "cache"], "last");
    let container = Container::new(RegistryAccess::Password, &[own, after]);
    let second = RunImage::new().file(coracle_fixtures::Entry::file("etc/second", "second")).image();
    container.registry.push(&second, "second-run", "latest");
    let bill = "{\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.4\",\"components\":[]}";
    for (path, text) in [
        ("build-config/env/CONFIGURED", "configured"),
        ("platform/env/SAID", "said"),
        ("launcher", "not really a launcher"),
        ("bills/launcher.sbom.cdx.json", bill),
        ("order.toml", "[[order]]\n[[order.group]]\nid = \"test/own\"\nversion = \"1.0.0\"\n"),
        ("system.toml", "[[system.post.buildpacks]]\nid = \"test/after\"\nversion = \"1.0.0\"\n"),
        ("project.toml", "[source]\ntype = \"git\"\n[source.version]\ncommit = \"abc\"\n"),
        ("run.toml", "[[images]]\nimage = \"elsewhere.example/run\"\n"),
        ("stack.toml", ""),
    ] {
        container.write(&format!("own/{path}"), text, 0o644);
    }
    container.as_root(
        "chmod 755 own/launcher; mkdir own/extensions own/reports; cp -r cnb/buildpacks own/buildpacks
        rm -rf cnb/buildpacks cnb/order.toml cnb/run.toml layers workspace platform cache",
    );
    container
}

/// Builds with all options but for some flags; what was said.
fn create(container: &Container, image: &str, as_variables: bool, without: &[&str]) -> String {
    container.as_root(
        "cd own; rm -rf app layers cache launch-cache generated reports
        mkdir app layers cache launch-cache generated reports; echo hello >app/hello; chown -R 1003:1004 app reports",
    );
    let address = container.registry.address();
    let (mut args, mut env) = (Vec::new(), Vec::new());
    for (variable, flag, value) in OPTIONS.into_iter().filter(|(_, flag, _)| !without.contains(flag)) {
        let value = value.replace("REGISTRY", &address);
        if as_variables && !variable.is_empty() {
            env.push((variable, value));
        } else {
            args.push(format!("{flag}={value}"));
        }
    }
    args.push(container.registry.reference(image));
    env.push(("CNB_REGISTRY_AUTH", container.header()));
    env.push(("CNB_PLATFORM_API", "0.15".to_owned()));
    // These a creator has no flags for.
    for (variable, document) in DOCUMENTS {
        env.push((variable, format!("/own/reports/{document}")));
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let ran = container.ran(Who::Root, "creator", &args, &env);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    ran.stdout + &ran.stderr
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("is JSON")
}

#[test]
fn a_creator_does_all_that_it_is_told_by_flags_as_by_variables() {
    let container = container();
    create(&container, "previous", false, &[]);
    let mut manifests = Vec::new();
    for (image, as_variables) in [("by-flags", false), ("by-variables", true)] {
        let said = create(&container, image, as_variables, &[]);
        assert!(said.contains("Reusing layer 'test/own:told'"), "of -previous-image: {said}");
        manifests.push(container.registry.manifest(&format!("{image}:latest")));
        assert_eq!(container.registry.manifest("tagged:v2"), manifests[0], "-tag");
    }
    assert_eq!(manifests[0], manifests[1], "flags and variables make one image");

    let manifest = parsed(&manifests[0]);
    let kinds: Vec<&str> = manifest["layers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one["mediaType"].as_str())
        .collect();
    assert!(kinds.iter().any(|kind| kind.ends_with("+zstd")), "-compression: {kinds:?}");
    let config = parsed(&container.registry.config("by-flags:latest"));
    let of = |label: &str| parsed(config["config"]["Labels"][label].as_str().expect("a label").as_bytes());
    assert_eq!(config["config"]["WorkingDir"], "/own/app", "-app");
    assert_eq!(config["config"]["Entrypoint"][0], "/cnb/process/second", "-process-type");
    let env = config["config"]["Env"].as_array().expect("variables");
    for variable in ["CNB_LAYERS_DIR=/own/layers", "CNB_APP_DIR=/own/app", "CNB_PLATFORM_API=0.15"] {
        assert!(env.iter().any(|one| one == variable), "{variable} in {env:?}");
    }
    let project = of("io.buildpacks.project.metadata");
    assert_eq!(project["source"]["version"]["commit"], "abc", "-project-metadata");
    let metadata = of("io.buildpacks.lifecycle.metadata");
    let run = container.registry.reference("second-run");
    let run_digest = layer::digest(&container.registry.manifest("second-run:latest"));
    assert_eq!(metadata["runImage"]["reference"], format!("{run}@{run_digest}"), "-run-image");
    let names: Vec<&Value> =
        metadata["buildpacks"].as_array().into_iter().flatten().map(|one| &one["key"]).collect();
    assert_eq!(names, ["test/own", "test/after"], "-order and -system");

    let told =
        fs::read_to_string(container.path("own/layers/test_own/told/text")).expect("read what was told");
    assert_eq!(
        told,
        "/own/app\n1003\n1004\nlayers /own/layers/test_own platform /own/platform word said config configured api\ntold\ntold.toml\n",
        "-app, -uid, -gid, -layers, -platform, -build-config, -skip-restore"
    );
    let report = fs::read_to_string(container.path("own/reports/report.toml")).expect("read -report");
    for name in ["by-variables", "tagged:v2"] {
        assert!(report.contains(&container.registry.reference(name)), "{report}");
    }
    for (variable, document) in DOCUMENTS {
        assert!(container.path("own/reports").join(document).exists(), "{variable}");
    }
    for document in ["analyzed.toml", "group.toml", "plan.toml", "report.toml"] {
        assert!(!container.path("own/layers").join(document).exists(), "{document}");
    }
    let listing = container.owned(&["own/cache", "own/launch-cache", "own/layers"]);
    assert!(listing.lines().all(|line| line.ends_with(" 1003:1004")), "{listing}");
    for folder in ["own/cache/", "own/launch-cache/", "own/layers/config/metadata.toml"] {
        assert!(listing.lines().any(|line| line.starts_with(folder)), "{folder}: {listing}");
    }
    let label = |image: &str| parsed(container.label(image, "io.buildpacks.lifecycle.metadata").as_bytes());
    create(&container, "other", false, &["-launcher", "-launcher-sbom"]);
    let other = label("other");
    assert!(
        metadata["launcher"]["sha"].is_string() && other["launcher"]["sha"] != metadata["launcher"]["sha"]
    );
    assert!(
        metadata["sbom"]["sha"].is_string() && other["sbom"]["sha"] != metadata["sbom"]["sha"],
        "{other}"
    );
    assert!(!container.path("layers").exists() && !container.path("workspace").exists());
}
