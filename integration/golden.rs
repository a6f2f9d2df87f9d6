//! Whole pipelines against what the reference lifecycle did with the same input: exit codes, documents, listings, images.
//!
//! Each runs in a root filesystem of its own, as the recordings did: busybox, bash, and this program under the names of the phases.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle::AuthFile;
use coracle_fixtures::DockerRegistry;
use coracle_images::{Registry, RegistryOptions, read_layout};
use serde_json::{Value, json};

use crate::harness::coracle;
use crate::lifecycles::Packed;

mod compare;
mod conducted;
mod creator;

const PHASES: [&str; 6] = ["analyzer", "detector", "restorer", "builder", "exporter", "creator"];

/// Who runs a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Phases,
    /// The phases, each with the documents that the reference's before it wrote.
    Mixed,
    Creator,
    /// `coracle build`, to which they are another lifecycle's phases.
    Platform,
}

/// What all cases share: programs to link to, and a registry with the run image.
struct Bench {
    folder: tempfile::TempDir,
    registry: DockerRegistry,
    client: Registry,
    packed: OnceLock<Packed>,
    /// How many documents of the reference phases were given.
    fed: AtomicUsize,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        let registry = DockerRegistry::open();
        let layout = folder.path().join("run");
        let archive = data("run-image.oci.tar");
        fs::create_dir(&layout).expect("make a folder");
        let tar = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&layout).status();
        assert!(tar.expect("start tar").success());
        let auth = AuthFile::parse(b"{}").expect("is JSON");
        let options = RegistryOptions { insecure: Vec::new(), auth, ca_bundle: None };
        let client = Registry::new(options).expect("make a client");
        let image = read_layout(&layout, None).expect("read the run image");
        let name = registry.reference("golden/run:latest").parse().expect("is a name");
        for layer in &image.manifest.layers {
            let path = layout.join("blobs/sha256").join(layer.digest.hex());
            let open = || Ok(Box::new(File::open(&path)?) as Box<dyn Read + Send>);
            client.push_blob(&name, &layer.digest, layer.size, &open).expect("push a layer");
        }
        client.push_image(&name, &image).expect("push the run image");
        for (program, name) in [
            (coracle().as_path(), "coracle"),
            (Path::new("/usr/bin/busybox"), "busybox"),
            (Path::new("/usr/bin/bash-static"), "bash"),
        ] {
            fs::copy(program, folder.path().join(name)).expect("copy a program");
        }
        Self { folder, registry, client, packed: OnceLock::new(), fed: AtomicUsize::new(0) }
    }

    /// A text of the recordings with our names in it.
    fn with_names(&self, text: &str) -> String {
        text.replace("REGISTRY", &self.registry.address())
    }

    /// Runs all rounds; returns what differs.
    fn run(&self, case: &Value, by: By) -> Vec<String> {
        if by == By::Platform {
            return conducted::conduct(self, case);
        }
        let folder = tempfile::tempdir_in(self.folder.path()).expect("make a folder");
        let root = folder.path().join("root");
        let site = Site { bench: self, case, by, root, differences: Vec::new() };
        site.run()
    }
}

pub(crate) fn data(name: &str) -> PathBuf {
    let root =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or(env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    root.join("integration/data").join(name)
}

/// One case in its root filesystem.
struct Site<'a> {
    bench: &'a Bench,
    case: &'a Value,
    by: By,
    root: PathBuf,
    differences: Vec<String>,
}

