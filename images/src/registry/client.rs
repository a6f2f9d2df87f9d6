//! Which client speaks to a registry, and what it shows there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use oci_client::secrets::RegistryAuth;

use super::identity::Challenge;
use super::near::{Apart, Lead, Named};
use super::owner::redirections;
use super::read::Repository;
use super::{Registry, RegistryError, identity};
use crate::auth::{Credentials, Secret};
use crate::reference::Reference;

/// What a request needs leave for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Leave {
    Read,
    Write,
}

/// The clients made so far.
#[derive(Default)]
pub(super) struct Clients {
    /// They show what each request gives them.
    speaking: HashMap<(String, Leave), reqwest::Client>,
    /// One that asks for access follows no redirection.
    asking: HashMap<String, reqwest::Client>,
    /// Where each registry was found, which is one thing for all of its clients.
    found: HashMap<String, Arc<Named>>,
    admissions: HashMap<Purpose, Admission>,
    /// Identity tokens that token servers gave in place of the user's, by registry.
    renewed: HashMap<String, Secret>,
}

/// What registries have said of their token servers, with access or without: each is asked once.
#[derive(Clone, Default)]
pub(super) struct Greetings(Arc<Mutex<HashMap<String, Option<Challenge>>>>);

impl Greetings {
    pub(super) fn of(&self, registry: &str) -> Option<Option<Challenge>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(registry).cloned()
    }

    /// What a registry says first is what counts.
    pub(super) fn hear(&self, registry: &str, challenge: Option<Challenge>) {
        let mut greetings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        greetings.entry(registry.to_owned()).or_insert(challenge);
    }
}

impl Clients {
    fn found(&mut self, reference: &Reference) -> Arc<Named> {
        let registry = &reference.registry;
        Arc::clone(self.found.entry(registry.clone()).or_insert_with(|| Named::new(registry)))
    }
}

/// What access is for.
#[derive(PartialEq, Eq, Hash)]
struct Purpose {
    registry: String,
    /// The entry of the credentials, if there is one.
    entry: Option<String>,
    /// Access that a token server gave is for one repository.
    access: Option<(String, Leave)>,
}

/// What is shown to a registry.
struct Admission {
    auth: RegistryAuth,
    until: Option<Instant>,
}

