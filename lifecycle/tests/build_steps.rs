//! One buildpack of the group at a time, each in a process of its own; here the folders are not read-only, so that what is
//! written into earlier ones is undone (docs/decisions/0013-layers-of-earlier-buildpacks.md, "strict").

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod programs;

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::Path;

use coracle_lifecycle::build::{BuildError, build_step, is_open};
use programs::{Options, PROGRAMS, group, program, with_input};

const PLAN: &str = "[[entries]]\n[[entries.providers]]\nid = \"one\"\n[[entries.providers]]\nid = \"two\"\n[[entries.requires]]\nname = \"n\"\n[[entries]]\n[[entries.providers]]\nid = \"one\"\n[[entries.providers]]\nid = \"two\"\n[[entries.requires]]\nname = \"m\"\n";

fn step(dir: &Path, number: usize) -> Result<Vec<String>, BuildError> {
    let group = group("0.10", &["one", "two"]);
    with_input(dir, &group, PLAN, &Options::default(), |input| build_step(input, number))
        .map(|((), notes)| notes)
}

const ONE: &str = "mkdir -p $L/x/env; printf v >$L/x/env/VAR; printf '[types]\\nbuild = true\\nlaunch = true\\n' >$L/x.toml
mkdir $L/none; touch $L/none.toml; printf '{}' >$L/x.sbom.spdx.json; printf '[[unmet]]\\nname = \"n\"\\n' >$L/build.toml
mkdir -p $L/../sbom/stale; touch $L/../sbom/stale/bill";

#[test]
fn a_step_knows_what_those_before_it_left_and_the_last_collects_bills() {
    let _alone = PROGRAMS.lock();
    let dir = tempfile::tempdir().unwrap();
    let two = "cat $CNB_BP_PLAN_PATH >plan; echo \"$VAR\" >env; echo changed >$L/../one/x.sbom.spdx.json; echo x >$L/../one/x/env/VAR";
    program(dir.path(), "one", "0.10", ONE);
    program(dir.path(), "two", "0.10", two);
    fs::create_dir_all(dir.path().join("layers/sbom/earlier/build")).unwrap();
    assert_eq!(step(dir.path(), 0).unwrap(), Vec::<String>::new());
    assert!(!dir.path().join("layers/sbom/earlier").exists());
    let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
    assert!(dir.path().join("layers/one/none.ignore").is_dir());
    assert!(dir.path().join("layers/sbom/stale/bill").exists());

    let notes = step(dir.path(), 1).unwrap();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert_eq!([read("app/plan"), read("app/env")], ["[[entries]]\n  name = \"n\"\n", "v\n"]);
    assert_eq!([read("layers/one/x/env/VAR"), read("layers/sbom/launch/one/x/sbom.spdx.json")], ["v", "{}"]);
    assert!(!dir.path().join("layers/sbom/stale").exists());
    assert!(!dir.path().join("layers/config").exists(), "nothing is composed");
}

#[test]
fn a_step_that_the_group_does_not_have_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(step(dir.path(), 2).unwrap_err().to_string(), "the group has no buildpack number 2");
}

#[test]
fn a_folder_is_open_where_a_layer_in_it_is_shared() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("one")).unwrap();
    let toml = dir.path().join("one/x.toml");
    let open = |shared: &[&str]| {
        let shared: Vec<_> = shared.iter().map(|text| text.parse().unwrap()).collect();
        let element = &group("0.10", &["one"]).group[0];
        is_open(File::open(dir.path()).unwrap().as_fd(), element, &shared)
    };
    fs::write(&toml, "[types]\nbuild = true\n").unwrap();
    assert!(!open(&[]).unwrap() && !open(&["two", "two:x"]).unwrap());
    assert!(open(&["one"]).unwrap() && open(&["one:x"]).unwrap());
    fs::write(&toml, "[coracle]\nshared = true\n").unwrap();
    assert!(open(&[]).unwrap());
    fs::rename(&toml, dir.path().join("one/store.toml")).unwrap();
    assert!(!open(&[]).unwrap());
    std::os::unix::fs::symlink("store.toml", &toml).unwrap();
    assert!(open(&[]).is_err());
}
