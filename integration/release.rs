//! What `scripts/release` packs: a lifecycle archive and an image for other platforms, the same bytes whoever packs them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use coracle_fixtures::Buildpack;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Ran, coracle, ran};
use crate::site::Site;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn output(command: &mut Command) -> Ran {
    let ran = ran(command.output().unwrap_or_else(|error| panic!("start {command:?}: {error}")));
    assert_eq!(ran.code, Some(0), "{command:?}: {}", ran.stderr);
    ran
}

/// A packed release of the program under test.
struct Release {
    folder: TempDir,
}

impl Release {
    fn pack(umask: &str, zone: &str) -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        let root = std::env::var_os("CARGO_MANIFEST_DIR");
        let root = root.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let mut pack = Command::new("bash");
        pack.args(["-c", "umask $1; exec \"$2\" \"$3\" \"$4\"", "bash", umask]);
        // Less to pack, without what only a debugger wants.
        let program = folder.path().join("program");
        output(Command::new("strip").arg("-o").arg(&program).arg(coracle()));
        pack.arg(root.join("scripts/release")).arg(folder.path().join("out")).arg(program);
        output(pack.env("TZ", zone).env("LC_ALL", "C.UTF-8"));
        Self { folder }
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.folder.path().join(format!("out/lifecycle-v{VERSION}+linux.x86-64.{ending}"))
    }

    fn unpacked(&self) -> PathBuf {
        let into = self.folder.path().join("unpacked");
        fs::create_dir(&into).expect("make a folder");
        output(Command::new("tar").arg("-xzf").arg(self.file("tgz")).arg("-C").arg(&into));
        into
    }
}

fn phase(program: &Path, words: &[&str]) -> Ran {
    let mut command = Command::new(program);
    ran(command.args(words).env_clear().output().expect("start a phase"))
}

fn check_archive(folder: &Path) {
    let text = fs::read_to_string(folder.join("lifecycle.toml")).expect("read lifecycle.toml");
    let descriptor: toml::Table = text.parse().expect("is TOML");
    let said = phase(&folder.join("lifecycle/lifecycle"), &["-version"]);
    assert_eq!(said.stdout, format!("{}\n", descriptor["lifecycle"]["version"].as_str().expect("is text")));
    let list = |api: &str| -> Vec<String> {
        let supported = descriptor["apis"][api]["supported"].as_array().expect("is a list");
        supported.iter().map(|version| version.as_str().expect("is text").to_owned()).collect()
    };
    // A phase names what it supports where it is asked for something else.
    let refused = phase(&folder.join("lifecycle/analyzer"), &["app"]);
    let platform = list("platform");
    let (first, last) = (&platform[0], &platform[platform.len() - 1]);
    let expected = format!("{first} to {last}");
    let said = refused.stderr.contains(&expected) && refused.stderr.contains("CNB_PLATFORM_API");
    assert!(refused.code == Some(11) && said, "{}", refused.stderr);
    assert_eq!(list("buildpack"), ["0.7", "0.8", "0.9", "0.10", "0.11", "0.12"]);
    for api in ["platform", "buildpack"] {
        assert_eq!(descriptor["api"][api].as_str(), Some(list(api)[0].as_str()), "the oldest {api} API");
    }

    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder.join("lifecycle")).expect("list lifecycle") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("is text");
        let mode = entry.metadata().expect("metadata").permissions().mode() & 0o777;
        if entry.file_type().expect("a type").is_symlink() {
            let target = fs::canonicalize(entry.path()).expect("leads somewhere");
            assert_eq!(target, fs::canonicalize(folder.join("lifecycle/lifecycle")).expect("is there"));
        } else if name.contains(".sbom.") {
            let text = fs::read(entry.path()).expect("read a document");
            let document: Value = serde_json::from_slice(&text).expect("is JSON");
            assert!(document.is_object() && mode == 0o644, "{name}: {mode:o}");
        } else {
            assert_eq!(mode, 0o755, "{name}");
        }
        found.insert(name);
    }
    let phases =
        ["analyzer", "builder", "creator", "detector", "exporter", "extender", "rebaser", "restorer"];
    let mut expected: BTreeSet<String> = phases.iter().map(|name| (*name).to_owned()).collect();
    for program in ["launcher", "lifecycle"] {
        expected.insert(program.to_owned());
        expected.extend(["cdx", "spdx", "syft"].map(|form| format!("{program}.sbom.{form}.json")));
    }
    assert_eq!(found, expected);
    // The launcher is one: it looks for the image that it is in.
    let lost = phase(&folder.join("lifecycle/launcher"), &["x"]);
    assert!(lost.code == Some(11) && lost.stderr.contains("CNB_PLATFORM_API"), "{}", lost.stderr);
}

