//! What whoever runs the machine says of trust, whatever its users choose.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::BuilderName;
use crate::config::{self, ConfigError};

/// The builders that may be trusted at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub(super) path: PathBuf,
    pub(super) may_trust: Vec<BuilderName>,
}

/// Everything in it must be said and known: what was meant to forbid something forbids it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Document {
    may_trust: Vec<BuilderName>,
}

impl Policy {
    /// Read the one at `path`, if there is one.
    ///
    /// # Errors
    /// [`ConfigError`]: whatever keeps it from being read and understood, so that nothing is trusted by mistake.
    pub fn read(path: &Path) -> Result<Option<Self>, ConfigError> {
        let document: Option<Document> = config::read(path)?;
        Ok(document.map(|Document { may_trust }| Self { path: path.to_owned(), may_trust }))
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether all that `name` means may be trusted.
    pub fn allows(&self, name: &BuilderName) -> bool {
        self.may_trust.iter().any(|allowed| allowed.covers(name))
    }

    /// Read the one that somebody has named: there must be one.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn named(path: &Path) -> Result<Self, ConfigError> {
        let missing = || ConfigError::Io {
            act: "open the policy",
            path: path.to_owned(),
            source: io::ErrorKind::NotFound.into(),
        };
        Self::read(path)?.ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_policy_that_cannot_be_understood_is_an_error_and_never_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.toml");
        let shown = |error: ConfigError| {
            coracle_runtime::with_causes(&error).replace(&path.display().to_string(), "POLICY")
        };
        assert_eq!(Policy::read(&path).unwrap(), None);
        assert_eq!(
            shown(Policy::named(&path).unwrap_err()),
            "could not open the policy POLICY: entity not found"
        );
        for (text, error) in [
            ("", "POLICY, line 1: missing field `may-trust`"),
            (
                "may-trust = []\nmay_trust = ['a']",
                "POLICY, line 2: unknown field `may_trust`, expected `may-trust`",
            ),
            ("may-trust = 'a'", "POLICY, line 1: invalid type: string \"a\", expected a sequence"),
        ] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            assert_eq!(shown(Policy::read(&path).unwrap_err()), error);
        }
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        assert!(shown(Policy::named(&path).unwrap_err()).contains("may be written to by others"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(shown(Policy::read(&path).unwrap_err()).contains("is no regular file"));
    }
}
