//! Builders made of a build image and folders of buildpacks.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use coracle_fixtures::{Builder, Buildpack, DockerRegistry, RunImage};
use serde_json::{Value, json};

use crate::harness::TestHome;

pub(crate) const DEFINITION: &str = r#"
description = "of two"
[lifecycle]
uri = "other"
[[buildpacks]]
uri = "one"
id = "team/one"
[[buildpacks]]
uri = "nested/two"
version = "1.0.0"
[[order]]
[[order.group]]
id = "team/one"
version = "1.0.0"
[[order.group]]
id = "two"
optional = true
"#;

/// A lifecycle that is small, and not ours.
fn write_lifecycle(folder: &Path) {
    let program = folder.join("lifecycle/lifecycle");
    fs::create_dir_all(folder.join("lifecycle")).expect("make a folder");
    fs::write(&program, "#!/bin/sh\necho 7.8.9\n").expect("write a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("let it run");
    for phase in ["analyzer", "detector", "restorer", "builder", "exporter"] {
        symlink("lifecycle", folder.join("lifecycle").join(phase)).expect("link a phase");
    }
    let about = "[api]\nplatform = \"0.7\"\nbuildpack = \"0.7\"\n[apis.platform]\nsupported = [\"0.7\", \"0.13\"]\n\
        [apis.buildpack]\ndeprecated = [\"0.7\"]\nsupported = [\"0.10\"]\n[lifecycle]\nversion = \"7.8.9\"\n";
    fs::write(folder.join("lifecycle.toml"), about).expect("write lifecycle.toml");
}

/// A home with two buildpacks and a builder.toml that names the build image.
pub(crate) struct Kitchen {
    pub(crate) registry: DockerRegistry,
    pub(crate) home: TestHome,
    pub(crate) config: PathBuf,
}

fn buildpacks() -> [Buildpack; 2] {
    let one = Buildpack::passing("team/one").file("lib/data", "data\n").detect("echo one detects");
    [one, Buildpack::passing("two").layer("l", &["launch"], "content")]
}

impl Kitchen {
    pub(crate) fn new() -> Self {
        let registry = DockerRegistry::open();
        registry.push(&RunImage::new().image(), "build", "latest");
        let home = TestHome::new();
        let [one, two] = buildpacks();
        one.write(&home.path().join("one"));
        two.write(&home.path().join("nested/two"));
        write_lifecycle(&home.path().join("other"));
        let config = home.path().join("builder.toml");
        let kitchen = Self { registry, home, config };
        kitchen.define(DEFINITION);
        kitchen
    }

    pub(crate) fn define(&self, text: &str) {
        let images = format!(
            "[build]\nimage = \"{}\"\n[[run.images]]\nimage = \"{}\"\nmirrors = [\"mirror.example/run\"]\n",
            self.registry.reference("build"),
            self.registry.reference("run"),
        );
        fs::write(&self.config, format!("{text}{images}")).expect("write builder.toml");
    }

    pub(crate) fn create<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let config = self.config.to_str().expect("a path");
        [&["builder", "create", "made", "--config", config][..], more].concat()
    }

    pub(crate) fn refused(&self, text: &str) -> String {
        self.define(text);
        let ran = self.home.run(&self.create(&[]));
        assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
        ran.stderr
    }
}

#[test]
fn a_builder_holds_its_folders_buildpacks_and_documents() {
    let kitchen = Kitchen::new();
    let made = kitchen.home.ok(&kitchen.create(&[]));
    assert!(made.stderr.contains("fetching 1 layers"), "the build image is fetched: {}", made.stderr);
    let listed = kitchen.home.ok(&["images"]).stdout;
    assert!(listed.contains(&format!("index.docker.io/library/made:latest {}", made.stdout)), "{listed}");
    let script = "pwd; id -u; stat -c '%n %u:%g %a' /workspace /layers /cnb /platform/env /cnb/buildpacks/* \
        /cnb/buildpacks/team_one/1.0.0/bin/build /cnb/buildpacks/two/1.0.0/buildpack.toml /cnb/order.toml; \
        cat /cnb/buildpacks/team_one/1.0.0/lib/data; /cnb/buildpacks/team_one/1.0.0/bin/detect; \
        cat /cnb/order.toml /cnb/run.toml /cnb/stack.toml; touch /layers/x 2>/dev/null || echo read-only";
    let ran = kitchen.home.ok(&["run", "made", "sh", "-c", script]);
    let expected = "/layers
1001
/workspace 1001:1002 755
/layers 1001:1002 755
/cnb 0:0 755
/platform/env 0:0 755
/cnb/buildpacks/team_one 0:0 755
/cnb/buildpacks/two 0:0 755
/cnb/buildpacks/team_one/1.0.0/bin/build 0:0 755
/cnb/buildpacks/two/1.0.0/buildpack.toml 0:0 644
/cnb/order.toml 0:0 644
data
one detects
[[order]]

  [[order.group]]
    id = \"team/one\"
    version = \"1.0.0\"

  [[order.group]]
    id = \"two\"
    version = \"1.0.0\"
    optional = true
[[images]]
  image = \"RUN\"
  mirrors = [\"mirror.example/run\"]
[run-image]
  image = \"RUN\"
  mirrors = [\"mirror.example/run\"]
";
    assert_eq!(ran.stdout, expected.replace("RUN", &kitchen.registry.reference("run")));
    assert_eq!(kitchen.home.leftovers(), Vec::<String>::new());
}

#[test]
fn the_same_folders_give_the_same_builder_whatever_the_umask_was() {
    let kitchen = Kitchen::new();
    let first = kitchen.home.ok(&kitchen.create(&[])).stdout;
    close(&kitchen.home.path().join("one"));
    assert_eq!(kitchen.home.ok(&kitchen.create(&[])).stdout, first);
    fs::write(kitchen.home.path().join("one/lib/data"), "other").expect("write");
    assert_ne!(kitchen.home.ok(&kitchen.create(&[])).stdout, first);
}

/// Take everything from group and others, as an umask of 077 does.
fn close(folder: &Path) {
    for entry in fs::read_dir(folder).expect("list").flatten() {
        let mode = entry.metadata().expect("look").permissions().mode() & 0o700;
        fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode)).expect("close");
        if entry.path().is_dir() {
            close(&entry.path());
        }
    }
}

