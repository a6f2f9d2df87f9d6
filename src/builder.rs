//! Make a builder: a build image, and above it buildpacks, the order to try them in, and the names of run images.
//!
//! The description is the `builder.toml` that `pack builder create` reads. The builder has a lifecycle for other platforms,
//! by default that of this program; a build with this program uses the one inside it (docs/decisions/0032).

mod buildpacks;
mod definition;
mod image;

use std::path::{Path, PathBuf};

use coracle_cnb::DocumentError;
use coracle_images::{Digest, Image, Reference, Store};
use coracle_runtime::{Access, Bind, Runtime, Terminator};

use self::buildpacks::Buildpack;
use self::definition::{Definition, Lifecycle};
use self::image::Contents;
use crate::build::makers;
use crate::credentials::Keychain;
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::home::Home;
use crate::pull::{PullRequest, pull};
use crate::stage::Stage;
use crate::worker::{KeepImage, PackLayers, PushImage, Remote, TakeLifecycle, Verified, WriteLifecycle};

/// What to create.
#[derive(Debug)]
pub struct BuilderRequest {
    /// The builder's name.
    pub reference: Reference,
    /// Its description, `builder.toml`.
    pub config: PathBuf,
    /// Whether to send it to its registry too.
    pub publish: bool,
    /// Registries spoken to in plain HTTP; those on loopback need not be named.
    pub insecure: Vec<String>,
    /// Credentials; only those of the images spoken of leave this process.
    pub auth: Keychain,
}

/// A builder that is in the store now.
#[derive(Debug, PartialEq, Eq)]
pub struct BuilderCreated {
    /// Its manifest's digest.
    pub digest: Digest,
}

/// Why a builder was not created.
#[derive(Debug, thiserror::Error)]
pub enum BuilderError {
    /// A file or folder cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A document is not what it should be.
    #[error("could not use {}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<DocumentError>,
    },
    /// The description leaves something out.
    #[error("builder.toml does not name {0}")]
    Missing(&'static str),
    /// The description has something that cannot be done.
    #[error("builder.toml asks for {what}, which this program cannot do; {instead}")]
    Unsupported {
        /// What it has.
        what: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// A buildpack that is no folder of this machine.
    #[error("buildpack `{locator}` is not a local folder; {instead}")]
    Locator {
        /// As it is in the file.
        locator: String,
        /// What to do.
        instead: &'static str,
    },
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] coracle_images::ReferenceError),
    /// A folder holds no buildpack that can be used.
    #[error("could not use {}: {why}", path.display())]
    Unfit {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The order names what is not there.
    #[error("the order names the buildpack `{name}`: {why}")]
    Order {
        /// Its id, with the version where there is one.
        name: String,
        /// What is wrong, and what to do.
        why: &'static str,
    },
    /// The build image does not say who builds.
    #[error(
        "the build image {image} has no number in {name} (found `{found}`); set it when making the image, as in: coracle import --env {name}=1000"
    )]
    User {
        /// The image.
        image: String,
        /// The variable.
        name: &'static str,
        /// Its value.
        found: String,
    },
    /// The build image says that root builds.
    #[error("the build image {image} has {name}=0, but buildpacks do not run as root; name another user")]
    Root {
        /// The image.
        image: String,
        /// The variable.
        name: &'static str,
    },
    /// The build image is of another stack.
    #[error("the build image {image} is of the stack `{found}`, but builder.toml says `{wanted}`")]
    Stack {
        /// The image.
        image: String,
        /// As in its label.
        found: String,
        /// As in the file.
        wanted: String,
    },
    /// A document of the builder could not be written.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The image's documents could not be written.
    #[error(transparent)]
    Image(#[from] coracle_images::ImageError),
}

