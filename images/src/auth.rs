//! Credentials for registries, from Docker's configuration file.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::reference::DOCKER_HUB;

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
        password: String,
    },
    /// By a token made elsewhere.
    Bearer(String),
    /// By what the registry's token server makes of a token: see [Token Authentication: OAuth2].
    ///
    /// [Token Authentication: OAuth2]: https://distribution.github.io/distribution/spec/auth/oauth/
    Identity(String),
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

/// Credentials by registry: the `auths` of a Docker `config.json` or a Podman `auth.json`.
///
/// Credential helpers named in the file are not run here: a file must not choose programs.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AuthFile {
    entries: BTreeMap<String, Credentials>,
}

impl fmt::Debug for AuthFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries.keys()).finish()
    }
}

/// A file without usable credentials. The message never holds what the file says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Not a JSON object with an `auths` object.
    #[error("the credentials are not a JSON object as Docker writes it (line {line}, column {column})")]
    Json {
        /// Line of the parser's complaint.
        line: usize,
        /// Column of it.
        column: usize,
    },
    /// An entry that cannot be read.
    #[error("the credentials for `{registry}` cannot be read: expected `auth` as base64 of `user:password`")]
    Entry {
        /// Registry.
        registry: String,
    },
}

impl AuthFile {
    /// Reads Docker's `config.json`; entries without credentials are passed over.
    ///
    /// # Errors
    ///
    /// When it is no such file.
    pub fn parse(text: &[u8]) -> Result<Self, AuthError> {
        let value: Value = serde_json::from_slice(text)
            .map_err(|e| AuthError::Json { line: e.line(), column: e.column() })?;
        let file = value.as_object().ok_or(AuthError::Json { line: 1, column: 1 })?;
        let mut entries = BTreeMap::new();
        for (name, entry) in file.get("auths").and_then(Value::as_object).into_iter().flatten() {
            let bad = || AuthError::Entry { registry: name.clone() };
            let entry = entry.as_object().ok_or_else(bad)?;
            if let Some(credentials) = credentials(entry).map_err(|()| bad())? {
                entries.insert(registry_of(name), credentials);
            }
        }
        Ok(Self { entries })
    }

    /// Adds or replaces the credentials of one registry.
    pub fn insert(&mut self, registry: &str, credentials: Credentials) {
        self.entries.insert(registry_of(registry), credentials);
    }

    /// The credentials for a registry, or for a repository written after it, the most exact entry counting.
    #[must_use]
    pub fn lookup(&self, registry: &str) -> Credentials {
        self.entry(registry).map_or(Credentials::Anonymous, |(_, credentials)| credentials.clone())
    }

    /// As [`AuthFile::lookup`], with what the entry is called.
    pub(crate) fn entry(&self, registry: &str) -> Option<(&str, &Credentials)> {
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
        !self.only(&[registry]).entries.is_empty()
    }

    /// The credentials of these registries and no others.
    #[must_use]
    pub fn only(&self, registries: &[&str]) -> Self {
        let wanted: Vec<String> = registries.iter().map(|name| registry_of(name)).collect();
        let is_wanted = |name: &str| {
            let host = name.split('/').next();
            wanted.iter().any(|w| w == name || w.split('/').next() == host)
        };
        let entries = self.entries.iter().filter(|(name, _)| is_wanted(name));
        Self { entries: entries.map(|(name, credentials)| (name.clone(), credentials.clone())).collect() }
    }

    /// A file with the credentials of these registries and no others.
    #[must_use]
    pub fn for_registries(&self, registries: &[&str]) -> String {
        let mut auths = Map::new();
        for (name, credentials) in &self.only(registries).entries {
            // Docker knows its own registry by this name only.
            let key = if name == DOCKER_HUB { "https://index.docker.io/v1/" } else { name };
            let entry = match credentials {
                Credentials::Anonymous => continue,
                Credentials::Basic { user, password } => {
                    json!({ "auth": STANDARD.encode(format!("{user}:{password}")) })
                }
                Credentials::Bearer(token) => json!({ "registrytoken": token }),
                Credentials::Identity(token) => json!({ "identitytoken": token }),
            };
            auths.insert(key.to_owned(), entry);
        }
        json!({ "auths": auths }).to_string()
    }
}

