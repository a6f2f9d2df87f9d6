//! Builds whose phases another lifecycle plays: our own, packed as others are, driven as others are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use coracle_fixtures::{Buildpack, Entry, Image, Layer};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{coracle, ran};
use crate::isolation;
use crate::site::Site;

/// The phases by name, in the order of their bits.
const PHASES: [&str; 5] = ["analyzer", "detector", "restorer", "builder", "exporter"];

/// The program under test as a lifecycle: a folder with what a release archive holds.
pub(crate) struct Packed {
    folder: TempDir,
}

impl Packed {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        let path = folder.path();
        let run = |command: &mut Command| {
            let ran = ran(command.output().unwrap_or_else(|error| panic!("start {command:?}: {error}")));
            assert_eq!(ran.code, Some(0), "{command:?}: {}", ran.stderr);
        };
        run(Command::new(coracle()).args(["lifecycle", "write-files"]).arg(path));
        // Less to copy, without what only a debugger wants.
        run(Command::new("strip").arg("-o").arg(path.join("lifecycle/lifecycle")).arg(coracle()));
        Self { folder }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// As `lifecycle` in the site's registry; gives its name.
    pub(crate) fn push(&self, site: &Site) -> String {
        self.push_as(site, "lifecycle", "latest", |_| {})
    }

    /// Under a name, changed.
    fn push_as(&self, site: &Site, name: &str, tag: &str, change: impl FnOnce(&mut Image)) -> String {
        let mut entries = vec![Entry::dir("/cnb")];
        add(&mut entries, &self.folder.path().join("lifecycle"), "/cnb/lifecycle");
        let mut image = Image::new(vec![Layer::new(&entries)]);
        let labels = fs::read_to_string(self.folder.path().join("labels.json")).expect("read the labels");
        let labels: Value = serde_json::from_str(&labels).expect("is JSON");
        for (name, text) in labels.as_object().expect("is a table") {
            image = image.label(name, text.as_str().expect("is text"));
        }
        change(&mut image);
        site.registry.push(&image, name, tag);
        site.registry.reference(&format!("{name}:{tag}"))
    }
}

fn add(entries: &mut Vec<Entry>, folder: &Path, path: &str) {
    entries.push(Entry::dir(path));
    for entry in fs::read_dir(folder).expect("list a folder") {
        let entry = entry.expect("an entry");
        let path = format!("{path}/{}", entry.file_name().to_string_lossy());
        if let Ok(target) = fs::read_link(entry.path()) {
            entries.push(Entry::symlink(&path, &target.to_string_lossy()));
        } else {
            entries.push(Entry::program(&path, fs::read(entry.path()).expect("read a file")));
        }
    }
}

/// Layers of each kind, a bill of materials, and metadata that come back.
fn worker() -> Buildpack {
    Buildpack::passing("fixture/worker")
        .plan("work")
        .layer("tools", &["build", "cache"], "tools")
        .layer("words", &["launch"], "words")
        .layer("kept", &["launch", "cache"], "kept")
        .build("printf '[metadata]\\nof = \"store\"\\n' >\"$1/store.toml\"")
        .process(&["cat", "hello", "/layers/fixture_worker/words/content"])
}

/// The digest in the last line of a build.
fn digest(stdout: &str) -> &str {
    stdout.lines().last().and_then(|line| line.rsplit_once('@')).expect("an image's digest").1
}

#[test]
fn every_mix_of_native_and_foreign_phases_builds_the_same_image() {
    let site = Site::new(&[worker()]);
    let lifecycle = Packed::new().push(&site);
    let mut digests = Vec::new();
    // Each finds the cache and the image that another mix left.
    for mix in 0..32 {
        let native = PHASES.iter().enumerate().filter(|(bit, _)| mix >> bit & 1 == 1);
        let mut more = vec!["--lifecycle", &lifecycle];
        more.extend(native.flat_map(|(_, phase)| ["--native-phase", phase]));
        let ran = site.built("app", &more);
        digests.push((digest(&ran.stdout).to_owned(), more.join(" ")));
    }
    let expected = digests[0].0.clone();
    let others: Vec<_> = digests.iter().filter(|(digest, _)| *digest != expected).collect();
    assert!(others.is_empty(), "not {expected}: {others:#?}");
    assert_eq!(site.home.ok(&["run", "app"]).stdout, "hello from the application\nwords");
}

