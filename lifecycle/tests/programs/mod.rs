//! Buildpacks of one program each, and builds with them.

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Mutex;

use coracle_cnb::{ApiVersion, Group, GroupElement, LaunchToml, Plan};
use coracle_lifecycle::build::{BuildError, BuildInput, BuildLayers, Note, SharedLayer, build};
use coracle_lifecycle::env::Env;
use coracle_lifecycle::surroundings::Surroundings;

/// A program being written while another test forks could not be started ("text file busy"), and a build ends what other tests
/// of the same process start.
pub(crate) static PROGRAMS: Mutex<()> = Mutex::new(());

pub(crate) fn program(dir: &Path, id: &str, api: &str, script: &str) {
    let dir = dir.join("buildpacks").join(id).join("1");
    std::fs::create_dir_all(dir.join("bin")).unwrap();
    let toml = format!(
        "api = \"{api}\"\n[buildpack]\nid = \"{id}\"\nversion = \"1\"\nsbom-formats = [\"application/spdx+json\"]\n"
    );
    std::fs::write(dir.join("buildpack.toml"), toml).unwrap();
    std::fs::write(dir.join("bin/build"), format!("#!/bin/sh\nset -e\nL=\"$CNB_LAYERS_DIR\"\n{script}\n"))
        .unwrap();
    std::fs::set_permissions(dir.join("bin/build"), std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// How a build is run.
pub(crate) struct Options {
    pub(crate) platform_api: ApiVersion,
    pub(crate) build_layers: BuildLayers,
    pub(crate) shared: Vec<SharedLayer>,
}

impl Default for Options {
    fn default() -> Self {
        Self { platform_api: ApiVersion::new(0, 13), build_layers: BuildLayers::Snapshot, shared: Vec::new() }
    }
}

type Built = Vec<(GroupElement, LaunchToml)>;

/// Runs a build; gives what it gives, and what was noted.
#[allow(dead_code, reason = "not every binary of tests runs whole builds")]
pub(crate) fn run(
    dir: &Path,
    group: &Group,
    plan: &str,
    options: &Options,
) -> Result<(Built, Vec<String>), BuildError> {
    with_input(dir, group, plan, options, build)
}

/// Runs a part of a build.
pub(crate) fn with_input<T>(
    dir: &Path,
    group: &Group,
    plan: &str,
    options: &Options,
    run: impl FnOnce(&BuildInput<'_>) -> Result<T, BuildError>,
) -> Result<(T, Vec<String>), BuildError> {
    for folder in ["app", "layers", "platform", "scratch"] {
        std::fs::create_dir_all(dir.join(folder)).unwrap();
    }
    let plan: Plan = toml::from_str(plan).unwrap();
    let env: Env = [("PATH".into(), std::env::var_os("PATH").unwrap()), ("SECRET".into(), "s".into())].into();
    let around = Surroundings {
        buildpacks_dir: dir.join("buildpacks"),
        extensions_dir: dir.join("extensions"),
        app_dir: dir.join("app"),
        platform_dir: dir.join("platform"),
        build_config_dir: dir.join("build-config"),
        scratch_dir: dir.join("scratch"),
        target: None,
        exec_env: None,
        outer_env: &env,
    };
    let notes = RefCell::new(Vec::new());
    let built = run(&BuildInput {
        group,
        plan: &plan,
        layers_dir: &dir.join("layers"),
        around: &around,
        platform_api: options.platform_api,
        build_layers: options.build_layers,
        shared: &options.shared,
        note: &|note| {
            // No two runs take as long.
            if !matches!(note, Note::Took { .. }) {
                notes.borrow_mut().push(note.to_string());
            }
        },
    })?;
    Ok((built, notes.into_inner()))
}

pub(crate) fn group(api: &str, ids: &[&str]) -> Group {
    let text: String = ids
        .iter()
        .map(|id| format!("[[group]]\nid = \"{id}\"\nversion = \"1\"\napi = \"{api}\"\n"))
        .collect();
    toml::from_str(&text).unwrap()
}
