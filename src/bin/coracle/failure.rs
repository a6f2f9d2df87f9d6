//! Failures as text: the error, its causes, an exit code.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::report;

/// Anything that ends the program early.
#[derive(Debug)]
pub(crate) enum Failure {
    Library(coracle::Error),
    Signals(std::io::Error),
    ArchiveOnTerminal,
    Archive {
        path: PathBuf,
        source: std::io::Error,
    },
    NoHome,
    AuthFile(PathBuf),
    Environment(std::io::Error),
    Certificates {
        path: PathBuf,
        source: Option<std::io::Error>,
    },
    /// The place among the `--env` of the command line, from 1. Not the text: it may hold a value.
    Variable(usize),
    Timings {
        path: PathBuf,
        source: std::io::Error,
    },
    EnvFile {
        path: PathBuf,
        source: Option<std::io::Error>,
        line: usize,
    },
    NoBuilder,
    NoConfig,
    NoAuthFile,
    NoTerminal,
    PasswordOnTerminal,
    Password(std::io::Error),
    NothingTyped,
    Config(coracle::ConfigError),
    Trust(coracle::TrustError),
}

impl From<coracle::ConfigError> for Failure {
    fn from(error: coracle::ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<coracle::TrustError> for Failure {
    fn from(error: coracle::TrustError) -> Self {
        Self::Trust(error)
    }
}

impl From<coracle::Error> for Failure {
    fn from(error: coracle::Error) -> Self {
        Self::Library(error)
    }
}

impl Failure {
    /// The message, then each cause.
    fn text(&self) -> String {
        let (message, source): (String, Option<&dyn StdError>) = match self {
            Self::Library(error) => (error.to_string(), error.source()),
            Self::Signals(error) => ("could not listen for signals".to_owned(), Some(error)),
            Self::ArchiveOnTerminal => {
                ("an archive is nothing for a terminal; name a file with --output, or pipe it on".to_owned(), None)
            }
            Self::Archive { path, source } => {
                (format!("could not write the archive {} (--output)", path.display()), Some(source))
            }
            Self::NoHome => (
                "there is no folder to keep images in: neither --home, CORACLE_HOME, XDG_DATA_HOME nor HOME is set"
                    .to_owned(),
                None,
            ),
            Self::AuthFile(path) => (
                format!(
                    "there is no file of credentials at {} (--registry-auth-file, REGISTRY_AUTH_FILE)",
                    path.display()
                ),
                None,
            ),
            Self::Environment(error) => {
                ("could not take CORACLE_REGISTRY_AUTH out of the environment".to_owned(), Some(error))
            }
            Self::Certificates { path, source } => (
                format!(
                    "could not use the certificates in {} (SSL_CERT_FILE): it must be a file that everybody may read",
                    path.display()
                ),
                source.as_ref().map(|error| error as &dyn StdError),
            ),
            Self::Timings { path, source } => {
                (format!("could not write the timings to {}", path.display()), Some(source))
            }
            Self::NoBuilder => (
                "the build has no builder: name one with --builder or CORACLE_BUILDER, or one for all builds with coracle config default-builder; coracle builder suggest lists some"
                    .to_owned(),
                None,
            ),
            Self::NoConfig => (
                "there is no file to keep this in: neither CORACLE_CONFIG, XDG_CONFIG_HOME nor HOME is set".to_owned(),
                None,
            ),
            Self::NoAuthFile => (
                "there is no file to keep credentials in: neither XDG_RUNTIME_DIR, XDG_CONFIG_HOME nor HOME is set; name one with --registry-auth-file"
                    .to_owned(),
                None,
            ),
            Self::NoTerminal => (
                "there is no terminal to ask for the password; pipe it in, with --username NAME --password-stdin".to_owned(),
                None,
            ),
            Self::PasswordOnTerminal => (
                "--password-stdin reads from a pipe or file, and this is a terminal; leave it out to be asked".to_owned(),
                None,
            ),
            Self::Password(error) => ("could not read the password from standard input".to_owned(), Some(error)),
            Self::NothingTyped => ("nobody was logged in: no line was typed to its end".to_owned(), None),
            Self::Config(error) => (error.to_string(), error.source()),
            Self::Trust(error) => (error.to_string(), error.source()),
            Self::EnvFile { path, source: Some(error), .. } => {
                (format!("could not read the variables in {} (--env-file)", path.display()), Some(error))
            }
            Self::EnvFile { path, line, .. } => (
                format!("line {line} of {} (--env-file) names no variable; write NAME=VALUE or NAME, the name without `/`", path.display()),
                None,
            ),
            Self::Variable(place) => (
                format!("--env number {place} names no variable; write NAME=VALUE or NAME, the name without `/`"),
                None,
            ),
        };
        with_causes(message, source)
    }
}

fn with_causes(message: String, source: Option<&dyn StdError>) -> String {
    let causes = std::iter::successors(source, |cause: &&dyn StdError| (*cause).source());
    causes.fold(message, |text, cause| format!("{text}\n  cause: {cause}"))
}

pub(crate) fn print(failure: &Failure) -> ExitCode {
    report::error(&failure.text());
    ExitCode::from(match failure {
        Failure::Variable(_) | Failure::EnvFile { .. } | Failure::AuthFile(_) | Failure::NoBuilder => 2,
        Failure::Library(coracle::Error::Phase { outcome, .. }) => u8::try_from(outcome.code()).unwrap_or(1),
        _ => 1,
    })
}

/// A phase inside a container failed.
pub(crate) fn print_phase(error: &dyn StdError) {
    report::error(&with_causes(error.to_string(), error.source()));
}

/// A signal ended the operation; what failed because of that is only worth telling if it is something else.
pub(crate) fn interrupted(signal: i32, swept: bool, failure: Option<&Failure>) -> ExitCode {
    if let Some(failure) =
        failure.filter(|failure| !matches!(failure, Failure::Library(coracle::Error::Session(_))))
    {
        report::error(&failure.text());
    }
    let left = if swept { "nothing was left" } else { "nothing was left running, but files were" };
    report::error(&format!("interrupted by signal {signal}; {left}"));
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(1))
}