impl Registry {
    /// A repository, for a request that reads or writes.
    pub(super) fn connect(
        &self,
        leave: Leave,
        act: &'static str,
        reference: &Reference,
    ) -> Result<Repository, RegistryError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let auth = self.admission(&mut clients, leave, act, reference)?.auth.clone();
        let client = self
            .client_for(leave, &mut clients, reference)
            .map_err(|source| RegistryError::request(act, reference, source.into()))?;
        let scheme = if self.is_plain(reference) { "http" } else { "https" };
        let registry = reference.registry.clone();
        let url = format!("{scheme}://{registry}/v2/{}", reference.repository);
        Ok(Repository { client, registry, url, auth, greetings: self.greetings.clone() })
    }

    /// The client that asks a registry for what it has, or sends it something, made when it is first needed.
    fn client_for(
        &self,
        leave: Leave,
        clients: &mut Clients,
        reference: &Reference,
    ) -> Result<reqwest::Client, reqwest::Error> {
        let key = (reference.registry.clone(), leave);
        if let Some(client) = clients.speaking.get(&key) {
            return Ok(client.clone());
        }
        let found = clients.found(reference);
        let client = self.client(reference, &found, Lead::Content, redirections(&reference.registry));
        let client = match leave {
            Leave::Read => client?.read_timeout(READ_TIMEOUT),
            // It would be the time of a whole upload: see `write.rs`.
            Leave::Write => client?,
        };
        let client = client.build()?;
        clients.speaking.insert(key, client.clone());
        Ok(client)
    }

    /// The client that asks for access, made when it is first needed.
    fn asking(
        &self,
        clients: &mut Clients,
        reference: &Reference,
    ) -> Result<reqwest::Client, identity::IdentityError> {
        if let Some(client) = clients.asking.get(&reference.registry) {
            return Ok(client.clone());
        }
        let client = self.client_for_secrets(reference, &clients.found(reference))?;
        clients.asking.insert(reference.registry.clone(), client.clone());
        Ok(client)
    }

    /// What is shown for a request, asked for when it is first needed. Others wait meanwhile: they would ask for the same.
    fn admission<'c>(
        &self,
        clients: &'c mut Clients,
        leave: Leave,
        act: &'static str,
        reference: &Reference,
    ) -> Result<&'c Admission, RegistryError> {
        let entry = self.options.auth.entry(&reference.name());
        let credentials = entry.map(|(_, credentials)| credentials);
        let is_exchanged = !matches!(credentials, Some(Credentials::Bearer(_)));
        let purpose = Purpose {
            registry: reference.registry.clone(),
            entry: entry.map(|(name, _)| name.to_owned()),
            access: is_exchanged.then(|| (reference.repository.clone(), leave)),
        };
        let is_over = |admission: &Admission| admission.until.is_some_and(|until| until <= Instant::now());
        if clients.admissions.get(&purpose).is_none_or(is_over) {
            let (auth, until) = self.admit(clients, credentials, leave, reference).map_err(|source| {
                RegistryError::Identity { act, reference: reference.to_string(), source: Box::new(source) }
            })?;
            clients.admissions.remove(&purpose);
            return Ok(clients.admissions.entry(purpose).or_insert(Admission { auth, until }));
        }
        let none = || Admission { auth: RegistryAuth::Anonymous, until: None };
        Ok(clients.admissions.entry(purpose).or_insert_with(none))
    }

    fn admit(
        &self,
        clients: &mut Clients,
        credentials: Option<&Credentials>,
        leave: Leave,
        reference: &Reference,
    ) -> Result<(RegistryAuth, Option<Instant>), identity::IdentityError> {
        let acts = if leave == Leave::Write { "pull,push" } else { "pull" };
        let scope = format!("repository:{}:{acts}", reference.repository);
        let (registry, plain) = (&reference.registry, self.is_plain(reference));
        let exchange = |client: reqwest::Client, secret: identity::Secret<'_>| {
            self.runtime.block_on(async {
                let challenge = match self.greetings.of(registry) {
                    Some(challenge) => challenge,
                    None => identity::greet(&client, registry, plain).await?,
                };
                self.greetings.hear(registry, challenge.clone());
                identity::exchange(&client, registry, plain, challenge, Some(&scope), secret).await
            })
        };
        let asking = |clients: &mut Clients| self.asking(clients, reference);
        let access = match credentials {
            Some(Credentials::Bearer(token)) => return Ok((RegistryAuth::Bearer(token.to_string()), None)),
            // Who has nothing to show asks for what it wants, and learns from the refusal where access is to be had.
            None | Some(Credentials::Anonymous) if self.greetings.of(registry).is_none() => {
                return Ok((RegistryAuth::Anonymous, Some(Instant::now())));
            }
            None | Some(Credentials::Anonymous) => {
                match exchange(asking(clients)?, identity::Secret::Nothing) {
                    Err(error) if error.is_of_a_stranger() => return Err(error),
                    // Without access the registry itself says what is wrong; the next time it is asked for again.
                    Err(_) => return Ok((RegistryAuth::Anonymous, Some(Instant::now()))),
                    Ok(access) => access,
                }
            }
            // A client of registries would show the password to whatever token server the registry names.
            Some(Credentials::Basic { user, password }) => {
                match exchange(asking(clients)?, identity::Secret::Password { user, password })? {
                    None => return Ok((RegistryAuth::Basic(user.clone(), password.to_string()), None)),
                    access => access,
                }
            }
            Some(Credentials::Identity(token)) => {
                let client = asking(clients)?;
                let token = clients.renewed.get(&reference.registry).unwrap_or(token);
                let mut access = exchange(client, identity::Secret::Identity(token))?;
                if let Some(token) = access.as_mut().and_then(|access| access.renewed.take()) {
                    clients.renewed.insert(reference.registry.clone(), token);
                }
                access
            }
        };
        Ok(access.map_or((RegistryAuth::Anonymous, None), |access| {
            (RegistryAuth::Bearer(access.token.to_string()), Some(Instant::now() + access.lasts))
        }))
    }

    /// Whether the registry of this reference takes the name and the password that there are for it: see
    /// [`Registry::log_in`].
    pub(super) async fn show_password(&self, reference: &Reference) -> Result<bool, identity::IdentityError> {
        let Credentials::Basic { user, password } = self.options.auth.lookup(&reference.name()) else {
            return Ok(false);
        };
        let client = self.client_for_secrets(reference, &Named::new(&reference.registry))?;
        identity::log_in(&client, &reference.registry, self.is_plain(reference), &user, &password).await
    }

    /// A client that sends what it is given to whom it was addressed.
    fn client_for_secrets(
        &self,
        reference: &Reference,
        found: &Arc<Named>,
    ) -> Result<reqwest::Client, identity::IdentityError> {
        let client = self.client(reference, found, Lead::Access, reqwest::redirect::Policy::none());
        client
            .and_then(|client| client.read_timeout(READ_TIMEOUT).build())
            .map_err(|source| identity::IdentityError::Client { source })
    }

    fn client(
        &self,
        reference: &Reference,
        found: &Arc<Named>,
        lead: Lead,
        redirections: reqwest::redirect::Policy,
    ) -> Result<reqwest::ClientBuilder, reqwest::Error> {
        let mut client = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .dns_resolver(Apart::new(found, lead))
            .redirect(redirections);
        for certificate in self.certificates.iter() {
            client = client.tls_certs_merge([reqwest::Certificate::from_pem(certificate)?]);
        }
        if reference.is_loopback() {
            client = client.no_proxy();
        }
        Ok(client)
    }

    fn is_plain(&self, reference: &Reference) -> bool {
        reference.is_loopback() || self.options.insecure.contains(&reference.registry)
    }
}

const USER_AGENT: &str = concat!("coracle/", env!("CARGO_PKG_VERSION"));

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// What stands for an image in its repository: its digest, or its tag.
pub(super) fn named(reference: &Reference) -> String {
    match (&reference.digest, &reference.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.clone(),
        (None, None) => "latest".to_owned(),
    }
}

/// The client takes one certificate at a time.
pub(super) fn split_certificates(text: &str) -> Vec<Vec<u8>> {
    const END: &str = "-----END CERTIFICATE-----";
    text.split_inclusive(END)
        .filter_map(|part| part.find("-----BEGIN CERTIFICATE-----").map(|start| &part[start..]))
        .filter(|part| part.ends_with(END))
        .map(|part| format!("{part}\n").into_bytes())
        .collect()
}
