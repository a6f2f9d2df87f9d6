//! The files and the variable that hold credentials: [config.json] of Docker, [auth.json] of Podman, the flat file of old
//! Dockers, and a header for each registry (Platform API, "Registry Authentication").
//!
//! [config.json]: https://docs.docker.com/reference/cli/docker/#configuration-files
//! [auth.json]: https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::{AuthFile, Credentials, Secret, registry_of};

/// What a file says of credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthDocument {
    /// Those that are in it.
    pub auths: AuthFile,
    /// What `auths` names, entries without credentials included: where a helper knows them, files have such.
    pub names: BTreeSet<String>,
    /// By registry, the program's suffix that knows them (`credHelpers`).
    pub helpers: BTreeMap<String, String>,
    /// That for all other registries (`credsStore`).
    pub store: Option<String>,
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
    /// Not headers by registry.
    #[error("it is not a JSON object of registries with `Basic …`, `Bearer …` or `X-Identity …`")]
    Headers,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
    registrytoken: Option<Secret>,
}

type Entries = BTreeMap<String, Option<Entry>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    auths: Option<Entries>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

impl AuthDocument {
    /// Reads Docker's `config.json` or Podman's `auth.json`; entries without credentials are passed over.
    ///
    /// # Errors
    /// When it is no such file.
    pub fn parse(text: &[u8]) -> Result<Self, AuthError> {
        let Config { auths, cred_helpers, creds_store } = object(text)?;
        let helpers = cred_helpers.unwrap_or_default().into_iter();
        let auths = auths.unwrap_or_default();
        Ok(Self {
            names: auths.keys().map(|name| registry_of(name)).collect(),
            auths: AuthFile { entries: entries(auths)? },
            helpers: helpers.map(|(registry, suffix)| (registry_of(&registry), suffix)).collect(),
            store: creds_store.filter(|suffix| !suffix.is_empty()),
        })
    }

    /// Reads the `.dockercfg` of old Dockers: entries, and nothing around them.
    ///
    /// # Errors
    /// When it is no such file.
    pub fn parse_flat(text: &[u8]) -> Result<Self, AuthError> {
        let auths = AuthFile { entries: entries(object(text)?)? };
        Ok(Self { auths, ..Self::default() })
    }

    /// Reads `{"REGISTRY": "Basic BASE64" | "Bearer TOKEN" | "X-Identity TOKEN"}`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse_headers(text: &[u8]) -> Result<Self, AuthError> {
        let headers: BTreeMap<String, Secret> = object(text).map_err(|_| AuthError::Headers)?;
        let mut entries = BTreeMap::new();
        for (registry, header) in headers {
            let (scheme, word) = header.split_once(' ').ok_or(AuthError::Headers)?;
            let token = || Zeroizing::new(word.trim().to_owned());
            let credentials = match scheme.to_ascii_lowercase().as_str() {
                "basic" => pair(word).ok_or_else(|| AuthError::Entry { registry: registry.clone() })?,
                "bearer" => Credentials::Bearer(token()),
                "x-identity" => Credentials::Identity(token()),
                _ => return Err(AuthError::Headers),
            };
            entries.insert(registry_of(&registry), credentials);
        }
        Ok(Self { auths: AuthFile { entries }, ..Self::default() })
    }
}

/// An object: what is derived would take an array for one.
fn object<T: DeserializeOwned>(text: &[u8]) -> Result<T, AuthError> {
    if text.trim_ascii_start().first() == Some(&b'[') {
        return Err(AuthError::Json { line: 1, column: 1 });
    }
    serde_json::from_slice(text)
        .map_err(|error| AuthError::Json { line: error.line(), column: error.column() })
}

fn entries(found: Entries) -> Result<BTreeMap<String, Credentials>, AuthError> {
    let mut entries = BTreeMap::new();
    for (registry, entry) in found {
        let Some(entry) = entry else { continue };
        let credentials = credentials(entry).map_err(|()| AuthError::Entry { registry: registry.clone() })?;
        entries.extend(credentials.map(|credentials| (registry_of(&registry), credentials)));
    }
    Ok(entries)
}

fn credentials(entry: Entry) -> Result<Option<Credentials>, ()> {
    let said = |text: &Secret| !text.is_empty();
    if let Some(token) = entry.registrytoken.filter(said) {
        return Ok(Some(Credentials::Bearer(token)));
    }
    // Beside it there is a name without a password.
    if let Some(token) = entry.identitytoken.filter(said) {
        return Ok(Some(Credentials::Identity(token)));
    }
    if let Some(auth) = entry.auth.filter(said) {
        return pair(&auth).map(Some).ok_or(());
    }
    Ok(match (entry.username, entry.password.filter(said)) {
        (Some(user), Some(password)) if !user.is_empty() => Some(Credentials::Basic { user, password }),
        _ => None,
    })
}

/// `user:password` in base64; some wrote zeros after it.
fn pair(auth: &str) -> Option<Credentials> {
    let auth = auth.trim();
    let bytes = STANDARD.decode(auth).or_else(|_| STANDARD_NO_PAD.decode(auth)).ok().map(Zeroizing::new)?;
    let (user, password) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    let password = Zeroizing::new(password.trim_end_matches('\0').to_owned());
    Some(Credentials::Basic { user: user.to_owned(), password })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(user: &str, password: &str) -> Credentials {
        Credentials::Basic { user: user.into(), password: password.to_owned().into() }
    }

    #[test]
    fn helpers_are_named_by_registry() {
        let text = br#"{"auths":{"a.example":{}},"credsStore":"pass","credHelpers":{"https://index.docker.io/v1/":"hub","b.example":"ecr-login"}}"#;
        let document = AuthDocument::parse(text).unwrap();
        assert_eq!(document.auths, AuthFile::default());
        assert_eq!(document.store.as_deref(), Some("pass"));
        let helpers: Vec<_> = document.helpers.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(helpers, [("b.example", "ecr-login"), ("index.docker.io", "hub")]);
    }

    #[test]
    fn a_flat_file() {
        let text = br#"{"https://index.docker.io/v1/":{"auth":"YTpi","email":"a@b.example"}}"#;
        assert_eq!(AuthDocument::parse_flat(text).unwrap().auths.lookup("docker.io"), basic("a", "b"));
    }

    #[test]
    fn headers() {
        let text = r#"{"a.example":"Basic YTpiAA==","b.example":"bearer t","c.example/x":"X-Identity i"}"#;
        let auths = AuthDocument::parse_headers(text.as_bytes()).unwrap().auths;
        assert_eq!(auths.lookup("a.example"), basic("a", "b"));
        assert_eq!(auths.lookup("b.example"), Credentials::Bearer("t".to_owned().into()));
        assert_eq!(auths.lookup("c.example/x/y"), Credentials::Identity("i".to_owned().into()));
        for text in ["[]", "{", r#"{"r":"Digest x"}"#, r#"{"r":"secret"}"#, r#"{"r":1}"#] {
            assert_eq!(AuthDocument::parse_headers(text.as_bytes()), Err(AuthError::Headers), "{text}");
        }
        let entry = AuthError::Entry { registry: "r".into() };
        assert_eq!(AuthDocument::parse_headers(br#"{"r":"Basic secret!"}"#), Err(entry));
    }

    #[test]
    fn what_cannot_be_read_is_not_repeated() {
        let error = AuthFile::parse(br#"{"auths":{"r":{"auth":"secret!"}}}"#).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
        let error = AuthFile::parse(br#"{"auths":{"r":"secret"}}"#).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
        assert!(AuthFile::parse(b"[]").is_err() && AuthFile::parse(b"{").is_err());
    }
}
