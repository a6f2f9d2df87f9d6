//! Execution of `bin/detect` programs.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use coracle_cnb::{ApiVersion, BuildpackId, BuildpackToml, RunImageTarget};

use super::Catalog;
use crate::env::{self, Env};
use crate::file;

/// Where the programs and what they read lie.
#[derive(Debug)]
pub struct DetectProgramsInput<'input> {
    pub catalog: &'input Catalog,
    pub buildpacks_dir: &'input Path,
    pub app_dir: &'input Path,
    pub platform_dir: &'input Path,
    pub build_config_dir: &'input Path,
    /// A folder for the programs' plan files; it must exist.
    pub scratch_dir: &'input Path,
    pub target: Option<&'input RunImageTarget>,
    /// Since Platform API 0.15: what the image is for.
    pub exec_env: Option<&'input str>,
    /// The environment of the phase, of which the programs get a part.
    pub outer_env: &'input Env,
}

/// What one `bin/detect` did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DetectRun {
    pub id: BuildpackId,
    pub version: String,
    /// 0 passed, 100 failed; everything else, and -1 for a program that could not be run, is an error.
    pub exit: i32,
    /// The plan as the program wrote it.
    pub plan_toml: String,
    /// What it printed, or why it could not be run.
    pub output: String,
}

/// Runs every `bin/detect` of the catalog, as many at once as there are processors.
pub fn run_programs(input: &DetectProgramsInput<'_>) -> Vec<DetectRun> {
    let components: Vec<_> = input.catalog.components().collect();
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(components.len());
    let (next, runs) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((id, version, toml)) = components.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let scratch = input.scratch_dir.join(id.dir()).join(version);
                    let run = run_one(input, id, version, toml, &scratch);
                    runs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(run);
                }
            });
        }
    });
    let mut runs = runs.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    runs.sort_by(|one: &DetectRun, other| (&one.id, &one.version).cmp(&(&other.id, &other.version)));
    runs
}

fn run_one(
    input: &DetectProgramsInput<'_>,
    id: &BuildpackId,
    version: &str,
    toml: &BuildpackToml,
    scratch: &Path,
) -> DetectRun {
    let (exit, plan_toml, output) = match execute(input, id, version, toml, scratch) {
        Ok(ran) => ran,
        Err(reason) => (-1, String::new(), reason),
    };
    DetectRun { id: id.clone(), version: version.to_owned(), exit, plan_toml, output }
}

fn execute(
    input: &DetectProgramsInput<'_>,
    id: &BuildpackId,
    version: &str,
    toml: &BuildpackToml,
    scratch: &Path,
) -> Result<(i32, String, String), String> {
    let dir: PathBuf = input.buildpacks_dir.join(id.dir()).join(version);
    let plan = scratch.join("plan.toml");
    file::write(&plan, b"").map_err(|error| describe(&error))?;
    let mut env = env::build_env(input.outer_env);
    if !toml.buildpack.clear_env {
        env::add_platform_env(&mut env, input.platform_dir).map_err(|error| describe(&error))?;
    }
    env::add_operator_env(&mut env, input.build_config_dir).map_err(|error| describe(&error))?;
    env.insert("CNB_BUILDPACK_DIR".into(), dir.clone().into());
    if toml.api >= ApiVersion::new(0, 8) {
        env.insert("CNB_PLATFORM_DIR".into(), input.platform_dir.into());
        env.insert("CNB_BUILD_PLAN_PATH".into(), plan.clone().into());
    }
    if toml.api >= ApiVersion::new(0, 10) {
        add_target(&mut env, input.target);
    }
    env::add_exec_env(&mut env, toml.api, input.exec_env);
    let program = dir.join("bin/detect");
    let output = Command::new(&program)
        .arg(input.platform_dir)
        .arg(&plan)
        .current_dir(input.app_dir)
        .env_clear()
        .envs(&env)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("run `{}`: {error}", program.display()))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    let exit = match output.status.code() {
        Some(code) => code,
        None => output.status.signal().map_or(-1, |signal| 128 + signal),
    };
    let plan_toml = file::read_text(&plan).map_err(|error| describe(&error))?.unwrap_or_default();
    Ok((exit, plan_toml, text))
}

/// `CNB_TARGET_*`, for buildpacks of API 0.10 and later.
pub(crate) fn add_target(env: &mut Env, target: Option<&RunImageTarget>) {
    let Some(target) = target else { return };
    env.insert("CNB_TARGET_OS".into(), (&target.os).into());
    env.insert("CNB_TARGET_ARCH".into(), (&target.arch).into());
    if !target.arch_variant.is_empty() {
        env.insert("CNB_TARGET_ARCH_VARIANT".into(), (&target.arch_variant).into());
    }
    if let Some(distro) = &target.distro {
        env.insert("CNB_TARGET_DISTRO_NAME".into(), (&distro.name).into());
        env.insert("CNB_TARGET_DISTRO_VERSION".into(), (&distro.version).into());
    }
}

fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
