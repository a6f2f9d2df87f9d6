//! Execution of `bin/detect` programs.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coracle_cnb::BuildpackToml;
use serde::{Deserialize, Serialize};

use super::catalog::module_dir;
use super::{Catalog, Module};
use crate::env;
use crate::file;
use crate::surroundings::Surroundings;
use crate::with_causes;

/// What is kept of what one program prints, in bytes.
const MAX_OUTPUT: u64 = 64 * 1024;

/// What one `bin/detect` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectRun {
    #[serde(flatten)]
    pub module: Module,
    /// 0 passed, 100 failed; everything else, and -1 for a program that could not be run, is an error.
    pub exit: i32,
    /// The plan as the program wrote it.
    pub plan_toml: String,
    /// The start of what it printed, or why it could not be run.
    pub output: String,
}

/// Whoever knows what programs said.
pub trait Reports {
    /// What the programs of these modules said, in any order.
    fn of(&mut self, wanted: &[&Module]) -> Vec<DetectRun>;
}

/// What programs said elsewhere.
impl Reports for &[DetectRun] {
    fn of(&mut self, wanted: &[&Module]) -> Vec<DetectRun> {
        self.iter().filter(|run| wanted.contains(&&run.module)).cloned().collect()
    }
}

/// Hears how long each program took, from any thread.
pub type Watch<'a> = &'a (dyn Fn(&Module, Duration) + Sync);

/// Programs, each run when it is asked for.
pub struct Programs<'a> {
    catalog: &'a Catalog,
    around: &'a Surroundings<'a>,
    watch: Watch<'a>,
    /// What those that ran said.
    pub runs: Vec<DetectRun>,
}

impl std::fmt::Debug for Programs<'_> {
    /// Without whoever listens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Programs").field("runs", &self.runs).finish_non_exhaustive()
    }
}

impl<'a> Programs<'a> {
    /// The programs of a catalog.
    pub fn new(catalog: &'a Catalog, around: &'a Surroundings<'a>, watch: Watch<'a>) -> Self {
        Self { catalog, around, watch, runs: Vec::new() }
    }
}

impl Reports for Programs<'_> {
    /// Runs as many at once as there are processors.
    fn of(&mut self, wanted: &[&Module]) -> Vec<DetectRun> {
        let wanted: Vec<(&Module, &BuildpackToml)> =
            wanted.iter().filter_map(|module| Some((*module, self.catalog.get(module)?))).collect();
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(wanted.len());
        let (next, runs) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let (around, watch) = (self.around, self.watch);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some((module, toml)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let began = Instant::now();
                        let run = run_one(around, module, toml);
                        watch(module, began.elapsed());
                        runs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(run);
                    }
                });
            }
        });
        let mut runs = runs.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        runs.sort_by(|one: &DetectRun, other| one.module.cmp(&other.module));
        self.runs.extend(runs.iter().cloned());
        runs
    }
}

fn run_one(around: &Surroundings<'_>, module: &Module, toml: &BuildpackToml) -> DetectRun {
    let (exit, plan_toml, output) = match execute(around, module, toml) {
        Ok(ran) => ran,
        Err(reason) => (-1, String::new(), reason),
    };
    DetectRun { module: module.clone(), exit, plan_toml, output }
}

fn execute(
    around: &Surroundings<'_>,
    module: &Module,
    toml: &BuildpackToml,
) -> Result<(i32, String, String), String> {
    let dir = module_dir(around.dir_of(module), module);
    let program = dir.join("bin/detect");
    if module.extension && !program.exists() {
        // It passes with the plan that it brings along, if any.
        let plan = file::read_text(&dir.join("detect/plan.toml")).map_err(|error| with_causes(&error))?;
        return Ok((0, plan.unwrap_or_default(), String::new()));
    }
    let scratch = around.scratch_dir.join(own_folder(module));
    let plan = scratch.join("plan.toml");
    file::write(&plan, b"").map_err(|error| with_causes(&error))?;
    let inherited = env::build_env(around.outer_env);
    let paths = [("CNB_BUILD_PLAN_PATH", plan.as_path())];
    let mut command = around
        .command(&program, (module, &dir, toml), inherited, &paths)
        .map_err(|error| with_causes(&error))?;
    command.arg(&around.platform_dir).arg(&plan);
    let (exit, output) =
        watch(command, &scratch).map_err(|error| format!("run `{}`: {error}", program.display()))?;
    let plan_toml = file::read_foreign_text(&plan).map_err(|error| with_causes(&error))?.unwrap_or_default();
    Ok((exit, plan_toml, output))
}

/// A folder that no other module has: `a/b` and `a_b` are two, and run at once.
fn own_folder(module: &Module) -> PathBuf {
    [module.kind(), &module.id.as_str().replace('/', "%2F"), &module.version].iter().collect()
}

/// Runs a program to its end: its exit code, and the start of what it printed. That goes to a file, not through a pipe that
/// a process left behind could keep open.
fn watch(mut command: Command, scratch: &Path) -> io::Result<(i32, String)> {
    let path = scratch.join("output");
    let mut file = File::options().read(true).append(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    let status = command.stdout(file.try_clone()?).stderr(file.try_clone()?).status()?;
    file.rewind()?;
    let mut output = Vec::new();
    file.take(MAX_OUTPUT).read_to_end(&mut output)?;
    let exit = match status.code() {
        Some(code) => code,
        None => status.signal().map_or(-1, |signal| 128 + signal),
    };
    Ok((exit, String::from_utf8_lossy(&output).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_run_at_once_share_no_folder() {
        let module =
            |id: &str, extension| Module { id: id.parse().unwrap(), version: "1".to_owned(), extension };
        let modules = [("a/b", false), ("a_b", false), ("a/b", true)].map(|(id, kind)| module(id, kind));
        let folders: std::collections::BTreeSet<_> = modules.iter().map(own_folder).collect();
        assert_eq!(folders.len(), 3, "{folders:?}");
    }
}
