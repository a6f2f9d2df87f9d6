//! Applications built end to end, as a plain user.

use std::process::{Command, Stdio};

use coracle_fixtures::Buildpack;
use coracle_fixtures::registry::PASSWORD;

use crate::harness::{Ran, ran};
use crate::isolation;
use crate::site::Site;

const RUNTIMES: [&str; 3] = ["youki", "crun", "runc"];

/// A buildpack whose image prints the application's file, with a layer of each kind.
fn greeter() -> Buildpack {
    Buildpack::passing("fixture/greeter")
        .plan("greeting")
        .layer("tools", &["build", "cache"], "tools")
        .layer("words", &["launch"], "words")
        .layer("kept", &["launch", "cache"], "kept")
        // From one folder into another: what sandboxes often break.
        .build("mkdir /tmp/made && touch /tmp/made/file && mv /tmp/made/file \"$1/kept/moved\" && mv /workspace/hello /workspace/h && mkdir x && mv h x/h && mv x/h hello && rmdir x")
        .process(&["cat", "hello", "/layers/fixture_greeter/words/content"])
}

fn build(site: &Site, image: &str, more: &[&str]) -> Ran {
    let args = site.args(image, more);
    site.home.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn built(site: &Site, image: &str, more: &[&str]) -> Ran {
    let ran = build(site, image, more);
    assert_eq!(ran.code, Some(0), "stdout: {}\nstderr: {}", ran.stdout, ran.stderr);
    assert_eq!(site.home.leftovers(), Vec::<String>::new());
    ran
}

/// The line with the image's name and digest.
fn image_line(ran: &Ran) -> String {
    ran.stdout.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn an_application_is_built_into_the_store_and_runs_the_same_under_every_runtime() {
    let site = Site::new(&[greeter()]);
    let mut lines = Vec::new();
    for runtime in RUNTIMES {
        let ran = built(&site, "app", &["--runtime", runtime, "--clear-cache"]);
        for phase in ["ANALYZER", "DETECTOR", "RESTORER", "BUILDER", "EXPORTER"] {
            assert!(ran.stdout.contains(&format!("===> {phase}\n")), "{}", ran.stdout);
        }
        lines.push(image_line(&ran));
        let answer = site.home.ok(&["run", "--runtime", runtime, "app"]);
        assert_eq!(answer.stdout, "hello from the application\nwords", "{runtime}");
    }
    assert!(lines[0].starts_with("index.docker.io/library/app:latest@sha256:"), "{}", lines[0]);
    assert_eq!(lines, vec![lines[0].clone(); 3], "each runtime makes the same image");
}

#[test]
fn a_failing_buildpack_gives_its_output_its_exit_code_and_leaves_nothing() {
    let site = Site::new(&[Buildpack::passing("fixture/broken").build("echo no compiler >&2; exit 9")]);
    for runtime in RUNTIMES {
        let ran = build(&site, "app", &["--runtime", runtime]);
        assert_eq!(ran.code, Some(51), "{}", ran.stderr);
        assert!(ran.stderr.contains("[builder] no compiler\n"), "{}", ran.stderr);
        assert!(
            ran.stderr.contains("buildpack `fixture/broken@1.0.0` failed: exit status: 9"),
            "{}",
            ran.stderr
        );
        let last = "error: the builder failed with exit code 51: a buildpack failed; what it said is above\n";
        assert!(ran.stderr.ends_with(last), "{}", ran.stderr);
        assert_eq!(site.home.leftovers(), Vec::<String>::new());
    }
    assert_eq!(site.home.run(&["run", "app"]).code, Some(1), "no image came of it");
}

#[test]
fn where_no_buildpack_fits_each_one_says_why() {
    let site = Site::new(&[Buildpack::passing("fixture/picky").detect("echo no go.mod; exit 100")]);
    let ran = build(&site, "app", &[]);
    assert_eq!(ran.code, Some(20), "{}", ran.stderr);
    assert!(
        ran.stdout.contains("[detector] fixture/picky@1.0.0: does not take part\n[detector]   no go.mod\n")
    );
    assert!(ran.stderr.contains("no group of buildpacks fits the application"), "{}", ran.stderr);
    let broken = Site::new(&[Buildpack::broken("fixture/broken")]);
    let ran = build(&broken, "app", &[]);
    assert_eq!(ran.code, Some(21), "{}", ran.stderr);
    assert!(ran.stdout.contains("fixture/broken@1.0.0: failed (exit code 7)"), "{}", ran.stdout);
}

#[test]
fn variables_reach_the_buildpacks_and_nothing_else() {
    let buildpack = Buildpack::passing("fixture/env")
        .build("echo \"setting=$SETTING\"; cat \"$2/env/SETTING\"; echo")
        .process(&["env"]);
    let site = Site::new(&[buildpack]);
    let secret = "value-of-setting-8467";
    let ran = built(&site, "app", &["--env", &format!("SETTING={secret}")]);
    assert!(
        ran.stdout.contains(&format!("[builder] setting={secret}\n[builder] {secret}\n")),
        "{}",
        ran.stdout
    );
    assert!(!site.home.ok(&["run", "app"]).stdout.contains(secret));
    assert_eq!(site.home.files_with(secret.as_bytes()), Vec::<String>::new());
}

#[test]
fn a_buildpack_of_a_folder_replaces_the_order() {
    let site = Site::new(&[greeter()]);
    let folder = site.home.path().join("own");
    Buildpack::passing("my/own").process(&["echo", "from my own"]).write(&folder);
    built(&site, "app", &["--buildpack", &folder.display().to_string()]);
    assert_eq!(site.home.ok(&["run", "app"]).stdout, "from my own\n");
    built(&site, "app", &["--buildpack", "fixture/greeter"]);
    assert!(site.home.ok(&["run", "app"]).stdout.starts_with("hello from"));
}

#[test]
fn what_cannot_be_built_is_named_with_the_next_step() {
    let site = Site::new(&[greeter()]);
    let refused = |args: &[&str]| {
        let ran = site.home.run(args);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert_eq!(site.home.leftovers(), Vec::<String>::new());
        ran.stderr
    };
    let app = site.app().display().to_string();
    let run_image = site.registry.reference("run:latest");
    assert_eq!(
        refused(&["build", "app", "--path", "/nowhere", "--builder", &site.builder]),
        "error: could not use the source /nowhere\n  cause: No such file or directory (os error 2)\n"
    );
    let file = site.app().join("hello").display().to_string();
    assert_eq!(
        refused(&["build", "app", "--path", &file, "--builder", &site.builder]),
        format!("error: the source {file} is not a folder; name one with --path\n")
    );
    let ran = refused(&["build", "app", "--path", &app, "--builder", &run_image]);
    assert!(
        ran.ends_with(
            "it has no label io.buildpacks.builder.metadata; name a builder image with --builder\n"
        ),
        "{ran}"
    );
    let ran = refused(&["build", "app", "--path", &app, "--builder", &site.builder, "--buildpack", "a/none"]);
    assert!(ran.ends_with("error: buildpack a/none cannot be used: the builder does not have it\n"), "{ran}");
    let never = ["build", "app", "--path", &app, "--builder", "not-here", "--pull-policy", "never"];
    assert!(refused(&never).contains("not-here:latest is not in the local store"));
}

#[test]
fn a_published_image_is_what_other_tools_read_and_a_second_build_uploads_no_layer() {
    let site = Site::with_password(&[greeter()]);
    let name = site.registry.reference("team/app:1");
    let ran = built(&site, &name, &["--publish", "--tag", &site.registry.reference("team/app:2")]);
    let digest = image_line(&ran).rsplit_once('@').expect("a digest").1.to_owned();
    assert!(site.home.run(&["run", &name]).stderr.contains("is not in the local store"), "published only");

    let uploads = || {
        site.registry
            .access_log()
            .lines()
            .filter(|line| line.contains("PUT") && line.contains("/blobs/uploads/"))
            .count()
    };
    let first = uploads();
    assert!(first >= 7, "layers and a configuration: {first}");
    let again = built(&site, &name, &["--publish"]);
    assert_eq!(image_line(&again).rsplit_once('@').expect("a digest").1, digest, "the same image");
    assert_eq!(uploads(), first, "{}", site.registry.access_log());
    std::fs::write(site.app().join("hello"), "hello again\n").expect("change the application");
    built(&site, &name, &["--publish"]);
    assert_eq!(uploads() - first, 2, "the application's layer and the configuration");

    check_with_other_tools(&site, "team/app:2", &digest);
}

/// skopeo sees the digest, umoci unpacks it, runc starts it from the bundle.
fn check_with_other_tools(site: &Site, name: &str, digest: &str) {
    let folder = site.home.path().join("tools");
    std::fs::create_dir(&folder).expect("make a folder");
    let tool = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).current_dir(&folder).env("HOME", site.home.path()).stdin(Stdio::null());
        let ran = ran(command.output().unwrap_or_else(|error| panic!("{program}: {error}")));
        assert_eq!(ran.code, Some(0), "{program} {args:?}\n{}{}", ran.stdout, ran.stderr);
        ran.stdout
    };
    let auth = site.home.path().join(".docker/config.json").display().to_string();
    let source = format!("docker://{}", site.registry.reference(name));
    let shown = tool(
        "skopeo",
        &["inspect", "--tls-verify=false", "--authfile", &auth, "--format", "{{.Digest}}", &source],
    );
    assert_eq!(shown.trim(), digest);
    let copy = [
        "--insecure-policy",
        "copy",
        "-q",
        "--src-tls-verify=false",
        "--authfile",
        &auth,
        &source,
        "oci:layout:app",
    ];
    tool("skopeo", &copy);
    tool("umoci", &["unpack", "--rootless", "--image", "layout:app", "bundle"]);
    let path = folder.join("bundle/config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).expect("read config.json")).expect("parse config.json");
    assert_eq!(config["process"]["args"], serde_json::json!(["/cnb/process/web"]));
    config["process"]["terminal"] = false.into();
    config["process"]["user"] = serde_json::json!({ "uid": 0, "gid": 0 });
    std::fs::write(&path, config.to_string()).expect("write config.json");
    let id = format!("coracle-{}", std::process::id());
    let said = tool("runc", &["--root", "state", "run", "--bundle", "bundle", &id]);
    assert_eq!(said, "hello from the application\nwords");
}

#[test]
fn a_credential_stays_out_of_logs_store_cache_and_image() {
    let site = Site::with_password(&[greeter()]);
    let name = site.registry.reference("app:latest");
    let ran = built(&site, &name, &["--publish", "--verbose"]);
    let encoded = site.registry.docker_config();
    let encoded = encoded.split('"').find(|text| text.ends_with('=')).expect("a credential").to_owned();
    for secret in [PASSWORD, &encoded] {
        assert!(!ran.stdout.contains(secret) && !ran.stderr.contains(secret), "{}{}", ran.stdout, ran.stderr);
        assert_eq!(site.home.files_with(secret.as_bytes()), Vec::<String>::new());
    }
    site.home.ok(&["pull", &name]);
    assert_eq!(site.home.files_with(encoded.as_bytes()), Vec::<String>::new(), "nor in the image's layers");
    assert_ne!(
        site.home.files_with(b"hello from the application"),
        Vec::<String>::new(),
        "the search finds things"
    );
}

#[test]
fn the_phases_of_buildpacks_are_alone_and_find_no_credential() {
    const SETTING: &str = "a-value-for-buildpacks-5521";
    const ENCODED: &str = "dGVzdGVyOm5vdC1hLXNlY3JldA";
    let probing = Buildpack::passing("fixture/probing").probing(&[PASSWORD, ENCODED, SETTING]);
    let site = Site::with_password(&[probing]);
    for runtime in RUNTIMES {
        let name = site.registry.reference("probed:latest");
        let setting = format!("SETTING={SETTING}");
        let ran = built(&site, &name, &["--publish", "--verbose", "--runtime", runtime, "--env", &setting]);
        for prefix in ["[detector]   {", "[builder] {"] {
            let line = ran.stdout.lines().find(|line| line.starts_with(prefix)).expect("a report");
            let report = serde_json::from_str(&line[prefix.len() - 1..]).expect("a report");
            let found = |text: &str| isolation::found(&report, text).map(Vec::len);
            assert_eq!(
                (found(PASSWORD), found(ENCODED)),
                (Some(0), Some(0)),
                "{runtime}, {prefix}: {report:#}"
            );
            assert!(found(SETTING) >= Some(1), "the search finds what is there: {runtime}, {prefix}");
            isolation::is_closed(&report, runtime, &["write-layers", "write-workspace"]);
        }
    }
}
