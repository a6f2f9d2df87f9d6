//! Credentials for registries: who shows what where. What files hold them, and how, is in `auth/documents.rs`,
//! how they are changed in `auth/edit.rs`, programs that know them in `auth/helper.rs`.

mod documents;
mod edit;
mod helper;

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::reference::DOCKER_HUB;

pub use documents::{AuthDocument, AuthError};
pub use edit::with_entry;
pub use helper::{HelperError, Helpers, TOKEN_USER, helper_environment, host_program, is_root_s_alone};

/// A text that is overwritten when it is dropped. What other crates copy of it (the client of registries for one) is not.
pub type Secret = Zeroizing<String>;

/// How to speak to one registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Without a name.
    Anonymous,
    /// By name and password.
    Basic {
        /// Name.
        user: String,
        /// Password.
        password: Secret,
    },
    /// By a token made elsewhere.
    Bearer(Secret),
    /// By what the registry's token server makes of a token: see [Token Authentication: OAuth2].
    ///
    /// [Token Authentication: OAuth2]: https://distribution.github.io/distribution/spec/auth/oauth/
    Identity(Secret),
}

/// How credentials are written.
struct Written {
    /// The scheme of an `Authorization` header.
    scheme: &'static str,
    /// The member of an entry in a file.
    field: &'static str,
    /// What stands there.
    word: Secret,
}

impl Credentials {
    /// As headers and files have it: name and password as one word ([RFC 7617]). Nothing where there is nothing to show.
    ///
    /// [RFC 7617]: https://www.rfc-editor.org/rfc/rfc7617
    fn written(&self) -> Option<Written> {
        let (scheme, field, word) = match self {
            Self::Anonymous => return None,
            Self::Basic { user, password } => {
                let pair = Zeroizing::new(format!("{user}:{}", password.as_str()));
                ("Basic", "auth", Zeroizing::new(STANDARD.encode(pair.as_bytes())))
            }
            Self::Bearer(token) => ("Bearer", "registrytoken", token.clone()),
            Self::Identity(token) => ("X-Identity", "identitytoken", token.clone()),
        };
        Some(Written { scheme, field, word })
    }

    /// The entry of a file.
    fn entry(&self) -> BTreeMap<&'static str, Secret> {
        self.written().map(|written| (written.field, written.word)).into_iter().collect()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(hidden)",
            Self::Bearer(_) => "Bearer(hidden)",
            Self::Identity(_) => "Identity(hidden)",
        })
    }
}

/// Credentials by registry, or by a repository or a part of one written after it: the `auths` of a Docker `config.json`
/// or a Podman `auth.json`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AuthFile {
    entries: BTreeMap<String, Credentials>,
}

impl fmt::Debug for AuthFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries.keys()).finish()
    }
}

#[derive(Serialize)]
struct Config<'a> {
    auths: BTreeMap<&'a str, BTreeMap<&'static str, Secret>>,
}

impl AuthFile {
    /// Reads the `auths` of Docker's `config.json`; entries without credentials are passed over.
    ///
    /// # Errors
    ///
    /// When it is no such file.
    pub fn parse(text: &[u8]) -> Result<Self, AuthError> {
        Ok(AuthDocument::parse(text)?.auths)
    }

    /// Adds or replaces the credentials of one registry.
    pub fn insert(&mut self, registry: &str, credentials: Credentials) {
        self.entries.insert(registry_of(registry), credentials);
    }

    /// Takes over the credentials of another one, in place of those for the same registries.
    pub fn extend(&mut self, other: Self) {
        self.entries.extend(other.entries);
    }

    /// The registries that there are credentials for, or repositories.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The credentials for a registry, or for a repository written after it, the most exact entry counting.
    #[must_use]
    pub fn lookup(&self, registry: &str) -> Credentials {
        self.entry(registry).map_or(Credentials::Anonymous, |(_, credentials)| credentials.clone())
    }

