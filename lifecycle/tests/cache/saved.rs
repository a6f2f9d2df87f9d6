//! Caches in folders: written as the reference writes them, reused, and what is left of them when something goes wrong.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use coracle_cnb::{Analyzed, Group};
use coracle_images::Digest;
use coracle_images::unpack::SingleOwner;
use coracle_lifecycle::cache::{Cache, CacheError, CacheStep};
use coracle_lifecycle::known::KnownLayers;
use coracle_lifecycle::restore::{Destination, RestoreInput, restore};

use super::{Folders, METADATA, recorded};

const FLAGS: &str =
    "key = \"NAME\"\nlist = [\"q\", \"r\"]\n[metadata.sub]\nint = 42\nfloat = 1.5\nbool = true\n";

const GROUP: &str = "[[group]]\nid = \"a/one\"\nversion = \"1.2.3\"\napi = \"0.10\"\n[[group]]\nid = \"b/two\"\nversion = \"0.0.1\"\napi = \"0.10\"\n";

struct Build(Folders);

impl std::ops::Deref for Build {
    type Target = Folders;

    fn deref(&self) -> &Folders {
        &self.0
    }
}

impl Build {
    fn types(&self, layer: &str, launch: bool, build: bool, cache: bool) {
        let name = layer.rsplit('/').next().unwrap();
        let text = format!(
            "[types]\nlaunch = {launch}\nbuild = {build}\ncache = {cache}\n[metadata]\n{}",
            FLAGS.replace("NAME", name)
        );
        self.write(&format!("{layer}.toml"), &text);
    }

    fn save(&self) -> Vec<String> {
        let previous = Cache::open(&self.cache()).unwrap();
        self.save_after(&previous)
    }

    fn save_after(&self, previous: &Cache) -> Vec<String> {
        let steps = self.try_save(previous).unwrap();
        let names: Vec<_> = fs::read_dir(self.cache()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["committed"]);
        steps.iter().map(ToString::to_string).collect()
    }

    fn try_save(&self, previous: &Cache) -> Result<Vec<CacheStep>, CacheError> {
        self.save_knowing(previous, &[])
    }

    fn save_knowing(&self, previous: &Cache, verified: &[Digest]) -> Result<Vec<CacheStep>, CacheError> {
        self.save_as("/layers", previous, verified)
    }
}

/// The layers of the case `sink-platform-0.13`.
fn sink() -> Build {
    let build = Build(Folders::new(GROUP));
    for (path, text) in [
        ("a_one/tools/bin/tool", "#!/bin/sh\necho tool\n"),
        ("a_one/tools/env/VAR", "v1"),
        ("a_one/tools/env/VAR.override", "v2"),
        ("a_one/tools/env/LIST.append", "tail"),
        ("a_one/tools/env/LIST.delim", ":"),
        ("a_one/tools/env.launch/PRE.prepend", "p"),
        ("a_one/tools/env.launch/web/WEBONLY", "w"),
        ("a_one/tools/env.build/DEF.default", "d"),
        ("a_one/tools/profile.d/one.sh", "export FROM_PROFILE=1\n"),
        ("a_one/tools/profile.d/web/two.sh", "export WEB_PROFILE=1\n"),
        ("a_one/cached/c", "c\n"),
        ("a_one/buildonly/b", "b\n"),
    ] {
        build.write(path, text);
    }
    let tool = build.layers().join("a_one/tools/bin/tool");
    fs::set_permissions(tool, fs::Permissions::from_mode(0o755)).unwrap();
    build.types("a_one/tools", true, true, true);
    build.types("a_one/cached", false, false, true);
    build.types("a_one/buildonly", false, true, false);
    build
}

fn case() -> serde_json::Value {
    let data = recorded();
    let mut cases = data["cases"].as_array().unwrap().iter();
    cases.find(|case| case["name"] == "sink-platform-0.13").unwrap().clone()
}

