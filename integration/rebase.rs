//! Applications on newer run images, without a build.

use coracle_fixtures::{Buildpack, Entry, RunImage};

use crate::site::Site;

fn site() -> Site {
    let web = Buildpack::passing("fixture/web").build(
        "printf '[[processes]]\\ntype = \"web\"\\ncommand = [\"cat\"]\\nargs = [\"/etc/patched\", \"hello\"]\\ndefault = true\\n' >\"$1/launch.toml\"",
    );
    Site::with_password(&[web])
}

fn build(site: &Site, image: &str, more: &[&str]) -> String {
    let args = site.args(image, more);
    site.home.ok(&args.iter().map(String::as_str).collect::<Vec<_>>()).stdout
}

/// The run image with one more file.
fn patch(site: &Site, name: &str) {
    site.registry.push(
        &RunImage::new().file(Entry::file("etc/patched", "patched\n")).image(),
        name,
        "latest",
    );
}

#[test]
fn an_image_of_the_store_runs_on_the_new_run_image() {
    let site = site();
    build(&site, "app", &[]);
    assert_ne!(site.home.run(&["run", "app"]).code, Some(0));
    patch(&site, "run");
    for runtime in ["youki", "crun"] {
        let ran = site.home.ok(&["rebase", "app", "--runtime", runtime]);
        let digest = ran.stdout.trim();
        assert!(digest.starts_with("sha256:"), "{digest}");
        assert!(site.home.ok(&["images"]).stdout.contains(digest));
        let ran = site.home.ok(&["run", "app"]);
        assert_eq!(ran.stdout, "patched\nhello from the application\n");
    }
    assert_eq!(site.home.leftovers(), Vec::<String>::new());
}

#[test]
fn a_published_image_moves_without_its_layers() {
    let site = site();
    let app = site.registry.reference("team/app");
    build(&site, &app, &["--publish"]);
    patch(&site, "run");
    let before = site.registry.access_log().len();
    let ran = site.home.ok(&["rebase", &app, "--publish"]);
    let manifest = site.registry.manifest("team/app:latest");
    assert_eq!(ran.stdout.lines().last(), Some(coracle::Digest::of(manifest).as_str()));
    let log = site.registry.access_log().split_off(before);
    let uploads = log.lines().filter(|line| line.contains("\"PUT ") && line.contains("/blobs/uploads/"));
    // The configuration; the run image's new layer is taken over within the registry.
    assert_eq!(uploads.count(), 1, "{log}");
    site.home.ok(&["pull", &app]);
    assert_eq!(site.home.ok(&["run", &app]).stdout, "patched\nhello from the application\n");
    assert_eq!(site.home.leftovers(), Vec::<String>::new());
}

#[test]
fn what_must_stay_says_why_and_force_moves_it() {
    let site = site();
    let published = site.registry.reference("team/app");
    build(&site, "app", &[]);
    build(&site, &published, &["--publish"]);
    patch(&site, "other");
    let other = site.registry.reference("other:latest");
    for args in [vec!["rebase", "app"], vec!["rebase", &published, "--publish"]] {
        let args = [&args[..], &["--run-image", &other]].concat();
        let ran = site.home.run(&args);
        assert_ne!(ran.code, Some(0));
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains("is none of the run images that the image was built for"), "{said}");
        let ran = site.home.ok(&[&args[..], &["--force"]].concat());
        assert!(format!("{}{}", ran.stdout, ran.stderr).contains("overruled"), "{}", ran.stderr);
    }
    assert_eq!(site.home.ok(&["run", "app"]).stdout, "patched\nhello from the application\n");
    let ran = site.home.run(&["rebase", "absent"]);
    assert!(ran.stderr.contains("is not in the local store"), "{}", ran.stderr);
    let ran = site.home.run(&["rebase", &site.registry.reference("run:latest"), "--publish"]);
    assert!(ran.stderr.contains("only images that buildpacks built can be rebased"), "{}", ran.stderr);
    assert_eq!(site.home.leftovers(), Vec::<String>::new());
}
