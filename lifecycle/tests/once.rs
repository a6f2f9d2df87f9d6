//! What an export reads and holds, as the kernel counts it: alone in its process, because it counts for all threads.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::PathBuf;

use coracle_fixtures::{DockerRegistry, Entry, Image as Fixture, Layer};
use coracle_lifecycle::env::Env;
use coracle_lifecycle::phases::{Launcher, main};

const MIB: u64 = 1 << 20;

/// The files that are exported, in MiB.
const SOURCE: u64 = 24;

struct Build {
    dir: tempfile::TempDir,
    registry: DockerRegistry,
}

impl Build {
    fn new() -> Self {
        let (dir, registry) = (tempfile::tempdir().unwrap(), DockerRegistry::open());
        let layer = Layer::new(&[Entry::file("etc/os", "run")]);
        registry.push(&Fixture::new(vec![layer]), "run", "latest");
        let build = Self { dir, registry };
        let run = build.registry.reference("run:latest");
        for (path, text) in [
            ("layers/a_one/x.toml", "[types]\nlaunch = true\ncache = true\n"),
            ("layers/config/metadata.toml", ""),
            ("layers/group.toml", "[[group]]\nid = \"a/one\"\nversion = \"1\"\napi = \"0.10\"\n"),
            ("app/main", "m"),
            ("run.toml", &format!("[[images]]\nimage = \"{run}\"\n")),
        ] {
            build.write(path, text);
        }
        build
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn phase(&self, name: &str, more: &[&str]) {
        let mut args: Vec<OsString> = Vec::new();
        for (flag, path) in [("-layers", "layers"), ("-run", "run.toml")] {
            args.extend([flag.into(), path.into()]);
        }
        if name == "exporter" {
            args.extend(["-app".into(), self.at("app").into(), "-scratch".into(), self.at("scratch").into()]);
        }
        args.extend(more.iter().map(OsString::from));
        args.push(self.registry.reference("app:latest").into());
        let env: Env = [("CNB_PLATFORM_API".into(), "0.13".into())].into();
        let launcher = Launcher { program: b"launcher", metadata: serde_json::json!({ "version": "1" }) };
        main(OsStr::new(name), &args, &env, &launcher).unwrap();
    }

    /// Exports, and says how many MiB were read.
    fn export(&self, more: &[&str]) -> u64 {
        self.phase("analyzer", &[]);
        let before = counted("/proc/self/io", "rchar:");
        self.phase("exporter", more);
        (counted("/proc/self/io", "rchar:") - before) / MIB
    }
}

fn counted(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn decision_0012_each_file_is_read_once_and_no_layer_is_held() {
    let build = Build::new();
    std::env::set_current_dir(build.dir.path()).unwrap();
    // It hardly takes room when compressed, so that what is sent does not count.
    for number in 0..SOURCE {
        build.write(&format!("layers/a_one/x/{number}"), &format!("{number:16}").repeat(1 << 16));
    }
    let cache = build.at("cache");
    let folder = ["-cache-dir", cache.to_str().unwrap()];
    let once = SOURCE..SOURCE + 3;
    // New, for image and cache: both get what is read once.
    let read = build.export(&folder);
    assert!(once.contains(&read), "{read} MiB");
    let archive = fs::read_dir(cache.join("committed")).unwrap().map(|entry| entry.unwrap().path());
    let archive = archive
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "tar"))
        .unwrap();
    assert!(fs::read(archive).unwrap().starts_with(b"/"), "files are not named by whole paths");
    // The same again: beside the files, the archive that they are compared with.
    let read = build.export(&folder);
    assert!((2 * SOURCE..2 * SOURCE + 3).contains(&read), "{read} MiB");
    // The last file is another: what was equal until then comes from the archive.
    build.write(&format!("layers/a_one/x/{}", SOURCE - 1), &"y".repeat(1 << 20));
    let read = build.export(&folder);
    assert!((2 * SOURCE..3 * SOURCE + 3).contains(&read), "{read} MiB");
    // An application whose folder is what it was, and its slices.
    for number in 0..SOURCE {
        build.write(&format!("app/{number}"), &format!("{number:16}").repeat(1 << 16));
    }
    let (packed, metadata) = (build.at("packed.toml"), build.at("layers/config/metadata.toml"));
    let packed = packed.to_str().unwrap();
    let known = [&folder[..], &["-packed", packed, "-unchanged", packed]].concat();
    let read = build.export(&known);
    assert!((3 * SOURCE..4 * SOURCE + 3).contains(&read), "{read} MiB");
    let read = build.export(&known);
    assert!(read < 3, "{read} MiB");
    fs::write(&metadata, "[[slices]]\npaths = [\"0\"]\n").unwrap();
    let read = build.export(&known);
    assert!((SOURCE..2 * SOURCE + 3).contains(&read), "{read} MiB");
    let read = build.export(&known);
    assert!(read < 3, "{read} MiB");
    let moved = [&known[..], &["-gid", "1234"]].concat();
    let read = build.export(&moved);
    assert!((SOURCE..2 * SOURCE + 3).contains(&read), "{read} MiB");
    fs::write(metadata, "").unwrap();
    // One that is expected to be another is compressed while it is read.
    build.export(&folder);
    build.write("app/0", "another");
    build.write("unchanged.toml", "application-changed = true\n");
    let read =
        build.export(&[&folder[..], &["-unchanged", build.at("unchanged.toml").to_str().unwrap()]].concat());
    assert!((3 * SOURCE - 1..3 * SOURCE + 3).contains(&read), "{read} MiB");
    (0..SOURCE).for_each(|number| fs::remove_file(build.at(&format!("app/{number}"))).unwrap());
    // A cache image shares the layer with the application's.
    let name = build.registry.reference("cache:latest");
    build.write("layers/a_one/x/0", "another");
    fs::rename(build.at("layers/a_one/x"), build.at("layers/a_one/z")).unwrap();
    fs::rename(build.at("layers/a_one/x.toml"), build.at("layers/a_one/z.toml")).unwrap();
    let read = build.export(&["-cache-image", &name]);
    assert!((SOURCE - 1..SOURCE + 3).contains(&read), "{read} MiB");

    // A file of 256 MiB: memory is for a few blocks of it.
    let large = File::create(build.at("layers/a_one/z/large")).unwrap();
    fs::rename(build.at("layers/a_one/z"), build.at("layers/a_one/large")).unwrap();
    fs::rename(build.at("layers/a_one/z.toml"), build.at("layers/a_one/large.toml")).unwrap();
    // The second time it is probably the previous image's, until it is found to be another.
    for size in [256, 257] {
        large.set_len(size * MIB).unwrap();
        build.phase("analyzer", &[]);
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = counted("/proc/self/status", "VmRSS:");
        build.phase("exporter", &["-cache-image", &name]);
        let held = counted("/proc/self/status", "VmHWM:").saturating_sub(before) / 1024;
        assert!(held < 40, "{size}: {held} MiB");
    }
}
