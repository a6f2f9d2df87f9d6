//! Process 1 of every container: our own static program, the same under every runtime.
//!
//! It joins a new session keyring, enters a Landlock domain, starts the phase behind the system call filter, reaps
//! what the phase leaves behind, and reports the end on a descriptor that the phase never sees. When it exits, the
//! kernel ends everything else in its PID namespace (pid_namespaces(7)).

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};
use nix::unistd::ForkResult;

use crate::memory::sealed_memory;
use crate::reaper::Reaper;
use crate::sandbox::{InitReport, InitRequest, Outcome};
use crate::{domain, seccomp, spec, sys};

/// Run as process 1 until the phase has ended; the exit status is the phase's.
pub(crate) fn run() -> i32 {
    let Ok(status) = sys::take_status() else { return 125 };
    match supervise(&status) {
        Ok(outcome) => {
            report(&status, &InitReport::Ended(outcome));
            outcome.code()
        }
        Err(message) => {
            report(&status, &InitReport::Failed(message));
            125
        }
    }
}

fn report(status: &OwnedFd, report: &InitReport) {
    // The launcher says so when nothing arrives, so a failure to write is not lost. A line is shorter than a pipe's
    // atomic write, so one call is enough.
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _ = nix::unistd::write(status, &line);
    }
}

fn supervise(status: &OwnedFd) -> Result<Outcome, String> {
    let request = std::fs::read(spec::INIT_REQUEST)
        .map_err(|e| format!("could not read {}: {e}", spec::INIT_REQUEST))?;
    let request: InitRequest = serde_json::from_slice(&request)
        .map_err(|e| format!("could not parse {}: {e}", spec::INIT_REQUEST))?;
    harden(&request)?;
    let reaper = Reaper::new()?;
    let nothing = File::open("/dev/null").map_err(|e| format!("could not open /dev/null: {e}"))?;
    match sys::fork().map_err(|e| format!("could not start the phase's process: {e}"))? {
        ForkResult::Child => {
            let message = reaper.restore_signals().err().unwrap_or_else(|| become_phase(&request));
            report(status, &InitReport::Failed(message));
            sys::exit_now(125)
        }
        ForkResult::Parent { child } => {
            // What is on it is for the phase alone, and gone when that has closed it.
            nix::unistd::dup2_stdin(nothing)
                .map_err(|e| format!("could not close the standard input: {e}"))?;
            reaper.reap_until(child, request.bounds.seconds, status)
        }
    }
}

/// What holds for process 1 and all that it starts. Fails closed, except where the kernel lacks the feature.
fn harden(request: &InitRequest) -> Result<(), String> {
    if !nix::sys::prctl::get_no_new_privs().unwrap_or(false) {
        return Err("no_new_privs is not set; the runtime must set it".to_owned());
    }
    // Where memory runs out, the phase goes before anything of the user's (proc(5), oom_score_adj). While this process is
    // closed it cannot say so; where it may not say so at all, the kernel's own choice stands.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    // The phase has the same user id: without this it could look into /proc/1 (environment, descriptors, memory),
    // and only the pipe's owner would keep it from reporting an end of its own making (proc(5), ptrace(2) on access
    // modes). Executing the phase makes the phase dumpable again.
    nix::sys::prctl::set_dumpable(false).map_err(|e| format!("could not close /proc/1 to the phase: {e}"))?;
    match sys::join_session_keyring() {
        // No keyrings in this kernel, or closed off by an outer filter: then there is nothing to see in them.
        Ok(()) => {}
        Err(error) if matches!(error.raw_os_error(), Some(nix::libc::ENOSYS | nix::libc::EPERM)) => {}
        Err(error) => return Err(format!("could not join a new session keyring: {error}")),
    }
    limit_resources(request.bounds.file_size)?;
    domain::enter(request.bounds.writes_below.as_deref())
        .map_err(|e| format!("could not enter a Landlock domain: {e}"))
}

/// Processes and threads of one user id. A quarter of the smallest default of `kernel.pid_max`, so that a phase which
/// forks without end leaves the machine usable. Linux counts them for each id of each user namespace since 5.14
/// (user_namespaces(7)), so for each container; before, for each id of the machine, so for all containers of the
/// user, because they share the subordinate ids.
const PROCESSES: rlim_t = 8192;

/// Open files: the hard limit is what systemd gives, the soft one is far below, because programs that close every
/// descriptor they might have walk up to it, and take minutes where a container engine has set a billion.
const OPEN_FILES: (rlim_t, rlim_t) = (65_536, 524_288);

/// Bytes of kernel memory in POSIX message queues: there are none (mq_overview(7)).
const QUEUES: rlim_t = 0;

/// Memory that is not swapped, bytes: the kernel's own default (getrlimit(2)).
const LOCKED: rlim_t = 8 << 20;

