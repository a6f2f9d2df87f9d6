//! What later buildpacks do to the folders of earlier ones (docs/decisions/0013-layers-of-earlier-buildpacks.md).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod programs;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use coracle_lifecycle::build::BuildLayers;
use programs::{Options, PROGRAMS, group, program};

/// A layer `kept` for build, launch and cache with a little of everything, one that is only for the build, and one for launch alone.
const ONE: &str = r#"
chmod -fR u+rwx $L/* || true; rm -rf $L/*
mkdir -p $L/kept/bin $L/kept/closed $L/kept/empty $L/forbuild $L/forlaunch
echo tool >$L/kept/bin/tool; chmod 755 $L/kept/bin/tool; ln $L/kept/bin/tool $L/kept/bin/same; ln -s tool $L/kept/bin/link
head -c 100000 /dev/zero >$L/kept/large; mkfifo $L/kept/fifo
echo secret >$L/kept/closed/file; chmod 000 $L/kept/closed/file; chmod 500 $L/kept/closed
printf '[types]\nbuild = true\nlaunch = true\ncache = true\n' >$L/kept.toml
echo b >$L/forbuild/file; printf '[types]\nbuild = true\n' >$L/forbuild.toml
echo l >$L/forlaunch/file; printf '[types]\nlaunch = true\n' >$L/forlaunch.toml
printf '{}' >$L/kept.sbom.spdx.json; printf '[metadata]\na = 1\n' >$L/store.toml
printf '[[labels]]\nkey = "k"\nvalue = "v"\n' >$L/launch.toml"#;

/// Two buildpacks or more; the first is [`ONE`].
struct Build {
    dir: tempfile::TempDir,
    ids: Vec<&'static str>,
    options: Options,
}

impl Build {
    fn of(later: &[(&'static str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        program(dir.path(), "one", "0.10", ONE);
        for (id, script) in later {
            program(dir.path(), id, "0.10", &format!("ONE=\"$L/../one\"\n{script}"));
        }
        let ids = std::iter::once("one").chain(later.iter().map(|(id, _)| *id)).collect();
        Self { dir, ids, options: Options::default() }
    }

    fn run(&self) -> Vec<String> {
        programs::run(self.dir.path(), &group("0.10", &self.ids), "", &self.options).unwrap().1
    }

    /// What is at each path of the layers' folder.
    fn left(&self) -> BTreeMap<String, String> {
        let layers = self.dir.path().join("layers");
        let mut found = BTreeMap::new();
        list(&layers, &layers, &mut found);
        found
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("layers").join(path)
    }
}

fn list(root: &Path, dir: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let about = fs::symlink_metadata(&path).unwrap();
        let mode = about.mode() & 0o7777;
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let text = if about.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if about.is_dir() {
            list(root, &path, found);
            format!("{mode:o} folder of {}", about.mtime())
        } else if about.is_file() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let text = String::from_utf8(fs::read(&path).unwrap()).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            format!("{mode:o} {} of {}", text.trim_end_matches('\0'), about.len())
        } else {
            format!("{mode:o} other")
        };
        found.insert(name, text);
    }
}

/// What the first buildpack leaves if nobody comes after it, without the times of folders.
fn alone() -> BTreeMap<String, String> {
    timeless(Build::of(&[]).run_and_list())
}

fn timeless(mut found: BTreeMap<String, String>) -> BTreeMap<String, String> {
    for text in found.values_mut() {
        if let Some((before, _)) = text.split_once(" folder of ") {
            *text = format!("{before} folder");
        }
    }
    found
}

impl Build {
    fn run_and_list(&self) -> BTreeMap<String, String> {
        self.run();
        self.left()
    }
}

#[test]
fn whatever_a_later_buildpack_does_to_a_build_layer_is_undone_and_told() {
    let _alone = PROGRAMS.lock();
    let expected = alone();
    let layer = |paths: &str, example: &str| {
        format!(
            "buildpack `two@1` changed layer `kept` of buildpack `one@1` in {paths}, such as `{example}`: that is undone (see --shared-layer and --build-layers)"
        )
    };
    let files = |paths: &str, example: &str| {
        format!(
            "buildpack `two@1` changed files of buildpack `one@1` in {paths}, such as `{example}`: that is undone"
        )
    };
    for (script, notes) in [
        (
            "mkdir $ONE/kept/bin/__pycache__; echo x >$ONE/kept/bin/__pycache__/x.pyc",
            vec![layer("1 place", "kept/bin/__pycache__")],
        ),
        ("echo loot >$ONE/kept/bin/tool", vec![layer("2 places", "kept/bin/same")]),
        // The same size and, set back, the same time.
        (
            "touch -r $ONE/kept/bin/tool t; echo loot >$ONE/kept/bin/tool; touch -r t $ONE/kept/bin/tool",
            vec![layer("2 places", "kept/bin/same")],
        ),
        ("chmod 700 $ONE/kept/empty; rm $ONE/kept/bin/link", vec![layer("2 places", "kept/bin/link")]),
        (
            "rm $ONE/kept/bin/link; ln -s /etc/passwd $ONE/kept/bin/link",
            vec![layer("1 place", "kept/bin/link")],
        ),
        ("rm $ONE/kept/fifo; echo x >$ONE/kept/fifo", vec![layer("1 place", "kept/fifo")]),
        ("rm -f $ONE/kept/large; mkdir $ONE/kept/large", vec![layer("1 place", "kept/large")]),
        ("chmod -R u+rwx $ONE/kept; rm -rf $ONE/kept", vec![layer("1 place", "kept")]),
        ("mv $ONE/kept $ONE/other", vec![files("1 place", "other"), layer("1 place", "kept")]),
        ("mv $ONE/kept $L/mine; ln -s ../two/mine $ONE/kept", vec![layer("1 place", "kept")]),
        ("mv $ONE/kept $L/mine; ln -s / $ONE/kept", vec![layer("1 place", "kept")]),
        ("chmod 000 $ONE/kept", vec![layer("1 place", "kept")]),
        (
            "chmod 700 $ONE/kept/closed; echo x >$ONE/kept/closed/x; chmod 500 $ONE/kept/closed",
            vec![layer("1 place", "kept/closed/x")],
        ),
        ("echo '[types]' >$ONE/kept.toml", vec![files("1 place", "kept.toml")]),
        (
            "rm $ONE/launch.toml; echo x >$ONE/store.toml; echo x >$ONE/kept.sbom.spdx.json",
            vec![files("3 places", "kept.sbom.spdx.json")],
        ),
        (
            "mkdir $ONE/new; printf '[types]\\nlaunch = true\\n' >$ONE/new.toml",
            vec![files("2 places", "new")],
        ),
        ("rm $ONE/kept.toml; mkfifo $ONE/kept.toml", vec![files("1 place", "kept.toml")]),
        ("chmod 000 $ONE", vec![files("1 place", "")]),
        ("chmod 000 $L/..", vec![]),
        ("rm -rf $L/../sbom; ln -s /etc $L/../sbom", vec![]),
        // What changes no content is no change.
        (
            "ln $ONE/kept/bin/tool $L/mine; touch $ONE/kept/bin/tool; cp -p $ONE/kept/large l; mv l $ONE/kept/large",
            vec![],
        ),
    ] {
        let build = Build::of(&[("two", script)]);
        assert_eq!(build.run(), notes, "{script}");
        let mut left = timeless(build.left());
        left.retain(|path, _| !path.starts_with("two"));
        assert_eq!(left, expected, "{script}");
    }
}

#[test]
fn the_folder_of_a_buildpack_cannot_be_taken_away() {
    let _alone = PROGRAMS.lock();
    for script in
        ["mv $ONE $L/all", "mv $ONE $L/all; ln -s two/all $L/../one", "mv $ONE $L/all; echo x >$L/../one"]
    {
        let build = Build::of(&[("two", script)]);
        let notes = build.run();
        assert!(
            notes[0].starts_with("buildpack `two@1` changed files of buildpack `one@1` in 1 place"),
            "{notes:?}"
        );
        let mut left = timeless(build.left());
        left.retain(|path, _| !path.starts_with("two"));
        // Content of layers that are not kept is where the later buildpack has put it.
        let mut expected = alone();
        expected.retain(|path, _| !path.starts_with("one/for") || path.ends_with(".toml"));
        assert_eq!(left, expected, "{script}");
    }
}

#[test]
fn a_layer_that_nobody_changed_is_not_touched() {
    let _alone = PROGRAMS.lock();
    // The second buildpack writes down what it finds, the third changes one file.
    let look = "find $ONE/kept -printf '%p %i %T@ %C@ %m\\n' | sort >$L/seen";
    let build = Build::of(&[("two", look), ("three", "echo x >>$ONE/kept/large"), ("four", look)]);
    build.run();
    let seen = |path: &str| {
        let text = fs::read_to_string(build.at(path)).unwrap().replace("/four/..", "/two/..");
        // A folder that is closed to its owner is opened to look into it, which is the one thing that changes.
        text.lines().filter(|line| !line.contains("/closed ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let (before, after) = (seen("two/seen"), seen("four/seen"));
    let changed: Vec<&str> = before
        .iter()
        .filter(|line| !after.contains(line))
        .filter_map(|line| line.split(' ').next()?.rsplit_once("/one/"))
        .map(|(_, path)| path)
        .collect();
    // The file is new, and so the folder has changed.
    assert_eq!(changed, ["kept", "kept/large"], "{before:#?} {after:#?}");
}

#[test]
fn a_buildpack_may_change_its_own_layers_of_the_last_build() {
    let _alone = PROGRAMS.lock();
    let own = "mkdir -p $L/kept; echo x >>$L/kept/count; printf '[types]\\nbuild = true\\ncache = true\\n' >$L/kept.toml";
    let build = Build::of(&[("two", own), ("three", "echo y >>$L/../two/kept/count")]);
    let note = "buildpack `three@1` changed layer `kept` of buildpack `two@1` in 1 place, such as `kept/count`: that is undone (see --shared-layer and --build-layers)";
    for count in ["x\n", "x\nx\n"] {
        assert_eq!(build.run(), [note]);
        assert_eq!(fs::read_to_string(build.at("two/kept/count")).unwrap(), count);
        fs::remove_file(build.at("two/kept.toml")).unwrap();
    }
}

#[test]
fn names_of_one_file_do_not_lead_from_one_layer_into_another() {
    let _alone = PROGRAMS.lock();
    let two = "mkdir -p $L/linked; ln $ONE/kept/bin/tool $L/linked/tool; printf '[types]\\nbuild = true\\ncache = true\\n' >$L/linked.toml";
    let build = Build::of(&[("two", two), ("three", "echo loot >$L/../two/linked/tool")]);
    let notes = build.run();
    assert_eq!(notes.len(), 2, "{notes:?}");
    for path in ["one/kept/bin/tool", "one/kept/bin/same", "two/linked/tool"] {
        assert_eq!(fs::read_to_string(build.at(path)).unwrap(), "tool\n", "{path}");
    }
}

#[test]
fn processes_that_are_left_running_are_ended_before_layers_are_looked_at() {
    let _alone = PROGRAMS.lock();
    // Each writes for ever; the second has a session and a parent of its own.
    let write = "while :; do echo x >>$ONE/kept/large; sleep 0.01; done";
    let script = format!(
        "( {write} ) >/dev/null 2>&1 &\nsetsid sh -c 'ONE=$1; ( {write} ) & ' sh $ONE >/dev/null 2>&1 &\nwhile ! [ $(wc -c <$ONE/kept/large) -gt 100020 ]; do sleep 0.01; done"
    );
    let build = Build::of(&[("two", &script), ("three", "wc -c <$ONE/kept/large >size")]);
    let notes = build.run();
    assert!(
        notes[0].starts_with("buildpack `two@1` left ") && notes[0].ends_with(" processes running: ended"),
        "{notes:?}"
    );
    assert!(notes[1].contains("in 1 place, such as `kept/large`"), "{notes:?}");
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert_eq!(fs::read_to_string(build.dir.path().join("app/size")).unwrap(), "100000\n");
    assert_eq!(fs::metadata(build.at("one/kept/large")).unwrap().len(), 100_000);
}

#[test]
fn what_is_kept_is_out_of_reach_of_programs_of_the_same_user() {
    let _alone = PROGRAMS.lock();
    let script = "ls /proc/$PPID/fd >fds 2>&1 || true; cat /proc/$PPID/maps >maps 2>&1 || true; ls -A $L/.. >names; readlink /proc/self/fd/* >own || true";
    let build = Build::of(&[("two", script)]);
    build.run();
    let read = |name: &str| fs::read_to_string(build.dir.path().join("app").join(name)).unwrap();
    assert!(read("fds").contains("ermission denied"), "{}", read("fds"));
    assert!(read("maps").contains("ermission denied"), "{}", read("maps"));
    assert_eq!(read("names"), "one\nsbom\ntwo\n");
    assert!(!read("own").contains("layers"), "{}", read("own"));
}

#[test]
fn layers_that_are_not_for_the_build_or_for_nobody_after_it_are_left_alone() {
    let _alone = PROGRAMS.lock();
    let build =
        Build::of(&[("two", "echo x >$ONE/forbuild/file; echo x >$ONE/forlaunch/file; rm -rf $ONE/none")]);
    assert_eq!(build.run(), Vec::<String>::new());
    let left = build.left();
    assert_eq!(left["one/forbuild/file"], "644 x\n of 2");
    assert_eq!(left["one/forlaunch/file"], "644 x\n of 2");
}

#[test]
fn a_shared_layer_holds_what_all_have_written() {
    let _alone = PROGRAMS.lock();
    let workspace = |declared: &str| {
        format!(
            "mkdir -p $L/ws; echo two >$L/ws/who; printf '[types]\\nbuild = true\\ncache = true\\n{declared}' >$L/ws.toml"
        )
    };
    let later = "echo three >>$L/../two/ws/who; echo x >$ONE/kept/new; echo >>$L/../two/ws.toml";
    let told = |build: &Build| {
        let notes = build.run();
        (notes.iter().any(|note| note.contains("layer `ws`")), notes.len())
    };
    let who = |build: &Build| fs::read_to_string(build.at("two/ws/who")).unwrap();

    let declared = workspace("[coracle]\\nshared = true\\n");
    let build = Build::of(&[("two", &declared), ("three", later)]);
    assert_eq!(told(&build), (false, 2), "its file, and the other layer");
    assert_eq!(who(&build), "two\nthree\n");

    for (shared, is_kept) in [("two", false), ("two:ws", false), ("two:other", true), ("one", true)] {
        let plain = workspace("");
        let mut build = Build::of(&[("two", &plain), ("three", later)]);
        build.options.shared = vec![shared.parse().unwrap()];
        assert_eq!(build.options.shared[0].to_string(), shared);
        assert_eq!(told(&build).0, is_kept, "{shared}");
        assert_eq!(who(&build), if is_kept { "two\n" } else { "two\nthree\n" }, "{shared}");
    }
}

#[test]
fn where_layers_are_shared_nothing_is_undone_and_nobody_ended() {
    let _alone = PROGRAMS.lock();
    let mut build = Build::of(&[(
        "two",
        "echo x >$ONE/kept/new; echo '# x' >>$ONE/launch.toml; sleep 60 >/dev/null 2>&1 & echo $! >pid",
    )]);
    build.options.build_layers = BuildLayers::Shared;
    assert_eq!(build.run(), Vec::<String>::new());
    let left = build.left();
    assert!(left.contains_key("one/kept/new") && left["one/launch.toml"].contains("# x"));
    let pid = fs::read_to_string(build.dir.path().join("app/pid")).unwrap();
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("still there");
}

#[test]
fn folders_nested_without_end_are_refused_by_name() {
    let _alone = PROGRAMS.lock();
    let script = "mkdir -p $L/deep; printf '[types]\\nbuild = true\\ncache = true\\n' >$L/deep.toml; cd $L/deep; i=0; while [ $i -lt 300 ]; do mkdir d; cd d; i=$((i+1)); done";
    let build = Build::of(&[("two", script), ("three", "true")]);
    let error =
        programs::run(build.dir.path(), &group("0.10", &build.ids), "", &build.options).err().unwrap();
    let text = coracle_lifecycle::with_causes(&error);
    assert!(text.starts_with("keep the layers of buildpack `two@1`: `deep/d/d/"), "{text}");
    assert!(text.ends_with("/d`: folders of a layer may be 256 deep, no more"), "{text}");
    assert_eq!(error.exit_code(), 52);
}
