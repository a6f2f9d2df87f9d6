//! A network of a container's own with a way out: pasta(1) hands what the guest sends to sockets that it opens in the
//! host's network, and back. What is out of reach there although pasta could reach it, the kernel refuses in the
//! namespace itself, by rules that come before every route (docs/decisions/0028-a-network-with-a-way-out.md).

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout};

use crate::init::find_program;
use crate::root::Bind;
use crate::rtnetlink::{Routing, Rule, rule};
use crate::sandbox::Access;
use crate::{network, sys};

/// The program, and the Debian package that has it.
const PROGRAM: &str = "pasta";

/// The device through which its packets go.
pub const TUN: &str = "/dev/net/tun";

/// Where the stage finds the host's programs.
const PROGRAMS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The namespace's name, where the program's AppArmor profile of the distributions lets it look.
const NAMESPACES: &str = "/run/user/0/netns";

/// Who answers for names (resolv.conf(5)).
pub(crate) const RESOLVER: &str = "/etc/resolv.conf";

/// How long the program may take until packets can pass.
const PATIENCE: Duration = Duration::from_secs(10);

/// An address of nobody's at which the guest finds the host's resolver, also where that listens on the host's loopback.
const RESOLVER_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const RESOLVER_V6: Ipv6Addr = Ipv6Addr::new(0xfdc0, 0x7ac1, 0xe, 0, 0, 0, 0, 0x53);

/// Addresses that mean this machine or its cloud, whatever the routes say: link-local ones, among them the metadata services
/// of most clouds; those of some at other addresses (Azure's agent; Alibaba; EC2 and Google over IPv6); and groups of
/// neighbours.
const CLOSED: [(IpAddr, u8); 8] = [
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)), 32),
    (IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), 32),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0)), 32),
    (IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0)), 64),
    // Not all of ff00::/8: below ff02::/16 neighbours are found, and what is sent there by a program has an interface.
    (IpAddr::V6(Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0)), 16),
];

/// Why there is no network with a way out.
#[derive(Debug, thiserror::Error)]
pub enum WayOutError {
    /// The program is not there.
    #[error(
        "--network isolated needs the program pasta, which is in none of {}: install the package passt, or choose --network host or --network none", PROGRAMS.join(", ")
    )]
    NoProgram,
    /// The device is not there, or not for this user.
    #[error(
        "--network isolated needs {}, which this user cannot open: an administrator loads the module tun and opens it to all with: chmod 0666 {}; or choose --network host or --network none", .device.display(), .device.display()
    )]
    NoDevice {
        /// `/dev/net/tun`.
        device: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a step.
    #[error("could not {0}")]
    Step(&'static str, #[source] io::Error),
    /// The program ended before packets could pass.
    #[error(
        "pasta could not connect the network of --network isolated: {0}; without a way out of this machine, choose --network none"
    )]
    Ended(String),
    /// It did neither.
    #[error("pasta did not connect the network of --network isolated within {} seconds", PATIENCE.as_secs())]
    Slow,
}

/// What the stage needs of the host for it.
///
/// # Errors
/// [`WayOutError::NoProgram`] and [`WayOutError::NoDevice`].
pub fn way_out() -> Result<Bind, WayOutError> {
    needed(&PROGRAMS.map(Path::new), Path::new(TUN))
}

fn needed(programs: &[&Path], device: &Path) -> Result<Bind, WayOutError> {
    if !programs.iter().any(|folder| folder.join(PROGRAM).is_file()) {
        return Err(WayOutError::NoProgram);
    }
    let opened = File::options().read(true).write(true).open(device);
    opened.map_err(|source| WayOutError::NoDevice { device: device.to_owned(), source })?;
    Ok(Bind { source: device.to_owned(), target: device.to_owned(), access: Access::ReadWrite })
}

/// The running program. It ends when this goes, when the launcher ends (PR_SET_PDEATHSIG(2const)), and with the PID namespace.
pub(crate) struct WayOut {
    program: Pid,
    /// Not read once it runs; but without it the program would die of what it says.
    said: OwnedFd,
}

impl Drop for WayOut {
    fn drop(&mut self) {
        let _ = kill(self.program, Signal::SIGKILL);
        let _ = waitpid(self.program, None);
    }
}

