//! Execution of `bin/detect` programs.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use coracle_cnb::{BuildpackId, BuildpackToml};

use super::Catalog;
use crate::env;
use crate::file;
use crate::surroundings::Surroundings;
use crate::with_causes;

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
pub fn run_programs(catalog: &Catalog, around: &Surroundings<'_>) -> Vec<DetectRun> {
    let components: Vec<_> = catalog.components().collect();
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(components.len());
    let (next, runs) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((id, version, toml)) = components.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let scratch = around.scratch_dir.join(id.dir()).join(version);
                    let run = run_one(around, id, version, toml, &scratch);
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
    around: &Surroundings<'_>,
    id: &BuildpackId,
    version: &str,
    toml: &BuildpackToml,
    scratch: &Path,
) -> DetectRun {
    let (exit, plan_toml, output) = match execute(around, id, version, toml, scratch) {
        Ok(ran) => ran,
        Err(reason) => (-1, String::new(), reason),
    };
    DetectRun { id: id.clone(), version: version.to_owned(), exit, plan_toml, output }
}

fn execute(
    around: &Surroundings<'_>,
    id: &BuildpackId,
    version: &str,
    toml: &BuildpackToml,
    scratch: &Path,
) -> Result<(i32, String, String), String> {
    let dir: PathBuf = around.buildpacks_dir.join(id.dir()).join(version);
    let plan = scratch.join("plan.toml");
    file::write(&plan, b"").map_err(|error| with_causes(&error))?;
    let program = dir.join("bin/detect");
    let inherited = env::build_env(around.outer_env);
    let output = around
        .command(&program, (&dir, toml), inherited, &[("CNB_BUILD_PLAN_PATH", &plan)])
        .map_err(|error| with_causes(&error))?
        .arg(&around.platform_dir)
        .arg(&plan)
        .output()
        .map_err(|error| format!("run `{}`: {error}", program.display()))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    let exit = match output.status.code() {
        Some(code) => code,
        None => output.status.signal().map_or(-1, |signal| 128 + signal),
    };
    let plan_toml = file::read_text(&plan).map_err(|error| with_causes(&error))?.unwrap_or_default();
    Ok((exit, plan_toml, text))
}
