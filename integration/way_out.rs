//! `--network isolated`: buildpacks reach what is outside, and nothing of this machine or its cloud. Each test makes a
//! world of two networks, of namespaces of its own, and the build is in one of them: what is outside, and what answers as
//! the metadata service of a cloud, is the same on every machine.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use coracle_fixtures::Buildpack;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Ran, coracle, ran, within};
use crate::kill::{descendants, is_alive};
use crate::site::Site;

/// What buildpacks try to reach, and whether it is outside.
const TRIED: [(&str, u16, bool); 10] = [
    // The gateway, which pasta could let stand for this machine.
    ("198.51.100.1", 81, true),
    ("198.51.100.1", 80, true),
    ("2001:db8:1::1", 80, true),
    ("169.254.169.254", 80, false),
    ("100.100.100.200", 80, false),
    ("fd00:ec2::254", 80, false),
    ("127.0.0.1", 81, false),
    ("198.51.100.2", 81, false),
    ("203.0.113.7", 81, false),
    ("2001:db8:1::2", 81, false),
];

/// Listen in the network of the build.
const SERVERS: &str = "tcp:0.0.0.0:81 tcp:[2001:db8:1::2]:81 udp:127.0.0.53:53 udp:127.0.0.1:54";

/// The site's images are in its store, so that no registry is asked for anything.
fn site(buildpacks: &[Buildpack]) -> Site {
    let site = Site::new(buildpacks);
    site.home.ok(&["pull", &site.builder]);
    site.home.ok(&["pull", &site.registry.reference("run:latest")]);
    site
}

/// A build in the world.
fn build(site: &Site, more: &[&str]) -> Command {
    let args = site.args("app", &[&["--offline", "--verbose"], more].concat());
    let plain = site.home.command(&[]);
    let range = fs::read_to_string("/etc/subuid").expect("read /etc/subuid");
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).expect("look the user up").expect("a user");
    let range = range.lines().find_map(|line| line.strip_prefix(&format!("{}:", user.name)));
    let first = range.and_then(|range| range.split(':').next()).expect("a range of subordinate ids");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "--net"]);
    for kind in ["--map-users", "--map-groups"] {
        command.args([kind, &format!("{first},{first},65536")]);
    }
    command.args(["sh", "-c", include_str!("way_out.sh"), "world"]).arg(coracle()).args(args);
    command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("FIRST", first).env("PROBE", coracle_fixtures::probe()).env("SERVERS", SERVERS);
    command.stdin(Stdio::null());
    command
}

fn built(site: &Site, more: &[&str]) -> Ran {
    let ran = ran(build(site, more).output().expect("start unshare"));
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
    assert_eq!(site.home.leftovers(), Vec::<String>::new());
    ran
}

/// Tries everything, and says what came of it, a line each.
fn curious() -> Buildpack {
    let mut shell = String::new();
    for (host, port, _) in TRIED {
        shell.push_str(&format!(
            "said=$({{ read -r word </dev/tcp/{host}/{port} && echo $word; }} 2>&1) || true; echo \"{host} {port}: ${{said##*: }}\"\n"
        ));
    }
    // Of an answer, `read` takes the first letter, and the socket forgets the rest.
    for (host, port) in [("169.254.1.1", 53), ("127.0.0.1", 54), ("198.51.100.2", 54)] {
        shell.push_str(&format!(
            "said=$({{ exec 3<>/dev/udp/{host}/{port}; echo >&3; read -r -N 1 -t 2 word <&3 && echo $word; }} 2>&1) || true; echo \"udp {host} {port}: ${{said##*: }}\"\n"
        ));
    }
    shell.push_str(
        "echo \"resolver: $(while read -r line; do echo -n \"$line|\"; done </etc/resolv.conf)\"\n",
    );
    Buildpack::passing("fixture/curious").build(&shell).process(&["cat", "hello"])
}

