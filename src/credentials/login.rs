//! Logging in, logging out, and what there is (docs/decisions/0019-credentials.md, "Logging in").

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use coracle_images::{AuthFile, Credentials, Reference, Secret, TOKEN_USER, registry_of, with_entry};
use coracle_runtime::{Runtime, Terminator, with_causes};

use super::{CredentialsError, HelperError, Keychain, Source, file};
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::home::Home;
use crate::stage::Stage;
use crate::worker::{self, Remote};

/// A registry's host, with its port if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryName(Reference);

impl FromStr for RegistryName {
    type Err = LoginError;

    fn from_str(text: &str) -> Result<Self, LoginError> {
        // Without one of these it would be a part of an image's name on Docker Hub.
        let is_host = text.contains(['.', ':']) || text == "localhost";
        let parsed = format!("{text}/x").parse::<Reference>().ok();
        let parsed = parsed.filter(|_| is_host && !text.contains('/'));
        parsed.map(Self).ok_or_else(|| LoginError::Registry(text.to_owned()))
    }
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.registry)
    }
}

/// Why nobody was logged in or out.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// No host.
    #[error("`{0}` is no registry; write its host, such as r.example.org or localhost:5000")]
    Registry(String),
    /// No name that goes before a colon.
    #[error(
        "the user name {0:?} cannot be shown to a registry: it is empty, or has a `:` or a control character"
    )]
    User(String),
    /// Nothing to show.
    #[error("the password is empty; nothing was done")]
    NoPassword,
    /// No password.
    #[error("the password has more than {0} bytes, which none has; nothing was done")]
    LongPassword(usize),
    /// The helper that is to keep it does not.
    #[error("could not have the credentials for {registry} kept by the helper that {place} names")]
    Helper {
        /// The registry.
        registry: String,
        /// The file.
        place: String,
        /// Cause.
        #[source]
        source: Box<HelperError>,
    },
}

/// The most bytes of a password or token. A helper is handed it through a pipe that takes as much at once.
const LONGEST: usize = 8 << 10;

/// Who logs in where.
pub struct LoginRequest {
    /// The registry.
    pub registry: RegistryName,
    /// The user's name there.
    pub user: String,
    /// The password, or an access token that the registry takes for one.
    pub password: Secret,
    /// Whether the registry is spoken to in plain HTTP; one on loopback is anyway.
    pub insecure: bool,
    /// Where credentials are looked for.
    pub keychain: Keychain,
    /// The file that keeps those of registries of which none of these knows anything. It need not be there.
    pub file: PathBuf,
}

impl fmt::Debug for LoginRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginRequest").field("registry", &self.registry).finish_non_exhaustive()
    }
}

/// Where credentials are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In a file or variable.
    In(String),
    /// With a helper that a file names.
    By {
        /// The helper's name.
        helper: String,
        /// The file.
        place: String,
    },
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(place) => f.write_str(place),
            Self::By { helper, place } => write!(f, "helper {helper} of {place}"),
        }
    }
}

/// Credentials that there are, without what is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The registry, or a part of one.
    pub registry: String,
    /// The user's name; nothing where there is a token.
    pub user: Option<String>,
    /// Where they are.
    pub kept: Kept,
}

/// Show name and password to the registry, and if they are right, keep them: where the first file is that knows the registry,
/// else in the request's own. `hold` gets the handle with which a signal handler ends the work at once.
///
/// # Errors
/// [`Error`]: the registry refuses, or the file or helper does not keep them. Then nothing was written.
pub fn log_in(
    home: &Home,
    request: &LoginRequest,
    observer: &dyn Observer,
    hold: &dyn Fn(Terminator),
) -> Result<Kept, Error> {
    let LoginRequest { registry, user, password, keychain, .. } = request;
    if user.is_empty() || user.contains(|c: char| c == ':' || c.is_control()) {
        return Err(LoginError::User(user.clone()).into());
    }
    match password.len() {
        0 => return Err(LoginError::NoPassword.into()),
        1..=LONGEST => {}
        _ => return Err(LoginError::LongPassword(LONGEST).into()),
    }
    let credentials = Credentials::Basic { user: user.clone(), password: password.clone() };
    let (target, name) = (keychain.keeper(request, observer)?, registry.to_string());
    let mut auth = AuthFile::default();
    auth.insert(&name, credentials.clone());
    let insecure = if request.insecure { vec![name.clone()] } else { Vec::new() };
    let remote = Remote::with(&registry.0, &insecure, &auth);
    let stage = Stage::start(home, Runtime::Youki, observer, hold)?;
    let asked = stage.work(worker::LogIn { remote });
    let notice = |text| observer.event(Event::Notice { text });
    if !stage.finish_with(asked)? {
        notice(format!("{name} lets everybody in: whether name and password are right is not known"));
    }
    let place = target.file.display().to_string();
    let (entry, kept) = match target.helper {
        None => (credentials, Kept::In(place)),
        Some(helper) => {
            let stored = keychain.helpers.store(&helper, &name, user, password);
            stored.map_err(|source| LoginError::Helper {
                registry: name.clone(),
                place: place.clone(),
                source: Box::new(source),
            })?;
            // As Docker leaves it there: nothing secret, but a mark that there is something.
            (Credentials::Anonymous, Kept::By { helper, place })
        }
    };
    closed(&target.file, &name, Some(&entry), observer)?;
    Ok(kept)
}

