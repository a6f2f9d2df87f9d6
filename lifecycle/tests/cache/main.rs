//! The cache between builds, in folders and in images: what is saved, what comes back, and what becomes of a bad one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod image;
mod restored;
mod saved;
mod stayed;

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use coracle_cnb::Group;
use coracle_fixtures::DockerRegistry;
use coracle_images::Digest;
use coracle_lifecycle::cache::{Cache, CacheError, CacheStep, SaveInput, Saved, Saving};

const METADATA: &str = "committed/io.buildpacks.lifecycle.cache.metadata";

/// The recordings of restorers.
fn recorded() -> serde_json::Value {
    serde_json::from_str(include_str!("../data/restore.json")).unwrap()
}

/// How many uploads of content a registry has finished.
fn uploads(registry: &DockerRegistry) -> usize {
    let log = registry.access_log();
    log.lines().filter(|line| line.contains("\"PUT ") && line.contains("/blobs/uploads/")).count()
}

/// The folders of one build after another.
struct Folders {
    dir: tempfile::TempDir,
}

impl Folders {
    fn new(group: &str) -> Self {
        let folders = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(folders.layers()).unwrap();
        fs::set_permissions(folders.layers(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folders.dir.path().join("group.toml"), group).unwrap();
        folders
    }

    fn layers(&self) -> PathBuf {
        self.dir.path().join("layers")
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.layers().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Packs the cached layers, which are at `layers_path` for the build.
    fn packed(&self, layers_path: &str, saving: &Saving<'_>) -> Result<Saved, CacheError> {
        let group = fs::read_to_string(self.dir.path().join("group.toml")).unwrap();
        let group: Group = toml::from_str(&group).unwrap();
        let layers = File::open(self.layers()).unwrap();
        let input = SaveInput {
            group: &group,
            layers_dir: layers.as_fd(),
            layers_path,
            above_layers: &[],
            owner: (1001, 1002),
            owner_above: Some((1001, 1002)),
        };
        saving.pack(&input)
    }

    /// Saves the cached layers, which are at `layers_path` for the build.
    fn save_as(
        &self,
        layers_path: &str,
        previous: &Cache,
        verified: &[Digest],
    ) -> Result<Vec<CacheStep>, CacheError> {
        let saving = Saving::to_folder(&self.cache(), previous, verified)?;
        let saved = self.packed(layers_path, &saving)?;
        saving.commit(&saved)?;
        Ok(saved.steps())
    }

    /// The names and inodes of the cache's archives.
    fn archives(&self) -> Vec<(String, u64)> {
        let entries = fs::read_dir(self.cache().join("committed")).unwrap().map(Result::unwrap);
        let mut archives: Vec<_> = entries
            .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().ino()))
            .filter(|(name, _)| Path::new(name).extension().is_some_and(|extension| extension == "tar"))
            .collect();
        archives.sort();
        archives
    }

    fn archive(&self, name: &str) -> PathBuf {
        self.cache().join("committed").join(name)
    }

    fn metadata(&self) -> String {
        fs::read_to_string(self.cache().join(METADATA)).unwrap()
    }

    /// Removes all that the build left.
    fn empty(&self) {
        open_folders(&self.layers());
        fs::remove_dir_all(self.layers()).unwrap();
        fs::create_dir(self.layers()).unwrap();
    }
}

/// Read-only folders cannot be emptied.
fn open_folders(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            open_folders(&entry.path());
        }
    }
}
