//! What a program in a build tries in order to get out, to learn what is not its own, or to stay. Each attempt runs in a
//! process of its own, because one that succeeds, or that the kernel ends, takes its process with it.
//!
//! `probe attacks NAME=VALUE...` prints one JSON object in a line for each: `id`, `tried`, and as `result` the name of the
//! error, the signal, or what was found. Numbers are those of the table in docs/security/attacks.md.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

/// What the attacker was told of the outside: `NAME=VALUE` arguments.
struct Given<'a>(&'a [&'a str]);

impl Given<'_> {
    fn value(&self, name: &str) -> io::Result<&str> {
        let value = self.0.iter().filter_map(|text| text.split_once('=')).find(|(known, _)| *known == name);
        value.map(|(_, value)| value).ok_or_else(|| io::Error::other(format!("{name}= is not given")))
    }
}

type Act = fn(&Given<'_>) -> io::Result<String>;

const ATTACKS: &[(&str, &str, Act)] = &[
    ("A01", "the secret in the environment or arguments of any process", |given| secret_of_processes(given)),
    ("A01", "the environment of process 1", |_| open("/proc/1/environ")),
    ("A02", "ptrace process 1", |_| call(libc::SYS_ptrace, [libc::PTRACE_ATTACH as usize, 1, 0, 0])),
    ("A02", "the memory of process 1", |_| open("/proc/1/mem")),
    ("A02", "process_vm_readv of process 1", |_| call(libc::SYS_process_vm_readv, [1, 0, 0, 0])),
    ("A03", "processes of others in /proc", |_| processes_of_others()),
    ("A04", "the root folder of process 1", |_| open("/proc/1/root/etc")),
    ("A04", "a way out by parent folders", |_| parents()),
    ("A04", "a file by its handle", |_| call(libc::SYS_open_by_handle_at, [3, 0, 0, 0])),
    ("A05", "files of credentials", |_| none_exists(CREDENTIALS)),
    ("A05", "variables of credentials", |_| {
        no_variable(&["DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "CNB_REGISTRY_AUTH"])
    }),
    ("A06", "a mount with credentials", |_| mounts("/proc/self/mountinfo")),
    ("A06", "the mounts of process 1", |_| mounts("/proc/1/mountinfo")),
    ("A07", "keys of the session", |_| call(libc::SYS_keyctl, [0, -3_isize as usize, 0, 0])),
    ("A07", "a new key", |_| call(libc::SYS_add_key, [0; 4])),
    ("A07", "a key from the kernel's helper", |_| call(libc::SYS_request_key, [0; 4])),
    ("A08", "an abstract socket of the host", |given| abstract_socket(given.value("abstract")?)),
    ("A08", "sockets of daemons and agents", |_| none_exists(SOCKETS)),
    ("A08", "the socket of an agent in the user's home", |given| {
        std::os::unix::net::UnixStream::connect(given.value("socket")?).map(|_| succeeded())
    }),
    ("A09", "metadata services of clouds", |_| addresses(METADATA)),
    ("A09", "tokens of a cluster or runner", |_| {
        none_exists(&["/var/run/secrets/kubernetes.io/serviceaccount/token"])
    }),
    ("A09", "variables of a cluster or runner", |_| {
        no_variable(&["ACTIONS_", "KUBERNETES_", "AWS_", "CI_JOB_"])
    }),
    ("A10", "every port of loopback", |_| ports()),
    ("A10", "the registry on the host's loopback", |given| connect(given.value("registry")?)),
    ("A17", "the lifecycle's program", |_| write_to("/cnb/lifecycle/builder")),
    ("A17", "a buildpack's program", |_| write_to("/cnb/buildpacks/fixture_evil/1.0.0/bin/build")),
    ("A26", "a link from the layers to the application", |_| link("/workspace/hello", "/layers/x")),
    ("A26", "a link from the layers to the lifecycle", |_| link("/cnb/lifecycle/builder", "/layers/x")),
    ("A27", "a device in a layer", |_| device("/workspace/device")),
    ("A31", "the cache", |_| open("/cache")),
    ("A34", "a file of 10 TB", |_| sparse("/tmp/sparse")),
    ("A35", "processes without end", |_| processes()),
    ("A35", "the limit of processes raised", |_| raise(Resource::RLIMIT_NPROC)),
    ("A38", "a variable for other buildpacks", |_| write_to("/platform/env/EVIL")),
    ("A38", "the builder's settings", |_| write_to("/cnb/build-config/env/EVIL")),
    ("A38", "what the phases go by", |_| write_to("/control/group.toml")),
    ("A49", "a memory dump", |_| raise(Resource::RLIMIT_CORE)),
    ("A49", "the host's handler of dumps", |_| write_to("/proc/sys/kernel/core_pattern")),
    ("A50", "the terminal", |_| open("/dev/tty")),
    ("A50", "letters typed into the terminal", |_| call(libc::SYS_ioctl, [2, 0x5412, 0, 0])),
    ("A50", "the same, with bits above the 32nd", |_| {
        call(libc::SYS_ioctl, [2, 0xffff_ffff_0000_5412, 0, 0])
    }),
    ("A51", "a user namespace", |_| call(libc::SYS_unshare, [libc::CLONE_NEWUSER as usize, 0, 0, 0])),
    ("A51", "a user namespace by clone", |_| call(libc::SYS_clone, [libc::CLONE_NEWUSER as usize, 0, 0, 0])),
    ("A51", "a user namespace by clone3", |_| call(libc::SYS_clone3, [0; 4])),
    ("A51", "another namespace of process 1", |_| call(libc::SYS_setns, [0; 4])),
    ("A51", "the id 0", |_| call(libc::SYS_setuid, [0; 4])),
    ("A52", "the store, by its path on the host", |given| open(given.value("store")?)),
    ("A52", "paths that the mounts tell", |_| paths_of_mounts()),
    ("B01", "a call under another ABI", |_| call(0x4000_0000 + libc::SYS_getpid, [0; 4])),
    ("B02", "io_uring", |_| call(libc::SYS_io_uring_setup, [0; 4])),
    ("B02", "bpf", |_| call(libc::SYS_bpf, [0; 4])),
    ("B02", "perf_event_open", |_| call(libc::SYS_perf_event_open, [0; 4])),
    ("B02", "userfaultfd", |_| call(libc::SYS_userfaultfd, [0; 4])),
    ("B02", "a filter of its own", |_| call(libc::SYS_seccomp, [0; 4])),
    ("B03", "a socket into the hypervisor", |_| socket(libc::AF_VSOCK, libc::SOCK_STREAM)),
    ("B03", "the kernel's ciphers", |_| socket(libc::AF_ALG, libc::SOCK_SEQPACKET)),
    ("B03", "packets of the network", |_| socket(libc::AF_PACKET, libc::SOCK_RAW)),
    ("B04", "a folder of the image that everybody may write to", |_| write_to("/open/x")),
    ("B05", "addresses that are not random", |_| call(libc::SYS_personality, [0x004_0000, 0, 0, 0])),
    ("B06", "a higher priority", |_| call(libc::SYS_setpriority, [0, 0, -5_isize as usize, 0])),
];

const CREDENTIALS: &[&str] = &[
    "/run/coracle/config.json",
    "/run/cnb-auth",
    "/run/secrets",
    "/kaniko/.docker/config.json",
    "/tekton/creds",
    "/root/.docker/config.json",
];

const SOCKETS: &[&str] = &[
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
    "/run/dbus/system_bus_socket",
    "/run/user",
    "/run/systemd",
];

/// Amazon, Google and Azure; Azure's agent; Alibaba; containers of Amazon; Amazon again.
const METADATA: &[&str] = &[
    "169.254.169.254:80",
    "168.63.129.16:80",
    "100.100.100.200:80",
    "169.254.170.2:80",
    "[fd00:ec2::254]:80",
];

/// Make every attempt and tell of each.
pub(crate) fn report(given: &[&str]) -> io::Result<()> {
    for (number, (id, tried, _)) in ATTACKS.iter().enumerate() {
        let output = Command::new("/proc/self/exe")
            .args(["attack", &number.to_string()])
            .args(given)
            .stdin(Stdio::null())
            .output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let result = match output.status.signal() {
            Some(signal) => format!("{:?}", nix::sys::signal::Signal::try_from(signal)?),
            None if output.status.success() => text(&output.stdout),
            None => text(&output.stderr),
        };
        writeln!(io::stdout(), "{}", json!({ "id": id, "tried": tried, "result": result }))?;
    }
    Ok(())
}

/// Make one attempt; what it got goes to standard output.
pub(crate) fn one(number: &str, given: &[&str]) -> io::Result<()> {
    let attack = number.parse::<usize>().ok().and_then(|number| ATTACKS.get(number));
    let (_, _, act) = attack.ok_or_else(|| io::Error::other("no such attack"))?;
    let got = act(&Given(given))?;
    writeln!(io::stdout(), "{got}")
}

fn succeeded() -> String {
    "SUCCEEDED".to_owned()
}

fn open(path: &str) -> io::Result<String> {
    let is_dir = fs::metadata(path)?.is_dir();
    if is_dir {
        fs::read_dir(path).map(drop)?
    } else {
        File::open(path).map(drop)?
    }
    Ok(succeeded())
}

fn write_to(path: &str) -> io::Result<String> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    Ok(succeeded())
}

fn link(of: &str, at: &str) -> io::Result<String> {
    fs::hard_link(of, at)?;
    Ok(succeeded())
}

/// A system call by number; the first arguments, zeros otherwise.
fn call(number: libc::c_long, arguments: [usize; 4]) -> io::Result<String> {
    let [a, b, c, d] = arguments;
    #[expect(unsafe_code, reason = "most of these calls no library wraps")]
    // SAFETY: no argument points into this process's memory, and a process that is changed or split by a call that
    // should have failed does nothing but say so.
    let answer = unsafe { libc::syscall(number, a, b, c, d, 0, 0) };
    Errno::result(answer)?;
    Ok(succeeded())
}

fn socket(family: i32, kind: i32) -> io::Result<String> {
    call(libc::SYS_socket, [family.unsigned_abs() as usize, kind.unsigned_abs() as usize, 0, 0])
}

fn none_exists(paths: &[&str]) -> io::Result<String> {
    let found: Vec<&&str> = paths.iter().filter(|path| Path::new(path).symlink_metadata().is_ok()).collect();
    if found.is_empty() { Err(Errno::ENOENT.into()) } else { Ok(format!("SUCCEEDED: {found:?}")) }
}

fn no_variable(starts: &[&str]) -> io::Result<String> {
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let found: Vec<String> =
        names.filter(|name| starts.iter().any(|start| name.starts_with(start))).collect();
    if found.is_empty() { Ok("not set".to_owned()) } else { Ok(format!("SUCCEEDED: {found:?}")) }
}

/// What is looked for comes as hexadecimal digits, so that no argument holds it.
fn secret_of_processes(given: &Given<'_>) -> io::Result<String> {
    let digits = given.value("secret")?;
    let pairs = (0..digits.len()).step_by(2).filter_map(|at| digits.get(at..at + 2));
    let secret: Vec<u8> = pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
    let processes = fs::read_dir("/proc")?.flatten().filter(|entry| {
        entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    });
    for process in processes {
        for file in ["environ", "cmdline"] {
            let bytes = fs::read(process.path().join(file)).unwrap_or_default();
            if bytes.windows(secret.len()).any(|part| part == secret) {
                return Ok(format!("SUCCEEDED: {}", process.path().display()));
            }
        }
    }
    Ok("found nowhere".to_owned())
}

/// Whatever it sees has process 1 of this container above it, and processes of the kernel or of the host have none here.
fn processes_of_others() -> io::Result<String> {
    let mut others = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // What ends meanwhile was one of ours: nobody else's can.
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        let levels = field("NSpid:").split_whitespace().count();
        if levels != 1 || (id != 1 && field("PPid:") == "0") {
            others.push(format!("{id} {}", field("Name:")));
        }
    }
    if others.is_empty() { Ok("none".to_owned()) } else { Ok(format!("SUCCEEDED: {others:?}")) }
}

/// Listens at a path and gives whoever connects a descriptor of a folder of its own phase.
pub(crate) fn hand_out(at: &str) -> io::Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::os::fd::AsRawFd;
    let listener = std::os::unix::net::UnixListener::bind(at)?;
    let root = File::open("/")?;
    for stream in listener.incoming() {
        let (stream, fds) = (stream?, [root.as_raw_fd()]);
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(stream.as_raw_fd(), &[io::IoSlice::new(b"x")], &rights, MsgFlags::empty(), None)?;
    }
    Ok(())
}

