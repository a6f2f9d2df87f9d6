//! Phases as other platforms call them: by links, by words, by variables, on the host's own folders.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use coracle_fixtures::{DockerRegistry, Image as Fixture};
use tempfile::TempDir;

use crate::harness::coracle;

const SECRET: &str = r#"{"r.example":"Basic dXNlcjpzZWNyZXQ="}"#;

/// A builder's folders and an application, and the program under the names of the phases.
pub(crate) struct Platform {
    dir: TempDir,
}

impl Platform {
    pub(crate) fn new(order: &str) -> Self {
        let platform = Self { dir: tempfile::tempdir().expect("make a folder") };
        for folder in ["app", "layers", "platform", "bin", "buildpacks"] {
            fs::create_dir(platform.at(folder)).expect("make a folder");
        }
        platform.write("order.toml", order);
        for name in ["analyzer", "detector", "builder", "lifecycle"] {
            symlink(coracle(), platform.at("bin").join(name)).expect("make a link");
        }
        platform
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("is below a folder")).expect("make a folder");
        fs::write(path, text).expect("write a file");
    }

    pub(crate) fn buildpack(&self, id: &str, program: &str, script: &str) {
        let dir = format!("buildpacks/{id}/1");
        self.write(
            &format!("{dir}/buildpack.toml"),
            &format!("api = \"0.10\"\n[buildpack]\nid = \"{id}\"\nversion = \"1\"\n"),
        );
        let program = format!("{dir}/bin/{program}");
        self.write(&program, &format!("#!/bin/sh\nset -e\n{script}\n"));
        fs::set_permissions(self.at(&program), fs::Permissions::from_mode(0o755)).expect("set a mode");
    }

    fn command(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(words).env_clear().env("PATH", "/usr/bin:/bin").env("CNB_PLATFORM_API", "0.13");
        for (name, path) in [
            ("CNB_APP_DIR", "app"),
            ("CNB_LAYERS_DIR", "layers"),
            ("CNB_BUILDPACKS_DIR", "buildpacks"),
            ("CNB_EXTENSIONS_DIR", "extensions"),
            ("CNB_ORDER_PATH", "order.toml"),
            ("CNB_RUN_PATH", "run.toml"),
            ("CNB_SYSTEM_PATH", "system.toml"),
            ("CNB_PLATFORM_DIR", "platform"),
            ("CNB_BUILD_CONFIG_DIR", "no-build-config"),
        ] {
            command.env(name, self.at(path));
        }
        command
    }

    /// The phase by its link.
    pub(crate) fn phase(&self, name: &str, words: &[&str]) -> Command {
        self.command(&self.at("bin").join(name), words)
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }
}

pub(crate) fn order(ids: &[&str]) -> String {
    let elements = ids.iter().map(|id| format!("[[order.group]]\nid = \"{id}\"\nversion = \"1\"\n"));
    std::iter::once("[[order]]\n".to_owned()).chain(elements).collect()
}

pub(crate) fn ran(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("start a phase");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (status.code(), text(&stdout), text(&stderr))
}

#[test]
fn a_phase_is_called_by_a_link_or_by_words() {
    let platform = Platform::new(&order(&["one"]));
    platform.buildpack("one", "detect", "exit 0");
    let coracle = coracle();
    let home = platform.at("home").display().to_string();
    for mut command in [
        platform.phase("detector", &[]),
        platform.phase("lifecycle", &["detect"]),
        platform.command(&coracle, &["lifecycle", "detector"]),
        platform.command(&coracle, &["--home", &home, "--quiet", "lifecycle", "detector"]),
    ] {
        let _ = fs::remove_file(platform.at("layers/group.toml"));
        let (code, _, stderr) = ran(&mut command);
        assert_eq!(code, Some(0), "{command:?}: {stderr}");
        let group = platform.read("layers/group.toml");
        assert_eq!(group, "[[group]]\n  id = \"one\"\n  version = \"1\"\n  api = \"0.10\"\n");
        assert!(platform.at("layers/plan.toml").exists());
    }
    let version = format!("{}\n", env!("CARGO_PKG_VERSION"));
    for mut command in [
        platform.phase("lifecycle", &["-version"]),
        platform.phase("analyzer", &["-version"]),
        platform.command(&coracle, &["lifecycle", "-version"]),
    ] {
        assert_eq!(ran(&mut command), (Some(0), version.clone(), String::new()));
    }
    let (code, _, stderr) = ran(&mut platform.phase("lifecycle", &["perform"]));
    assert!(code == Some(3) && stderr.contains("`perform` is not a phase"), "{stderr}");
    let (code, _, stderr) = ran(platform.phase("detector", &[]).env_remove("CNB_PLATFORM_API"));
    assert!(code == Some(11) && stderr.contains("CNB_PLATFORM_API"), "{stderr}");
    let (code, stdout, _) = ran(&mut platform.command(&coracle, &["lifecycle", "--help"]));
    assert!(code == Some(0) && stdout.contains("coracle lifecycle"), "{stdout}");
}

