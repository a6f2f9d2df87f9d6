//! A folder for what a phase writes only to read it again.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::Call;
use crate::file::FileError;

/// The folder; one of our own making is removed with this value.
pub(super) struct Scratch {
    path: PathBuf,
    own: bool,
}

impl Scratch {
    /// The folder that `-scratch` names, else a new one in `TMPDIR` or `/tmp` that nobody else can have prepared (mkdtemp(3)).
    pub(super) fn of(call: &Call<'_>) -> Result<Self, FileError> {
        if let Some(path) = call.arguments.text("scratch") {
            return Ok(Self { path: path.into(), own: false });
        }
        Self::fresh(call)
    }

    /// A new folder, whatever `-scratch` names: where that lies, programs of buildpacks have been.
    pub(super) fn fresh(call: &Call<'_>) -> Result<Self, FileError> {
        let dir = call.env.get(OsStr::new("TMPDIR")).filter(|dir| !dir.is_empty());
        let dir = dir.map_or(Path::new("/tmp"), Path::new);
        let failed = |source| FileError::Write { path: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let path = nix::unistd::mkdtemp(&dir.join("coracle-XXXXXX")).map_err(|error| failed(error.into()))?;
        Ok(Self { path, own: true })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    /// What cannot be removed lies where the system tidies up.
    fn drop(&mut self) {
        if self.own {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
