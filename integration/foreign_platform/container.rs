//! A platform's container: a root filesystem with a builder's layers and our program at the lifecycle's path.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use coracle_fixtures::{Builder, Buildpack, DockerRegistry, RegistryAccess, RunImage};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::harness::{Ran, coracle, ran, within};

const PHASES: [&str; 6] = ["analyzer", "detector", "restorer", "builder", "exporter", "creator"];

/// Who starts a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Root, in groups that containers give to root, with the build's user named in variables.
    Root,
    BuildUser,
    /// The build's user, with capabilities that a platform gave to it.
    Capable,
}

pub(super) struct Container {
    pub(super) registry: DockerRegistry,
    folder: TempDir,
}

impl Container {
    /// A registry with a run image, and a builder of these buildpacks.
    pub(super) fn new(access: RegistryAccess, buildpacks: &[Buildpack]) -> Self {
        assert!(!nix::unistd::geteuid().is_root(), "run as a plain user with subordinate ids");
        let registry = DockerRegistry::start(access);
        registry.push(&RunImage::new().image(), "run", "latest");
        let builder = Builder::new(&registry.reference("run:latest")).group(buildpacks).probe();
        let container = Self { registry, folder: tempfile::tempdir().expect("make a folder") };
        fs::create_dir(container.path("")).expect("make a folder");
        for layer in builder.image().layers {
            let mut tar = container.in_namespace("tar --extract --preserve-permissions --same-owner");
            let mut tar = tar.stdin(Stdio::piped()).spawn().expect("start tar");
            tar.stdin.take().expect("has an input").write_all(layer.tar()).expect("send a layer");
            assert!(tar.wait().expect("wait for tar").success());
        }
        let program = coracle().display().to_string();
        let links: String =
            PHASES.iter().map(|phase| format!("ln -s coracle cnb/lifecycle/{phase}\n")).collect();
        let run = container.registry.reference("run:latest");
        container.as_root(&format!(
            "mkdir -p cnb/lifecycle dev proc layers cache workspace
            cp '{program}' cnb/lifecycle/coracle
            touch dev/null
            printf '[[images]]\\nimage = \"{run}\"\\n' >cnb/run.toml
            {links}"
        ));
        container.clear(&["layers", "cache", "workspace"]);
        container
    }

    /// Where the container's path is for the test.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path)
    }

    /// The registry's credentials as `CNB_REGISTRY_AUTH` has them.
    pub(super) fn header(&self) -> String {
        format!("{{\"{}\":\"Basic {}\"}}", self.registry.address(), super::HEADER)
    }

    /// A shell's line, by root of a namespace with the user's subordinate ids, in the root folder.
    fn in_namespace(&self, line: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--map-auto", "sh", "-ec", line, "sh"]);
        command.current_dir(self.path("")).stdin(Stdio::null());
        command
    }

    pub(super) fn as_root(&self, line: &str) -> String {
        let ran = ran(self.in_namespace(line).output().expect("start unshare"));
        assert_eq!(ran.code, Some(0), "{line}: {}", ran.stderr);
        ran.stdout
    }

    /// Writes a file that is root's.
    pub(super) fn write(&self, path: &str, text: &str, mode: u32) {
        self.as_root(&format!(
            "mkdir -p \"$(dirname {path})\"; printf '%s' '{text}' >{path}; chmod {mode:o} {path}"
        ));
    }

    /// Makes folders anew. The platform gives the application to the build's user; the others are root's until a phase needs them.
    pub(super) fn clear(&self, folders: &[&str]) {
        for folder in folders {
            let fill = if *folder == "workspace" {
                "echo hello >workspace/hello; chown -R 1001:1002 workspace"
            } else {
                "true"
            };
            self.as_root(&format!("rm -rf {folder}; mkdir {folder}; {fill}"));
        }
    }

    /// Everything in these folders with its owner, by path.
    pub(super) fn owned(&self, folders: &[&str]) -> String {
        self.as_root(&format!("find {} -printf '%p %U:%G\\n' | LC_ALL=C sort", folders.join(" ")))
    }

    /// The digest in the report.
    pub(super) fn digest(&self) -> String {
        let report = fs::read_to_string(self.path("layers/report.toml")).expect("read the report");
        let line = report.lines().find_map(|line| line.trim().strip_prefix("digest = "));
        line.expect("a digest").to_owned()
    }

    /// A label of a published image.
    pub(super) fn label(&self, image: &str, label: &str) -> String {
        let config = self.registry.config(&format!("{image}:latest"));
        let config: serde_json::Value = serde_json::from_slice(&config).expect("is JSON");
        config["config"]["Labels"][label].as_str().expect("is text").to_owned()
    }

    /// A program as process 1 of the container.
    pub(super) fn program(&self, who: Who, words: &[&str]) -> Command {
        let root = self.path("").display().to_string();
        // A container of the build's user alone was made by somebody who gave this user the folders.
        let own = "chown 1001:1002 layers cache";
        let (enter, prepare, home) = match who {
            Who::Root => ("setpriv --groups 0,4,10 unshare", "true", "/root"),
            Who::BuildUser => ("unshare --setgid 1002 --setuid 1001", own, "/home/cnb"),
            Who::Capable => (
                "setpriv --regid 1002 --reuid 1001 --clear-groups --inh-caps +all --ambient-caps +all unshare",
                own,
                "/home/cnb",
            ),
        };
        let line = format!(
            "{prepare}; mount --bind /dev/null dev/null; mount -t proc proc proc; exec 7<etc/passwd; exec {enter} --root={root} --wd=/ -- \"$@\""
        );
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--map-auto", "--mount", "--pid", "--fork"])
            .args(["sh", "-ec", &line, "sh"])
            .args(words)
            .current_dir(&root)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs([
                ("HOME", home),
                ("CNB_USER_ID", "1001"),
                ("CNB_GROUP_ID", "1002"),
                ("CNB_PLATFORM_API", "0.13"),
            ])
            .stdin(Stdio::null());
        command
    }

    pub(super) fn command(&self, who: Who, phase: &str, args: &[&str]) -> Command {
        let program = format!("/cnb/lifecycle/{phase}");
        self.program(who, &[&[program.as_str()], args].concat())
    }

    /// Runs a phase to its end.
    pub(super) fn ran(&self, who: Who, phase: &str, args: &[&str], env: &[(&str, &str)]) -> Ran {
        ran(self.command(who, phase, args).envs(env.iter().copied()).output().expect("start a phase"))
    }
}

/// Process 1 of the container that `unshare` of this id keeps, by its id outside.
pub(super) fn first_process(unshare: u32) -> Pid {
    let children = || {
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"));
        children.ok()?.split_whitespace().next()?.parse().ok()
    };
    within(Duration::from_secs(30), "the container has a process", || children().is_some());
    Pid::from_raw(children().expect("a process"))
}

impl Drop for Container {
    fn drop(&mut self) {
        let deleted = self.in_namespace("chmod -R u+rwX .; find . -mindepth 1 -delete").status();
        if !deleted.is_ok_and(|status| status.success()) && !std::thread::panicking() {
            panic!("could not delete {}", self.folder.path().display());
        }
    }
}