/// Limits that the phase inherits. None is raised: the user's own hold in here too.
fn limit_resources(file_size: Option<u64>) -> Result<(), String> {
    // 1, not 0: for a core_pattern that is a pipe the kernel ignores 0 and starts the host's handler (core(5)).
    setrlimit(Resource::RLIMIT_CORE, 1, 1).map_err(|e| format!("could not switch core dumps off: {e}"))?;
    for (resource, what, bounds) in bounds_of_resources(file_size) {
        let failed = |e| format!("could not limit {what}: {e}");
        let (soft, hard) = at_most(getrlimit(resource).map_err(failed)?, bounds);
        setrlimit(resource, soft, hard).map_err(failed)?;
    }
    Ok(())
}

/// Soft and hard limits, by what they are of.
fn bounds_of_resources(file_size: Option<u64>) -> [(Resource, &'static str, (rlim_t, rlim_t)); 7] {
    let both = |limit| (limit, limit);
    [
        (Resource::RLIMIT_NPROC, "the number of processes", both(PROCESSES)),
        (Resource::RLIMIT_NOFILE, "the number of open files", OPEN_FILES),
        (Resource::RLIMIT_MSGQUEUE, "message queues", both(QUEUES)),
        (Resource::RLIMIT_MEMLOCK, "locked memory", both(LOCKED)),
        (Resource::RLIMIT_NICE, "priority", both(0)),
        (Resource::RLIMIT_RTPRIO, "real-time priority", both(0)),
        (Resource::RLIMIT_FSIZE, "the size of files", both(file_size.unwrap_or(RLIM_INFINITY))),
    ]
}

/// A soft and a hard limit, each at most as in `bounds`. "Unlimited" is the highest number.
fn at_most((soft, hard): (rlim_t, rlim_t), bounds: (rlim_t, rlim_t)) -> (rlim_t, rlim_t) {
    (soft.min(bounds.0), hard.min(bounds.1))
}

/// Load the filters and become the phase; returns only the reason why not.
fn become_phase(request: &InitRequest) -> String {
    let strings =
        |list: &[String]| list.iter().map(|s| CString::new(s.as_str())).collect::<Result<Vec<_>, _>>();
    let Some(program) = request.argv.first() else { return "no program to run".to_owned() };
    let Ok(argv) = strings(&request.argv) else {
        return format!("an argument of {program} holds a NUL byte");
    };
    let path = match find_program(program) {
        Ok(path) => path,
        Err(message) => return message,
    };
    if let Err(error) = request.input.as_deref().map_or(Ok(()), take_input) {
        return format!("could not hand on the standard input: {error}");
    }
    // Last: what comes after it is held by it.
    if let Err(error) = seccompiler::apply_filter(seccomp::program()) {
        return format!("could not load the system call filter: {error}");
    }
    let Ok(path_text) = CString::new(path.as_os_str().as_encoded_bytes()) else {
        return format!("the path of {program} holds a NUL byte");
    };
    let error = sys::exec(&path_text, &argv);
    let why = match error.raw_os_error() {
        Some(nix::libc::ENOENT) if path.exists() => {
            "it exists, so its interpreter (the first line of a script, or the program loader) is missing from the image"
                .to_owned()
        }
        _ => error.to_string(),
    };
    format!("could not execute {}: {why}", path.display())
}

/// Put what is on the standard input into sealed memory, whatever the runtime has made of that: some copy it into a pipe.
fn take_input(name: &CStr) -> io::Result<()> {
    let mut content = Vec::new();
    io::stdin().lock().read_to_end(&mut content)?;
    Ok(nix::unistd::dup2_stdin(sealed_memory(name, &content)?)?)
}

/// execvp(3)'s search: `PATH` for a name without a slash.
pub(crate) fn find_program(program: &str) -> Result<PathBuf, String> {
    if program.contains('/') {
        return Ok(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_file = |candidate: &PathBuf| Path::is_file(candidate);
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(is_file)
        .ok_or_else(|| format!("program {program} is in no folder of PATH ({})", path.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_lets_the_phase_gain_privileges_is_refused() {
        // Nothing but the first look happens in this process.
        if nix::sys::prctl::get_no_new_privs() == Ok(false) {
            let request = InitRequest { argv: Vec::new(), bounds: Default::default(), input: None };
            assert!(harden(&request).unwrap_err().contains("no_new_privs is not set"));
        }
    }

    #[test]
    fn what_is_limited_and_to_what() {
        // Most machines have no higher limits for some of these, so that what happens inside does not show them.
        let limits = bounds_of_resources(Some(64)).map(|(_, what, bounds)| format!("{what}: {bounds:?}"));
        insta::assert_snapshot!(limits.join("\n"));
    }

    #[test]
    fn limits_are_lowered_and_never_raised() {
        let unlimited = nix::libc::RLIM_INFINITY;
        assert_eq!(at_most((1024, 4096), OPEN_FILES), (1024, 4096));
        assert_eq!(at_most((1 << 30, 1 << 30), OPEN_FILES), OPEN_FILES);
        assert_eq!(at_most((1024, unlimited), OPEN_FILES), (1024, 524_288));
        assert_eq!(at_most((unlimited, unlimited), (PROCESSES, PROCESSES)), (8192, 8192));
        assert_eq!(at_most((100, 200), (PROCESSES, PROCESSES)), (100, 200));
    }
}
