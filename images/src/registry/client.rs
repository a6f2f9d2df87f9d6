//! Which client speaks to a registry, and what it shows there.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use oci_client::Client;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;

use super::{Registry, RegistryError, identity};
use crate::auth::{Credentials, Secret};
use crate::reference::Reference;

/// What a request needs leave for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Leave {
    Read,
    Write,
}

/// The clients made so far. One shows the same credentials to its registry whatever the repository.
#[derive(Default)]
pub(super) struct Clients {
    made: HashMap<Purpose, Made>,
    /// Identity tokens that token servers gave in place of the user's, by registry.
    renewed: HashMap<String, Secret>,
}

/// What a client was made for.
#[derive(PartialEq, Eq, Hash)]
struct Purpose {
    registry: String,
    /// The entry of the credentials, if there is one.
    entry: Option<String>,
    /// Access that a token server gave is for one repository.
    access: Option<(String, Leave)>,
}

#[derive(Clone)]
struct Made {
    client: Client,
    auth: RegistryAuth,
    until: Option<Instant>,
}

impl Registry {
    /// The client for a request, made when it is first needed.
    pub(super) fn connect(
        &self,
        leave: Leave,
        act: &'static str,
        reference: &Reference,
    ) -> Result<(Client, RegistryAuth), RegistryError> {
        let entry = self.options.auth.entry(&reference.name());
        let credentials = entry.map(|(_, credentials)| credentials);
        let is_exchanged = matches!(credentials, Some(Credentials::Identity(_) | Credentials::Basic { .. }));
        let purpose = Purpose {
            registry: reference.registry.clone(),
            entry: entry.map(|(name, _)| name.to_owned()),
            access: is_exchanged.then(|| (reference.repository.clone(), leave)),
        };
        // Held while a token is exchanged: others would ask for the same one.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let known = clients.made.get(&purpose);
        if let Some(made) = known.filter(|made| made.until.is_none_or(|until| Instant::now() < until)) {
            return Ok((made.client.clone(), made.auth.clone()));
        }
        let exchange = |secret: identity::Secret<'_>| {
            self.runtime.block_on(self.exchange(reference, leave, secret)).map_err(|source| {
                RegistryError::Identity { act, reference: reference.to_string(), source: Box::new(source) }
            })
        };
        let (auth, until) = match credentials {
            None | Some(Credentials::Anonymous) => (RegistryAuth::Anonymous, None),
            // The client would show the password to whatever token server the registry names.
            Some(Credentials::Basic { user, password }) => {
                match exchange(identity::Secret::Password { user, password })? {
                    Some(access) => used(access),
                    None => (RegistryAuth::Basic(user.clone(), password.to_string()), None),
                }
            }
            Some(Credentials::Bearer(token)) => (RegistryAuth::Bearer(token.to_string()), None),
            Some(Credentials::Identity(token)) => {
                let token = clients.renewed.get(&reference.registry).unwrap_or(token);
                match exchange(identity::Secret::Identity(token))? {
                    Some(mut access) => {
                        if let Some(renewed) = access.renewed.take() {
                            clients.renewed.insert(reference.registry.clone(), renewed);
                        }
                        used(access)
                    }
                    None => (RegistryAuth::Anonymous, None),
                }
            }
        };
        let client = Client::try_from(self.configuration(reference))
            .map_err(|source| RegistryError::request(act, reference, source))?;
        clients.made.insert(purpose, Made { client: client.clone(), auth: auth.clone(), until });
        Ok((client, auth))
    }

    /// Access to one repository for an identity token or a password.
    async fn exchange(
        &self,
        reference: &Reference,
        leave: Leave,
        secret: identity::Secret<'_>,
    ) -> Result<Option<identity::Access>, identity::IdentityError> {
        let acts = if leave == Leave::Write { "pull,push" } else { "pull" };
        let scope = format!("repository:{}:{acts}", reference.repository);
        let client = self.client_for_secrets(reference)?;
        let plain = self.is_plain(reference);
        identity::exchange(&client, &reference.registry, plain, Some(&scope), secret).await
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
        let failed = |source| identity::IdentityError::Client { source };
        let mut client = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            // What is sent is a secret, and for the one whom it was addressed to.
            .redirect(reqwest::redirect::Policy::none());
        for certificate in self.certificates.iter() {
            client = client.tls_certs_merge([reqwest::Certificate::from_pem(certificate).map_err(failed)?]);
        }
        if reference.is_loopback() {
            client = client.no_proxy();
        }
        client.build().map_err(failed)
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

fn used(access: identity::Access) -> (RegistryAuth, Option<Instant>) {
    (RegistryAuth::Bearer(access.token.to_string()), Some(Instant::now() + access.lasts))
}

const USER_AGENT: &str = concat!("coracle/", env!("CARGO_PKG_VERSION"));

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

const READ_TIMEOUT: Duration = Duration::from_secs(60);

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