/// Create. `hold` gets the handle with which a signal handler ends the work at once.
///
/// # Errors
/// [`Error::Builder`], or what keeps a stage from starting, an image from being fetched or sent.
pub fn create_builder(
    home: &Home,
    request: &BuilderRequest,
    observer: &dyn Observer,
    hold: &dyn Fn(Terminator),
) -> Result<BuilderCreated, Error> {
    crate::import::check_name(&request.reference)?;
    let definition = Definition::read(&request.config)?;
    let folder = request.config.parent().unwrap_or(Path::new("."));
    let buildpacks = definition.buildpacks.iter().map(|wanted| Buildpack::read(folder, wanted));
    let buildpacks = buildpacks.collect::<Result<Vec<_>, _>>()?;
    buildpacks::check_unique(&buildpacks)?;
    let order = buildpacks::resolve_order(&definition.order, &buildpacks)?;
    let system = buildpacks::resolve_system(&definition.system, &buildpacks)?;
    let lifecycle = lifecycle_of(&definition, folder, observer)?;
    let base = base_image(home, &definition, request, observer, hold)?;
    let user = image::user_of(&base)?;

    let binds = buildpacks.iter().enumerate().map(|(number, buildpack)| Bind {
        source: buildpack.folder.clone(),
        target: image::source(number).into(),
        access: Access::ReadOnly,
    });
    let binds = binds.chain(lifecycle.iter().map(|source| Bind {
        source: source.clone(),
        target: LIFECYCLE.into(),
        access: Access::ReadOnly,
    }));
    let stage = Stage::start_with(home, Runtime::Youki, binds.collect(), observer, hold)?;
    let taken = stage.folder().join("lifecycle");
    let text = match &lifecycle {
        None => stage.work(WriteLifecycle { into: taken.clone() })?,
        Some(path) => stage.work(TakeLifecycle {
            source: LIFECYCLE.into(),
            name: path.display().to_string(),
            into: taken.clone(),
            ids: stage.ids,
            verified: Verified::Not,
        })?,
    };
    let contents = Contents {
        definition: &definition,
        buildpacks: &buildpacks,
        order: &order,
        system: &system,
        lifecycle: &coracle_cnb::read_toml("lifecycle.toml", &text).map_err(BuilderError::from)?,
        lifecycle_programs: &taken.join("cnb/lifecycle"),
    };
    let layers = stage.work(PackLayers { layers: contents.layers(user).map_err(BuilderError::from)? })?;
    let image = contents.image(&base, &layers)?;
    makers::written_by(home, &request.reference, "builder create")?;
    stage.work(KeepImage::new(&request.reference, &image, &stage))?;
    if request.publish {
        let image =
            Remote::new(&request.reference, &request.insecure, Some(&request.auth.keys(observer, None)))?;
        stage.work(PushImage { image })?;
    }
    stage.finish()?;
    Ok(BuilderCreated { digest: image.digest })
}

/// Where the worker finds the lifecycle that the file names.
const LIFECYCLE: &str = "/in/lifecycle";

/// The archive or folder of the lifecycle that the file names; nothing where it is ours.
fn lifecycle_of(
    definition: &Definition,
    folder: &Path,
    observer: &dyn Observer,
) -> Result<Option<PathBuf>, BuilderError> {
    match &definition.lifecycle {
        Lifecycle::Own => Ok(None),
        Lifecycle::OwnInsteadOf(version) => {
            let text = format!(
                "builder.toml asks for the lifecycle {version}, which is not fetched: the builder gets the one inside this program; to choose another, name its release archive as `uri` of [lifecycle]"
            );
            observer.event(Event::Notice { text });
            Ok(None)
        }
        Lifecycle::At(path) => {
            let path = folder.join(path);
            let found = std::fs::canonicalize(&path);
            found.map(Some).map_err(|source| BuilderError::Read { path, source })
        }
    }
}

/// The build image of the store, fetched where it is not there.
fn base_image(
    home: &Home,
    definition: &Definition,
    request: &BuilderRequest,
    observer: &dyn Observer,
    hold: &dyn Fn(Terminator),
) -> Result<Image, Error> {
    let reference = &definition.build_image;
    let store = Store::open(home.store())?;
    let base = match store.image(reference)? {
        Some(image) => image,
        None => {
            let request = PullRequest {
                reference: reference.clone(),
                insecure: request.insecure.clone(),
                auth: request.auth.clone(),
            };
            pull(home, &request, observer, hold)?;
            store.image(reference)?.ok_or_else(|| Error::NoImage(reference.to_string()))?
        }
    };
    let found = base.config.label("io.buildpacks.stack.id").unwrap_or_default();
    if !definition.stack_id.is_empty() && found != definition.stack_id {
        let (image, wanted) = (reference.to_string(), definition.stack_id.clone());
        return Err(BuilderError::Stack { image, found: found.to_owned(), wanted }.into());
    }
    Ok(base)
}
