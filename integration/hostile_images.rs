//! Images whose root filesystems and archives mean harm, under every runtime: docs/security/archives.md, T18, T25, T30, T34.

use std::fs;
use std::path::Path;

use coracle_fixtures::{Builder, Buildpack, Compression, DockerRegistry, Entry, RunImage};

use crate::harness::TestHome;
use crate::site::Site;

const RUNTIMES: [&str; 3] = ["youki", "crun", "runc"];

/// A folder of the host that no image may change, and what is in it.
fn canary(home: &TestHome) -> std::path::PathBuf {
    let folder = home.path().join("canary");
    fs::create_dir(&folder).expect("make the canary");
    fs::write(folder.join("file"), "sings").expect("write the canary");
    folder
}

fn sings(canary: &Path) -> bool {
    let names = fs::read_dir(canary).expect("list the canary").count();
    names == 1 && fs::read(canary.join("file")).is_ok_and(|text| text == b"sings")
}

/// Pulls an image with these entries, and runs it under every runtime: its exit code, output and errors.
fn run(entries: &[Entry], script: &str, home: &TestHome) -> Vec<(&'static str, Option<i32>, String)> {
    let registry = DockerRegistry::open();
    let image = entries.iter().cloned().fold(RunImage::new(), RunImage::file);
    registry.push(&image.image(), "hostile", "latest");
    let name = registry.reference("hostile:latest");
    home.ok(&["pull", &name]);
    let ran = RUNTIMES.map(|runtime| {
        let ran = home.run(&["run", "--runtime", runtime, &name, "sh", "-c", script]);
        (runtime, ran.code, format!("{}{}", ran.stdout, ran.stderr))
    });
    assert_eq!(home.leftovers(), Vec::<String>::new());
    ran.into()
}

#[test]
fn t34_mount_points_of_the_kernel_s_are_folders_or_the_image_is_refused() {
    let home = TestHome::new();
    let canary = canary(&home);
    let target = canary.to_str().expect("a path in text");
    for name in ["dev", "proc", "sys"] {
        let refused = format!(
            "{name} of the image is a symbolic link or a file where a folder must be; refused, because a runtime would follow it out of the image"
        );
        for entry in [
            Entry::symlink(name, target),
            Entry::symlink(name, "../../../../../.."),
            Entry::symlink(name, "/proc/1/root"),
            Entry::symlink(name, "/proc/self/cwd"),
            Entry::file(name, ""),
            Entry::fifo(name),
        ] {
            for (runtime, code, text) in run(std::slice::from_ref(&entry), "echo ran", &home) {
                assert!(code == Some(1) && text.contains(&refused), "{runtime} {entry:?}: {code:?} {text}");
                assert!(sings(&canary), "{runtime} {entry:?}");
            }
        }
    }
}

#[test]
fn t34_files_of_the_host_take_the_place_of_whatever_is_there() {
    let home = TestHome::new();
    let canary = canary(&home);
    let file = canary.join("file");
    let file = file.to_str().expect("a path in text");
    let own = fs::read_to_string("/etc/resolv.conf").expect("read resolv.conf");
    for entry in [
        Entry::symlink("etc/resolv.conf", file),
        Entry::symlink("etc/resolv.conf", "../../../../x"),
        Entry::fifo("etc/resolv.conf"),
    ] {
        for (runtime, code, text) in run(std::slice::from_ref(&entry), "cat /etc/resolv.conf", &home) {
            assert_eq!((code, text.as_str()), (Some(0), own.as_str()), "{runtime} {entry:?}");
            assert!(sings(&canary), "{runtime} {entry:?}");
        }
    }
    let etc = "etc of the image is a symbolic link or a file where a folder must be";
    for (runtime, code, text) in
        run(&[Entry::opaque("etc"), Entry::symlink("etc", canary.to_str().expect("text"))], "echo ran", &home)
    {
        assert!(code == Some(1) && text.contains(etc), "{runtime}: {text}");
        assert!(sings(&canary), "{runtime}");
    }
}

#[test]
fn t34_other_folders_as_links_lead_nowhere_outside() {
    let home = TestHome::new();
    let canary = canary(&home);
    let target = canary.to_str().expect("a path in text");
    let names = ["run", "tmp", "layers", "workspace", "cnb", "platform", "cache"];
    let entries: Vec<Entry> = names.iter().map(|name| Entry::symlink(name, target)).collect();
    // Inside, they lead to a path that the image does not have.
    let script = "for name in run tmp layers workspace cnb platform cache; do echo evil 2>/dev/null >/$name/file && echo wrote; done; echo ran";
    for (runtime, code, text) in run(&entries, script, &home) {
        assert_eq!((code, text.as_str()), (Some(0), "ran\n"), "{runtime}");
        assert!(sings(&canary), "{runtime}");
    }
}