fn answers(ran: &Ran) -> BTreeMap<String, String> {
    let lines = ran.stdout.lines().filter_map(|line| line.strip_prefix("[builder] "));
    let pairs = lines.filter_map(|line| line.rsplit_once(": ").or_else(|| line.split_once(": ")));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn what_is_outside_is_reached_and_neither_this_machine_nor_its_cloud() {
    let site = site(&[curious()]);
    // With the host's network all of it is there.
    let open = answers(&built(&site, &[]));
    for (host, port, _) in TRIED {
        let expected = if port == 81 && host != "198.51.100.1" { "inside" } else { "outside" };
        assert_eq!(open[&format!("{host} {port}")], expected, "{host}: {open:#?}");
    }
    for runtime in ["youki", "crun", "runc"] {
        let ran = built(&site, &["--network", "isolated", "--runtime", runtime]);
        assert!(!ran.stderr.contains("buildpacks reach what this machine reaches"), "{}", ran.stderr);
        let closed = answers(&ran);
        for (host, port, is_outside) in TRIED {
            let own = ["127.0.0.1", "198.51.100.2", "2001:db8:1::2"].contains(&host);
            let expected = match (is_outside, own) {
                (true, _) => "outside",
                // Also the guest's own address, and nothing listens there.
                (false, true) => "Connection refused",
                (false, false) => "Permission denied",
            };
            assert_eq!(closed[&format!("{host} {port}")], expected, "{runtime}, {host}: {closed:#?}");
        }
        assert_eq!(closed["udp 169.254.1.1 53"], "i", "{runtime}: {closed:#?}");
        for name in ["udp 127.0.0.1 54", "udp 198.51.100.2 54"] {
            assert_eq!(closed[name], "Connection refused", "{runtime}: {closed:#?}");
        }
        assert_eq!(closed["resolver"], "nameserver 169.254.1.1|search world.example|");
    }
}

#[test]
fn buildpacks_are_not_told_of_a_proxy_that_they_cannot_reach() {
    let told = "echo \"told: ${HTTP_PROXY-nothing} ${HTTPS_PROXY-nothing}\"";
    let site = site(&[Buildpack::passing("fixture/told").build(told).process(&["cat", "hello"])]);
    let mut command = build(&site, &["--network", "isolated"]);
    command
        .env("HTTP_PROXY", "http://127.0.0.1:3128")
        .env("HTTPS_PROXY", "http://name:word@proxy.example:3128");
    let ran = ran(command.output().expect("start unshare"));
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
    let line = "[builder] told: nothing http://proxy.example:3128\n";
    assert!(ran.stdout.contains(line), "{}", ran.stdout);
    for said in [
        "the proxy of HTTP_PROXY is on this machine's loopback, which --network isolated does not reach: buildpacks are not told of it; where they need it, use one on another machine, or --network host\n",
        "the name and password of the proxy are kept from buildpacks; ",
    ] {
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    }
}

/// The programs that connect networks below this process, with their arguments.
fn pastas(world: u32) -> Vec<((u32, String), String)> {
    let line = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ")
    };
    let all = descendants(world).into_iter().map(|process| (process.clone(), line(process.0)));
    all.filter(|(_, line)| line.starts_with("pasta ")).collect()
}

/// That of the build phase, with what it starts for a moment, as soon as it runs; that of detection is gone by then.
fn pastas_of_build(child: &mut Child) -> Vec<(u32, String)> {
    loop {
        let running = pastas(child.id());
        if running.iter().any(|(_, line)| line.ends_with("/builder ")) {
            assert!(running.iter().all(|(_, line)| line.ends_with("/builder ")), "{running:?}");
            return running.into_iter().map(|(process, _)| process).collect();
        }
        assert!(child.try_wait().expect("look at the world").is_none(), "no pasta ran");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn coracle_of(child: &Child) -> u32 {
    let is_coracle = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("coracle\0build\0")
    };
    let all = descendants(child.id()).into_iter().map(|(pid, _)| pid);
    all.into_iter().find(is_coracle).expect("coracle below its world")
}

#[test]
fn what_connects_the_network_ends_with_the_phase_however_that_ends() {
    // Detection is over at once; the build waits for a file of the host's.
    let wait = "until [ -e /gate/open ]; do sleep 0.05; done";
    for end in ["success", "failure", "kill"] {
        let site = site(&[Buildpack::passing("fixture/waiting")
            .build(wait)
            .build(if end == "failure" { "exit 7" } else { "true" })
            .process(&["cat", "hello"])]);
        let gate = site.home.path().join("gate");
        fs::create_dir(&gate).expect("make the gate");
        let volume = format!("{}:/gate:ro", gate.display());
        let mut command = build(&site, &["--network", "isolated", "--volume", &volume]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start unshare");
        let pastas = pastas_of_build(&mut child);
        if end == "kill" {
            let pid = i32::try_from(coracle_of(&child)).expect("a process id");
            kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill coracle");
        } else {
            fs::write(gate.join("open"), "").expect("open the gate");
        }
        let ran = ran(child.wait_with_output().expect("wait for the world"));
        let code = match end {
            "success" => 0,
            "failure" => 51,
            _ => 137,
        };
        assert_eq!(ran.code, Some(code), "{end}: {}\n{}", ran.stdout, ran.stderr);
        within(Duration::from_secs(10), end, || !pastas.iter().any(is_alive));
    }
}

#[test]
fn without_a_route_the_build_ends_and_says_what_there_is() {
    let site = site(&[Buildpack::passing("fixture/any").process(&["cat", "hello"])]);
    let mut command = build(&site, &["--network", "isolated"]);
    command.env("WITHOUT_ROUTE", "1");
    let ran = ran(command.output().expect("start unshare"));
    assert_ne!(ran.code, Some(0), "{}", ran.stdout);
    assert!(
        ran.stderr.contains("pasta could not connect the network of --network isolated: ")
            && ran.stderr.contains("without a way out of this machine, choose --network none"),
        "{}",
        ran.stderr
    );
}
