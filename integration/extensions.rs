//! Builds in which image extensions take part.

use coracle_fixtures::{Builder, Buildpack, DockerRegistry, Entry, RegistryAccess, RunImage};
use serde_json::Value;

use crate::phases::order;
use crate::site::Site;

/// Wants `ext` if anybody provides it; tells what is left of its plan and what it is built for. The program that it starts tells what it
/// runs on.
fn teller() -> Buildpack {
    let wants = r#"printf '[[requires]]\nname = "ext"\n[[or]]\n[[or.provides]]\nname = "one"\n[[or.requires]]\nname = "one"\n' >>"$2""#;
    let said = r#"echo "plan: $(cat "$3") distro: $CNB_TARGET_DISTRO_NAME""#;
    Buildpack::passing("fixture/one").plan("one").detect(wants).build(said).process(&["cat", "/etc/kind"])
}

/// A registry with two run images and a builder whose extension generates as `generate` says, which may name its folder `$1` and the
/// other image `$other`. With `offered` the builder lists both images.
fn site(access: RegistryAccess, generate: &str, offered: bool) -> Site {
    let registry = DockerRegistry::start(access);
    let site = Site::of(registry, &kind("first"), &RunImage::new().image());
    site.registry.push(&kind("other").label("io.buildpacks.base.distro.name", "strange"), "other", "latest");
    push_builder(&site, 0, generate, offered);
    if access == RegistryAccess::Password {
        let docker = site.home.path().join(".docker");
        std::fs::create_dir(&docker).expect("make .docker");
        std::fs::write(docker.join("config.json"), site.registry.docker_config()).expect("write config.json");
    }
    site
}

fn kind(kind: &str) -> coracle_fixtures::Image {
    RunImage::new().file(Entry::file("etc/kind", kind)).image()
}

fn push_builder(site: &Site, detect: i32, generate: &str, offered: bool) {
    let (run, other) = (site.registry.reference("run:latest"), site.registry.reference("other:latest"));
    let builder = Builder::new(&run).group(&[teller()]);
    let extensions = order(&["fixture/ext"]).replace("[order", "[order-extensions");
    let text = format!("{}{extensions}", builder.order_toml());
    let folder = "/cnb/extensions/fixture_ext/1";
    let toml = "api = \"0.10\"\n[extension]\nid = \"fixture/ext\"\nversion = \"1\"\n";
    let detected = format!("#!/bin/sh\nprintf '[[provides]]\\nname = \"ext\"\\n' >\"$2\"\nexit {detect}\n");
    let generated = format!("#!/bin/sh\nset -e\nother={other}\n{generate}\n");
    let builder = builder
        .file(Entry::file("/cnb/order.toml", text))
        .file(Entry::file(&format!("{folder}/extension.toml"), toml))
        .file(Entry::program(&format!("{folder}/bin/detect"), detected))
        .file(Entry::program(&format!("{folder}/bin/generate"), generated));
    let mut image = builder.image();
    if offered {
        let label = "io.buildpacks.builder.metadata";
        let mut metadata: Value = serde_json::from_str(&image.labels[label]).expect("is JSON");
        metadata["images"] =
            serde_json::json!([{ "image": run }, { "image": "r.example/x", "mirrors": [other] }]);
        image = image.label(label, &metadata.to_string());
    }
    site.registry.push(&image, "builder", "latest");
}

fn label(site: &Site, name: &str) -> Value {
    let config: Value = serde_json::from_slice(&site.registry.config(name)).expect("is JSON");
    let label = config["config"]["Labels"]["io.buildpacks.lifecycle.metadata"].as_str().expect("is text");
    serde_json::from_str(label).expect("is JSON")
}

const SWITCH: &str = "echo \"FROM $other\" >\"$1/run.Dockerfile\"";

#[test]
fn an_extension_that_only_chooses_the_run_image_is_followed() {
    let site = site(RegistryAccess::Password, SWITCH, true);
    let other = site.registry.reference("other:latest");
    for publish in [&[][..], &["--publish"], &["--publish", "--build-layers", "strict"]] {
        let image = site.registry.reference("team/app:latest");
        for round in ["first", "second"] {
            let said = site.built(&image, publish).stdout;
            assert!(said.contains("fixture/ext@1 (image extension)"), "{publish:?} {round}: {said}");
            assert!(said.contains(&format!("extensions choose the run image {other}")), "{said}");
            assert!(said.contains("name = \"one\"") && !said.contains("name = \"ext\""), "{said}");
            assert!(said.contains("distro: strange"), "{said}");
        }
        if !publish.is_empty() {
            site.home.ok(&["pull", &image]);
            let run_image = &label(&site, "team/app:latest")["runImage"];
            assert_eq!(run_image["image"], "r.example/x", "the one that it is a mirror of");
            let digest = coracle_fixtures::layer::digest(&site.registry.manifest("other:latest"));
            let name = site.registry.reference("other");
            assert_eq!(run_image["reference"], format!("{name}@{digest}"));
        }
        assert_eq!(site.home.ok(&["run", &image]).stdout, "other");
    }
}

