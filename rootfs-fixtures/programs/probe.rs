//! Reports, as one JSON object on standard output, what the process it runs in is, sees and may do.
//!
//! `probe` reports; with `in=FOLDER` and `find=HEX` arguments, as many as wanted, it also looks for those bytes below
//! those folders. `probe attempt NAME` makes one attempt and prints nothing or an error, because an attempt that
//! succeeds changes the process. The report runs every attempt in a process of its own. `probe attacks` is another list,
//! see `attacks.rs`; `probe serve` listens, see `serve.rs`.
//!
//! An attempt is real: where it is allowed, it mounts and it renames the host. So none is made by a process with
//! capabilities in the first user namespace, which is the machine itself; the report says `"not in a sandbox"`.

mod attacks;
mod search;
mod serve;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{Gid, Pid, Uid, getgroups, getresgid, getresuid, setgroups, setuid};
use serde_json::{Map, Value, json};

use search::Search;

/// One thing that a build's programs must or must not be able to do.
type Attempt = fn() -> io::Result<()>;

const ATTEMPTS: &[(&str, Attempt)] = &[
    ("unshare-user", || enter(CloneFlags::CLONE_NEWUSER)),
    ("unshare-mount", || enter(CloneFlags::CLONE_NEWNS)),
    ("unshare-net", || enter(CloneFlags::CLONE_NEWNET)),
    ("mount-tmpfs", || Ok(mount(Some("none"), "/tmp", Some("tmpfs"), MsFlags::empty(), None::<&str>)?)),
    ("remount-root-rw", || {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
        Ok(mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?)
    }),
    ("mknod-null", || Ok(mknod("/tmp/probe-null", SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 3))?)),
    ("setuid-0", || Ok(setuid(Uid::from_raw(0))?)),
    ("setgroups-none", || Ok(setgroups(&[])?)),
    ("chown-root-tmp", || {
        File::create("/tmp/probe-owned")?;
        Ok(nix::unistd::chown("/tmp/probe-owned", Some(Uid::from_raw(0)), Some(Gid::from_raw(0)))?)
    }),
    ("raise-nofile", || {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard.saturating_add(1))?)
    }),
    ("chroot", || Ok(nix::unistd::chroot("/tmp")?)),
    ("sethostname", || Ok(nix::unistd::sethostname("probe")?)),
    ("socket-inet", || open_socket(AddressFamily::Inet, SockType::Stream)),
    ("socket-inet-raw", || open_socket(AddressFamily::Inet, SockType::Raw)),
    ("socket-netlink", || open_socket(AddressFamily::Netlink, SockType::Raw)),
    ("socket-packet", || open_socket(AddressFamily::Packet, SockType::Raw)),
    ("socket-alg", || open_socket(AddressFamily::Alg, SockType::SeqPacket)),
    ("socket-vsock", || open_socket(AddressFamily::Vsock, SockType::Stream)),
    ("connect-public", || connect("1.1.1.1:53")),
    ("write-root", || create("/probe-file")),
    ("write-tmp", || create("/tmp/probe-file")),
    ("write-usr", || create("/usr/probe-file")),
    ("write-layers", || create("/layers/probe-file")),
    ("write-workspace", || create("/workspace/probe-file")),
    ("write-platform", || create("/platform/probe-file")),
    ("write-cnb", || create("/cnb/probe-file")),
    ("write-core-pattern", || write_to("/proc/sys/kernel/core_pattern")),
    ("write-sysrq", || write_to("/proc/sysrq-trigger")),
    ("read-kcore", || read_from("/proc/kcore")),
    ("read-kmsg", || read_from("/dev/kmsg")),
    ("read-keys", || read_from("/proc/keys")),
    ("read-process-1-environment", || read_from("/proc/1/environ")),
    ("read-process-1-memory", || read_from("/proc/1/mem")),
    ("read-process-1-addresses", read_first_process),
    ("list-process-1-files", || fs::read_dir("/proc/1/fd")?.try_for_each(|entry| entry.map(drop))),
];

