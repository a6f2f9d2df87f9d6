//! What the parts may know of each other, read from the manifests and sources themselves. No `cargo` is needed,
//! so this also holds where the tests were built elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The only arrows between our crates in what is shipped.
const ARROWS: &[(&str, &[&str])] = &[
    ("coracle", &["coracle-cnb", "coracle-images", "coracle-lifecycle", "coracle-runtime"]),
    ("coracle-cnb", &[]),
    ("coracle-fixtures", &[]),
    ("coracle-images", &["coracle-authorities"]),
    ("coracle-lifecycle", &["coracle-cnb", "coracle-images"]),
    ("coracle-runtime", &[]),
    // `coracle-authorities` by its name for Cargo, which it has in place of another.
    ("rustls-platform-verifier", &[]),
];

pub(crate) fn workspace() -> PathBuf {
    let moved = std::env::var_os("CARGO_MANIFEST_DIR");
    moved.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// Manifests of the root package and of every member, by package name.
fn manifests() -> BTreeMap<String, toml::Table> {
    let parse = |folder: &Path| -> toml::Table {
        let path = folder.join("Cargo.toml");
        read(&path).parse().unwrap_or_else(|error| panic!("parse {}: {error}", path.display()))
    };
    let root = parse(&workspace());
    let members = root["workspace"]["members"].as_array().expect("a list of members").clone();
    let folders = members.iter().map(|member| workspace().join(member.as_str().expect("a folder")));
    let all = folders.map(|folder| parse(&folder)).chain([root]);
    all.map(|manifest| (manifest["package"]["name"].as_str().expect("a name").to_owned(), manifest)).collect()
}

/// Our crates that a package names in any of its tables of that kind, those for one target included.
fn ours(manifest: &toml::Table, kinds: &[&str]) -> Vec<String> {
    let targets = manifest.get("target").and_then(toml::Value::as_table).into_iter().flatten();
    let tables = targets.filter_map(|(_, table)| table.as_table()).chain([manifest]);
    let mut names: Vec<String> = tables
        .flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)?.as_table()))
        .flat_map(|dependencies| dependencies.iter())
        // A dependency may be renamed; the real name is then in `package`.
        .map(|(name, value)| value.get("package").and_then(toml::Value::as_str).unwrap_or(name).to_owned())
        .filter(|name| name == "coracle" || name.starts_with("coracle-"))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The Rust sources below a folder, as paths from the workspace.