/// Says whether a descriptor came from whoever listens at a path, or the error.
pub(crate) fn take(at: &str) -> io::Result<()> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    use std::os::fd::AsRawFd;
    let taken = || -> io::Result<bool> {
        let stream = std::os::unix::net::UnixStream::connect(at)?;
        let mut byte = [0];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
        let mut slices = [io::IoSliceMut::new(&mut byte)];
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::empty())?;
        Ok(message.cmsgs()?.any(|message| matches!(message, ControlMessageOwned::ScmRights(_))))
    };
    let said = match taken() {
        Ok(true) => "taken".to_owned(),
        Ok(false) => "nothing came".to_owned(),
        Err(error) => error
            .raw_os_error()
            .map_or_else(|| error.to_string(), |errno| format!("{:?}", Errno::from_raw(errno))),
    };
    writeln!(io::stdout(), "{said}")
}

fn parents() -> io::Result<String> {
    use std::os::unix::fs::MetadataExt;
    let id = |path: &str| fs::metadata(path).map(|about| (about.dev(), about.ino()));
    let ends_here = id("/../../../../..")? == id("/")? && id("/proc/self/cwd/../../..")? == id("/")?;
    if ends_here { Ok("ends at its own root".to_owned()) } else { Ok(succeeded()) }
}

