//! What groups consist of: buildpacks and image extensions.

use std::fmt;

use coracle_cnb::{BuildpackId, GroupElement};
use serde::{Deserialize, Serialize};

/// A buildpack or an extension, of one version. An id may be both's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Module {
    pub id: BuildpackId,
    pub version: String,
    /// Whether it is an extension.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub extension: bool,
}

impl Module {
    /// The buildpack that an element of a group means.
    pub(crate) fn buildpack(element: &GroupElement) -> Self {
        Self { id: element.id.clone(), version: element.version.clone(), extension: false }
    }

    /// The extension that an element of a group means.
    pub(crate) fn extension(element: &GroupElement) -> Self {
        Self { extension: true, ..Self::buildpack(element) }
    }

    /// What it is called in messages.
    pub(crate) fn kind(&self) -> &'static str {
        if self.extension { "extension" } else { "buildpack" }
    }

    /// The file in which it says what it is.
    pub(crate) fn document(&self) -> &'static str {
        if self.extension { "extension.toml" } else { "buildpack.toml" }
    }
}

impl fmt::Display for Module {
    /// `id@version`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.version)
    }
}
