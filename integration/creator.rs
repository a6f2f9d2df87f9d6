//! A trusted builder: its phases in one container. What that must not change (the image, the messages, who finds what) and what
//! it does (how many containers there are).

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use coracle_fixtures::registry::PASSWORD;
use coracle_fixtures::{Builder, Buildpack};

use crate::harness::{Ran, ran};
use crate::isolation;
use crate::site::Site;

const RUNTIMES: [&str; 3] = ["youki", "crun", "runc"];
const TRUST: &str = "--trust-builder";
/// Also where an earlier build has left layers in the cache.
const ONE_CONTAINER: [&str; 3] = [TRUST, "--restore", "copy"];
const ENCODED: &str = "dGVzdGVyOm5vdC1hLXNlY3JldA";
const SHARED: &str = "is trusted (--trust-builder): its phases share one container\n";

fn layered() -> Buildpack {
    Buildpack::passing("fixture/layered")
        .plan("words")
        .layer("launched", &["launch"], "for the application")
        .layer("cached", &["cache", "build"], "for the next build")
        .build("env | sort >\"$1/launched/environment\"; cp \"$3\" \"$1/launched/plan\"; printf '[metadata]\\nkept = \"yes\"\\n' >\"$1/store.toml\"")
        .process(&["cat", "hello"])
}

/// What stands after `@` in the result.
fn digest(ran: &Ran) -> String {
    let last = ran.stdout.lines().last().expect("a result");
    last.rsplit_once('@').expect("a digest").1.to_owned()
}

#[test]
fn one_container_makes_the_image_that_six_make() {
    let site = Site::with_password(&[layered()]);
    for publish in [false, true] {
        let mut digests = Vec::new();
        for flag in ["--trust-builder=false", TRUST] {
            let image = site.registry.reference(if flag == TRUST { "trusted:1" } else { "untrusted:1" });
            let cache = site.home.path().join("cache").join(flag).display().to_string();
            let tag = image.replace(":1", ":2");
            let mut more = vec![flag, "--restore", "copy", "--tag", &tag, "--cache-dir", &cache];
            if publish {
                more.push("--publish");
            }
            let first = site.built(&image, &more);
            assert!(first.stdout.contains("Adding layer 'fixture/layered:launched'"), "{}", first.stdout);
            let second = site.built(&image, &more);
            for line in
                ["Reusing layer 'fixture/layered:launched'", "Reusing cache layer 'fixture/layered:cached'"]
            {
                assert!(second.stdout.contains(line), "{flag}: {line} in {}", second.stdout);
            }
            assert!(!second.stdout.contains("Adding layer"), "{flag}: {}", second.stdout);
            digests.extend([digest(&first), digest(&second)]);
            let command = "rm -rf -- \"$0\"";
            let mut guests = Command::new("unshare");
            let cleared =
                guests.args(["--user", "--map-root-user", "--map-auto", "sh", "-c", command]).arg(&cache);
            assert!(cleared.status().expect("start unshare").success());
            if !publish {
                assert_eq!(site.home.ok(&["run", &image]).stdout, "hello from the application\n");
            }
        }
        digests.dedup();
        assert_eq!(digests.len(), 1, "published: {publish}: {digests:?}");
    }
}

/// One builder's cache is one, whoever is trusted when: layers that stay unpacked between builds are not those of the one container.
#[test]
fn a_cache_serves_both_flows_in_turn() {
    let content = "cp /workspace/hello \"$1/kept/content\"; echo \"content=$(cat \"$1/kept/content\")\"";
    let found = "echo \"found=$(cat \"$1/kept/content\" 2>/dev/null || true)\"";
    let buildpack = Buildpack::passing("fixture/kept").build(found).layer("kept", &["launch", "cache"], "");
    let buildpack = buildpack.build(content).process(&["cat", "/layers/fixture_kept/kept/content"]);
    let site = Site::new(&[buildpack]);
    let mut before = String::new();
    let (five, one) = (&["--trust-builder=false"][..], &ONE_CONTAINER[..]);
    for (number, more) in [five, one, one, five, &[TRUST], one].into_iter().enumerate() {
        let text = format!("application {}", number / 2);
        fs::write(site.app().join("hello"), &text).expect("write the application");
        let ran = site.built("app", more);
        assert_eq!(ran.stderr.contains(SHARED), more == one, "{number}: {}", ran.stderr);
        assert!(ran.stdout.contains(&format!("found={before}\n")), "{number}: {before}: {}", ran.stdout);
        assert_eq!(site.home.ok(&["run", "app"]).stdout, text, "{number}");
        before = text;
    }
}