fn mounts(path: &str) -> io::Result<String> {
    let text = fs::read_to_string(path)?;
    let found = text.lines().find(|line| line.contains("/run/coracle") || line.contains("cnb-auth"));
    Ok(found.map_or_else(|| "none".to_owned(), |line| format!("SUCCEEDED: {line}")))
}

/// The folders that mounts come from, as the host calls them: the fourth field of mountinfo (proc(5)).
fn paths_of_mounts() -> io::Result<String> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let sources = text.lines().filter_map(|line| line.split(' ').nth(3));
    // A name that the image has as well is the image's own.
    let of_the_host = sources.filter(|path| path.contains("coracle"));
    let found: Vec<&str> = of_the_host.filter(|path| Path::new(path).symlink_metadata().is_ok()).collect();
    if found.is_empty() { Err(Errno::ENOENT.into()) } else { Ok(format!("SUCCEEDED: {found:?}")) }
}

fn abstract_socket(name: &str) -> io::Result<String> {
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    std::os::unix::net::UnixStream::connect_addr(&address)?;
    Ok(succeeded())
}

fn connect(address: &str) -> io::Result<String> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    Ok(succeeded())
}

/// The same error of all, or the first that answers.
fn addresses(all: &[&str]) -> io::Result<String> {
    let mut refused = None;
    for address in all {
        match connect(address) {
            Ok(_) => return Ok(format!("SUCCEEDED: {address}")),
            Err(error) => refused = Some(error),
        }
    }
    refused.map_or_else(|| Ok("none".to_owned()), Err)
}

