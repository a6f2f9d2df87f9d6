//! What a build is asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use coracle_images::{Digest, LayerCompression, Reference};
use coracle_runtime::{Network, Runtime};
use zeroize::Zeroizing;

use super::{
    Brought, BuildLayers, Buildpack, LifecycleArchives, LifecycleChoice, LifecycleImage, NativePhase,
    Restore, SharedLayer,
};
use crate::credentials::Keychain;
use crate::pull::PullPolicy;
use crate::trust::Trust;

/// What to build, of what, with what.
pub struct BuildRequest {
    /// The name of the image.
    pub image: Reference,
    /// More names, on the same registry.
    pub tags: Vec<Reference>,
    /// The application's folder.
    pub path: PathBuf,
    /// The builder image.
    pub builder: Reference,
    /// Whether it is trusted.
    pub trust: Trust,
    /// Instead of the builder's own choice.
    pub run_image: Option<Reference>,
    /// Instead of the builder's order.
    pub buildpacks: Vec<Buildpack>,
    /// Whether buildpacks of the system count, which a builder puts around those of each group (`system.toml`).
    pub system_buildpacks: bool,
    /// What the image is for: `production`, `test`, or another word of letters, digits, dots and dashes.
    pub exec_env: ExecEnv,
    /// Variables for the buildpacks (`/platform/env`).
    pub env: Vec<(String, Zeroizing<String>)>,
    /// What else they get.
    pub brought: Brought,
    /// The process to start, where the buildpacks' choice does not count.
    pub process_type: Option<String>,
    /// Whether the image goes to its registry instead of into the store.
    pub publish: bool,
    /// Instead of a folder of the home.
    pub cache_dir: Option<PathBuf>,
    /// Instead of a folder: an image in a registry, for builds that publish.
    pub cache_image: Option<Reference>,
    /// How new layers of the image are compressed.
    pub compression: LayerCompression,
    /// Whether what earlier builds left in the cache is deleted first; of a cache image nothing is read then.
    pub clear_cache: bool,
    /// How cached layers come back.
    pub restore: Restore,
    /// When images are fetched.
    pub pull_policy: PullPolicy,
    /// What launches the containers.
    pub runtime: Runtime,
    /// Registries spoken to in plain HTTP; those on loopback need not be named.
    pub insecure: Vec<String>,
    /// Credentials: each phase gets those of the images that it must reach.
    pub auth: Keychain,
    /// What later buildpacks may do with layers of earlier ones.
    pub build_layers: BuildLayers,
    /// Layers with which they may do everything.
    pub shared_layers: Vec<SharedLayer>,
    /// The network of the buildpacks.
    pub network: Network,
    /// How long buildpacks may run in one container.
    pub time: Duration,
    /// How long programs of the build may print nothing.
    pub idle: Duration,
    /// Bytes on disk that the layers, the application and what else programs write may take, in detection and in the build.
    pub disk: u64,
    /// Whose programs play the phases.
    pub lifecycle: LifecycleChoice,
    /// Where lifecycles are published, for phases that an untrusted builder is kept away from.
    pub lifecycle_image: LifecycleImage,
    /// Where their release archives are, for versions of which no image is to be had.
    pub lifecycle_archives: LifecycleArchives,
    /// Digests of release archives by version, where the user knows them.
    pub lifecycle_digests: BTreeMap<String, Digest>,
    /// Phases that this program plays although another lifecycle was chosen.
    pub native_phases: Vec<NativePhase>,
    /// Whether the phases say more.
    pub verbose: bool,
}

/// What an image is for (Platform API 0.15, "Execution Environments"). Buildpacks and processes may be for some only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecEnv(String);

/// A text that is no name of what an image is for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no execution environment: name it with letters, digits, dots and dashes, as in `production` or `test`"
)]
pub struct ExecEnvError(String);

impl ExecEnv {
    /// The word.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ExecEnv {
    fn default() -> Self {
        Self("production".to_owned())
    }
}

impl std::str::FromStr for ExecEnv {
    type Err = ExecEnvError;

    fn from_str(text: &str) -> Result<Self, ExecEnvError> {
        let is_known = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        if text.is_empty() || !text.chars().all(is_known) {
            return Err(ExecEnvError(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for BuildRequest {
    /// Without variables and credentials, which may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { image, path, builder, publish, .. } = self;
        f.debug_struct("BuildRequest")
            .field("image", image)
            .field("path", path)
            .field("builder", builder)
            .field("publish", publish)
            .finish_non_exhaustive()
    }
}
