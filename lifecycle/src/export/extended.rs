//! A run image that an extender of another platform has extended: an OCI layout in `<extended>/run`, without the layers that the run
//! image already had (Platform API, "extender", "`<extended>`").

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use coracle_images::pack::{EPOCH, PackError, pack_again};
use coracle_images::{Digest, Image, ImageError, Index};

use crate::folder::{self, FolderError};

/// Why there is no extended run image.
#[derive(Debug, thiserror::Error)]
pub enum ExtendedError {
    /// The folder cannot be opened.
    #[error("open the folder of extended images: `{path}`")]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file in it cannot be read.
    #[error("read the extended run image in `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: FolderError,
    },
    /// It cannot be said which image is meant.
    #[error("`{path}` holds {count} images, expected the one that was extended: remove the others")]
    Count { path: PathBuf, count: usize },
    /// The layout lacks something.
    #[error("the extended run image in `{path}` has no {what}")]
    Incomplete { path: PathBuf, what: String },
    /// The index is none.
    #[error("read the index of the extended run image in `{path}`")]
    Index {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// Its documents make no image.
    #[error("the extended run image in `{path}` is damaged")]
    Image {
        path: PathBuf,
        #[source]
        source: ImageError,
    },
}

/// An extended run image.
#[derive(Debug)]
pub struct Extended {
    /// With the layers that are not here.
    pub image: Image,
    pub(super) layers: Vec<ExtendedLayer>,
}

/// A layer that extensions added.
#[derive(Debug)]
pub(super) struct ExtendedLayer {
    /// As logs name it.
    pub(super) name: String,
    /// `created_by` of its history.
    pub(super) created_by: String,
    archive: File,
}

impl Extended {
    /// Looks below `dir`; nothing where no run image was extended.
    pub fn find(dir: &Path) -> Result<Option<Self>, ExtendedError> {
        let at = match File::open(dir) {
            Ok(at) => at,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ExtendedError::Open { path: dir.to_owned(), source }),
        };
        let (run, path) = (Path::new("run"), dir.join("run"));
        let failed = |source| ExtendedError::Read { path: path.clone(), source };
        let entries = folder::entries(at.as_fd(), run).map_err(failed)?;
        match &entries[..] {
            [] => Ok(None),
            [layout] => Self::read(&at, &run.join(&layout.name), dir).map(Some),
            more => Err(ExtendedError::Count { path, count: more.len() }),
        }
    }

    fn read(at: &File, layout: &Path, dir: &Path) -> Result<Self, ExtendedError> {
        let path = dir.join(layout);
        let failed = |source| ExtendedError::Read { path: path.clone(), source };
        let missing = |what: &str| ExtendedError::Incomplete { path: path.clone(), what: what.to_owned() };
        let text = |name: &str| -> Result<String, ExtendedError> {
            let text = folder::text(at.as_fd(), &layout.join(name)).map_err(failed)?;
            text.ok_or_else(|| missing(&format!("`{name}`")))
        };
        let index: Index = serde_json::from_str(&text("index.json")?)
            .map_err(|source| ExtendedError::Index { path: path.clone(), source })?;
        let [manifest] = &index.manifests[..] else {
            return Err(ExtendedError::Count { path, count: index.manifests.len() });
        };
        let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let manifest = text(&blob(&manifest.digest))?;
        let damaged = |source| ExtendedError::Image { path: path.clone(), source };
        let config = Image::config_of(manifest.as_bytes()).map_err(damaged)?;
        let config = text(&blob(&config.digest))?;
        let image = Image::from_bytes(None, manifest.into(), config.into()).map_err(damaged)?;
        let mut layers = Vec::new();
        let history: Vec<&str> = image
            .config
            .history
            .iter()
            .filter(|step| !step.empty_layer)
            .map(|step| step.created_by.as_str())
            .collect();
        for (number, layer) in image.layers().iter().enumerate() {
            let blob = layout.join(blob(&layer.descriptor.digest));
            // Those of the run image are not here.
            let Some(archive) = folder::file(at.as_fd(), &blob).map_err(failed)? else { continue };
            let created_by = (*history.get(number).unwrap_or(&"")).to_owned();
            layers.push(ExtendedLayer { name: name(&created_by, number), created_by, archive });
        }
        Ok(Self { image, layers })
    }
}

impl ExtendedLayer {
    /// Writes its archive.
    pub(super) fn pack(&self, out: &mut dyn Write) -> Result<(), PackError> {
        pack_again(Again { file: &self.archive, at: 0 }, EPOCH, out)
    }
}

/// As the extender has it in the history: `Layer: 'RUN ...', Created by extension: ID`.
fn name(created_by: &str, number: usize) -> String {
    let extension = created_by.rsplit_once("Created by extension: ").map(|(_, extension)| extension);
    format!("{}:extended-layer-{number}", extension.unwrap_or("from extensions"))
}

/// A file from its beginning, however often.
struct Again<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Again<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
