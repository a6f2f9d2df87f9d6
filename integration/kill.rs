//! `coracle` killed alone, in every phase, under every runtime: nothing of it stays, and the next build is as if nothing
//! had happened.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coracle_fixtures::Buildpack;
use coracle_fixtures::registry::PASSWORD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{TestHome, ran, within};
use crate::site::Site;

const RUNTIMES: [&str; 3] = ["youki", "crun", "runc"];

/// The line after which the phase is under way, and how long to wait then: detect and build stall by themselves where
/// the application says so, the others are as quick as they are.
const PHASES: [(&str, &str, u64); 5] = [
    ("", "===> ANALYZER", 4),
    ("detect", "===> DETECTOR", 150),
    ("", "===> RESTORER", 4),
    ("build", "[builder] stalled", 0),
    ("", "===> EXPORTER", 12),
];

/// Stalls in the phase that the file `stall` of the application names; its layers take a moment to export.
fn stalling() -> Buildpack {
    let stall = |phase: &str| format!("if [ \"$(cat stall)\" = {phase} ]; then echo stalled; sleep 60; fi");
    Buildpack::passing("fixture/stalling")
        .detect(&stall("detect"))
        .build(&stall("build"))
        .layer("kept", &["launch", "cache"], "kept")
        .build("head -c 4000000 /dev/zero >\"$1/kept/large\"")
        .process(&["cat", "hello"])
}

/// Processes that descend from `parent`, as (id, time of start), so that an id used again is not taken for the old one.
pub(crate) fn descendants(parent: u32) -> BTreeSet<(u32, String)> {
    let processes: Vec<(u32, u32, String)> = fs::read_dir("/proc")
        .expect("read /proc")
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            Some((pid, fields[1].parse().ok()?, fields[19].to_owned()))
        })
        .collect();
    let (mut found, mut pending) = (BTreeSet::new(), vec![parent]);
    while let Some(parent) = pending.pop() {
        for (pid, _, start) in processes.iter().filter(|(_, of, _)| *of == parent) {
            found.insert((*pid, start.clone()));
            pending.push(*pid);
        }
    }
    found
}

pub(crate) fn is_alive((pid, start): &(u32, String)) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    // A zombie holds nothing; whoever reaps it is not ours.
    fields.get(19) == Some(&start.as_str()) && fields.first() != Some(&"Z")
}