#[test]
fn one_container_is_started_in_place_of_six() {
    let site = Site::new(&[layered()]);
    // How many containers, mounts in them, and workers.
    let started = |more: &[&str]| -> [usize; 3] {
        let ran = site.built("app", &[&["--verbose"], more].concat());
        let line =
            ran.stderr.lines().find_map(|line| line.strip_prefix("started: ")).expect("what was started");
        let numbers: Vec<usize> = line.split([' ', ',', ';']).filter_map(|word| word.parse().ok()).collect();
        numbers.try_into().expect("three numbers")
    };
    // The image's layers are unpacked by then; where they were not, a worker more has done that.
    started(&[]);
    let ([six, many, workers], [one, few, fewer]) = (started(&[]), started(&ONE_CONTAINER));
    assert_eq!((six, one, fewer), (6, 1, 4));
    assert!(2 * fewer < workers, "workers: {fewer}, {workers}");
    assert!(2 * few < many, "mounts: {few}, {many}");
}

#[test]
fn trust_for_one_build_is_for_that_build_alone() {
    let site = Site::new(&[Buildpack::passing("fixture/any")]);
    let first = site.built("app", &ONE_CONTAINER).stderr;
    assert!(first.contains(SHARED), "{first}");
    let second = site.built("app", &[]).stderr;
    assert!(
        second.contains(&format!("{} is not trusted (it is not one of the trusted builders)", site.builder)),
        "{second}"
    );
    assert!(!site.home.path().join(".config").exists(), "it was kept");
}

#[test]
fn the_log_says_which_flow_is_taken_and_why() {
    let site = Site::new(&[layered()]);
    let said = |image: &str, more: &[&str]| site.built(image, more).stderr;
    let own = "each phase has a container of its own";
    // Whether the image is published or not.
    let published = site.registry.reference("app");
    for (image, more) in [("app", &[][..]), (&published, &["--publish"])] {
        let line =
            format!("{} is not trusted (it is not one of the trusted builders): {own}\n", site.builder);
        assert!(said(image, more).contains(&line));
    }
    let name = site.builder.trim_end_matches(":latest").to_owned();
    site.home.ok(&["config", "trusted-builders", "add", &name]);
    let trusted = format!("{} is trusted ({name} is one of your trusted builders)", site.builder);
    let reason = "cached layers stay unpacked, and are looked at between phases";
    assert!(said("app", &[]).contains(&format!("{trusted}, but {own}: {reason}\n")));
    // There are none.
    for more in [["--restore", "copy"].as_slice(), &["--clear-cache"]] {
        assert!(said("app", more).contains(&format!("{trusted}: its phases share one container\n")));
    }
    let line = format!("{} is not trusted (--trust-builder=false): {own}\n", site.builder);
    assert!(said("app", &["--trust-builder=false"]).contains(&line));
    let strict = said("app", &["--build-layers", "strict"]);
    assert!(
        strict.contains(&format!("but {own}: --build-layers strict gives each buildpack one\n")),
        "{strict}"
    );
    // Trust is the builder's, and not that of what is brought along.
    let folder = site.home.path().join("own");
    Buildpack::passing("my/own").process(&["cat", "hello"]).write(&folder);
    let brought = said("app", &["--buildpack", &folder.display().to_string()]);
    let reason = format!("but {own}: --buildpack brings a buildpack that is not the builder's\n");
    assert!(brought.contains(&reason), "{brought}");
    let shared = ["--restore", "copy", "--buildpack", "fixture/layered", "--build-layers", "shared"];
    let ran = site.built("app", &shared);
    let reason = "the image was made with another builder or other buildpacks before, which is looked at between phases";
    assert!(ran.stderr.contains(&format!("but {own}: {reason}\n")), "{}", ran.stderr);
    let ran = site.built("app", &shared);
    assert!(ran.stderr.contains("share one container"), "{}", ran.stderr);
    assert!(ran.stdout.contains("===> CREATOR\n"), "{}", ran.stdout);
    for title in ["ANALYZING", "DETECTING", "RESTORING", "BUILDING", "EXPORTING"] {
        assert!(ran.stdout.contains(&format!("[creator] ===> {title}\n")), "{}", ran.stdout);
    }
}

