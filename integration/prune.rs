//! `coracle prune`: what is of no use goes, what anybody uses stays.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use coracle_fixtures::Buildpack;

use crate::harness::TestHome;
use crate::site::Site;

/// Buildpacks that make a layer that is kept, and take a moment where the application says so.
fn site() -> Site {
    let keeper = Buildpack::passing("fixture/keeper")
        .build("if [ -e stall ]; then echo stalled; sleep 5; fi")
        .layer("kept", &["launch", "cache"], "kept")
        .process(&["cat", "hello"]);
    Site::new(&[keeper])
}

fn data(home: &TestHome) -> std::path::PathBuf {
    home.path().join(".local/share/coracle")
}

/// Names in a folder of ours.
fn names(home: &TestHome, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(data(home).join(folder)).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Everything that is kept: blobs, unpacked layers by maps of ids, caches.
fn kept(home: &TestHome) -> Vec<Vec<String>> {
    let mut kept = vec![names(home, "store/blobs/sha256"), names(home, "caches")];
    kept.extend(names(home, "store/layers").iter().map(|key| names(home, &format!("store/layers/{key}"))));
    kept
}

/// As owner of all ids, in the store.
fn as_owner(home: &TestHome, script: &str) {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--map-auto", "sh", "-euc", script]);
    let status = command.current_dir(data(home).join("store")).status().expect("start unshare");
    assert!(status.success(), "{script}");
}

#[test]
fn what_no_image_names_goes_and_builds_go_on_as_before() {
    let site = site();
    let home = &site.home;
    site.built("app", &[]);
    let once = kept(home);
    assert_eq!(home.ok(&["prune"]).stdout, "freed 0 B\n");
    assert_eq!(kept(home), once);

    fs::write(site.app().join("hello"), "changed\n").expect("change the application");
    site.built("app", &[]);
    let twice = kept(home);
    let would = home.ok(&["prune", "--dry-run"]).stdout;
    // The layer of the source, and with it two documents.
    assert!(
        would.starts_with("would delete unpacked layers: 1\nwould delete blobs: 3\nwould free "),
        "{would}"
    );
    assert_eq!(kept(home), twice);
    let pruned = home.ok(&["prune"]).stdout;
    assert_eq!(pruned, would.replace("would delete", "deleted").replace("would free", "freed"));
    assert_eq!(
        kept(home).iter().map(Vec::len).collect::<Vec<_>>(),
        once.iter().map(Vec::len).collect::<Vec<_>>()
    );
    assert_eq!(home.ok(&["run", "app"]).stdout, "changed\n");
    let requests = site.registry.access_log().len();
    let again = site.built("app", &["--pull-policy", "if-not-present"]).stdout;
    assert!(again.contains("Reusing layer 'fixture/keeper:kept'"), "{again}");
    assert_eq!(site.registry.access_log().len(), requests, "the images were there");
    assert_eq!(home.leftovers(), Vec::<String>::new());
}

#[test]
fn caches_go_when_they_are_old_and_with_all_everything_goes() {
    let site = site();
    let home = &site.home;
    site.built("app", &[]);
    assert_eq!(home.ok(&["prune", "--older-than", "1h"]).stdout, "freed 0 B\n");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let would = home.ok(&["prune", "--older-than", "0m", "--dry-run"]).stdout;
    assert!(
        would.starts_with("would delete caches of applications: 1\nwould free ")
            && !would.ends_with(" 0 B\n"),
        "{would}"
    );
    let pruned = home.ok(&["prune", "--older-than", "0m"]).stdout;
    assert!(pruned.starts_with("deleted caches of applications: 1\nfreed "), "{pruned}");
    assert_eq!(names(home, "caches"), Vec::<String>::new());

    site.built("app", &[]);
    let pruned = home.ok(&["prune", "--all"]).stdout;
    for line in
        ["deleted the image index.docker.io/library/app:latest\n", "deleted caches of applications: 1\n"]
    {
        assert!(pruned.contains(line), "{pruned}");
    }
    assert!(kept(home).iter().all(Vec::is_empty), "{:?}", kept(home));
    assert_eq!(home.ok(&["images"]).stdout, "");
    assert_eq!((home.leftovers(), names(home, "store/staging")), (Vec::new(), Vec::new()));
    site.built("app", &[]);
    assert_eq!(home.ok(&["run", "app"]).stdout, "hello from the application\n");

    let refused = home.run(&["prune", "--older-than", "soon"]);
    let expected = "write a number of minutes, hours or days, such as 90m, 12h or 30d";
    assert!(refused.code == Some(2) && refused.stderr.contains(expected), "{}", refused.stderr);
}

#[test]
fn nothing_that_a_running_build_uses_is_touched() {
    let site = site();
    site.built("app", &[]);
    fs::write(site.app().join("stall"), "").expect("change the application");
    let before = kept(&site.home);
    let args = site.args("app", &[]);
    let mut command = site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let mut build = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start coracle");
    let mut lines = BufReader::new(build.stdout.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains("stalled") {
        line.clear();
        assert_ne!(lines.read_line(&mut line).expect("read"), 0, "the build ended early");
    }
    let pruned = site.home.ok(&["prune", "--all"]);
    assert_eq!(pruned.stdout, "freed 0 B\n");
    let notice =
        "images and layers stay, because another operation is running; prune again when it has ended";
    assert!(pruned.stderr.contains(notice), "{}", pruned.stderr);
    assert_eq!(kept(&site.home), before);
    lines.read_to_string(&mut line).expect("read");
    assert!(build.wait().expect("wait").success(), "{line}");
    assert_eq!(site.home.leftovers(), Vec::<String>::new());
}

#[test]
fn what_a_killed_pull_or_prune_left_goes_although_somebody_looked_who_may_not_delete_it() {
    let site = site();
    let home = &site.home;
    home.ok(&["pull", &site.builder]);
    let key = names(home, "store/layers").remove(0);
    let before = kept(home);
    as_owner(
        home,
        &format!(
            "for left in layers/{key}/.98-0-aa staging/99-0/doomed-1; do mkdir -p $left/inner; touch $left/inner/file; chown -R 7:7 $left; chmod 700 $left; done; mkdir staging/98-0; touch staging/98-0/lock staging/99-0/lock"
        ),
    );
    // As the user, who may not delete it; then as owner of all ids.
    home.ok(&["images"]);
    home.ok(&["pull", &site.builder]);
    assert_eq!((kept(home), names(home, "store/staging")), (before.clone(), Vec::new()));

    let abandoned = data(home).join("work/op-killed");
    fs::create_dir(&abandoned).expect("make a work folder");
    fs::write(abandoned.join("file"), [0; 5000]).expect("fill it");
    fs::write(abandoned.with_extension("lock"), "").expect("make its lock");
    let pruned = home.ok(&["prune"]).stdout;
    assert!(pruned.starts_with("deleted work folders of killed operations: 1\nfreed "), "{pruned}");
    assert_eq!((kept(home), names(home, "store/staging")), (before, Vec::new()));
    assert_eq!(home.leftovers(), Vec::<String>::new());
}
