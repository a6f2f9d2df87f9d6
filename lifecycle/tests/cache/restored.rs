//! What comes back of a cache and a previous image: as the reference recorded it, and when somebody tampered with it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use coracle_fixtures::{Entry, Layer};
use coracle_lifecycle::cache::Cache;
use coracle_lifecycle::env::Env;
use coracle_lifecycle::phases::{Launcher, PhaseError, main};

use super::{Folders, METADATA, open_folders, recorded};

pub(super) const GROUP: &str = "[[group]]\nid = \"a/one\"\nversion = \"1\"\napi = \"0.10\"\n";
const LAUNCHER: Launcher<'_> = Launcher { program: b"", metadata: serde_json::Value::Null };

pub(super) struct Builds(Folders);

impl std::ops::Deref for Builds {
    type Target = Folders;

    fn deref(&self) -> &Folders {
        &self.0
    }
}

impl Builds {
    pub(super) fn new(group: &str) -> Self {
        Self(Folders::new(group))
    }

    /// Ends a build: its cached layers are saved, and all of them go.
    pub(super) fn end(&self) {
        self.save_as(&self.layers().display().to_string(), &Cache::default(), &[]).unwrap();
        self.empty();
    }

    /// A cache of one archive, whatever its list says.
    fn forge(&self, layer: &Layer, list: &str) {
        fs::create_dir_all(self.cache().join("committed")).unwrap();
        fs::write(self.cache().join("committed").join(format!("{}.tar", layer.diff_id())), layer.tar())
            .unwrap();
        fs::write(self.cache().join(METADATA), list.replace("SHA", &layer.diff_id())).unwrap();
    }

    fn restore(&self) -> Result<(), PhaseError> {
        self.restore_after("", &[])
    }

    pub(super) fn restore_after(&self, analyzed: &str, more: &[&str]) -> Result<(), PhaseError> {
        fs::write(self.dir.path().join("analyzed.toml"), analyzed).unwrap();
        self.restore_as_it_is(more)
    }

    fn restore_as_it_is(&self, more: &[&str]) -> Result<(), PhaseError> {
        let path = |name: &str| self.dir.path().join(name).into_os_string();
        let mut args: Vec<OsString> =
            vec!["-layers".into(), path("layers"), "-cache-dir".into(), path("cache")];
        args.extend(["-group".into(), path("group.toml"), "-analyzed".into(), path("analyzed.toml")]);
        // Where the process may give files away, it gives them to itself.
        let me = |id: u32| OsString::from(id.to_string());
        args.extend(["-uid".into(), me(nix::unistd::geteuid().as_raw())]);
        args.extend(["-gid".into(), me(nix::unistd::getegid().as_raw())]);
        args.extend(more.iter().map(OsString::from));
        let env: Env = [("CNB_PLATFORM_API".into(), "0.13".into())].into();
        main(OsStr::new("restorer"), &args, &env, &LAUNCHER)
    }

    /// All paths below the layers' folder, with modes, and contents or targets.
    pub(super) fn tree(&self) -> BTreeSet<String> {
        let mut tree = BTreeSet::new();
        walk(&self.layers(), &self.layers(), &mut tree);
        tree
    }
}

