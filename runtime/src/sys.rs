//! The only `unsafe` code of the project: system calls that the libraries do not wrap, one function each.

#![allow(unsafe_code, reason = "this is the module that exists to hold it")]

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::libc;
use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::{ForkResult, Pid};
use zeroize::{Zeroize, Zeroizing};

/// The descriptor on which a sandbox's process 1 reports: 3, the first that runtimes preserve.
pub(crate) const STATUS_FD: RawFd = 3;

/// fork(2). Only for processes with one thread.
///
/// # Errors
/// The errno of the call, or `EBUSY` where the process has more than one thread.
pub(crate) fn fork() -> io::Result<ForkResult> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: the process has one thread (just counted, and only this thread could start another), so the child
    // inherits no lock that some other thread held.
    unsafe { nix::unistd::fork() }.map_err(io::Error::from)
}

/// Take a variable out of the environment: programs that are started later do not have it, and what the kernel shows of
/// this process's environment (proc_pid_environ(5)) no longer says its value. Only for processes with one thread.
///
/// # Errors
/// `EBUSY` where the process has more than one thread, or why they cannot be counted.
pub fn take_variable(name: &CStr) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let known = OsStr::from_bytes(name.to_bytes());
    let Some(taken) = std::env::var_os(known) else { return Ok(None) };
    let taken = Zeroizing::new(taken.into_vec());
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: the name ends with a zero byte, and there is one thread (just counted, and only this thread could start
    // another), so that nobody changes the environment meanwhile. Where it is not null, getenv(3) points to a string that
    // ends with a zero byte, in memory that this process may write: the kernel put it on its stack (execve(2)), or a
    // library of this process made it. The borrow ends with the block.
    unsafe {
        let place = libc::getenv(name.as_ptr());
        if !place.is_null() {
            std::slice::from_raw_parts_mut(place.cast::<u8>(), libc::strlen(place)).zeroize();
        }
        std::env::remove_var(known);
    }
    Ok(Some(taken))
}

/// Set a variable of this process: the kernel goes on showing the environment that the process was started with
/// (proc_pid_environ(5)). Only for processes with one thread.
///
/// # Errors
/// `EINVAL` for what cannot be a variable, `EBUSY` where the process has more than one thread, or why they cannot be counted.
pub fn set_variable(name: &str, value: &str) -> io::Result<()> {
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: there is one thread (just counted, and only this thread could start another), so that nobody reads or changes the
    // environment meanwhile.
    unsafe { std::env::set_var(name, value) };
    Ok(())
}

/// Take ownership of descriptors that recvmsg(2) has just installed in this process.
pub(crate) fn adopt(fds: &[RawFd]) -> Vec<OwnedFd> {
    // SAFETY: the kernel made these descriptors for this call and nothing else knows their numbers.
    fds.iter().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }).collect()
}

/// Keep descriptors that this process inherited, from 3 on, from the programs it starts: close_range(2).
///
/// # Errors
/// The errno of the call: `ENOSYS` or `EINVAL` before Linux 5.11.
pub fn keep_inherited_descriptors() -> io::Result<()> {
    let flag = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
    // SAFETY: plain close_range(2), which with this flag closes nothing here.
    nix::errno::Errno::result(unsafe {
        libc::close_range(STATUS_FD as libc::c_uint, libc::c_uint::MAX, flag)
    })?;
    Ok(())
}

/// Close descriptors that this process inherited, from 3 on: close_range(2). To be called before this process opens anything.
///
/// # Errors
/// The errno of the call: `ENOSYS` before Linux 5.9.
pub fn close_inherited_descriptors() -> io::Result<()> {
    // SAFETY: nothing in this process owns what it has not opened.
    nix::errno::Errno::result(unsafe { libc::close_range(STATUS_FD as libc::c_uint, libc::c_uint::MAX, 0) })?;
    Ok(())
}