/// Processes whose mount table still names the home.
fn mounted(home: &str) -> Vec<String> {
    let tables =
        fs::read_dir("/proc").expect("read /proc").flatten().map(|entry| entry.path().join("mountinfo"));
    let texts = tables.filter_map(|path| fs::read_to_string(path).ok());
    texts
        .flat_map(|text| {
            text.lines().filter(|line| line.contains(home)).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

fn wait_for_line(child: &mut Child, wanted: &str) {
    let mut lines = BufReader::new(child.stdout.as_mut().expect("a pipe")).lines();
    let found = lines.any(|line| line.is_ok_and(|line| line.starts_with(wanted)));
    assert!(found, "the build ended before it said {wanted}");
}

/// Kills a build `wait` after it has said `line`; then no process and no mount of it is left.
pub(crate) fn killed_at(mut command: Command, line: &str, wait: Duration, home: &TestHome, what: &str) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start coracle");
    wait_for_line(&mut child, line);
    std::thread::sleep(wait);
    let processes = descendants(child.id());
    assert!(!processes.is_empty(), "{what}, {line}: nothing to leave behind");
    kill(Pid::from_raw(child.id().try_into().expect("a process id")), Signal::SIGKILL).expect("send SIGKILL");
    child.wait().expect("wait");
    within(Duration::from_secs(2), "every process is gone", || !processes.iter().any(is_alive));
    assert_eq!(mounted(&home.path().display().to_string()), Vec::<String>::new(), "{what}, {line}");
}

#[test]
fn a_kill_in_any_phase_leaves_nothing_and_spoils_nothing() {
    let site = Site::new(&[stalling()]);
    let build = |runtime: &str| {
        let args = site.args("app", &["--runtime", runtime]);
        site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let last_line = |runtime: &str| {
        let output = build(runtime).output().expect("start coracle");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(site.home.leftovers(), Vec::<String>::new());
        text.lines().last().unwrap_or_default().to_owned()
    };
    let stall = |phase: &str| fs::write(site.app().join("stall"), phase).expect("write the application");
    stall("");
    let undisturbed = last_line("youki");
    assert!(undisturbed.contains("@sha256:"), "{undisturbed}");
    for runtime in RUNTIMES {
        for (stalled, line, wait) in PHASES {
            stall(stalled);
            killed_at(build(runtime), line, Duration::from_millis(wait), &site.home, runtime);
            stall("");
            assert_eq!(last_line(runtime), undisturbed, "{runtime}, after {line}");
        }
    }
}

#[test]
fn a_kill_while_a_buildpack_runs_by_itself_leaves_nothing() {
    let first = Buildpack::passing("fixture/first").layer("first", &["build", "launch"], "first");
    let site = Site::new(&[first, stalling()]);
    let strict = ["--build-layers", "strict"];
    let undisturbed = site.built("app", &strict);
    for runtime in RUNTIMES {
        fs::write(site.app().join("stall"), "build").expect("write the application");
        let args = site.args("app", &[&strict[..], &["--runtime", runtime]].concat());
        let command = site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        killed_at(command, "[builder] stalled", Duration::ZERO, &site.home, runtime);
        fs::remove_file(site.app().join("stall")).expect("remove a file");
        let again = site.built("app", &strict);
        assert_eq!(again.stdout.lines().last(), undisturbed.stdout.lines().last(), "{runtime}");
    }
}

/// A trusted builder's programs share a container with the program that has the credentials, in memory.
#[test]
fn a_kill_of_a_creator_leaves_no_process_no_mount_and_no_credential() {
    let site = Site::with_password(&[stalling()]);
    let name = site.registry.reference("app:1");
    let one = ["--trust-builder", "--restore", "copy", "--publish"];
    let stall = |phase: &str| fs::write(site.app().join("stall"), phase).expect("write the application");
    stall("");
    let undisturbed = site.built(&name, &one);
    for runtime in RUNTIMES {
        for (stalled, line, wait) in
            [("detect", "[creator] ===> DETECTING", 150), ("build", "[creator] stalled", 0)]
        {
            stall(stalled);
            let args = site.args(&name, &[&one[..], &["--runtime", runtime]].concat());
            let command = site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
            killed_at(command, line, Duration::from_millis(wait), &site.home, runtime);
            for secret in [PASSWORD, "dGVzdGVyOm5vdC1hLXNlY3JldA"] {
                assert_eq!(
                    site.home.files_with(secret.as_bytes()),
                    Vec::<String>::new(),
                    "{runtime}, {line}"
                );
            }
            stall("");
            let again = site.built(&name, &[&one[..], &["--runtime", runtime]].concat());
            assert_eq!(
                again.stdout.lines().last(),
                undisturbed.stdout.lines().last(),
                "{runtime}, after {line}"
            );
        }
    }
}

#[test]
fn an_interrupt_ends_a_build_at_once_and_leaves_nothing() {
    let site = Site::new(&[stalling()]);
    for runtime in RUNTIMES {
        for (stalled, line) in [("detect", "===> DETECTOR"), ("build", "[builder] stalled")] {
            fs::write(site.app().join("stall"), stalled).expect("write the application");
            let args = site.args("app", &["--runtime", runtime]);
            let mut command = site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
            let mut child =
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start coracle");
            wait_for_line(&mut child, line);
            let processes = descendants(child.id());
            assert!(!processes.is_empty(), "{runtime}, {line}: nothing to leave behind");
            let pid = Pid::from_raw(child.id().try_into().expect("a process id"));
            let start = Instant::now();
            kill(pid, Signal::SIGINT).expect("send SIGINT");
            let ran = ran(child.wait_with_output().expect("wait"));
            assert!(start.elapsed() < Duration::from_secs(5), "{runtime}, {line}");
            assert_eq!(ran.code, Some(130), "{runtime}, {line}: {}", ran.stderr);
            assert!(
                ran.stderr.ends_with("error: interrupted by signal 2; nothing was left\n"),
                "{}",
                ran.stderr
            );
            assert!(!processes.iter().any(is_alive), "{runtime}, {line}");
            assert_eq!(site.home.leftovers(), Vec::<String>::new());
        }
    }
    assert_eq!(site.home.ok(&["images"]).stdout.lines().count(), 2, "builder and run image, no application");
}
