//! Extensions in a creator's group (docs/decisions/0015-extensions-that-choose-and-those-that-extend.md).

use coracle_fixtures::{Buildpack, Entry, RegistryAccess, RunImage};

use super::container::{Container, Who};
use super::create;

/// A container whose builder has an extension that takes part and writes this run.Dockerfile; there is a second run image, `other`.
fn container(access: RegistryAccess, dockerfile: impl Fn(&Container) -> String) -> Container {
    let container = Container::new(access, &[Buildpack::passing("test/one").build("touch /workspace/built")]);
    let other = RunImage::new().file(Entry::file("etc/kind", "other")).image();
    container.registry.push(&other, "other", "latest");
    let extension = "cnb/extensions/test_extension/1";
    let text = "api = \"0.10\"\n[extension]\nid = \"test/extension\"\nversion = \"1\"\n";
    container.write(&format!("{extension}/extension.toml"), text, 0o644);
    container.write(&format!("{extension}/bin/detect"), "#!/bin/sh", 0o755);
    let text = dockerfile(&container);
    let generate = format!("#!/bin/sh\ncat >$1/run.Dockerfile <<END\n{text}\nEND\n");
    container.write(&format!("{extension}/bin/generate"), &generate, 0o755);
    let order =
        "\n[[order-extensions]]\n[[order-extensions.group]]\nid = \"test/extension\"\nversion = \"1\"\n";
    container.as_root(&format!("printf '%s' '{order}' >>cnb/order.toml"));
    container
}

fn from_other(container: &Container) -> String {
    format!("FROM {}", container.registry.reference("other"))
}

#[test]
fn a_creator_goes_on_with_the_run_image_that_an_extension_chooses() {
    let container = container(RegistryAccess::Password, from_other);
    let other = container.registry.reference("other");
    container.as_root(&format!("printf '[[images]]\\nimage = \"{other}\"\\n' >>cnb/run.toml"));
    for who in [Who::Root, Who::BuildUser] {
        container.clear(&["layers", "workspace"]);
        let ran = create(&container, who, "switched");
        assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains(&format!("Extensions choose the run image {other}\n")), "{}", ran.stdout);
        let label = container.label("switched", "io.buildpacks.lifecycle.metadata");
        let label: serde_json::Value = serde_json::from_str(&label).expect("is JSON");
        let digest = coracle_fixtures::layer::digest(&container.registry.manifest("other:latest"));
        assert_eq!(label["runImage"]["reference"], format!("{other}@{digest}"));
        assert_eq!(label["runImage"]["image"], other);
    }
}

#[test]
fn a_creator_s_credentials_are_not_for_images_that_only_an_extension_names() {
    let closed = container(RegistryAccess::Password, from_other);
    let ran = create(&closed, Who::BuildUser, "switched");
    assert_eq!(ran.code, Some(22), "{}{}", ran.stdout, ran.stderr);
    let other = closed.registry.reference("other");
    let said = format!(
        "detect: an extension asks for the run image `{other}`, which run.toml does not list, and images of {} are read with credentials: list it in run.toml (-run)",
        closed.registry.address()
    );
    assert!(ran.stderr.contains(&said), "{}", ran.stderr);
    assert!(!closed.path("workspace/built").exists());

    let open = container(RegistryAccess::Open, from_other);
    let image = open.registry.reference("switched");
    let ran = open.ran(Who::BuildUser, "creator", &[&image], &[]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("which an extension asks for, is not in run.toml"), "{}", ran.stderr);
}

#[test]
fn a_creator_says_that_it_cannot_extend_images() {
    let container =
        container(RegistryAccess::Password, |container| format!("{}\nRUN true", from_other(container)));
    let ran = create(&container, Who::BuildUser, "extended");
    assert_eq!(ran.code, Some(22), "{}{}", ran.stdout, ran.stderr);
    let said = "detect: images are to be extended (run.Dockerfile of test/extension@1), which a creator cannot do: run the phases one by one with an extender, or take a builder without these extensions";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    assert!(!container.path("workspace/built").exists());
    assert!(!ran.stderr.contains("-parallel"), "{}", ran.stderr);
}