#[test]
fn foreign_programs_find_no_credentials_with_those_who_started_them() {
    let platform = Platform::new(&order(&["one"]));
    // Of this program, the phase that started it, and the whole line of those before: only the test itself holds the variable.
    let look = "{ tr '\\0' '\\n' </proc/self/environ; tr '\\0' '\\n' </proc/$PPID/environ; tr '\\0' ' ' </proc/$PPID/cmdline; }";
    platform.buildpack("one", "detect", &format!("{look} >seen-by-detect"));
    platform.buildpack("one", "build", &format!("{look} >seen-by-build"));
    // A builder that keeps layers is closed altogether.
    for (phase, words) in [("detector", &[][..]), ("builder", &["-build-layers", "shared"])] {
        let mut command = platform.phase(phase, words);
        let (code, _, stderr) = ran(command.env("CNB_REGISTRY_AUTH", SECRET).env("OTHER", "kept"));
        assert_eq!(code, Some(0), "{phase}: {stderr}");
    }
    for (file, phase) in [("app/seen-by-detect", "/detector"), ("app/seen-by-build", "/builder")] {
        let seen = platform.read(file);
        assert!(seen.contains("OTHER=kept") && seen.contains(phase), "the search is blind: {seen}");
        assert!(!seen.contains("CNB_REGISTRY_AUTH") && !seen.contains("dXNlcj"), "{seen}");
    }
}

#[test]
fn the_environment_of_a_phase_with_credentials_is_closed() {
    let platform = Platform::new(&order(&["one"]));
    let registry = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = registry.local_addr().expect("have an address");
    let (run, app) = (format!("{address}/run"), format!("{address}/app"));
    let mut command = platform.phase("analyzer", &["-run-image", &run, &app]);
    let mut analyzer = command.env("CNB_REGISTRY_AUTH", SECRET).spawn().expect("start the analyzer");
    // It asks, and waits for an answer that never comes.
    let asked = registry.accept();
    let environment = fs::read(format!("/proc/{}/environ", analyzer.id()));
    analyzer.kill().and_then(|()| analyzer.wait()).expect("end the analyzer");
    asked.expect("be asked");
    assert_eq!(environment.expect_err("no reading").kind(), std::io::ErrorKind::PermissionDenied);
}

#[test]
fn who_does_not_take_part_is_told_with_the_reason() {
    let platform =
        Platform::new(&format!("{}{}", order(&["passes", "fails"]), order(&["passes", "broken", "wants"])));
    platform.buildpack("passes", "detect", "echo FROM-PASSES");
    platform.buildpack("fails", "detect", "echo NO-LOCKFILE; exit 100");
    platform.buildpack("broken", "detect", "echo 'SEGFAULT' >&2; exit 3");
    platform.buildpack("wants", "detect", "printf '[[requires]]\\nname = \"jdk\"\\n' >$CNB_BUILD_PLAN_PATH");
    let (code, stdout, stderr) = ran(&mut platform.phase("detector", &[]));
    assert_eq!(code, Some(21), "{stderr}");
    for line in [
        "======== Output: fails@1 (does not take part) ========\nNO-LOCKFILE\n",
        "======== Output: broken@1 (exit code 3) ========\nSEGFAULT\n",
        "======== Results ========\npass: passes@1\nfail: fails@1\n",
        "======== Results ========\npass: passes@1\nerr:  broken@1 (exit code 3)\npass: wants@1\n",
    ] {
        assert!(stdout.contains(line), "{line:?} in {stdout}");
    }
    assert!(stderr.contains("a buildpack failed with an error"), "{stderr}");
    assert!(!platform.at("layers/group.toml").exists());

    platform.write("order.toml", &order(&["passes", "wants"]));
    let (code, stdout, _) = ran(&mut platform.phase("detector", &[]));
    assert!(code == Some(20) && stdout.contains("\nfail: wants@1 requires jdk\n"), "{stdout}");
    platform.write("order.toml", &format!("{}optional = true\n", order(&["passes", "wants"])));
    let (code, stdout, _) = ran(&mut platform.phase("detector", &["-log-level", "debug"]));
    assert!(code == Some(0) && stdout.contains("\nskip: wants@1 requires jdk\n"), "{stdout}");
    let (code, stdout, _) = ran(&mut platform.phase("detector", &[]));
    assert_eq!((code, stdout.as_str()), (Some(0), "1 of 2 buildpacks participating\npasses 1\n"));

    // What is broken is told also where nobody misses it.
    let optional = format!("{}optional = true\n", order(&["passes", "broken"]));
    platform.write("order.toml", &optional);
    let (code, stdout, _) = ran(&mut platform.phase("detector", &[]));
    let told = "======== Output: broken@1 (exit code 3) ========\nSEGFAULT\n1 of 2 buildpacks participating\npasses 1\n";
    assert_eq!((code, stdout.as_str()), (Some(0), told));
    let (_, stdout, _) = ran(&mut platform.phase("detector", &["-log-level", "debug"]));
    assert!(stdout.contains("\nerr:  broken@1 (exit code 3)\n"), "{stdout}");
    let (_, stdout, _) = ran(&mut platform.phase("detector", &["-log-level", "warn"]));
    assert_eq!(stdout, "", "no information at this level");

    platform.write("order.toml", &order(&["absent"]));
    let (code, _, stderr) = ran(&mut platform.phase("detector", &[]));
    assert!(code == Some(1) && stderr.contains("look up buildpack `absent@1`"), "{stderr}");
}

