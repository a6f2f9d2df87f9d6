//! Credentials of the user: where they are looked for, and who gets which (docs/decisions/0019-credentials.md).
//!
//! A [`Keychain`] is what the user has, read once. [`Keys`] are what one operation asks of it: only for the images that it
//! must reach, and only then are helpers started, on the host.
//!
//! | file | what it holds |
//! |---|---|
//! | `file.rs` | a file of credentials that is read or changed |
//! | `login.rs` | `coracle auth`: credentials come, go, and are listed |

mod file;
mod login;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use coracle_images::{AuthDocument, AuthError, AuthFile, Credentials, Reference};
pub use coracle_images::{HelperError, Helpers, helper_environment};
use nix::fcntl::OFlag;

pub use login::{Kept, Login, LoginError, LoginRequest, RegistryName, log_in, log_out, logins};

use crate::config::ConfigError;
use crate::error::Error;
use crate::event::{Event, Observer};

/// How a file of credentials is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthFormat {
    /// Docker's `config.json`, Podman's `auth.json`.
    Config,
    /// `.dockercfg` of old Dockers.
    Flat,
    /// A header by registry: `CNB_REGISTRY_AUTH` (Platform API, "Registry Authentication").
    Headers,
}

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("could not use the credentials in {place}")]
    Read {
        /// The file.
        place: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The file or variable holds something else.
    #[error("could not use the credentials in {place}")]
    Parse {
        /// The file or variable.
        place: String,
        /// Cause.
        #[source]
        source: AuthError,
    },
    /// Nothing to change.
    #[error(
        "could not use the credentials in {place}: it is no regular file, or has more than 4 MiB; name another with --registry-auth-file"
    )]
    NotAFile {
        /// The file.
        place: String,
    },
    /// The file cannot be changed.
    #[error(transparent)]
    Change(#[from] ConfigError),
    /// The program that the file names for a registry cannot say.
    #[error("could not get the credentials for {registry}, for which {place} names a helper")]
    Helper {
        /// The registry.
        registry: String,
        /// The file.
        place: String,
        /// Cause.
        #[source]
        source: HelperError,
    },
}

/// One file or variable.
#[derive(Debug, Clone)]
struct Source {
    /// As users know it.
    place: String,
    /// Where it is a file that is written as Docker and Podman do.
    file: Option<PathBuf>,
    /// Where it is a file.
    origin: Option<PathBuf>,
    document: AuthDocument,
    /// Whether others than its owner may read it.
    open: bool,
}

/// What the user has: files and a variable, in the order in which they are asked.
#[derive(Debug, Clone, Default)]
pub struct Keychain {
    sources: Vec<Source>,
    helpers: Helpers,
    tells: bool,
}

impl Keychain {
    /// Without files; their helpers will be started as `helpers` says. Where it `tells`, each use of credentials is an
    /// event that says where they are from.
    #[must_use]
    pub fn new(helpers: Helpers, tells: bool) -> Self {
        Self { sources: Vec::new(), helpers, tells }
    }

    /// Adds a file, which is asked after those before it. Says whether there is one.
    ///
    /// # Errors
    /// [`CredentialsError`] where it cannot be read.
    pub fn add_file(&mut self, path: &Path, format: AuthFormat) -> Result<bool, CredentialsError> {
        let Some((text, about)) = file::bytes(path, OFlag::empty())? else { return Ok(false) };
        let open = about.permissions().mode() & 0o077 != 0;
        self.add(&path.display().to_string(), &text, format, open)?;
        if let Some(source) = self.sources.last_mut() {
            source.origin = Some(path.to_owned());
            source.file = Some(path.to_owned()).filter(|_| format == AuthFormat::Config);
        }
        Ok(true)
    }

    /// Adds what a variable says, which is asked after what was added before it.
    ///
    /// # Errors
    /// [`CredentialsError`] where it says something else.
    pub fn add_text(&mut self, name: &str, text: &[u8], format: AuthFormat) -> Result<(), CredentialsError> {
        self.add(name, text, format, false)
    }

    fn add(
        &mut self,
        place: &str,
        text: &[u8],
        format: AuthFormat,
        open: bool,
    ) -> Result<(), CredentialsError> {
        let document = match format {
            AuthFormat::Config => AuthDocument::parse(text),
            AuthFormat::Flat => AuthDocument::parse_flat(text),
            AuthFormat::Headers => AuthDocument::parse_headers(text),
        };
        let place = place.to_owned();
        match document {
            Ok(document) => self.sources.push(Source { place, file: None, origin: None, document, open }),
            Err(source) => return Err(CredentialsError::Parse { place, source }),
        }
        Ok(())
    }

    /// The files that it was read from.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().filter_map(|source| source.origin.as_deref())
    }

    /// Whether there may be credentials for a registry, as far as can be told without asking a helper.
    pub(crate) fn may_have(&self, registry: &str) -> bool {
        let documents = self.sources.iter().map(|source| &source.document);
        documents.into_iter().any(|it| it.auths.has_any_for(registry) || it.helpers.contains_key(registry))
    }

    /// What one operation asks. Helpers are not looked for below `untrusted`.
    pub(crate) fn keys<'a>(&'a self, observer: &'a dyn Observer, untrusted: Option<&Path>) -> Keys<'a> {
        let untrusted = untrusted.map(Path::to_owned);
        Keys { keychain: self, observer, untrusted, answers: Mutex::default(), told: Mutex::default() }
    }
}

