//! Builds of the recorded kind: the programs run for real, and what they leave is compared with what the reference left.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod programs;

use std::os::fd::AsFd as _;
use std::path::Path;

use coracle_cnb::{ApiVersion, Group, GroupElement, LaunchToml};
use coracle_lifecycle::build::{BuildError, compose, in_form_of, read_launch, remarks};
use programs::{Options, PROGRAMS, group, program};

fn run(dir: &Path, group: &Group, plan: &str) -> Result<(), BuildError> {
    run_at(ApiVersion::new(0, 13), dir, group, plan).map(|_| ())
}

fn run_at(
    platform_api: ApiVersion,
    dir: &Path,
    group: &Group,
    plan: &str,
) -> Result<Vec<(GroupElement, LaunchToml)>, BuildError> {
    let (built, _) = programs::run(dir, group, plan, &Options { platform_api, ..Options::default() })?;
    Ok(built)
}

const PLAN: &str = "[[entries]]\n[[entries.providers]]\nid = \"one\"\nversion = \"1\"\n[[entries.providers]]\nid = \"two\"\nversion = \"1\"\n[[entries.requires]]\nname = \"n\"\n";

/// Recorded: frameworks write the table always, and may read it so.
#[test]
fn a_requirements_empty_metadata_stays_in_the_plan() {
    let _alone = PROGRAMS.lock();
    let dir = tempfile::tempdir().unwrap();
    program(dir.path(), "one", "0.10", "cat $CNB_BP_PLAN_PATH > plan");
    let plan = format!(
        "{PLAN}[entries.requires.metadata]\n[[entries.requires]]\nname = \"n\"\n[entries.requires.metadata]\nx = 1\n"
    );
    run(dir.path(), &group("0.10", &["one"]), &plan).unwrap();
    let expected = "[[entries]]\n  name = \"n\"\n  [entries.metadata]\n\n[[entries]]\n  name = \"n\"\n  [entries.metadata]\n    x = 1\n";
    assert_eq!(std::fs::read_to_string(dir.path().join("app/plan")).unwrap(), expected);
}

#[test]
fn later_buildpacks_see_build_layers_and_what_is_unmet() {
    let _alone = PROGRAMS.lock();
    let dir = tempfile::tempdir().unwrap();
    let one = "mkdir -p $L/x/bin $L/x/env $L/none; printf v > $L/x/env/VAR; printf '[types]\\nbuild = true\\n' > $L/x.toml\n\
               touch $L/none.toml; printf '{}' > $L/x.sbom.spdx.json; printf '[[unmet]]\\nname = \"n\"\\n' > $L/build.toml";
    let two = "cat $CNB_BP_PLAN_PATH > plan; echo \"$VAR|$SECRET\" > env; echo \"$PATH\" > path";
    program(dir.path(), "one", "0.10", one);
    program(dir.path(), "two", "0.10", two);
    run(dir.path(), &group("0.10", &["one", "two"]), PLAN).unwrap();
    let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap();
    assert_eq!(read("app/plan"), "[[entries]]\n  name = \"n\"\n");
    assert_eq!(read("app/env"), "v|\n");
    assert!(read("app/path").starts_with(&format!("{}/layers/one/x/bin:", dir.path().display())));
    assert_eq!(read("layers/sbom/build/one/x/sbom.spdx.json"), "{}");
    assert!(dir.path().join("layers/one/none.ignore").is_dir());
}

/// Recorded: a layer's files change what its folders and those of layers before it made, and nothing of layers after it.
#[test]
fn build_layers_change_the_environment_one_after_the_other() {
    let _alone = PROGRAMS.lock();
    let dir = tempfile::tempdir().unwrap();
    let one = "mkdir -p $L/a/bin $L/a/env $L/b/bin $L/b/env.build; printf /o > $L/a/env/PATH.override\n\
               printf /p: > $L/b/env.build/PATH.prepend; printf '[types]\nbuild = true\n' | tee $L/a.toml > $L/b.toml";
    program(dir.path(), "one", "0.10", one);
    program(dir.path(), "two", "0.10", "echo \"$PATH\" > path");
    run(dir.path(), &group("0.10", &["one", "two"]), PLAN).unwrap();
    let path = std::fs::read_to_string(dir.path().join("app/path")).unwrap();
    assert_eq!(path, format!("/p:{}/layers/one/b/bin:/o\n", dir.path().display()));
}

