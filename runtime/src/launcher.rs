//! The launcher: one process with one thread for each container. It mounts the guest's root folder in a mount
//! namespace of its own, writes the files that exist for this container alone on a tmpfs there, writes the bundle,
//! and has it run. Everything it made goes with its namespace.

mod points;

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use serde::{Deserialize, Serialize};

use self::points::{ensure_mount_point, ensure_tmp};
use crate::ids::{IdMap, UnmappedId};
use crate::memory::sealed_memory;
use crate::sandbox::{Access, Bounds, InitRequest, Input, LaunchReport, Mount, Network, Rootfs, SandboxSpec};
use crate::way_out::{self, WayOut, WayOutError};
use crate::{launch, network, protocol, root, spec, sys};

/// What the conductor sends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LaunchRequest {
    pub(crate) ids: IdMap,
    pub(crate) spec: SandboxSpec,
}

/// A step of preparing the container failed.
#[derive(Debug, thiserror::Error)]
enum PrepareError {
    #[error("could not {act} {path}")]
    Step { act: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{path} of the image is a symbolic link or a file where a folder must be; refused, because a runtime would follow it out of the image"
    )]
    Redirected { path: PathBuf },
    #[error(
        "{path} cannot be {what} of a container: it must be absolute, without `..`, and outside /proc, /dev, /sys{}", if *what == "a mount point" { " and every other mount" } else { "" }
    )]
    Target { path: PathBuf, what: &'static str },
    #[error(transparent)]
    Unmapped(#[from] UnmappedId),
    #[error(transparent)]
    WayOut(#[from] WayOutError),
}

fn failed<E: Into<io::Error>>(act: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(E) -> PrepareError {
    let path = path.into();
    move |error| PrepareError::Step { act, path, source: error.into() }
}

/// The launcher's own tmpfs.
const PHASE: &str = "/run/phase";

/// Run as a launcher: read a request, run it, answer.
pub(crate) fn run() -> i32 {
    let Ok(socket) = sys::reserve_status().and_then(|()| protocol::job_socket()) else { return 125 };
    let report: LaunchReport = match protocol::receive_sized::<LaunchRequest>(&socket) {
        Ok(Some(request)) => {
            prepare(&request).map_err(|error| protocol::with_causes(&error)).and_then(|(bundle, _way_out)| {
                let spec = &request.spec;
                let input = input(spec.input.as_ref())
                    .map_err(|error| format!("could not make the standard input: {error}"))?;
                launch::run(spec.runtime, &spec.id, &bundle, input, &socket)
            })
        }
        Ok(None) => return 0,
        Err(error) => Err(format!("could not read the request: {error}")),
    };
    i32::from(protocol::send_last(&socket, &protocol::Reply::Answer(report)).is_err())
}

fn input(input: Option<&Input>) -> io::Result<fs::File> {
    input.map_or_else(|| fs::File::open("/dev/null"), |input| sealed_memory(&input.name, &input.content))
}

/// Everything up to the bundle, whose path is returned, with what connects its network.
fn prepare(request: &LaunchRequest) -> Result<(PathBuf, Option<WayOut>), PrepareError> {
    let LaunchRequest { ids, spec } = request;
    // Before anything else: an id that is not mapped is not the guest's to have (and -1 would mean "no change").
    let (uid, gid) = (ids.outer(u64::from(spec.uid))?, ids.outer(u64::from(spec.gid))?);
    check_targets(spec)?;
    give_outputs(uid, gid);
    let nothing = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("unshare the mount namespace of", "the launcher"))?;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .map_err(failed("make private the mounts below", "/"))?;
    let way_out = match spec.bounds.network {
        Network::Host => None,
        Network::None => network::leave().map(|_| None).map_err(failed("make a network for", &spec.id))?,
        Network::Isolated => Some(way_out::leave(&spec.id)?),
    };
    tmpfs(PHASE, "mode=0755,size=16m")?;
    let phase = Path::new(PHASE);
    let rootfs = phase.join("rootfs");
    let bundle = phase.join("bundle");
    for folder in [&rootfs, &bundle, &phase.join("files"), &phase.join("layers")] {
        fs::create_dir(folder).map_err(failed("create", folder))?;
    }
    mount_rootfs(&spec.rootfs, &rootfs, ids)?;
    let mut own = vec![own_mount(root::PROGRAM.into(), spec::INIT_PROGRAM)];
    let init_request = phase.join("request.json");
    let input = spec.input.as_ref().map(|input| input.name.clone());
    let request = InitRequest { argv: spec.argv.clone(), bounds: bounds(spec), input };
    write_json(&init_request, &request)?;
    own.push(own_mount(init_request, spec::INIT_REQUEST));
    own.extend(write_files(spec, ids)?);
    if way_out.is_some() {
        own.extend(way_out::write_resolver(phase)?.map(|file| own_mount(file, way_out::RESOLVER)));
    }
    let root_fd = open_folder(&rootfs)?;
    ensure_mount_point(&root_fd, &spec.cwd, true, ids)?;
    for standard in ["/proc", "/dev", "/sys"] {
        ensure_mount_point(&root_fd, Path::new(standard), true, ids)?;
    }
    if spec.rootfs != Rootfs::Empty {
        ensure_tmp(&root_fd, ids)?;
    }
    for mount in spec.mounts.iter().chain(&own) {
        let is_dir = fs::metadata(&mount.source).map_err(failed("look at", &mount.source))?.is_dir();
        ensure_mount_point(&root_fd, &mount.target, is_dir, ids)?;
    }
    write_json(&bundle.join("config.json"), &spec::runtime_config(spec, &rootfs, &own))?;
    Ok((bundle, way_out))
}

/// The guest may write to what is mounted for that.
fn bounds(spec: &SandboxSpec) -> Bounds {
    let mut bounds = spec.bounds.clone();
    if let Some(folders) = &mut bounds.writes_below {
        let writable = spec.mounts.iter().filter(|mount| mount.access == Access::ReadWrite);
        folders.extend(writable.map(|mount| mount.target.clone()));
    }
    bounds
}

/// Refuse mount points that a runtime would resolve through content: below another mount a link of the guest's making
/// could send the mount elsewhere, and nothing of ours looks in there.
fn check_targets(spec: &SandboxSpec) -> Result<(), PrepareError> {
    let is_plain = |path: &Path| {
        path.is_absolute()
            && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
    };
    // What a runtime finds there is not the image's: in `/proc/self/fd` perhaps what it has open itself.
    let of_the_kernel = |path: &Path| ["/proc", "/dev", "/sys"].iter().any(|own| path.starts_with(own));
    if !is_plain(&spec.cwd) || of_the_kernel(&spec.cwd) {
        return Err(PrepareError::Target { path: spec.cwd.clone(), what: "the working folder" });
    }
    let mut taken: Vec<&Path> = ["/proc", "/dev", "/sys", "/.coracle"].map(Path::new).to_vec();
    let targets =
        spec.mounts.iter().map(|mount| &mount.target).chain(spec.files.iter().map(|file| &file.target));
    for target in targets {
        if !is_plain(target) || taken.iter().any(|other| target.starts_with(other)) {
            return Err(PrepareError::Target { path: target.clone(), what: "a mount point" });
        }
        taken.push(target);
    }
    Ok(())
}

/// Make the output pipes the guest's, so that it can open `/dev/stdout`. A file of the caller's stays the caller's.
fn give_outputs(uid: u32, gid: u32) {
    for output in [io::stdout().as_fd(), io::stderr().as_fd()] {
        let _ = nix::unistd::fchown(output, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    }
}

fn own_mount(source: PathBuf, target: impl Into<PathBuf>) -> Mount {
    Mount { source, target: target.into(), access: Access::ReadOnly }
}

fn tmpfs(path: &str, options: &str) -> Result<(), PrepareError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options)).map_err(failed("mount a tmpfs on", path))
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), PrepareError> {
    // At once: the serializer writes a few bytes at a time, and a bundle has four thousand such pieces.
    let bytes = serde_json::to_vec(value).map_err(failed("write", path))?;
    fs::write(path, bytes).map_err(failed("write", path))
}

