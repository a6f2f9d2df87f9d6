//! What foreign code learns of the user's proxies. Pure.

use std::net::IpAddr;

use coracle_runtime::Network;

use super::phase::{Phase, Plan};

/// Said once in each build that keeps something from buildpacks.
pub(super) const WITHHELD: &str = "the name and password of the proxy are kept from buildpacks; where they need them, hand them over with --env, as in --env HTTPS_PROXY";

/// What a phase is told of them: all, or what foreign code may know and can use.
pub(super) fn known_to(phase: Phase, plan: &Plan) -> Vec<(String, String)> {
    if !phase.runs_foreign_code() {
        return plan.proxies.clone();
    }
    let shown = for_foreign_code(&plan.proxies).0;
    shown.into_iter().filter(|proxy| !is_out_of_reach(proxy, plan.network)).collect()
}

/// `proxies` without names and passwords, and whether there were any.
pub(super) fn for_foreign_code(proxies: &[(String, String)]) -> (Vec<(String, String)>, bool) {
    let shown: Vec<_> = proxies.iter().map(|(name, value)| (name.clone(), without_user(value))).collect();
    let withheld = shown != proxies;
    (shown, withheld)
}

/// What is said of proxies that buildpacks are not told of.
pub(super) fn out_of_reach(proxies: &[(String, String)], network: Network) -> Option<String> {
    let names: Vec<&str> = proxies
        .iter()
        .filter(|proxy| is_out_of_reach(proxy, network))
        .map(|(name, _)| name.as_str())
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "the proxy of {} is on this machine's loopback, which --network isolated does not reach: buildpacks are not told of it; where they need it, use one on another machine, or --network host",
            names.join(", ")
        )
    })
}

/// Whether this is a proxy on the host's loopback, and a network of its own does not lead there.
fn is_out_of_reach((name, value): &(String, String), network: Network) -> bool {
    if network != Network::Isolated || name.eq_ignore_ascii_case("no_proxy") {
        return false;
    }
    let shown = without_user(value);
    let authority = shown.split_once("://").map_or(shown.as_str(), |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or_default(),
    };
    let address = host.parse::<IpAddr>().map(|address| address.to_canonical());
    host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.is_loopback() || address.is_unspecified())
}

/// An URL, or an authority alone as many programs take it, without its user (RFC 3986, section 3.2.1). A proxy's URL has no
/// path to speak of, so what stands before the last `@` is the user, also where a password was not encoded.
fn without_user(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let end = rest.rfind('@').map_or(0, |at| at + 1);
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{}", &rest[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_before_the_host_is_nobody_s_business() {
        for (url, shown) in [
            ("http://name:password@proxy.example:3128/", "http://proxy.example:3128/"),
            ("http://name:p@ss/word@proxy.example", "http://proxy.example"),
            ("name:password@proxy.example:3128", "proxy.example:3128"),
            ("socks5h://proxy.example", "socks5h://proxy.example"),
            ("localhost,.example,127.0.0.1", "localhost,.example,127.0.0.1"),
        ] {
            let given = [("HTTP_PROXY".to_owned(), url.to_owned())];
            assert_eq!(
                for_foreign_code(&given),
                (vec![("HTTP_PROXY".to_owned(), shown.to_owned())], url != shown)
            );
        }
    }
    #[test]
    fn a_proxy_that_cannot_be_reached_is_not_told_of() {
        for (value, is_here) in [
            ("http://127.0.0.1:3128", true),
            ("http://name:p@ss/word@localhost:3128/", true),
            ("[::1]:3128", true),
            ("socks5h://127.8.0.1", true),
            ("http://[::ffff:127.0.0.1]:3128", true),
            ("http://proxy.example:3128", false),
            ("localhost.example:3128", false),
            ("http://10.0.0.1:3128", false),
        ] {
            let of = |name: &str| (name.to_owned(), value.to_owned());
            assert_eq!(is_out_of_reach(&of("HTTP_PROXY"), Network::Isolated), is_here, "{value}");
            assert!(!is_out_of_reach(&of("no_proxy"), Network::Isolated), "{value}");
            assert!(!is_out_of_reach(&of("HTTP_PROXY"), Network::Host), "{value}");
        }
    }
}
