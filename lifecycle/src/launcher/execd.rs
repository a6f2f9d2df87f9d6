//! `exec.d` programs: each writes variables to file descriptor 3 (Buildpack API, "exec.d").

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::LaunchError;
use crate::env::Env;
use crate::file;

const OUTPUT: i32 = 3;

/// Runs the programs of every layer, each with the variables of those before it.
pub(super) fn run_all(
    layers: &[Vec<PathBuf>],
    kind: Option<&OsStr>,
    app_dir: &Path,
    env: &mut Env,
) -> Result<(), LaunchError> {
    for layer in layers.iter().flatten() {
        let folder = layer.join("exec.d");
        for folder in std::iter::once(folder.clone()).chain(kind.map(|kind| folder.join(kind))) {
            for entry in file::entries(&folder)?.into_iter().filter(|entry| !entry.is_dir) {
                run_one(&entry.path, app_dir, env)?;
            }
        }
    }
    Ok(())
}

fn run_one(program: &Path, app_dir: &Path, env: &mut Env) -> Result<(), LaunchError> {
    let failed = |source| LaunchError::ExecD { path: program.to_owned(), source };
    let (mut child, mut output) = start(program, app_dir, env).map_err(failed)?;
    let mut text = String::new();
    output.read_to_string(&mut text).map_err(failed)?;
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Err(LaunchError::ExecDFailed { path: program.to_owned(), status });
    }
    let variables: BTreeMap<String, String> = toml::from_str(&text)
        .map_err(|source| LaunchError::ExecDOutput { path: program.to_owned(), source: Box::new(source) })?;
    env.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
    Ok(())
}

/// Starts a program with the write end of a pipe as descriptor 3. The launcher has one thread and keeps no file open here,
/// so it can take the number for itself; what it inherited under that number does not reach the process.
fn start(program: &Path, app_dir: &Path, env: &Env) -> io::Result<(Child, File)> {
    let _ = nix::unistd::close(OUTPUT);
    let mut slot: OwnedFd = OwnedFd::from(File::open("/dev/null")?).try_clone()?;
    if slot.as_raw_fd() != OUTPUT {
        slot = slot.try_clone()?;
    }
    if slot.as_raw_fd() != OUTPUT {
        return Err(io::Error::other("file descriptor 3 is in use"));
    }
    // Closed at exec: the child must not hold the pipe under other numbers than 3.
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    nix::unistd::dup2(&write, &mut slot)?;
    let child = Command::new(program).current_dir(app_dir).env_clear().envs(env).spawn()?;
    Ok((child, File::from(read)))
}
