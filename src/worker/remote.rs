//! An image in its registry, as a worker is told of it.

use std::fmt;

use coracle_images::{AuthFile, Platform, Reference, Registry, RegistryOptions, Secret};
use serde::{Deserialize, Serialize};

use super::{AnyError, Job};
use crate::credentials::Keys;
use crate::error::Error;

/// The image's name, and what it takes to speak to its registry.
#[derive(Serialize, Deserialize)]
pub(crate) struct Remote {
    pub(crate) reference: Reference,
    insecure: Vec<String>,
    /// A `config.json` with the image's credentials alone.
    auth: Secret,
}

impl Remote {
    /// Of all credentials, only those of the image leave this process; none without `keys`.
    pub(crate) fn new(
        reference: &Reference,
        insecure: &[String],
        keys: Option<&Keys<'_>>,
    ) -> Result<Self, Error> {
        let auth = keys.map(|keys| keys.of(&[reference])).transpose()?.unwrap_or_default();
        Ok(Self::with(reference, insecure, &auth))
    }

    /// With these credentials.
    pub(crate) fn with(reference: &Reference, insecure: &[String], auth: &AuthFile) -> Self {
        Self { reference: reference.clone(), insecure: insecure.to_vec(), auth: auth.to_config() }
    }

    /// A client for its registry.
    pub(super) fn registry(&self) -> Result<Registry, AnyError> {
        let auth = AuthFile::parse(self.auth.as_bytes())?;
        Ok(Registry::new(RegistryOptions { insecure: self.insecure.clone(), auth, ca_bundle: None })?)
    }
}

/// Show the credentials to the registry. Whether it wanted to see them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LogIn {
    pub(crate) remote: Remote,
}

impl Job for LogIn {
    type Answer = bool;

    fn carry_out(self) -> Result<bool, AnyError> {
        Ok(self.remote.registry()?.log_in(&self.remote.reference)?)
    }
}

/// Ask a registry whether an image can be read as it is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AskOpenly {
    pub(crate) image: Remote,
}

/// What a registry shows to somebody without credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Shown {
    ToAll,
    Refused,
    /// Some registries say so of what they would refuse.
    Missing,
}

impl Job for AskOpenly {
    type Answer = Shown;

    fn carry_out(self) -> Result<Shown, AnyError> {
        match self.image.registry()?.image(&self.image.reference, &Platform::host()) {
            Ok(_) => Ok(Shown::ToAll),
            Err(error) if error.is_denied() => Ok(Shown::Refused),
            Err(error) if error.is_missing() => Ok(Shown::Missing),
            Err(error) => Err(error.into()),
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("reference", &self.reference).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::{AuthFormat, Keychain};
    use crate::event::{Event, Observer};

    struct Nobody;

    impl Observer for Nobody {
        fn event(&self, _: Event) {}
    }

    #[test]
    fn only_the_registry_s_own_credentials_are_in_it_and_none_is_shown() {
        let auth = r#"{"auths":{"a.example":{"auth":"YTpvbmU="},"b.example":{"auth":"Yjp0d28="}}}"#;
        let mut keychain = Keychain::default();
        keychain.add_text("a test", auth.as_bytes(), AuthFormat::Config).unwrap();
        let remote =
            Remote::new(&"a.example/app".parse().unwrap(), &[], Some(&keychain.keys(&Nobody, None))).unwrap();
        assert!(
            remote.auth.contains("YTpvbmU=") && !remote.auth.contains("Yjp0d28="),
            "{}",
            remote.auth.as_str()
        );
        assert!(!format!("{remote:?}").contains("YTpvbmU="));
    }
}
