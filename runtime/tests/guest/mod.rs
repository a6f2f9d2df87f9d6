//! What the program does inside.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the probe answers on its outputs")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::ExitCode;

/// What the guest's process does: each argument is an act, each answer a line `act=result`.
pub(crate) fn probe() -> ExitCode {
    let mut code = 0;
    for act in std::env::args().skip(1) {
        let (verb, object) = act.split_once(':').unwrap_or((act.as_str(), ""));
        let io =
            |result: std::io::Result<String>| result.unwrap_or_else(|error| format!("{:?}", error.kind()));
        let of = |result: nix::Result<()>| {
            result.map_or_else(|errno| format!("{errno:?}"), |()| "done".to_owned())
        };
        let result = match verb {
            "exit" => {
                code = object.parse().unwrap_or(1);
                continue;
            }
            "err" => {
                eprintln!("{object}");
                continue;
            }
            "abort" => std::process::abort(),
            "spawn" => {
                let child = std::process::Command::new("/probe").args(["sleep"]).spawn();
                io(child.map(|_| "started".to_owned()))
            }
            "sleep" => {
                std::thread::sleep(std::time::Duration::from_secs(60));
                continue;
            }
            "nap" => {
                std::thread::sleep(std::time::Duration::from_millis(object.parse().unwrap_or_default()));
                continue;
            }
            "abstract" => {
                use std::os::linux::net::SocketAddrExt as _;
                let address = std::os::unix::net::SocketAddr::from_abstract_name(object);
                let connected = address.and_then(|to| std::os::unix::net::UnixStream::connect_addr(&to));
                io(connected.map(|_| "connected".to_owned()))
            }
            "read" => {
                let mut text = String::new();
                io(std::io::stdin().read_to_string(&mut text).map(|_| text))
            }
            "cat" => io(fs::read_to_string(object).map(|text| text.trim().replace('\n', "|"))),
            "write" => io(fs::write(object, "x").map(|()| "written".to_owned())),
            "deaf" => {
                #[expect(unsafe_code, reason = "no library makes a process ignore a signal without it")]
                // SAFETY: no handler is set that could run anything.
                let ignored = unsafe {
                    nix::sys::signal::signal(nix::sys::signal::SIGTERM, nix::sys::signal::SigHandler::SigIgn)
                };
                of(ignored.map(drop))
            }
            "stop" => of(nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP)),
            "connect" => {
                let address = object.parse().map_err(std::io::Error::other);
                let connected = address.and_then(|to: std::net::SocketAddr| std::net::TcpStream::connect(to));
                io(connected.map(|_| "connected".to_owned()))
            }
            "listen" => io(std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| {
                std::net::TcpStream::connect(listener.local_addr()?).map(|_| "heard".to_owned())
            })),
            "size" => {
                let file = fs::File::create("/out/sized");
                io(file
                    .and_then(|file| file.set_len(object.parse().unwrap_or_default()))
                    .map(|()| "done".to_owned()))
            }
            "rename" => io(fs::rename("/out/a", object).map(|()| "renamed".to_owned())),
            "append" => {
                let file = fs::OpenOptions::new().append(true).open(object);
                io(file.and_then(|mut file| file.write_all(b"x\n")).map(|()| "appended".to_owned()))
            }
            "list" => io(fs::read_dir(object).map(|entries| {
                let mut names: Vec<_> =
                    entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
                names.sort();
                names.join(",")
            })),
            "status" => status_field(object),
            "socket" => {
                use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
                let protocol = match object {
                    "route" => SockProtocol::NetlinkRoute,
                    _ => SockProtocol::NetlinkAudit,
                };
                of(socket(AddressFamily::Netlink, SockType::Raw, SockFlag::empty(), protocol).map(drop))
            }
            "call" => system_call(object.parse().unwrap_or_default()),
            "limit" => {
                use nix::sys::resource::{Resource, getrlimit};
                let resource = match object {
                    "files" => Resource::RLIMIT_NOFILE,
                    "core" => Resource::RLIMIT_CORE,
                    "queues" => Resource::RLIMIT_MSGQUEUE,
                    "locked" => Resource::RLIMIT_MEMLOCK,
                    "nice" => Resource::RLIMIT_NICE,
                    "real-time" => Resource::RLIMIT_RTPRIO,
                    "file-size" => Resource::RLIMIT_FSIZE,
                    _ => Resource::RLIMIT_NPROC,
                };
                getrlimit(resource).map_or_else(|e| e.to_string(), |(soft, hard)| format!("{soft} {hard}"))
            }
            "ids" => format!("{}:{}", nix::unistd::getuid(), nix::unistd::getgid()),
            "unshare" => of(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)),
            "mount" => of(nix::mount::mount(
                Some("tmpfs"),
                "/tmp",
                Some("tmpfs"),
                nix::mount::MsFlags::empty(),
                None::<&str>,
            )),
            "mknod" => of(nix::sys::stat::mknod(
                "/dev/shm/node",
                nix::sys::stat::SFlag::S_IFCHR,
                nix::sys::stat::Mode::empty(),
                nix::sys::stat::makedev(1, 3),
            )),
            "kill" => {
                of(nix::sys::signal::kill(nix::unistd::Pid::from_raw(1), nix::sys::signal::Signal::SIGKILL))
            }
            _ => "no such act".to_owned(),
        };
        println!("{act}={result}");
    }
    ExitCode::from(code)
}

/// Makes a system call by number, without arguments.
fn system_call(number: nix::libc::c_long) -> String {
    #[expect(unsafe_code, reason = "no library wraps calls that do not exist")]
    // SAFETY: the filter answers instead of the kernel, and no kernel has calls of these numbers.
    let result = nix::errno::Errno::result(unsafe { nix::libc::syscall(number) });
    result.map_or_else(|errno| format!("{errno:?}"), |_| "done".to_owned())
}

fn status_field(name: &str) -> String {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or("missing").trim().to_owned()
}