/// Keep the number [`STATUS_FD`] free for [`place_status`]. To be called before this process opens anything.
///
/// # Errors
/// The errno of open(2), or `EBUSY` where something is open at that number already.
pub(crate) fn reserve_status() -> io::Result<()> {
    let placeholder = OwnedFd::from(File::open("/dev/null")?);
    if placeholder.as_raw_fd() != STATUS_FD {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // Owned from here on by whoever calls `place_status`.
    let _ = placeholder.into_raw_fd();
    Ok(())
}

/// Move `fd` to the reserved [`STATUS_FD`], without close-on-exec, so that a runtime hands it on. Once per process,
/// after [`reserve_status`].
///
/// # Errors
/// The errno of dup2(2).
pub(crate) fn place_status(fd: OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: plain dup2(2) onto a number that `reserve_status` has set aside, so that no owned descriptor is there.
    nix::errno::Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), STATUS_FD) })?;
    // SAFETY: dup2 succeeded, so STATUS_FD is open and, by the line above, nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(STATUS_FD) })
}

/// Take the status descriptor that the runtime handed to process 1, and keep it from the programs it starts.
///
/// # Errors
/// `EBADF` where the runtime handed none.
pub(crate) fn take_status() -> io::Result<OwnedFd> {
    // SAFETY: plain fcntl(2); fails with EBADF where the descriptor is not open.
    nix::errno::Errno::result(unsafe { libc::fcntl(STATUS_FD, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and process 1 calls this once, before it opens anything.
    Ok(unsafe { OwnedFd::from_raw_fd(STATUS_FD) })
}

/// Join a new, empty session keyring: keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`.
///
/// # Errors
/// The errno of the call: `EDQUOT` where the user has too many keyrings, `ENOSYS` or `EPERM` where there are none.
pub(crate) fn join_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    let name: *const libc::c_char = std::ptr::null();
    // SAFETY: a null name asks for an anonymous keyring; no memory of ours is read.
    nix::errno::Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) })?;
    Ok(())
}

/// Give up all capabilities of this thread, and with them those that programs would inherit: capset(2).
///
/// # Errors
/// The errno of the call.
pub fn drop_capabilities() -> io::Result<()> {
    // _LINUX_CAPABILITY_VERSION_3, which has two parts of each of three sets; process 0 is the caller.
    let (header, none) = ([0x2008_0522_u32, 0], [[0_u32; 3]; 2]);
    // SAFETY: both arrays are as large as this version says, and live for the call.
    nix::errno::Errno::result(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) })?;
    Ok(())
}

/// Whether no process has the file open to write to it, nor mapped so: fcntl(2), `F_SETLEASE`. `file` is open to be read alone.
/// `false` too where nobody can tell: the file is another user's, or its file system has no leases.
pub fn has_no_writer(file: &File) -> bool {
    const F_SETSIG: libc::c_int = 10;
    let set = |what, value: libc::c_int| {
        // SAFETY: plain fcntl(2) on a descriptor that is borrowed for the call; no memory of ours is read.
        unsafe { libc::fcntl(file.as_raw_fd(), what, value) != -1 }
    };
    // Whoever opens the file while we have the lease waits, and we are told: by a signal that does nothing.
    set(F_SETSIG, libc::SIGURG)
        && set(libc::F_SETLEASE, libc::F_RDLCK)
        && set(libc::F_SETLEASE, libc::F_UNLCK)
}

/// execve(2) with the environment as it is; returns only on failure. Rust's runtime ignores SIGPIPE, which programs would
/// inherit: they get it as the kernel gives it.
pub(crate) fn exec(path: &CString, argv: &[CString]) -> io::Error {
    // SAFETY: no handler of ours is set that could run anything.
    let restored = unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    if let Err(errno) = restored {
        return errno.into();
    }
    match nix::unistd::execv(path, argv) {
        Ok(never) => match never {},
        Err(errno) => errno.into(),
    }
}

/// End this process at once, running no destructor.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no precondition.
    unsafe { libc::_exit(code) }
}

/// kill(2) of every process of this PID namespace but the caller.
pub(crate) fn kill_all() {
    let _ = nix::sys::signal::kill(Pid::from_raw(-1), Signal::SIGKILL);
}
