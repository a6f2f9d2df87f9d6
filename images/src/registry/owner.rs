//! Whether a place that a registry names is one that it may send a client to.

use reqwest::Url;
use reqwest::redirect::Policy;

use super::near::{Lead, Nearness, address, literal, may_lead};

/// Of one request; storage behind registries needs one or two.
const REDIRECTIONS: usize = 10;

/// Token servers of one owner with registries of another domain.
const KNOWN: [(&str, &str); 1] = [("scw.cloud", "api.scaleway.com")];

/// Whether a token server belongs to a registry: the same host, a host of the same domain, and TLS unless the registry
/// itself is spoken to without. A registry behind an address has its token server there.
pub(super) fn belongs(realm: &Url, registry: &str, plain: bool) -> Result<(), &'static str> {
    if realm.scheme() != "https" && !(plain && realm.scheme() == "http") {
        return Err("it is not spoken to in TLS");
    }
    let own = Url::parse(&format!("https://{registry}")).map_err(|_| "the registry has no name")?;
    let (Some(own), Some(host)) = (own.host_str(), realm.host_str()) else {
        return Err("it has no name");
    };
    let is_local =
        |host: &str| host == "localhost" || address(host).is_some_and(|address| address.is_loopback());
    let is_place = |host: &str| literal(host).is_some() || !host.contains('.');
    if own == host || is_local(own) && is_local(host) {
        return Ok(());
    }
    if is_place(own) || is_place(host) {
        return Err("that is another machine");
    }
    let below =
        |domain: &str| host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    if KNOWN.iter().any(|(domain, server)| own.ends_with(&format!(".{domain}")) && host == *server) {
        return Ok(());
    }
    let domain = own.split_once('.').map(|(_, domain)| domain).filter(|domain| is_owned(domain));
    if below(own) || domain.is_some_and(below) { Ok(()) } else { Err("that is another's domain") }
}

/// Token servers for everybody, of registries that others lead to under names of their own.
const PUBLIC: [&str; 4] = ["auth.docker.io", "ghcr.io", "gitlab.com", "quay.io"];

/// Whether a token server may be asked with nothing to show. One of another owner is as unwelcome as with a secret: it may be a
/// service of this network that takes whoever reaches it for a friend, and what it answers would be shown to the registry.
pub(super) fn may_be_asked(realm: &Url, registry: &str, plain: bool) -> Result<(), &'static str> {
    let is_public = || {
        let host = realm.host_str().unwrap_or_default();
        realm.scheme() == "https" && realm.port().is_none() && PUBLIC.contains(&host)
    };
    belongs(realm, registry, plain).or_else(|why| if is_public() { Ok(()) } else { Err(why) })
}

/// Whether a place that a registry redirects to may be asked, by what is written there: not where this machine or its cloud answers
/// questions that are nobody else's, unless the registry is there itself. Where a name leads is seen when it is looked up: `near.rs`.
pub(super) fn is_apart(realm: &Url, registry: &str) -> Result<(), &'static str> {
    let own = Url::parse(&format!("https://{registry}")).map_err(|_| "the registry has no name")?;
    let is = |url: &Url| url.host_str().and_then(literal).unwrap_or(Nearness::Outside);
    let may = may_lead(is(&own), is(realm), Lead::Content);
    if may { Ok(()) } else { Err("that is this machine or its neighbour") }
}

/// Follows what reading leads to, as far as [`is_apart`] lets it.
pub(crate) fn redirections(registry: &str) -> Policy {
    let registry = registry.to_owned();
    Policy::custom(move |attempt| {
        if attempt.previous().len() > REDIRECTIONS {
            return attempt.error("too many redirections");
        }
        match is_apart(attempt.url(), &registry) {
            Ok(()) => attempt.follow(),
            Err(why) => {
                let place = attempt.url().origin().ascii_serialization();
                attempt.error(format!("{registry} redirects to {place}, and {why}: nothing was asked there"))
            }
        }
    })
}

