//! The resolver against what the reference decided for 120 random orders, and the programs against a real folder.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Mutex;

use coracle_cnb::{BuildpackToml, Group, Order, Plan};
use coracle_lifecycle::detect::{
    Catalog, DetectRun, Detected, Given, Module, Programs, ResolveError, resolve,
};
use coracle_lifecycle::surroundings::Surroundings;
use serde_json::Value;

/// A program being written while another test forks could not be started ("text file busy").
static PROGRAMS: Mutex<()> = Mutex::new(());

fn install(buildpacks: &Value, dir: &Path) {
    for (path, file) in buildpacks.as_object().unwrap() {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = file.as_str().or_else(|| file["text"].as_str()).unwrap();
        std::fs::write(&path, text).unwrap();
        if let Some(mode) = file["mode"].as_str() {
            let mode = u32::from_str_radix(mode, 8).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

fn detect(order: &Order, dir: &Path) -> (Result<Detected, ResolveError>, Vec<DetectRun>) {
    let catalog = Catalog::read(&dir.join("buildpacks"), &dir.join("extensions"), order).unwrap();
    for folder in ["scratch", "app", "platform"] {
        std::fs::create_dir_all(dir.join(folder)).unwrap();
    }
    let outer_env =
        BTreeMap::from([("PATH".into(), std::env::var_os("PATH").unwrap()), ("SECRET".into(), "s".into())]);
    let around = Surroundings {
        buildpacks_dir: dir.join("buildpacks"),
        extensions_dir: dir.join("extensions"),
        app_dir: dir.join("app"),
        platform_dir: dir.join("platform"),
        build_config_dir: dir.join("build-config"),
        scratch_dir: dir.join("scratch"),
        target: None,
        exec_env: None,
        outer_env: &outer_env,
    };
    let mut programs = Programs::new(&catalog, &around, &|_, _| ());
    let (detected, _) = resolve(order, &catalog, Given::default(), &mut programs);
    (detected, programs.runs)
}

/// Entries of a plan have no order of their own.
fn sorted(plan: &Plan) -> Vec<String> {
    let mut entries: Vec<String> =
        plan.entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
    entries.sort();
    entries
}

#[test]
fn decides_as_the_reference_did() {
    let _alone = PROGRAMS.lock();
    let text = std::fs::read_to_string(
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/data/detect.json"),
    )
    .unwrap();
    let vectors: Value = serde_json::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    for case in vectors["cases"].as_array().unwrap() {
        let dir = tempfile::tempdir().unwrap();
        install(&case["buildpacks"], &dir.path().join("buildpacks"));
        let order: Order = toml::from_str(case["order.toml"].as_str().unwrap()).unwrap();
        let (decided, _) = detect(&order, dir.path());
        let same = match (case["exit"].as_i64().unwrap(), &decided) {
            (0, Ok(detected)) => {
                let group: Group =
                    toml::from_str(case["files"]["/layers/group.toml"].as_str().unwrap()).unwrap();
                let plan: Plan =
                    toml::from_str(case["files"]["/layers/plan.toml"].as_str().unwrap()).unwrap();
                group == detected.group && sorted(&plan) == sorted(&detected.plan)
            }
            (20, Err(ResolveError::NonePassed)) | (21, Err(ResolveError::NonePassedWithErrors)) => true,
            _ => false,
        };
        if !same {
            wrong.push(format!("{}: exit {}: {decided:?}", case["name"], case["exit"]));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn programs_get_their_paths_and_nothing_of_the_phase() {
    let _alone = PROGRAMS.lock();
    let dir = tempfile::tempdir().unwrap();
    let files = serde_json::json!({
        "a_b/1/buildpack.toml": "api = \"0.10\"\n[buildpack]\nid = \"a/b\"\nversion = \"1\"\n",
        "a_b/1/bin/detect": {"mode": "755", "text": "#!/bin/sh\necho \"$1|$CNB_PLATFORM_DIR\"\necho \"$2|$CNB_BUILD_PLAN_PATH\"\necho \"secret=$SECRET\" >&2\nexit 7\n"},
    });
    install(&files, &dir.path().join("buildpacks"));
    let order: Order = toml::from_str("[[order]]\n[[order.group]]\nid = \"a/b\"\nversion = \"1\"\n").unwrap();
    let (_, runs) = detect(&order, dir.path());
    let [run] = runs.as_slice() else { panic!("{runs:?}") };
    let platform = dir.path().join("platform");
    let plan = dir.path().join("scratch/buildpack/a%2Fb/1/plan.toml");
    assert_eq!(run.exit, 7);
    let expected = format!("{0}|{0}\n{1}|{1}\nsecret=\n", platform.display(), plan.display());
    assert_eq!(run.output, expected);
}

/// Each waits for the other's file, 10 s at most.
#[test]
fn programs_of_a_group_run_beside_each_other() {
    let _alone = PROGRAMS.lock();
    let dir = tempfile::tempdir().unwrap();
    let program = |own: &str, other: &str| {
        let (own, other) = (dir.path().join(own), dir.path().join(other));
        let (own, other) = (own.display(), other.display());
        let text = format!(
            "#!/bin/sh\n: >'{own}'\nfor i in $(seq 100); do [ -e '{other}' ] && exit 0; sleep 0.1; done\nexit 1\n"
        );
        serde_json::json!({"mode": "755", "text": text})
    };
    let toml = |id| format!("api = \"0.10\"\n[buildpack]\nid = \"{id}\"\nversion = \"1\"\n");
    let files = serde_json::json!({
        "a/1/buildpack.toml": toml("a"),
        "a/1/bin/detect": program("saw-a", "saw-b"),
        "b/1/buildpack.toml": toml("b"),
        "b/1/bin/detect": program("saw-b", "saw-a"),
    });
    install(&files, &dir.path().join("buildpacks"));
    let order = "[[order]]\n[[order.group]]\nid = \"a\"\nversion = \"1\"\n[[order.group]]\nid = \"b\"\nversion = \"1\"\n";
    let (detected, runs) = detect(&toml::from_str(order).unwrap(), dir.path());
    // No more at once than there are processors (docs/decisions/0016): on one alone, the first waits for nothing.
    let beside = std::thread::available_parallelism().unwrap().get() > 1;
    let exits: Vec<i32> = runs.iter().map(|run| run.exit).collect();
    assert_eq!(exits, [i32::from(!beside), 0]);
    assert_eq!(detected.is_ok(), beside);
}

#[test]
fn orders_without_end_are_refused() {
    // Each of 24 composites has two groups, and nothing passes in the end: 2^24 groups.
    let mut text = String::from("[[order]]\n");
    let mut tomls = Vec::new();
    let toml = |text: String| toml::from_str::<BuildpackToml>(&text).unwrap();
    let component = |id: &str| toml(format!("api = \"0.10\"\n[buildpack]\nid = \"{id}\"\nversion = \"1\"\n"));
    for number in 0..24 {
        writeln!(text, "[[order.group]]\nid = \"all{number}\"\nversion = \"1\"").unwrap();
        let mut composite = format!("api = \"0.10\"\n[buildpack]\nid = \"all{number}\"\nversion = \"1\"\n");
        for part in ["x", "y"] {
            write!(composite, "[[order]]\n[[order.group]]\nid = \"{part}{number}\"\nversion = \"1\"\n")
                .unwrap();
            tomls.push(component(&format!("{part}{number}")));
        }
        tomls.push(toml(composite));
    }
    text.push_str("[[order.group]]\nid = \"fails\"\nversion = \"1\"\n");
    tomls.push(component("fails"));
    let run = |toml: &BuildpackToml| DetectRun {
        module: Module { id: toml.buildpack.id.clone(), version: "1".into(), extension: false },
        exit: if toml.buildpack.id.as_str() == "fails" { 100 } else { 0 },
        plan_toml: String::new(),
        output: String::new(),
    };
    let runs: Vec<DetectRun> = tomls.iter().map(run).collect();
    let order: Order = toml::from_str(&text).unwrap();
    let (detected, tried) =
        resolve(&order, &Catalog::of(tomls, [], []), Given::default(), &mut runs.as_slice());
    let error = detected.unwrap_err();
    assert_eq!((&error, error.exit_code(), tried.len()), (&ResolveError::TooMany, 22, 256));
    let expected = "resolve order: there are too many ways to combine its groups and the alternatives (`or`) of its buildpacks' plans; name fewer buildpacks";
    assert_eq!(error.to_string(), expected);
}
