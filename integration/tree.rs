//! Cached layers that stay unpacked between builds (docs/decisions/0022-the-layers-tree-stays.md): the same images and the same
//! files for buildpacks as where they are unpacked each time, and nothing read where nothing changed.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use coracle_fixtures::Buildpack;

use crate::harness::ran;
use crate::kill::killed_at;
use crate::site::Site;

/// Makes a layer where there is none, tells what it finds of it, and does what the file `do` of the application says.
fn keeper() -> Buildpack {
    Buildpack::passing("fixture/keeper")
        .build(
            r#"
if [ -e "$1/kept/file" ]; then echo "found $(cat "$1/kept/file") as $(stat -c '%i of %h at %Y' "$1/kept/file")"; fi
ls -A "$1" | tr '\n' ' '; echo
mkdir -p "$1/kept/lib"
[ -e "$1/kept/file" ] || { printf one >"$1/kept/file"; printf lib >"$1/kept/lib/file"; ln -s ../file "$1/kept/lib/link"; }
printf '[types]\nlaunch = true\ncache = true\n' >"$1/kept.toml"
. ./do"#,
        )
        .process(&["cat", "hello"])
}

fn site() -> Site {
    let site = Site::new(&[keeper()]);
    todo(&site, "true");
    site
}

/// What the buildpack does in the next build.
fn todo(site: &Site, shell: &str) {
    fs::write(site.app().join("do"), shell).expect("write the application");
}

/// What the buildpack found: the content, and the file's number.
fn found(stdout: &str) -> Option<(String, String)> {
    let line = stdout.lines().find_map(|line| line.strip_prefix("[builder] found "))?;
    let (content, inode) = line.split_once(" as ")?;
    Some((content.to_owned(), inode.split(' ').next()?.to_owned()))
}

fn content(stdout: &str) -> Option<String> {
    found(stdout).map(|(content, _)| content)
}

fn digest(stdout: &str) -> String {
    stdout.lines().last().and_then(|line| line.split_once('@')).expect("a digest").1.to_owned()
}

/// When each file below the caches was last read, those of subordinate ids included: seconds since 1970, by path.
fn read_times(site: &Site) -> BTreeMap<String, String> {
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--map-auto", "find"])
        .arg(site.home.path().join(".local/share/coracle/caches"))
        .args(["-type", "f", "-printf", "%A@ %p\n"])
        .output()
        .expect("start unshare");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pair = |line: &str| line.split_once(' ').map(|(time, path)| (path.to_owned(), time.to_owned()));
    let times: BTreeMap<_, _> = text.lines().filter_map(pair).collect();
    // The buildpack reads `kept/file` itself.
    times.into_iter().filter(|(path, _)| path.ends_with("/lib/file") || path.ends_with(".tar")).collect()
}

#[test]
fn a_layer_that_nobody_changed_is_neither_unpacked_nor_read() {
    let site = site();
    let image = site.registry.reference("app:latest");
    let first = site.built(&image, &["--publish"]);
    let before = read_times(&site);
    assert_eq!(before.len(), 2, "{before:?}");
    let second = site.built(&image, &["--publish"]);
    assert_eq!(read_times(&site), before, "files that were read");
    let third = site.built(&image, &["--publish"]);
    assert_eq!(digest(&second.stdout), digest(&first.stdout));
    let found_twice = (found(&second.stdout), found(&third.stdout));
    assert!(found_twice.0.is_some() && found_twice.0 == found_twice.1, "{found_twice:?}");
    for said in [
        "Restoring data for \"fixture/keeper:kept\" from cache",
        "Reusing layer 'fixture/keeper:kept'",
        "Reusing cache layer 'fixture/keeper:kept'",
    ] {
        assert!(second.stdout.contains(said), "{said}: {}", second.stdout);
    }
    // The plain way: the same image and the same cache, by reading. Which shows that reading shows.
    let copied = site.built(&image, &["--publish", "--restore", "copy"]);
    assert_eq!(digest(&copied.stdout), digest(&first.stdout));
    assert_ne!(found(&copied.stdout), found_twice.0, "the same file");
    assert_eq!(content(&copied.stdout).as_deref(), Some("one"));
    assert_ne!(read_times(&site), before, "the file system does not tell when a file was read (noatime)");
    // And the tree is there still.
    let last = site.built(&image, &["--publish"]);
    assert_eq!((found(&last.stdout), digest(&last.stdout)), (found_twice.0, digest(&first.stdout)));
}

