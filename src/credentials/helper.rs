//! Programs that know credentials: `docker-credential-NAME` ([credential helpers]). They run on the host, as the user, for
//! the conductor; never in a container.
//!
//! [credential helpers]: https://github.com/docker/docker-credential-helpers#development

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use coracle_images::{Credentials, Secret, server_url};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A helper may wait for its user, but not forever.
const LIMIT: Duration = Duration::from_secs(30);

/// No helper says more.
const ANSWER_LIMIT: usize = 1 << 20;

/// What a helper says where it has nothing, which is no failure.
const NOTHING: &str = "credentials not found";

/// As the user name: the secret is an identity token.
pub(super) const TOKEN: &str = "<token>";

/// Where helpers are, and what they are told.
#[derive(Clone)]
pub struct Helpers {
    folders: Vec<PathBuf>,
    env: Vec<(OsString, OsString)>,
    limit: Duration,
}

impl std::fmt::Debug for Helpers {
    /// Without values of variables, which may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Helpers").field("folders", &self.folders).finish_non_exhaustive()
    }
}

impl Default for Helpers {
    fn default() -> Self {
        Self::new(OsStr::new(""), Vec::new())
    }
}

/// Why a helper does not say what it knows. What it said is never repeated: nobody can tell what of it is secret.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// No name of a program.
    #[error("the helper's name `{name}` is none: expected letters, digits, `.`, `_` and `-`")]
    Name {
        /// As in the file.
        name: String,
    },
    /// There is no such program.
    #[error(
        "docker-credential-{name} is in no folder of PATH; relative folders and those of the application do not count"
    )]
    Missing {
        /// The helper's name.
        name: String,
    },
    /// It could not be started.
    #[error("could not start {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("docker-credential-{name} failed ({status}); to see why: {again}")]
    Failed {
        /// The helper's name.
        name: String,
        /// As it ended.
        status: String,
        /// The command that shows what it says.
        again: String,
    },
    /// It does not take what it is given.
    #[error(
        "docker-credential-{name} did not store the password ({status}); unlock what it keeps credentials in, or name another helper, or none, for the registry"
    )]
    Unstored {
        /// The helper's name.
        name: String,
        /// As it ended.
        status: String,
    },
    /// It takes too long.
    #[error(
        "docker-credential-{name} did not answer within {seconds} s and was ended; unlock what it keeps credentials in, and try again"
    )]
    Late {
        /// The helper's name.
        name: String,
        /// The limit.
        seconds: u64,
    },
    /// It says something else.
    #[error("docker-credential-{name} answered without a Username and a Secret in JSON")]
    Answer {
        /// The helper's name.
        name: String,
    },
}

impl HelperError {
    fn failed(name: &str, status: ExitStatus, verb: &str, input: &str) -> Self {
        let again = format!("echo {input} | docker-credential-{name} {verb}");
        Self::Failed { name: name.to_owned(), status: status.to_string(), again }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: Secret,
}

/// What a helper is to keep.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Kept<'a> {
    #[serde(rename = "ServerURL")]
    server_url: &'a str,
    username: &'a str,
    secret: &'a Secret,
}

/// Whether a helper that failed says that it has nothing.
fn is_nothing(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).trim_start().starts_with(NOTHING)
}

impl Helpers {
    /// Looks for programs in `path` (as the variable `PATH` has it) and tells them `env` and nothing else.
    #[must_use]
    pub fn new(path: &OsStr, env: Vec<(OsString, OsString)>) -> Self {
        let folders = std::env::split_paths(path).filter(|folder| folder.is_absolute()).collect();
        Self { folders, env, limit: LIMIT }
    }

    #[cfg(test)]
    pub(super) fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// What the helper has for a registry.
    pub(super) fn get(
        &self,
        name: &str,
        registry: &str,
        untrusted: Option<&Path>,
    ) -> Result<Option<Credentials>, HelperError> {
        let registry = server_url(registry);
        let (status, text) = self.call(name, "get", registry.as_bytes(), untrusted)?;
        if !status.success() {
            if is_nothing(&text) {
                return Ok(None);
            }
            return Err(HelperError::failed(name, status, "get", &registry));
        }
        let answer: Answer =
            serde_json::from_slice(&text).map_err(|_| HelperError::Answer { name: name.to_owned() })?;
        Ok(match answer {
            Answer { secret, .. } if secret.is_empty() => None,
            Answer { username, secret } if username == TOKEN => Some(Credentials::Identity(secret)),
            Answer { username, secret } => Some(Credentials::Basic { user: username, password: secret }),
        })
    }

    /// Have it keep a name and a password for a registry.
    pub(super) fn store(
        &self,
        name: &str,
        registry: &str,
        user: &str,
        password: &Secret,
    ) -> Result<(), HelperError> {
        let kept = Kept { server_url: &server_url(registry), username: user, secret: password };
        // Strings: there is nothing that JSON cannot hold.
        let kept = Zeroizing::new(serde_json::to_vec(&kept).unwrap_or_default());
        match self.call(name, "store", &kept, None)? {
            (status, _) if status.success() => Ok(()),
            (status, _) => Err(HelperError::Unstored { name: name.to_owned(), status: status.to_string() }),
        }
    }