#[test]
fn a_run_image_that_the_builder_does_not_offer_is_read_without_credentials() {
    let site = site(RegistryAccess::Password, SWITCH, false);
    let other = site.registry.reference("other:latest");
    let published = site.registry.reference("team/app");
    let told = site.refused(1, &published, &["--publish"]);
    let refusal = format!(
        "error: image extensions choose the run image {other}, which the builder does not offer, and images of {} are read with credentials in this build; build without --publish, or take",
        site.registry.address()
    );
    assert!(told.contains(&refusal), "{told}");
    let told = site.refused(1, "app", &[]);
    let note = format!(
        "the builder does not offer the run image {other}, which an extension chooses: it is read without credentials"
    );
    assert!(told.contains(&note) && told.contains("the registry refuses access"), "{told}");
    let manifest = site.registry.access_log();
    assert!(
        !manifest.lines().any(|line| line.contains("/other/manifests/") && line.contains("\" 200 ")),
        "{manifest}"
    );
}

#[test]
fn an_open_registry_s_run_image_may_be_any() {
    let site = site(RegistryAccess::Open, SWITCH, false);
    for publish in [&[][..], &["--publish"]] {
        let image = site.registry.reference("team/app:latest");
        let ran = site.built(&image, publish);
        assert!(ran.stderr.contains("the builder does not offer the run image"), "{}", ran.stderr);
        if !publish.is_empty() {
            site.home.ok(&["pull", &image]);
        }
        assert_eq!(site.home.ok(&["run", &image]).stdout, "other");
    }
}

#[test]
fn an_extension_that_extends_ends_the_build_with_the_code_for_it() {
    for (generate, which) in [
        ("echo FROM $other >$1/run.Dockerfile; echo RUN true >>$1/run.Dockerfile", "run.Dockerfile"),
        (
            "printf 'ARG base_image\\nFROM ${base_image}\\nRUN true\\n' >$1/build.Dockerfile",
            "build.Dockerfile",
        ),
    ] {
        let site = site(RegistryAccess::Open, generate, true);
        let args = site.args("app", &[]);
        let ran = site.home.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(ran.code, Some(102), "{}{}", ran.stdout, ran.stderr);
        let told = format!("images would be extended by {which} of fixture/ext@1");
        assert!(ran.stdout.contains(&told), "{}", ran.stdout);
        let why = "the extender failed with exit code 102: extending images is not supported yet; see above which Dockerfiles ask for it";
        assert!(ran.stderr.contains(why) && ran.stderr.contains("--buildpack"), "{}", ran.stderr);
        assert_eq!(site.home.leftovers(), Vec::<String>::new());
    }
}

#[test]
fn what_does_not_take_part_or_asks_for_nothing_changes_nothing() {
    let site = site(RegistryAccess::Open, "", false);
    let always = &["--pull-policy", "always"][..];
    site.built("with", always);
    push_builder(&site, 100, SWITCH, false);
    site.built("without", always);
    assert_eq!(site.home.ok(&["run", "with"]).stdout, "first");
    assert_eq!(site.home.ok(&["run", "without"]).stdout, "first");
}

#[test]
fn what_an_extension_wrote_is_a_stranger_s_word() {
    for (generate, code, told) in [
        (
            "echo FROM A:B:C >$1/run.Dockerfile",
            1,
            "error: image extensions choose the run image `A:B:C`\n  cause: ",
        ),
        ("exit 3", 91, "bin/generate failed: exit status: 3"),
        // The file from which the decision is made lies beside what extensions write.
        ("ln -s /etc/passwd $1/../../chosen.toml", 1, "chosen.toml"),
    ] {
        let site = site(RegistryAccess::Open, generate, true);
        let said = site.refused(code, "app", &[]);
        assert!(said.contains(told), "{generate}: {said}");
    }
}
