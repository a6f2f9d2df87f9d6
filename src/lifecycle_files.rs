//! This program as a lifecycle for other platforms: what belongs beside it, written into a folder for `scripts/release` (Platform
//! specification, "Lifecycle"; RFC 0011, "Lifecycle Descriptor").

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use coracle_lifecycle::api::{BUILDPACK_APIS, platform_apis};
use coracle_lifecycle::phases;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::launcher::launcher;
use crate::sbom;

/// The word after `lifecycle` that asks for this.
pub(crate) const WORD: &str = "write-files";

/// Why the files are not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    /// No folder is named.
    #[error("no folder is named: `lifecycle {WORD} FOLDER`")]
    NoFolder,
    /// A file could not be written.
    #[error("write: `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A document has no text.
    #[error("write a document")]
    Document(#[from] coracle_cnb::DocumentError),
}

/// Writes into the folder that is named, as [`write_into`] does.
pub(crate) fn write(args: &[OsString]) -> Result<(), FilesError> {
    let [folder] = args else { return Err(FilesError::NoFolder) };
    write_into(Path::new(folder))
}

/// Writes into a folder: `lifecycle.toml`; `lifecycle/` with the launcher, a link for each phase and the bills of
/// materials, where the program itself is missing; and `labels.json`, what an image of it says.
pub(crate) fn write_into(folder: &Path) -> Result<(), FilesError> {
    let inner = folder.join("lifecycle");
    std::fs::create_dir_all(&inner).map_err(|source| FilesError::Write { path: inner.clone(), source })?;
    let file = |path: PathBuf, mode: u32, bytes: &[u8]| {
        std::fs::write(&path, bytes)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)))
            .map_err(|source| FilesError::Write { path, source })
    };
    let descriptor = Descriptor::ours();
    file(folder.join("lifecycle.toml"), 0o644, coracle_cnb::write_toml(&descriptor)?.as_bytes())?;
    file(folder.join("labels.json"), 0o644, descriptor.labels().to_string().as_bytes())?;
    file(inner.join("launcher"), 0o755, launcher().program)?;
    for (name, document) in sbom::documents() {
        file(inner.join(name), 0o644, sbom::text(&document).as_bytes())?;
    }
    for name in phases::names() {
        let path = inner.join(name);
        symlink("lifecycle", &path).map_err(|source| FilesError::Write { path, source })?;
    }
    Ok(())
}

/// `lifecycle.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Descriptor {
    api: Oldest,
    apis: Apis,
    lifecycle: About,
}

/// For platforms that know of one version only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Oldest {
    buildpack: String,
    platform: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Apis {
    buildpack: Versions,
    platform: Versions,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Versions {
    deprecated: Vec<String>,
    supported: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct About {
    version: String,
    sbom_formats: Vec<String>,
}

impl Descriptor {
    /// Of the phases inside this program.
    pub(crate) fn ours() -> Self {
        let versions = |versions: &[coracle_cnb::ApiVersion]| Versions {
            deprecated: Vec::new(),
            supported: versions.iter().map(ToString::to_string).collect(),
        };
        let apis = Apis { buildpack: versions(&BUILDPACK_APIS), platform: versions(&platform_apis()) };
        let oldest = |versions: &Versions| versions.supported.first().cloned().unwrap_or_default();
        Self {
            api: Oldest { buildpack: oldest(&apis.buildpack), platform: oldest(&apis.platform) },
            apis,
            lifecycle: About {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                sbom_formats: sbom::FORMS.iter().map(|(_, kind)| (*kind).to_owned()).collect(),
            },
        }
    }

    /// What a builder's metadata say of the lifecycle in it.
    pub(crate) fn within_builder(&self) -> serde_json::Value {
        json!({ "version": self.lifecycle.version, "api": self.api, "apis": self.apis })
    }

    /// The labels of an image, each a text.
    fn labels(&self) -> serde_json::Value {
        let oldest = json!({ "lifecycle": { "version": self.lifecycle.version }, "api": self.api });
        json!({
            "io.buildpacks.builder.metadata": oldest.to_string(),
            "io.buildpacks.lifecycle.apis": json!(self.apis).to_string(),
            "io.buildpacks.lifecycle.version": self.lifecycle.version,
        })
    }
}
