//! Exit codes where one thing is wrong: those of the reference, recorded in `data/codes.json`, or ours by decision.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use coracle_fixtures::{DockerRegistry, Entry, Image as Fixture, Layer};
use coracle_lifecycle::env::Env;
use coracle_lifecycle::phases::{Launcher, main};
use coracle_lifecycle::with_causes;
use serde::Deserialize;
use tempfile::TempDir;

#[derive(Debug, Deserialize)]
struct Row {
    phase: String,
    wrong: String,
    apis: Vec<String>,
    reference: u8,
    ours: Option<u8>,
    decision: Option<String>,
}

const GROUP: &str = "[[group]]\nid = \"a/one\"\nversion = \"1\"\n";
const NOBODY: &str = "127.0.0.1:1/run:latest";
const BUILDPACK: &str = "[buildpack]\nid = \"a/one\"\nversion = \"1\"\n[[stacks]]\nid = \"*\"\n";

/// Everything that a phase needs, until something of it is made wrong.
struct Place<'a> {
    dir: TempDir,
    registry: &'a DockerRegistry,
    api: &'a str,
    run: String,
    image: String,
    env: Env,
    flags: Vec<String>,
    /// By which the rebaser is told of the run image.
    run_flag: &'static str,
}

impl<'a> Place<'a> {
    /// `pinned` is the run image, `name` that of the image that is made.
    fn new(registry: &'a DockerRegistry, pinned: &str, name: &str, api: &'a str) -> Self {
        let [run, image] = ["run:latest", name].map(|name| registry.reference(name));
        let env = [("CNB_PLATFORM_API".into(), api.into()), ("PATH".into(), "/usr/bin:/bin".into())].into();
        let dir = tempfile::tempdir().unwrap();
        let place = Self { dir, registry, api, image, env, flags: Vec::new(), run_flag: "-run-image", run };
        for folder in ["app", "platform"] {
            fs::create_dir_all(place.dir.path().join(folder)).unwrap();
        }
        place.name_run_image(pinned, &place.run, &place.run);
        for (path, text) in [
            ("group.toml", format!("{GROUP}api = \"0.10\"\n")),
            ("plan.toml", String::new()),
            ("order.toml", format!("[[order]]\n{}", GROUP.replace("[[group]]", "[[order.group]]"))),
            ("config/metadata.toml", "processes = []\n".to_owned()),
            ("buildpacks/a_one/1/buildpack.toml", format!("api = \"0.10\"\n{BUILDPACK}")),
        ] {
            place.write(path, &text);
        }
        for program in ["detect", "build"] {
            let path = format!("buildpacks/a_one/1/bin/{program}");
            place.write(&path, "#!/bin/sh\n");
            fs::set_permissions(place.at(&path), fs::Permissions::from_mode(0o755)).unwrap();
        }
        place
    }