/// Foreign alone, and mixed with all native phases.
fn alone_and_native(lifecycle: &str) -> [Vec<&str>; 2] {
    let mut native = vec!["--lifecycle", lifecycle];
    native.extend(PHASES.iter().flat_map(|phase| ["--native-phase", phase]));
    [vec!["--lifecycle", lifecycle], native]
}

#[test]
fn a_lifecycle_is_a_folder_or_an_archive_too_and_nothing_of_it_stays() {
    let site = Site::new(&[worker()]);
    let packed = Packed::new();
    let archive = site.home.path().join("lifecycle.tgz");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(packed.path()).arg("-czf").arg(&archive).args(["lifecycle.toml", "lifecycle"]);
    assert_eq!(ran(tar.output().expect("start tar")).code, Some(0));
    let mut digests = Vec::new();
    for path in [packed.path(), archive] {
        let path = path.display().to_string();
        for more in alone_and_native(&path) {
            let ran = site.built("app", &more);
            let note =
                format!("the lifecycle {path} (version 0.1.0) plays the phases, at Platform API 0.15\n");
            assert!(ran.stderr.contains(&note), "{}", ran.stderr);
            digests.push(digest(&ran.stdout).to_owned());
        }
    }
    assert_eq!(digests, vec![digests[0].clone(); 4]);
    // Its own name, which is in every copy of it.
    let marks = site.home.files_with(b"io.buildpacks.lifecycle.apis");
    let stored = site.home.path().join(".local/share/coracle/store").display().to_string();
    assert!(marks.iter().all(|path| !path.starts_with(&stored)), "{marks:?}");
}