/// A port that this process itself was given for the attempt answers it, and does not count.
fn ports() -> io::Result<String> {
    let answers = |port: &u16| {
        let address = SocketAddr::from(([127, 0, 0, 1], *port));
        TcpStream::connect(address).is_ok_and(|stream| stream.local_addr().ok() != Some(address))
    };
    let open: Vec<u16> = (1..=u16::MAX).filter(answers).collect();
    if open.is_empty() { Err(Errno::ECONNREFUSED.into()) } else { Ok(format!("SUCCEEDED: {open:?}")) }
}

fn device(path: &str) -> io::Result<String> {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    mknod(path, SFlag::S_IFBLK, Mode::S_IRUSR, makedev(8, 0))?;
    Ok(succeeded())
}

fn sparse(path: &str) -> io::Result<String> {
    File::create(path)?.set_len(10 << 40)?;
    Ok(succeeded())
}

/// With a limit of its own that is lower still, so that a machine on which nothing is limited survives it.
fn processes() -> io::Result<String> {
    const AT_MOST: u64 = 100;
    if getrlimit(Resource::RLIMIT_NPROC)?.1 > 8192 {
        return Ok(succeeded());
    }
    setrlimit(Resource::RLIMIT_NPROC, AT_MOST, AT_MOST)?;
    let mut waiting = Vec::new();
    for _ in 0..2 * AT_MOST {
        // Ends with its standard input, which ends with this process.
        waiting.push(Command::new("/proc/self/exe").arg("wait").stdin(Stdio::piped()).spawn()?);
    }
    Ok(succeeded())
}

fn raise(resource: Resource) -> io::Result<String> {
    let (_, hard) = getrlimit(resource)?;
    let more = hard.checked_add(1).ok_or_else(|| io::Error::other("SUCCEEDED: there is no limit"))?;
    setrlimit(resource, more, more)?;
    Ok(succeeded())
}