#[test]
fn nothing_is_built_under_a_trusted_name_or_against_a_policy() {
    let site = Site::new(&[layered()]);
    site.home.ok(&["trust-builder", &site.builder]);
    for (image, more) in [(site.builder.as_str(), &[][..]), ("app", &["--tag", &site.builder])] {
        let error = site.refused(1, image, more);
        assert!(error.contains("is the name of a trusted builder"), "{error}");
    }
    let more = ["--publish", "--cache-image", &site.builder];
    let error = site.refused(1, &site.registry.reference("app"), &more);
    assert!(error.contains("is the name of a trusted builder"), "{error}");
    for words in [["import", "nowhere.tar", &site.builder].as_slice(), &["rebase", &site.builder]] {
        let ran = site.home.run(words);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        let start = format!("error: {0} is the name of a trusted builder ({0}): ", site.builder);
        let end = "what lies there would be run as one; choose another name\n";
        assert!(ran.stderr.starts_with(&start) && ran.stderr.ends_with(end), "{}", ran.stderr);
    }
    // Nor where lifecycles come from that play phases with credentials, as chosen and as nobody chose.
    let lifecycle = site.registry.reference("lifecycle");
    site.home.ok(&["config", "lifecycle-image", &lifecycle]);
    let own = format!("{lifecycle}:0.19.3");
    for name in [own.as_str(), "buildpacksio/lifecycle:0.19.3"] {
        let said = "is where lifecycles are looked for";
        assert!(site.refused(1, name, &[]).contains(said));
        assert!(site.refused(1, "app", &["--tag", name]).contains(said));
        for words in [["import", "nowhere.tar", name].as_slice(), &["rebase", name]] {
            let ran = site.home.run(words);
            assert!(ran.code == Some(1) && ran.stderr.contains(said), "{}", ran.stderr);
        }
    }
    let policy = site.home.path().join("policy.toml");
    let write = |text: &str| {
        fs::write(&policy, text).expect("write the policy");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&policy, mode).expect("close the policy");
    };
    let build = |more: &[&str]| {
        let args = site.args("app", more);
        let mut command = site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        ran(command.env("CORACLE_POLICY", &policy).output().expect("start coracle"))
    };
    write("may-trust = []\n");
    let untrusted = build(&[]);
    assert_eq!(untrusted.code, Some(0), "{}", untrusted.stderr);
    let line = format!("is not trusted (the policy {} does not let it be trusted): each", policy.display());
    assert!(untrusted.stderr.contains(&line), "{}", untrusted.stderr);
    let refused = build(&[TRUST]);
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    assert!(refused.stderr.contains("error: --trust-builder: the policy"), "{}", refused.stderr);
    write("may-trust = [");
    for more in [&[][..], &[TRUST], &["--trust-builder=false"]] {
        let broken = build(more);
        assert_eq!(broken.code, Some(1), "{}", broken.stdout);
        assert!(broken.stderr.contains("policy.toml, line 1: "), "{}", broken.stderr);
    }
}

#[test]
fn exit_codes_and_reasons_are_those_of_the_phases() {
    let fails = Buildpack::passing("fixture/fails").build("echo the reason >&2; exit 3");
    let site = Site::new(&[fails]);
    let error = site.refused(51, "app", &[TRUST, "--quiet"]);
    assert!(error.contains("[creator] the reason\n"), "{error}");
    assert!(
        error.contains(
            "error: the creator failed with exit code 51: a buildpack failed; what it said is above\n"
        ),
        "{error}"
    );
    for (buildpack, code, why) in [
        (Buildpack::failing("fixture/none"), 20, "no group of buildpacks fits the application"),
        (
            Buildpack::broken("fixture/broken"),
            21,
            "no group of buildpacks fits, and some failed with an error",
        ),
    ] {
        let site = Site::new(&[buildpack]);
        let error = site.refused(code, "app", &[TRUST]);
        assert!(error.contains(&format!("the creator failed with exit code {code}: {why}")), "{error}");
    }
}

#[test]
fn programs_under_the_creator_find_no_credential_and_gain_nothing() {
    const SETTING: &str = "a-value-for-buildpacks-5521";
    let probing = Buildpack::passing("fixture/probing").probing(&[PASSWORD, ENCODED, SETTING]);
    let site = Site::with_password(&[probing]);
    for runtime in RUNTIMES {
        let name = site.registry.reference("probed:latest");
        let setting = format!("SETTING={SETTING}");
        let more = ["--publish", "--verbose", "--runtime", runtime, "--env", &setting];
        let ran = site.built(&name, &[&ONE_CONTAINER[..], &more].concat());
        assert!(ran.stderr.contains(SHARED), "{}", ran.stderr);
        let reports: Vec<&str> =
            ran.stdout.lines().filter_map(|line| line.strip_prefix("[creator] {")).collect();
        assert_eq!(reports.len(), 2, "detect and build: {runtime}: {}", ran.stdout);
        for report in reports {
            let report = serde_json::from_str(&format!("{{{report}")).expect("a report");
            let found = |text: &str| isolation::found(&report, text).map(Vec::len);
            assert_eq!((found(PASSWORD), found(ENCODED)), (Some(0), Some(0)), "{runtime}: {report:#}");
            assert!(found(SETTING) >= Some(1), "the search finds what is there: {runtime}");
            isolation::is_closed(&report, runtime, &["write-layers", "write-workspace"]);
        }
        for secret in [PASSWORD, ENCODED] {
            assert!(
                !ran.stdout.contains(secret) && !ran.stderr.contains(secret),
                "{runtime}: {}",
                ran.stdout
            );
            assert_eq!(site.home.files_with(secret.as_bytes()), Vec::<String>::new(), "{runtime}");
        }
    }
}

