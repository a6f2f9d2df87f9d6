//! What a build is asked for.

use std::path::PathBuf;
use std::time::Duration;

use coracle_images::{LayerCompression, Reference};
use coracle_runtime::{Network, Runtime};

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
    /// Variables for the buildpacks (`/platform/env`).
    pub env: Vec<(String, String)>,
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
    /// Whose programs play the phases.
    pub lifecycle: LifecycleChoice,
    /// Where lifecycles are published, for phases that an untrusted builder is kept away from.
    pub lifecycle_image: LifecycleImage,
    /// Where their release archives are, for versions of which no image is to be had.
    pub lifecycle_archives: LifecycleArchives,
    /// Phases that this program plays although another lifecycle was chosen.
    pub native_phases: Vec<NativePhase>,
    /// Whether the phases say more.
    pub verbose: bool,
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