#[test]
fn root_is_refused_where_foreign_programs_run() {
    let platform = Platform::new(&order(&["one"]));
    platform.buildpack("one", "detect", "touch ran");
    for phase in ["detector", "builder"] {
        let program = platform.at("bin").join(phase);
        let words = ["--user", "--map-root-user", "--", program.to_str().expect("is text")];
        let (code, _, stderr) = ran(&mut platform.command(Path::new("/usr/bin/unshare"), &words));
        assert!(code == Some(1) && stderr.contains("refusing to run as root"), "{phase}: {stderr}");
    }
    assert!(!platform.at("app/ran").exists());
}

#[test]
fn what_is_told_and_what_is_warned_of_have_streams_of_their_own() {
    let platform = Platform::new(&order(&["one"]));
    platform.buildpack("one", "detect", "exit 0");
    let (code, stdout, stderr) = ran(&mut platform.phase("detector", &[]));
    assert_eq!((code, stdout.contains("one 1"), stderr.as_str()), (Some(0), true, ""), "{stdout}");
    let (code, stdout, stderr) = ran(&mut platform.phase("detector", &["-run", "/nowhere", "image"]));
    assert_eq!((code, stdout.as_str()), (Some(3), ""));
    assert!(stderr.contains("argument `image` is not expected"), "{stderr}");
    let (code, stdout, stderr) = ran(platform.phase("detector", &[]).env("CNB_USE_DAEMON", "true"));
    assert_eq!((code, stdout.as_str()), (Some(3), ""));
    assert!(stderr.contains("not exchanged with a daemon"), "{stderr}");
    // A buildpack's streams stay what they are (docs/decisions/0009), and levels are for what the phase itself says.
    let default = "[[processes]]\ntype = \"web\"\ncommand = [\"a\"]\ndefault = true\n";
    let twice = format!("{default}\n{}", default.replace("true", "false"));
    platform.buildpack(
        "one",
        "build",
        &format!("echo built; echo oops >&2; printf '%s' '{twice}' >$CNB_LAYERS_DIR/launch.toml"),
    );
    assert_eq!(ran(&mut platform.phase("detector", &[])).0, Some(0));
    let remark = "warning: buildpack `one@1` redefines the default process type `web` as one that is no default: the image has none until another buildpack names one\n";
    for (level, stderr) in [
        ("info", format!("oops\n{remark}")),
        ("WARN", format!("oops\n{remark}")),
        ("error", "oops\n".to_owned()),
    ] {
        for variable in [false, true] {
            let words: &[&str] = if variable { &[] } else { &["-log-level", level] };
            let mut builder = platform.phase("builder", words);
            if variable {
                builder.env("CNB_LOG_LEVEL", level);
            }
            assert_eq!(
                ran(&mut builder),
                (Some(0), "built\n".to_owned(), stderr.clone()),
                "{level} {variable}"
            );
        }
    }
}