impl Site<'_> {
    fn run(mut self) -> Vec<String> {
        self.furnish();
        for (number, round) in self.case["rounds"].as_array().expect("is a list").iter().enumerate() {
            self.start_round(number);
            if self.by == By::Creator {
                self.create(round);
            }
            let steps = round["steps"].as_array().filter(|_| self.by != By::Creator);
            for step in steps.into_iter().flatten() {
                let before = self.differences.len();
                self.step(step);
                let said = format!("round {} {}: ", number + 1, step["phase"].as_str().unwrap_or_default());
                self.differences[before..].iter_mut().for_each(|difference| difference.insert_str(0, &said));
            }
            if let Some(image) = round.get("image").filter(|image| !image.is_null()) {
                self.compare_image(image);
            }
            if let Some(cache) = round.get("cache_image") {
                self.compare_cache_image(cache);
            }
        }
        self.differences
    }

    /// A text of the recordings with our names in it; the creator has images of its own.
    fn with_names(&self, text: &str) -> String {
        let name = self.case["name"].as_str().expect("is text");
        let (recorded, own) = (format!("REGISTRY/golden/{name}"), format!("REGISTRY/{}", self.repository()));
        self.bench.with_names(&text.replace(&recorded, &own))
    }

    fn repository(&self) -> String {
        let name = self.case["name"].as_str().expect("is text");
        let whose = match self.by {
            By::Phases => "golden",
            By::Mixed => "mixed",
            By::Creator => "created",
            By::Platform => "conducted",
        };
        format!("{whose}/{name}")
    }

    fn write(&self, path: &str, file: &Value) {
        let path = self.root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("is below the root")).expect("make a folder");
        let text =
            file.as_str().or_else(|| file["text"].as_str()).map(|text| self.with_names(text).into_bytes());
        let bytes = || STANDARD.decode(file["base64"].as_str().expect("has a text")).expect("is base64");
        // A program that is being written cannot be started, so nobody else may inherit the handle: a rename ends that.
        fs::write(&path, text.unwrap_or_else(bytes)).expect("write a file");
        let mode =
            file["mode"].as_str().map_or(0o644, |mode| u32::from_str_radix(mode, 8).expect("is octal"));
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set a mode");
    }

    fn write_all(&self, below: &str, files: &Value) {
        for (path, file) in files.as_object().into_iter().flatten() {
            self.write(&format!("{below}/{path}"), file);
        }
    }

    fn furnish(&self) {
        for folder in
            ["bin", "usr/bin", "home/cnb", "tmp", "proc", "cnb/lifecycle", "cache", "platform/env", "dev"]
        {
            fs::create_dir_all(self.root.join(folder)).expect("make a folder");
        }
        let link = |from: &str, to: &str| {
            fs::hard_link(self.bench.folder.path().join(from), self.root.join(to)).expect("make a link");
        };
        link("busybox", "bin/busybox");
        link("bash", "bin/bash");
        for phase in PHASES {
            link("coracle", &format!("cnb/lifecycle/{phase}"));
        }
        let applets = Command::new("/usr/bin/busybox").arg("--list").output().expect("start busybox").stdout;
        for applet in
            String::from_utf8_lossy(&applets).lines().filter(|name| !["busybox", "bash"].contains(name))
        {
            symlink("/bin/busybox", self.root.join("bin").join(applet)).expect("make a link");
        }
        symlink("/bin/busybox", self.root.join("usr/bin/env")).expect("make a link");
        let run = "REGISTRY/golden/run:latest";
        self.write("dev/null", &json!(""));
        self.write("etc/os-release", &json!("ID=\"debian\"\nVERSION_ID=\"12\"\n"));
        self.write("cnb/run.toml", &json!(format!("[[images]]\nimage = \"{run}\"\n")));
        self.write("cnb/stack.toml", &json!(format!("[run-image]\nimage = \"{run}\"\n")));
        self.write_all("platform/env", &self.case["platform_env"]);
        self.write_builder();
    }

    fn write_builder(&self) {
        self.write("cnb/order.toml", &self.case["order.toml"]);
        self.write_all("cnb/buildpacks", &self.case["buildpacks"]);
        self.write_all("", &self.case["files"]);
    }

    fn start_round(&self, number: usize) {
        for folder in ["layers", "workspace"] {
            let path = self.root.join(folder);
            // Some builds close their folders.
            let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(&path).stderr(Stdio::null()).status();
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).expect("make a folder");
        }
        let second = |name: &str| self.case.get(format!("{name}_round2")).filter(|_| number > 0);
        if let Some(buildpacks) = second("buildpacks") {
            self.write_all("cnb/buildpacks", buildpacks);
        }
        self.write_all("workspace", second("app").unwrap_or(&self.case["app"]));
    }

    fn step(&mut self, step: &Value) {
        let phase = step["phase"].as_str().expect("is text");
        if let Some(text) = self
            .case
            .get("project-metadata.toml")
            .filter(|text| ["restorer", "creator"].contains(&phase) && !text.is_null())
        {
            self.write("layers/project-metadata.toml", text);
        }
        if phase == "exporter" {
            // What an extender would have left.
            self.write_all("", &self.case["before_exporter"]);
        }
        let args = step["args"].as_array().expect("is a list").iter();
        let args: Vec<_> = args.map(|arg| self.with_names(arg.as_str().expect("is text"))).collect();
        self.run_program(phase, &args, &step["exit"]);
        for (path, text) in step["files"].as_object().into_iter().flatten() {
            self.compare_file(path, text);
        }
        for (listing, folder) in [("tree", "layers"), ("cache", "cache/committed")] {
            if let Some(lines) = step.get(listing).and_then(Value::as_array) {
                self.compare_listing(folder, lines);
            }
        }
        if self.by == By::Mixed {
            self.feed(step);
        }
    }

    /// Puts what the reference's phase wrote in the place of what ours did: the next phase gets that. What the recordings leave open, the
    /// digests of the last image and of the launcher in it, is ours.
    fn feed(&self, step: &Value) {
        // No phase reads the report.
        let files = step["files"].as_object().into_iter().flatten();
        for (path, text) in files.filter(|(path, _)| !path.ends_with("/report.toml")) {
            let file = self.root.join(&path[1..]);
            let mut text = self.with_names(text.as_str().expect("is text"));
            if text.contains("VARIES") || text.contains("LAUNCHER") {
                let own = fs::read_to_string(&file).expect("read a document of ours");
                let own: toml::Table = own.parse().expect("is TOML");
                let image = own["image"]["reference"].as_str().expect("is text");
                let launcher = own["metadata"]["launcher"]["sha"].as_str().expect("is text");
                let digest = image.split_once("@sha256:").map_or("", |(_, digest)| digest);
                text = text.replace("LAUNCHER", launcher).replace("VARIES", digest);
            }
            fs::write(file, text).expect("write a document over ours");
            self.bench.fed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Runs a program of the lifecycle in the root filesystem.
    fn run_program(&mut self, program: &str, args: &[String], exit: &Value) {
        let api = self.case["platform_api"].as_str().expect("is text");
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-user=1001", "--map-group=1002", "--root"])
            .arg(&self.root)
            .args(["--wd=/", "--"])
            .arg(format!("/cnb/lifecycle/{program}"))
            .args(args)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .envs([("HOME", "/home/cnb"), ("CNB_USER_ID", "1001"), ("CNB_GROUP_ID", "1002")])
            .envs([("CNB_NO_COLOR", "true"), ("CNB_STACK_ID", "gold.stack"), ("CNB_PLATFORM_API", api)])
            .stdin(Stdio::null());
        for (name, value) in self.case["env"].as_object().into_iter().flatten() {
            command.env(name, value.as_str().expect("is text"));
        }
        let Output { status, stdout, stderr } = command.output().expect("start a phase");
        let expected = exit.as_i64().and_then(|exit| i32::try_from(exit).ok());
        if status.code() != expected {
            let said = [stdout, stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            self.differences.push(format!("exit {status}, not {expected:?}:\n{said}"));
        }
    }
}

/// Runs all recordings of a file; fails with what differs.
fn pipelines(file: &str, by: By) {
    assert!(!nix::unistd::geteuid().is_root(), "run as a plain user: phases of foreign programs refuse root");
    let text = fs::read_to_string(data(file)).expect("read the recordings");
    let recorded: Value = serde_json::from_str(&text).expect("is JSON");
    let only = std::env::var("GOLDEN_CASE").unwrap_or_default();
    let cases = recorded["cases"].as_array().expect("is a list").iter();
    let cases = cases.filter(|case| case["name"].as_str().is_some_and(|name| name.contains(&only)));
    let cases: Vec<&Value> = cases.filter(|case| by != By::Platform || conducted::is_one(case)).collect();
    let bench = Bench::new();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let differences = bench.run(case, by);
                    if !differences.is_empty() {
                        let name = case["name"].as_str().unwrap_or_default();
                        let report = format!("=== {name}\n{}\n", differences.join("\n"));
                        wrong.lock().expect("no panic").push(report);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("no panic");
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    // All of them but reports.
    let files = cases.iter().flat_map(|case| case["rounds"].as_array().into_iter().flatten());
    let files = files.flat_map(|round| round["steps"].as_array().into_iter().flatten());
    let files = files.flat_map(|step| step["files"].as_object().into_iter().flatten());
    let all = files.filter(|(path, _)| !path.ends_with("/report.toml")).count();
    let wanted = if by == By::Mixed { all } else { 0 };
    assert_eq!(bench.fed.into_inner(), wanted, "documents that phases were given");
}

#[test]
fn pipelines_end_as_those_of_the_reference() {
    pipelines("pipeline.json", By::Phases);
}

/// Each phase is given what the reference's phases before it wrote.
#[test]
fn each_phase_goes_on_from_the_reference_s_documents() {
    pipelines("pipeline.json", By::Mixed);
}

#[test]
fn a_creator_ends_as_the_five_phases() {
    pipelines("pipeline.json", By::Creator);
}

/// Caches in images, by the phases and by the creator; run images that an extender has extended.
#[test]
fn cache_images_and_extended_run_images_are_the_reference_s() {
    pipelines("caches-and-extended.json", By::Phases);
}

/// Pipelines made by chance, mirrors of run images, creators with options, variables with a dot.
#[test]
fn what_the_first_recordings_leave_open_is_as_the_reference_has_it() {
    pipelines("by-chance.json", By::Phases);
}

#[test]
fn phases_go_on_from_the_reference_s_documents_there_too() {
    pipelines("by-chance.json", By::Mixed);
}

#[test]
fn images_of_phases_that_are_driven_as_another_lifecycle_s_are_the_reference_s() {
    pipelines("pipeline.json", By::Platform);
}
