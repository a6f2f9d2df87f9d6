//! Applications on newer run images, without a build.

use coracle_fixtures::{Builder, Buildpack, DockerRegistry, Entry, RunImage};
use serde_json::{Value, json};

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

/// A stranger's builder has a mirror written into the label that only the user may read, nearer to the image than what it stands on.
#[test]
fn a_label_alone_does_not_have_credentials_used() {
    let (mut site, open) = (site(), DockerRegistry::open());
    patch(&site, "victim/private");
    open.push(&RunImage::new().image(), "run", "latest");
    let (run, private) = (open.reference("run:latest"), site.registry.reference("victim/private:latest"));
    let mut builder =
        Builder::new(&run).group(&[Buildpack::passing("fixture/web").process(&["cat", "hello"])]).image();
    let label = "io.buildpacks.builder.metadata";
    let mut metadata: Value = serde_json::from_str(&builder.labels[label]).expect("is JSON");
    metadata["images"] = json!([{ "image": run, "mirrors": [private] }]);
    builder = builder.label(label, &metadata.to_string());
    open.push(&builder, "stranger/builder", "latest");
    let app = site.registry.reference("victim/app:latest");
    site.builder = open.reference("stranger/builder:latest");
    let read = || {
        let log = site.registry.access_log();
        log.lines().filter(|line| line.contains("/victim/private/") && line.contains("\" 200 ")).count()
    };
    for publish in [&["--publish"][..], &[]] {
        build(&site, &app, &[&["--run-image", &run][..], publish].concat());
    }
    let manifest: Value =
        serde_json::from_slice(&site.registry.config("victim/app:latest")).expect("a configuration");
    let known = manifest["config"]["Labels"]["io.buildpacks.lifecycle.metadata"].as_str().unwrap_or_default();
    assert!(known.contains(&private), "{known}");
    let before = read();

    let notice = format!(
        "the run image {private} is named by the label of {app} alone, so it is read without your credentials; --run-image {private} reads it with them"
    );
    // It cannot be read, and what the image stands on can.
    let ran = site.home.ok(&["rebase", &app, "--publish"]);
    assert!(ran.stderr.contains(&notice), "{}", ran.stderr);
    // In the store nobody asks which can be.
    let refusal = format!(
        "error: the run image {private} is named by the label of {app} alone, so it is read without your credentials, and its registry refuses that; if it is the one you want, name it yourself: --run-image {private}\n"
    );
    let ran = site.home.run(&["rebase", &app]);
    assert!(ran.code == Some(1) && ran.stderr.contains(&refusal), "{}", ran.stderr);
    drop(open);
    let ran = site.home.run(&["rebase", &app, "--publish"]);
    assert!(ran.code == Some(1) && ran.stderr.contains(&refusal), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(read(), before);

    for more in [&[][..], &["--publish"]] {
        site.home.ok(&[&["rebase", &app, "--run-image", &private], more].concat());
    }
    assert!(read() > before);
    assert_eq!(site.home.leftovers(), Vec::<String>::new());
}
