//! Whole pipelines against what the reference lifecycle did with the same input: exit codes, documents, listings, images.
//!
//! Each runs in a root filesystem of its own, as the recordings did: busybox, bash, and this program under the names of the phases.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use coracle::{AuthFile, Digest};
use coracle_fixtures::DockerRegistry;
use coracle_images::{Platform, Registry, RegistryOptions, read_layout};
use serde_json::{Value, json};

use crate::harness::coracle;

const PHASES: [&str; 5] = ["analyzer", "detector", "restorer", "builder", "exporter"];

/// What all cases share: programs to link to, and a registry with the run image.
struct Bench {
    folder: tempfile::TempDir,
    registry: DockerRegistry,
    client: Registry,
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
        Self { folder, registry, client }
    }

    /// A text of the recordings with our names in it.
    fn with_names(&self, text: &str) -> String {
        text.replace("REGISTRY", &self.registry.address())
    }

    /// Runs all rounds; returns what differs.
    fn run(&self, case: &Value) -> Vec<String> {
        let folder = tempfile::tempdir_in(self.folder.path()).expect("make a folder");
        let site = Site { bench: self, case, root: folder.path().join("root"), differences: Vec::new() };
        site.run()
    }
}

fn data(name: &str) -> PathBuf {
    let root =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or(env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    root.join("integration/data").join(name)
}

/// One case in its root filesystem.
struct Site<'a> {
    bench: &'a Bench,
    case: &'a Value,
    root: PathBuf,
    differences: Vec<String>,
}

impl Site<'_> {
    fn run(mut self) -> Vec<String> {
        self.furnish();
        for (number, round) in self.case["rounds"].as_array().expect("is a list").iter().enumerate() {
            self.start_round(number);
            for step in round["steps"].as_array().expect("is a list") {
                let before = self.differences.len();
                self.step(step);
                let said = format!("round {} {}: ", number + 1, step["phase"].as_str().unwrap_or_default());
                self.differences[before..].iter_mut().for_each(|difference| difference.insert_str(0, &said));
            }
            if let Some(image) = round.get("image").filter(|image| !image.is_null()) {
                self.compare_image(image);
            }
        }
        self.differences
    }

    fn write(&self, path: &str, file: &Value) {
        let path = self.root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("is below the root")).expect("make a folder");
        let text = file.as_str().or_else(|| file["text"].as_str()).expect("has a text");
        // A program that is being written cannot be started, so nobody else may inherit the handle: a rename ends that.
        fs::write(&path, self.bench.with_names(text)).expect("write a file");
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
        // Our client wants authorities even where it speaks plain HTTP; the reference's does not.
        let authorities = "etc/ssl/certs/ca-certificates.crt";
        fs::create_dir_all(self.root.join("etc/ssl/certs")).expect("make a folder");
        fs::copy(Path::new("/").join(authorities), self.root.join(authorities)).expect("copy a file");
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
        self.write("cnb/order.toml", &self.case["order.toml"]);
        self.write_all("platform/env", &self.case["platform_env"]);
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
        if let Some(text) =
            self.case.get("project-metadata.toml").filter(|text| phase == "restorer" && !text.is_null())
        {
            self.write("layers/project-metadata.toml", text);
        }
        let args = step["args"].as_array().expect("is a list").iter();
        let args = args.map(|arg| self.bench.with_names(arg.as_str().expect("is text")));
        let api = self.case["platform_api"].as_str().expect("is text");
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-user=1001", "--map-group=1002", "--root"])
            .arg(&self.root)
            .args(["--wd=/", "--"])
            .arg(format!("/cnb/lifecycle/{phase}"))
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
        let expected = step["exit"].as_i64().and_then(|exit| i32::try_from(exit).ok());
        if status.code() != expected {
            let said = [stdout, stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            self.differences.push(format!("exit {status}, not {expected:?}:\n{said}"));
        }
        for (path, text) in step["files"].as_object().into_iter().flatten() {
            let expected = self.bench.with_names(text.as_str().expect("is text"));
            let found = fs::read_to_string(self.root.join(&path[1..]));
            match found {
                Err(error) => self.differences.push(format!("{path}: {error}")),
                Ok(found) => self.compare_document(path, &found, &expected),
            }
        }
        for (listing, folder) in [("tree", "layers"), ("cache", "cache/committed")] {
            if let Some(lines) = step.get(listing).and_then(Value::as_array) {
                self.compare_listing(folder, lines);
            }
        }
    }

    fn compare_document(&mut self, path: &str, found: &str, expected: &str) {
        let same = if path.ends_with(".toml") {
            let value = |text: &str| -> Value {
                let table: Option<toml::Table> = text.parse().ok();
                let mut value =
                    table.map_or(Value::Null, |table| serde_json::to_value(table).unwrap_or_default());
                if let Some(entries) = value.get_mut("entries").and_then(Value::as_array_mut) {
                    entries.sort_by_key(ToString::to_string);
                }
                value
            };
            fits(&value(found), &value(expected))
        } else {
            found == expected
        };
        if !same {
            self.differences.push(format!("{path}:\n--- found\n{found}\n--- expected\n{expected}"));
        }
    }

    fn compare_listing(&mut self, folder: &str, expected: &[Value]) {
        let mut found = BTreeSet::new();
        list(&self.root, Path::new(folder), &mut found);
        // What holds the registry's address, or has no order of its own, has another size here.
        let of_here = ["/layers/analyzed.toml", "/layers/plan.toml"];
        let shown = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let bare = of_here.iter().any(|path| words.get(1) == Some(path)) || folder.starts_with("cache");
            if bare { words[..3.min(words.len())].join(" ") } else { line.to_owned() }
        };
        let found: BTreeSet<String> = found.iter().map(|line| shown(line)).collect();
        let expected: BTreeSet<String> = expected.iter().filter_map(Value::as_str).map(shown).collect();
        let expected: BTreeSet<String> =
            expected.into_iter().filter(|line| line.contains(&format!(" /{folder}/"))).collect();
        let only = |of: &BTreeSet<String>, other: &BTreeSet<String>| {
            of.difference(other).cloned().collect::<Vec<_>>().join("\n    ")
        };
        if found != expected {
            let (here, there) = (only(&found, &expected), only(&expected, &found));
            self.differences
                .push(format!("/{folder}:\n  only here:\n    {here}\n  only there:\n    {there}"));
        }
    }

    fn compare_image(&mut self, expected: &Value) {
        let name = self.case["name"].as_str().expect("is text");
        let reference = self.bench.registry.reference(&format!("golden/{name}:latest"));
        let image = match self.bench.client.image(&reference.parse().expect("is a name"), &Platform::host()) {
            Ok(image) => image,
            Err(error) => return self.differences.push(format!("image: {error}")),
        };
        let mut found: Value = serde_json::from_slice(&image.config_bytes).expect("is JSON");
        let label = image.config.label("io.buildpacks.lifecycle.metadata").unwrap_or("{}");
        let metadata: Value = serde_json::from_str(label).unwrap_or_default();
        let launcher = metadata["launcher"]["sha"].as_str().unwrap_or("no launcher").to_owned();
        let build = image.config.label("io.buildpacks.build.metadata").unwrap_or("{}");
        let build: Value = serde_json::from_str(build).unwrap_or_default();
        let labels =
            found["config"].as_object_mut().and_then(|config| config.remove("Labels")).unwrap_or_default();
        let mut all = BTreeMap::new();
        for (name, text) in labels.as_object().into_iter().flatten() {
            let text = text.as_str().unwrap_or_default().replace(&launcher, "LAUNCHER");
            let own = format!("\"launcher\":{}", build["launcher"]);
            all.insert(name.clone(), text.replace(&own, "\"launcher\":LAUNCHER"));
        }
        let rootfs = found.as_object_mut().and_then(|config| config.remove("rootfs")).unwrap_or_default();
        let diff_ids = rootfs["diff_ids"].to_string().replace(&launcher, "LAUNCHER");
        found["diff_ids"] = serde_json::from_str(&diff_ids).unwrap_or_default();
        found["labels"] = json!(all);
        let mut expected: Value =
            serde_json::from_str(&self.bench.with_names(&expected.to_string())).expect("is JSON");
        if let Some(members) = expected.as_object_mut() {
            // Docker and OCI mixed: ours are of one kind.
            members.remove("media_types");
        }
        for key in keys(&found).union(&keys(&expected)) {
            let (ours, theirs) = (&found[key], &expected[key]);
            for inner in keys(ours).union(&keys(theirs)) {
                if ours[inner] != theirs[inner] {
                    self.differences
                        .push(format!("image {key} {inner}:\n  {}\n  {}", ours[inner], theirs[inner]));
                }
            }
            if ours != theirs && !ours.is_object() {
                self.differences.push(format!("image {key}:\n  {ours}\n  {theirs}"));
            }
        }
    }
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
}

