//! `exec.d` programs: each writes variables to file descriptor 3 (Buildpack API, "exec.d").

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::LaunchError;
use crate::env::Env;
use crate::file::{self, MAX_DOCUMENT};

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
    let (status, bytes) = watch(&mut child, &mut output).map_err(failed)?;
    if !status.success() {
        return Err(LaunchError::ExecDFailed { path: program.to_owned(), status });
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    let variables: BTreeMap<String, String> = toml::from_str(&text)
        .map_err(|source| LaunchError::ExecDOutput { path: program.to_owned(), source: Box::new(source) })?;
    env.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
    Ok(())
}

/// Reads until the program has ended and nothing is left in the pipe. That need not be its end: a process that the program
/// left behind may keep it open.
fn watch(child: &mut Child, output: &mut File) -> io::Result<(ExitStatus, Vec<u8>)> {
    fcntl(&*output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        // Asked before the pipe is read: what an ended program wrote is in it.
        let status = child.try_wait()?;
        loop {
            match output.read(&mut buffer) {
                Ok(0) => return Ok((child.wait()?, bytes)),
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if bytes.len() as u64 > MAX_DOCUMENT {
                let _ = child.kill().and_then(|()| child.wait().map(drop));
                return Err(io::Error::other(format!("it wrote more than {MAX_DOCUMENT} bytes")));
            }
        }
        if let Some(status) = status {
            return Ok((status, bytes));
        }
        let mut pipe = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        match poll(&mut pipe, PollTimeout::from(20u8)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
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
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    nix::unistd::dup2(&write, &mut slot)?;
    let child =
        Command::new(program).current_dir(app_dir).env_clear().envs(env).stdin(Stdio::null()).spawn()?;
    Ok((child, File::from(read)))
}
