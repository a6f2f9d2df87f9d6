//! What foreign code learns of the user's proxies. Pure.

use super::phase::{Phase, Plan};

/// Said once in each build that keeps something from buildpacks.
pub(super) const WITHHELD: &str = "the name and password of the proxy are kept from buildpacks; where they need them, hand them over with --env, as in --env HTTPS_PROXY";

/// What a phase is told of them: all, or what foreign code may know.
pub(super) fn known_to(phase: Phase, plan: &Plan) -> Vec<(String, String)> {
    if phase.runs_foreign_code() { for_foreign_code(&plan.proxies).0 } else { plan.proxies.clone() }
}

/// `proxies` without names and passwords, and whether there were any.
pub(super) fn for_foreign_code(proxies: &[(String, String)]) -> (Vec<(String, String)>, bool) {
    let shown: Vec<_> = proxies.iter().map(|(name, value)| (name.clone(), without_user(value))).collect();
    let withheld = shown != proxies;
    (shown, withheld)
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
}