/// Descendants of a process, with their names.
fn descendants(parent: u32) -> Vec<(u32, String)> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let mut found = Vec::new();
    for child in children.collect::<String>().split_whitespace() {
        let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        let name = line.split(|byte| *byte == 0).next().unwrap_or_default();
        let child = child.parse().expect("a process id");
        found.push((child, String::from_utf8_lossy(name).into_owned()));
        found.extend(descendants(child));
    }
    found
}

/// What descriptors of a process stand for, unless it is gone, as root of the stage's namespace sees it, in which all of the build's ids are.
fn descriptors(stage: u32, process: u32) -> Option<String> {
    let mut look = Command::new("nsenter");
    look.args(["--user", "--preserve-credentials", "--target", &stage.to_string(), "ls", "-l"]);
    let ran = ran(look.arg(format!("/proc/{process}/fd")).output().expect("start nsenter"));
    let is_gone = !std::path::Path::new(&format!("/proc/{process}")).exists();
    assert!(ran.code == Some(0) || is_gone, "look into {process}: {}", ran.stderr);
    Some(ran.stdout).filter(|_| ran.code == Some(0))
}

#[test]
fn while_programs_run_no_process_of_the_container_has_the_memory_open() {
    let stalling = Buildpack::passing("fixture/stalling")
        .build("echo stalled; until [ -e /workspace/go ]; do sleep 0.1; done")
        .process(&["true"]);
    let site = Site::with_password(&[stalling]);
    let name = site.registry.reference("app");
    for runtime in RUNTIMES {
        let args = site.args(&name, &[TRUST, "--publish", "--runtime", runtime]);
        let mut command = site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start coracle");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        assert!(lines.any(|line| line.is_ok_and(|line| line == "[creator] stalled")), "{runtime}: it ended");
        let processes = descendants(child.id());
        let of = |wanted: &str| -> Vec<u32> {
            processes.iter().filter(|(_, name)| name == wanted).map(|(id, _)| *id).collect()
        };
        let stage = of("coracle-stage")[0];
        for name in ["/.coracle/init", "/cnb/lifecycle/creator", "/bin/bash"] {
            assert!(!of(name).is_empty(), "{runtime}: {name} in {processes:?}");
            let open: Vec<String> =
                of(name).into_iter().filter_map(|process| descriptors(stage, process)).collect();
            assert!(!open.is_empty(), "{runtime}: {name} is gone");
            for open in open {
                assert!(open.contains("0 -> ") && !open.contains("memfd:"), "{runtime}: {name}: {open}");
                assert!(name == "/bin/bash" || open.contains("0 -> /dev/null"), "{runtime}: {name}: {open}");
            }
        }
        child.kill().expect("end coracle");
        child.wait().expect("wait for coracle");
    }
}

/// Whatever a program of a buildpack leaves where the creator writes or reads afterwards.
#[test]
fn what_programs_prepare_changes_nothing_of_the_image() {
    let prepared = "for folder in /out /layout /tmp/coracle-plans/outbox /tmp/coracle-plans/cache-outbox /cache; do mkdir -p $folder/blobs/sha256 2>/dev/null || true; ln -sfn /workspace $folder/staging 2>/dev/null || true; done; mkdir -p /tmp/coracle-plans; for name in outbox cache-outbox; do rm -rf /tmp/coracle-plans/$name; echo mine >/tmp/coracle-plans/$name; done; echo 'x = [' >/out/report.toml; for name in analyzed group plan; do echo 'not = [' >/layers/$name.toml; done";
    let mut digests = Vec::new();
    // The registry's address is in the image's labels: it must be the same one.
    let site = Site::with_password(&[layered()]);
    let hostile = layered().build(prepared);
    let builder = Builder::new(&site.registry.reference("run:latest")).group(&[hostile]).probe();
    site.registry.push(&builder.image(), "hostile", "latest");
    let plain = site.builder.clone();
    let mut site = site;
    for (number, builder) in [plain, site.registry.reference("hostile:latest")].into_iter().enumerate() {
        site.builder = builder;
        // Under one name the second would be looked at between phases.
        let name = site.registry.reference(&format!("app:{number}"));
        let ran = site.built(&name, &[&ONE_CONTAINER[..], &["--publish"]].concat());
        digests.push(digest(&ran));
        let local = site.built(&name, &ONE_CONTAINER);
        digests.push(digest(&local));
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
}