/// Leave the host's network for a new one with a way out. Only for a process with one thread, in a mount namespace of its own.
///
/// # Errors
/// [`WayOutError`].
pub(crate) fn leave(id: &str) -> Result<WayOut, WayOutError> {
    let step = |what| move |error: io::Error| WayOutError::Step(what, error);
    let own = own_addresses().map_err(step("list the addresses of this machine"))?;
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| step("make a pipe")(e.into()));
    let ((gate, opener), (ready, tell), (said, say)) = (pipe()?, pipe()?, pipe()?);
    // Whatever it says later is lost, and it does not wait for a reader.
    fcntl(&say, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|e| step("open a pipe")(e.into()))?;
    let namespace = Path::new(NAMESPACES).join(id);
    let made = fs::create_dir_all(NAMESPACES).and_then(|()| File::create(&namespace));
    made.map_err(step("make a place for a network namespace"))?;
    // Its sockets are the host's, so it is a child from before this process leaves.
    let program = match sys::fork().map_err(step("start a process for pasta"))? {
        ForkResult::Child => {
            drop((opener, ready, said));
            let error = become_program(gate, tell, &say, &namespace);
            let _ = nix::unistd::write(&say, error.as_bytes());
            sys::exit_now(125)
        }
        ForkResult::Parent { child } => WayOut { program: child, said },
    };
    drop((gate, tell, say));
    let routing = network::leave().map_err(step("leave the host's network"))?;
    mount(Some("/proc/self/ns/net"), &namespace, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|e| step("name the network namespace")(e.into()))?;
    drop(opener);
    wait(ready, &program)?;
    // No program of the guest's is there yet.
    close(&routing, &own)
        .map_err(step("close addresses of this machine and its cloud in the network namespace"))?;
    Ok(program)
}

/// All addresses of this network that are not loopback's: what listens on them is this machine.
fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    let mut own: Vec<IpAddr> = addresses.filter(|address| !address.is_loopback()).collect();
    own.sort();
    own.dedup();
    Ok(own)
}

/// Wait until the launcher has left, and become the program; returns only the reason why not.
fn become_program(gate: OwnedFd, tell: OwnedFd, say: &OwnedFd, namespace: &Path) -> String {
    // Nobody writes: the end is the sign.
    if let Err(error) = File::from(gate).read(&mut [0]) {
        return error.to_string();
    }
    let path = match find_program(PROGRAM) {
        Ok(path) => path,
        Err(message) => return message,
    };
    let nothing = match File::open("/dev/null") {
        Ok(nothing) => nothing,
        Err(error) => return format!("could not open /dev/null: {error}"),
    };
    let prepared = prctl::set_pdeathsig(Signal::SIGKILL)
        .and_then(|()| dup2_stdin(nothing))
        .and_then(|()| dup2_stdout(tell))
        .and_then(|()| dup2_stderr(say));
    if let Err(errno) = prepared {
        return errno.to_string();
    }
    let words = words(namespace);
    let (Ok(path), Ok(argv)) = (
        CString::new(path.into_os_string().into_encoded_bytes()),
        words.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>(),
    ) else {
        return "its path holds a NUL byte".to_owned();
    };
    sys::exec(&path, &argv).to_string()
}

/// How the program is called. Without all the "none" it would connect ports of loopback inside with those outside.
fn words(namespace: &Path) -> Vec<String> {
    let mut words: Vec<String> =
        [PROGRAM, "--foreground", "--quiet", "--config-net", "--no-map-gw"].map(str::to_owned).into();
    for ports in ["--tcp-ports", "--udp-ports", "--tcp-ns", "--udp-ns"] {
        words.extend([ports.to_owned(), "none".to_owned()]);
    }
    for resolver in [IpAddr::from(RESOLVER_V4), IpAddr::from(RESOLVER_V6)] {
        words.extend(["--dns-forward".to_owned(), resolver.to_string()]);
    }
    // It writes its number when packets can pass.
    words.extend(["--pid", "/proc/self/fd/1", "--netns-only", "--netns"].map(str::to_owned));
    words.push(namespace.display().to_string());
    words
}

/// Wait until it says that packets can pass.
fn wait(ready: OwnedFd, program: &WayOut) -> Result<(), WayOutError> {
    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    let failed = |error: io::Error| WayOutError::Step("hear of pasta", error);
    let mut descriptors = [PollFd::new(ready.as_fd(), PollFlags::POLLIN)];
    if poll(&mut descriptors, patience).map_err(|errno| failed(errno.into()))? == 0 {
        return Err(WayOutError::Slow);
    }
    if File::from(ready).read(&mut [0; 16]).map_err(failed)? > 0 {
        return Ok(());
    }
    let mut said = Vec::new();
    let pipe = program.said.try_clone().map_err(failed)?;
    File::from(pipe).take(4096).read_to_end(&mut said).map_err(failed)?;
    Err(WayOutError::Ended(reason(&String::from_utf8_lossy(&said))))
}

/// What the program said, in a line. There is no system log in a stage, and that it has none is not the reason.
fn reason(said: &str) -> String {
    let lines: Vec<&str> =
        said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.ends_with("to syslog")).collect();
    if lines.is_empty() { "it ended without a word".to_owned() } else { lines.join("; ") }
}

/// Refuse what is sent to this machine, its cloud, and link-local neighbours; but not to the resolver.
fn close(routing: &Routing, own: &[IpAddr]) -> io::Result<()> {
    let has_v6 = Path::new("/proc/self/net/if_inet6").exists();
    rules(own)
        .into_iter()
        .filter(|(_, (address, _), _)| has_v6 || address.is_ipv4())
        .try_for_each(|(number, prefix, what)| routing.tell(&rule(number, prefix, what)))
}

