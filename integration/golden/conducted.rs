//! Recorded pipelines run by `coracle build`: our phases, packed as another lifecycle and driven as one at the recorded Platform API,
//! leave the images that the reference's left, and end as they ended.

use std::fs;
use std::process::Command;

use coracle_fixtures::builder::base_layer;
use coracle_fixtures::{Entry, Image, Layer};
use serde_json::{Value, json};

use super::{Bench, By, Site};
use crate::harness::{TestHome, ran};
use crate::lifecycles::Packed;

/// Those whose circumstances `coracle build` can be told. Beginnings of names.
const CASES: [&str; 16] = [
    "sink-",
    "build-fails",
    "detect-none",
    "detect-error",
    "detect-second-group",
    "layer-",
    "launch-layer-reused-by-metadata",
    "process-type-flag",
    "unmet-plan-entry",
    "sbom-all",
    "app-changes-second-round",
    "tags",
    "modes-and-links",
    "build-config-env",
    "targets-distro",
    "composite",
];

pub(super) fn is_one(case: &Value) -> bool {
    case["name"].as_str().is_some_and(|name| CASES.iter().any(|start| name.starts_with(start)))
}

/// All rounds of a case; what differs.
pub(super) fn conduct(bench: &Bench, case: &Value) -> Vec<String> {
    let home = TestHome::new();
    let root = home.path().join("root");
    fs::create_dir(&root).expect("make a folder");
    let mut site = Site { bench, case, by: By::Platform, root, differences: Vec::new() };
    site.write_builder();
    site.pack_lifecycle();
    for (number, round) in case["rounds"].as_array().expect("is a list").iter().enumerate() {
        site.start_round(number);
        site.conduct(&home, round);
        if let Some(image) = round.get("image").filter(|image| !image.is_null()) {
            let mut image = image.clone();
            // Nobody tells `coracle build` where an application comes from.
            image["labels"]["io.buildpacks.project.metadata"] = json!("{}");
            site.compare_image(&image);
        }
    }
    site.differences
}

impl Site<'_> {
    /// A copy of the packed phases that speaks the recorded Platform API alone, without bills of materials, as those that were recorded.
    fn pack_lifecycle(&self) {
        let folder = self.root.join("packed");
        let packed = self.bench.packed.get_or_init(Packed::new).path();
        let copied = Command::new("cp").arg("-al").arg(packed).arg(&folder).status();
        assert!(copied.expect("start cp").success());
        for entry in fs::read_dir(folder.join("lifecycle")).expect("list a folder") {
            let path = entry.expect("an entry").path();
            if path.to_string_lossy().contains(".sbom.") {
                fs::remove_file(path).expect("remove a bill");
            }
        }
        let api = &self.case["platform_api"];
        let text = format!("[apis.platform]\nsupported = [{api}]\n[lifecycle]\nversion = \"0.0.0\"\n");
        // It is one file with those of others.
        fs::remove_file(folder.join("lifecycle.toml")).expect("remove a link");
        fs::write(folder.join("lifecycle.toml"), text).expect("write lifecycle.toml");
    }

    /// Pushes the builder as it is in this round; gives its name, always the same, for that is whose the cache is.
    fn push_builder(&self) -> String {
        let tar = Command::new("tar")
            .arg("-C")
            .arg(&self.root)
            .args(["--owner=0", "--group=0", "-c", "cnb"])
            .output();
        let own = |path: &str| Entry::dir(path).owner(1001, 1002);
        let folders =
            [own("/workspace"), own("/layers"), Entry::dir("/platform"), Entry::dir("/platform/env")];
        let layers =
            vec![base_layer(), Layer::new(&folders), Layer::from_tar(tar.expect("start tar").stdout)];
        let run = self.with_names("REGISTRY/golden/run:latest");
        let metadata = json!({ "images": [{ "image": run }], "stack": { "runImage": { "image": run } } });
        let mut image = Image::new(layers).label("io.buildpacks.builder.metadata", &metadata.to_string());
        for (name, value) in [
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("CNB_USER_ID", "1001"),
            ("CNB_GROUP_ID", "1002"),
            ("CNB_STACK_ID", "gold.stack"),
        ] {
            image = image.env(name, value);
        }
        let name = format!("builders/{}", self.repository());
        self.bench.registry.push(&image, &name, "latest");
        self.bench.registry.reference(&format!("{name}:latest"))
    }

    fn conduct(&mut self, home: &TestHome, round: &Value) {
        let steps = round["steps"].as_array().expect("is a list");
        let mut exits = steps.iter().filter_map(|step| step["exit"].as_i64());
        let expected = exits.find(|exit| *exit != 0).unwrap_or(0);
        let text = |path: &str| self.root.join(path).display().to_string();
        let image = self.bench.registry.reference(&format!("{}:latest", self.repository()));
        let mut words = vec!["build".to_owned(), image, "--publish".to_owned()];
        let mut option = |name: &str, value: String| words.extend([format!("--{name}"), value]);
        option("path", text("workspace"));
        option("builder", self.push_builder());
        option("pull-policy", "always".to_owned());
        option("lifecycle", text("packed"));
        for (name, value) in self.case["platform_env"].as_object().into_iter().flatten() {
            option("env", format!("{name}={}", value.as_str().expect("is text")));
        }
        // What the recorded phases were told beside that, each thing once.
        for (flag, name, phase) in
            [("-tag", "tag", "analyzer"), ("-process-type", "default-process", "exporter")]
        {
            let args =
                steps.iter().filter(|step| step["phase"] == phase).filter_map(|step| step["args"].as_array());
            let args: Vec<&str> = args.flatten().filter_map(Value::as_str).collect();
            args.windows(2)
                .filter(|pair| pair[0] == flag)
                .for_each(|pair| option(name, self.with_names(pair[1])));
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let done = ran(home.command(&words).output().expect("start coracle"));
        if done.code.map(i64::from) != Some(expected) {
            let (stdout, stderr) = (done.stdout, done.stderr);
            self.differences.push(format!("exit {:?}, not {expected}:\n{stdout}\n{stderr}", done.code));
        }
    }
}