#[test]
fn before_targets_a_buildpack_is_for_the_build_image_s_stack() {
    let platform = Platform::new(&order(&["one"]));
    platform.buildpack("one", "detect", "exit 0");
    let descriptor = platform.read("buildpacks/one/1/buildpack.toml");
    let detect = |api: &str, stacks: &str| {
        platform.write("buildpacks/one/1/buildpack.toml", &format!("{descriptor}{stacks}"));
        let mut command = platform.phase("detector", &[]);
        let (code, _, stderr) = ran(command.env("CNB_PLATFORM_API", api).env("CNB_STACK_ID", "here"));
        (code, stderr)
    };
    let other = "[[stacks]]\nid = \"there\"\n[[stacks]]\nid = \"elsewhere\"\n";
    for api in ["0.7", "0.11"] {
        let (code, stderr) = detect(api, other);
        let text = "buildpack `one@1` is for `there`, `elsewhere`, not for stack `here` of the build image (CNB_STACK_ID)";
        assert!(code == Some(22) && stderr.contains(text), "{code:?} {stderr}");
    }
    assert!(!platform.at("layers/group.toml").exists());
    for (api, stacks) in [
        ("0.12", other),
        ("0.11", ""),
        ("0.11", "[[stacks]]\nid = \"*\"\n"),
        ("0.11", "[[stacks]]\nid = \"there\"\n[[stacks]]\nid = \"here\"\n"),
        ("0.11", &format!("{other}[[targets]]\nos = \"linux\"\n")),
    ] {
        let (code, stderr) = detect(api, stacks);
        assert_eq!(code, Some(0), "{api} {stacks}: {stderr}");
    }
}

#[test]
fn before_targets_mixins_are_compared_with_the_run_image_s_before_a_program_of_a_buildpack_runs() {
    let registry = DockerRegistry::open();
    let image = |stack: &str, mixins: &str| {
        let labels = [("io.buildpacks.stack.id", stack), ("io.buildpacks.stack.mixins", mixins)];
        labels.iter().fold(Fixture::new(Vec::new()), |image, (name, value)| image.label(name, value))
    };
    registry.push(&image("here", "[\"build:x\", \"run:one\", \"two\"]"), "run", "some");
    registry.push(&Fixture::new(Vec::new()).label("io.buildpacks.stack.id", "here"), "run", "none");
    registry.push(&Fixture::new(Vec::new()), "run", "silent");
    let platform = Platform::new(
        "[[order]]\ngroup = [{ id = \"one\", version = \"1\" }]\n[[order]]\ngroup = [{ id = \"two\", version = \"1\" }]\n",
    );
    for id in ["one", "two"] {
        platform.buildpack(id, "detect", &format!("touch \"{}\"", platform.at("layers/ran").display()));
        platform.buildpack(id, "build", "exit 0");
    }
    let needs = |mixins: &str| format!("[[stacks]]\nid = \"here\"\nmixins = {mixins}\n");
    let descriptor = platform.read("buildpacks/one/1/buildpack.toml");
    let call = |phase: &str, api: &str, run: &str, stacks: &str| {
        platform.write("buildpacks/one/1/buildpack.toml", &format!("{descriptor}{stacks}"));
        let _ = fs::remove_file(platform.at("layers/ran"));
        let (run, app) = (registry.reference(run), registry.reference("app"));
        let mut command = platform.phase("lifecycle", &[phase, "-run-image", &run, &app]);
        let (code, _, stderr) = ran(command.env("CNB_PLATFORM_API", api));
        (code, platform.at("layers/ran").exists(), stderr)
    };
    for (run, mixins, lacks) in [
        ("run:some", "[\"one\", \"three\"]", "three"),
        ("run:some", "[\"run:one\", \"run:three\"]", "three"),
        ("run:some", "[\"x\"]", "x"),
        ("run:none", "[\"one\"]", "one"),
    ] {
        for (phase, api) in [("create", "0.7"), ("create", "0.11"), ("analyze", "0.7"), ("analyze", "0.11")] {
            let (code, has_run, stderr) = call(phase, api, run, &needs(mixins));
            let text = format!(
                "buildpack `one@1` needs mixin `{lacks}`, which run image `{}` does not have",
                registry.reference(run)
            );
            assert!(code == Some(32) && stderr.contains(&text), "{phase} {api} {mixins}: {code:?} {stderr}");
            assert!(!has_run, "{api} {mixins}");
        }
    }
    for (api, run, stacks) in [
        ("0.11", "run:some", needs("[\"one\", \"run:two\", \"build:y\"]")),
        ("0.11", "run:some", needs("[\"three\"]").replace("here", "there")),
        ("0.11", "run:silent", needs("[\"three\"]")),
        ("0.11", "run:none", format!("{}[[targets]]\nos = \"linux\"\n", needs("[\"three\"]"))),
        ("0.12", "run:none", needs("[\"three\"]")),
    ] {
        let (code, has_run, stderr) = call("create", api, run, &stacks);
        assert_eq!((code, has_run), (Some(0), true), "{api} {run} {stacks}: {stderr}");
    }
    // Where there is no order, as in an image of a lifecycle, there is nothing to compare.
    fs::remove_file(platform.at("order.toml")).expect("remove the order");
    assert_eq!(call("analyze", "0.11", "run:none", &needs("[\"one\"]")).0, Some(0));
}