/// Whether a value is as recorded; what varies is anything.
fn fits(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (_, Value::String(text)) if text == "VARIES" => true,
        (Value::String(found), Value::String(expected)) => {
            let launcher = expected == "LAUNCHER" && (found.starts_with("sha256:") || found.is_empty());
            let varies = expected.split_once("VARIES").is_some_and(|(start, _)| found.starts_with(start));
            found == expected || launcher || varies
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && other.iter().all(|(key, value)| one.get(key).is_some_and(|found| fits(found, value)))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(found, value)| fits(found, value))
        }
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        _ => found == expected,
    }
}

/// The lines of a listing, in the recordings' form.
fn list(root: &Path, folder: &Path, lines: &mut BTreeSet<String>) {
    for entry in fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
        let path = folder.join(entry.file_name());
        let (shown, full) = (path.display(), root.join(&path));
        let metadata = fs::symlink_metadata(&full).expect("look at an entry");
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_symlink() {
            let target = fs::read_link(&full).expect("read a link");
            lines.insert(format!("link /{shown} -> {}", target.display()));
        } else if metadata.is_dir() {
            lines.insert(format!("dir /{shown} {mode:o}"));
            list(root, &path, lines);
        } else {
            let bytes = fs::read(&full).unwrap_or_default();
            let hash = Digest::of(&bytes).hex()[..16].to_owned();
            lines.insert(format!("file /{shown} {mode:o} {} {hash}", bytes.len()));
        }
    }
}

#[test]
fn pipelines_end_as_those_of_the_reference() {
    assert!(!nix::unistd::geteuid().is_root(), "run as a plain user: phases of foreign programs refuse root");
    let text = fs::read_to_string(data("pipeline.json")).expect("read the recordings");
    let recorded: Value = serde_json::from_str(&text).expect("is JSON");
    let only = std::env::var("GOLDEN_CASE").unwrap_or_default();
    let cases = recorded["cases"].as_array().expect("is a list").iter();
    let cases: Vec<&Value> =
        cases.filter(|case| case["name"].as_str().is_some_and(|name| name.contains(&only))).collect();
    let bench = Bench::new();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let differences = bench.run(case);
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
}
