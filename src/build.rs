//! From source to an image: which containers run in which order, and what is decided between them.
//!
//! | file | what it holds |
//! |---|---|
//! | `begin.rs` | everything before a program of a buildpack runs, as much of it at once as can be |
//! | `bounds.rs` | what the container of each phase may use and change |
//! | `bindings.rs`, `volumes.rs`, `brought.rs` | what the user brings for programs of buildpacks |
//! | `builder.rs` | what a builder image says of itself |
//! | `buildpacks.rs` | what `--buildpack` means |
//! | `creator.rs` | the one container of a trusted builder |
//! | `extensions.rs` | the run image that image extensions choose |
//! | `flow.rs` | whether phases share a container; their order where they do not |
//! | `folders.rs` | where everything of a build lies |
//! | `foreign.rs` | phases that another lifecycle plays |
//! | `turns.rs` | one phase and what is made of what it left, whoever plays it |
//! | `phase.rs` | the container of each phase: who sees what |
//! | `proxies.rs` | what foreign code learns of the user's proxies |
//! | `request.rs` | what a build is asked for |
//! | `run_image.rs` | whose credentials the run image gets |
//! | `steps.rs` | a container for each buildpack |
//! | `tree.rs` | whose cache it is, and layers that stay unpacked between builds |

mod begin;
mod bindings;
mod bounds;
mod brought;
mod builder;
mod buildpacks;
mod creator;
mod extensions;
mod flow;
pub(crate) mod folders;
pub(crate) mod foreign;
pub(crate) mod makers;
pub(crate) mod phase;
mod proxies;
mod request;
pub(crate) mod run_image;
mod steps;
mod tree;
mod turns;
mod volumes;
mod withheld;

use std::path::{Path, PathBuf};

use coracle_images::{AuthFile, Digest, Image, Reference, Store};
use coracle_runtime::{Access, Bind, Network, Terminator};

pub use bindings::{Binding, BindingError, BuildSecret};
pub use brought::Brought;
pub use buildpacks::{Buildpack, BuildpackError};
pub use coracle_lifecycle::build::SharedLayer;
pub use foreign::{
    ChoiceError, LifecycleArchives, LifecycleChoice, LifecycleDigest, LifecycleError, LifecycleImage,
    NativePhase,
};
pub use request::{BuildRequest, ExecEnv, ExecEnvError};
pub use steps::BuildLayers;
pub use tree::Restore;
pub use volumes::{Volume, VolumeError};

use self::begin::Begun;
use self::flow::Flow;
use self::makers::Makers;
pub(crate) use self::phase::PLATFORM_API;
use crate::credentials::Keys;
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::home::Home;
use crate::pull::fetched;
use crate::stage::Stage;
use crate::worker::Receive;

/// What was built.
#[derive(Debug, PartialEq, Eq)]
pub struct Built {
    /// The manifest's digest.
    pub digest: Digest,
    /// All names.
    pub names: Vec<Reference>,
}

/// Build. `hold` gets the handle with which a signal handler ends the work at once.
///
/// # Errors
/// [`Error::Phase`] with the phase's exit code where a phase failed; everything else of [`Error`].
pub fn build(
    home: &Home,
    request: &BuildRequest,
    observer: &dyn Observer,
    hold: &dyn Fn(Terminator),
) -> Result<Built, Error> {
    let source = request.path.canonicalize().map_err(Error::folder("use the source", &request.path))?;
    if !source.is_dir() {
        return Err(Error::NotAFolder(request.path.clone()));
    }
    if let Some(cache_image) = &request.cache_image {
        let is_output = std::iter::once(&request.image).chain(&request.tags).any(|name| name == cache_image);
        if is_output || !request.publish {
            return Err(Error::CacheImage { image: cache_image.to_string(), is_output });
        }
    }
    let makers = tree::makers_of_cache(request)?;
    let cache = home.cache(&request.image, &makers, request.cache_dir.as_deref(), observer)?;
    let (own, cached) = (home.canonical()?, cache.path.clone());
    if source.starts_with(&own) || source.starts_with(&cached) {
        return Err(Error::SourceIsOurs(source));
    }
    let bind =
        |source: &Path, target: &str, access| Bind { source: source.into(), target: target.into(), access };
    let mut binds = vec![
        bind(&source, folders::SOURCE, Access::ReadOnly),
        bind(&cache.open(), folders::CACHE, Access::ReadWrite),
    ];
    for (number, buildpack) in request.buildpacks.iter().enumerate() {
        if let Buildpack::Folder(path) = buildpack {
            let path = path.canonicalize().map_err(Error::folder("use the buildpack", path))?;
            binds.push(bind(&path, &format!("{}/{number}", folders::BUILDPACKS), Access::ReadOnly));
        }
    }
    let lifecycle = match &request.lifecycle {
        LifecycleChoice::Path(path) => Some(path.as_path()),
        LifecycleChoice::Builder => request.lifecycle_archives.folder(),
        LifecycleChoice::Native | LifecycleChoice::Image(_) => None,
    };
    if let Some(path) = lifecycle {
        let path = path.canonicalize().map_err(Error::folder("use the lifecycle", path))?;
        binds.push(bind(&path, foreign::SOURCE, Access::ReadOnly));
    }
    if request.lifecycle == LifecycleChoice::Native && !request.native_phases.is_empty() {
        return Err(LifecycleError::NothingForeign.into());
    }
    let brought = Brought::checked(request, &source, &[own.clone(), cached.clone()])?;
    binds.extend(volumes::binds(&brought.volumes));
    if request.network == Network::Isolated {
        binds.push(coracle_runtime::way_out()?);
    }
    let stage = Stage::start_with(home, request.runtime, binds, observer, hold)?;
    let below = |path: &PathBuf| Some(path.strip_prefix(&source).ok()?.to_owned());
    let mut excluded: Vec<PathBuf> = [own, cached].iter().filter_map(below).collect();
    for withheld in withheld::withheld(&source, request) {
        let (path, holds) = (withheld.path.display(), &withheld.holds);
        let text = format!("{path} is left out of the application: it holds {holds}");
        observer.event(Event::Notice { text });
        excluded.push(withheld.path);
    }
    let store = Store::open(home.store())?;
    let against_tree = tree::against(request, &cache)?;
    let tree = against_tree.is_none();
    if let Some(why) = against_tree.filter(|_| request.verbose) {
        observer.event(Event::Notice { text: tree::do_not_stay(why) });
    }
    let cache_has_layers = !request.clear_cache && tree::has_layers(&cache);
    let keys = request.auth.keys(observer, Some(&source));
    let build = Build {
        home,
        request,
        stage: &stage,
        store,
        keys,
        brought,
        observer,
        excluded,
        tree,
        cache_has_layers,
        makers: Makers::of(home, request),
    };
    let built = build.run();
    if tree && built.is_err() {
        tree::leave_layers(&stage);
    }
    stage.finish_with(built)
}

