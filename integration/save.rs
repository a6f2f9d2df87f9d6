//! Images that leave the store for other engines: what those read, and what happens where they do not.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use coracle_fixtures::Buildpack;
use coracle_fixtures::builder::base_layer;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Ran, TestHome, ran, within};
use crate::site::Site;

/// A home with an image, and its digest.
fn with_image(name: &str) -> (TestHome, String) {
    let home = TestHome::new();
    let path = home.path().join("root.tar");
    fs::write(&path, base_layer().tar()).expect("write the archive");
    let made = home.ok(&["import", path.to_str().expect("a path"), name, "--env", "A=1"]);
    (home, made.stdout.trim().to_owned())
}

/// What skopeo says, for which such archives are what they say they are.
fn skopeo(home: &TestHome, args: &[&str]) -> String {
    let mut command = Command::new("skopeo");
    command.arg("--insecure-policy").args(args).env("HOME", home.path()).stdin(Stdio::null());
    let ran = ran(command.output().expect("start skopeo"));
    assert_eq!(ran.code, Some(0), "skopeo {args:?}\n{}{}", ran.stdout, ran.stderr);
    ran.stdout
}

/// The name, and what an archive holds under it.
fn check_archive(home: &TestHome, archive: &Path, digest: &str, names: &[&str]) {
    let archive = archive.to_str().expect("a path");
    // As an OCI layout it is the very same image,
    let oci =
        |what: &[&str]| skopeo(home, &[&["inspect"], what, &[&format!("oci-archive:{archive}")]].concat());
    if let [_] = names {
        assert_eq!(oci(&["--format", "{{.Digest}}"]).trim(), digest);
    }
    // and as what `docker load` reads, under all its names, with the same configuration and layers.
    let listed: serde_json::Value =
        serde_json::from_str(&skopeo(home, &["list-tags", &format!("docker-archive:{archive}")]))
            .expect("JSON");
    assert_eq!(listed["Tags"], serde_json::json!(names));
    let source = format!("docker-archive:{archive}:{}", names[0]);
    let copy = home.path().join("copied").display().to_string();
    skopeo(home, &["copy", "-q", &source, &format!("oci:{copy}:it")]);
    let config = |name: &str| -> serde_json::Value {
        serde_json::from_str(&skopeo(home, &["inspect", "--config", "--raw", name])).expect("JSON")
    };
    let kept = names[0].replace("docker.io", "index.docker.io");
    let store = home.path().join(".local/share/coracle/store").display().to_string();
    assert_eq!(config(&format!("oci:{copy}:it")), config(&format!("oci:{store}:{kept}")));
}

#[test]
fn a_saved_image_is_what_other_tools_read() {
    let (home, digest) = with_image("team/app:1");
    let file = home.path().join("app.tar");
    home.ok(&["save", "team/app:1", "--output", file.to_str().expect("a path")]);
    check_archive(&home, &file, &digest, &["docker.io/team/app:1"]);
    // To a pipe it is the same.
    let piped = home.command(&["save", "team/app:1"]).output().expect("start coracle");
    assert!(piped.status.success());
    assert!(piped.stdout == fs::read(&file).expect("read the archive"), "the same bytes");
    assert_eq!(fs::metadata(&file).expect("an archive").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(home.path()).expect("list").count(), 4, "no other file was left");
}

#[test]
fn where_an_image_cannot_be_saved_the_reason_is_told_and_no_file_appears() {
    let (home, _) = with_image("app");
    let text = |path: &str| home.path().join(path).display().to_string();
    let of = |args: &[&str]| {
        let ran = home.run(args);
        assert_eq!(ran.code, Some(1), "{args:?}: {}", ran.stdout);
        ran.stderr
    };
    let missing = "error: image index.docker.io/library/other:latest is not in the local store; fetch it with: coracle pull index.docker.io/library/other:latest\n";
    assert_eq!(of(&["save", "other", "-o", &text("x.tar")]), missing);
    let error = of(&["save", "app", "-o", &text("none/x.tar")]);
    let expected = format!(
        "error: could not write the archive {} (--output)\n  cause: No such file or directory",
        text("none/x.tar")
    );
    assert!(error.starts_with(&expected), "{error}");
    assert_eq!(
        of(&["save", "app", "-o", "/dev/full"]),
        "error: could not save index.docker.io/library/app:latest\n  cause: could not write the archive\n  cause: No space left on device (os error 28)\n"
    );
    let program = crate::harness::coracle().display().to_string();
    let mut at_terminal = Command::new("script");
    at_terminal.args(["--quiet", "--return", "--command", &format!("{program} save app"), "/dev/null"]);
    let shown =
        ran(at_terminal.env("HOME", home.path()).env("SHELL", "/bin/sh").output().expect("start script"));
    assert_eq!(
        shown.stdout.trim_end(),
        "error: an archive is nothing for a terminal; name a file with --output, or pipe it on"
    );
    // A blob that is not what its name says.
    let blobs = home.path().join(".local/share/coracle/store/blobs/sha256");
    let of_layer = fs::read_dir(blobs)
        .expect("list")
        .flatten()
        .max_by_key(|entry| entry.metadata().expect("about").len());
    let (layer, hex) =
        of_layer.map(|entry| (entry.path(), entry.file_name().into_string().expect("text"))).expect("a blob");
    let mut bytes = fs::read(&layer).expect("read");
    bytes[100] ^= 1;
    fs::set_permissions(&layer, Permissions::from_mode(0o600)).expect("chmod");
    fs::write(&layer, bytes).expect("write");
    let error = of(&["save", "app", "-o", &text("x.tar")]);
    let expected = format!(
        "error: could not save index.docker.io/library/app:latest\n  cause: the stored blob sha256:{hex} is damaged"
    );
    assert!(error.starts_with(&expected), "{error}");
    assert!(!Path::new(&text("x.tar")).exists());
}

