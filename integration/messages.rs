//! What users read where something is wrong before any container runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use coracle_fixtures::builder::base_layer;

use crate::harness::{Ran, TestHome, ran};

fn output(command: &mut Command) -> Ran {
    ran(command.output().expect("start coracle"))
}

/// Exit code and standard error.
fn said(ran: &Ran) -> (Option<i32>, &str) {
    (ran.code, &ran.stderr)
}

#[test]
fn what_is_typed_wrong_is_told_before_anything_is_done() {
    let home = TestHome::new();
    for (args, text) in [
        (&["frobnicate"][..], "unrecognized subcommand 'frobnicate'"),
        (&["pull", "Upper/case"], "`Upper/case` is not an image name: a repository is lower-case letters"),
        (
            &["build", "app"],
            "error: the build has no builder: name one with --builder or CORACLE_BUILDER, or one for all builds with coracle config default-builder; coracle builder suggest lists some\n",
        ),
        (&["build", "app", "--builder", "b", "--network", "some"], "invalid value 'some' for '--network"),
        (
            &["build", "app", "--builder", "b", "--timeout", "5"],
            "invalid value '5' for '--timeout <TIME>': write a number of seconds, minutes or hours, such as 90s, 30m or 2h",
        ),
        (
            &["build", "app", "--builder", "b", "--compression", "zstd:23"],
            "invalid value 'zstd:23' for '--compression <NAME[:LEVEL]>': write gzip, zstd or none, where wanted with a level: gzip:1 to gzip:9, zstd:1 to zstd:22",
        ),
        (&["build", "app", "--builder", "b", "--runtime", "docker"], "[possible values: youki, crun, runc]"),
        (
            &["build", "app", "--builder", "b", "--buildpack", "/nowhere"],
            "neither the id of a buildpack in the builder",
        ),
    ] {
        let ran = home.run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(text), "{args:?}: {}", ran.stderr);
    }
    assert!(!home.path().join(".local").exists(), "nothing was made");
}

#[test]
fn a_home_that_cannot_be_used_is_named() {
    let home = TestHome::new();
    let none = output(home.command(&["images"]).env_remove("HOME"));
    let expected = "error: there is no folder to keep images in: neither --home, CORACLE_HOME, XDG_DATA_HOME nor HOME is set\n";
    assert_eq!(said(&none), (Some(1), expected));
    let file = home.path().join("file");
    fs::write(&file, "").expect("write");
    let named = home.run(&["--home", &file.display().to_string(), "images"]);
    let expected =
        format!("error: could not create {}\n  cause: File exists (os error 17)\n", file.display());
    assert_eq!(said(&named), (Some(1), expected.as_str()));
    let open = home.path().join("open");
    fs::create_dir(&open).expect("make a folder");
    fs::set_permissions(&open, Permissions::from_mode(0o755)).expect("open it");
    let entered = output(home.command(&["images"]).env("CORACLE_HOME", &open));
    assert!(entered.stderr.contains("close it with: chmod 700"), "{}", entered.stderr);
}

#[test]
fn credentials_that_cannot_be_read_are_named_and_not_repeated() {
    let home = TestHome::new();
    let folder = home.path().join("docker");
    let config = folder.join("config.json");
    fs::create_dir(&folder).expect("make a folder");
    let pull = || output(home.command(&["pull", "127.0.0.1:1/x"]).env("DOCKER_CONFIG", &folder));
    let start = format!("error: could not use the credentials in {}\n  cause: ", config.display());
    for (content, cause) in [
        ("{\"hidden-9482", "the credentials are not a JSON object as Docker writes it (line 1, column 13)\n"),
        (
            "{\"auths\":{\"r.example\":{\"auth\":\"hidden-9482\"}}}",
            "the credentials for `r.example` cannot be read: expected `auth` as base64 of `user:password`\n",
        ),
    ] {
        fs::write(&config, content).expect("write");
        let ran = pull();
        assert_eq!(said(&ran), (Some(1), format!("{start}{cause}").as_str()));
        assert!(!ran.stderr.contains("hidden-9482"));
    }
    fs::remove_file(&config).and_then(|()| fs::create_dir(&config)).expect("make a folder");
    let expected = format!(
        "error: could not use the credentials in {}: it is no regular file, or has more than 4 MiB; name another with --registry-auth-file\n",
        config.display()
    );
    assert_eq!(said(&pull()), (Some(1), expected.as_str()));
}