#[test]
fn t34_folders_of_a_build_are_folders_or_the_builder_is_refused() {
    let site = Site::new(&[]);
    let canary = canary(&site.home);
    let target = canary.to_str().expect("a path in text");
    for name in ["layers", "workspace", "platform", "cnb/lifecycle"] {
        let refused = format!("{name} of the image is a symbolic link or a file where a folder must be");
        for (entry, runtimes) in [
            (Entry::symlink(name, target), &RUNTIMES[..]),
            (Entry::file(name, ""), &RUNTIMES[..1]),
            (Entry::fifo(name), &RUNTIMES[..1]),
        ] {
            let builder = Builder::new(&site.registry.reference("run:latest"))
                .group(&[Buildpack::passing("fixture/quiet")])
                .file(entry.clone());
            site.registry.push(&builder.image(), "builder", "latest");
            for runtime in runtimes {
                let arguments = ["--runtime", runtime, "--pull-policy", "always", "--env", "A=1"];
                let arguments = site.args("app", &arguments);
                let ran = site.home.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
                let told = ran.code != Some(0) && ran.stderr.contains(&refused);
                assert!(told, "{runtime} {entry:?}: {:?} {}", ran.code, ran.stderr);
                assert!(sings(&canary), "{runtime} {entry:?}");
            }
        }
    }
}

#[test]
fn what_is_wrong_with_an_archive_is_told_whole_and_harmlessly() {
    let (registry, home) = (DockerRegistry::open(), TestHome::new());
    let name = registry.reference("hostile:latest");
    let pull = |entry: Entry| {
        registry.push(&RunImage::new().file(entry).image(), "hostile", "latest");
        let ran = home.run(&["pull", &name]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        // The layer's digest is of no interest here.
        let (before, rest) = ran.stderr.split_once("sha256:").expect("the layer is named");
        format!("{before}LAYER{}", &rest[64..])
    };
    let told = pull(Entry::file("\u{1b}]0;x\u{7}\u{202e}\u{61c}/", "x"));
    let expected = "cannot unpack the layer LAYER: the archive's entry `\\u{1b}]0;x\\u{7}\\u{202e}\\u{61c}/` is refused: a file's name ends in a slash\n";
    assert!(told.ends_with(expected), "{told}");
    let told = pull(Entry::file("etc/x", "x").owner(70_000, 0));
    let expected = "cannot unpack the layer LAYER: cannot give `etc/x` its owner: the image's user 70000 and group 0 have no place here: a container has ids up to 65535 only; give the file another owner in the image\n";
    assert!(told.ends_with(expected), "{told}");
    assert_eq!(home.ok(&["images"]).stdout, "");
    assert_eq!(home.leftovers(), Vec::<String>::new());
}

#[test]
fn t25_a_layer_s_ceiling_is_the_user_s_to_raise() {
    let (registry, home) = (DockerRegistry::open(), TestHome::new());
    let image = RunImage::new().file(Entry::file("large", vec![0; 3 << 20])).image();
    registry.push(&image.compressed(Compression::Gzip), "large", "latest");
    let name = registry.reference("large:latest");
    let refused = home.run(&["pull", "--max-layer-size", "2M", &name]);
    assert_eq!(refused.code, Some(1));
    let expected = "unpacks to more than 2097152 bytes, and nothing of it was kept; if you trust it, allow more with --max-layer-size\n";
    assert!(refused.stderr.ends_with(expected), "{}", refused.stderr);
    let mut command = home.command(&["pull", &name]);
    let from_environment =
        crate::harness::ran(command.env("CORACLE_MAX_LAYER_SIZE", "2M").output().expect("start coracle"));
    assert!(from_environment.stderr.ends_with(expected), "{}", from_environment.stderr);
    home.ok(&["pull", "--max-layer-size", "20M", &name]);
    for bad in ["", "2", "0M", "2m", "-1G", "99999999999999T"] {
        let ran = home.run(&["pull", &format!("--max-layer-size={bad}"), &name]);
        assert_eq!(ran.code, Some(2), "{bad}");
        if !bad.is_empty() {
            assert!(
                ran.stderr.contains("write a number of mebi-, gibi- or tebibytes, such as 500M, 60G or 1T"),
                "{}",
                ran.stderr
            );
        }
    }
}

#[test]
fn t25_a_layer_s_memory_is_the_user_s_to_raise() {
    let (registry, home) = (DockerRegistry::open(), TestHome::new());
    let image = RunImage::new().file(Entry::file("file", "x")).image();
    registry.push(&image.compressed(Compression::ZstdLarge), "window", "latest");
    let name = registry.reference("window:latest");
    let expected = "its zstd frame at byte 0 needs a window of 67108864 bytes, more than the 33554432 bytes that are allowed; if you trust it, allow more with --max-zstd-window, or make the image anew with a smaller window\n";
    let refused = home.run(&["pull", &name]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.ends_with(expected), "{}", refused.stderr);
    assert_eq!(home.leftovers(), Vec::<String>::new());
    let mut command = home.command(&["pull", &name]);
    let allowed =
        crate::harness::ran(command.env("CORACLE_MAX_ZSTD_WINDOW", "64M").output().expect("start coracle"));
    assert_eq!(allowed.code, Some(0), "{}", allowed.stderr);
    let less = TestHome::new().run(&["pull", "--max-zstd-window", "63M", &name]);
    assert!(less.stderr.contains("more than the 66060288 bytes that are allowed"), "{}", less.stderr);
}
