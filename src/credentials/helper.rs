//! Programs that know credentials: `docker-credential-NAME` ([credential helpers]). They run on the host, as the user, for
//! the conductor; never in a container.
//!
//! [credential helpers]: https://github.com/docker/docker-credential-helpers#development

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use coracle_images::{Credentials, Secret, server_url};
use serde::Deserialize;
use zeroize::Zeroizing;

/// A helper may wait for its user, but not forever.
const LIMIT: Duration = Duration::from_secs(30);

/// No helper says more.
const ANSWER_LIMIT: usize = 1 << 20;

/// What a helper says where it has nothing, which is no failure.
const NOTHING: &str = "credentials not found";

/// As the user name: the secret is an identity token.
const TOKEN: &str = "<token>";

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
    #[error(
        "docker-credential-{name} failed ({status}); to see why: echo {registry} | docker-credential-{name} get"
    )]
    Failed {
        /// The helper's name.
        name: String,
        /// As it ended.
        status: String,
        /// As it was asked for.
        registry: String,
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

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: Secret,
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
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || !name.chars().all(plain) {
            return Err(HelperError::Name { name: name.to_owned() });
        }
        let program = self.program(name, untrusted)?;
        let failed = |source| HelperError::Start { program: program.clone(), source };
        let mut child = Command::new(&program)
            .arg("get")
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What a helper says besides may be secret, and is not for a log.
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let asked = server_url(registry);
        let output = (child.stdin.take(), child.stdout.take());
        let (Some(mut stdin), Some(stdout)) = output else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        // One that does not ask has an answer for every registry. The text fits into any pipe.
        let _ = stdin.write_all(asked.as_bytes());
        drop(stdin);
        let late = || HelperError::Late { name: name.to_owned(), seconds: self.limit.as_secs() };
        let Some((status, text)) = finished(&mut child, stdout, self.limit).map_err(failed)? else {
            return Err(late());
        };
        if !status.success() {
            if String::from_utf8_lossy(&text).trim_start().starts_with(NOTHING) {
                return Ok(None);
            }
            return Err(HelperError::Failed {
                name: name.to_owned(),
                status: status.to_string(),
                registry: asked,
            });
        }
        let answer: Answer =
            serde_json::from_slice(&text).map_err(|_| HelperError::Answer { name: name.to_owned() })?;
        Ok(match answer {
            Answer { secret, .. } if secret.is_empty() => None,
            Answer { username, secret } if username == TOKEN => Some(Credentials::Identity(secret)),
            Answer { username, secret } => Some(Credentials::Basic { user: username, password: secret }),
        })
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
) -> io::Result<Option<(std::process::ExitStatus, Zeroizing<Vec<u8>>)>> {
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

fn ended(child: &mut Child) -> io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}
