//! The stage's own root folder: a tmpfs in which only what a build needs is bound.
//!
//! Runtimes look the root filesystem's path up with an id that is foreign to the user's home, so below a home of
//! mode 0700 every one of them fails. In a root of our own each folder on the way is 0755, and nothing of the host
//! that is not listed here can be named at all. See mount_namespaces(7), pivot_root(2).

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, fstatvfs};
use serde::{Deserialize, Serialize};

use crate::sandbox::Access;

/// This program, in the stage's root.
pub const PROGRAM: &str = "/coracle";

/// What of the host a stage can see, besides devices and name resolution.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StageSetup {
    /// Host folders and files, without a symbolic link on the way, and the absolute paths they get in the stage's root.
    pub binds: Vec<Bind>,
    /// Whether the host's programs and libraries are bound read-only, for a runtime that is a program of the host.
    pub host_programs: bool,
    /// Variables of workers, besides a path.
    pub worker_env: Vec<(String, String)>,
}

/// A host path in the stage's root.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bind {
    /// An existing host path. No link is followed: who checked it has checked what is mounted.
    pub source: PathBuf,
    /// An absolute path in the stage's root.
    pub target: PathBuf,
    /// Whether the build may write there.
    pub access: Access,
}

/// A step of building the stage's root failed.
#[derive(Debug, thiserror::Error)]
#[error("could not {act} {path}")]
pub(crate) struct RootError {
    act: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn failed<E: Into<io::Error>>(act: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(E) -> RootError {
    let path = path.into();
    move |error| RootError { act, path, source: error.into() }
}

/// Where the new root is put together; hidden by it and unreachable afterwards.
const NEW_ROOT: &str = "/tmp";

/// Build the root and move into it. To be called once, by the stage, as id 0 of its own namespaces.
pub(crate) fn enter(setup: &StageSetup) -> Result<(), RootError> {
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .map_err(failed("make private the mounts below", "/"))?;
    let mut binds: Vec<Bind> = Vec::new();
    binds.extend(["null", "zero", "full", "random", "urandom", "tty"].map(|device| {
        let path = Path::new("/dev").join(device);
        Bind { source: path.clone(), target: path, access: Access::ReadWrite }
    }));
    let readable = |path: &&&str| Path::new(path).exists();
    let resolution =
        ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl/certs/ca-certificates.crt"];
    // The caller may have something else for one of them.
    let given = |path: &&&str| setup.binds.iter().any(|bind| bind.target == Path::new(path));
    binds.extend(resolution.iter().filter(readable).filter(|path| !given(path)).map(|path| read_only(path)));
    if setup.host_programs {
        binds.extend(["/usr", "/etc/ld.so.cache"].iter().filter(readable).map(|path| read_only(path)));
    }
    // Every source is opened before the new root hides a part of the host.
    let given = setup.binds.iter().map(|bind| Ok((open_checked(&bind.source)?, bind)));
    let of_host = binds.iter().map(|bind| Ok((open_path(&bind.source)?, bind)));
    let opened: Vec<(OwnedFd, &Bind)> = given.chain(of_host).collect::<Result<_, RootError>>()?;
    // By its path in this mount namespace: what `/proc/self/exe` stands for lies in the namespace it was started in,
    // and cannot be bound from there.
    let path = fs::read_link("/proc/self/exe").map_err(failed("read", "/proc/self/exe"))?;
    let program = open_path(&path)?;
    let libraries = if setup.host_programs { host_links() } else { Vec::new() };

    mount(Some("tmpfs"), NEW_ROOT, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=0755,size=1g"))
        .map_err(failed("mount a tmpfs on", NEW_ROOT))?;
    for folder in ["proc", "sys/fs/cgroup", "dev", "etc", "run/phase", "run/coracle", "tmp"] {
        let path = Path::new(NEW_ROOT).join(folder);
        fs::create_dir_all(&path).map_err(failed("create", path))?;
    }
    for (link, target) in libraries {
        symlink(&target, Path::new(NEW_ROOT).join(&link)).map_err(failed("link", link))?;
    }
    for (source, bind) in &opened {
        bind_fd(source, bind)?;
    }
    place_program(&program)?;
    mount_kernel_views()?;

    let root = open_path(Path::new(NEW_ROOT))?;
    nix::unistd::fchdir(&root).map_err(failed("enter", NEW_ROOT))?;
    nix::unistd::pivot_root(".", ".").map_err(failed("pivot into", NEW_ROOT))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(failed("detach the host's root below", "/"))?;
    nix::unistd::chdir("/").map_err(failed("enter", "/"))
}

fn read_only(path: &str) -> Bind {
    Bind { source: path.into(), target: path.into(), access: Access::ReadOnly }
}

fn open_path(path: &Path) -> Result<OwnedFd, RootError> {
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(failed("open", path))
}

/// Opens what was checked by its name: programs of another build may write there, and put a link in its place meanwhile.
fn open_checked(path: &Path) -> Result<OwnedFd, RootError> {
    let how =
        OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(AT_FDCWD, path, how).map_err(|errno| match errno {
        Errno::ELOOP => failed("open", path)(io::Error::other(
            "it is or lies below a symbolic link, which it did not when it was checked; see who else writes there, and try again",
        )),
        errno => failed("open", path)(errno),
    })
}

/// `/bin -> usr/bin` and its kind, as the host has them.
fn host_links() -> Vec<(String, PathBuf)> {
    let link = |name: &str| Some((name.to_owned(), fs::read_link(Path::new("/").join(name)).ok()?));
    ["bin", "sbin", "lib", "lib64"].into_iter().filter_map(link).collect()
}

fn bind_fd(source: &OwnedFd, bind: &Bind) -> Result<(), RootError> {
    let target = Path::new(NEW_ROOT).join(bind.target.strip_prefix("/").unwrap_or(&bind.target));
    let through = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
    let kind = fs::metadata(&through).map_err(failed("look at", &bind.source))?.file_type();
    let is_dir = kind.is_dir();
    let parent = target.parent().unwrap_or(Path::new(NEW_ROOT));
    fs::create_dir_all(if is_dir { &target } else { parent }).map_err(failed("create", &target))?;
    if !is_dir {
        File::create(&target).map_err(failed("create", &target))?;
    }
    let nothing = None::<&str>;
    mount(Some(&through), &target, nothing, MsFlags::MS_BIND | MsFlags::MS_REC, nothing)
        .map_err(failed("bind", &bind.source))?;
    // Runtimes are told so too, but not each one listens (crun 1.8 does not where a guest may write). What is closed here
    // no guest can open again, and what it binds has it from here.
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | locked_flags(&target)?;
    if !kind.is_char_device() {
        flags |= MsFlags::MS_NODEV;
    }
    if bind.access == Access::ReadOnly {
        flags |= MsFlags::MS_RDONLY;
    }
    mount(nothing, &target, nothing, flags, nothing).map_err(failed("restrict", &bind.source))
}

/// A mount's flags that a user namespace may not clear, so a remount has to repeat them (mount_namespaces(7)).
fn locked_flags(path: &Path) -> Result<MsFlags, RootError> {
    let flags = fstatvfs(open_path(path)?.as_fd()).map_err(failed("look at", path))?.flags();
    let pairs = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    Ok(pairs.into_iter().filter(|(has, _)| flags.contains(*has)).map(|(_, keep)| keep).collect())
}

/// This program at [`PROGRAM`]: bound, or copied where others may not execute it (a umask of 077), because to a
/// guest every file of the user belongs to somebody else.
fn place_program(program: &OwnedFd) -> Result<(), RootError> {
    let through = PathBuf::from(format!("/proc/self/fd/{}", program.as_raw_fd()));
    let target = Path::new(NEW_ROOT).join(PROGRAM.trim_start_matches('/'));
    let mode = fs::metadata(&through).map_err(failed("look at", PROGRAM))?.permissions().mode();
    if mode & 0o005 == 0o005 {
        let bind = Bind { source: PROGRAM.into(), target: PROGRAM.into(), access: Access::ReadOnly };
        return bind_fd(program, &bind);
    }
    fs::copy("/proc/self/exe", &target).map_err(failed("copy this program to", PROGRAM))?;
    fs::set_permissions(&target, Permissions::from_mode(0o755)).map_err(failed("make executable", PROGRAM))
}

/// `/proc` of the stage's own PID namespace, and cgroup2 at `/sys/fs/cgroup` whatever the host has there. A host
/// without cgroup2 goes on: crun can do without, and libcontainer then names the path in its error.
fn mount_kernel_views() -> Result<(), RootError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let proc = Path::new(NEW_ROOT).join("proc");
    mount(Some("proc"), &proc, Some("proc"), flags, None::<&str>)
        .map_err(failed("mount a new procfs on", &proc))?;
    let cgroup = Path::new(NEW_ROOT).join("sys/fs/cgroup");
    match mount(Some("cgroup2"), &cgroup, Some("cgroup2"), flags, None::<&str>) {
        Ok(()) | Err(Errno::ENODEV | Errno::EBUSY | Errno::EPERM) => Ok(()),
        Err(errno) => Err(failed("mount cgroup2 on", cgroup)(errno)),
    }
}