pub(crate) fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![workspace().join(folder)];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("list {}: {error}", folder.display()));
        for entry in entries {
            let path = entry.expect("a folder's entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(workspace()).expect("below the workspace").to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The shipped sources whose code, comments left out, has `word` as a word of its own.
fn naming(word: &str) -> Vec<PathBuf> {
    let folders = [
        "src",
        "authorities/src",
        "cnb/src",
        "images/src",
        "lifecycle/src",
        "runtime/src",
        "rootfs-fixtures",
    ];
    let sources = folders.iter().flat_map(|folder| sources(folder));
    sources.filter(|path| has_word(&read(&workspace().join(path)), word)).collect()
}

fn has_word(source: &str, word: &str) -> bool {
    let code = source.lines().map(|line| line.split("//").next().unwrap_or_default());
    // With dashes: what is joined by one is a word of another language. In ours, formatting puts spaces around them.
    let words = code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-'));
    words.into_iter().any(|found| found == word)
}

fn assert_only(word: &str, allowed: impl Fn(&Path) -> bool) {
    let elsewhere: Vec<PathBuf> = naming(word).into_iter().filter(|path| !allowed(path)).collect();
    assert!(elsewhere.is_empty(), "`{word}` is named where it must not be: {elsewhere:?}");
}

#[test]
fn the_arrows_between_crates_are_the_allowed_ones() {
    let manifests = manifests();
    let known: Vec<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    assert_eq!(manifests.keys().map(String::as_str).collect::<Vec<_>>(), known, "a crate without a rule");
    for (name, allowed) in ARROWS {
        for target in ours(&manifests[*name], &["dependencies", "build-dependencies"]) {
            assert!(allowed.contains(&target.as_str()), "{name} depends on {target}");
        }
        for target in ours(&manifests[*name], &["dev-dependencies"]) {
            let fixtures = target == "coracle-fixtures" && *name != "coracle-fixtures";
            assert!(fixtures || allowed.contains(&target.as_str()), "the tests of {name} depend on {target}");
        }
    }
}

#[test]
fn only_the_program_knows_the_command_line() {
    assert_only("clap", |path| path.starts_with("src/bin"));
}

#[test]
fn only_one_file_calls_libcontainer() {
    assert_only("libcontainer", |path| path == Path::new("runtime/src/launch.rs"));
}

#[test]
fn only_one_file_is_unsafe() {
    // And the probe's attempts, which no library makes for good reason.
    let allowed = ["runtime/src/sys.rs", "rootfs-fixtures/programs/attacks.rs"];
    assert_only("unsafe", |path| allowed.iter().any(|allowed| path == Path::new(allowed)));
}

/// The day of a build is in no image: the clock is asked only for what stays on this machine, the signatures of layers that are
/// unpacked, how long a layer has been in the store, and the times of folders that come back. (`anywhere.rs` varies the days that files bear; a machine's clock it cannot.)
#[test]
fn the_day_is_asked_only_where_no_image_learns_of_it() {
    let allowed = [
        "images/src/store/settled.rs",
        "images/src/store/tests/settled.rs",
        "src/prune.rs",
        "src/worker/source.rs",
        "src/worker/source/tests.rs",
        "src/worker/tree.rs",
        "src/worker/tree/workspace.rs",
        "lifecycle/src/signature/tests.rs",
        "lifecycle/src/stamp.rs",
        "lifecycle/src/phases/restorer.rs",
    ];
    for clock in ["SystemTime", "clock_gettime", "OffsetDateTime", "Utc", "chrono", "jiff"] {
        assert_only(clock, |path| {
            path.ends_with("tests.rs") || allowed.iter().any(|allowed| path == Path::new(allowed))
        });
    }
    assert!(!naming("SystemTime").is_empty(), "the word is not the clock's any more");
}

#[test]
fn words_in_comments_and_longer_words_do_not_count() {
    assert!(has_word("let x = unsafe { call() };", "unsafe"));
    assert!(has_word("use clap::Parser;", "clap"));
    assert!(!has_word("style-src 'unsafe-inline'", "unsafe"));
    assert!(!has_word("// unsafe here\nlet unsafe_code = 1; /// clap", "unsafe"));
    assert!(!has_word("/// see clap", "clap"));
}

/// Root's checkout may be closed to the user that runs the tests, and hold another build of the program.
#[test]
fn tests_find_programs_and_data_where_they_run() {
    let (program, folder) = (concat!("env!(\"CARGO_", "BIN_EXE"), concat!("env!(\"CARGO_", "MANIFEST_DIR"));
    for path in ["integration", "images", "lifecycle", "runtime"].iter().flat_map(|folder| sources(folder)) {
        for line in read(&workspace().join(&path)).lines() {
            let looked_up = line.contains("built_program(") || line.contains("map_or");
            assert!(
                looked_up || !(line.contains(program) || line.contains(folder)),
                "{}: {line}: see \"Tests run as a plain user\" in CONTRIBUTING.md",
                path.display()
            );
        }
    }
}

#[test]
fn every_file_of_these_tests_is_run() {
    let main = read(&workspace().join("integration/main.rs"));
    for path in sources("integration") {
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a file name");
        let top = path.parent() == Some(Path::new("integration"));
        if top && name != "main" {
            let declared = main.lines().any(|line| line.trim() == format!("mod {name};"));
            assert!(declared, "{} is not declared in integration/main.rs", path.display());
        }
    }
}