/// What its one container left is looked at from outside, so that there is nothing left to read for the second build.
#[test]
fn after_the_one_container_of_a_trusted_builder_nothing_is_read_either() {
    let site = site();
    let image = site.registry.reference("app:latest");
    let trusted = ["--publish", "--verbose", "--trust-builder"];
    let first = site.built(&image, &trusted);
    assert!(first.stderr.contains("its phases share one container"), "{}", first.stderr);
    let before = read_times(&site);
    assert_eq!(before.len(), 2, "{before:?}");
    let second = site.built(&image, &trusted);
    assert_eq!(read_times(&site), before, "files that were read");
    assert_eq!(digest(&second.stdout), digest(&first.stdout));
    for said in [
        "'fixture/keeper:kept' was changed by nobody since it was packed, and not read",
        "'fixture/keeper:kept' was changed by nobody since the cache has it, and not read",
        "'Application Layer' was changed by nobody since it was packed, and not read",
        "of the source 0 files and links were copied",
    ] {
        assert!(second.stdout.contains(said) || second.stderr.contains(said), "{said}: {}", second.stdout);
    }
    assert!(!second.stdout.contains("Adding"), "{}", second.stdout);
    // What is changed in that build is found all the same.
    todo(&site, "printf two >\"$1/kept/file\"");
    let changed = site.built(&image, &trusted);
    assert!(changed.stdout.contains("Adding layer 'fixture/keeper:kept'"), "{}", changed.stdout);
    let copied = site.built(&image, &["--publish", "--restore", "copy"]);
    assert_eq!(
        (content(&copied.stdout), digest(&copied.stdout)),
        (Some("two".to_owned()), digest(&changed.stdout))
    );
}

#[test]
fn an_image_that_is_gone_is_made_again_of_a_layer_that_stayed() {
    let site = site();
    let first = site.built(&site.registry.reference("app:latest"), &["--publish"]);
    let cache = site.home.path().join("cache").display().to_string();
    let kept = ["--publish", "--cache-dir", &cache];
    assert_eq!(content(&site.built(&site.registry.reference("one:latest"), &kept).stdout), None);
    // Another name, of which there is no image: the cache decides by itself only what is not for launch.
    let other = site.built(&site.registry.reference("two:latest"), &kept);
    assert_eq!(digest(&other.stdout), digest(&first.stdout));
}

/// Each way to change a layer in a build, size and time of the content being what they were wherever that can be had.
#[test]
fn what_a_buildpack_changes_is_in_the_image_and_comes_back() {
    const KEEPING_TIME: &str =
        "t=$(stat -c @%Y \"$1/kept/file\"); CHANGE; touch -d \"$t\" \"$1/kept/file\" \"$1/kept\"";
    for (change, content_then) in [
        ("printf two >\"$1/kept/file\"", "two"),
        ("printf t | dd of=\"$1/kept/file\" conv=notrunc 2>/dev/null", "tne"),
        ("printf two >\"$1/kept/new\"; mv \"$1/kept/new\" \"$1/kept/file\"", "two"),
        (
            "cp -a \"$1/kept\" \"$1/x\"; printf two >\"$1/x/file\"; rm -r \"$1/kept\"; mv \"$1/x\" \"$1/kept\"",
            "two",
        ),
        ("ln \"$1/kept/file\" \"$1/other\"; printf two >\"$1/other\"; rm \"$1/other\"", "two"),
        ("(printf two >\"$1/kept/file\") & wait", "two"),
    ] {
        let site = site();
        let one = site.registry.reference("app:latest");
        let first = site.built(&one, &["--publish"]);
        todo(&site, &KEEPING_TIME.replace("CHANGE", change));
        let changed = site.built(&one, &["--publish"]);
        assert_eq!(content(&changed.stdout).as_deref(), Some("one"), "{change}");
        assert!(
            changed.stdout.contains("Adding layer 'fixture/keeper:kept'"),
            "{change}: {}",
            changed.stdout
        );
        assert!(
            changed.stdout.contains("Adding cache layer 'fixture/keeper:kept'"),
            "{change}: {}",
            changed.stdout
        );
        assert_ne!(digest(&first.stdout), digest(&changed.stdout), "{change}");
        todo(&site, "true");
        let stayed = site.built(&one, &["--publish"]);
        assert_eq!(content(&stayed.stdout).as_deref(), Some(content_then), "{change}");
        assert!(stayed.stdout.contains("Reusing layer 'fixture/keeper:kept'"), "{change}");
        let copied = site.built(&one, &["--publish", "--restore", "copy"]);
        assert_eq!(content(&copied.stdout).as_deref(), Some(content_then), "{change}");
        assert_eq!(digest(&copied.stdout), digest(&stayed.stdout), "{change}");
    }
}

