//! An image in its registry, as a worker is told of it.

use std::fmt;

use coracle_images::{AuthFile, Reference, Registry, RegistryOptions};
use serde::{Deserialize, Serialize};

use super::AnyError;

/// The image's name, and what it takes to speak to its registry.
#[derive(Serialize, Deserialize)]
pub(crate) struct Remote {
    pub(crate) reference: Reference,
    insecure: Vec<String>,
    /// A `config.json` with the credentials of the image's registry alone.
    auth: String,
}

impl Remote {
    /// Of all credentials, only those of the image's registry leave this process.
    pub(crate) fn new(reference: &Reference, insecure: &[String], auth: &AuthFile) -> Self {
        let auth = auth.for_registries(&[&reference.registry]);
        Self { reference: reference.clone(), insecure: insecure.to_vec(), auth }
    }

    /// A client for its registry.
    pub(super) fn registry(&self) -> Result<Registry, AnyError> {
        let auth = AuthFile::parse(self.auth.as_bytes())?;
        Ok(Registry::new(RegistryOptions { insecure: self.insecure.clone(), auth, ca_bundle: None })?)
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

    #[test]
    fn only_the_registry_s_own_credentials_are_in_it_and_none_is_shown() {
        let auth = r#"{"auths":{"a.example":{"auth":"YTpvbmU="},"b.example":{"auth":"Yjp0d28="}}}"#;
        let auth = AuthFile::parse(auth.as_bytes()).unwrap();
        let remote = Remote::new(&"a.example/app".parse().unwrap(), &[], &auth);
        assert!(remote.auth.contains("YTpvbmU=") && !remote.auth.contains("Yjp0d28="), "{}", remote.auth);
        assert!(!format!("{remote:?}").contains("YTpvbmU="));
    }
}
