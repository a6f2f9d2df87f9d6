//! The built binary in a home of its own, as the plain user that runs the tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A home folder, and the program that uses it.
pub(crate) struct TestHome {
    folder: TempDir,
}

/// What a run of the program gave.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program under test, also where the tests were built elsewhere.
pub(crate) fn coracle() -> PathBuf {
    coracle_fixtures::built_program("coracle", env!("CARGO_BIN_EXE_coracle"))
}

impl TestHome {
    pub(crate) fn new() -> Self {
        assert!(
            !nix::unistd::geteuid().is_root(),
            "these tests show what a plain user can do; run them as one (scripts/test does)"
        );
        Self { folder: tempfile::tempdir().expect("make a home") }
    }

    /// A home below a folder.
    pub(crate) fn below(folder: &Path) -> Self {
        Self { folder: tempfile::tempdir_in(folder).expect("make a home") }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The program with `args`, an environment of nothing but a path and this home.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(coracle());
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.folder.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(args).output().expect("start coracle"))
    }

    /// Run, and fail with what it said unless it succeeded.
    pub(crate) fn ok(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "coracle {args:?}\nstdout: {}\nstderr: {}", ran.stdout, ran.stderr);
        ran
    }

    /// The folder in which a command without settings keeps everything.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join(".local/share/coracle")
    }

    /// Wait until nothing is deleted in the background.
    fn swept(&self) {
        if let Ok(lock) = std::fs::File::open(self.data().join("sweeper.lock")) {
            lock.lock().expect("wait for the sweeper");
        }
    }

    /// Names in the folder of work folders when nothing is deleted any more: empty when nothing was left behind.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        self.swept();
        self.left()
    }

    /// Names in the folder of work folders.
    pub(crate) fn left(&self) -> Vec<String> {
        let work = self.data().join("work");
        let entries = std::fs::read_dir(work).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

impl TestHome {
    /// Files below the home that hold these bytes, those of subordinate ids included.
    pub(crate) fn files_with(&self, bytes: &[u8]) -> Vec<String> {
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "--map-auto", "grep", "-rlFa", "--"])
            .arg(String::from_utf8_lossy(bytes).into_owned())
            .arg(self.folder.path().join(".local"))
            .output()
            .expect("start unshare");
        // 1 is "not found"; anything else would make the search blind.
        assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }
}

impl Drop for TestHome {
    /// Unpacked layers belong to subordinate ids: only root of a user namespace that maps them can delete them.
    fn drop(&mut self) {
        self.swept();
        let deleted = Command::new("unshare")
            .args(["--user", "--map-root-user", "--map-auto", "rm", "-rf", "--"])
            .arg(self.folder.path().join(".local"))
            .status();
        if !deleted.is_ok_and(|status| status.success()) && !std::thread::panicking() {
            panic!("could not delete the test's home {}", self.folder.path().display());
        }
    }
}

pub(crate) fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Wait until `holds`, at most `limit`.
pub(crate) fn within(limit: Duration, what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Command lines of living processes that hold `mark`.
pub(crate) fn processes_with(mark: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let texts = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    texts.filter(|text| text.contains(mark)).collect()
}