/// The rules, in the order in which they hold.
fn rules(own: &[IpAddr]) -> Vec<(u32, (IpAddr, u8), Rule)> {
    let whole = |address: IpAddr| (address, if address.is_ipv4() { 32 } else { 128 });
    let resolvers = [IpAddr::from(RESOLVER_V4), RESOLVER_V6.into()].map(whole);
    let mut rules = resolvers.map(|prefix| (prefix, Rule::Route)).to_vec();
    let closed = CLOSED.into_iter().chain(own.iter().copied().map(whole));
    rules.extend(closed.map(|prefix| (prefix, Rule::Prohibit)));
    (1..).zip(rules).map(|(number, (prefix, rule))| (number, prefix, rule)).collect()
}

/// Write the guest's resolv.conf(5) into `folder`, where the host has one.
///
/// # Errors
/// [`WayOutError::Step`].
pub(crate) fn write_resolver(folder: &Path) -> Result<Option<PathBuf>, WayOutError> {
    let failed = |error| WayOutError::Step("make a resolv.conf", error);
    let host = match fs::read_to_string(RESOLVER) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(failed)?,
    };
    let own = folder.join("resolv.conf");
    fs::write(&own, resolver(&host)).map_err(failed)?;
    Ok(Some(own))
}

/// The guest's resolv.conf(5): the host's, with the resolvers' addresses before those that can be reached from in there,
/// which also answer over TCP.
fn resolver(host: &str) -> String {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next().unwrap_or_default().to_owned())
    };
    let is_server = |line: &&str| server(line).is_some();
    let servers: Vec<IpAddr> = host.lines().filter_map(server).filter_map(|name| name.parse().ok()).collect();
    let closed = |address: &IpAddr| {
        address.is_loopback()
            || CLOSED.iter().any(|(closed, length)| prefix(*closed, *length) == prefix(*address, *length))
    };
    let mut names: Vec<IpAddr> = Vec::new();
    if servers.iter().any(IpAddr::is_ipv4) || servers.is_empty() {
        names.push(RESOLVER_V4.into());
    }
    if servers.iter().any(IpAddr::is_ipv6) {
        names.push(RESOLVER_V6.into());
    }
    names.extend(servers.iter().filter(|address| !closed(address)));
    // A resolver asks three, and no more.
    let names = names.iter().take(3).map(|address| format!("nameserver {address}\n"));
    let rest = host.lines().filter(|line| !is_server(line)).map(|line| format!("{line}\n"));
    names.chain(rest).collect()
}

/// The first bits of an address, of which kind it is, and how many they are.
fn prefix(address: IpAddr, length: u8) -> (bool, u128) {
    let (bits, width) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    (address.is_ipv4(), bits.checked_shr(width - u32::from(length).min(width)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_the_program_is_called_and_what_is_closed() {
        let own = ["192.0.2.7", "fd00::7"].map(|address| address.parse().unwrap());
        let rules = rules(&own).into_iter();
        let rules =
            rules.map(|(number, (address, length), rule)| format!("{number} {address}/{length} {rule:?}"));
        let words = words(Path::new("/run/user/0/netns/builder")).join(" ");
        insta::assert_snapshot!(format!("{words}\n{}", rules.collect::<Vec<_>>().join("\n")));
    }

    #[test]
    fn names_are_asked_for_where_they_can_be() {
        let cases = [
            "nameserver 127.0.0.53\noptions edns0\nsearch corp.example\n",
            "nameserver 10.0.0.2\nnameserver 2001:db8::1\nnameserver 10.0.0.3\n",
            "nameserver 169.254.169.253\nnameserver fe80::1%eth0\n",
            "nameserver ::1\n",
            "",
        ];
        insta::assert_snapshot!(cases.map(resolver).join("--\n"));
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("tun");
        let error = needed(&[folder.path()], &device).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--network isolated needs the program pasta, which is in none of /usr/sbin, /usr/bin, /sbin, /bin: install the package passt, or choose --network host or --network none"
        );
        fs::write(folder.path().join("pasta"), "").unwrap();
        let error = needed(&[folder.path()], &device).unwrap_err();
        let shown = device.display();
        assert_eq!(
            crate::protocol::with_causes(&error),
            format!(
                "--network isolated needs {shown}, which this user cannot open: an administrator loads the module tun and opens it to all with: chmod 0666 {shown}; or choose --network host or --network none: No such file or directory (os error 2)"
            )
        );
        fs::write(&device, "").unwrap();
        assert_eq!(needed(&[folder.path()], &device).unwrap().target, device);
    }

    #[test]
    fn the_reason_is_what_the_program_said() {
        assert_eq!(
            reason("Failed to send 9 bytes to syslog\nNo routable interface\n\n"),
            "No routable interface"
        );
        assert_eq!(reason(""), "it ended without a word");
    }
}