struct Build<'a> {
    home: &'a Home,
    request: &'a BuildRequest,
    stage: &'a Stage<'a>,
    store: Store,
    keys: Keys<'a>,
    brought: Brought,
    observer: &'a dyn Observer,
    excluded: Vec<PathBuf>,
    tree: bool,
    /// Whether an earlier build left layers there.
    cache_has_layers: bool,
    makers: Makers,
}

impl Build<'_> {
    fn run(&self) -> Result<Built, Error> {
        let request = self.request;
        let Begun { builder, mut plan, flow } = self.begin()?;
        let report = match flow {
            Flow::Creator => {
                self.makers.begin()?;
                self.create(&plan)?
            }
            Flow::Phases => self.phases(&builder, &mut plan)?,
        };
        if request.verbose {
            self.note(format!("started: {}", self.stage.started()));
        }

        let names: Vec<Reference> = std::iter::once(&request.image).chain(&request.tags).cloned().collect();
        let digest = if let Some(report) = report {
            self.digest_of_published(&plan, &report)?
        } else {
            let image = request.image.clone();
            let (folders, ids) = (plan.folders.clone(), self.stage.ids);
            self.stage.work(Receive {
                folders,
                ids,
                allowed: self.stage.allowed(),
                image,
                names: names.clone(),
            })?
        };
        self.makers.end()?;
        Ok(Built { digest, names })
    }

    /// An image of the store, fetched first where the policy says so.
    fn image(&self, name: &Reference) -> Result<Image, Error> {
        self.image_with(name, Some(&self.keys))
    }

    fn image_with(&self, name: &Reference, keys: Option<&Keys<'_>>) -> Result<Image, Error> {
        let request = self.request;
        fetched(self.stage, &self.store, name, request.pull_policy, &request.insecure, keys)
    }

    /// What phases need that speak to registries: for the image under its names, the cache, and a run image.
    fn auth(&self, run_image: Option<&Reference>) -> Result<AuthFile, Error> {
        let BuildRequest { image, tags, cache_image, publish, .. } = self.request;
        let outputs = std::iter::once(image).chain(tags).chain(cache_image);
        let reached: Vec<&Reference> = outputs.chain(run_image).filter(|_| *publish).collect();
        self.keys.of(&reached)
    }

    fn note(&self, text: String) {
        self.observer.event(Event::Notice { text });
    }
}

/// The digest in report.toml (Platform API, "report.toml").
pub(crate) fn published(report: &str) -> Result<Digest, Error> {
    let report: coracle_cnb::Report =
        coracle_cnb::read_toml("report.toml", report).map_err(Error::Document)?;
    report.image.digest.parse().map_err(|_| Error::NoDigest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_without_a_digest_is_told_apart_from_none() {
        let text = |report: &str| coracle_runtime::with_causes(&published(report).unwrap_err());
        let expected = "the exporter left no digest in report.toml; look for the image in its registry";
        assert_eq!(text("[image]\ndigest = \"none\"\n"), expected);
        let broken = text("[image");
        assert!(broken.starts_with("could not use a document of the build: parse report.toml: "), "{broken}");
    }
}
