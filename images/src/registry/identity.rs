//! Identity tokens and passwords: the registry's token server makes an access token of one ([Token Authentication: OAuth2],
//! [Token Authentication]).
//!
//! A registry says itself where its token server is. One that was broken into could say anything, so the secret goes only
//! to a server that belongs to the registry ([`belongs`]), never follows a redirection, and is in no error.
//!
//! [Token Authentication: OAuth2]: https://distribution.github.io/distribution/spec/auth/oauth/
//! [Token Authentication]: https://distribution.github.io/distribution/spec/auth/token/

use std::time::Duration;

use http_auth::ChallengeParser;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;

use super::owner::{belongs, may_be_asked};
use super::{PAUSES, error, near};

/// As long as an access token lasts that does not say so, by the specification.
const LASTS: u64 = 60;

/// An access token is asked for again after this time, whatever its server says: some say what no clock can hold.
const LASTS_AT_MOST: u64 = 24 * 60 * 60;

/// No token server says more.
const ANSWER_LIMIT: usize = 1 << 20;

/// What a token server is shown.
#[derive(Clone, Copy)]
pub(super) enum Secret<'a> {
    /// Whoever asks gets what everybody gets.
    Nothing,
    Identity(&'a str),
    Password {
        user: &'a str,
        password: &'a str,
    },
}

impl Secret<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "request for access",
            Self::Identity(_) => "identity token",
            Self::Password { .. } => "password",
        }
    }

    /// What else may be tried.
    fn instead(self) -> &'static str {
        match self {
            Self::Nothing => "an access token (`registrytoken`) is shown to the registry alone",
            Self::Identity(_) => "log in with a password",
            Self::Password { .. } => "an access token (`registrytoken`) is shown to the registry alone",
        }
    }
}

/// Access to one repository, or to none where none was named.
pub(super) struct Access {
    pub(super) token: crate::auth::Secret,
    pub(super) lasts: Duration,
    /// To be shown the next time.
    pub(super) renewed: Option<crate::auth::Secret>,
}

/// Why an identity token or a password gives no access. No message holds one.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No client.
    #[error("cannot prepare to ask for access")]
    Client {
        /// Cause.
        #[source]
        source: reqwest::Error,
    },
    /// The registry or its token server does not answer.
    #[error("{server} does not answer when asked for access{advice}")]
    Ask {
        /// Who was asked.
        server: String,
        /// What to do, if that is known.
        advice: String,
        /// Cause.
        #[source]
        source: reqwest::Error,
    },
    /// The registry has no token server.
    #[error(
        "{registry} names no token server, so an identity token is of no use there; log in with a password"
    )]
    NoServer {
        /// The registry.
        registry: String,
    },
    /// The token server is none of the registry's.
    #[error("{registry} names the token server {server}, and {why}: the {secret} was not sent; {instead}")]
    Stranger {
        /// What it is.
        secret: &'static str,
        /// What else may be tried.
        instead: &'static str,
        /// The registry.
        registry: String,
        /// What it named.
        server: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The token server refuses.
    #[error("the token server {server} refuses the {secret} ({status}); log in again")]
    Refused {
        /// What it is.
        secret: &'static str,
        /// The token server.
        server: String,
        /// Its answer.
        status: StatusCode,
    },
    /// The token server does something else.
    #[error("the token server {server} gives no access for the {secret} ({status}); {instead}")]
    Unable {
        /// What it is.
        secret: &'static str,
        /// What else may be tried.
        instead: &'static str,
        /// The token server.
        server: String,
        /// Its answer.
        status: StatusCode,
    },
    /// The registry refuses.
    #[error("{registry} refuses the name or the password ({status})")]
    Wrong {
        /// The registry.
        registry: String,
        /// Its answer.
        status: StatusCode,
    },
    /// The registry does something else.
    #[error("{registry} answers {status} when asked who may come in; is it a registry?")]
    NoRegistry {
        /// The registry.
        registry: String,
        /// Its answer.
        status: StatusCode,
    },
    /// The answer has no access token.
    #[error("the token server {server} answers without an access token")]
    Answer {
        /// The token server.
        server: String,
    },
}