/// What a helper is asked: its name, and the registry.
type Question = (String, String);

type Answers = BTreeMap<Question, Result<Option<Credentials>, HelperError>>;

/// A keychain in use.
pub(crate) struct Keys<'a> {
    keychain: &'a Keychain,
    observer: &'a dyn Observer,
    untrusted: Option<PathBuf>,
    /// What helpers have said: each is asked once for each registry.
    answers: Mutex<Answers>,
    told: Mutex<BTreeSet<String>>,
}

/// What comes of looking for an image's credentials.
enum Found<'a> {
    /// These, for all that has this name.
    Credentials {
        name: &'a str,
        credentials: Credentials,
    },
    /// A helper must be asked first.
    Ask(Question),
    Nothing,
}

impl Keys<'_> {
    /// What these images need and no more: for each, what the first source has that has anything.
    pub(crate) fn of(&self, images: &[&Reference]) -> Result<AuthFile, Error> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut needed = AuthFile::default();
            let mut questions = BTreeSet::new();
            for image in images {
                match self.find(image, &mut answers)? {
                    Found::Credentials { name, credentials } => {
                        let mut one = AuthFile::default();
                        one.insert(name, credentials);
                        needed.extend(one.for_repositories([image.name().as_str()]));
                    }
                    Found::Ask(question) => drop(questions.insert(question)),
                    Found::Nothing => {}
                }
            }
            if questions.is_empty() {
                return Ok(needed);
            }
            self.ask(questions, &mut answers);
        }
    }

    /// As [`Keys::of`], but each under its repository's name: what is for a whole registry is good for nothing else there.
    pub(crate) fn of_repositories(&self, images: &[&Reference]) -> Result<AuthFile, Error> {
        let (all, mut alone) = (self.of(images)?, AuthFile::default());
        for name in images.iter().map(|image| image.name()) {
            if let Some((_, credentials)) = all.entry(&name) {
                alone.insert(&name, credentials.clone());
            }
        }
        Ok(alone)
    }

    /// Have every helper say what it knows, all at once.
    fn ask(&self, questions: BTreeSet<Question>, answers: &mut Answers) {
        let (helpers, untrusted) = (&self.keychain.helpers, self.untrusted.as_slice());
        std::thread::scope(|scope| {
            let asked: Vec<_> = questions
                .into_iter()
                .map(|(helper, registry)| {
                    let question = (helper.clone(), registry.clone());
                    (question, scope.spawn(move || helpers.get(&helper, &registry, untrusted)))
                })
                .collect();
            for (question, thread) in asked {
                let answer =
                    thread.join().unwrap_or_else(|_| Err(HelperError::Answer { name: question.0.clone() }));
                answers.insert(question, answer);
            }
        });
    }

    /// In each source, a helper named for the registry goes before what is in the file, and that before the file's helper
    /// for all others. One that was named for the registry must know; without the other one, a public image can be had.
    fn find<'a>(&'a self, image: &'a Reference, answers: &mut Answers) -> Result<Found<'a>, Error> {
        let registry = image.registry.as_str();
        for source in &self.keychain.sources {
            if let Some(helper) = source.document.helpers.get(registry) {
                let question = (helper.clone(), registry.to_owned());
                match answers.remove(&question) {
                    None => return Ok(Found::Ask(question)),
                    Some(Err(failure)) => {
                        let (registry, place) = (registry.to_owned(), source.place.clone());
                        return Err(CredentialsError::Helper { registry, place, source: failure }.into());
                    }
                    Some(Ok(answer)) => {
                        answers.insert(question, Ok(answer.clone()));
                        if let Some(credentials) = answer {
                            self.tell(registry, &format!("helper {helper}"));
                            return Ok(Found::Credentials { name: registry, credentials });
                        }
                    }
                }
            }
            if let Some((name, credentials)) = source.document.auths.entry(&image.name()) {
                self.tell(registry, &source.place);
                if source.open {
                    let place = &source.place;
                    self.notice(format!(
                        "others may read the credentials in {place}; close it: chmod 600 {place}"
                    ));
                }
                return Ok(Found::Credentials { name, credentials: credentials.clone() });
            }
            if let Some(helper) = &source.document.store {
                let question = (helper.clone(), registry.to_owned());
                match answers.get(&question) {
                    None => return Ok(Found::Ask(question)),
                    Some(Ok(None)) => {}
                    Some(Ok(Some(credentials))) => {
                        self.tell(registry, &format!("helper {helper}"));
                        return Ok(Found::Credentials { name: registry, credentials: credentials.clone() });
                    }
                    Some(Err(failure)) => {
                        let why = coracle_runtime::with_causes(failure);
                        self.notice(format!(
                            "no credentials for {registry} from the credsStore of {}: {why}",
                            source.place
                        ));
                    }
                }
            }
        }
        Ok(Found::Nothing)
    }

    fn tell(&self, registry: &str, from: &str) {
        if self.keychain.tells {
            self.notice(format!("credentials for {registry}: from {from}"));
        }
    }

    /// Once.
    fn notice(&self, text: String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(text.clone()) {
            self.observer.event(Event::Notice { text });
        }
    }
}

#[cfg(test)]
mod tests;