/// Forget what there is for a registry (or a part of one, as [`logins`] names it), or everything: in all files, and with
/// their helpers. What cannot be taken away is told. The answer is what was forgotten, and where.
///
/// # Errors
/// [`Error`] where a file cannot be written. What was forgotten before it is forgotten.
pub fn log_out(
    keychain: &Keychain,
    registry: Option<&str>,
    observer: &dyn Observer,
) -> Result<Vec<(String, Kept)>, Error> {
    let notice = |text| observer.event(Event::Notice { text });
    let wanted = registry.map(registry_of);
    let fits = |name: &String| wanted.as_ref().is_none_or(|wanted| wanted == name);
    let mut gone = Vec::new();
    for source in &keychain.sources {
        let Some(path) = &source.file else {
            for name in source.document.auths.names().filter(|name| fits(&(*name).to_owned())) {
                notice(format!("{} still has credentials for {name}: take them out of it", source.place));
            }
            continue;
        };
        let place = source.place.clone();
        for (name, (helper, _)) in keychain.of_helpers(source, wanted.as_deref(), observer) {
            match keychain.helpers.erase(&helper, &name) {
                Ok(()) => gone.push((name, Kept::By { helper, place: place.clone() })),
                Err(error) => notice(format!(
                    "helper {helper} of {place} still has credentials for {name}: {}",
                    with_causes(&error)
                )),
            }
        }
        for name in source.document.names.iter().filter(|name| fits(name)) {
            closed(path, name, None, observer)?;
            if source.document.auths.names().any(|known| known == name) {
                gone.push((name.clone(), Kept::In(place.clone())));
            }
        }
    }
    Ok(gone)
}

/// What there is, in the order in which it is looked for: of two for one registry, the first counts. A helper that does not
/// answer is told.
#[must_use]
pub fn logins(keychain: &Keychain, observer: &dyn Observer) -> Vec<Login> {
    let mut found = Vec::new();
    for source in &keychain.sources {
        let place = &source.place;
        for (registry, (helper, user)) in keychain.of_helpers(source, None, observer) {
            found.push(Login { registry, user, kept: Kept::By { helper, place: place.clone() } });
        }
        found.extend(source.document.auths.names().map(|name| Login {
            registry: name.to_owned(),
            user: match source.document.auths.lookup(name) {
                Credentials::Basic { user, .. } => Some(user),
                _ => None,
            },
            kept: Kept::In(place.clone()),
        }));
    }
    found
}

/// Change the entry of a registry; whoever could read the file no longer can.
fn closed(
    path: &Path,
    name: &str,
    entry: Option<&Credentials>,
    observer: &dyn Observer,
) -> Result<(), CredentialsError> {
    if let Some(mode) = file::change(path, |text| with_entry(text, name, entry))? {
        let place = path.display();
        let text = format!(
            "others could read the credentials in {place} (mode {mode:o}); it is closed now (mode 600)"
        );
        observer.event(Event::Notice { text });
    }
    Ok(())
}

/// What keeps a registry's credentials.
struct Keeper {
    file: PathBuf,
    helper: Option<String>,
}

impl Keychain {
    /// The first file that knows the registry, itself or through a helper, and so goes before those after it; else the
    /// request's own.
    fn keeper(&self, request: &LoginRequest, observer: &dyn Observer) -> Result<Keeper, Error> {
        let registry = request.registry.to_string();
        for source in &self.sources {
            let document = &source.document;
            let Some(path) = &source.file else {
                if document.auths.names().any(|name| name == registry) {
                    let text =
                        format!("credentials for {registry} in {} go before those to be kept", source.place);
                    observer.event(Event::Notice { text });
                }
                continue;
            };
            let by_store = || {
                let store = document.store.as_ref();
                store.is_some_and(|store| matches!(self.helpers.get(store, &registry, &[]), Ok(Some(_))))
            };
            let is_known = document.names.contains(&registry) || document.helpers.contains_key(&registry);
            if *path == request.file || is_known || by_store() {
                let helper = document.helpers.get(&registry).or(document.store.as_ref()).cloned();
                return Ok(Keeper { file: path.clone(), helper });
            }
        }
        Ok(Keeper { file: request.file.clone(), helper: None })
    }

    /// The registries that a file's helpers know credentials for, with the helper's and the user's name: all, or `wanted`.
    fn of_helpers(&self, source: &Source, wanted: Option<&str>, observer: &dyn Observer) -> OfHelpers {
        let fits = |name: &str| wanted.is_none_or(|wanted| wanted == name);
        let failed = |helper: &str, error: HelperError| {
            let text = format!("helper {helper} of {} says nothing: {}", source.place, with_causes(&error));
            observer.event(Event::Notice { text });
        };
        let mut found = OfHelpers::new();
        if let Some(store) = &source.document.store {
            let users = self.helpers.list(store).unwrap_or_else(|error| {
                failed(store, error);
                BTreeMap::new()
            });
            let users = users.into_iter().map(|(name, user)| (registry_of(&name), user));
            let user = |user: String| Some(user).filter(|user| user != TOKEN_USER);
            found.extend(
                users.filter(|(name, _)| fits(name)).map(|(name, it)| (name, (store.clone(), user(it)))),
            );
        }
        for (name, helper) in source.document.helpers.iter().filter(|(name, _)| fits(name)) {
            let user = match self.helpers.get(helper, name, &[]) {
                Ok(None) => continue,
                Ok(Some(Credentials::Basic { user, .. })) => Some(user),
                Ok(Some(_)) => None,
                Err(error) => {
                    failed(helper, error);
                    continue;
                }
            };
            found.insert(name.clone(), (helper.clone(), user));
        }
        found
    }
}

/// By registry, the helper's name, and the user's unless it is a token.
type OfHelpers = BTreeMap<String, (String, Option<String>)>;
