//! Our phases, and our creator alone, called by a platform that is not ours: by path, flags and environment, in a container of its
//! making, started by root or as the build's user.
//!
//! The container is a root filesystem with a builder's layers, entered with `unshare`: namespaces of users, mounts and processes, so
//! that what is started there is process 1 and root is root of that namespace, with all capabilities in it.

mod container;
mod extensions;
mod given;
mod helpers;
mod options;
mod standalone;

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;

use coracle_fixtures::registry::PASSWORD;
use coracle_fixtures::{Buildpack, RegistryAccess};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::harness::{Ran, ran};
use crate::isolation::found;
use container::{Container, Who};

/// base64 of the registry's user and password.
const HEADER: &str = "dGVzdGVyOm5vdC1hLXNlY3JldA==";
const CACHE: [&str; 2] = ["-cache-dir", "/cache"];
const FASTER: [&str; 1] = ["-parallel"];

fn buildpack() -> Buildpack {
    Buildpack::passing("test/all")
        .layer("launched", &["launch"], "for the application")
        .layer("cached", &["cache", "build"], "for the next build")
        .process(&["cat", "hello"])
        .build("printf '[metadata]\\nkept = \"yes\"\\n' >\"$1/store.toml\"")
}

/// A build by the creator; what it said.
fn create(container: &Container, who: Who, image: &str) -> Ran {
    let image = container.registry.reference(image);
    container.ran(
        who,
        "creator",
        &[&CACHE[..], &FASTER, &[&image]].concat(),
        &[("CNB_REGISTRY_AUTH", &container.header())],
    )
}

/// A build by the five phases, in the specification's order. Those with programs of buildpacks are started without credentials, and
/// never by root.
fn phases(container: &Container, who: Who, image: &str) -> String {
    let image = container.registry.reference(image);
    let header = container.header();
    let mut said = String::new();
    for (phase, who, args) in [
        ("analyzer", who, vec![image.as_str()]),
        ("detector", Who::BuildUser, vec![]),
        ("restorer", who, CACHE.to_vec()),
        ("builder", Who::BuildUser, vec![]),
        ("exporter", who, [&CACHE[..], &[&image]].concat()),
    ] {
        let foreign = ["detector", "builder"].contains(&phase);
        let env: &[(&str, &str)] = if foreign { &[] } else { &[("CNB_REGISTRY_AUTH", &header)] };
        let ran = container.ran(who, phase, &args, env);
        assert_eq!(ran.code, Some(0), "{who:?} {phase}: {}{}", ran.stdout, ran.stderr);
        said += &ran.stdout;
    }
    said
}