fn built(site: &Site, path: &Path, more: &[&str]) -> Ran {
    let args = site.args("app", more);
    let mut command = site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let path = format!("{}:/usr/bin:/bin", path.display());
    ran(command.env("PATH", path).output().expect("start coracle"))
}

/// A folder with a program of this name.
fn engine(site: &Site, name: &str, script: &str) -> PathBuf {
    let folder = site.home.path().join(format!("bin-of-{name}"));
    fs::create_dir_all(&folder).expect("make a folder");
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")).expect("write");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("chmod");
    folder
}

fn greeter() -> Buildpack {
    Buildpack::passing("fixture/greeter").layer("words", &["launch"], "words").process(&["cat", "hello"])
}

#[test]
fn a_built_image_is_loaded_under_all_its_names() {
    let site = Site::new(&[greeter()]);
    let archive = site.home.path().join("loaded.tar");
    let script = |name: &str| {
        format!("test \"$*\" = load && cat >{} && echo {name} has it && echo so it is >&2", archive.display())
    };
    for (name, flag) in [("docker", "--load"), ("podman", "--load=podman"), ("nerdctl", "--load=nerdctl")] {
        let path = engine(&site, name, &script(name));
        let ran = built(&site, &path, &[flag, "--tag", "team/other:2"]);
        assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains(&format!("[{name}] {name} has it\n")), "{}", ran.stdout);
        assert!(ran.stderr.contains(&format!("[{name}] so it is\n")), "{}", ran.stderr);
        let digest = ran.stdout.lines().last().and_then(|line| line.split_once('@')).expect("a digest").1;
        check_archive(
            &site.home,
            &archive,
            digest,
            &["docker.io/library/app:latest", "docker.io/team/other:2"],
        );
        fs::remove_file(&archive).expect("an archive");
    }
}

#[test]
fn an_engine_that_is_missing_is_told_of_before_the_build_and_one_that_fails_after_it() {
    let site = Site::new(&[greeter()]);
    // One that came with the application is none.
    fs::create_dir(site.app().join("bin")).expect("make a folder");
    fs::copy(engine(&site, "docker", "exit 0").join("docker"), site.app().join("bin/docker")).expect("copy");
    let args = site.args("app", &["--load"]);
    let mut command = site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let ran =
        crate::harness::ran(command.env("PATH", site.app().join("bin")).output().expect("start coracle"));
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert_eq!(
        ran.stderr,
        "error: docker, for --load, is in no folder of PATH (relative folders and those of the application do not count); install it, or save the image to a file after the build: coracle save\n"
    );
    let both = built(&site, Path::new("/bin"), &["--load", "--publish"]);
    assert_eq!(both.code, Some(2));
    assert!(both.stderr.contains("'--load[=<ENGINE>]' cannot be used with '--publish'"), "{}", both.stderr);

    let name = "index.docker.io/library/app:latest";
    for script in ["echo no daemon >&2; exit 3", "cat >/dev/null; echo no daemon >&2; exit 3"] {
        let ran = built(&site, &engine(&site, "docker", script), &["--load"]);
        let expected = format!(
            "[docker] no daemon\nerror: docker did not load {name} (exit status: 3); what it said is above. The image is built, and kept in the local store: coracle save {name} | docker load\n"
        );
        assert_eq!(ran.code, Some(1), "{}", ran.stdout);
        assert!(ran.stderr.ends_with(&expected), "{}", ran.stderr);
        assert_eq!(site.home.ok(&["run", "app"]).stdout, "hello from the application\n");
    }
    let no_program = engine(&site, "docker", "");
    fs::write(no_program.join("docker"), "#!/none/such\n").expect("write");
    let ran = built(&site, &no_program, &["--load"]);
    let expected = format!(
        "error: could not start {}; {name} is built, and kept in the local store\n  cause: No such file or directory (os error 2)\n",
        no_program.join("docker").display()
    );
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.ends_with(&expected), "{}", ran.stderr);
}

#[test]
fn a_signal_ends_an_engine_that_waits() {
    let site = Site::new(&[greeter()]);
    let (begun, over) = (site.home.path().join("begun"), site.home.path().join("over"));
    // Reads to the end of the archive, whole or not.
    let script =
        format!("touch {}; sleep 1; cat >/dev/null; touch {}; exit 4", begun.display(), over.display());
    let path = engine(&site, "docker", &script);
    let args = site.args("app", &["--load"]);
    let mut command = site.home.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    command.env("PATH", format!("{}:/usr/bin:/bin", path.display()));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start coracle");
    within(Duration::from_secs(60), "the engine has begun", || begun.exists());
    kill(Pid::from_raw(child.id().try_into().expect("a process id")), Signal::SIGTERM).expect("send SIGTERM");
    let ended = ran(child.wait_with_output().expect("wait"));
    assert_eq!(ended.code, Some(143), "{}", ended.stderr);
    assert!(
        ended.stderr.ends_with("error: interrupted by signal 15; nothing was left\n"),
        "{}",
        ended.stderr
    );
    assert!(over.exists(), "the engine has ended before");
}