    /// As [`AuthFile::lookup`], with what the entry is called.
    #[must_use]
    pub fn entry(&self, registry: &str) -> Option<(&str, &Credentials)> {
        let wanted = registry_of(registry);
        let mut name = wanted.as_str();
        loop {
            if let Some((name, found)) = self.entries.get_key_value(name) {
                return Some((name, found));
            }
            name = name.rsplit_once('/')?.0;
        }
    }

    /// Whether there are any credentials for a registry, or for some of its repositories.
    #[must_use]
    pub fn has_any_for(&self, registry: &str) -> bool {
        let wanted = registry_of(registry);
        self.names().any(|name| name.split('/').next() == Some(&wanted))
    }

    /// What these repositories need, `REGISTRY/REPOSITORY` each, and no more: where an entry is for a part of a registry,
    /// only the repository itself is named.
    #[must_use]
    pub fn for_repositories<'a>(&self, repositories: impl IntoIterator<Item = &'a str>) -> Self {
        let mut needed = Self::default();
        for repository in repositories {
            if let Some((name, credentials)) = self.entry(repository) {
                let name = if name.contains('/') { repository } else { name };
                needed.insert(name, credentials.clone());
            }
        }
        needed
    }

    /// All of it in the form of the variable by which platforms hand credentials to phases (Platform API, "Registry
    /// Authentication"): a JSON object of registries and what an `Authorization` header says.
    #[must_use]
    pub fn to_headers(&self) -> Secret {
        let mut headers = BTreeMap::new();
        for (name, credentials) in &self.entries {
            if let Some(Written { scheme, word, .. }) = credentials.written() {
                headers.insert(name.as_str(), Zeroizing::new(format!("{scheme} {}", word.as_str())));
            }
        }
        // Strings: there is nothing that JSON cannot hold.
        Zeroizing::new(serde_json::to_string(&headers).unwrap_or_default())
    }

    /// A `config.json` with all of it, as Docker writes it.
    #[must_use]
    pub fn to_config(&self) -> Secret {
        let some = self.entries.iter().filter(|(_, credentials)| **credentials != Credentials::Anonymous);
        let auths = some.map(|(name, credentials)| (shown(name), credentials.entry())).collect();
        // Strings and maps of strings: there is nothing that JSON cannot hold.
        Zeroizing::new(serde_json::to_string(&Config { auths }).unwrap_or_default())
    }
}

/// As Docker calls a registry in its files and to its helpers: its own only by this name.
#[must_use]
pub fn server_url(registry: &str) -> String {
    shown(&registry_of(registry)).to_owned()
}

fn shown(name: &str) -> &str {
    if name == DOCKER_HUB { "https://index.docker.io/v1/" } else { name }
}

