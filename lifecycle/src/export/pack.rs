//! The archive of one layer.

use std::io::{Error, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use coracle_cnb::write_toml;
use coracle_images::pack::{EPOCH, PackError, Parent, TarWriter};
use nix::sys::stat::{Mode, fstat};

use super::{ExportInput, Found, LayerSource};
use crate::folder;

/// Writes a layer's archive. Folders above the layer's own come first, as they are, owners included; all below belongs to the build's
/// user.
pub(super) fn pack(
    input: &ExportInput<'_>,
    found: &Found,
    source: &LayerSource,
    out: &mut dyn Write,
) -> Result<(), PackError> {
    if let LayerSource::Extension(place) = source {
        return input.extended.map_or(Ok(()), |extended| extended.layers[*place].pack(out));
    }
    let tar = TarWriter::new(out, EPOCH);
    match source {
        LayerSource::Extension(_) => tar.finish(),
        LayerSource::Buildpack { buildpack, layer } | LayerSource::Previous { buildpack, layer, .. } => {
            let dir = found.buildpacks[*buildpack].element.id.dir();
            input.layers().pack(&Path::new(&dir).join(layer), tar)
        }
        LayerSource::Sbom => match input.bills.filter(|bills| bills.are_in_image()) {
            Some(bills) => bills.pack(input.layers(), tar),
            None => input.layers().pack(Path::new("sbom/launch"), tar),
        },
        LayerSource::App(paths) => input.app().pack(paths, tar),
        LayerSource::Launcher => launcher(input, tar),
        LayerSource::Config if input.config_as_it_is => input.layers().pack(Path::new("config"), tar),
        LayerSource::Config => config(input, tar),
        LayerSource::ProcessTypes => process_types(input, tar),
    }
}

/// The build's layers, as layers of images and caches are packed of them.
#[derive(Debug, Clone, Copy)]
pub struct Layers<'a> {
    pub dir: BorrowedFd<'a>,
    /// Where that folder is in the image.
    pub path: &'a str,
    /// Those above it, from the root.
    pub above: &'a [Parent],
    /// Of a layer and all in it.
    pub owner: (u32, u32),
    /// Of what is above a layer, if not its own.
    pub owner_above: Option<(u32, u32)>,
}

/// The application, as layers of images are packed of it.
#[derive(Debug, Clone, Copy)]
pub struct App<'a> {
    pub dir: BorrowedFd<'a>,
    /// Where that folder is in the image.
    pub path: &'a str,
    /// Those above it, from the root.
    pub above: &'a [Parent],
    /// Of all in it.
    pub owner: (u32, u32),
}

impl ExportInput<'_> {
    pub(super) fn layers(&self) -> Layers<'_> {
        Layers {
            dir: self.layers_dir,
            path: self.layers_path,
            above: self.above_layers,
            owner: self.owner,
            owner_above: self.owner_above,
        }
    }

    fn app(&self) -> App<'_> {
        App { dir: self.app_dir, path: self.app_path, above: self.above_app, owner: self.owner }
    }
}

impl Layers<'_> {
    /// Writes the archive of a folder below the layers' folder, those above it first.
    pub(crate) fn pack(&self, path: &Path, mut tar: TarWriter<'_>) -> Result<(), PackError> {
        let in_image = |path: &Path| format!("{}/{}", self.path, path.display());
        self.parents(&mut tar)?;
        if let Some(folder_above) = path.parent().filter(|above| *above != Path::new("")) {
            let dir = open(self.dir, folder_above)?;
            tar.parents(&[self.parent(in_image(folder_above), dir.as_fd())?])?;
        }
        let dir = open(self.dir, path)?;
        tar.tree(dir.as_fd(), &in_image(path), self.owner.0, self.owner.1)?;
        tar.finish()
    }

    /// Writes the layers' folder, those above it first.
    pub(super) fn parents(&self, tar: &mut TarWriter<'_>) -> Result<(), PackError> {
        tar.parents(self.above)?;
        tar.parents(&[self.parent(self.path.to_owned(), self.dir)?])
    }

    /// A folder above a layer.
    pub(super) fn parent(&self, path: String, dir: BorrowedFd<'_>) -> Result<Parent, PackError> {
        let own = parent(path, dir)?;
        let (uid, gid) = self.owner_above.unwrap_or((own.uid, own.gid));
        Ok(Parent { uid, gid, ..own })
    }
}

impl App<'_> {
    /// Writes the archive of some of its paths, and before them, if there are any, the folders above.
    pub(super) fn pack(&self, paths: &[PathBuf], mut tar: TarWriter<'_>) -> Result<(), PackError> {
        if !paths.is_empty() {
            tar.parents(self.above)?;
        }
        for path in paths {
            if path == Path::new("") {
                let own = parent(self.path.to_owned(), self.dir)?;
                tar.folder(&own.path, own.mode, self.owner.0, self.owner.1)?;
            } else {
                tar.path(self.dir, self.path, path, self.owner.0, self.owner.1)?;
            }
        }
        tar.finish()
    }
}

fn launcher(input: &ExportInput<'_>, mut tar: TarWriter<'_>) -> Result<(), PackError> {
    tar.parents(&[root("/cnb"), root("/cnb/lifecycle")])?;
    let mut program = input.launcher.program;
    tar.file("/cnb/lifecycle/launcher", 0o755, 0, 0, program.len() as u64, &mut program)?;
    tar.finish()
}

fn config(input: &ExportInput<'_>, mut tar: TarWriter<'_>) -> Result<(), PackError> {
    let (uid, gid) = input.owner;
    let folder = format!("{}/config", input.layers_path);
    let path = format!("{folder}/metadata.toml");
    let text = write_toml(input.metadata).map_err(|error| unread(&path, Error::other(error)))?;
    input.layers().parents(&mut tar)?;
    // What a folder takes over of the one that it is made in (mkdir(2)).
    let inherited = parent(folder.clone(), input.layers_dir)?.mode & Mode::S_ISGID.bits();
    tar.folder(&folder, 0o755 | inherited, uid, gid)?;
    tar.file(&path, 0o644, uid, gid, text.len() as u64, &mut text.as_bytes())?;
    tar.finish()
}

fn process_types(input: &ExportInput<'_>, mut tar: TarWriter<'_>) -> Result<(), PackError> {
    tar.parents(&[root("/cnb"), root("/cnb/process")])?;
    for process in &input.metadata.processes {
        // Links of the reference have this mode, and the layer's digest is compared.
        tar.symlink(&format!("/cnb/process/{}", process.kind), "/cnb/lifecycle/launcher", 0o755, 0, 0)?;
    }
    tar.finish()
}

fn root(path: &str) -> Parent {
    Parent { path: path.to_owned(), uid: 0, gid: 0, mode: 0o755 }
}

/// A folder of the build, as it is.
pub(super) fn parent(path: String, dir: BorrowedFd<'_>) -> Result<Parent, PackError> {
    let stat = fstat(dir).map_err(|errno| unread(&path, errno.into()))?;
    Ok(Parent { path, uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 })
}

fn open(layers_dir: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, PackError> {
    let shown = path.display().to_string();
    match folder::folder(layers_dir, path) {
        Ok(Some(dir)) => Ok(dir),
        Ok(None) => Err(PackError::Changed { path: shown }),
        Err(error) => Err(unread(&shown, Error::other(error))),
    }
}

pub(super) fn unread(path: &str, source: Error) -> PackError {
    PackError::Read { act: "read", path: path.to_owned(), source }
}