#[test]
fn a_build_that_fails_or_is_killed_leaves_the_layer_as_the_last_image_has_it() {
    let site = site();
    let first = site.built("app", &[]);
    let change = "printf two >\"$1/kept/file\"; touch \"$1/kept/more\"; ";
    todo(&site, &format!("{change} exit 1"));
    site.refused(51, "app", &[]);
    todo(&site, "true");
    let again = site.built("app", &[]);
    assert_eq!(content(&again.stdout).as_deref(), Some("one"));
    assert_eq!(digest(&again.stdout), digest(&first.stdout));

    todo(&site, &format!("{change} echo stalled; sleep 60"));
    let args = site.args("app", &[]);
    let command = site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    killed_at(command, "[builder] stalled", Duration::ZERO, &site.home, "a buildpack");
    todo(&site, "true");
    let again = site.built("app", &[]);
    assert_eq!(content(&again.stdout).as_deref(), Some("one"));
    assert_eq!(digest(&again.stdout), digest(&first.stdout));

    // Nor does one that puts something else where the layer was, or all layers of the buildpack.
    for change in ["rm -rf \"$1/kept\"; ln -s / \"$1/kept\"", "rm -rf \"$1\"; : >\"$1\""] {
        site.built("app", &[]);
        todo(&site, &format!("{change}; exit 1"));
        site.refused(51, "app", &[]);
        todo(&site, "true");
        let again = site.built("app", &[]);
        assert_eq!(content(&again.stdout).as_deref(), Some("one"), "{change}");
        assert_eq!(digest(&again.stdout), digest(&first.stdout), "{change}");
    }

    // One that fails without touching the layer costs nothing.
    let known = found(&site.built("app", &[]).stdout);
    todo(&site, "exit 1");
    site.refused(51, "app", &[]);
    todo(&site, "true");
    assert_eq!(found(&site.built("app", &[]).stdout), known);
}

