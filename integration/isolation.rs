//! What a guest can see and do, as a program inside reports it, under every runtime.

use coracle_fixtures::registry::PASSWORD;
use coracle_fixtures::{Builder, Buildpack, DockerRegistry, Entry, RegistryAccess, RunImage, probe};
use serde_json::{Value, json};

use crate::harness::TestHome;

fn hexadecimal(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_guest_sees_itself_and_nothing_of_the_host() {
    const OF_THE_HOST: &str = "only-the-host-knows-this";
    const OF_THE_GUEST: &str = "the-guest-was-told-this";
    let registry = DockerRegistry::start(RegistryAccess::Password);
    let program = std::fs::read(probe()).expect("read the probe");
    registry.push(
        &RunImage::new().file(Entry::program("/usr/bin/probe", program)).image(),
        "probe",
        "latest",
    );
    let (home, name) = (TestHome::new(), registry.reference("probe:latest"));
    let docker = home.path().join(".docker");
    std::fs::create_dir(&docker).expect("make .docker");
    std::fs::write(docker.join("config.json"), registry.docker_config()).expect("write config.json");
    home.ok(&["pull", &name]);
    let finds = [PASSWORD, "dGVzdGVyOm5vdC1hLXNlY3JldA==", OF_THE_HOST, OF_THE_GUEST]
        .map(|text| format!("find={}", hexadecimal(text)));
    for runtime in ["youki", "crun", "runc"] {
        let told = format!("TOLD={OF_THE_GUEST}");
        let mut arguments = vec!["run", "--runtime", runtime, "-e", &told, &name, "probe", "in=/"];
        arguments.extend(finds.iter().map(String::as_str));
        let output = home.command(&arguments).env("KNOWN", OF_THE_HOST).output().expect("start coracle");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{runtime}: {error}: {}", String::from_utf8_lossy(&output.stderr))
        });
        let found = |text: &str| report["search"]["found"][hexadecimal(text)].as_array().map(Vec::len);
        assert_eq!(found(PASSWORD), Some(0), "{runtime}: {report:#}");
        assert_eq!(found("dGVzdGVyOm5vdC1hLXNlY3JldA=="), Some(0), "{runtime}: {report:#}");
        assert_eq!(found(OF_THE_HOST), Some(0), "{runtime}: {report:#}");
        // The search does find: the guest's own environment.
        assert_eq!(found(OF_THE_GUEST), Some(1), "{runtime}: {report:#}");
        guest_is_alone(&report, runtime);
    }
}

#[test]
fn a_buildpack_reports_on_one_line_what_it_sees() {
    let registry = DockerRegistry::open();
    let buildpack = Buildpack::passing("test/probe").probing(&["is-told", "is-not-told"]);
    registry.push(
        &Builder::new("run").group(std::slice::from_ref(&buildpack)).probe().image(),
        "builder",
        "latest",
    );
    let (home, name) = (TestHome::new(), registry.reference("builder:latest"));
    home.ok(&["pull", &name]);
    for program in ["detect", "build"] {
        let path = format!("{}/bin/{program}", buildpack.folder());
        let ran = home.ok(&["run", "-e", "A=is-told", &name, &path, "/platform", "/tmp/plan"]);
        assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);
        let report: Value = serde_json::from_str(&ran.stdout).expect("a report");
        let found = &report["search"]["found"];
        // The shell that started the probe, and the probe: in their environments, and where the Yama module lets a
        // process look at its parent, in the shell's memory.
        let places = found[hexadecimal("is-told")].as_array().map(Vec::len);
        assert!(places >= Some(2), "{found:#}");
        assert_eq!(found[hexadecimal("is-not-told")], json!([]));
    }
}

/// Where the probe found this text.
pub(crate) fn found<'a>(report: &'a Value, text: &str) -> Option<&'a Vec<Value>> {
    report["search"]["found"][hexadecimal(text)].as_array()
}

fn guest_is_alone(report: &Value, runtime: &str) {
    let processes = report["processes"].as_array().map(Vec::len);
    assert_eq!(processes, Some(2), "process 1 and the probe: {runtime}: {report:#}");
    is_closed(report, runtime, &[]);
}

/// What holds wherever foreign code runs; `more` of the probe's attempts may succeed.
pub(crate) fn is_closed(report: &Value, runtime: &str, more: &[&str]) {
    let shown = || format!("{runtime}: {report:#}");
    assert_eq!(report["uid"], json!([1001, 1001, 1001]), "{}", shown());
    assert_eq!(report["gid"], json!([1002, 1002, 1002]), "{}", shown());
    assert_eq!(report["groups"], json!([]), "{}", shown());
    assert_eq!(report["uid_map"], json!(["0 1 65536"]), "{}", shown());
    for set in ["CapAmb", "CapBnd", "CapEff", "CapInh", "CapPrm"] {
        assert_eq!(report["status"][set], "0000000000000000", "{}", shown());
    }
    assert_eq!(report["status"]["NoNewPrivs"], "1", "{}", shown());
    assert_eq!(report["status"]["Seccomp"], "2", "{}", shown());
    assert_eq!(report["hostname"], "coracle", "{}", shown());
    assert_eq!(report["keys"], json!([]), "{}", shown());
    let files: Vec<&String> =
        report["files"].as_object().into_iter().flatten().map(|(name, _)| name).collect();
    assert_eq!(files, ["0", "1", "2"], "{}", shown());
    for (path, state) in report["hidden"].as_object().into_iter().flatten() {
        assert!(state == "absent" || state == "empty", "{path} is {state}: {}", shown());
    }
    for kind in ["cgroup", "ipc", "mnt", "pid", "user", "uts"] {
        let own = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("read a namespace's name");
        assert_ne!(report["namespaces"][kind], own.to_string_lossy().as_ref(), "{}", shown());
    }
    let allowed = ["read-keys", "socket-inet", "socket-netlink", "write-tmp", "connect-public"];
    for (attempt, result) in report["attempts"].as_object().into_iter().flatten() {
        let may = allowed.iter().chain(more).any(|allowed| allowed == attempt);
        assert!(result != "ok" || may, "{attempt} succeeded: {}", shown());
    }
}