#[test]
fn phases_of_another_lifecycle_reach_registries_with_the_credentials_in_their_file() {
    let site = Site::with_password(&[worker()]);
    let packed = Packed::new();
    let path = packed.path().display().to_string();
    let mut digests = Vec::new();
    for more in alone_and_native(&path) {
        let name = site.registry.reference("team/app:1");
        let more = [&more[..], &["--publish", "--verbose"]].concat();
        let ran = site.built(&name, &more);
        digests.push(digest(&ran.stdout).to_owned());
        for secret in [coracle_fixtures::registry::PASSWORD, "dGVzdGVyOm5vdC1hLXNlY3JldA"] {
            assert!(
                !ran.stdout.contains(secret) && !ran.stderr.contains(secret),
                "{}{}",
                ran.stdout,
                ran.stderr
            );
            assert_eq!(site.home.files_with(secret.as_bytes()), Vec::<String>::new());
        }
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn under_every_runtime_phases_of_another_lifecycle_are_as_closed_as_ours() {
    const SETTING: &str = "a-value-for-buildpacks-7719";
    const ENCODED: &str = "dGVzdGVyOm5vdC1hLXNlY3JldA";
    let secrets = [coracle_fixtures::registry::PASSWORD, ENCODED];
    let probing = worker().probing(&[secrets[0], ENCODED, SETTING]);
    let site = Site::with_password(&[probing]);
    let packed = Packed::new();
    let (path, setting) = (packed.path().display().to_string(), format!("SETTING={SETTING}"));
    let name = site.registry.reference("team/app:1");
    let mut digests = Vec::new();
    for runtime in ["youki", "crun", "runc"] {
        let more = ["--lifecycle", &path, "--runtime", runtime, "--verbose", "--env", &setting];
        digests.push(digest(&site.built(&name, &more).stdout).to_owned());
        let ran = site.built(&name, &[&more[..], &["--publish"]].concat());
        digests.push(digest(&ran.stdout).to_owned());
        for phase in ["detector", "builder"] {
            let start = format!("[{phase}] {{\"");
            let report = ran.stdout.lines().find(|line| line.starts_with(&start)).expect(&ran.stdout);
            let report = serde_json::from_str(&report[phase.len() + 3..]).expect("a report");
            let found = |text: &str| isolation::found(&report, text).map(Vec::len);
            assert_eq!(secrets.map(found), [Some(0); 2], "{runtime} {phase}: {report:#}");
            assert!(found(SETTING) >= Some(1), "the search finds what is there: {runtime} {phase}");
            isolation::is_closed(&report, runtime, &["write-layers", "write-workspace"]);
        }
        for secret in secrets {
            assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(secret), "{runtime}: {}", ran.stdout);
            assert_eq!(site.home.files_with(secret.as_bytes()), Vec::<String>::new(), "{runtime}");
        }
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
}

#[test]
fn a_lifecycle_that_cannot_be_driven_is_named_before_anything_runs() {
    let site = Site::new(&[worker()]);
    let refused = |more: &[&str]| {
        let said = site.refused(1, "app", more);
        assert!(!said.contains("===>"), "{said}");
        said.split_once("error: ").expect("an error").1.to_owned()
    };
    let empty = site.home.path().join("empty");
    fs::create_dir(&empty).expect("make a folder");
    let path = empty.display().to_string();
    let expected = "the lifecycle PATH has no lifecycle.toml; name a release archive of a lifecycle, or the folder with what is in one\n";
    assert_eq!(refused(&["--lifecycle", &path]), expected.replace("PATH", &path));
    fs::write(empty.join("lifecycle.toml"), "[api]\nplatform = \"0.13\"\n").expect("write a file");
    let expected = format!("the lifecycle {path} has no program analyzer in its folder lifecycle\n");
    assert_eq!(refused(&["--lifecycle", &path]), expected);
    fs::create_dir(empty.join("lifecycle")).expect("make a folder");
    for phase in PHASES {
        fs::write(empty.join("lifecycle").join(phase), "").expect("write a file");
    }
    let says = |text: &str| fs::write(empty.join("lifecycle.toml"), text).expect("write a file");
    says("[");
    let said = refused(&["--lifecycle", &path]);
    assert!(
        said.starts_with(&format!(
            "could not read what the lifecycle {path} says of itself\n  cause: parse lifecycle.toml"
        )),
        "{said}"
    );
    says("[api]\nplatform = \"0.99\"\n");
    let expected = "the lifecycle PATH speaks Platform API 0.99, and none of them is known here (known: 0.2 to 0.15); take --lifecycle native\n";
    assert_eq!(refused(&["--lifecycle", &path]), expected.replace("PATH", &path));
    says("[api]\nplatform = \"0.11\"\n");
    let stays = "the lifecycle PATH speaks Platform API 0.11, and lifecycles write images into folders only since 0.12; send the image to its registry with --publish, or take --lifecycle native\n";
    // Our own phases at that Platform API do not either.
    let native = PHASES.iter().flat_map(|phase| ["--native-phase", phase]).collect::<Vec<_>>();
    for more in [&[][..], &native] {
        assert_eq!(refused(&[&["--lifecycle", &path], more].concat()), stays.replace("PATH", &path));
    }
    says("[api]\nplatform = \"0.2\"\n");
    let named = site.registry.reference("app");
    let old = |more: &[&str]| {
        let said = site.refused(1, &named, &[&["--publish", "--lifecycle", &path], more].concat());
        assert!(!said.contains("===>"), "{said}");
        said.split_once(&format!("the lifecycle {path} speaks Platform API 0.2, ")).expect(&said).1.to_owned()
    };
    assert_eq!(
        old(&["--native-phase", "exporter"]),
        "and Coracle's own phases speak 0.7 and later; leave --native-phase out\n"
    );
    assert_eq!(
        old(&["--default-process", "web"]),
        "in which the process to start cannot be chosen (--default-process, since 0.3); leave it out, or take --lifecycle native\n"
    );
    let plain = ["--run-image", "r.example/run", "--insecure-registry", "r.example"];
    assert_eq!(
        old(&plain),
        "in which no registry is spoken to in plain HTTP (--insecure-registry, since 0.13); leave it out, or take --lifecycle native\n"
    );
    for more in [["--tag", "r.example/app"], ["--cache-image", "r.example/cache"]] {
        assert!(
            old(&[&plain[2..], &more].concat())
                .starts_with("in which no registry is spoken to in plain HTTP")
        );
    }
    says("[api]\nplatform = \"0.13\"\n");
    for (option, value, phase) in [
        ("--build-layers", "strict", "builder"),
        ("--shared-layer", "a/b", "builder"),
        ("--compression", "zstd", "exporter"),
    ] {
        assert_eq!(
            refused(&["--lifecycle", &path, option, value]),
            format!(
                "{option} is what Coracle's own {phase} does; add --native-phase {phase}, or take --lifecycle native\n"
            )
        );
    }
    let file = site.app().join("hello").display().to_string();
    let said = refused(&["--lifecycle", &file]);
    let start = format!(
        "the lifecycle {file} is no release archive of a lifecycle, and no folder with what is in one: "
    );
    assert!(said.starts_with(&start), "{said}");
    assert_eq!(
        refused(&["--lifecycle", "/nowhere"]),
        "could not use the lifecycle /nowhere\n  cause: No such file or directory (os error 2)\n"
    );
    assert_eq!(
        refused(&["--native-phase", "builder"]),
        "--native-phase says which phases another lifecycle is not to play; add --lifecycle, or leave it out\n"
    );
    let said = refused(&["--lifecycle", &site.registry.reference("run:latest")]);
    assert!(said.ends_with("run:latest has no folder /cnb/lifecycle\n"), "{said}");
    let expected = format!(
        "builder {} does not say which lifecycle it has; take --lifecycle native, or name an image or an archive of one with --lifecycle\n",
        site.builder
    );
    assert_eq!(refused(&["--lifecycle", "builder"]), expected);
}

/// A builder that says it has this lifecycle, and has ours.
pub(crate) fn builder_with(packed: &Packed, version: &str, run: &str, buildpack: Buildpack) -> Image {
    let mut image = coracle_fixtures::Builder::new(run).group(&[buildpack]).image();
    let label = "io.buildpacks.builder.metadata";
    let mut metadata: Value = serde_json::from_str(&image.labels[label]).expect("is JSON");
    metadata["lifecycle"] = serde_json::json!({
        "version": version,
        "api": { "platform": "0.7", "buildpack": "0.7" },
        "apis": { "platform": { "deprecated": null, "supported": ["0.12", "0.15"] } },
    });
    image.labels.insert(label.to_owned(), metadata.to_string());
    let mut entries = Vec::new();
    add(&mut entries, &packed.path().join("lifecycle"), "/cnb/lifecycle");
    image.layers.push(Layer::new(&entries));
    image
}

#[test]
fn phases_with_credentials_of_an_untrusted_builder_come_from_the_published_lifecycle() {
    let site = Site::with_password(&[worker()]);
    let packed = Packed::new();
    let builder = builder_with(&packed, "0.19.3", &site.registry.reference("run:latest"), worker());
    site.registry.push(&builder, "builder", "latest");
    let native = site.built("app", &[]);
    assert!(
        native
            .stderr
            .contains("the builder's own lifecycle 0.19.3 is not used; --lifecycle builder uses it\n"),
        "{}",
        native.stderr
    );
    let repository = site.registry.reference("team/lifecycle");
    let set = site.home.ok(&["config", "lifecycle-image", &repository]).stdout;
    assert_eq!(set, format!("{repository}\n"));

    // Nothing there yet.
    let refused = |why: &str| {
        let said = site.refused(1, "app", &["--lifecycle", "builder", "--pull-policy", "always"]);
        assert!(!said.contains("===>"), "{said}");
        let said = said.split_once("error: ").expect("an error").1;
        let start = format!(
            "builder {} has the lifecycle 0.19.3, and for the phases with credentials no other copy of it was found ({why}",
            site.builder
        );
        let end = "; trust the builder with --trust-builder, take --lifecycle native, or name an image of a lifecycle with --lifecycle\n";
        assert!(said.starts_with(&start) && said.ends_with(end), "{said}");
    };
    refused(&format!("{repository}:0.19.3: "));
    let labelled = |version: &'static str| {
        move |image: &mut Image| {
            image.labels.insert("io.buildpacks.lifecycle.version".to_owned(), version.to_owned());
        }
    };
    packed.push_as(&site, "team/lifecycle", "0.19.3", labelled("0.19.2"));
    refused(&format!("{repository}:0.19.3 says that its version is `0.19.2`; "));

    // With our own phases where credentials are, no other copy of it is looked for.
    let natives = ["analyzer", "restorer", "exporter"].map(|phase| ["--native-phase", phase]).concat();
    let own = ["--lifecycle", "builder", "--pull-policy", "always"];
    let mixed = site.built("app", &[&own, natives.as_slice()].concat());
    assert_eq!(digest(&mixed.stdout), digest(&native.stdout));
    assert!(!mixed.stderr.contains("plays those with credentials"), "{}", mixed.stderr);
    let said = site.refused(1, "app", &[&own, &natives[2..]].concat());
    assert!(said.contains("for the phases with credentials no other copy of it was found"), "{said}");

    packed.push_as(&site, "team/lifecycle", "0.19.3", labelled("0.19.3"));
    let name = site.registry.reference("app:1");
    for (image, more) in [("app", &[][..]), (&name, &["--publish"][..])] {
        let ran = site.built(image, &[&["--lifecycle", "builder", "--pull-policy", "always"], more].concat());
        let note = format!(
            "the lifecycle of builder {} (version 0.19.3) plays the phases, at Platform API 0.15\nthe lifecycle {repository}:0.19.3 (version 0.19.3) plays those with credentials\n",
            site.builder
        );
        assert!(ran.stderr.contains(&note), "{}", ran.stderr);
    }
    // The same phases at the same API, so the same image.
    let ran = site.built("app", &["--lifecycle", "builder"]);
    assert_eq!(digest(&ran.stdout), digest(&native.stdout));

    // One image whatever the version.
    site.home.ok(&["config", "lifecycle-image", &format!("{repository}:0.19.3")]);
    let other = builder_with(&packed, "0.5.0", &site.registry.reference("run:latest"), worker());
    site.registry.push(&other, "builder", "latest");
    site.built("app", &["--lifecycle", "builder", "--pull-policy", "always"]);
    site.home.ok(&["config", "lifecycle-image", &repository]);
    let said = site.refused(1, "app", &["--lifecycle", "builder"]);
    assert!(said.contains("has the lifecycle 0.5.0, and for the phases with credentials no other copy of it was found (images are published of 0.6.1, and of 0.7.5 and later; "), "{said}");
    assert!(said.contains("; trust the builder with --trust-builder, "), "{said}");
    // And one that is trusted plays them all, those with credentials too.
    for (image, more) in [("app", &[][..]), (&name, &["--publish"][..])] {
        let ran = site.built(image, &[&["--lifecycle", "builder", "--trust-builder"], more].concat());
        assert!(!ran.stderr.contains("plays those with credentials"), "{}", ran.stderr);
        assert!(ran.stderr.contains("is trusted (--trust-builder), but each phase has a container of its own: another lifecycle was chosen"), "{}", ran.stderr);
    }
    let unset = site.home.ok(&["config", "lifecycle-image", "--unset"]).stdout;
    assert_eq!(unset, "docker.io/buildpacksio/lifecycle\n");
}
