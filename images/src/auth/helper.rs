//! Programs that know credentials: `docker-credential-NAME` ([credential helpers]). They run for a conductor on the host, or for a phase
//! that another platform starts, before anything foreign does.
//!
//! [credential helpers]: https://github.com/docker/docker-credential-helpers#development

mod process;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Credentials, Secret, server_url};
use process::finished;

/// A helper may wait for its user, but not forever.
const LIMIT: Duration = Duration::from_secs(30);

/// What a helper says where it has nothing, which is no failure.
const NOTHING: &str = "credentials not found";

/// As the user name: the secret is an identity token.
pub const TOKEN_USER: &str = "<token>";

/// Where helpers are, and what they are told.
#[derive(Clone)]
pub struct Helpers {
    folders: Vec<PathBuf>,
    env: Vec<(OsString, OsString)>,
    limit: Duration,
    of_root_alone: bool,
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
    /// There is one that root does not start.
    #[error(
        "root does not start {}, which others than root can change: it, and all folders above it, must be root's and closed to others' writing",
        program.display()
    )]
    NotOfRoot {
        /// The program.
        program: PathBuf,
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
        Self { folders: absolute_folders(path), env, limit: LIMIT, of_root_alone: false }
    }

    /// For a process of root: a program that others can change is not started, and a variable that names a file or folder which others
    /// can change is not told, for a helper may do as it finds there. Of `PATH` those folders are told that others cannot change.
    #[must_use]
    pub fn of_root_alone(self) -> Self {
        let is_root_s = |path: &PathBuf| !path.is_absolute() || is_root_s_alone(path);
        let told = |(name, value): (OsString, OsString)| {
            let value = if name == "PATH" {
                std::env::join_paths(std::env::split_paths(&value).filter(is_root_s)).ok()
            } else {
                Some(value).filter(|value| is_root_s(&value.into()))
            };
            value.map(|value| (name, value))
        };
        let env = self.env.into_iter().filter_map(told).collect();
        Self { env, of_root_alone: true, ..self }
    }

    /// Ends a helper that has not answered after so long.
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// What the helper has for a registry.
    pub fn get(
        &self,
        name: &str,
        registry: &str,
        untrusted: &[PathBuf],
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
            Answer { username, secret } if username == TOKEN_USER => Some(Credentials::Identity(secret)),
            Answer { username, secret } => Some(Credentials::Basic { user: username, password: secret }),
        })
    }

    /// Have it keep a name and a password for a registry.
    pub fn store(
        &self,
        name: &str,
        registry: &str,
        user: &str,
        password: &Secret,
    ) -> Result<(), HelperError> {
        let kept = Kept { server_url: &server_url(registry), username: user, secret: password };
        // Strings: there is nothing that JSON cannot hold.
        let kept = Zeroizing::new(serde_json::to_vec(&kept).unwrap_or_default());
        match self.call(name, "store", &kept, &[])? {
            (status, _) if status.success() => Ok(()),
            (status, _) => Err(HelperError::Unstored { name: name.to_owned(), status: status.to_string() }),
        }
    }

    /// Have it forget what it has for a registry; nothing is no failure.
    pub fn erase(&self, name: &str, registry: &str) -> Result<(), HelperError> {
        let registry = server_url(registry);
        match self.call(name, "erase", registry.as_bytes(), &[])? {
            (status, text) if status.success() || is_nothing(&text) => Ok(()),
            (status, _) => Err(HelperError::failed(name, status, "erase", &registry)),
        }
    }

    /// The registries that it knows credentials for, as it calls them, and the user names.
    pub fn list(&self, name: &str) -> Result<BTreeMap<String, String>, HelperError> {
        let (status, text) = self.call(name, "list", b"", &[])?;
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
        untrusted: &[PathBuf],
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
    fn program(&self, name: &str, untrusted: &[PathBuf]) -> Result<PathBuf, HelperError> {
        let program = format!("docker-credential-{name}");
        let found = program_in(&self.folders, &program, untrusted);
        let found = found.ok_or_else(|| HelperError::Missing { name: name.to_owned() })?;
        if self.of_root_alone && !is_root_s_alone(&found) {
            return Err(HelperError::NotOfRoot { program: found });
        }
        Ok(found)
    }
}