/// Recorded: what buildpacks write in the place of what it should be, and the reference takes.
#[test]
fn documents_may_be_loose() {
    let _alone = PROGRAMS.lock();
    let dir = tempfile::tempdir().unwrap();
    let script = "mkdir $L/launch $L/text; touch $L/file; printf '[[processes]]\ncommand = [\"a\"]\nexec-env = [\"test\"]\n' > $L/launch.toml\n\
                  printf 'metadata = \"text\"\n' > $L/text.toml; printf '' > $L/file.toml; printf 'metadata = 3\n' > $L/store.toml\n\
                  printf '{}' > $L/absent.sbom.foo.json; printf '{}' > $L/.hid.sbom.foo.json";
    program(dir.path(), "one", "0.10", script);
    let built = run_at(ApiVersion::new(0, 13), dir.path(), &group("0.10", &["one"]), PLAN).unwrap();
    let metadata = compose(&built, &group("0.10", &["one"])).unwrap();
    assert_eq!(metadata.processes[0].kind.as_str(), "");
    assert_eq!(metadata.processes[0].exec_env, ["test"], "whatever the buildpack's API");
    for aside in ["launch.ignore", "text.ignore", "file.ignore"] {
        assert!(dir.path().join("layers/one").join(aside).exists(), "{aside}");
    }
}

#[test]
fn failures_have_the_exit_codes_of_the_specification() {
    let _alone = PROGRAMS.lock();
    for (script, exit) in [
        ("exit 9", 51),
        ("echo 'launch = true' > $L/x.toml", 52),
        ("echo '[types' > $L/x.toml", 52),
        ("printf '{}' > $L/launch.sbom.cdx.json", 52),
        ("printf '[[unmet]]\\nname = \"other\"\\n' > $L/build.toml", 52),
        // Every file of this kind is read as a layer's, too.
        ("echo 'bad [' > $L/store.toml", 52),
        ("echo 'types = []' > $L/x.toml", 52),
        // A variable whose file leads nowhere.
        ("mkdir -p $L/x/env; ln -s /none $L/x/env/A; printf '[types]\\nbuild = true\\n' > $L/x.toml", 52),
    ] {
        let dir = tempfile::tempdir().unwrap();
        program(dir.path(), "one", "0.10", script);
        let error = run(dir.path(), &group("0.10", &["one"]), PLAN).unwrap_err();
        assert_eq!(error.exit_code(), exit, "{script}: {error}");
    }
}

#[test]
fn processes_are_composed_by_the_rules_of_their_api() {
    let compose_one = |api: &str, launch: &str| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("one")).unwrap();
        std::fs::write(dir.path().join("one/launch.toml"), launch).unwrap();
        let group = group(api, &["one"]);
        let built = read_launch(std::fs::File::open(dir.path()).unwrap().as_fd(), &group).unwrap();
        compose(&built, &group).map(|metadata| coracle_cnb::write_toml(&metadata).unwrap())
    };
    let new = "[[processes]]\ntype = \"web\"\ncommand = [\"a\", \"b\"]\ndefault = true\n";
    let old = "[[processes]]\ntype = \"web\"\ncommand = \"a && b\"\n";
    let head = "[[buildpacks]]\n  id = \"one\"\n  version = \"1\"\n";
    assert_eq!(
        compose_one("0.9", new).unwrap(),
        format!(
            "buildpack-default-process-type = \"web\"\n\n{head}  api = \"0.9\"\n\n[[processes]]\n  type = \"web\"\n  command = [\"a\", \"b\"]\n  direct = true\n  buildpack-id = \"one\"\n"
        )
    );
    assert_eq!(
        compose_one("0.8", old).unwrap(),
        format!(
            "{head}  api = \"0.8\"\n\n[[processes]]\n  type = \"web\"\n  command = [\"a \\u0026\\u0026 b\"]\n  direct = false\n  buildpack-id = \"one\"\n"
        )
    );
    assert!(compose_one("0.9", old).is_err());
    assert!(compose_one("0.8", new).is_err());
    assert!(compose_one("0.9", &format!("{new}direct = true\n")).is_err());
}

#[test]
fn what_becomes_of_processes_otherwise_than_their_authors_wrote_is_remarked() {
    let dir = tempfile::tempdir().unwrap();
    let web = "[[processes]]\ntype = \"web\"\ncommand = \"a\"\n";
    let remarked = |documents: &[&str]| {
        let ids = &["one", "two", "three"][..documents.len()];
        for (id, text) in ids.iter().zip(documents) {
            std::fs::create_dir_all(dir.path().join(id)).unwrap();
            std::fs::write(dir.path().join(id).join("launch.toml"), text).unwrap();
        }
        let group = group("0.7", ids);
        remarks(&read_launch(std::fs::File::open(dir.path()).unwrap().as_fd(), &group).unwrap())
    };
    let default = format!("{web}default = true\n");
    let redefined = "redefines the default process type `web` as one that is no default: the image has none until another buildpack names one";
    assert_eq!(remarked(&[&default, web]), [format!("buildpack `two@1` {redefined}")]);
    assert_eq!(remarked(&[&default, web, web]), [format!("buildpack `two@1` {redefined}")]);
    assert_eq!(remarked(&[web, &default, &default]), Vec::<String>::new());
    assert_eq!(
        remarked(&[&format!("{web}working-dir = \"/d\"\n")]),
        [
            "buildpack `one@1`: the working directory `/d` of process `web` counts for nothing before Buildpack API 0.8"
        ]
    );
    assert_eq!(
        remarked(&["[[bom]]\nname = \"x\"\n"]),
        [
            "buildpack `one@1`: [[bom]] in launch.toml is deprecated: bills of materials are files, such as launch.sbom.cdx.json"
        ]
    );
}