#[test]
fn writes_what_the_reference_wrote() {
    let build = sink();
    let case = case();
    let first = ["Adding cache layer 'a/one:cached'", "Adding cache layer 'a/one:tools'"];
    assert_eq!(build.save(), first);
    assert_eq!(build.metadata(), case["rounds"][1]["cache"].as_str().unwrap());
    assert_eq!(build.archives().len(), 2);
}

#[test]
fn comes_back_as_the_reference_restored_it() {
    let build = sink();
    build.save();
    fs::remove_dir_all(build.layers().join("a_one")).unwrap();
    let case = case();
    let round = &case["rounds"][1];
    let analyzed: Analyzed = toml::from_str(round["analyzed"].as_str().unwrap()).unwrap();
    let group: Group = toml::from_str(round["group"].as_str().unwrap()).unwrap();
    let layers = File::open(build.layers()).unwrap();
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let owner = SingleOwner { uid, gid };
    let to = Destination { layers_dir: layers.as_fd(), layers_path: "/layers", owner, now: 1_700_000_000 };
    let cache = Cache::open(&build.cache()).unwrap();
    let metadata = &analyzed.metadata;
    restore(&RestoreInput {
        group: &group,
        metadata,
        cache: &cache,
        skip_layers: false,
        platform_api: "0.13".parse().unwrap(),
        unchanged: &KnownLayers::default(),
        to,
    })
    .unwrap();
    let lines = round["tree"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned());
    let expected: BTreeSet<String> = lines.collect();
    let mut found = BTreeSet::new();
    tree(&build.layers(), "/layers", &mut found);
    assert_eq!(found, expected);
}

/// Paths as the recordings list them.
fn tree(dir: &Path, shown: &str, lines: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, shown) = (entry.path(), format!("{shown}/{}", entry.file_name().display()));
        let metadata = entry.metadata().unwrap();
        let mode = metadata.mode() & 0o7777;
        if metadata.is_dir() {
            lines.insert(format!("dir {shown} {mode:o}"));
            tree(&path, &shown, lines);
        } else {
            let digest = Digest::of(fs::read(&path).unwrap());
            lines.insert(format!("file {shown} {mode:o} {} {}", metadata.len(), &digest.hex()[..16]));
        }
    }
}

#[test]
fn writes_only_what_changed() {
    let build = sink();
    build.save();
    let first = build.archives();
    assert_eq!(build.save(), ["Reusing cache layer 'a/one:cached'", "Reusing cache layer 'a/one:tools'"]);
    assert_eq!(build.archives(), first, "an archive was written again");
    build.write("a_one/cached/c", "d\n");
    assert_eq!(build.save(), ["Adding cache layer 'a/one:cached'", "Reusing cache layer 'a/one:tools'"]);
    assert_eq!(build.archives().iter().filter(|archive| first.contains(archive)).count(), 1);
    // Not marked any more, and so not kept.
    build.types("a_one/tools", true, true, false);
    build.save();
    assert_eq!(build.archives().len(), 1);
    build.write("sbom/cache/a_one/cached/sbom.cdx.json", "{}");
    assert_eq!(build.save()[1], "Adding cache layer 'buildpacksio/lifecycle:cache.sbom'");
    assert_eq!(build.save()[1], "Reusing cache layer 'buildpacksio/lifecycle:cache.sbom'");
    assert!(build.metadata().starts_with("{\"sbom\":{\"sha\":\"sha256:"), "{}", build.metadata());
}