impl IdentityError {
    /// Whether another token might be taken.
    pub(super) fn is_denied(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Wrong { .. })
    }

    /// Whether the registry or its token server does what none does that means well.
    pub(super) fn is_of_a_stranger(&self) -> bool {
        matches!(self, Self::Stranger { .. } | Self::Answer { .. })
    }
}

#[derive(Deserialize)]
pub(super) struct Answer {
    #[serde(alias = "token")]
    pub(super) access_token: crate::auth::Secret,
    expires_in: Option<u64>,
    refresh_token: Option<crate::auth::Secret>,
}

/// Where every registry answers (OCI distribution specification, "Determining Support").
fn door(registry: &str, plain: bool) -> String {
    format!("{}://{registry}/v2/", if plain { "http" } else { "https" })
}

/// Shows a name and a password where the registry wants to see them. Whether it does: one that lets everybody in is shown
/// nothing, for it cannot tell who is right.
pub(super) async fn log_in(
    client: &Client,
    registry: &str,
    plain: bool,
    user: &str,
    password: &str,
) -> Result<bool, IdentityError> {
    let challenge = greet(client, registry, plain).await?;
    let secret = Secret::Password { user, password };
    if exchange(client, registry, plain, challenge, None, secret).await?.is_some() {
        return Ok(true);
    }
    let door = door(registry, plain);
    let status = answer(registry, || client.get(&door)).await?.status();
    match status {
        StatusCode::UNAUTHORIZED => {}
        status if status.is_success() => return Ok(false),
        status => return Err(IdentityError::NoRegistry { registry: registry.to_owned(), status }),
    }
    let shown = answer(registry, || client.get(&door).basic_auth(user, Some(password))).await?;
    match shown.status() {
        status if status.is_success() => Ok(true),
        status => Err(IdentityError::Wrong { registry: registry.to_owned(), status }),
    }
}

/// Where a registry's token server is, and what that calls the registry.
pub(super) type Challenge = (String, Option<String>);

/// What an answer says of it.
pub(super) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let challenges = headers.get_all(WWW_AUTHENTICATE);
    challenges.iter().filter_map(|value| value.to_str().ok()).find_map(realm_and_service)
}

/// Asks a registry for its token server, if it has one.
pub(super) async fn greet(
    client: &Client,
    registry: &str,
    plain: bool,
) -> Result<Option<Challenge>, IdentityError> {
    let greeting = answer(registry, || client.get(door(registry, plain))).await?;
    Ok(challenge(greeting.headers()))
}

