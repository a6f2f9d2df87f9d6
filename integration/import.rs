//! Archives of root filesystems that become images.

use std::path::PathBuf;
use std::process::Command;

use coracle_fixtures::builder::base_layer;
use coracle_fixtures::{Entry, Layer};

use crate::harness::TestHome;

/// A home with an archive of a root filesystem in it.
fn with_archive() -> (TestHome, PathBuf) {
    let home = TestHome::new();
    let path = home.path().join("root.tar");
    std::fs::write(&path, base_layer().tar()).expect("write the archive");
    (home, path)
}

#[test]
fn an_imported_archive_runs_as_it_was_told_to() {
    let (home, path) = with_archive();
    let path = path.to_str().expect("a path");
    let args = ["import", path, "base:1", "--env", "PATH=/bin", "--env", "A=x", "--env", "A=b c"];
    let made =
        home.ok(&[&args[..], &["--user", "1001:1002", "--workdir", "/home/cnb", "--label", "l=v"]].concat());
    assert_eq!(home.ok(&["images"]).stdout, format!("index.docker.io/library/base:1 {}", made.stdout));
    let ran = home.ok(&["run", "base:1", "sh", "-c", "id -u; id -g; pwd; echo $A; stat -c %u:%g . /etc"]);
    assert_eq!(ran.stdout, "1001\n1002\n/home/cnb\nb c\n1001:1002\n0:0\n");
    assert_eq!(home.leftovers(), Vec::<String>::new());
}

#[test]
fn the_same_archive_gives_the_same_image_compressed_or_not_anywhere() {
    let (home, path) = with_archive();
    let first = home.ok(&["import", path.to_str().expect("a path"), "base"]);
    let again = home.ok(&["import", path.to_str().expect("a path"), "base"]);
    assert_eq!(first.stdout, again.stdout);
    for (program, suffix) in [("gzip", "gz"), ("zstd", "zst")] {
        let status = Command::new(program).args(["-q", "-k"]).arg(&path).status().expect("compress");
        assert!(status.success());
        let (other, path) = (TestHome::new(), format!("{}.{suffix}", path.display()));
        assert_eq!(other.ok(&["import", &path, "other"]).stdout, first.stdout, "{suffix}");
    }
}

#[test]
fn what_is_no_archive_is_named_and_nothing_is_kept() {
    let home = TestHome::new();
    let of = |args: &[&str]| {
        let ran = home.run(args);
        assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
        ran.stderr
    };
    let path = home.path().join("it");
    let text = path.to_str().expect("a path").to_owned();
    assert!(of(&["import", &text, "x"]).starts_with(&format!("error: could not use the archive {text}\n")));
    std::fs::write(&path, "<html>").expect("write");
    let error = of(&["import", &text, "x"]);
    let expected = format!("error: could not import {text}: it is not a tar archive; plain ones and those");
    assert!(error.starts_with(&expected), "{error}");
    let error = of(&["import", home.path().to_str().expect("a path"), "x"]);
    assert!(error.contains("it is not a plain file"), "{error}");
    let hostile = Layer::new(&[Entry::file("fine", "fine"), Entry::hardlink("link", "../../etc/passwd")]);
    std::fs::write(&path, hostile.tar()).expect("write");
    assert!(of(&["import", &text, "x"]).starts_with(&format!("error: could not import {text}: ")));
    std::fs::write(&path, &base_layer().tar()[..5000]).expect("write");
    assert!(of(&["import", &text, "x"]).starts_with(&format!("error: could not import {text}: ")));
    let digest = format!("x@sha256:{}", "0".repeat(64));
    assert!(of(&["import", &text, &digest]).contains("name it by a tag"));
    assert_eq!(home.ok(&["images"]).stdout, "");
    assert_eq!(home.leftovers(), Vec::<String>::new());
}

#[test]
fn devices_are_left_out_and_told() {
    let home = TestHome::new();
    let path = home.path().join("root.tar");
    let entries = [Entry::dir("dev"), Entry::char_device("dev/null", 1, 3), Entry::file("f", "")];
    std::fs::write(&path, Layer::new(&entries).tar()).expect("write the archive");
    let made = home.ok(&["import", path.to_str().expect("a path"), "x"]);
    assert!(made.stderr.contains("1 device files were left out"), "{}", made.stderr);
}