/// Mount the overlay, or make an empty folder. The layers' paths are short links in the current folder, because
/// mount(2) takes one page of options and an image may have 150 layers.
fn mount_rootfs(kind: &Rootfs, rootfs: &Path, ids: &IdMap) -> Result<(), PrepareError> {
    let root_owner = ids.outer(0)?;
    let owned =
        |path: &Path| chown(path, Some(root_owner), Some(root_owner)).map_err(failed("give away", path));
    let Rootfs::Overlay { lower, scratch } = kind else { return owned(rootfs) };
    let links = Path::new(PHASE).join("layers");
    let mut names = Vec::with_capacity(lower.len());
    for (number, layer) in lower.iter().enumerate() {
        symlink(layer, links.join(number.to_string())).map_err(failed("link", layer))?;
        names.push(number.to_string());
    }
    names.reverse();
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    // What an overlay mounted "volatile" leaves here says that it must not be mounted again, because files that were not yet
    // written may be missing after a crash. Nothing here outlives one (kernel documentation, overlayfs, "Volatile mount").
    match fs::remove_dir_all(&work) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("empty", &work)(error)),
        _ => {}
    }
    for folder in [&upper, &work] {
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
    }
    owned(&upper)?;
    for (name, target) in [("upper", &upper), ("work", &work)] {
        symlink(target, links.join(name)).map_err(failed("link", target))?;
    }
    nix::unistd::chdir(&links).map_err(failed("enter", &links))?;
    // "volatile": unmounting does not wait until all that is unwritten on the upper folder's disk is written. Nothing of
    // that folder outlives the operation, so there is nothing to sync (kernel documentation, overlayfs, "Volatile mount").
    let options = format!("lowerdir={},upperdir=upper,workdir=work,userxattr,volatile", names.join(":"));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("overlay"), rootfs, Some("overlay"), flags, Some(options.as_str()))
        .map_err(failed("mount an overlay of the image's layers on", rootfs))?;
    nix::unistd::chdir("/").map_err(failed("enter", "/"))
}