fn credentials(entry: &Map<String, Value>) -> Result<Option<Credentials>, ()> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("registrytoken") {
        return Ok(Some(Credentials::Bearer(token.to_owned())));
    }
    // Beside it there is a name without a password.
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credentials::Identity(token.to_owned())));
    }
    if let Some(auth) = text("auth") {
        let bytes = STANDARD.decode(auth.trim()).map_err(drop)?;
        let pair = String::from_utf8(bytes).map_err(drop)?;
        let (user, password) = pair.split_once(':').ok_or(())?;
        let password = password.trim_end_matches('\0').to_owned();
        return Ok(Some(Credentials::Basic { user: user.to_owned(), password }));
    }
    Ok(match (text("username"), text("password")) {
        (Some(user), Some(password)) => {
            Some(Credentials::Basic { user: user.to_owned(), password: password.to_owned() })
        }
        _ => None,
    })
}

/// The host (and path, if any) an entry speaks of: Docker wrote urls with a version, others plain hosts.
fn registry_of(name: &str) -> String {
    let name = name.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let name = name.strip_suffix("/v1").or_else(|| name.strip_suffix("/v2")).unwrap_or(name);
    let (host, path) = name.split_once('/').map_or((name, None), |(host, path)| (host, Some(path)));
    let host = if matches!(host, "docker.io" | "registry-1.docker.io") { DOCKER_HUB } else { host };
    path.map_or_else(|| host.to_owned(), |path| format!("{host}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(user: &str, password: &str) -> Credentials {
        Credentials::Basic { user: user.into(), password: password.into() }
    }

    fn file() -> AuthFile {
        AuthFile::parse(
            br#"{"auths":{
                "https://index.docker.io/v1/":{"auth":"YTpiOmM="},
                "localhost:5000":{"username":"u","password":"p"},
                "example.org/team":{"auth":"eDp5"},
                "example.org":{"registrytoken":"t"},
                "azure.example.org":{"auth":"MDA6","identitytoken":"long-lived"},
                "empty.example.org":{}},
                "credHelpers":{"x":"y"}}"#,
        )
        .unwrap()
    }

    #[test]
    fn lookup() {
        let file = file();
        for name in ["index.docker.io", "docker.io", "index.docker.io/library/alpine"] {
            assert_eq!(file.lookup(name), basic("a", "b:c"));
        }
        assert_eq!(file.lookup("localhost:5000"), basic("u", "p"));
        assert_eq!(file.lookup("example.org/team/app"), basic("x", "y"));
        assert_eq!(file.lookup("example.org/team2"), Credentials::Bearer("t".into()));
        assert_eq!(file.lookup("azure.example.org"), Credentials::Identity("long-lived".into()));
        assert_eq!(file.lookup("empty.example.org"), Credentials::Anonymous);
        assert_eq!(file.lookup("other.example.org"), Credentials::Anonymous);
    }

    #[test]
    fn subset_holds_nothing_else() {
        let text = file().for_registries(&["example.org", "docker.io", "azure.example.org"]);
        let subset = AuthFile::parse(text.as_bytes()).unwrap();
        assert_eq!(subset.lookup("example.org/team"), basic("x", "y"));
        assert_eq!(subset.lookup("docker.io"), basic("a", "b:c"));
        assert_eq!(subset.lookup("azure.example.org"), Credentials::Identity("long-lived".into()));
        assert_eq!(subset.lookup("localhost:5000"), Credentials::Anonymous);
        assert_eq!(AuthFile::parse(file().for_registries(&[]).as_bytes()).unwrap(), AuthFile::default());
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = ["docker.io", "azure.example.org"].map(|name| format!("{:?}", file().lookup(name)));
        let shown = format!("{:?} {}", file(), shown.concat());
        assert!(
            !shown.contains("b:c") && !shown.contains("long-lived") && shown.contains("localhost:5000"),
            "{shown}"
        );
        let error = AuthFile::parse(br#"{"auths":{"r":{"auth":"secret!"}}}"#).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
        assert!(AuthFile::parse(b"[]").is_err() && AuthFile::parse(b"{").is_err());
    }
}