#[test]
fn a_published_builder_says_of_itself_what_others_say_of_theirs() {
    let kitchen = Kitchen::new();
    let name = kitchen.registry.reference("team/made:1");
    let config = kitchen.config.to_str().expect("a path");
    let made = kitchen.home.ok(&["builder", "create", &name, "--config", config, "--publish"]);
    // Another home gets the same image from the registry.
    let other = TestHome::new();
    assert_eq!(other.ok(&["pull", &name]).stdout, made.stdout);

    let config: Value =
        serde_json::from_slice(&kitchen.registry.config("team/made:1")).expect("a configuration");
    let [one, two] = buildpacks();
    let mut expected = Builder::new(&kitchen.registry.reference("run")).group(&[one, two]).image();
    let label = |labels: &BTreeMap<String, String>, name: &str| -> Value {
        serde_json::from_str(&labels[name]).expect("a label of JSON")
    };
    let ours: BTreeMap<String, String> =
        serde_json::from_value(config["config"]["Labels"].clone()).expect("labels");
    let theirs = std::mem::take(&mut expected.labels);
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    let order = label(&ours, "io.buildpacks.buildpack.order");
    assert_eq!(order[0]["group"][0], label(&theirs, "io.buildpacks.buildpack.order")[0]["group"][0]);
    assert_eq!(order[0]["group"][1]["optional"], true);

    let (mut layers, theirs_layers) =
        (label(&ours, "io.buildpacks.buildpack.layers"), label(&theirs, "io.buildpacks.buildpack.layers"));
    let diff_ids = config["rootfs"]["diff_ids"].as_array().expect("diff ids");
    assert_eq!(diff_ids.len(), 1 + 2 + 2 + 1, "the base, folders, lifecycle, two buildpacks, documents");
    for (number, id) in ["team/one", "two"].iter().enumerate() {
        assert_eq!(layers[id]["1.0.0"]["layerDiffID"], diff_ids[3 + number]);
        layers[id]["1.0.0"]["layerDiffID"] = theirs_layers[id]["1.0.0"]["layerDiffID"].clone();
    }
    assert_eq!(layers, theirs_layers);

    let metadata = label(&ours, "io.buildpacks.builder.metadata");
    let theirs = label(&theirs, "io.buildpacks.builder.metadata");
    assert_eq!(metadata["buildpacks"], theirs["buildpacks"]);
    assert_eq!(metadata["description"], "of two");
    assert_eq!(metadata["images"][0]["image"], theirs["images"][0]["image"]);
    assert_eq!(metadata["stack"]["runImage"]["mirrors"][0], "mirror.example/run");
    assert_eq!(metadata["createdBy"]["name"], "Coracle");
    assert_eq!(config["config"]["WorkingDir"], "/layers");
    assert_eq!(config["created"], "1980-01-01T00:00:01Z");
    let history = config["history"].as_array().expect("a history");
    assert_eq!(history.len(), diff_ids.len());
}

