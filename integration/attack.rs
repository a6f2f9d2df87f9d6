//! Builders, buildpacks and applications that mean harm.

use std::os::unix::process::CommandExt;
use std::process::Command;

use coracle_fixtures::{Builder, Buildpack, Entry};

use crate::harness::{Ran, ran};
use crate::site::Site;

const RUNTIMES: [&str; 3] = ["youki", "crun", "runc"];

fn command(site: &Site, image: &str, more: &[&str]) -> Command {
    site.home.command(&site.args(image, more).iter().map(String::as_str).collect::<Vec<_>>())
}

fn build(site: &Site, image: &str, more: &[&str]) -> Ran {
    ran(command(site, image, more).output().expect("start coracle"))
}

fn succeeded(ran: &Ran) {
    assert_eq!(ran.code, Some(0), "stdout: {}\nstderr: {}", ran.stdout, ran.stderr);
}

/// A buildpack that says whether its cached layer came back.
fn caching(content: &str) -> Buildpack {
    let tell = "if [ -e \"$1/kept/content\" ]; then echo \"found $(cat \"$1/kept/content\")\"; else echo found nothing; fi";
    Buildpack::passing("fixture/caching")
        .build(tell)
        .layer("kept", &["build", "cache"], content)
        .process(&["cat", "hello"])
}

#[test]
fn what_a_stranger_s_builder_cached_no_other_builder_restores() {
    let mut site = Site::new(&[caching("trusted")]);
    let stranger = Builder::new(&site.registry.reference("run:latest")).group(&[caching("stranger")]);
    site.registry.push(&stranger.image(), "stranger", "latest");
    let (trusted, stranger) = (site.builder.clone(), site.registry.reference("stranger:latest"));
    let folder = site.home.path().join("cache").display().to_string();
    for more in [&[][..], &["--cache-dir", &folder]] {
        for (builder, found) in
            [(&stranger, "nothing"), (&trusted, "nothing"), (&trusted, "trusted"), (&stranger, "stranger")]
        {
            site.builder.clone_from(builder);
            let ran = build(&site, "app", more);
            succeeded(&ran);
            assert!(ran.stdout.contains(&format!("[builder] found {found}\n")), "{found}: {}", ran.stdout);
        }
    }
}

#[test]
fn a_detect_program_cannot_leave_anything_for_the_restorer() {
    let planting = Buildpack::passing("fixture/planting")
        .detect("(mkdir -p /layers/fixture_other && echo planted >/layers/fixture_other/x.toml; ln -s / /layers/sbom; ls -A /layers) || true")
        .build("find /layers")
        .process(&["cat", "hello"]);
    let site = Site::new(&[planting, Buildpack::passing("fixture/other")]);
    let ran = build(&site, "app", &[]);
    succeeded(&ran);
    assert!(!ran.stdout.contains("x.toml"), "{}", ran.stdout);
}

#[test]
fn an_image_s_impossible_variables_are_left_out() {
    let site = Site::new(&[]);
    let builder = Builder::new(&site.registry.reference("run:latest"))
        .group(&[Buildpack::passing("fixture/quiet").process(&["cat", "hello"])]);
    let builder = builder.image().env("", "x").env("A\0B", "x").env("C", "x\0y").env("D\nE", "x");
    site.registry.push(&builder, "builder", "latest");
    for runtime in RUNTIMES {
        succeeded(&build(&site, "app", &["--runtime", runtime]));
    }
}

#[test]
fn a_builder_s_order_that_is_a_fifo_is_named_and_not_waited_for() {
    let site = Site::new(&[]);
    let builder = Builder::new(&site.registry.reference("run:latest"))
        .group(&[Buildpack::passing("fixture/quiet")])
        .file(Entry::fifo("/cnb/order.toml"));
    site.registry.push(&builder.image(), "builder", "latest");
    let ran = build(&site, "app", &[]);
    assert_eq!(ran.code, Some(22), "{}", ran.stderr);
    assert!(ran.stderr.contains("`/cnb/order.toml` is not a regular file"), "{}", ran.stderr);
}

#[test]
fn what_a_stranger_wrote_cannot_drive_the_terminal_through_an_error() {
    let site = Site::new(&[]);
    let loud = Builder::new("\u{1b}]52;c;x\u{7}\u{202e}");
    site.registry.push(&loud.image(), "builder", "latest");
    let ran = build(&site, "app", &[]);
    assert!(ran.stderr.contains("]52;c;x"), "the name is quoted: {}", ran.stderr);
    assert!(!ran.stderr.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{:?}", ran.stderr);
}

#[test]
fn the_umask_of_the_user_decides_nothing() {
    let site = Site::new(&[caching("kept")]);
    for runtime in RUNTIMES {
        let mut command = command(&site, "app", &["--runtime", runtime]);
        let inner = format!("umask 077; exec {:?} \"$@\"", command.get_program());
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(inner).arg0("sh").arg("sh").args(command.get_args());
        shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command = shell;
        succeeded(&ran(command.output().expect("start coracle")));
    }
}

#[test]
fn a_home_or_a_cache_as_source_is_refused_and_one_below_it_left_out() {
    let site = Site::new(&[Buildpack::passing("fixture/quiet").process(&["find", "/workspace"])]);
    succeeded(&build(&site, "app", &[]));
    let home = site.home.path().join(".local/share/coracle");
    for source in [home.clone(), home.join("work")] {
        let source = source.display().to_string();
        let ran = site.home.run(&["build", "app", "--path", &source, "--builder", &site.builder]);
        assert!(ran.stderr.contains("in which images or caches are kept"), "{}", ran.stderr);
    }
    let cache = site.app().join("cache").display().to_string();
    succeeded(&build(&site, "app", &["--cache-dir", &cache]));
    succeeded(&build(&site, "app", &["--cache-dir", &cache]));
    let found = site.home.ok(&["run", "app"]).stdout;
    assert!(found.contains("/workspace/hello") && !found.contains("data"), "{found}");
}
