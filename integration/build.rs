//! Applications built end to end, as a plain user.

use coracle_fixtures::Buildpack;

use crate::harness::Ran;
use crate::site::Site;

const RUNTIMES: [&str; 3] = ["youki", "crun", "runc"];

/// A buildpack whose image prints the application's file, with a layer of each kind.
fn greeter() -> Buildpack {
    Buildpack::passing("fixture/greeter")
        .plan("greeting")
        .layer("tools", &["build", "cache"], "tools")
        .layer("words", &["launch"], "words")
        .layer("kept", &["launch", "cache"], "kept")
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