/// Asks the token server of a registry for access of this scope. A registry without one takes a password itself: nothing.
pub(super) async fn exchange(
    client: &Client,
    registry: &str,
    plain: bool,
    challenge: Option<Challenge>,
    scope: Option<&str>,
    secret: Secret<'_>,
) -> Result<Option<Access>, IdentityError> {
    let Some((realm, service)) = challenge else {
        return match secret {
            Secret::Nothing | Secret::Password { .. } => Ok(None),
            Secret::Identity(_) => Err(IdentityError::NoServer { registry: registry.to_owned() }),
        };
    };
    let realm = Url::parse(&realm).ok().filter(Url::has_host);
    let realm = realm.ok_or_else(|| IdentityError::NoServer { registry: registry.to_owned() })?;
    let server = shown(&realm);
    let is_asked = match secret {
        Secret::Nothing => may_be_asked(&realm, registry, plain),
        Secret::Identity(_) | Secret::Password { .. } => belongs(&realm, registry, plain),
    };
    let stranger = |why| {
        let (registry, server) = (registry.to_owned(), server.clone());
        IdentityError::Stranger { secret: secret.name(), instead: secret.instead(), registry, server, why }
    };
    is_asked.map_err(stranger)?;
    let mut asked: Vec<(&str, &str)> = scope.map(|scope| ("scope", scope)).into_iter().collect();
    asked.extend(service.as_deref().map(|service| ("service", service)));
    let given = match secret {
        Secret::Identity(token) => {
            let grant = [("grant_type", "refresh_token"), ("client_id", "coracle"), ("refresh_token", token)];
            let form: Vec<_> = grant.into_iter().chain(asked).collect();
            answer(&server, || client.post(realm.clone()).form(&form)).await
        }
        Secret::Nothing => {
            let mut place = realm.clone();
            place.query_pairs_mut().extend_pairs(asked);
            answer(&server, || client.get(place.clone())).await
        }
        Secret::Password { user, password } => {
            let mut place = realm.clone();
            place.query_pairs_mut().extend_pairs(asked);
            answer(&server, || client.get(place.clone()).basic_auth(user, Some(password))).await
        }
    };
    let mut given = given.map_err(|error| match &error {
        IdentityError::Ask { source, .. } => match near::refused(source) {
            Some(near) => stranger(near.why()),
            None => error,
        },
        _ => error,
    })?;
    let (name, instead) = (secret.name(), secret.instead());
    match given.status() {
        StatusCode::OK => {}
        status @ (StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            return Err(IdentityError::Refused { secret: name, server, status });
        }
        status => return Err(IdentityError::Unable { secret: name, instead, server, status }),
    }
    let mut text = Vec::new();
    while let Some(part) = given.chunk().await.map_err(|source| unanswered(&server, source))? {
        text.extend_from_slice(&part);
        if text.len() > ANSWER_LIMIT {
            return Err(IdentityError::Answer { server });
        }
    }
    let Ok(Answer { access_token, expires_in, refresh_token }) = serde_json::from_slice(&text) else {
        return Err(IdentityError::Answer { server });
    };
    // What cannot stand in a header.
    if access_token.is_empty() || !access_token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(IdentityError::Answer { server });
    }
    // A tenth earlier than it ends: requests under way are answered before.
    let lasts = Duration::from_secs(expires_in.unwrap_or(LASTS).min(LASTS_AT_MOST)).mul_f64(0.9);
    Ok(Some(Access { token: access_token, lasts, renewed: refresh_token.filter(|token| !token.is_empty()) }))
}

/// One request, again after a pause if the failure may pass.
async fn answer(
    server: &str,
    request: impl Fn() -> reqwest::RequestBuilder,
) -> Result<reqwest::Response, IdentityError> {
    let mut pauses = PAUSES.iter();
    loop {
        let pause = pauses.next();
        match request().send().await {
            Ok(answer) if answer.status().is_server_error() && pause.is_some() => {}
            Ok(answer) => return Ok(answer),
            Err(source)
                if pause.is_none()
                    || error::tls_failure(&source).is_some()
                    || near::refused(&source).is_some() =>
            {
                return Err(unanswered(server, source));
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(pause.copied().unwrap_or_default())).await;
    }
}

fn unanswered(server: &str, source: reqwest::Error) -> IdentityError {
    let advice = error::tls_advice(&source, server);
    let advice = advice.map(|advice| format!(": {advice}")).unwrap_or_default();
    IdentityError::Ask { server: server.to_owned(), advice, source: source.without_url() }
}

pub(super) fn realm_and_service(header: &str) -> Option<Challenge> {
    let challenges = ChallengeParser::new(header).flatten();
    let bearer = challenges.into_iter().find(|challenge| challenge.scheme.eq_ignore_ascii_case("Bearer"))?;
    let value = |name: &str| {
        let found = bearer.params.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_unescaped())
    };
    Some((value("realm")?, value("service")))
}

/// Without what may be secret, or long.
fn shown(realm: &Url) -> String {
    realm.origin().ascii_serialization()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let found = |header| realm_and_service(header);
        let both = Some(("https://a/t".to_owned(), Some("s".to_owned())));
        assert_eq!(found(r#"bearer Realm="https://a/t",service="s",scope="x""#), both);
        assert_eq!(found(r#"Basic realm="x", Bearer realm="https://a/t",service="s""#), both);
        assert_eq!(found(r#"Basic realm="x""#), None);
        assert_eq!(found(r#"Bearer service="s""#), None);
    }

    #[test]
    fn a_server_is_shown_without_what_may_be_secret() {
        let realm = Url::parse("https://user:secret@example.org:1/token?secret=1").unwrap();
        assert_eq!(shown(&realm), "https://example.org:1");
    }
}
