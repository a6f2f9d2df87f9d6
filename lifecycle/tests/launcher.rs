//! The launcher against what the reference's started. The image's root is a temporary folder, whose path is taken out of what
//! the probe printed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use coracle_fixtures::built_program;
use serde_json::Value;

fn install(files: &Value, root: &Path) {
    let prefix = root.to_str().unwrap();
    for (path, file) in files.as_object().unwrap() {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = file.as_str().or_else(|| file["text"].as_str()).unwrap();
        let text = text.replace("\"/work", &format!("\"{prefix}/work"));
        std::fs::write(&path, text.replace("\"/bin/probe", &format!("\"{prefix}/bin/probe"))).unwrap();
        if let Some(mode) = file["mode"].as_str() {
            let mode = u32::from_str_radix(mode, 8).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

fn run(case: &Value) -> (i64, String) {
    let root = tempfile::tempdir().unwrap();
    let prefix = root.path().to_str().unwrap().to_owned();
    install(&case["files"], root.path());
    for folder in ["workspace", "work dir"] {
        std::fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    let words: Vec<&str> =
        case["argv"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let mut command = Command::new(built_program("launcher", env!("CARGO_BIN_EXE_launcher")));
    command.arg0(words[0]).args(&words[1..]).env_clear().env("HOME", "/home/cnb");
    for (name, value) in case["env"].as_object().unwrap() {
        let value = value.as_str().unwrap();
        let value = match name.as_str() {
            "PATH" => value.replace(":/usr/bin:/bin", &format!(":{prefix}/bin:/usr/bin:/bin")),
            "CNB_LAYERS_DIR" | "CNB_APP_DIR" => format!("{prefix}{value}"),
            _ => value.to_owned(),
        };
        command.env(name, value);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let text = text.replace(&format!("{prefix}/bin:/usr/bin:/bin"), "/usr/bin:/bin").replace(&prefix, "");
    (output.status.code().map_or(-1, i64::from), text)
}

#[test]
fn starts_what_the_reference_started() {
    let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/data/launcher.json");
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for case in vectors["cases"].as_array().unwrap() {
        let (exit, text) = run(case);
        if exit != case["exit"].as_i64().unwrap() || (exit == 0 && text != case["stdout"].as_str().unwrap()) {
            wrong.push(format!("{} {}: {exit}, wanted {}\n{text}", case["name"], case["argv"], case["exit"]));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// What an exec.d program leaves behind keeps descriptor 3 open, and one may write without end.
#[test]
fn nobody_waits_for_more_than_an_exec_d_program() {
    let metadata = "[[buildpacks]]\nid = \"b\"\nversion = \"1\"\napi = \"0.10\"\n[[processes]]\ntype = \"web\"\ncommand = [\"/bin/sh\"]\nargs = [\"-c\", \"echo $A\"]\ndirect = true\nbuildpack-id = \"b\"\n";
    for (script, exit, expected) in [
        ("echo 'A = \"said\"' >&3; sleep 1000 >/dev/null 2>&1 & echo $! >$HOME/pid", 0, "said\n"),
        ("exec head -c 1000000000 /dev/zero >&3", 82, ""),
    ] {
        let home = tempfile::tempdir().unwrap();
        let files = serde_json::json!({
            "layers/config/metadata.toml": metadata,
            "layers/b/x/exec.d/one": {"mode": "755", "text": format!("#!/bin/sh\n{script}\n")},
        });
        install(&files, home.path());
        std::fs::create_dir(home.path().join("app")).unwrap();
        let mut command = Command::new(built_program("launcher", env!("CARGO_BIN_EXE_launcher")));
        let output = command
            .arg0("web")
            .env_clear()
            .envs([("PATH", "/usr/bin:/bin"), ("CNB_PLATFORM_API", "0.12")])
            .env("HOME", home.path())
            .env("CNB_LAYERS_DIR", home.path().join("layers"))
            .env("CNB_APP_DIR", home.path().join("app"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if let Ok(pid) = std::fs::read_to_string(home.path().join("pid")) {
            let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it is still there");
        }
        assert_eq!(output.status.code(), Some(exit), "{said}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        assert!(exit == 0 || said.contains("it wrote more than 16777216 bytes"), "{said}");
    }
}

/// What the launcher says and does in a root of these files.
fn said(argv: &[&str], env: &[(&str, &str)], files: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut command = Command::new(built_program("launcher", env!("CARGO_BIN_EXE_launcher")));
    command.arg0(argv[0]).args(&argv[1..]).env_clear().env("CNB_PLATFORM_API", "0.13");
    command.env("CNB_LAYERS_DIR", root.path().join("layers")).env("CNB_APP_DIR", root.path());
    let output = command.env("PATH", "/usr/bin:/bin").envs(env.iter().copied()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().replace(root.path().to_str().unwrap(), "");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

const METADATA: &str = "[[buildpacks]]\nid = \"a\"\nversion = \"1\"\napi = \"0.10\"\n[[processes]]\ntype = \"web\"\ncommand = [\"env\"]\ndirect = true\nbuildpack-id = \"a\"\n";

#[test]
fn errors_name_what_is_wrong_and_what_to_do() {
    let old = METADATA.replace("0.10", "0.6");
    for (metadata, argv, expected) in [
        (
            old.as_str(),
            &["/cnb/process/web"][..],
            "error: buildpack `a`: Buildpack API `0.6` is not supported (supported: 0.7 to 0.12): build the image again\n",
        ),
        (METADATA, &["/cnb/process/nope"], "error: no process type and no command were given\n"),
        (
            &METADATA.replace("buildpack-id = \"a\"", "buildpack-id = \"b\""),
            &["/cnb/process/web", "argument"],
            "error: process type `web` is of buildpack `b`, which the image's metadata does not name\n",
        ),
        (
            &METADATA.replace("direct = true", "direct = true\nexec-env = [\"test\"]"),
            &["/cnb/process/web", "echo", "hi"],
            "error: process type `web` is not for the execution environment `production`: set CNB_EXEC_ENV\n",
        ),
        (
            METADATA,
            &["/cnb/lifecycle/launcher", "--", "nope"],
            "error: find program `nope`: it is not on PATH\n",
        ),
    ] {
        let (_, stdout, stderr) =
            said(argv, &[("CNB_PLATFORM_API", "0.15")], &[("layers/config/metadata.toml", metadata)]);
        assert_eq!((stdout.as_str(), stderr.as_str()), ("", expected));
    }
    let files = [("layers/config/metadata.toml", METADATA)];
    let (code, stdout, stderr) = said(&["/cnb/process/web"], &[("CNB_PROCESS_TYPE", "web")], &files);
    assert!(code == Some(0) && !stdout.contains("CNB_PROCESS_TYPE"), "{stdout}");
    assert_eq!(
        stderr,
        "warning: CNB_PROCESS_TYPE chooses nothing: start the image with the entrypoint /cnb/process/TYPE\n"
    );
}

/// As the reference: an API that is no version is another one (12), and one that is no text is no metadata (1). What is not for the launcher
/// may be anything.
#[test]
fn only_what_the_launcher_needs_must_be_what_it_should_be() {
    for (from, to, code) in [
        ("\"0.10\"", "\"x\"", 12),
        ("\"0.10\"", "\"\"", 12),
        ("\"0.10\"", "\"0.10.1\"", 12),
        ("\"0.10\"", "\" 0.10\"", 12),
        ("api = \"0.10\"\n", "", 12),
        ("\"0.10\"", "10", 1),
        ("\"0.10\"", "true", 1),
        ("[[buildpacks]]", "labels = 3\nslices = \"x\"\nbom = 1\nextensions = 2\n[[buildpacks]]", 0),
        ("version = \"1\"", "version = \"../1\"\nhomepage = 3", 0),
    ] {
        let metadata = METADATA.replace(from, to);
        let (found, _, stderr) =
            said(&["/cnb/process/web"], &[], &[("layers/config/metadata.toml", &metadata)]);
        assert_eq!(found, Some(code), "{to}: {stderr}");
    }
}

/// As the reference: whatever is named `bin` is on the path, and a link is no layer.
#[test]
fn what_is_on_the_path_of_a_process() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    let metadata = METADATA.replace("\"env\"", "\"sh\", \"-c\", \"echo $PATH $A\"");
    install(
        &serde_json::json!({
            "layers/config/metadata.toml": metadata, "layers/a/file/bin": "no folder",
            "layers/a/folder/bin/x": "", "elsewhere/bin/x": "", "elsewhere/env/A": "linked",
        }),
        root.path(),
    );
    std::os::unix::fs::symlink("../../elsewhere", at("layers/a/link")).unwrap();
    let mut command = Command::new(built_program("launcher", env!("CARGO_BIN_EXE_launcher")));
    command.arg0("web").env_clear().envs([("PATH", "/usr/bin:/bin"), ("CNB_PLATFORM_API", "0.13")]);
    let output =
        command.env("CNB_LAYERS_DIR", at("layers")).env("CNB_APP_DIR", root.path()).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap().replace(root.path().to_str().unwrap(), "");
    assert_eq!(stdout, "/layers/a/folder/bin:/layers/a/file/bin:/usr/bin:/bin\n");
}

/// What a buildpack left where variables and programs are looked for: read at once or not at all, and named.
#[test]
fn what_is_no_variable_and_no_program_is_an_error_that_names_it() {
    const SAID: &str = "#!/bin/sh\necho 'A = \"said\"' >&3\n";
    let metadata = METADATA.replace("\"env\"", "\"sh\", \"-c\", \"echo $A\"");
    for (script, file, expected) in [
        ("mkfifo x/env/A", "x/env/A", "is not a regular file"),
        ("mkfifo x/env.launch/A", "x/env.launch/A", "is not a regular file"),
        ("mkfifo x/env.launch/web/A", "x/env.launch/web/A", "is not a regular file"),
        ("mkfifo f; ln -s ../../f x/env/A", "x/env/A", "is not a regular file"),
        ("ln -s /dev/zero x/env/A", "x/env/A", "is not a regular file"),
        ("truncate -s 100M x/env/A", "x/env/A", "is larger than 16777216 bytes"),
        ("ln -s nowhere x/env/A", "x/env/A", "entity not found"),
        ("mkdir x/env/A; mkfifo x/env.build/A", "", "\n"),
        ("printf odd >'x/env/.'$(printf '\\377'); printf a >x/env/A", "", "a\n"),
        ("mkfifo x/exec.d/one", "x/exec.d/one", "run exec.d program"),
        ("printf '%s' \"$SAID\" >x/exec.d/one", "x/exec.d/one", "Permission denied"),
        ("ln -s /bin/false x/exec.d/one", "x/exec.d/one", "ended with exit status: 1"),
        ("ln -s nowhere x/exec.d/one", "x/exec.d/one", "No such file or directory"),
        (
            "printf 'A = 3' >said; printf '#!/bin/sh\\ncat %s >&3' $PWD/said >x/exec.d/one; chmod +x x/exec.d/one",
            "x/exec.d/one",
            "read what exec.d program wrote",
        ),
        ("mkdir -p x/exec.d/one/two; mkfifo x/exec.d/one/fifo", "", "\n"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let layers = root.path().join("layers/a");
        for folder in ["env", "env.build", "env.launch/web", "exec.d"] {
            std::fs::create_dir_all(layers.join("x").join(folder)).unwrap();
        }
        install(&serde_json::json!({ "layers/config/metadata.toml": metadata }), root.path());
        let made = Command::new("sh").args(["-ec", script]).current_dir(&layers).env("SAID", SAID).status();
        assert!(made.unwrap().success(), "{script}");
        let mut command = Command::new(built_program("launcher", env!("CARGO_BIN_EXE_launcher")));
        command
            .arg0("/cnb/process/web")
            .env_clear()
            .env("CNB_PLATFORM_API", "0.13")
            .env("PATH", "/usr/bin:/bin");
        command.env("CNB_LAYERS_DIR", root.path().join("layers")).env("CNB_APP_DIR", root.path());
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        if file.is_empty() {
            assert_eq!(
                (output.status.code(), String::from_utf8(output.stdout).unwrap().as_str()),
                (Some(0), expected),
                "{script}: {said}"
            );
        } else {
            assert_eq!(output.status.code(), Some(82), "{script}: {said}");
            assert!(
                said.contains(&format!("layers/a/{file}")) && said.contains(expected),
                "{script}: {said}"
            );
        }
    }
}
