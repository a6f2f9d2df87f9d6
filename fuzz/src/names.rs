//! What names things and opens doors: references, digests, challenges, tokens, credentials.

use coracle_images::{AuthFile, Credentials, Digest, Reference, fuzzing};

/// References and digests: what is read is written the same way, and read again as the same.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        let again: Reference = reference.to_string().parse().expect("what was written can be read");
        assert_eq!(again, reference);
        // Both become parts of URLs and of folders' names.
        for part in reference.repository.split('/').chain([reference.registry.as_str()]) {
            assert!(
                !part.is_empty() && part != "." && part != ".." && !part.contains(char::is_whitespace),
                "{text:?}"
            );
        }
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert!(digest.to_string() == text && digest.hex().bytes().all(|b| b.is_ascii_hexdigit()));
    }
}

/// `WWW-Authenticate`: no identity token goes to a stranger or through the open.
pub fn challenge(bytes: &[u8]) {
    let header = String::from_utf8_lossy(bytes);
    for (registry, plain, domain) in [
        ("registry.example.org", false, Some("example.org")),
        ("example.org:5000", true, Some("example.org")),
        ("registry.co.uk", false, Some("registry.co.uk")),
        ("10.0.0.1:5000", true, None),
    ] {
        let Some(server) = fuzzing::token_server(&header, registry, plain) else { continue };
        let host = server.host_str().unwrap_or_default();
        assert!(server.scheme() == "https" || plain && server.scheme() == "http", "{server}");
        let own = match domain {
            Some(domain) => host == domain || host.ends_with(&format!(".{domain}")),
            None => host == "10.0.0.1",
        };
        assert!(own, "{registry}: {server}");
    }
}

/// A token server's answer.
pub fn token(bytes: &[u8]) {
    let _ = fuzzing::access_token(bytes);
}

/// Docker's config.json: what is handed on says the same of its repositories, and nothing of others.
pub fn credentials(bytes: &[u8]) {
    let Ok(file) = AuthFile::parse(bytes) else { return };
    let wanted = ["example.org/team/app", "index.docker.io/library/a"];
    let handed_on = file.for_repositories(wanted).to_config();
    let again = AuthFile::parse(handed_on.as_bytes()).expect("what was written can be read");
    for name in wanted {
        assert_eq!(heard(again.lookup(name)), heard(file.lookup(name)));
    }
    assert!(again.names().all(|name| {
        ["example.org", "index.docker.io"].contains(&name.split('/').next().unwrap_or_default())
    }));
    assert!(again.names().count() <= wanted.len());
}

/// As a registry hears it, name and password in one text: where a name with a colon in it ends is not told.
fn heard(credentials: Credentials) -> Credentials {
    match credentials {
        Credentials::Basic { user, password } => {
            let pair = format!("{user}:{}", password.as_str());
            Credentials::Basic { user: String::new(), password: pair.into() }
        }
        other => other,
    }
}
