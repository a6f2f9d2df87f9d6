//! Make an image of a root filesystem's archive, such as mmdebstrap(1) writes: one layer, its bytes taken as they are.

use std::path::{Path, PathBuf};

use coracle_images::{Config, Digest, History, Image, Layer, Platform, Reference};
use coracle_runtime::{Access, Bind, Runtime, Terminator};

use crate::build::makers;
use crate::error::Error;
use crate::event::Observer;
use crate::home::Home;
use crate::stage::Stage;
use crate::worker::{KeepImage, LayerSource, PackLayers};

/// The time of everything made here: 1980-01-01T00:00:01Z, so that equal input gives equal images.
pub(crate) const CREATED: &str = "1980-01-01T00:00:01Z";

/// Where the archive is in the stage's root.
const ARCHIVE: &str = "/in/archive";

/// What to import, and what its image says of it.
#[derive(Debug)]
pub struct ImportRequest {
    /// The archive: tar, plain or compressed with gzip or zstd.
    pub archive: PathBuf,
    /// The image's name.
    pub reference: Reference,
    /// Variables, in this order; of two with one name, the last counts.
    pub env: Vec<(String, String)>,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// The user programs run as, `USER[:GROUP]`.
    pub user: Option<String>,
    /// The folder programs start in.
    pub working_dir: Option<String>,
}

/// Why an archive was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The name has a digest.
    #[error(
        "{0} names an image by its digest, which is not known before the image is made; name it by a tag"
    )]
    Digest(Reference),
    /// A path that does not lead to an archive.
    #[error("could not use the archive {}", path.display())]
    Archive {
        /// As it was given.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// What is at the path is no image.
    #[error("could not import {}: {why}", path.display())]
    Unfit {
        /// As it was given.
        path: PathBuf,
        /// What the worker says.
        why: String,
    },
    /// The image's documents could not be written.
    #[error(transparent)]
    Image(#[from] coracle_images::ImageError),
}

/// Import. `hold` gets the handle with which a signal handler ends the work at once.
///
/// # Errors
/// [`Error::Import`], or what keeps a stage from starting.
pub fn import(
    home: &Home,
    request: &ImportRequest,
    observer: &dyn Observer,
    hold: &dyn Fn(Terminator),
) -> Result<Digest, Error> {
    check_name(&request.reference)?;
    let bind = bind_archive(&request.archive)?;
    let stage = Stage::start_with(home, Runtime::Youki, vec![bind], observer, hold)?;
    let unfit = |error| match error {
        Error::Worker(why) => ImportError::Unfit { path: request.archive.clone(), why }.into(),
        other => other,
    };
    let layers = vec![LayerSource::Archive(ARCHIVE.into())];
    let layers = stage.work(PackLayers { layers }).map_err(unfit)?;
    let image = image(request, layers).map_err(ImportError::from)?;
    makers::written_by(home, &request.reference, "import")?;
    stage.work(KeepImage::new(&request.reference, &image, &stage)).map_err(unfit)?;
    stage.finish()?;
    Ok(image.digest)
}

/// An image that is made now cannot have a name that says what it is made of.
pub(crate) fn check_name(reference: &Reference) -> Result<(), ImportError> {
    if reference.digest.is_some() { Err(ImportError::Digest(reference.clone())) } else { Ok(()) }
}

fn bind_archive(path: &Path) -> Result<Bind, ImportError> {
    let fail = |source| ImportError::Archive { path: path.to_owned(), source };
    // Opened once, so that a file this user may not read is told before anything starts.
    let found = std::fs::File::open(path).and_then(|file| file.metadata()).map_err(fail)?;
    if !found.is_file() {
        let why = "it is not a plain file; give the path of a tar archive".to_owned();
        return Err(ImportError::Unfit { path: path.to_owned(), why });
    }
    let source = path.canonicalize().map_err(fail)?;
    Ok(Bind { source, target: ARCHIVE.into(), access: Access::ReadOnly })
}

/// The image's documents: nothing of this machine, this user or this moment is in them.
fn image(request: &ImportRequest, layers: Vec<Layer>) -> Result<Image, coracle_images::ImageError> {
    let platform = Platform::host();
    let mut config = Config {
        architecture: platform.architecture,
        os: platform.os,
        created: Some(CREATED.to_owned()),
        history: vec![History {
            created: Some(CREATED.to_owned()),
            created_by: "coracle import".to_owned(),
            ..History::default()
        }],
        ..Config::default()
    };
    request.env.iter().for_each(|(name, value)| config.set_env(name, value));
    config.config.labels = request.labels.iter().cloned().collect();
    config.config.user = request.user.clone().unwrap_or_default();
    config.config.working_dir = request.working_dir.clone().unwrap_or_default();
    Image::assemble(config, layers)
}
