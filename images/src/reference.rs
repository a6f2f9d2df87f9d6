//! Names of images: registry, repository, tag, digest.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The host that short names mean; `docker.io` is the same.
pub const DOCKER_HUB: &str = "index.docker.io";

/// The name of an image in a registry, as in `example.org/team/app:1.2@sha256:…`.
///
/// The grammar is that of the [OCI distribution specification]; short names follow Docker Hub's habit
/// (`alpine` is `index.docker.io/library/alpine:latest`). A name with neither tag nor digest means the tag `latest`.
///
/// [OCI distribution specification]: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    /// Host, with a port if it is not the usual one.
    pub registry: String,
    /// Path within the registry.
    pub repository: String,
    /// The movable name within the repository.
    pub tag: Option<String>,
    /// The manifest's digest; where present it decides, and the tag is for readers.
    pub digest: Option<Digest>,
}

/// A text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image name: {why}")]
pub struct ReferenceError {
    text: String,
    why: &'static str,
}

impl Reference {
    /// The same repository, pinned to this manifest; a tag is dropped, because it would say nothing more.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same repository under this tag.
    ///
    /// # Errors
    ///
    /// When the tag breaks the grammar.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError {
                text: tag.to_owned(),
                why: "a tag is up to 128 letters, digits, `_`, `.`, `-`",
            });
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// Registry and repository, without tag and digest.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What selects the manifest: the digest if there is one, else the tag.
    #[must_use]
    pub fn identifier(&self) -> &str {
        self.digest.as_ref().map(Digest::as_str).or(self.tag.as_deref()).unwrap_or("latest")
    }

    /// Whether the registry is this machine: `localhost`, `127.0.0.0/8` or `[::1]`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.registry.rsplit_once(':').map_or(self.registry.as_str(), |(host, port)| {
            if port.bytes().all(|b| b.is_ascii_digit()) { host } else { self.registry.as_str() }
        });
        host == "localhost" || host == "[::1]" || host.parse::<Ipv4Addr>().is_ok_and(|a| a.is_loopback())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let fail = |why| ReferenceError { text: text.chars().take(300).collect(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| fail("the part after `@` is no sha256 digest"))?))
            }
            None => (text, None),
        };
        let (rest, tag) = match rest.rsplit_once(':') {
            Some((rest, tag)) if !tag.contains('/') => (rest, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(fail("a tag is up to 128 letters, digits, `_`, `.`, `-`"));
        }
        let (registry, path) = match rest.split_once('/') {
            Some((first, path))
                if first.contains(['.', ':']) || first == "localhost" || first.starts_with('[') =>
            {
                (first, path.to_owned())
            }
            _ => (DOCKER_HUB, rest.to_owned()),
        };
        let registry = if registry == "docker.io" { DOCKER_HUB } else { registry };
        if !is_host(registry) {
            return Err(fail("the part before the first `/` is no host"));
        }
        let repository =
            if registry == DOCKER_HUB && !path.contains('/') { format!("library/{path}") } else { path };
        if repository.len() > 255 || !repository.split('/').all(is_component) {
            return Err(fail(
                "a repository is lower-case letters and digits, joined by `.`, `_`, `-` and `/`",
            ));
        }
        let tag = if tag.is_none() && digest.is_none() { Some("latest".to_owned()) } else { tag };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            return rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        }
        None => host.split_once(':').map_or((host, None), |(n, p)| (n, Some(p))),
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.starts_with('+') && port.parse::<u16>().is_ok()
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let mut separator = 0;
    for (i, &b) in bytes.iter().enumerate() {
        if plain(b) {
            separator = i + 1;
            continue;
        }
        let run = &bytes[separator..=i];
        if separator == 0 || !matches!(run, b"." | b"_" | b"__") && !run.iter().all(|&b| b == b'-') {
            return false;
        }
    }
    bytes.last().is_some_and(|&b| plain(b))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_form() {
        let digest = Digest::of("x");
        for (text, long) in [
            ("alpine", "index.docker.io/library/alpine:latest".to_owned()),
            ("docker.io/alpine:3", "index.docker.io/library/alpine:3".to_owned()),
            ("team/app", "index.docker.io/team/app:latest".to_owned()),
            ("localhost/app", "localhost/app:latest".to_owned()),
            ("localhost:5000/a/b__c.d--e:T", "localhost:5000/a/b__c.d--e:T".to_owned()),
            ("[::1]:5000/app", "[::1]:5000/app:latest".to_owned()),
            (&format!("example.org/app@{digest}"), format!("example.org/app@{digest}")),
            (&format!("example.org/app:1@{digest}"), format!("example.org/app:1@{digest}")),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), long);
            assert_eq!(long.parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "/",
            "a//b",
            "../x",
            "example.org/",
            "example.org/../x",
            "example.org/A",
            "a:",
            "a:b:c",
            "a@sha256:../x",
            "-a.org/b",
            "a_.org/b",
            "a.org:port/b",
            "a/b ",
            "a/b\n",
            "a___b",
            "a..b",
            "a-",
            "-a",
            "[::1/b",
            "a.org/b:.x",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn loopback_is_plain() {
        for (text, yes) in [
            ("localhost:5000/a", true),
            ("localhost/a", true),
            ("127.0.0.1:5000/a", true),
            ("127.8.9.1/a", true),
            ("[::1]:1/a", true),
            ("[::1]/a", true),
            ("localhost.example.org/a", false),
            ("10.0.0.1:5000/a", false),
            ("alpine", false),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().is_loopback(), yes, "{text}");
        }
    }

    #[test]
    fn other_selection() {
        let reference: Reference = "example.org/app:1".parse().unwrap();
        let digest = Digest::of("x");
        assert_eq!(reference.with_digest(digest.clone()).to_string(), format!("example.org/app@{digest}"));
        assert_eq!(
            reference.with_digest(digest).with_tag("2").unwrap().to_string(),
            "example.org/app:2".to_owned()
        );
        assert!(reference.with_tag("a/b").is_err());
    }
}
