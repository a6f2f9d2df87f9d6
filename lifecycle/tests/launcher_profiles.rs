//! Profile scripts, which a shell of the image reads before the process starts: what buildpacks, and who made the application, may leave
//! in their place.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use coracle_fixtures::built_program;

const METADATA: &str = "[[buildpacks]]\nid = \"a\"\nversion = \"1\"\napi = \"0.10\"\n[[processes]]\ntype = \"web\"\ncommand = [\"echo $A\"]\nbuildpack-id = \"a\"\n";

/// Status, output and errors of a process that starts in a shell, after this shell's line in the folder of the buildpack's layer.
fn launched(prepare: &str) -> (Option<i32>, String, String) {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for folder in ["layers/config", "layers/a/x/profile.d/web", "app"] {
        std::fs::create_dir_all(at(folder)).unwrap();
    }
    std::fs::write(at("layers/config/metadata.toml"), METADATA).unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-ec", prepare]).current_dir(at("layers/a/x")).env("APP", at("app"));
    assert!(shell.status().unwrap().success(), "{prepare}");
    let mut command = Command::new(built_program("launcher", env!("CARGO_BIN_EXE_launcher")));
    command.arg0("/cnb/process/web").env_clear().env("CNB_PLATFORM_API", "0.13").env("PATH", "/usr/bin:/bin");
    command.env("CNB_LAYERS_DIR", at("layers")).env("CNB_APP_DIR", at("app"));
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().replace(root.path().to_str().unwrap(), "");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn what_would_never_end_is_an_error_that_names_it() {
    for (prepare, place) in [
        ("mkfifo profile.d/one", "/layers/a/x/profile.d/one"),
        ("mkfifo profile.d/web/one", "/layers/a/x/profile.d/web/one"),
        ("mkfifo fifo; ln -s ../fifo profile.d/one", "/layers/a/x/profile.d/one"),
        ("ln -s /dev/zero profile.d/one", "/layers/a/x/profile.d/one"),
        ("mkfifo $APP/.profile", "/app/.profile"),
        ("ln -s /dev/zero $APP/.profile", "/app/.profile"),
    ] {
        let (code, stdout, stderr) = launched(prepare);
        assert_eq!((code, stdout.as_str()), (Some(82), ""), "{prepare}: {stderr}");
        assert!(stderr.contains(&format!("`{place}` is not a regular file")), "{prepare}: {stderr}");
    }
}

#[test]
fn what_is_no_script_is_told_by_the_shell_or_left_alone() {
    for (prepare, expected, told) in [
        ("echo 'export A=one' >profile.d/one; echo 'A=$A-two' >profile.d/web/two", "one-two\n", ""),
        ("echo 'export A=one' >script; ln -s ../script profile.d/one", "one\n", ""),
        ("mkdir profile.d/folder; mkfifo profile.d/folder/fifo profile.d/../fifo", "\n", ""),
        ("mkdir $APP/.profile", "\n", ""),
        ("echo 'export A=spaced' >'profile.d/a b'", "spaced\n", ""),
        ("ln -s nowhere profile.d/one", "\n", "No such file or directory"),
        ("head -c 1000000 /dev/zero >profile.d/zeros; echo 'export A=after' >profile.d/zz", "after\n", ""),
        ("echo 'exit 3' >profile.d/one", "", ""),
    ] {
        let (code, stdout, stderr) = launched(prepare);
        let wanted = if expected.is_empty() { 3 } else { 0 };
        assert_eq!((code, stdout.as_str()), (Some(wanted), expected), "{prepare}: {stderr}");
        assert!(stderr.contains(told), "{prepare}: {stderr}");
    }
}
