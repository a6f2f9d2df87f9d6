//! What foreign code may use up and change in a build: network, time, folders.

use coracle_fixtures::{Builder, Buildpack, Entry};

use crate::harness::Ran;
use crate::site::Site;

const NOTICE: &str = "buildpacks reach what this machine reaches";

#[test]
fn without_a_network_buildpacks_reach_nothing_and_the_image_is_published() {
    // The registry listens on the host's loopback.
    let mut site = Site::new(&[]);
    let address = site.registry.reference("x");
    let (host, port) = address.trim_end_matches("/x").split_once(':').expect("host and port");
    let reach =
        format!("if (exec 3<>/dev/tcp/{host}/{port}) 2>/dev/null; then echo reached; else echo alone; fi");
    let curious = Buildpack::passing("fixture/curious").detect(&format!("{reach} >&2")).build(&reach);
    let builder = Builder::new(&site.registry.reference("run:latest"))
        .group(&[curious.process(&["cat", "hello"])])
        .image();
    site.registry.push(&builder, "curious", "latest");
    site.builder = site.registry.reference("curious:latest");
    let image = site.registry.reference("app:latest");
    let build = |more: &[&str]| -> Ran { site.built(&image, &[&["--publish", "--verbose"], more].concat()) };
    for runtime in ["youki", "crun", "runc"] {
        let ran = build(&["--runtime", runtime, "--network", "none"]);
        assert!(!ran.stdout.contains("reached"), "{}", ran.stdout);
        assert_eq!(ran.stdout.matches("alone\n").count(), 2, "{}", ran.stdout);
        assert!(!ran.stderr.contains(NOTICE), "{}", ran.stderr);
    }
    let ran = build(&[]);
    assert_eq!(ran.stdout.matches("reached\n").count(), 2, "{}", ran.stdout);
    assert_eq!(ran.stderr.matches(NOTICE).count(), 1, "{}", ran.stderr);
}

#[test]
fn a_buildpack_that_does_not_end_is_ended_and_named_with_what_to_do() {
    for (slow, phase) in [
        (Buildpack::passing("fixture/slow").detect("trap '' TERM; sleep 60"), "detector"),
        (Buildpack::passing("fixture/slow").build("trap '' TERM; sleep 60"), "builder"),
    ] {
        let site = Site::new(&[slow.process(&["cat", "hello"])]);
        let said = site.refused(124, "app", &["--timeout", "2s"]);
        let expected = format!(
            "error: the {phase} was ended because it had not finished after 2 seconds; if it needs longer, say so with --timeout\n"
        );
        assert!(said.ends_with(&expected), "{said}");
    }
}

#[test]
fn a_buildpack_that_says_nothing_any_more_is_ended_and_told_apart_from_one_that_takes_its_time() {
    // In pieces without an end of a line, for longer than the limit altogether.
    let talking = "for i in 1 2 3 4 5 6; do printf .; sleep 1; done; echo";
    let site = Site::new(&[Buildpack::passing("fixture/idle").build(talking).process(&["cat", "hello"])]);
    for runtime in ["youki", "crun", "runc"] {
        site.built("app", &["--idle-timeout", "4s", "--runtime", runtime]);
    }
    let silent = "echo the last word; sleep 60";
    let site = Site::new(&[Buildpack::passing("fixture/idle").build(silent).process(&["cat", "hello"])]);
    for runtime in ["youki", "crun", "runc"] {
        let said = site.refused(124, "app", &["--idle-timeout", "2s", "--runtime", runtime]);
        let expected = "error: the builder was ended because it had printed nothing for 2 seconds; what it said last is above; if it needs longer, say so with --idle-timeout\n";
        assert!(said.ends_with(expected), "{said}");
    }
}

#[test]
fn a_buildpack_that_fills_the_disk_is_ended_and_told_by_how_much() {
    let filling = "dd if=/dev/zero of=FOLDER/large bs=1M count=40 2>/dev/null; sleep 300";
    for folder in ["\"$1\"", "/tmp", "."] {
        let filling = filling.replace("FOLDER", folder);
        let site =
            Site::new(&[Buildpack::passing("fixture/large").build(&filling).process(&["cat", "hello"])]);
        let said = site.refused(153, "app", &["--max-disk", "32M"]);
        let expected = "error: the builder was ended because layers, application and temporary files took more than 32 MiB; if it needs more, say so with --max-disk\n";
        assert!(said.ends_with(expected), "{folder}: {said}");
    }
}

#[test]
fn what_a_buildpack_writes_into_files_without_a_name_counts() {
    let filling =
        "exec 7>\"$1/large\"; rm \"$1/large\"; dd if=/dev/zero bs=1M count=40 >&7 2>/dev/null; sleep 300";
    let site = Site::new(&[Buildpack::passing("fixture/large").build(filling).process(&["cat", "hello"])]);
    for runtime in ["youki", "crun", "runc"] {
        let said = site.refused(153, "app", &["--max-disk", "32M", "--runtime", runtime]);
        let expected = "error: the builder was ended because layers, application and temporary files took more than 32 MiB; if it needs more, say so with --max-disk\n";
        assert!(said.ends_with(expected), "{runtime}: {said}");
    }
}

#[test]
fn buildpacks_write_where_they_are_meant_to() {
    let site = Site::new(&[]);
    let writing = "for folder in \"$1\" \"$HOME\" /tmp /var/tmp . /open; do touch $folder/x 2>/dev/null && echo $folder yes || echo $folder no; done";
    let builder = Builder::new(&site.registry.reference("run:latest"))
        .group(&[Buildpack::passing("fixture/writing").build(writing).process(&["cat", "hello"])])
        .file(Entry::dir("/open").mode(0o1777))
        .file(Entry::dir("/var/tmp").mode(0o1777));
    site.registry.push(&builder.image(), "builder", "latest");
    for more in [&[][..], &["--build-layers", "strict"]] {
        let ran = site.built("app", more);
        let expected = "[builder] /layers/fixture_writing yes\n[builder] /home/cnb yes\n[builder] /tmp yes\n[builder] /var/tmp yes\n[builder] . yes\n[builder] /open no\n";
        assert!(ran.stdout.contains(expected), "{}", ran.stdout);
    }
}
