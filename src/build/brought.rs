//! What the user brings for programs of buildpacks, besides the application.

use std::path::{Path, PathBuf};

use coracle_runtime::{EphemeralFile, IdMap, Mount};
use zeroize::Zeroizing;

use super::BuildRequest;
use super::bindings::{self, Binding, BuildSecret};
use super::volumes::{self, Surroundings, Volume};
use super::withheld;
use crate::error::Error;

/// Bindings, secrets and volumes.
#[derive(Debug, Clone, Default)]
pub struct Brought {
    /// Service bindings, at `/platform/bindings/NAME`.
    pub bindings: Vec<Binding>,
    /// Secrets for `bin/build`, at `/run/secrets/NAME`.
    pub secrets: Vec<BuildSecret>,
    /// Folders and files of the host.
    pub volumes: Vec<Volume>,
    /// Whether volumes may show what is sensitive.
    pub volume_force: bool,
    /// Files that variables for buildpacks were read from.
    pub env_files: Vec<PathBuf>,
    /// The user's home, most of which is sensitive.
    pub user_home: Option<PathBuf>,
}

impl Brought {
    /// With volumes that can be mounted, or why not. `own` are folders of ours.
    pub(super) fn checked(request: &BuildRequest, source: &Path, own: &[PathBuf]) -> Result<Self, Error> {
        let brought = &request.brought;
        bindings::check(&brought.bindings, &brought.secrets, request.build_layers)?;
        let mut checked = brought.clone();
        if !brought.volumes.is_empty() {
            let table = Path::new("/proc/self/mountinfo");
            let mounts = std::fs::read_to_string(table).map_err(Error::folder("read", table))?;
            let home = brought.user_home.as_ref().and_then(|home| home.canonicalize().ok());
            let places = withheld::secrets(request).filter_map(|(path, _)| path.canonicalize().ok());
            let secrets: Vec<PathBuf> = places.collect();
            checked.volumes = volumes::checked(
                &brought.volumes,
                &Surroundings {
                    home: home.as_deref(),
                    source,
                    own,
                    secrets: &secrets,
                    mounted: &volumes::mount_points(&mounts),
                    forced: brought.volume_force,
                },
            )?;
        }
        Ok(checked)
    }

    /// Where on the host secrets of it were read, and which.
    pub(super) fn origins(&self) -> impl Iterator<Item = (&Path, String)> {
        let files = self.env_files.iter().map(|path| (path.as_path(), "variables of --env-file".to_owned()));
        let bindings = self.bindings.iter().map(Binding::origin);
        bindings.chain(self.secrets.iter().map(BuildSecret::origin)).chain(files)
    }

    /// Variables that say where it is, unless the user's own do.
    pub(super) fn variables(
        &self,
        given: &[(String, Zeroizing<String>)],
    ) -> Option<(String, Zeroizing<String>)> {
        let wanted =
            !self.bindings.is_empty() && !given.iter().any(|(name, _)| name == bindings::ROOT_VARIABLE);
        wanted.then(|| (bindings::ROOT_VARIABLE.to_owned(), bindings::BINDINGS.to_owned().into()))
    }

    /// Files of each phase that runs programs of buildpacks; secrets only where images are built.
    pub(super) fn files(&self, builds: bool) -> impl Iterator<Item = EphemeralFile> {
        let secrets = self.secrets.iter().filter(move |secret| builds && secret.is_for_all());
        bindings::files_of(&self.bindings).chain(secrets.map(BuildSecret::file))
    }

    /// Files that only one buildpack gets.
    pub(super) fn files_of(&self, buildpack: &str) -> impl Iterator<Item = EphemeralFile> {
        self.secrets.iter().filter(move |secret| secret.is_for(buildpack)).map(BuildSecret::file)
    }

    /// Volumes in each phase that runs programs of buildpacks.
    pub(super) fn mounts(&self) -> impl Iterator<Item = Mount> {
        volumes::mounts(&self.volumes)
    }

    /// What the user should know before buildpacks of the user id `uid` run.
    pub(super) fn notices(&self, ids: IdMap, uid: u32) -> Vec<String> {
        self.volumes.iter().filter_map(|volume| volumes::notice(volume, ids.host(uid)?)).collect()
    }
}