/// Whether a domain has one owner, as far as can be told without a list of all that have not: `org` has none, and names
/// like `co.uk` have none either.
fn is_owned(domain: &str) -> bool {
    match domain.rsplit('.').collect::<Vec<_>>()[..] {
        [] | [_] => false,
        [top, second] => top.len() > 2 || second.len() > 3,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_token_server_it_is() {
        for (registry, realm, plain, expected) in [
            ("index.docker.io", "https://auth.docker.io/token", false, true),
            ("ghcr.io", "https://ghcr.io/token", false, true),
            ("team.azurecr.io", "https://team.azurecr.io/oauth2/token", false, true),
            ("registry.gitlab.com", "https://gitlab.com/jwt/auth", false, true),
            ("registry.example.org:5000", "https://auth.registry.example.org/t", false, true),
            ("rg.fr-par.scw.cloud", "https://api.scaleway.com/registry/tokens", false, true),
            ("rg.fr-par.scw.cloud", "https://evil.scaleway.example/tokens", false, false),
            ("localhost:5000", "http://127.0.0.1:5001/token", true, true),
            ("10.0.0.1:5000", "http://10.0.0.1/token", true, true),
            ("registry.example.org", "http://registry.example.org/token", false, false),
            ("registry.example.org", "https://example.com/token", false, false),
            ("registry.example.org", "https://evilexample.org/token", false, false),
            ("registry.co.uk", "https://evil.co.uk/token", false, false),
            ("example.org", "https://evil.org/token", false, false),
            ("registry.example.org", "https://127.0.0.1/token", false, false),
            ("registry.example.org", "https://localhost/token", false, false),
            ("registry.example.org", "https://[fe80::1]/token", false, false),
            ("registry.example.org", "https://169.254.169.254/token", false, false),
            ("10.0.0.1", "https://10.0.0.2/token", false, false),
            ("10.0.0.1", "https://x.0.0.1.example.org/token", false, false),
            ("localhost:5000", "http://10.0.0.1/token", true, false),
            ("registry.internal", "https://metadata.internal/token", false, false),
        ] {
            let found = belongs(&Url::parse(realm).unwrap(), registry, plain);
            assert_eq!(found.is_ok(), expected, "{registry} {realm}: {found:?}");
        }
    }

    #[test]
    fn who_is_asked_with_nothing_to_show() {
        for (registry, realm, plain, expected) in [
            ("index.docker.io", "https://auth.docker.io/token", false, true),
            ("names.example", "https://ghcr.io/token", false, true),
            ("names.example", "https://ghcr.io:8443/token", false, false),
            ("names.example", "http://ghcr.io/token", true, false),
            ("names.example", "https://ghcr.io.example/token", false, false),
            ("registry.example", "https://intranet.example.org/token", false, false),
            ("registry.example", "https://127.0.0.1/token", false, false),
            ("registry.example", "http://169.254.169.254/latest", true, false),
            ("registry.example", "http://10.0.0.7/token", true, false),
            ("registry.example", "https://auth/token", false, false),
            ("localhost:5000", "http://127.0.0.1:5001/token", true, true),
        ] {
            let found = may_be_asked(&Url::parse(realm).unwrap(), registry, plain);
            assert_eq!(found.is_ok(), expected, "{registry} {realm}: {found:?}");
        }
    }

    #[test]
    fn where_nothing_is_asked() {
        for (place, registry, expected) in [
            ("https://auth.docker.io/token", "index.docker.io", true),
            ("http://10.0.0.7/token", "registry.example", true),
            ("http://auth/token", "registry.example", true),
            ("http://127.0.0.1:9/token", "localhost:5000", true),
            ("http://127.0.0.1/token", "registry.example", false),
            ("http://localhost/token", "registry.example", false),
            ("http://[::1]/token", "registry.example", false),
            ("http://0.0.0.0/token", "10.0.0.7", false),
            ("http://169.254.169.254/latest", "registry.example", false),
            ("http://[::ffff:169.254.169.254]/latest", "registry.example", false),
            ("http://[fe80::1]/token", "registry.example", false),
        ] {
            assert_eq!(
                is_apart(&Url::parse(place).unwrap(), registry).is_ok(),
                expected,
                "{place} {registry}"
            );
        }
    }
}