    /// Have it forget what it has for a registry; nothing is no failure.
    pub(super) fn erase(&self, name: &str, registry: &str) -> Result<(), HelperError> {
        let registry = server_url(registry);
        match self.call(name, "erase", registry.as_bytes(), None)? {
            (status, text) if status.success() || is_nothing(&text) => Ok(()),
            (status, _) => Err(HelperError::failed(name, status, "erase", &registry)),
        }
    }

    /// The registries that it knows credentials for, as it calls them, and the user names.
    pub(super) fn list(&self, name: &str) -> Result<BTreeMap<String, String>, HelperError> {
        let (status, text) = self.call(name, "list", b"", None)?;
        if !status.success() {
            return Err(HelperError::failed(name, status, "list", "''"));
        }
        serde_json::from_slice(&text).map_err(|_| HelperError::Answer { name: name.to_owned() })
    }

    /// How it ended and what it wrote, given `input`.
    fn call(
        &self,
        name: &str,
        verb: &str,
        input: &[u8],
        untrusted: Option<&Path>,
    ) -> Result<(ExitStatus, Zeroizing<Vec<u8>>), HelperError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || !name.chars().all(plain) {
            return Err(HelperError::Name { name: name.to_owned() });
        }
        let program = self.program(name, untrusted)?;
        let failed = |source| HelperError::Start { program: program.clone(), source };
        let mut child = Command::new(&program)
            .arg(verb)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What a helper says besides may be secret, and is not for a log.
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let output = (child.stdin.take(), child.stdout.take());
        let (Some(mut stdin), Some(stdout)) = output else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        // One that does not ask has an answer for every registry. The text fits into any pipe.
        let _ = stdin.write_all(input);
        drop(stdin);
        let late = || HelperError::Late { name: name.to_owned(), seconds: self.limit.as_secs() };
        finished(&mut child, stdout, self.limit).map_err(failed)?.ok_or_else(late)
    }

    /// The first file that can be executed; never one that came with an application.
    fn program(&self, name: &str, untrusted: Option<&Path>) -> Result<PathBuf, HelperError> {
        let program = format!("docker-credential-{name}");
        let trusted = |path: &PathBuf| {
            let Ok(real) = path.canonicalize() else { return false };
            let Ok(about) = real.metadata() else { return false };
            let foreign =
                untrusted.is_some_and(|folder| real.starts_with(folder) || path.starts_with(folder));
            about.is_file() && about.permissions().mode() & 0o111 != 0 && !foreign
        };
        let mut places = self.folders.iter().map(|folder| folder.join(&program));
        places.find(trusted).ok_or_else(|| HelperError::Missing { name: name.to_owned() })
    }
}

/// How a program ended and what it wrote; nothing where it had to be ended.
fn finished(
    child: &mut Child,
    stdout: ChildStdout,
    limit: Duration,
) -> io::Result<Option<(ExitStatus, Zeroizing<Vec<u8>>)>> {
    let deadline = Instant::now() + limit;
    let (sender, receiver) = mpsc::channel();
    // On a thread of its own, which stays behind where somebody else keeps the pipe open.
    std::thread::spawn(move || {
        // Reserved whole: a text that outgrows its place leaves copies behind.
        let mut text = Zeroizing::new(Vec::with_capacity(ANSWER_LIMIT));
        let read = stdout.take(ANSWER_LIMIT as u64).read_to_end(&mut text);
        let _ = sender.send(read.map(|_| text));
    });
    let text = match receiver.recv_timeout(limit) {
        Ok(text) => text,
        Err(_) => return ended(child).map(|()| None),
    };
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(Some((status, text?))),
            None if Instant::now() > deadline => return ended(child).map(|()| None),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Ends a program and what it has started: a helper is often a script, and would leave behind what it waits for. Each of them is
/// stopped before its children are looked for, so that it starts no more. All stay in the group of this process, where they may
/// ask at its terminal and an interrupt reaches them too.
fn ended(child: &mut Child) -> io::Result<()> {
    let mut all = vec![Pid::from_raw(child.id().cast_signed())];
    let mut looked_at = 0;
    while let Some(&parent) = all.get(looked_at) {
        // Gone already, perhaps.
        let _ = signal::kill(parent, Signal::SIGSTOP);
        all.extend(children(parent));
        looked_at += 1;
    }
    for process in all {
        let _ = signal::kill(process, Signal::SIGKILL);
    }
    child.wait().map(drop)
}

/// The children of a process, as far as `/proc` tells.
fn children(parent: Pid) -> Vec<Pid> {
    let parent = parent.to_string();
    let is_child = |id: i32| {
        let stat = fs::read(format!("/proc/{id}/stat")).ok()?;
        // The name, in parentheses, may hold anything (proc_pid_stat(5)).
        let stat = String::from_utf8_lossy(&stat);
        let (_, fields) = stat.rsplit_once(") ")?;
        (fields.split(' ').nth(1) == Some(parent.as_str())).then(|| Pid::from_raw(id))
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| is_child(entry.file_name().to_str()?.parse().ok()?)).collect()
}
