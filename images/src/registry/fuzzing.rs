//! What a registry and its token server say, read without asking one: for fuzz targets.

use reqwest::Url;

use super::identity::{Answer, realm_and_service};
use super::owner::belongs;

/// Whether an identity token would go to the server that this `WWW-Authenticate` names, and which that is.
#[must_use]
pub fn token_server(header: &str, registry: &str, plain: bool) -> Option<Url> {
    let (realm, _) = realm_and_service(header)?;
    let realm = Url::parse(&realm).ok().filter(Url::has_host)?;
    belongs(&realm, registry, plain).is_ok().then_some(realm)
}

/// The access token in a token server's answer.
#[must_use]
pub fn access_token(answer: &[u8]) -> Option<crate::auth::Secret> {
    serde_json::from_slice(answer).ok().map(|Answer { access_token, .. }| access_token)
}