#[test]
fn older_platform_apis_get_bills_and_commands_in_their_form() {
    let _programs = PROGRAMS.lock();
    let dir = tempfile::tempdir().unwrap();
    let (launch, build) =
        ("[[bom]]\nname = \"l\"\n[bom.metadata]\nversion = \"1\"\n", "[[bom]]\nname = \"b\"\n");
    let processes = "[[processes]]\ntype = \"web\"\ncommand = [\"serve\", \"all\"]\nargs = [\"now\"]\n";
    let script = format!(
        "cat > $L/launch.toml <<'END'\n{launch}{processes}END\ncat > $L/build.toml <<'END'\n{build}END\nprintf '{{}}' > $L/launch.sbom.spdx.json"
    );
    program(dir.path(), "one", "0.10", &script);
    let list = "command = [\"serve\", \"all\"]\n  args = [\"now\"]";
    let text = "command = \"serve\"\n  args = [\"all\", \"now\"]";
    for (minor, in_metadata, files, legacy, command) in [
        (7, true, false, false, text),
        (8, true, true, false, text),
        (9, false, true, true, text),
        (10, false, true, true, list),
    ] {
        let api = ApiVersion::new(0, minor);
        let built = run_at(api, dir.path(), &group("0.10", &["one"]), "").unwrap();
        let mut metadata = compose(&built, &Group::default()).unwrap();
        in_form_of(api, &built, &mut metadata);
        let metadata = coracle_cnb::write_toml(&metadata).unwrap();
        let bom = "[[bom]]\n  name = \"l\"\n  [bom.metadata]\n    version = \"1\"\n  [bom.buildpack]\n    id = \"one\"\n    version = \"1\"\n";
        assert_eq!(metadata.contains(bom), in_metadata, "{api}: {metadata}");
        assert!(metadata.contains(command), "{api}: {metadata}");
        let sbom = dir.path().join("layers/sbom");
        assert_eq!(sbom.join("launch/one/sbom.spdx.json").exists(), files, "{api}");
        assert_eq!(sbom.join("launch/sbom.legacy.json").exists(), legacy, "{api}");
    }
    let legacy = |kind: &str| {
        std::fs::read_to_string(dir.path().join(format!("layers/sbom/{kind}/sbom.legacy.json"))).unwrap()
    };
    let whose = r#""buildpack":{"id":"one","version":"1"}"#;
    assert_eq!(
        legacy("launch"),
        format!("[{{\"name\":\"l\",\"metadata\":{{\"version\":\"1\"}},{whose}}}]\n")
    );
    assert_eq!(legacy("build"), format!("[{{\"name\":\"b\",\"metadata\":null,{whose}}}]\n"));

    program(
        dir.path(),
        "one",
        "0.10",
        "printf '[[bom]]\\nname = \"l\"\\nversion = \"1\"\\n' > $L/launch.toml",
    );
    let error = run(dir.path(), &group("0.10", &["one"]), "").unwrap_err();
    assert_eq!(error.exit_code(), 52);
    assert_eq!(
        error.to_string(),
        "buildpack `one@1`: entry `l` of [[bom]] has a version of its own: it belongs into the entry's metadata"
    );
}

#[test]
fn extensions_are_recorded_and_not_run() {
    let _alone = PROGRAMS.lock();
    let dir = tempfile::tempdir().unwrap();
    program(dir.path(), "one", "0.10", "true");
    let mut group = group("0.10", &["one"]);
    let id = "an/ext".parse().unwrap();
    let api = Some(ApiVersion::new(0, 10));
    group.group_extensions =
        vec![GroupElement { id, version: "2".into(), api, homepage: Some("h".into()), optional: true }];
    let api = ApiVersion::new(0, 13);
    let metadata = compose(&run_at(api, dir.path(), &group, "").unwrap(), &group).unwrap();
    assert_eq!(
        coracle_cnb::write_toml(&metadata).unwrap(),
        "processes = []\n\n[[buildpacks]]\n  id = \"one\"\n  version = \"1\"\n  api = \"0.10\"\n\n[[extensions]]\n  id = \"an/ext\"\n  version = \"2\"\n  api = \"0.10\"\n  homepage = \"h\"\n"
    );
}