    fn at(&self, path: &str) -> String {
        self.dir.path().join(path).to_str().unwrap().to_owned()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn name_run_image(&self, pinned: &str, name: &str, offered: &str) {
        self.write("analyzed.toml", &format!("[run-image]\nreference = \"{pinned}\"\nimage = \"{name}\"\n"));
        self.write("run.toml", &format!("[[images]]\nimage = \"{offered}\"\n"));
        self.write("stack.toml", &format!("[run-image]\nimage = \"{offered}\"\n"));
    }

    fn flag(&mut self, words: &[&str]) {
        self.flags.extend(words.iter().map(|word| (*word).to_owned()));
    }

    fn make_wrong(&mut self, phase: &str, wrong: &str) {
        let missing = self.registry.reference("missing:latest");
        match wrong {
            "nothing" => {}
            "group of an old API" => self.write("group.toml", &format!("{GROUP}api = \"0.2\"\n")),
            "group of no API" => self.write("group.toml", GROUP),
            "group of an API that is no version" => {
                self.write("group.toml", &format!("{GROUP}api = \"x\"\n"))
            }
            "buildpack.toml of an old API" => self.buildpack("api = \"0.2\"\n"),
            "buildpack.toml of no API" => self.buildpack(""),
            "buildpack.toml of an API that is no version" => self.buildpack("api = \"x\"\n"),
            "buildpack.toml without an id" => self.buildpack_without("id = \"a/one\"\n", ""),
            "buildpack.toml with another id" => self.buildpack_without("a/one", "b"),
            "buildpack.toml without a version" => self.buildpack_without("version = \"1\"\n", ""),
            "analyzed.toml without a run image" => self.write("analyzed.toml", "[metadata]\n"),
            "analyzed.toml with a run image of no name" => {
                self.write("analyzed.toml", "[run-image]\nreference = \"\"\n");
            }
            "no analyzed.toml" => fs::remove_file(self.at("analyzed.toml")).unwrap(),
            "broken run.toml" => self.break_all(&["run.toml", "stack.toml"]),
            "broken run.toml and analyzed.toml" => self.break_all(&["run.toml", "analyzed.toml"]),
            "broken analyzed.toml" => self.break_all(&["analyzed.toml"]),
            "no such run image" => self.name_run_image(&missing, &missing, &missing),
            "run image out of reach" => self.name_run_image(NOBODY, NOBODY, NOBODY),
            "no such run image, nor in run.toml" => self.name_run_image(&missing, &missing, &self.run),
            "report in no folder" => self.flag(&["-report", &self.at("group.toml/report.toml")]),
            "no layers folder" => {
                let documents = ["analyzed", "group", "report"];
                for (flag, path) in documents.map(|name| (format!("-{name}"), format!("{name}.toml"))) {
                    self.flag(&[&flag, &self.at(&path)]);
                }
                self.flag(&["-layers", &self.at("nowhere")]);
            }
            "no application folder" => fs::remove_dir(self.at("app")).unwrap(),
            "cache folder is a file" => self.flag(&["-cache-dir", &self.at("group.toml")]),
            "no cache folder" => self.flag(&["-cache-dir", &self.at("no-cache")]),
            "cache image of no name" => self.flag(&["-cache-image", "No Name"]),
            "CNB_REGISTRY_AUTH" => drop(self.env.insert("CNB_REGISTRY_AUTH".into(), "x".into())),
            "-layout without -layout-dir" => self.flag(&["-layout"]),
            "no such image" => self.image = missing,
            "run image of no name" => self.run = "No Name".into(),
            "run image that is not there" => self.run = missing,
            "no run image, and the image names none" => {
                (self.image, self.run) = (self.run.clone(), String::new())
            }
            "a label that is no JSON" => self.image = self.registry.reference("labelled:latest"),
            "a label that is no JSON, and no such run image" => {
                (self.image, self.run) = (self.registry.reference("labelled:latest"), missing);
            }
            "-image beside -run-image" => self.flag(&["-image", &self.run.clone()]),
            "CNB_RUN_IMAGE names another than -image" => {
                self.env.insert("CNB_RUN_IMAGE".into(), missing.into());
                self.run_flag = "-image";
            }
            other => panic!("{phase}: `{other}` is not known here"),
        }
    }

    fn buildpack(&self, api: &str) {
        self.write("buildpacks/a_one/1/buildpack.toml", &format!("{api}{BUILDPACK}"));
    }

    fn buildpack_without(&self, part: &str, instead: &str) {
        let text = format!("api = \"0.10\"\n{BUILDPACK}").replace(part, instead);
        self.write("buildpacks/a_one/1/buildpack.toml", &text);
    }

    fn break_all(&self, documents: &[&str]) {
        documents.iter().for_each(|document| self.write(document, "broken\n"));
    }

    /// Calls a phase with what is at this place; its exit code, and what it says.
    fn call(&self, phase: &str) -> (u8, String) {
        let old = self.api == "0.11";
        let platform = if old { ["-stack", "stack.toml"] } else { ["-run", "run.toml"] };
        let own = [["-app", "app"], ["-buildpacks", "buildpacks"], ["-platform", "platform"]];
        let scratch = ["-scratch", "scratch"];
        let paths: &[[&str; 2]] = match phase {
            "analyzer" => &[platform],
            "detector" => &[own[0], own[1], own[2], scratch, ["-order", "order.toml"]],
            "restorer" if self.api == "0.14" => &[platform],
            "builder" => &[own[0], own[1], own[2], scratch],
            "exporter" => &[own[0], platform, scratch],
            "creator" => &[own[0], own[1], own[2], platform, scratch, ["-order", "order.toml"]],
            _ => &[],
        };
        let mut args: Vec<OsString> = Vec::new();
        for [flag, path] in paths {
            args.extend([flag.into(), self.at(path).into()]);
        }
        match phase {
            "rebaser" => {
                args.extend(["-report".into(), self.at("report.toml").into()]);
                args.extend([self.run_flag.into(), OsString::from(&self.run)]);
            }
            _ => args.extend(["-layers".into(), self.at("").into()]),
        }
        if phase == "builder" {
            // Other tests of this process have children of their own.
            args.extend(["-build-layers".into(), "shared".into()]);
        }
        args.extend(self.flags.iter().map(OsString::from));
        if ["analyzer", "exporter", "creator", "rebaser"].contains(&phase) {
            args.push(OsString::from(&self.image));
        }
        let launcher = Launcher { program: b"launcher", metadata: serde_json::json!({ "version": "1" }) };
        match main(OsStr::new(phase), &args, &self.env, &launcher) {
            Ok(()) => (0, String::new()),
            Err(error) => (error.exit_code(), with_causes(&error)),
        }
    }
}

#[test]
fn exit_codes_are_the_reference_s_unless_a_decision_says_otherwise() {
    let rows: Vec<Row> = serde_json::from_str(include_str!("data/codes.json")).unwrap();
    let decisions = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../docs/decisions");
    let registry = DockerRegistry::open();
    let layer = Layer::new(&[Entry::dir("etc"), Entry::file("etc/os", "run")]);
    let run = Fixture::new(vec![layer]).label("io.buildpacks.stack.id", "a");
    let pinned = registry.push(&run, "run", "latest");
    let labelled = run.clone().label("io.buildpacks.lifecycle.metadata", "x");
    registry.push(&labelled, "labelled", "latest");
    let mut differences = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        assert_eq!(row.ours.is_some(), row.decision.is_some(), "{row:?}");
        assert_ne!(row.ours, Some(row.reference), "{row:?}");
        if let Some(decision) = &row.decision {
            assert!(decisions.join(decision).exists(), "{row:?}");
        }
        for api in &row.apis {
            let mut place = Place::new(&registry, &pinned, &format!("app{number}:{api}"), api);
            if row.phase == "rebaser" {
                assert_eq!(place.call("exporter"), (0, String::new()));
            }
            place.make_wrong(&row.phase, &row.wrong);
            let (code, text) = place.call(&row.phase);
            let wanted = row.ours.unwrap_or(row.reference);
            if code != wanted {
                differences.push(format!("{} {api}, {}: {code}, not {wanted}: {text}", row.phase, row.wrong));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