/// The folders of a list (as the variable `PATH` has it) that mean the same wherever a process is.
fn absolute_folders(path: &OsStr) -> Vec<PathBuf> {
    std::env::split_paths(path).filter(|folder| folder.is_absolute()).collect()
}

/// The first file of this name that can be executed; never one below an `untrusted` folder, by its path or behind a link.
fn program_in(folders: &[PathBuf], name: &str, untrusted: &[PathBuf]) -> Option<PathBuf> {
    let trusted = |path: &PathBuf| {
        let Ok(real) = path.canonicalize() else { return false };
        let Ok(about) = real.metadata() else { return false };
        let foreign = untrusted.iter().any(|folder| real.starts_with(folder) || path.starts_with(folder));
        about.is_file() && about.permissions().mode() & 0o111 != 0 && !foreign
    };
    folders.iter().map(|folder| folder.join(name)).find(trusted)
}

/// A program of the host in a list of folders (as the variable `PATH` has it): only absolute ones count, and nothing that came with the
/// application in `untrusted`.
#[must_use]
pub fn host_program(path: &OsStr, name: &str, untrusted: &[PathBuf]) -> Option<PathBuf> {
    program_in(&absolute_folders(path), name, untrusted)
}

/// Whether nobody but root can put another file or folder into the place of this one, or change it.
#[must_use]
pub fn is_root_s_alone(program: &Path) -> bool {
    let closed =
        |path: &Path| path.metadata().is_ok_and(|about| about.uid() == 0 && about.mode() & 0o022 == 0);
    let real = program.canonicalize();
    real.is_ok_and(|real| real.ancestors().chain(program.ancestors()).all(closed))
}

/// What of an environment helpers are told: how to find the user's keyring, password store or cloud, and how to ask the user. Whoever
/// writes a helper that needs more can have it read a file below HOME.
#[must_use]
pub fn helper_environment(all: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    const NAMES: [&str; 27] = [
        "HOME",
        "PATH",
        "USER",
        "LOGNAME",
        "LANG",
        "LC_ALL",
        "TMPDIR",
        "XDG_RUNTIME_DIR",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_CACHE_HOME",
        "DBUS_SESSION_BUS_ADDRESS",
        "DISPLAY",
        "WAYLAND_DISPLAY",
        "XAUTHORITY",
        "GNUPGHOME",
        "GPG_TTY",
        "PASSWORD_STORE_DIR",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "WSL_INTEROP",
    ];
    const PREFIXES: [&str; 4] = ["AWS_", "AZURE_", "CLOUDSDK_", "GOOGLE_"];
    let wanted = |name: &OsString| {
        let name = name.to_string_lossy();
        NAMES.contains(&&*name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    all.filter(|(name, _)| wanted(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_starts_only_what_nobody_else_can_change() {
        assert!(is_root_s_alone(Path::new("/usr/bin/env")));
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("docker-credential-x");
        std::fs::write(&program, "").unwrap();
        std::os::unix::fs::symlink("/usr/bin/env", dir.path().join("linked")).unwrap();
        // A folder for everybody is above it, and above the link.
        assert!(!is_root_s_alone(&program) && !is_root_s_alone(&dir.path().join("linked")));
        let told = |value: &str| {
            let env = vec![("HOME".into(), value.into())];
            Helpers::new(OsStr::new(""), env).of_root_alone().env.len()
        };
        assert_eq!((told("/usr"), told("text"), told("/nowhere")), (1, 1, 0));
        // Of root, and open to everybody.
        assert_eq!((told("/tmp"), told(dir.path().to_str().unwrap())), (0, 0));
        let env = vec![("PATH".into(), "/usr/bin:/tmp:bin".into())];
        assert_eq!(
            Helpers::new(OsStr::new(""), env).of_root_alone().env,
            [("PATH".into(), "/usr/bin:bin".into())]
        );
        let proxy = vec![("HTTPS_PROXY".into(), "http://proxy:3128".into())];
        assert_eq!(Helpers::new(OsStr::new(""), proxy.clone()).of_root_alone().env, proxy);
    }
}
