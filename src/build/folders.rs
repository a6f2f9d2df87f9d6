//! Where everything of one build lies: in the stage's root, and in its guests.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::creator::CREATOR;

/// The application's source, read-only, in the stage's root.
pub(crate) const SOURCE: &str = "/source";
/// The folder of the application's cache in the stage's root; [`CACHE_DATA`] in it is what guests see.
pub(crate) const CACHE: &str = "/cache";
/// Where cached layers stay unpacked, and the copy of the application; guests see nothing of it but the folders of both.
pub(crate) const TREE: &str = "/cache/tree";
/// In the control folder: layers that need neither be unpacked nor read, verified.
pub(crate) const UNCHANGED: &str = "unchanged.toml";
/// The exporter's word on the layers that are in the cache now.
pub(crate) const PACKED: &str = "packed.toml";
/// The analyzer's word on the images that the exporter will ask for by their digests.
pub(crate) const KNOWN_IMAGES: &str = "known-images.toml";
/// Owned by the phases' user.
pub(crate) const CACHE_DATA: &str = "data";
/// Folders of buildpacks that the user brings, each in one numbered folder.
pub(crate) const BUILDPACKS: &str = "/buildpacks";

/// The folders of one build below its work folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Folders {
    /// The work folder, in the stage's root.
    pub(crate) root: PathBuf,
    /// Whether layers stay unpacked until the next build, and the copy of the application stays.
    pub(crate) tree: bool,
}

impl Folders {
    fn below(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Documents that phases only read. Only workers write here.
    pub(crate) fn control(&self) -> PathBuf {
        self.below("control")
    }

    /// What `phase` writes for us to read.
    pub(crate) fn out(&self, phase: &str) -> PathBuf {
        self.below("out").join(phase)
    }

    /// What `phase` changes in the builder's root filesystem.
    pub(crate) fn scratch(&self, phase: &str) -> PathBuf {
        self.below("scratch").join(phase)
    }

    /// `/layers` of the phases.
    pub(crate) fn layers(&self) -> PathBuf {
        if self.tree { Path::new(TREE).join("layers") } else { self.below("layers") }
    }

    /// The copy of the application.
    pub(crate) fn workspace(&self) -> PathBuf {
        if self.tree { Path::new(TREE).join("workspace") } else { self.below("workspace") }
    }

    /// OCI layouts of images that phases ask for, and of the one they make.
    pub(crate) fn layout(&self) -> PathBuf {
        self.below("layout")
    }

    /// New layers on their way to a registry.
    pub(crate) fn new_layers(&self) -> PathBuf {
        self.below("new-layers")
    }

    /// The root filesystem of a lifecycle that is there for this build alone: on the stage's own tmpfs, which ends with its last
    /// process, however that ends.
    pub(crate) fn lifecycle() -> PathBuf {
        "/run/lifecycle".into()
    }

    /// A layer above the builder's with buildpacks of the user.
    pub(crate) fn buildpacks(&self) -> PathBuf {
        self.below("buildpacks")
    }

    /// Folders that only workers write.
    pub(crate) fn of_ours(&self) -> Vec<PathBuf> {
        let phases = ["describe-builder", "detect-programs", "generate-programs", "builder", CREATOR];
        let scratch = phases.map(|phase| self.scratch(phase));
        [self.control(), self.buildpacks()].into_iter().chain(scratch).collect()
    }

    /// Folders that the phases' user writes.
    pub(crate) fn of_the_guest(&self) -> Vec<PathBuf> {
        let phases = [
            "describe-builder",
            "analyzer",
            "detect-programs",
            "generate-programs",
            "restorer",
            "exporter",
            CREATOR,
        ];
        let out = phases.map(|phase| self.out(phase));
        [self.layers(), self.layout(), self.new_layers()].into_iter().chain(out).collect()
    }
}

/// A guest's paths (Platform API, and ours below it).
pub(crate) mod guest {
    pub(crate) const CONTROL: &str = "/control";
    /// For the exporter, what the analyzer wrote.
    pub(crate) const ANALYZER: &str = "/analyzer";
    pub(crate) const OUT: &str = "/out";
    pub(crate) const LAYERS: &str = "/layers";
    pub(crate) const WORKSPACE: &str = "/workspace";
    pub(crate) const CACHE: &str = "/cache";
    pub(crate) const LAYOUT: &str = "/layout";
    pub(crate) const SCRATCH: &str = "/scratch";
    /// Where programs of buildpacks find their plans: always there, for they may write down their environment.
    pub(crate) const PLANS: &str = "/tmp/coracle-plans";
    pub(crate) const DOCKER_CONFIG: &str = "/run/coracle";
}

/// Where a buildpack lies in a builder (Platform specification, "Builder").
pub(crate) fn place_of_buildpack(id: &coracle_cnb::BuildpackId, version: &str) -> PathBuf {
    Path::new("/cnb/buildpacks").join(id.dir()).join(version)
}