/// What container engines hide of /proc and /sys (Open Container Initiative Runtime Specification, `maskedPaths`).
const HIDDEN: &[&str] = &[
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
    "/proc/vmcore",
    "/sys/devices",
    "/sys/firmware",
    "/sys/fs/cgroup",
    "/sys/kernel",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["attempt", name] => attempt(name),
        ["attacks", given @ ..] => in_a_sandbox().and_then(|()| attacks::report(given)),
        ["hand-out", at] => attacks::hand_out(at),
        ["take", at] => attacks::take(at),
        ["attack", number, given @ ..] => in_a_sandbox().and_then(|()| attacks::one(number, given)),
        ["serve", word, addresses @ ..] => serve::serve(word, addresses),
        ["wait"] => io::stdin().read(&mut [0]).map(drop),
        searched => match search(searched) {
            Some(search) => writeln!(io::stdout(), "{}", report(&search)),
            None => Err(io::Error::other("usage: probe [attempt NAME | in=FOLDER... find=HEX...]")),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed: the status still says that it failed.
            let _ = write!(io::stderr(), "{}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

/// Looks for all `find=` below all `in=`; `None` for other arguments.
fn search(arguments: &[&str]) -> Option<Search> {
    let all = |name| -> Vec<&str> { arguments.iter().filter_map(|text| text.strip_prefix(name)).collect() };
    let (folders, wanted) = (all("in="), all("find="));
    if folders.len() + wanted.len() < arguments.len() {
        return None;
    }
    let mut search = Search::new(&wanted)?;
    folders.iter().for_each(|folder| search.folder(Path::new(folder)));
    Some(search)
}

fn report(search: &Search) -> Value {
    let uid = getresuid().ok().map(|ids| [ids.real, ids.effective, ids.saved].map(Uid::as_raw));
    let gid = getresgid().ok().map(|ids| [ids.real, ids.effective, ids.saved].map(Gid::as_raw));
    let groups: Option<Vec<u32>> = getgroups().ok().map(|list| list.into_iter().map(Gid::as_raw).collect());
    // The search has closed what it opened: what is open now, this process was given.
    let files = links("/proc/self/fd");
    json!({
        "files": files,
        "uid": uid,
        "gid": gid,
        "groups": groups,
        "pid": std::process::id(),
        "folder": std::env::current_dir().ok(),
        "hostname": nix::unistd::gethostname().ok().map(|name| name.to_string_lossy().into_owned()),
        "arguments": std::env::args().collect::<Vec<_>>(),
        "env": environment(),
        "status": status(),
        "uid_map": lines("/proc/self/uid_map"),
        "gid_map": lines("/proc/self/gid_map"),
        "cgroup": lines("/proc/self/cgroup"),
        "namespaces": links("/proc/self/ns"),
        "mounts": mounts(),
        "limits": limits(),
        "processes": processes(),
        "interfaces": names("/sys/class/net"),
        "root": names("/"),
        "devices": names("/dev"),
        "hidden": hidden(),
        "keys": lines("/proc/keys"),
        "search": search.report(),
        "attempts": attempts(),
    })
}

/// True when what this process breaks is the machine: all ids are mapped, and it has root's id or a capability.
/// What cannot be read counts as the machine.
fn on_the_machine() -> bool {
    let maps = lines("/proc/self/uid_map");
    let all_ids = maps.is_empty() || maps == ["0 0 4294967295"];
    let keys = ["CapEff", "CapPrm", "CapAmb"];
    let status = status();
    let powerless = keys.iter().all(|key| status.get(*key).is_some_and(|set| set == "0000000000000000"));
    all_ids && (nix::unistd::geteuid().is_root() || !powerless)
}

fn in_a_sandbox() -> io::Result<()> {
    if on_the_machine() { Err(io::Error::other("not in a sandbox")) } else { Ok(()) }
}

fn attempt(name: &str) -> io::Result<()> {
    in_a_sandbox()?;
    let known = ATTEMPTS.iter().find(|(known, _)| *known == name);
    known.map_or_else(|| Err(io::Error::other("no such attempt")), |(_, act)| act())
}

/// What of the host a sandbox hides: `"absent"`, `"empty"`, `"content"`, or the name of the error.
fn hidden() -> BTreeMap<&'static str, String> {
    let state = |path: &Path| -> io::Result<&str> {
        if path.is_dir() {
            return Ok(if fs::read_dir(path)?.next().is_none() { "empty" } else { "content" });
        }
        let read = File::open(path)?.read(&mut [0])?;
        Ok(if read == 0 { "empty" } else { "content" })
    };
    let tell = |path: &str| match state(Path::new(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => "absent".to_owned(),
        Err(error) => describe(&error),
        Ok(state) => state.to_owned(),
    };
    HIDDEN.iter().map(|path| (*path, tell(path))).collect()
}

/// By name: `"ok"`, or the name of the error.
fn attempts() -> Map<String, Value> {
    let program = Path::new("/proc/self/exe");
    let run = |name: &str| match Command::new(program).args(["attempt", name]).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => "ok".to_owned(),
        Ok(output) if output.stderr.is_empty() => output.status.to_string(),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => format!("not started: {}", describe(&error)),
    };
    ATTEMPTS.iter().map(|(name, _)| ((*name).to_owned(), Value::from(run(name)))).collect()
}

/// `EPERM`, where there is such a name.
fn describe(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |code| format!("{:?}", Errno::from_raw(code)))
}

fn enter(flags: CloneFlags) -> io::Result<()> {
    Ok(unshare(flags)?)
}

fn open_socket(family: AddressFamily, kind: SockType) -> io::Result<()> {
    socket(family, kind, SockFlag::empty(), None)?;
    Ok(())
}

fn connect(address: &str) -> io::Result<()> {
    let address = address.parse().map_err(io::Error::other)?;
    TcpStream::connect_timeout(&address, std::time::Duration::from_secs(1)).map(drop)
}

fn create(path: &str) -> io::Result<()> {
    File::create(path)?;
    fs::remove_file(path)
}

/// Opens only: what these files do when written to is not wanted even where it is allowed.
fn write_to(path: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path).map(drop)
}

