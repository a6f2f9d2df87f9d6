//! A sandbox as an OCI runtime specification document. Pure: what a container can see and do is decided here, and a
//! snapshot test shows it. See the OCI Runtime Specification, config.md and config-linux.md.

use std::path::Path;

use serde_json::{Value, json};

use crate::ids::GUEST_IDS;
use crate::sandbox::{Access, Mount, Runtime, SandboxSpec};

/// Where process 1 and its request are in every guest.
pub(crate) const INIT_PROGRAM: &str = "/.coracle/init";
pub(crate) const INIT_REQUEST: &str = "/.coracle/request.json";

/// Files of /proc and /sys that tell of the host, hidden in the guest.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/config.gz",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/pressure",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmcore",
];

/// Parts of /proc that the guest may read but not write.
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The `config.json` of `spec`, whose root folder is `rootfs` and whose extra mounts (ephemeral files, process 1)
/// are `own`.
pub(crate) fn runtime_config(spec: &SandboxSpec, rootfs: &Path, own: &[Mount]) -> Value {
    let id_mapping = json!([{ "containerID": 0, "hostID": 1, "size": GUEST_IDS }]);
    let none: [&str; 0] = [];
    let namespaces =
        ["user", "mount", "pid", "ipc", "uts", "cgroup"].map(|kind| json!({ "type": kind })).to_vec();
    let mut linux = json!({
        "namespaces": namespaces,
        "uidMappings": id_mapping,
        "gidMappings": id_mapping,
        "maskedPaths": MASKED,
        "readonlyPaths": READ_ONLY,
        "rootfsPropagation": "private",
    });
    // libcontainer takes its plain cgroup manager only for an absolute path; crun and runc tolerate that nothing is
    // delegated only where there is no path. The one thing that differs between the runtimes' bundles.
    if spec.runtime == Runtime::Youki {
        linux["cgroupsPath"] = json!(format!("/{}", spec.id));
    }
    let mut mounts = base_mounts();
    mounts.extend(spec.mounts.iter().map(bind));
    mounts.extend(own.iter().map(|mount| if is_program(mount) { bind(mount) } else { bind_document(mount) }));
    let read_only = matches!(spec.rootfs, crate::sandbox::Rootfs::Empty);
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": rootfs, "readonly": read_only },
        "hostname": "coracle",
        "process": {
            "terminal": false,
            "user": { "uid": spec.uid, "gid": spec.gid, "umask": 0o022 },
            "args": [INIT_PROGRAM],
            "env": environment(spec),
            "cwd": spec.cwd,
            "capabilities": {
                "bounding": none, "effective": none, "inheritable": none, "permitted": none, "ambient": none
            },
            "noNewPrivileges": true,
        },
        "mounts": mounts,
        "linux": linux,
    })
}

/// `NAME=value` strings. Runtimes insist on a `PATH`; without one in the request, the guest gets an empty one.
fn environment(spec: &SandboxSpec) -> Vec<String> {
    let mut env: Vec<String> = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if !spec.env.iter().any(|(name, _)| name == "PATH") {
        env.push("PATH=".to_owned());
    }
    env
}

/// The pseudo file systems of every guest. The host's network is shared, so sysfs cannot be mounted: an empty /sys.
fn base_mounts() -> Vec<Value> {
    let mount = |target: &str, kind: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": kind, "options": options });
    vec![
        mount("/proc", "proc", &["nosuid", "nodev", "noexec"]),
        mount("/dev", "tmpfs", &["nosuid", "noexec", "mode=755", "size=64k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        mount("/dev/shm", "tmpfs", &["nosuid", "nodev", "noexec", "mode=1777", "size=64m"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "nodev", "noexec"]),
        mount("/sys", "tmpfs", &["nosuid", "nodev", "noexec", "ro", "mode=555", "size=0"]),
    ]
}

fn bind(mount: &Mount) -> Value {
    let access = match mount.access {
        Access::ReadOnly => "ro",
        Access::ReadWrite => "rw",
    };
    json!({
        "destination": mount.target,
        "type": "bind",
        "source": mount.source,
        "options": ["bind", "nosuid", "nodev", "private", access],
    })
}

fn is_program(mount: &Mount) -> bool {
    mount.target == Path::new(INIT_PROGRAM)
}

/// What is read and not run.
fn bind_document(mount: &Mount) -> Value {
    let mut value = bind(mount);
    if let Some(options) = value["options"].as_array_mut() {
        options.push(json!("noexec"));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Rootfs;

    fn example(runtime: Runtime) -> SandboxSpec {
        SandboxSpec {
            id: "detect-1".to_owned(),
            runtime,
            rootfs: Rootfs::Overlay { lower: vec!["/store/layers/a".into()], scratch: "/work/detect".into() },
            argv: vec!["detector".to_owned()],
            env: vec![("PATH".to_owned(), "/usr/bin".to_owned())],
            cwd: "/workspace".into(),
            uid: 1001,
            gid: 1002,
            mounts: vec![
                Mount { source: "/work/app".into(), target: "/workspace".into(), access: Access::ReadWrite },
                Mount { source: "/work/order".into(), target: "/control".into(), access: Access::ReadOnly },
            ],
            files: Vec::new(),
            bounds: crate::sandbox::Bounds::default(),
            input: None,
        }
    }

    #[test]
    fn what_a_container_can_see_and_do() {
        let config = runtime_config(&example(Runtime::Youki), Path::new("/run/phase/rootfs"), &[]);
        insta::assert_snapshot!(serde_json::to_string_pretty(&config).unwrap());
    }

    #[test]
    fn only_the_cgroups_path_differs_between_runtimes() {
        let of = |runtime| runtime_config(&example(runtime), Path::new("/r"), &[]);
        let mut youki = of(Runtime::Youki);
        assert_eq!(youki["linux"]["cgroupsPath"], "/detect-1");
        youki["linux"].as_object_mut().unwrap().remove("cgroupsPath");
        assert_eq!(youki, of(Runtime::Crun));
        assert_eq!(youki, of(Runtime::Runc));
    }

    #[test]
    fn a_root_without_content_is_read_only() {
        let mut spec = example(Runtime::Runc);
        spec.rootfs = Rootfs::Empty;
        assert_eq!(runtime_config(&spec, Path::new("/r"), &[])["root"]["readonly"], true);
    }

    #[test]
    fn what_is_read_is_not_run() {
        let own = [INIT_PROGRAM, INIT_REQUEST, "/run/secrets/token"].map(|target| Mount {
            source: "/run/phase/x".into(),
            target: target.into(),
            access: Access::ReadOnly,
        });
        let config = runtime_config(&example(Runtime::Youki), Path::new("/run/phase/rootfs"), &own);
        let mounts = config["mounts"].as_array().unwrap();
        let runs = |mount: &Value| !mount["options"].as_array().unwrap().contains(&json!("noexec"));
        let found: Vec<_> = mounts[mounts.len() - 3..].iter().map(runs).collect();
        assert_eq!(found, [true, false, false]);
    }
}