#[test]
fn a_verified_archive_is_linked_while_the_layer_is_the_same() {
    let build = sink();
    // Larger than any buffer, and another at its end or shorter: what came before is not lost.
    let large = "0123456789abcdef".repeat(40_000);
    build.write("a_one/cached/c", &large);
    build.save();
    let archives = build.archives();
    let layers = Cache::open(&build.cache()).unwrap().metadata().buildpacks.clone();
    let verified: Vec<Digest> =
        layers[0].layers.iter().flatten().map(|(_, layer)| layer.sha.parse().unwrap()).collect();
    let save = |verified: &[Digest]| {
        let previous = Cache::open(&build.cache()).unwrap();
        let steps = build.save_knowing(&previous, verified).unwrap();
        steps.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(save(&verified).iter().all(|step| step.starts_with("Reusing")));
    assert_eq!(build.archives(), archives);
    for change in [format!("{large}x"), large[1..].to_owned(), format!("{}x", &large[1..]), String::new()] {
        for known in [&verified[..], &[]] {
            build.write("a_one/cached/c", &change);
            assert!(save(known)[0].starts_with("Adding"));
            for (name, _) in build.archives() {
                let archive = fs::read(build.archive(&name)).unwrap();
                assert_eq!(format!("{}.tar", Digest::of(archive)), name);
            }
            build.write("a_one/cached/c", &large);
            assert!(save(&[])[0].starts_with("Adding"));
            assert!(build.archives().iter().zip(&archives).all(|(now, before)| now.0 == before.0));
        }
    }
}

#[test]
fn a_damaged_archive_is_written_again() {
    let build = sink();
    build.save();
    let (name, _) = build.archives().remove(0);
    let path = build.archive(&name);
    let good = fs::read(&path).unwrap();
    let mut turned = good.clone();
    turned[600] ^= 1;
    let longer = [&good[..], b"x"].concat();
    for bad in [&turned[..], &good[..good.len() / 2], &longer, b""] {
        fs::write(&path, bad).unwrap();
        build.save();
        assert!(fs::read(&path).unwrap() == good);
    }
    fs::remove_file(&path).unwrap();
    build.save();
    assert!(fs::read(&path).unwrap() == good);
}

#[test]
fn a_killed_process_leaves_a_cache() {
    let build = sink();
    build.save();
    // Killed while it wrote.
    fs::create_dir(build.cache().join("staging")).unwrap();
    fs::write(build.cache().join("staging/new"), "half").unwrap();
    assert!(build.save()[0].starts_with("Reusing"));
    // Killed between two renames.
    fs::rename(build.cache().join("committed"), build.cache().join("committed-backup")).unwrap();
    assert!(build.save()[0].starts_with("Reusing"));
}

#[test]
fn a_failure_leaves_the_cache_as_it_was() {
    let build = sink();
    build.save();
    let (before, archives) = (build.metadata(), build.archives());
    build.write("a_one/cached/c", "d\n");
    build.write("a_one/tools.toml", "cache = true\n");
    let previous = Cache::open(&build.cache()).unwrap();
    assert!(matches!(build.try_save(&previous), Err(CacheError::Layers(_))));
    assert_eq!((build.metadata(), build.archives()), (before, archives));
    assert!(!build.cache().join("staging").exists());
}

#[test]
fn a_broken_list_is_an_error_and_then_replaced() {
    let build = sink();
    assert!(Cache::open(&build.cache()).unwrap().metadata().buildpacks.is_empty());
    build.save();
    let path = build.cache().join(METADATA);
    fs::write(&path, "{").unwrap();
    let error = Cache::open(&build.cache()).unwrap_err();
    assert!(matches!(error, CacheError::Metadata { .. }), "{error}");
    build.save_after(&Cache::default());
    assert!(Cache::open(&build.cache()).is_ok());
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert!(matches!(Cache::open(&build.cache()), Err(CacheError::Read { .. })));
}

/// As with the reference: what cannot be read is told of, and the rest is cached.
#[test]
fn a_layer_that_cannot_be_read_is_left_out() {
    let build = sink();
    build.write("a_one/tools/secret", "s");
    let closed = build.layers().join("a_one/tools/secret");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let steps = build.save();
    assert_eq!(steps[0], "Adding cache layer 'a/one:cached'");
    assert!(
        steps[1].starts_with("layer 'a/one:tools' is not cached: cannot open `")
            && steps[1].ends_with("/secret` for a layer: Permission denied (os error 13)"),
        "{}",
        steps[1]
    );
    assert_eq!(build.archives().len(), 1);
    assert!(!build.metadata().contains("tools"), "{}", build.metadata());
}