fn walk(root: &Path, dir: &Path, tree: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let mode = metadata.mode() & 0o7777;
        if metadata.is_dir() {
            tree.insert(format!("{name}/ {mode:o}"));
            walk(root, &path, tree);
        } else if metadata.is_symlink() {
            tree.insert(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
        } else {
            tree.insert(format!("{name} {mode:o} {:?}", fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn restores_what_the_reference_restored() {
    let data = recorded();
    let mut compared = 0;
    for case in data["cases"].as_array().unwrap() {
        for round in case["rounds"].as_array().unwrap().iter().filter(|round| round["group"].is_string()) {
            let group = round["group"].as_str().unwrap();
            if group.contains("api = \"0.12\"") {
                continue;
            }
            let builds = Builds::new(group);
            let mut analyzed = round["analyzed"].as_str().unwrap().to_owned();
            if let Some(list) = round["cache"].as_str() {
                recorded_cache(&builds, list, &mut analyzed);
            }
            builds.restore_after(&analyzed, &[]).unwrap();
            let name = &case["name"];
            let mut files = BTreeSet::new();
            for (path, text) in round["restored"].as_object().unwrap() {
                let path = path.strip_prefix("/layers/").unwrap().to_owned();
                assert_eq!(
                    fs::read_to_string(builds.layers().join(&path)).unwrap(),
                    text.as_str().unwrap(),
                    "{name}"
                );
                files.insert(path);
            }
            let lines = round["tree"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
            let folders: BTreeSet<String> = lines
                .filter_map(|line| line.strip_prefix("dir /layers/")?.split(' ').next())
                .filter(|path| path.split('/').count() <= 2)
                .map(str::to_owned)
                .collect();
            let tree = builds.tree();
            let found = tree.iter().map(|line| line.split(' ').next().unwrap());
            let found_files: BTreeSet<String> =
                found.clone().filter(|path| path.ends_with(".toml")).map(str::to_owned).collect();
            let found_folders: BTreeSet<String> = found
                .filter_map(|path| path.strip_suffix('/'))
                .filter(|path| path.split('/').count() <= 2)
                .map(str::to_owned)
                .collect();
            assert_eq!((found_files, found_folders), (files, folders), "{name}");
            compared += 1;
        }
    }
    assert!(compared > 80, "{compared}");
}

/// A cache of the recorded layers, with contents of our own: their digests take the recorded ones' place.
fn recorded_cache(builds: &Builds, list: &str, analyzed: &mut String) {
    let parsed: serde_json::Value = serde_json::from_str(list).unwrap();
    let layers = |value: &serde_json::Value| -> Vec<(String, String)> {
        let buildpacks = value["buildpacks"].as_array().unwrap().iter();
        buildpacks
            .flat_map(|buildpack| {
                let dir = buildpack["key"].as_str().unwrap().replace('/', "_");
                let layers = buildpack["layers"].as_object().unwrap().iter();
                layers.map(move |(name, layer)| {
                    (format!("{dir}/{name}"), layer["sha"].as_str().unwrap().to_owned())
                })
            })
            .collect()
    };
    for (path, _) in layers(&parsed) {
        builds.write(&format!("{path}/content"), &path);
        builds.write(&format!("{path}.toml"), "[types]\ncache = true\n");
    }
    builds.end();
    let own = fs::read_to_string(builds.cache().join(METADATA)).unwrap();
    let own = layers(&serde_json::from_str(&own).unwrap());
    let mut list = list.to_owned();
    for (path, sha) in layers(&parsed) {
        let (_, own) = own.iter().find(|(other, _)| *other == path).unwrap();
        list = list.replace(&sha, own);
        *analyzed = analyzed.replace(&sha, own);
    }
    fs::write(builds.cache().join(METADATA), list).unwrap();
}

/// As the reference leaves it: keys that nobody knows are gone, those that are always there are there. What says the same already is not
/// written to.
#[test]
fn what_the_analyzer_found_is_written_again() {
    let builds = Builds::new(GROUP);
    let path = builds.dir.path().join("analyzed.toml");
    let own = "\n[metadata]\n  [metadata.config]\n    sha = \"\"\n  [metadata.launcher]\n    sha = \"\"\n  [metadata.process-types]\n    sha = \"\"\n  [metadata.run-image]\n    top-layer = \"\"\n    reference = \"\"\n";
    for (found, left) in [
        ("", own.trim_start().to_owned()),
        (
            "zzz = 1\n# somebody's\n[image]\nunknown = 1\nreference = \"\"\n",
            format!("[image]\n  reference = \"\"\n{own}"),
        ),
        (
            "[run-image]\nimage = \"r\"\nreference = \"r@d\"\n",
            format!("{}\n[run-image]\n  reference = \"r@d\"\n  image = \"r\"\n", own.trim_start()),
        ),
    ] {
        builds.restore_after(found, &[]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), left, "{found}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        let before = fs::metadata(&path).unwrap();
        builds.restore_as_it_is(&[]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mtime_nsec(), before.mtime_nsec());
        fs::remove_file(&path).unwrap();
    }
    // Who has none gets one; one that cannot be read stays.
    builds.restore_as_it_is(&[]).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), own.trim_start());
    builds.restore_after("broken", &[]).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "broken");
}

/// The reference ends at a FIFO, and drops the other permissions (docs/decisions/0008-what-comes-back-is-verified.md): the layer would be
/// another one in the next image.
#[test]
fn a_layer_keeps_its_fifos_and_the_permissions_that_programs_run_with() {
    let builds = Builds::new(GROUP);
    builds.write("a_one/x/both", "text");
    builds.write("a_one/x.toml", "[types]\ncache = true\n");
    let x = builds.layers().join("a_one/x");
    fs::set_permissions(x.join("both"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::set_permissions(&x, fs::Permissions::from_mode(0o3775)).unwrap();
    nix::unistd::mkfifo(&x.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o640)).unwrap();
    builds.end();
    builds.restore().unwrap();
    let mode = |path: &str| fs::symlink_metadata(x.join(path)).unwrap().mode();
    assert_eq!((mode("both"), mode(""), mode("fifo") & 0o170_777), (0o106_755, 0o043_775, 0o010_640));
}

#[test]
fn a_layer_comes_back_as_it_was() {
    let builds = Builds::new(GROUP);
    builds.write("a_one/x/bin/tool", "#!/bin/sh\n");
    builds.write("a_one/x/closed/file", "text");
    builds.write("a_one/x.toml", "[types]\ncache = true\n");
    let x = builds.layers().join("a_one/x");
    symlink("bin/tool", x.join("link")).unwrap();
    symlink("/nowhere", x.join("dangling")).unwrap();
    for (path, mode) in [("bin/tool", 0o755), ("closed", 0o555), ("closed/file", 0o400), ("", 0o555)] {
        fs::set_permissions(x.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut before = builds.tree();
    builds.end();
    builds.restore().unwrap();
    // What the layer is for, the buildpack says again.
    assert!(before.remove("a_one/x.toml 644 \"[types]\\ncache = true\\n\""));
    before.insert("a_one/x.toml 644 \"\"".into());
    assert_eq!(builds.tree(), before);
    let age = fs::metadata(builds.layers().join("a_one/x/bin/tool")).unwrap().modified().unwrap().elapsed();
    assert!(age.unwrap().as_secs() < 600, "tools take files of 1980 for garbage");
    open_folders(&builds.layers());
}

#[test]
fn bills_of_cached_layers_come_back_beside_them() {
    let builds = Builds::new(GROUP);
    builds.write("a_one/x/file", "text");
    builds.write("a_one/x.toml", "[types]\ncache = true\n");
    builds.write("sbom/cache/a_one/x/sbom.cdx.json", "{}");
    builds.write("sbom/cache/a_one/x/other", "{}");
    builds.write("sbom/cache/b_two/x/sbom.cdx.json", "{}");
    builds.end();
    builds.restore().unwrap();
    let tree = builds.tree();
    let files: Vec<&str> =
        tree.iter().map(|line| line.split(' ').next().unwrap()).filter(|path| !path.ends_with('/')).collect();
    assert_eq!(files, ["a_one/x.sbom.cdx.json", "a_one/x.toml", "a_one/x/file"]);
}

#[test]
fn what_is_damaged_is_left_out_and_the_rest_comes_back() {
    let builds = Builds::new(GROUP);
    for layer in ["x", "y"] {
        builds.write(&format!("a_one/{layer}/file"), &layer.repeat(2000));
        builds.write(&format!("a_one/{layer}.toml"), "[types]\ncache = true\n");
    }
    builds.end();
    let archive = builds.archive(&builds.archives().remove(0).0);
    let good = fs::read(&archive).unwrap();
    let other = if good.windows(4).any(|bytes| bytes == b"xxxx") { "y" } else { "x" };
    let mut turned = good.clone();
    let middle = good.len() - 2000;
    turned[middle] ^= 1;
    for bad in [Some(&turned[..]), Some(&good[..good.len() / 2]), Some(b""), None] {
        match bad {
            Some(bad) => fs::write(&archive, bad).unwrap(),
            None => fs::remove_file(&archive).unwrap(),
        }
        builds.empty();
        builds.restore().unwrap();
        let tree = builds.tree();
        let paths: Vec<&str> = tree.iter().map(|line| line.split(' ').next().unwrap()).collect();
        let expected = [
            "a_one/",
            &format!("a_one/{other}.toml"),
            &format!("a_one/{other}/"),
            &format!("a_one/{other}/file"),
        ];
        let (mut paths, mut expected) = (paths, expected.to_vec());
        paths.sort_unstable();
        expected.sort_unstable();
        assert_eq!(paths, expected);
    }
    fs::write(builds.cache().join(METADATA), "{").unwrap();
    builds.empty();
    builds.restore().unwrap();
    assert!(builds.tree().is_empty());
}

pub(super) const LIST: &str = r#"{"sbom":{"sha":""},"buildpacks":[{"key":"a/one","version":"1","layers":{"x":{"sha":"SHA","data":null,"build":false,"launch":false,"cache":true}}}]}"#;

#[test]
fn an_archive_cannot_reach_beyond_its_layer() {
    let outside = tempfile::tempdir().unwrap();
    let builds = Builds::new(GROUP);
    let at = |path: &str| format!("{}/{path}", builds.layers().display());
    let good = || vec![Entry::dir(&at("a_one/x")), Entry::file(&at("a_one/x/file"), "text")];
    let evil = outside.path().to_str().unwrap();
    // Nothing of these comes back at all.
    for entries in [
        [good(), vec![Entry::file("../../../../evil", "evil")]].concat(),
        [good(), vec![Entry::file(&at("a_one/x/../../../evil"), "evil")]].concat(),
        vec![Entry::symlink(&at("a_one/x"), evil)],
        vec![Entry::symlink(&at("a_one"), evil)],
        vec![Entry::file(&at("a_one/x"), "no folder")],
        vec![Entry::dir(&at("b_two/x"))],
    ] {
        builds.empty();
        builds.forge(&Layer::new(&entries), LIST);
        builds.restore().unwrap();
        let tree = builds.tree();
        assert!(tree.iter().all(|line| line.starts_with("a_one/ ")), "{tree:?}");
    }
    // Of these only the layer.
    for more in [
        Entry::file(&at("b_two/y.toml"), "evil"),
        Entry::file(&at("a_one/store.toml"), "evil"),
        Entry::file(&format!("{evil}/evil"), "evil"),
        Entry::symlink(&at("a_one/link"), evil),
    ] {
        builds.empty();
        builds.forge(&Layer::new(&[good(), vec![more]].concat()), LIST);
        builds.restore().unwrap();
        let tree: Vec<String> = builds.tree().into_iter().collect();
        assert_eq!(
            tree,
            ["a_one/ 755", "a_one/x.toml 644 \"\"", "a_one/x/ 755", "a_one/x/file 644 \"text\""]
        );
    }
    // A list that names others' files.
    for name in ["../../evil", "..", ".", "", "a/b", "/etc/x"] {
        builds.empty();
        builds.forge(&Layer::new(&good()), &LIST.replace("\"x\"", &format!("{name:?}")));
        builds.restore().unwrap();
        assert!(builds.tree().is_empty(), "{name}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(!builds.dir.path().join("evil").exists());
}

#[test]
fn links_that_foreign_programs_left_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let builds = Builds::new(GROUP);
    builds.write("a_one/x/file", "text");
    builds.write("a_one/x.toml", "[types]\ncache = true\n");
    builds.end();
    fs::create_dir(outside.path().join("x")).unwrap();
    fs::write(outside.path().join("x.toml"), "own").unwrap();
    symlink(outside.path(), builds.layers().join("a_one")).unwrap();
    assert_eq!(builds.restore().unwrap_err().exit_code(), 42);
    fs::remove_file(builds.layers().join("a_one")).unwrap();
    fs::create_dir(builds.layers().join("a_one")).unwrap();
    for name in ["x", "x.toml"] {
        symlink(outside.path().join(name), builds.layers().join("a_one").join(name)).unwrap();
    }
    builds.restore().unwrap();
    assert!(builds.tree().contains("a_one/x/file 644 \"text\""), "{:?}", builds.tree());
    assert_eq!(fs::read_to_string(outside.path().join("x.toml")).unwrap(), "own");
    assert_eq!(fs::read_dir(outside.path().join("x")).unwrap().count(), 0);
    // What is in the place of the layer goes.
    builds.write("a_one/x/other/file", "other");
    builds.restore().unwrap();
    assert!(!builds.layers().join("a_one/x/other").exists());
}

#[test]
fn only_stores_come_back_without_layers_and_failures_have_exit_codes() {
    let builds = Builds::new(GROUP);
    let analyzed = "[[metadata.buildpacks]]\nkey = \"a/one\"\nversion = \"1\"\n[metadata.buildpacks.layers.l]\nsha = \"s\"\nlaunch = true\n[metadata.buildpacks.store.metadata]\nk = \"v\"\n[[metadata.buildpacks]]\nkey = \"other\"\n[metadata.buildpacks.store.metadata]\nk = \"v\"\n";
    builds.restore_after(analyzed, &["-skip-layers"]).unwrap();
    let tree: Vec<String> = builds.tree().into_iter().collect();
    assert_eq!(tree, ["a_one/ 755", "a_one/store.toml 644 \"[metadata]\\n  k = \\\"v\\\"\\n\""]);
    builds.restore_after(analyzed, &[]).unwrap();
    assert!(builds.layers().join("a_one/l.toml").exists());
    assert_eq!(builds.restore_after("", &["-cache-image", "A"]).unwrap_err().exit_code(), 3);
    let exit = |group: &str| {
        fs::write(builds.dir.path().join("group.toml"), group).unwrap();
        builds.restore().map_err(|error| error.exit_code())
    };
    assert_eq!(exit(&GROUP.replace("0.10", "9.9")), Err(12));
    assert_eq!(exit("group"), Err(1));
}