#[test]
fn helpers_for_id_maps_that_are_missing_or_refuse_are_named() {
    let home = TestHome::new();
    let bin = home.path().join("bin");
    fs::create_dir(&bin).expect("make a folder");
    let pull = || output(home.command(&["pull", "127.0.0.1:1/x"]).env("PATH", &bin));
    let missing = pull();
    let expected = "could not start newuidmap, which writes the id map; it comes with the package uidmap\n";
    assert!(missing.code == Some(1) && missing.stderr.contains(expected), "{}", missing.stderr);
    fs::write(bin.join("newuidmap"), "#!/bin/sh\necho newuidmap: not today >&2\nexit 1\n").expect("write");
    fs::set_permissions(bin.join("newuidmap"), Permissions::from_mode(0o755)).expect("set a mode");
    let refused = pull();
    let expected = "newuidmap refused the id map: newuidmap: not today";
    assert!(refused.code == Some(1) && refused.stderr.contains(expected), "{}", refused.stderr);
    assert_eq!(home.leftovers(), Vec::<String>::new());
}

#[test]
fn images_of_the_store_that_cannot_be_started_say_why() {
    let home = TestHome::new();
    let archive = home.path().join("root.tar");
    fs::write(&archive, base_layer().tar()).expect("write the archive");
    let archive = archive.display().to_string();
    home.ok(&["import", &archive, "plain"]);
    home.ok(&["import", &archive, "ghost", "--user", "ghost"]);
    let name = |image: &str| format!("index.docker.io/library/{image}:latest");
    let nothing = home.run(&["run", "plain"]);
    let expected = format!(
        "error: image {} has neither an entrypoint nor a command; name a program after the image\n",
        name("plain")
    );
    assert_eq!(said(&nothing), (Some(1), expected.as_str()));
    let ghost = home.run(&["run", "ghost", "true"]);
    let expected = "error: the image names the user ghost, but its /etc/passwd does not\n";
    assert_eq!(said(&ghost), (Some(1), expected));
    assert_eq!(home.leftovers(), Vec::<String>::new());
    // As if they had been unpacked for another range of ids: they are unpacked again of what is stored.
    let store = home.path().join(".local/share/coracle/store");
    let key = fs::read_dir(store.join("layers")).expect("list").flatten().next().expect("a key").path();
    fs::rename(&key, store.join("layers/other")).expect("rename");
    home.ok(&["run", "plain", "true"]);
    // And as if the machine's power had gone before they were on the disk.
    let marks = || fs::read_dir(store.join("unsettled")).expect("list").flatten().map(|mark| mark.path());
    assert_ne!(marks().count(), 0);
    marks().for_each(|mark| fs::write(mark, "another run").expect("write"));
    home.ok(&["run", "plain", "true"]);
    assert!(marks().all(|mark| fs::read_to_string(mark).expect("read") != "another run"));
    // Of nothing they cannot.
    marks().for_each(|mark| fs::write(mark, "another run").expect("write"));
    let blobs = fs::read_dir(store.join("blobs/sha256")).expect("list").flatten();
    let largest = blobs.max_by_key(|blob| blob.metadata().expect("about").len()).expect("a layer");
    fs::remove_file(largest.path()).expect("delete");
    let elsewhere = home.run(&["run", "plain", "true"]);
    let expected = format!(
        "error: image {0} is stored, but not unpacked for the ids of this user, and not all of it is here to do that; fetch it again with: coracle pull {0}\n",
        name("plain")
    );
    assert_eq!(said(&elsewhere), (Some(1), expected.as_str()));
    // A damaged store is named, and nothing is written over it.
    let index = home.path().join(".local/share/coracle/store/index.json");
    fs::write(&index, "{").expect("write");
    let damaged = home.run(&["images"]);
    assert_eq!(damaged.code, Some(1), "{}", damaged.stdout);
    assert!(damaged.stderr.contains("index.json"), "{}", damaged.stderr);
    assert_eq!(fs::read_to_string(&index).expect("read"), "{");
}

/// With no descriptors left, the first thing that fails is told.
#[test]
fn without_descriptors_the_step_that_failed_is_named() {
    let home = TestHome::new();
    let command = home.command(&["images"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 3; exec \"$0\" images"]).arg(command.get_program()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let expected = "error: could not listen for signals\n  cause: Too many open files (os error 24)\n";
    assert_eq!(said(&output(&mut shell)), (Some(1), expected));
}