/// The files that exist for this container alone: on a tmpfs, owned by the guest's user, readable by nobody else.
fn write_files(spec: &SandboxSpec, ids: &IdMap) -> Result<Vec<Mount>, PrepareError> {
    if spec.files.is_empty() {
        return Ok(Vec::new());
    }
    let folder = Path::new(PHASE).join("files");
    tmpfs(&folder.to_string_lossy(), "mode=0755,size=8m")?;
    let (uid, gid) = (ids.outer(u64::from(spec.uid))?, ids.outer(u64::from(spec.gid))?);
    let mut mounts = Vec::new();
    for (number, file) in spec.files.iter().enumerate() {
        let path = folder.join(number.to_string());
        let mut handle = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(&path)
            .map_err(failed("create", &path))?;
        io::Write::write_all(&mut handle, &file.content).map_err(failed("write", &path))?;
        chown(&path, Some(uid), Some(gid)).map_err(failed("give away", &path))?;
        mounts.push(own_mount(path, &file.target));
    }
    Ok(mounts)
}

fn open_folder(path: &Path) -> Result<OwnedFd, PrepareError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).map_err(failed("open", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> IdMap {
        let range = crate::ids::SubordinateRange { start: 100_000, count: crate::ids::GUEST_IDS };
        IdMap { uids: range, gids: range }
    }

    /// Giving files away works for root only, so the folders exist beforehand.
    fn root_with(make: impl FnOnce(&Path)) -> (tempfile::TempDir, OwnedFd) {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path());
        let fd = open_folder(folder.path()).unwrap();
        (folder, fd)
    }

    #[test]
    fn a_linked_dev_is_refused_by_name() {
        let (_folder, root) = root_with(|path| symlink("/etc", path.join("dev")).unwrap());
        let error = ensure_mount_point(&root, Path::new("/dev"), true, &ids()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "dev of the image is a symbolic link or a file where a folder must be; refused, because a runtime would follow it out of the image"
        );
    }

    #[test]
    fn a_link_on_the_way_is_refused_even_when_the_end_is_missing() {
        let (folder, root) = root_with(|path| symlink("..", path.join("cnb")).unwrap());
        let error = ensure_mount_point(&root, Path::new("/cnb/lifecycle"), true, &ids()).unwrap_err();
        assert!(error.to_string().starts_with("cnb of the image"), "{error}");
        assert!(!folder.path().parent().unwrap().join("lifecycle").exists());
    }

    #[test]
    fn a_target_that_content_could_redirect_is_refused() {
        let refuses = |targets: &[&str], cwd: &str| {
            let mount = |target: &&str| own_mount("/work/x".into(), *target);
            let spec = SandboxSpec {
                id: "t".to_owned(),
                runtime: crate::sandbox::Runtime::Youki,
                rootfs: Rootfs::Empty,
                argv: Vec::new(),
                env: Vec::new(),
                cwd: cwd.into(),
                uid: 0,
                gid: 0,
                mounts: targets.iter().map(mount).collect(),
                files: Vec::new(),
                bounds: Bounds::default(),
                input: None,
            };
            check_targets(&spec).is_err()
        };
        assert!(!refuses(&["/workspace", "/layers", "/etc/hosts"], "/workspace"));
        for targets in
            [&["/workspace", "/workspace/in"][..], &["/a/../b"], &["a"], &["/proc/x"], &["/x", "/x"]]
        {
            assert!(refuses(targets, "/"), "{targets:?}");
        }
        for folder in ["relative", "/a/../b", "/proc/self/fd/7", "/dev", "/sys/x"] {
            assert!(refuses(&[], folder), "{folder}");
        }
        assert!(!refuses(&[], "/processes"));
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let file =
            crate::sandbox::EphemeralFile { target: "/auth".into(), content: b"hunter2".to_vec().into() };
        assert!(!format!("{file:?}").contains("hunter2") && !format!("{file:?}").contains("104"));
    }
}
