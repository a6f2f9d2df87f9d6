//! Platform API 0.15 in `coracle build`: buildpacks of the system, and what an image is for.

use coracle_fixtures::{Builder, Buildpack, DockerRegistry, Entry, RunImage};
use serde_json::Value;

use crate::harness::Ran;
use crate::lifecycles::Packed;
use crate::site::Site;

const SYSTEM: &str = "[[system.pre.buildpacks]]\nid = \"sys/first\"\nversion = \"1.0.0\"\noptional = true\n\
    [[system.post.buildpacks]]\nid = \"sys/last\"\nversion = \"1.0.0\"\n\
    [[system.post.buildpacks]]\nid = \"team/own\"\nversion = \"1.0.0\"\n";

/// A builder whose order is `team/own` alone, between two of the system; it has variables that are the platform's to set.
fn site(own: Buildpack) -> Site {
    let registry = DockerRegistry::open();
    let mut builder = Builder::new(&registry.reference("run:latest")).group(&[own]);
    for id in ["sys/first", "sys/last"] {
        builder.buildpacks.push(Buildpack::passing(id).layer("l", &["launch"], id));
    }
    let builder = builder.file(Entry::file("/cnb/system.toml", SYSTEM));
    let mut image = builder.image();
    image.env.push(("CNB_EXEC_ENV".to_owned(), "of-the-builder".to_owned()));
    image.env.push(("CNB_SYSTEM_PATH".to_owned(), "/dev/null".to_owned()));
    Site::of(registry, &RunImage::new().image(), &image)
}

/// The buildpacks that took part, by the image's own word.
fn buildpacks(site: &Site, image: &str) -> Vec<String> {
    let config: Value = serde_json::from_slice(&site.registry.config(image)).expect("a configuration");
    let text = config["config"]["Labels"]["io.buildpacks.build.metadata"].as_str().expect("a label");
    let metadata: Value = serde_json::from_str(text).expect("is JSON");
    let buildpacks = metadata["buildpacks"].as_array().expect("a list");
    buildpacks.iter().map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn buildpacks_of_the_system_take_part_whoever_plays_the_phases_unless_they_are_left_out() {
    let site = site(Buildpack::passing("team/own"));
    let packed = Packed::new().push(&site);
    let flows: [&[&str]; 3] = [&[], &["--trust-builder", "--restore", "copy"], &["--lifecycle", &packed]];
    for flow in flows {
        let built = |more: &[&str]| {
            site.built(&site.registry.reference("app:latest"), &[flow, &["--publish"], more].concat());
            buildpacks(&site, "app:latest")
        };
        assert_eq!(built(&[]), ["sys/first", "team/own", "sys/last"], "{flow:?}");
        assert_eq!(built(&["--disable-system-buildpacks"]), ["team/own"], "{flow:?}");
        // The user's order takes the builder's place, not the system's.
        assert_eq!(built(&["--buildpack", "sys/last"]), ["sys/first", "sys/last", "team/own"], "{flow:?}");
    }
}

#[test]
fn one_of_the_system_that_does_not_fit_ends_the_build() {
    let registry = DockerRegistry::open();
    let mut builder =
        Builder::new(&registry.reference("run:latest")).group(&[Buildpack::passing("team/own")]);
    builder.buildpacks.extend([Buildpack::failing("sys/first"), Buildpack::passing("sys/last")]);
    let builder = builder.file(Entry::file("/cnb/system.toml", SYSTEM));
    let site = Site::of(registry, &RunImage::new().image(), &builder.image());
    let said = site.refused(20, "app", &[]);
    assert!(said.contains("no group of buildpacks fits the application"), "{said}");
    site.built("app", &["--disable-system-buildpacks"]);
}

/// What the buildpack was told the image is for, and what the image and the launcher know of it.
fn told(site: &Site, ran: &Ran, name: &str) -> (String, Value, Value) {
    let mut lines = ran.stdout.lines();
    let said = lines.find_map(|line| line.split("for=").nth(1)).unwrap_or_default().to_owned();
    let config: Value = serde_json::from_slice(&site.registry.config(name)).expect("a configuration");
    let label = config["config"]["Labels"]["io.buildpacks.exec-env"].clone();
    (said, label, config["config"]["Entrypoint"][0].clone())
}

#[test]
fn an_image_is_for_what_the_user_says() {
    let processes = "printf '[[processes]]\\ntype = \"web\"\\ncommand = [\"cat\"]\\nexec-env = [\"production\"]\\n\
        [[processes]]\\ntype = \"check\"\\ncommand = [\"echo\", \"checked\"]\\nexec-env = [\"test\"]\\ndefault = true\\n' >$1/launch.toml";
    let own = Buildpack { api: "0.12".to_owned(), ..Buildpack::passing("team/own") };
    let own = own.build("echo for=$CNB_EXEC_ENV").build(processes);
    let site = site(own);
    let name = site.registry.reference("app:latest");
    for flow in [&[][..], &["--trust-builder", "--restore", "copy"]] {
        let built = |more: &[&str]| site.built(&name, &[flow, &["--publish"], more].concat());
        let (said, label, _) = told(&site, &built(&[]), "app:latest");
        assert_eq!((said.as_str(), label.as_str()), ("production", Some("production")), "{flow:?}");
        let (said, label, entrypoint) = told(&site, &built(&["--exec-env", "test"]), "app:latest");
        assert_eq!((said.as_str(), label.as_str()), ("test", Some("test")), "{flow:?}");
        assert_eq!(entrypoint, "/cnb/process/check", "{flow:?}");
    }
    site.home.ok(&["pull", &name]);
    assert_eq!(site.home.ok(&["run", "--env", "CNB_EXEC_ENV=test", &name]).stdout, "checked\n");
    let said = site.home.run(&["run", &name]).stderr;
    let why = "process type `check` is not for the execution environment `production`: set CNB_EXEC_ENV";
    assert!(said.contains(why), "{said}");
}

#[test]
fn what_an_image_can_not_be_for_is_refused() {
    let site = site(Buildpack::passing("team/own"));
    let said = site.refused(2, "app", &["--exec-env", "a b"]);
    let why = "`a b` is no execution environment: name it with letters, digits, dots and dashes, as in `production` or `test`";
    assert!(said.contains(why), "{said}");
    let old = site.home.path().join("old");
    std::fs::create_dir_all(old.join("lifecycle")).expect("make a folder");
    for phase in ["analyzer", "detector", "restorer", "builder", "exporter"] {
        std::fs::write(old.join("lifecycle").join(phase), "").expect("write a file");
    }
    std::fs::write(old.join("lifecycle.toml"), "[api]\nplatform = \"0.14\"\n").expect("write a file");
    let old = old.to_str().expect("a path");
    let said = site.refused(1, "app", &["--lifecycle", old, "--exec-env", "test"]);
    let why = "in which images are for nothing in particular (--exec-env, since 0.15); leave it out, or take --lifecycle native";
    assert!(said.contains(why), "{said}");
}