#[test]
fn an_application_is_built_with_it_at_once() {
    let kitchen = Kitchen::new();
    let greeter = Buildpack::passing("two").layer("l", &["launch"], "content").process(&[
        "cat",
        "hello",
        "/layers/two/l/content",
    ]);
    greeter.write(&kitchen.home.path().join("nested/two"));
    kitchen.registry.push(&RunImage::new().image(), "run", "latest");
    kitchen.home.ok(&kitchen.create(&[]));
    let application = kitchen.home.path().join("application");
    fs::create_dir(&application).expect("make a folder");
    fs::write(application.join("hello"), "hello\n").expect("write");
    let path = application.to_str().expect("a path");
    let built = kitchen.home.ok(&["build", "app", "--path", path, "--builder", "made"]);
    assert!(
        built.stdout.contains("team/one@1.0.0") && built.stdout.contains("two@1.0.0"),
        "{}",
        built.stdout
    );
    assert_eq!(kitchen.home.ok(&["run", "app"]).stdout, "hello\ncontent");
    assert_eq!(kitchen.home.leftovers(), Vec::<String>::new());
}

#[test]
fn what_goes_around_each_group_is_in_the_builder() {
    let kitchen = Kitchen::new();
    let system = "[[system.pre.buildpacks]]\nid = \"two\"\noptional = true\n";
    let group = "[[order.group]]\nid = \"two\"\noptional = true\n";
    kitchen.define(&format!("{}{system}", DEFINITION.replace(group, "")));
    let name = kitchen.registry.reference("made:1");
    let config = kitchen.config.to_str().expect("a path");
    kitchen.home.ok(&["builder", "create", &name, "--config", config, "--publish"]);
    let shown = kitchen.home.ok(&["run", &name, "cat", "/cnb/system.toml"]).stdout;
    let expected = "[system]
  [system.pre]

    [[system.pre.buildpacks]]
      id = \"two\"
      version = \"1.0.0\"
      optional = true
  [system.post]
    buildpacks = []
";
    assert_eq!(shown, expected);
    let config: Value = serde_json::from_slice(&kitchen.registry.config("made:1")).expect("a configuration");
    let label = config["config"]["Labels"]["io.buildpacks.buildpack.system"].as_str().expect("a label");
    let label: Value = serde_json::from_str(label).expect("is JSON");
    assert_eq!(label["pre"]["buildpacks"][0], json!({ "id": "two", "version": "1.0.0", "optional": true }));
    let error = kitchen.refused(&format!("{DEFINITION}{}", system.replace("two", "three")));
    assert!(error.starts_with("error: the order names the buildpack `three`: "), "{error}");
}

#[test]
fn what_cannot_be_made_is_refused_before_anything_is_fetched() {
    let kitchen = Kitchen::new();
    let error = kitchen.refused(&DEFINITION.replace("\"one\"", "\"docker://team/one\""));
    assert!(
        error.starts_with("error: buildpack `docker://team/one` is not a local folder; extract"),
        "{error}"
    );
    let error = kitchen.refused(&DEFINITION.replace("\"one\"", "\"nowhere\""));
    assert!(error.starts_with("error: could not read ") && error.contains("/nowhere\n"), "{error}");
    let error = kitchen.refused(&DEFINITION.replace("id = \"two\"", "id = \"three\""));
    assert!(error.starts_with("error: the order names the buildpack `three`: "), "{error}");
    let error = kitchen.refused(&format!("colour = 1\n{DEFINITION}"));
    assert!(error.contains("builder.toml\n") && error.contains("unknown field `colour`"), "{error}");
    fs::remove_file(&kitchen.config).expect("remove");
    let ran = kitchen.home.run(&kitchen.create(&[]));
    assert!(ran.stderr.contains("builder.toml\n  cause: No such file"), "{}", ran.stderr);
    assert!(!kitchen.registry.access_log().contains("GET /v2/build/"), "nothing was fetched");
}

#[test]
fn a_build_image_without_a_user_is_refused_with_what_to_do() {
    let kitchen = Kitchen::new();
    for (variable, expected) in [
        (
            None,
            "has no number in CNB_USER_ID (found ``); set it when making the image, as in: coracle import --env CNB_USER_ID=1000",
        ),
        (Some("0"), "has CNB_USER_ID=0, but buildpacks do not run as root; name another user"),
    ] {
        let mut image = RunImage::new().image();
        image.env.retain(|(name, _)| name != "CNB_USER_ID");
        image.env.extend(variable.map(|value| ("CNB_USER_ID".to_owned(), value.to_owned())));
        kitchen.registry.push(&image, "build", "latest");
        let home = TestHome::new();
        let ran = home.run(&kitchen.create(&[]));
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
        assert_eq!(ran.code, Some(1));
    }
}

#[test]
fn a_build_image_of_another_stack_is_named_with_both() {
    let kitchen = Kitchen::new();
    let said = kitchen.refused(&format!("{DEFINITION}[stack]\nid = \"other.stack\"\n"));
    let image = kitchen.registry.reference("build:latest");
    let start = format!("the build image {image} is of the stack `");
    assert!(said.contains(&start) && said.contains("`, but builder.toml says `other.stack`"), "{said}");
}