fn check_image(release: &Release, unpacked: &Path) {
    let source = format!("oci-archive:{}", release.file("oci.tar").display());
    let config = output(Command::new("skopeo").args(["inspect", "--config", &source])).stdout;
    let config: Value = serde_json::from_str(&config).expect("is JSON");
    let labels = &config["config"]["Labels"];
    assert_eq!(labels["io.buildpacks.lifecycle.version"], VERSION);
    let label = |name: &str| -> Value {
        serde_json::from_str(labels[name].as_str().expect("is text")).expect("is JSON")
    };
    let text = fs::read_to_string(unpacked.join("lifecycle.toml")).expect("read lifecycle.toml");
    let descriptor: Value =
        serde_json::to_value(text.parse::<toml::Table>().expect("is TOML")).expect("is JSON");
    assert_eq!(label("io.buildpacks.lifecycle.apis"), descriptor["apis"]);
    let oldest = json!({ "api": descriptor["api"], "lifecycle": { "version": VERSION } });
    assert_eq!(label("io.buildpacks.builder.metadata"), oldest);
    assert_eq!(config["config"]["WorkingDir"], "/layers");

    // Copied, so that every digest is checked; then what the layer holds is the archive, below /cnb.
    let copy = release.folder.path().join("copy");
    let to = format!("dir:{}", copy.display());
    output(Command::new("skopeo").args(["--insecure-policy", "copy", "-q", &source, &to]));
    let manifest = fs::read(copy.join("manifest.json")).expect("read the manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("is JSON");
    let digest = manifest["layers"][0]["digest"].as_str().expect("is text").trim_start_matches("sha256:");
    let listed = |file: &Path| -> BTreeSet<String> {
        let list = output(Command::new("tar").arg("-tvzf").arg(file)).stdout;
        assert!(list.lines().all(|line| line.contains(" 0/0 ") && line.contains(" 1980-01-01 ")), "{list}");
        list.lines().map(|line| line.split_whitespace().nth(5).expect("a name").to_owned()).collect()
    };
    let archive = listed(&release.file("tgz")).iter().map(|name| format!("cnb/{name}")).collect::<Vec<_>>();
    let expected: BTreeSet<String> = archive.into_iter().chain(["cnb/".to_owned()]).collect();
    assert_eq!(listed(&copy.join(digest)), expected);
}

#[test]
fn a_release_is_a_lifecycle_that_runs_and_the_same_whoever_packs_it() {
    let release = Release::pack("022", "UTC");
    let unpacked = release.unpacked();
    check_archive(&unpacked);
    check_image(&release, &unpacked);
    let folder = release.folder.path().join("out");
    output(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&folder));
    let other = Release::pack("077", "Asia/Kolkata");
    let sums = |release: &Release| {
        fs::read_to_string(release.folder.path().join("out/SHA256SUMS")).expect("read the checksums")
    };
    assert_eq!(sums(&release), sums(&other));
}

#[test]
fn files_are_written_where_that_is_said() {
    let refused = phase(&coracle(), &["lifecycle", "write-files"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("no folder is named: `lifecycle write-files FOLDER`"),
        "{}",
        refused.stderr
    );
    let refused = phase(&coracle(), &["lifecycle", "write-files", "/proc/none"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("write: `/proc/none"), "{}", refused.stderr);
}

#[test]
fn images_hold_what_their_launcher_is_made_of() {
    let bill = "/layers/sbom/launch/buildpacksio_lifecycle/launcher/sbom.cdx.json";
    let site = Site::new(&[Buildpack::passing("fixture/reader").process(&["cat", bill])]);
    let said = site.built("app", &[]);
    assert!(!said.stdout.contains("SBOM") && !said.stderr.contains("SBOM"), "{}{}", said.stdout, said.stderr);
    let folder = tempfile::tempdir().expect("make a folder");
    let path = folder.path().to_str().expect("is text");
    assert_eq!(phase(&coracle(), &["lifecycle", "write-files", path]).code, Some(0));
    let own = fs::read_to_string(folder.path().join("lifecycle/launcher.sbom.cdx.json")).expect("read it");
    assert_eq!(site.home.ok(&["run", "app"]).stdout, own);
}
