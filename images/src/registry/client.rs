//! Which client speaks to a registry, and what it shows there.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use oci_client::Client;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::token_cache::{RegistryOperation, RegistryTokenType};

use super::owner::redirections;
use super::read::Reading;
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
    /// One that reads shows what each request gives it.
    reading: HashMap<String, reqwest::Client>,
    /// One that asks for access follows no redirection.
    asking: HashMap<String, reqwest::Client>,
    admissions: HashMap<Purpose, Admission>,
    /// Identity tokens that token servers gave in place of the user's, by registry.
    renewed: HashMap<String, Secret>,
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
    /// One that writes shows its registry the same, whatever the repository.
    writing: Option<Client>,
}

impl Registry {
    /// Access to a repository, for a request that reads.
    pub(super) fn connect_to_read(
        &self,
        act: &'static str,
        reference: &Reference,
    ) -> Result<Reading, RegistryError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let auth = self.admission(&mut clients, Leave::Read, act, reference)?.auth.clone();
        let client = self
            .reading(&mut clients, reference)
            .map_err(|source| RegistryError::request(act, reference, source.into()))?;
        let scheme = if self.is_plain(reference) { "http" } else { "https" };
        let url = format!("{scheme}://{}/v2/{}", reference.registry, reference.repository);
        Ok(Reading { client, url, auth })
    }

    /// The client that asks a registry for what it has, made when it is first needed.
    fn reading(
        &self,
        clients: &mut Clients,
        reference: &Reference,
    ) -> Result<reqwest::Client, reqwest::Error> {
        if let Some(client) = clients.reading.get(&reference.registry) {
            return Ok(client.clone());
        }
        let client = self.client(reference, redirections(&reference.registry))?;
        clients.reading.insert(reference.registry.clone(), client.clone());
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
        let client = self.client_for_secrets(reference)?;
        clients.asking.insert(reference.registry.clone(), client.clone());
        Ok(client)
    }

    /// The client for a request that writes, made when it is first needed.
    pub(super) fn connect_to_write(
        &self,
        act: &'static str,
        reference: &Reference,
    ) -> Result<(Client, RegistryAuth), RegistryError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let admission = self.admission(&mut clients, Leave::Write, act, reference)?;
        let client = match &admission.writing {
            Some(client) => client.clone(),
            None => Client::try_from(self.configuration(reference))
                .map_err(|source| RegistryError::request(act, reference, source))?,
        };
        admission.writing = Some(client.clone());
        Ok((client, admission.auth.clone()))
    }

    /// What is shown for a request, asked for when it is first needed. Others wait meanwhile: they would ask for the same.
    fn admission<'c>(
        &self,
        clients: &'c mut Clients,
        leave: Leave,
        act: &'static str,
        reference: &Reference,
    ) -> Result<&'c mut Admission, RegistryError> {
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
            return Ok(clients.admissions.entry(purpose).or_insert(Admission { auth, until, writing: None }));
        }
        let none = || Admission { auth: RegistryAuth::Anonymous, until: None, writing: None };
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
            self.runtime.block_on(identity::exchange(&client, registry, plain, Some(&scope), secret))
        };
        let asking = |clients: &mut Clients| self.asking(clients, reference);
        let access = match credentials {
            Some(Credentials::Bearer(token)) => return Ok((RegistryAuth::Bearer(token.to_string()), None)),
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
        let client = self.client_for_secrets(reference)?;
        identity::log_in(&client, &reference.registry, self.is_plain(reference), &user, &password).await
    }

    /// A client that sends what it is given to whom it was addressed.
    fn client_for_secrets(&self, reference: &Reference) -> Result<reqwest::Client, identity::IdentityError> {
        self.client(reference, reqwest::redirect::Policy::none())
            .map_err(|source| identity::IdentityError::Client { source })
    }

    fn client(
        &self,
        reference: &Reference,
        redirections: reqwest::redirect::Policy,
    ) -> Result<reqwest::Client, reqwest::Error> {
        let mut client = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(redirections);
        for certificate in self.certificates.iter() {
            client = client.tls_certs_merge([reqwest::Certificate::from_pem(certificate)?]);
        }
        if reference.is_loopback() {
            client = client.no_proxy();
        }
        client.build()
    }

    fn is_plain(&self, reference: &Reference) -> bool {
        reference.is_loopback() || self.options.insecure.contains(&reference.registry)
    }

    fn configuration(&self, reference: &Reference) -> ClientConfig {
        let certificate =
            |data: &Vec<u8>| Certificate { encoding: CertificateEncoding::Pem, data: data.clone() };
        let plain = self.is_plain(reference);
        let mut config = ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            use_monolithic_push: true,
            extra_root_certificates: self.certificates.iter().map(certificate).collect(),
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: USER_AGENT,
            ..ClientConfig::default()
        };
        if reference.is_loopback() {
            // A proxy set here, and not used for this machine's own ports, keeps the environment's away from them.
            config.http_proxy = Some("http://127.0.0.1:9".to_owned());
            config.no_proxy = Some("localhost,127.0.0.0/8,::1".to_owned());
        }
        config
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

/// Has a client that writes show this and ask for nothing itself: it would take the registry's word on where to, with the password.
pub(super) async fn show(client: &Client, name: &oci_client::Reference, auth: &RegistryAuth) {
    match auth {
        // Told nothing, it shows nothing.
        RegistryAuth::Anonymous => return,
        // As if a token server had said so.
        RegistryAuth::Basic(user, password) => {
            for operation in [RegistryOperation::Pull, RegistryOperation::Push] {
                let shown = RegistryTokenType::Basic(user.clone(), password.clone());
                client.tokens.insert(name, operation, shown).await;
            }
        }
        RegistryAuth::Bearer(_) => {}
    }
    client.store_auth_if_needed(name.resolve_registry(), auth).await;
}

/// The name as the client has it.
pub(super) fn name(reference: &Reference) -> oci_client::Reference {
    let (registry, repository) = (reference.registry.clone(), reference.repository.clone());
    match (&reference.digest, &reference.tag) {
        (Some(digest), _) => oci_client::Reference::with_digest(registry, repository, digest.to_string()),
        (None, tag) => {
            let tag = tag.clone().unwrap_or_else(|| "latest".to_owned());
            oci_client::Reference::with_tag(registry, repository, tag)
        }
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