#[test]
fn two_builds_at_once_make_the_same_image() {
    let site = site();
    let image = site.registry.reference("app:latest");
    let first = digest(&site.built(&image, &["--publish"]).stdout);
    let args = site.args(&image, &["--publish"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let start = || {
        site.home.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start coracle")
    };
    for child in [start(), start()] {
        let ran = ran(child.wait_with_output().expect("wait"));
        assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
        assert_eq!(digest(&ran.stdout), first);
    }
}

#[test]
fn a_copied_home_is_unpacked_again() {
    let site = site();
    let first = site.built("app", &[]);
    let known = found(&site.built("app", &[]).stdout);
    // The first home stays: a file system gives the numbers of deleted files to new ones.
    let script = "mv \"$0\" \"$0.first\" && cp -a \"$0.first\" \"$0\"";
    let copied = Command::new("unshare")
        .args(["--user", "--map-root-user", "--map-auto", "sh", "-c", script])
        .arg(site.home.path().join(".local/share/coracle/caches"))
        .status();
    assert!(copied.expect("start unshare").success());
    let args = site.args("app", &["--verbose"]);
    let again = site.home.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let said = format!("{}{}", again.stdout, again.stderr);
    assert!(said.contains("fixture_keeper:kept is unpacked from the cache: it was changed"), "{said}");
    assert_eq!(content(&again.stdout).as_deref(), Some("one"));
    assert_ne!(found(&again.stdout), known);
    assert_eq!(digest(&again.stdout), digest(&first.stdout));
}

#[test]
fn verbose_says_of_each_layer_why_it_was_reused_or_not() {
    let site = site();
    let image = site.registry.reference("app:latest");
    let said = |more: &[&str]| {
        let ran = site.built(&image, &[&["--publish", "--verbose"], more].concat());
        ran.stdout + &ran.stderr
    };
    let has = |text: &str, line: &str| assert!(text.contains(line), "{line}: {text}");
    let kept = "[exporter]   'fixture/keeper:kept'";
    has(&said(&[]), &format!("{kept} is new, as there is no previous image\n"));
    let stayed = said(&[]);
    has(&stayed, &format!("{kept} was changed by nobody since it was packed, and not read\n"));
    has(&stayed, &format!("{kept} was changed by nobody since the cache has it, and not read\n"));
    let copied = said(&["--restore", "copy"]);
    has(&copied, "cached layers do not stay unpacked: --restore copy unpacks them each time\n");
    has(&copied, &format!("{kept} was read, and is what the previous image has\n"));
    has(&copied, &format!("{kept} was read, and is what the cache has\n"));
    todo(&site, "printf two >\"$1/kept/file\"");
    let changed = said(&[]);
    has(&changed, "fixture_keeper:kept is read again: it was changed\n");
    has(&changed, &format!("{kept} was read, and the previous image has nothing like it: sha256:"));
    has(&changed, &format!("{kept} was read, and the cache has nothing like it\n"));
    let cache = site.registry.reference("cache");
    has(&said(&["--cache-image", &cache]), "cached layers do not stay unpacked: --cache-image keeps them");
    let quiet = site.built(&image, &["--publish"]);
    assert!(!quiet.stdout.contains(kept), "{}", quiet.stdout);
}

#[test]
fn what_an_archive_does_not_bring_back_is_not_there_in_the_next_build() {
    let site = site();
    todo(&site, "ln \"$1/kept/file\" \"$1/kept/hard\"; mkfifo \"$1/kept/pipe\"");
    site.built("app", &[]);
    todo(&site, "echo \"names $(stat -c %h \"$1/kept/file\")\"; ls \"$1/kept\"");
    for _ in 0..2 {
        let again = site.built("app", &[]);
        assert!(again.stdout.contains("[builder] names 1\n"), "{}", again.stdout);
        assert!(again.stdout.contains("[builder] hard\n"), "{}", again.stdout);
    }
}

#[test]
fn a_layer_that_would_not_come_back_is_gone() {
    let site = site();
    let image = site.registry.reference("app:latest");
    site.built(&image, &["--publish"]);
    // The image of another build: the cache's layer is not the one that it names.
    todo(&site, "printf two >\"$1/kept/file\"");
    let cache = site.home.path().join("cache").display().to_string();
    site.built(&image, &["--publish", "--cache-dir", &cache]);
    todo(&site, "true");
    let plain = site.built(&image, &["--publish", "--restore", "copy"]);
    site.built(&image, &["--publish", "--cache-dir", &cache]);
    assert_eq!(content(&plain.stdout), None);
}

/// `METHOD PATH STATUS` of the requests since `before` bytes of the registry's log, digests left out.
fn requests(site: &Site, before: usize) -> Vec<String> {
    let log = site.registry.access_log();
    let request = |line: &str| {
        let (words, rest) = line.split_once('"')?.1.split_once('"')?;
        let path = words.split('?').next().and_then(|path| path.split("sha256:").next())?;
        let path = path.trim_end_matches(" HTTP/1.1");
        Some(format!("{path} {}", rest.split_whitespace().next()?))
    };
    log[before..].lines().filter_map(request).collect()
}

#[test]
fn a_rebuild_with_nothing_changed_asks_a_registry_for_no_more_than_it_must() {
    let site = site();
    let image = site.registry.reference("app:latest");
    site.built(&image, &["--publish"]);
    let before = site.registry.access_log().len();
    site.built(&image, &["--publish"]);
    let mut asked = requests(&site, before);
    asked.sort();
    assert_eq!(asked, ASKED);
}

/// What a rebuild asks for, and nothing else: docs/decisions/0023-what-the-repository-names-is-there.md says why each.
const ASKED: [&str; 7] = [
    // The configuration, and the bills of materials.
    "GET /v2/app/blobs/ 200",
    "GET /v2/app/blobs/ 200",
    "GET /v2/app/manifests/latest 200",
    "GET /v2/run/blobs/ 200",
    "GET /v2/run/manifests/latest 200",
    // Whether the image may be written at all is asked before anything else is done.
    "POST /v2/app/blobs/uploads/ 201",
    "PUT /v2/app/manifests/latest 201",
];

#[test]
fn a_registry_with_a_password_is_asked_once_by_each_process_who_may_come_in() {
    let site = Site::with_password(&[keeper()]);
    todo(&site, "true");
    let image = site.registry.reference("app:latest");
    site.built(&image, &["--publish"]);
    let before = site.registry.access_log().len();
    site.built(&image, &["--publish"]);
    let mut asked = requests(&site, before);
    asked.sort();
    // The analyzer and the exporter.
    assert_eq!(asked, [&["GET /v2/ 401"; 2][..], &ASKED].concat());
}

#[test]
fn what_a_registry_has_lost_it_gets_again() {
    let site = site();
    let image = site.registry.reference("app:latest");
    let first = site.built(&image, &["--publish"]);
    let layers = site.registry.storage().join("repositories/app/_layers/sha256");
    let run: serde_json::Value = serde_json::from_slice(&site.registry.manifest("run")).expect("a manifest");
    let layer = run["layers"][0]["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
    fs::remove_dir_all(layers.join(layer.expect("a digest"))).expect("remove a link of the registry");
    let again = site.built(&image, &["--publish"]);
    assert_eq!(digest(&again.stdout), digest(&first.stdout));
    assert!(layers.join(layer.expect("a digest")).exists());
}
