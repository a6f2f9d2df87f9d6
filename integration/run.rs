//! Images pulled from a real registry and started, under every runtime.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use coracle_fixtures::{DockerRegistry, Entry, RegistryAccess, RunImage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{TestHome, processes_with, ran, within};

const RUNTIMES: [&str; 3] = ["youki", "crun", "runc"];

/// A registry with the plain run image as `base:latest`, and a home.
fn pushed() -> (DockerRegistry, TestHome, String) {
    let registry = DockerRegistry::open();
    registry.push(&RunImage::new().image(), "base", "latest");
    let name = registry.reference("base:latest");
    (registry, TestHome::new(), name)
}

#[test]
fn a_pulled_image_runs_under_every_runtime_and_leaves_nothing() {
    let (_registry, home, name) = pushed();
    let pulled = home.ok(&["pull", &name]);
    assert!(pulled.stderr.contains("fetching 1 layers"), "{}", pulled.stderr);
    assert_eq!(home.ok(&["images"]).stdout, format!("{name} {}", pulled.stdout));
    for runtime in RUNTIMES {
        let script = "id -u; id -g; echo $A; touch /tmp/x && echo wrote; touch /etc/x 2>/dev/null || echo kept; exit 7";
        let ran = home.run(&["run", "--runtime", runtime, "-e", "A=b c", &name, "sh", "-c", script]);
        assert_eq!(ran.stdout, "1001\n1002\nb c\nwrote\nkept\n", "{runtime}: {}", ran.stderr);
        assert_eq!(ran.code, Some(7), "{runtime}");
        assert_eq!(home.leftovers(), Vec::<String>::new(), "{runtime}");
    }
}