fn read_from(path: &str) -> io::Result<()> {
    let path = CString::new(path).map_err(io::Error::other)?;
    let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::open(path.as_c_str(), flags, Mode::empty())?;
    Ok(())
}

/// As ptrace(2) would be allowed (process_vm_readv(2)); that nothing lies at the address comes later.
fn read_first_process() -> io::Result<()> {
    let mut byte = [0];
    let remote = RemoteIoVec { base: 1, len: 1 };
    match process_vm_readv(Pid::from_raw(1), &mut [io::IoSliceMut::new(&mut byte)], &[remote]) {
        Ok(_) | Err(Errno::EFAULT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect()
}

/// `/proc/self/status` by key: `CapEff`, `NoNewPrivs`, `Seccomp` and the others.
fn status() -> BTreeMap<String, String> {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
}

fn lines(path: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn links(folder: &str) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let pairs = entries.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_string_lossy().into_owned(), target.to_string_lossy().into_owned()))
    });
    // The handle that lists the folder is not one the process was given.
    pairs.filter(|(_, target)| !(target.starts_with("/proc/") && target.ends_with("/fd"))).collect()
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn processes() -> Vec<u32> {
    let mut ids: Vec<u32> = names("/proc").iter().filter_map(|name| name.parse().ok()).collect();
    ids.sort_unstable();
    ids
}

/// `/proc/self/mountinfo`: target, type, source and the options of mount and file system.
fn mounts() -> Vec<Value> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        Some(json!({
            "target": left.get(4)?, "options": left.get(5)?, "propagation": left.get(6..)?,
            "type": right.first()?, "source": right.get(1)?, "super": right.get(2)?,
        }))
    };
    text.lines().filter_map(parse).collect()
}

fn limits() -> BTreeMap<&'static str, (u64, u64)> {
    let all = [
        ("core", Resource::RLIMIT_CORE),
        ("files", Resource::RLIMIT_NOFILE),
        ("processes", Resource::RLIMIT_NPROC),
        ("file-size", Resource::RLIMIT_FSIZE),
    ];
    all.into_iter().filter_map(|(name, resource)| Some((name, getrlimit(resource).ok()?))).collect()
}