#[test]
fn phases_and_creator_make_the_same_image_whoever_starts_them() {
    let container = Container::new(RegistryAccess::Password, &[buildpack()]);
    let mut digests = Vec::new();
    for who in [Who::Root, Who::BuildUser] {
        for by in ["phases", "creator"] {
            container.clear(&["cache"]);
            let image = format!("built/{}-by-{by}", if who == Who::Root { "root" } else { "user" });
            let build = || {
                container.clear(&["layers", "workspace"]);
                if by == "phases" {
                    return phases(&container, who, &image);
                }
                let ran = create(&container, who, &image);
                assert_eq!(ran.code, Some(0), "{who:?}: {}{}", ran.stdout, ran.stderr);
                ran.stdout
            };
            let first = build();
            assert!(first.contains("Adding layer 'test/all:launched'"), "{first}");
            let digest = container.digest();
            let second = build();
            for line in [
                "Reusing layer 'test/all:launched'",
                "Reusing 1/1 app layer(s)",
                "Reusing cache layer 'test/all:cached'",
            ] {
                assert!(second.contains(line), "{who:?} {by}: {line} in {second}");
            }
            assert!(!second.contains("Adding layer"), "{who:?} {by}: {second}");
            assert_eq!(container.digest(), digest, "{who:?} {by}");
            digests.push(digest);
        }
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
}

#[test]
fn a_creator_leaves_what_the_phases_leave_as_files_of_the_build_s_user() {
    let container = Container::new(RegistryAccess::Password, &[buildpack()]);
    let mut listings = Vec::new();
    for (who, by) in [(Who::Root, "creator"), (Who::BuildUser, "creator"), (Who::Root, "phases")] {
        container.clear(&["layers", "workspace", "cache"]);
        let image = format!("built/{who:?}-{by}").to_lowercase();
        if by == "phases" {
            phases(&container, who, &image);
        } else {
            assert_eq!(create(&container, who, &image).code, Some(0));
        }
        listings.push(container.owned(&["layers", "cache"]));
    }
    let listing = &listings[0];
    for file in [
        "analyzed.toml",
        "group.toml",
        "plan.toml",
        "report.toml",
        "config/metadata.toml",
        "test_all/launched/content",
    ] {
        assert!(listing.contains(&format!("layers/{file} 1001:1002\n")), "{file} in {listing}");
    }
    assert!(!listing.contains(" 0:"), "{listing}");
    assert_eq!(listing, &listings[1]);
    assert_eq!(listing, &listings[2]);
}

#[test]
fn skip_restore_brings_back_what_was_stored_and_no_layer() {
    let see = "{ cat \"$1/store.toml\"; ls \"$1\"; } >\"/workspace/seen\" 2>&1 || true";
    let look = Buildpack::passing("test/all")
        .build(see)
        .build("printf '[metadata]\\nkept = \"yes\"\\n' >\"$1/store.toml\"");
    let look = look.layer("cached", &["cache"], "c").process(&["true"]);
    let container = Container::new(RegistryAccess::Password, &[look]);
    assert_eq!(create(&container, Who::BuildUser, "skip").code, Some(0));
    let auth = container.header();
    let image = container.registry.reference("skip");
    let mut seen = Vec::new();
    for skip in ["false", "true"] {
        container.clear(&["layers", "workspace"]);
        let env = [("CNB_REGISTRY_AUTH", auth.as_str()), ("CNB_SKIP_RESTORE", skip)];
        let ran = container.ran(Who::BuildUser, "creator", &[&CACHE[..], &[&image]].concat(), &env);
        assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
        let headings: Vec<&str> = ran.stdout.lines().filter(|line| line.starts_with("===>")).collect();
        assert_eq!(
            headings,
            ["ANALYZING", "DETECTING", "RESTORING", "BUILDING", "EXPORTING"]
                .map(|name| format!("===> {name}"))
        );
        seen.push(fs::read_to_string(container.path("workspace/seen")).expect("read what was seen"));
    }
    assert!(seen[0].contains("kept = \"yes\"") && seen[0].contains("cached.toml"), "{seen:?}");
    assert!(seen[1].contains("kept = \"yes\"") && !seen[1].contains("cached"), "{seen:?}");
}

#[test]
fn what_programs_write_over_documents_changes_nothing() {
    let over =
        "for name in analyzed group plan project-metadata; do echo 'not = [toml' >/layers/$name.toml; done";
    let mut digests = Vec::new();
    for buildpack in [buildpack(), buildpack().build(over)] {
        let container = Container::new(RegistryAccess::Password, &[buildpack]);
        // Here platforms may put run.toml too.
        let image = container.registry.reference("over");
        container.as_root("cp cnb/run.toml layers/run.toml; chown 1001:1002 layers/run.toml");
        let variable = [("CNB_REGISTRY_AUTH", container.header())];
        let variable = variable.each_ref().map(|(name, value)| (*name, value.as_str()));
        let ran = container.ran(Who::Root, "creator", &["-run", "/layers/run.toml", &image], &variable);
        assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
        let label = container.label("over", "io.buildpacks.lifecycle.metadata");
        // Each registry has an address of its own.
        digests.push(label.replace(&container.registry.address(), "REGISTRY"));
    }
    assert!(digests[0].contains("\"sha\":\"sha256:"), "{digests:?}");
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn what_programs_leave_running_ends_with_their_phase() {
    // By itself it would end after a minute.
    let stay = |name: &str| {
        let turns = format!("for turn in $(seq 600); do echo {name} >>/workspace/late; sleep 0.1; done");
        format!(
            "setsid sh -c '{turns}' >/dev/null 2>&1 & until grep -q {name} /workspace/late; do sleep 0.1; done"
        )
    };
    let running = "for line in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$line 2>/dev/null; echo; done | grep -c 'echo [d]etected' || true";
    let buildpack = Buildpack::passing("test/stays")
        .process(&["true"])
        .detect(&stay("detected"))
        .build(&format!("echo \"running: $({running})\"; {}", stay("built")));
    let container = Container::new(RegistryAccess::Password, &[buildpack]);
    let image = container.registry.reference("stayed");
    let header = container.header();
    // Under a shell, for to process 1 they would come by themselves. What still ran would be seen after the creator.
    let line = format!(
        "/cnb/lifecycle/creator -build-layers shared {image} || exit; wc -l </workspace/late; sleep 1; wc -l </workspace/late"
    );
    let mut command = container.program(Who::BuildUser, &["/bin/sh", "-c", &line]);
    let ran = ran(command.env("CNB_REGISTRY_AUTH", header).output().expect("start a creator"));
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("running: 0"), "{}", ran.stdout);
    assert_eq!(ran.stderr.matches("buildpacks left running were ended").count(), 2, "{}", ran.stderr);
    let lines: Vec<&str> = ran.stdout.lines().rev().take(2).collect();
    assert_eq!(lines[0], lines[1], "{}", ran.stdout);
}

/// The probe's reports in what a phase said: of detection and of the build, each one.
fn reports(ran: &Ran, count: usize) -> Vec<Value> {
    let lines = ran.stdout.lines().filter(|line| line.starts_with('{'));
    let reports: Vec<Value> = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(reports.len(), count, "{}{}", ran.stdout, ran.stderr);
    reports
}

#[test]
fn programs_under_a_creator_find_no_credentials_and_no_way_to_root() {
    const CONTROL: &str = "the-user-said-this";
    let probe = Buildpack::passing("test/probe").probing(&[PASSWORD, HEADER, CONTROL]).process(&["true"]);
    let container = Container::new(RegistryAccess::Password, &[probe]);
    container.write("platform/env/CONTROL", CONTROL, 0o644);
    // What only root can read is as good as the variable.
    container.write("root/.docker/config.json", &container.registry.docker_config(), 0o600);
    let auth = container.header();
    let image = container.registry.reference("probed");
    let variable = [("CNB_REGISTRY_AUTH", auth.as_str())];
    for (who, env) in [
        (Who::Root, &variable[..]),
        (Who::Root, &[]),
        (Who::BuildUser, &variable[..]),
        (Who::Capable, &variable[..]),
    ] {
        container.clear(&["layers", "workspace"]);
        let ran = container.ran(who, "creator", &["-log-level", "debug", &image], env);
        assert_eq!(ran.code, Some(0), "{who:?}: {}{}", ran.stdout, ran.stderr);
        assert!(!ran.stderr.contains("can read"), "{}", ran.stderr);
        for report in reports(&ran, 2) {
            for secret in [PASSWORD, HEADER] {
                assert_eq!(found(&report, secret).map(Vec::len), Some(0), "{who:?}: {report:#}");
            }
            assert!(
                found(&report, CONTROL).is_some_and(|places| !places.is_empty()),
                "the search is blind: {report:#}"
            );
            assert_eq!(report["uid"], json!([1001, 1001, 1001]), "{who:?}");
            assert_eq!(report["gid"], json!([1002, 1002, 1002]), "{who:?}");
            assert_eq!(report["groups"], json!([]), "{who:?}");
            assert_eq!(report["status"]["NoNewPrivs"], "1", "{who:?}");
            for set in ["CapAmb", "CapEff", "CapInh", "CapPrm"] {
                assert_eq!(report["status"][set], "0000000000000000", "{who:?}");
            }
            // Process 1 is the creator.
            for attempt in [
                "read-process-1-environment",
                "read-process-1-memory",
                "read-process-1-addresses",
                "list-process-1-files",
                "setuid-0",
            ] {
                let result = &report["attempts"][attempt];
                assert!(
                    ["EACCES", "EPERM"].iter().any(|refused| result == refused),
                    "{who:?} {attempt}: {result}"
                );
            }
            assert_eq!(report["env"]["HOME"], "/home/cnb", "{who:?}");
            let files: Vec<&String> =
                report["files"].as_object().into_iter().flatten().map(|(name, _)| name).collect();
            assert_eq!(files, ["0", "1", "2"], "{who:?}");
        }
    }
}

#[test]
fn nothing_of_the_credentials_is_in_what_a_phase_was_started_with() {
    let container = Container::new(RegistryAccess::Open, &[buildpack()]);
    for (phase, who) in [("creator", Who::Root), ("creator", Who::BuildUser), ("analyzer", Who::BuildUser)] {
        let registry = TcpListener::bind("127.0.0.1:0").expect("listen");
        let image = format!("{}/app", registry.local_addr().expect("have an address"));
        let mut command = container.command(who, phase, &["-run-image", &image, &image]);
        let mut child =
            command.env("CNB_REGISTRY_AUTH", container.header()).spawn().expect("start the phase");
        // It asks, and waits for an answer that never comes.
        let asked = registry.accept();
        let process = container::first_process(child.id());
        // As the owner of its namespace, this process may look where nobody in there may.
        let read = |file: &str| {
            let mut bytes = Vec::new();
            let file = fs::File::open(format!("/proc/{process}/{file}"));
            file.and_then(|mut file| file.read_to_end(&mut bytes)).expect("look into the phase");
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (environment, words) = (read("environ"), read("cmdline"));
        let links = fs::read_dir(format!("/proc/{process}/fd")).expect("list descriptors").flatten();
        let links: Vec<_> = links.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
        kill(process, Signal::SIGKILL).expect("end the phase");
        child.wait().expect("wait for the container");
        asked.expect("be asked");
        assert!(words.contains(phase) && environment.contains("CNB_PLATFORM_API="), "{words} {environment}");
        assert!(!environment.contains("CNB_REGISTRY_AUTH") && !environment.contains(HEADER), "{environment}");
        assert!(!words.contains(HEADER), "{words}");
        let kept = links.iter().any(|link| link.to_string_lossy().contains("credentials"));
        assert!(!kept, "{links:?}");
    }
}

#[test]
fn who_started_a_creator_is_told_where_programs_can_read_credentials() {
    let container = Container::new(RegistryAccess::Password, &[buildpack()]);
    let image = container.registry.reference("told");
    container.write("home/cnb/.docker/config.json", &container.registry.docker_config(), 0o644);
    let ran = container.ran(Who::BuildUser, "creator", &[&image], &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let said =
        "warning: programs of buildpacks can read the credentials in `/home/cnb/.docker/config.json`: ";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    container.write("home/cnb/.docker/config.json", "{}", 0o644);
    container.clear(&["layers", "workspace"]);
    container.write("root/.docker/config.json", &container.registry.docker_config(), 0o644);
    container.as_root("chmod 755 root root/.docker");
    let ran = container.ran(Who::Root, "creator", &[&image], &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let said = "warning: programs of buildpacks can read the credentials in `/root/.docker/config.json`: ";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    container.as_root("chmod 700 root");
    container.clear(&["layers", "workspace"]);
    let line = format!("/cnb/lifecycle/creator -parallel {image}; exit $?");
    let mut command = container.program(Who::BuildUser, &["/bin/sh", "-c", &line]);
    let ran = crate::harness::ran(
        command.env("CNB_REGISTRY_AUTH", container.header()).output().expect("start a shell"),
    );
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let said = "warning: programs of buildpacks can read CNB_REGISTRY_AUTH of process 1 (sh): ";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    assert!(!ran.stderr.contains("config.json"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("warning: -parallel changes nothing: no cache is specified"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_creator_that_may_not_go_on_has_started_nothing() {
    let marks = Buildpack::passing("test/marks").detect("touch /workspace/ran");
    let container = Container::new(RegistryAccess::Password, &[marks]);
    let auth = container.header();
    let image = container.registry.reference("never");
    let variable = ("CNB_REGISTRY_AUTH", auth.as_str());
    let refused = |who: Who, args: &[&str], env: &[(&str, &str)], code: i32, said: &str| {
        let ran = container.ran(who, "creator", &[args, &[&image]].concat(), env);
        assert_eq!(ran.code, Some(code), "{args:?}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
        assert!(!container.path("workspace/ran").exists(), "{args:?}");
    };
    let nobody = "name the build's user for `creator` with -uid and -gid";
    refused(Who::Root, &[], &[variable, ("CNB_USER_ID", "")], 3, nobody);
    refused(Who::Root, &["-uid", "0", "-gid", "0"], &[variable], 3, nobody);
    refused(
        Who::BuildUser,
        &["-uid", "1003"],
        &[variable],
        1,
        "cannot become user 1003, group 1002, as -uid",
    );
    let run = container.registry.reference("run");
    refused(Who::Root, &["-run-image", &run], &[], 32, "the registry refuses access");
    refused(
        Who::Root,
        &[],
        &[("CNB_REGISTRY_AUTH", "{\"a\":\"not a header\"}")],
        3,
        "CNB_REGISTRY_AUTH is not",
    );
    refused(Who::BuildUser, &["-daemon"], &[variable], 3, "images are not exchanged with a daemon");
    // An id that the namespace does not have, for a folder and for the process.
    let nobody_s = ["-uid", "70000", "-gid", "1002"];
    refused(Who::Root, &nobody_s, &[variable], 1, "change owner: `/layers`");
    container.as_root("chmod 777 layers cache");
    refused(Who::Root, &nobody_s, &[variable], 1, "become user 70000, group 1002: setresuid");
}