/// The host (and path, if any) that an entry of a file speaks of, as this crate calls it. Docker once wrote addresses with a version, or another path: those are
/// of a whole registry.
#[must_use]
pub fn registry_of(name: &str) -> String {
    let plain = name.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let (host, path) = plain.split_once('/').map_or((plain, None), |(host, path)| (host, Some(path)));
    let path = path.filter(|path| plain.len() == name.len() && !matches!(*path, "v1" | "v2"));
    let host = if matches!(host, "docker.io" | "registry-1.docker.io") { DOCKER_HUB } else { host };
    path.map_or_else(|| host.to_owned(), |path| format!("{host}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(user: &str, password: &str) -> Credentials {
        Credentials::Basic { user: user.into(), password: password.to_owned().into() }
    }

    /// Overwritten when it is dropped (crate `zeroize`, whose own tests look at the memory): else this does not compile.
    fn is_wiped<T: zeroize::ZeroizeOnDrop>(_: &T) {}

    #[test]
    fn secrets_are_wiped() {
        for credentials in [basic("u", "p"), identity("t"), Credentials::Bearer("t".to_owned().into())] {
            match &credentials {
                Credentials::Anonymous => {}
                Credentials::Basic { user: _, password } => is_wiped(password),
                Credentials::Bearer(token) | Credentials::Identity(token) => is_wiped(token),
            }
            let Written { scheme: _, field: _, word } = credentials.written().unwrap();
            is_wiped(&word);
        }
        is_wiped(&file().to_headers());
        is_wiped(&file().to_config());
    }

    fn identity(token: &str) -> Credentials {
        Credentials::Identity(token.to_owned().into())
    }

    fn file() -> AuthFile {
        AuthFile::parse(
            br#"{"auths":{
                "https://index.docker.io/v1/":{"auth":"YTpiOmM="},
                "localhost:5000":{"username":"u","password":"p"},
                "example.org/team":{"auth":"eDp5"},
                "example.org":{"registrytoken":"t"},
                "azure.example.org":{"auth":"MDA6","identitytoken":"long-lived"},
                "https://old.example.org/some/path":{"auth":"eDp5"},
                "nothing.example.org":null,
                "empty.example.org":{}},
                "credHelpers":{"x":"y"}}"#,
        )
        .unwrap()
    }

    #[test]
    fn lookup() {
        let file = file();
        for name in ["index.docker.io", "docker.io", "index.docker.io/library/alpine", "registry-1.docker.io"]
        {
            assert_eq!(file.lookup(name), basic("a", "b:c"));
        }
        assert_eq!(file.lookup("localhost:5000"), basic("u", "p"));
        assert_eq!(file.lookup("localhost"), Credentials::Anonymous);
        assert_eq!(file.lookup("example.org/team/app"), basic("x", "y"));
        assert_eq!(file.lookup("example.org/team2"), Credentials::Bearer("t".to_owned().into()));
        assert_eq!(file.lookup("azure.example.org"), identity("long-lived"));
        assert_eq!(file.lookup("old.example.org/other"), basic("x", "y"));
        for name in ["empty.example.org", "nothing.example.org", "other.example.org"] {
            assert_eq!(file.lookup(name), Credentials::Anonymous);
        }
    }

    #[test]
    fn what_repositories_need_and_no_more() {
        let wanted =
            ["example.org/team/app", "index.docker.io/library/x", "azure.example.org/y", "z.example/y"];
        let needed = file().for_repositories(wanted);
        let names: Vec<_> = needed.names().collect();
        assert_eq!(names, ["azure.example.org", "example.org/team/app", "index.docker.io"]);
        let text = needed.to_config();
        assert_eq!(
            text.as_str(),
            r#"{"auths":{"azure.example.org":{"identitytoken":"long-lived"},"example.org/team/app":{"auth":"eDp5"},"https://index.docker.io/v1/":{"auth":"YTpiOmM="}}}"#
        );
        assert_eq!(AuthFile::parse(text.as_bytes()).unwrap(), needed);
        assert_eq!(file().for_repositories([]).to_config().as_str(), r#"{"auths":{}}"#);
    }

    #[test]
    fn headers_are_read_as_they_are_written() {
        let needed = file().for_repositories([
            "docker.io/a/b",
            "example.org/x",
            "example.org/team/y",
            "azure.example.org/z",
        ]);
        let text = needed.to_headers();
        assert_eq!(
            text.as_str(),
            r#"{"azure.example.org":"X-Identity long-lived","example.org":"Bearer t","example.org/team/y":"Basic eDp5","index.docker.io":"Basic YTpiOmM="}"#
        );
        assert_eq!(AuthDocument::parse_headers(text.as_bytes()).unwrap().auths, needed);
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = ["docker.io", "azure.example.org"].map(|name| format!("{:?}", file().lookup(name)));
        let shown = format!("{:?} {}", file(), shown.concat());
        assert!(
            !shown.contains("b:c") && !shown.contains("long-lived") && shown.contains("localhost:5000"),
            "{shown}"
        );
    }
}