#[test]
fn a_container_has_the_hosts_network() {
    let (registry, home, name) = pushed();
    home.ok(&["pull", &name]);
    for runtime in RUNTIMES {
        let url = format!("http://{}/v2/base/tags/list", registry.address());
        let ran = home.ok(&["run", "--runtime", runtime, &name, "wget", "-qO-", &url]);
        assert_eq!(ran.stdout.trim(), r#"{"name":"base","tags":["latest"]}"#, "{runtime}");
    }
}

#[test]
fn a_second_pull_fetches_nothing() {
    let (registry, home, name) = pushed();
    home.ok(&["pull", &name]);
    let blobs = || {
        registry.access_log().lines().filter(|line| line.contains("GET") && line.contains("/blobs/")).count()
    };
    let before = blobs();
    let again = home.ok(&["pull", &name]);
    assert!(again.stderr.contains("all layers are here"), "{}", again.stderr);
    // The configuration is the only blob whose content a pull needs when the layers are here.
    assert_eq!(blobs() - before, 1, "{}", registry.access_log());
}

#[test]
fn later_layers_hide_files_of_earlier_ones() {
    let registry = DockerRegistry::open();
    let hidden = [Entry::whiteout("etc/os-release"), Entry::opaque("home"), Entry::file("etc/new", "new\n")];
    let image = hidden.into_iter().fold(RunImage::new(), RunImage::file);
    registry.push(&image.image(), "layered", "latest");
    let (home, name) = (TestHome::new(), registry.reference("layered:latest"));
    home.ok(&["pull", &name]);
    let ran = home.ok(&[
        "run",
        &name,
        "sh",
        "-c",
        "cat /etc/new; test -e /etc/os-release || echo gone; ls -A /home",
    ]);
    assert_eq!(ran.stdout, "new\ngone\n");
}

#[test]
fn a_registry_with_a_password_is_pulled_from_and_the_password_stays_out_of_sight() {
    let registry = DockerRegistry::start(RegistryAccess::Password);
    registry.push(&RunImage::new().image(), "base", "latest");
    let (home, name) = (TestHome::new(), registry.reference("base:latest"));
    let refused = home.run(&["pull", &name]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains(&registry.address()), "the registry is named: {}", refused.stderr);

    let docker = home.path().join(".docker");
    std::fs::create_dir(&docker).expect("make .docker");
    std::fs::write(docker.join("config.json"), registry.docker_config()).expect("write config.json");
    home.ok(&["pull", &name]);
    let script = "cat /proc/*/environ /proc/*/cmdline; env; ls -R /run /store /work 2>&1; cat /proc/mounts";
    let ran = home.ok(&["run", &name, "sh", "-c", script]);
    for secret in [coracle_fixtures::registry::PASSWORD, "dGVzdGVyOm5vdC1hLXNlY3JldA=="] {
        assert!(!ran.stdout.contains(secret) && !ran.stderr.contains(secret), "{}{}", ran.stdout, ran.stderr);
    }
}

#[test]
fn what_cannot_be_run_is_named_with_the_next_step() {
    let (_registry, home, name) = pushed();
    let absent = home.run(&["run", &name]);
    assert_eq!(absent.code, Some(1));
    assert_eq!(
        absent.stderr,
        format!("error: image {name} is not in the local store; fetch it with: coracle pull {name}\n")
    );
    home.ok(&["pull", &name]);
    let missing = home.run(&["run", &name, "no-such-program"]);
    assert_eq!(missing.code, Some(1));
    let expected = "container run could not be run: program no-such-program is in no folder of PATH";
    assert!(missing.stderr.contains(expected), "{}", missing.stderr);
    assert_eq!(home.leftovers(), Vec::<String>::new());
    let variable = home.run(&["run", "-e", "=x", &name, "true"]);
    assert_eq!(
        variable.stderr,
        "error: --env number 1 names no variable; write NAME=VALUE or NAME, the name without `/`\n"
    );
    assert_eq!(variable.code, Some(2));
}

#[test]
fn an_unreachable_registry_is_named() {
    let registry = DockerRegistry::open();
    let name = registry.reference("base:latest");
    drop(registry);
    let home = TestHome::new();
    let ran = home.run(&["pull", &name]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains(name.split('/').next().unwrap_or_default()), "{}", ran.stderr);
}

/// Start a container that says when it runs, and give its program's process and a mark in its command line.
fn running(home: &TestHome, runtime: &str, name: &str, mark: &str) -> std::process::Child {
    let script = format!("echo up; : {mark}; sleep 60");
    let mut child = home
        .command(&["run", "--runtime", runtime, name, "sh", "-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start coracle");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("read a line");
    assert_eq!(line, "up\n", "{runtime}");
    child
}

fn pid(child: &std::process::Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a process id"))
}

#[test]
fn an_interrupt_ends_everything_at_once_and_says_so() {
    let (_registry, home, name) = pushed();
    home.ok(&["pull", &name]);
    for runtime in RUNTIMES {
        let mark = format!("interrupt-{runtime}-{}", std::process::id());
        let child = running(&home, runtime, &name, &mark);
        kill(pid(&child), Signal::SIGINT).expect("send SIGINT");
        let ran = ran(child.wait_with_output().expect("wait"));
        assert_eq!(ran.code, Some(130), "{runtime}: {}", ran.stderr);
        assert_eq!(ran.stderr, "error: interrupted by signal 2; nothing was left\n");
        within(Duration::from_secs(2), "no process of the container", || processes_with(&mark).is_empty());
        assert_eq!(home.leftovers(), Vec::<String>::new());
    }
}

/// The stage proper is the only child of a process that made its namespaces; the kernel ends it with that one.
#[test]
fn killing_the_stage_s_parent_ends_everything() {
    let (_registry, home, name) = pushed();
    home.ok(&["pull", &name]);
    for runtime in RUNTIMES {
        let mark = format!("orphan-{runtime}-{}", std::process::id());
        let mut child = running(&home, runtime, &name, &mark);
        let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("list threads").flatten();
        let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        let children = lists.flat_map(|list| list.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let parent = children.filter_map(|id| id.trim().parse().ok()).next().expect("a stage");
        kill(Pid::from_raw(parent), Signal::SIGKILL).expect("send SIGKILL");
        let start = std::time::Instant::now();
        let ended = loop {
            match child.try_wait().expect("wait") {
                None if start.elapsed() < Duration::from_secs(5) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                ended => break ended,
            }
        };
        if ended.is_none() {
            child.kill().expect("kill");
            child.wait().expect("wait");
        }
        assert!(ended.is_some_and(|status| !status.success()), "{runtime}: {ended:?}");
        within(Duration::from_secs(2), "no process of the container", || processes_with(&mark).is_empty());
    }
}

#[test]
fn killing_the_program_alone_takes_the_container_with_it() {
    let (_registry, home, name) = pushed();
    home.ok(&["pull", &name]);
    for runtime in RUNTIMES {
        let mark = format!("kill-{runtime}-{}", std::process::id());
        let mut child = running(&home, runtime, &name, &mark);
        kill(pid(&child), Signal::SIGKILL).expect("send SIGKILL");
        child.wait().expect("wait");
        within(Duration::from_secs(2), "no process of the container", || processes_with(&mark).is_empty());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("read mountinfo");
        assert!(!mounts.contains(&home.path().display().to_string()), "{mounts}");
    }
    home.ok(&["run", &name, "true"]);
    assert_eq!(home.leftovers(), Vec::<String>::new());
}
