//! An application on a newer run image, without a build: in the store, or where it is published.

use coracle_cnb::{RunImageEntry, RunToml};
use coracle_images::{Digest, Reference, Secret, Store};
use coracle_lifecycle::analyze::choose_run_image;
use coracle_lifecycle::phases::RUN_IMAGE_UNREADABLE;
use coracle_lifecycle::rebase::{
    RebaseError, RebaseInput, known_run_image, metadata_of, rebase as move_image,
};
use coracle_runtime::{Access, Bounds, Outcome, PROGRAM, Rootfs, Runtime, SandboxSpec, Terminator};

use crate::build::folders::{Folders, guest};
use crate::build::phase::{credentials, mount, where_credentials_are};
use crate::build::run_image::Namer;
use crate::build::{PLATFORM_API, published};
use crate::credentials::{Keychain, Keys};
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::home::Home;
use crate::pull::{PullPolicy, fetched};
use crate::run::host_files;
use crate::stage::Stage;
use crate::watch::Watched;
use crate::worker::{Keep, KeepImage, KnownRunImage, MakeFolders, Remote, RunImageOfLabel, User};

/// The phase, and its container.
const PHASE: &str = "rebaser";

/// Nobody in particular: the phase needs no more than to be somebody.
const USER: u32 = 1000;

/// What to rebase, onto what.
pub struct RebaseRequest {
    /// The application.
    pub image: Reference,
    /// Instead of the run image that the application names.
    pub run_image: Option<Reference>,
    /// Whether the application is in its registry, and is to stay there, instead of in the store.
    pub publish: bool,
    /// Whether what speaks against it is only told.
    pub force: bool,
    /// When the run image is fetched into the store.
    pub pull_policy: PullPolicy,
    /// What launches the container.
    pub runtime: Runtime,
    /// Registries spoken to in plain HTTP; those on loopback need not be named.
    pub insecure: Vec<String>,
    /// Credentials: only those of images that must be reached leave this process.
    pub auth: Keychain,
}

impl std::fmt::Debug for RebaseRequest {
    /// Without credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { image, run_image, publish, force, .. } = self;
        let mut shown = f.debug_struct("RebaseRequest");
        shown.field("image", image).field("run_image", run_image).field("publish", publish);
        shown.field("force", force).finish_non_exhaustive()
    }
}

/// Rebase. `hold` gets the handle with which a signal handler ends the work at once. Returns the new manifest's digest.
///
/// # Errors
/// [`Error::Rebase`] where the application must stay where it is; everything else of [`Error`].
pub fn rebase(
    home: &Home,
    request: &RebaseRequest,
    observer: &dyn Observer,
    hold: &dyn Fn(Terminator),
) -> Result<Digest, Error> {
    let store = Store::open(home.store())?;
    if !request.publish && store.image(&request.image)?.is_none() {
        return Err(Error::NoImage(request.image.to_string()));
    }
    let stage = Stage::start(home, request.runtime, observer, hold)?;
    let keys = request.auth.keys(observer, None);
    let rebased = if request.publish {
        in_the_registry(home, request, &stage, &keys, observer)
    } else {
        in_the_store(request, &stage, &store, &keys, observer)
    };
    stage.finish_with(rebased)
}

fn in_the_store(
    request: &RebaseRequest,
    stage: &Stage<'_>,
    store: &Store,
    keys: &Keys<'_>,
    observer: &dyn Observer,
) -> Result<Digest, Error> {
    let failed = |source| Error::Rebase { image: request.image.to_string(), source };
    let name = &request.image;
    let image = store.image(name)?.ok_or_else(|| Error::NoImage(name.to_string()))?;
    let (run_name, stands_on) = match &request.run_image {
        Some(run_image) => (run_image.to_string(), String::new()),
        None => {
            let metadata = metadata_of(&image).map_err(failed)?;
            let known = known_run_image(&metadata, PLATFORM_API).map_err(failed)?;
            (chosen(name, known).map_err(failed)?, metadata.run_image.reference)
        }
    };
    let run_reference: Reference = run_name.parse().map_err(|_| failed(RebaseError::NoRunImage))?;
    let known = request.run_image.is_some() || is_below(&stands_on, &run_reference);
    let withheld = Withheld::of(request, observer, (!known).then(|| run_reference.clone()));
    let (policy, keys) = (request.pull_policy, Some(keys).filter(|_| known));
    let run = match fetched(stage, store, &run_reference, policy, &request.insecure, keys) {
        Err(error @ Error::Worker(_)) => return withheld.explain(stage, error),
        fetched => fetched?,
    };
    let rebased = move_image(&RebaseInput {
        image: &image,
        run: &run,
        run_name: &run_name,
        run_reference: &run_reference.with_digest(run.digest.clone()).to_string(),
        force: request.force,
        platform_api: PLATFORM_API,
    })
    .map_err(failed)?;
    for objection in &rebased.overruled {
        observer.event(Event::Notice { text: format!("overruled: {objection}") });
    }
    stage.work(KeepImage::new(name, &rebased.image, stage))?;
    Ok(rebased.image.digest)
}

/// Of the names that an image knows its run image by, the one nearest to it.
fn chosen(name: &Reference, known: RunImageEntry) -> Result<String, RebaseError> {
    let known = RunToml { images: vec![known] };
    choose_run_image(name, &known, &mut |_| true).map_err(|_| RebaseError::NoRunImage)
}

/// Whether an image stands on one of this repository, by what its label says: in a registry by name, in a layout folder by path. It was
/// read once for this image, under the rule that holds for builds.
fn is_below(reference: &str, run_image: &Reference) -> bool {
    let in_layout = || {
        let (path, digest) = reference.split_once('@')?;
        let rest = path.strip_prefix(guest::LAYOUT)?.strip_prefix('/')?;
        let tag = rest.strip_prefix(&run_image.name())?.strip_prefix('/')?;
        Some(!tag.contains('/') || format!("sha256:{}", tag.strip_prefix("sha256/")?) == digest)
    };
    match reference.parse::<Reference>() {
        Ok(known) => known.name() == run_image.name(),
        Err(_) => in_layout().unwrap_or(false),
    }
}

/// Run images that only the image names, which are read without credentials (docs/decisions/0033-whose-word-names-a-run-image.md).
struct Withheld<'a> {
    request: &'a RebaseRequest,
    by: Namer,
    names: Vec<Reference>,
}

impl<'a> Withheld<'a> {
    /// Tells of those for which there may be credentials.
    fn of(
        request: &'a RebaseRequest,
        observer: &dyn Observer,
        names: impl IntoIterator<Item = Reference>,
    ) -> Self {
        let (by, names) = (Namer(format!("the label of {}", request.image)), Vec::from_iter(names));
        for name in names.iter().filter(|name| request.auth.may_have(&name.registry)) {
            observer.event(Event::Notice { text: by.notice(name) });
        }
        Self { request, by, names }
    }

    /// Why it failed: that one of these is not for everybody, or else `error`.
    fn explain<T>(&self, stage: &Stage<'_>, error: Error) -> Result<T, Error> {
        let ask = |name| self.by.ask(stage, name, &self.request.insecure);
        Err(self.names.iter().find_map(|name| ask(name).err()).unwrap_or(error))
    }
}

fn in_the_registry(
    home: &Home,
    request: &RebaseRequest,
    stage: &Stage<'_>,
    keys: &Keys<'_>,
    observer: &dyn Observer,
) -> Result<Digest, Error> {
    // The phase reaches the image and the run image by its names, and gets credentials for nothing else.
    let (known, unknown) = match &request.run_image {
        Some(run_image) => (vec![run_image.clone()], Vec::new()),
        None => {
            let image = Remote::new(&request.image, &request.insecure, Some(keys))?;
            let RunImageOfLabel { names, reference } = stage.work(KnownRunImage { image })?;
            names.into_iter().partition(|name| is_below(&reference, name))
        }
    };
    let withheld = Withheld::of(request, observer, unknown);
    let reached: Vec<_> = known.iter().chain([&request.image]).collect();
    let auth = keys.of_repositories(&reached)?.to_config();
    let folders = Folders { root: stage.folder(), tree: false };
    let user = User { uid: USER, gid: USER, home: "/".to_owned() };
    stage.work(MakeFolders { folders: folders.clone(), phase: PHASE.to_owned(), ids: stage.ids, user })?;
    observer.event(Event::PhaseStarted { phase: PHASE.to_owned() });
    match stage.launch_phase(sandbox(home, request, &folders, &auth), PHASE, &Watched::default())? {
        Outcome::Exited(0) => {}
        outcome @ Outcome::Exited(code) if code == i32::from(RUN_IMAGE_UNREADABLE) => {
            return withheld.explain(stage, Error::Phase { phase: PHASE, outcome });
        }
        outcome => return Err(Error::Phase { phase: PHASE, outcome }),
    }
    let documents = vec!["report.toml".to_owned()];
    let report = stage.work(Keep { folders, phase: PHASE.to_owned(), documents })?;
    published(report.first().map_or("", String::as_str))
}

/// Nothing but the program, what it needs to reach registries, and a folder for its report.
fn sandbox(home: &Home, request: &RebaseRequest, folders: &Folders, auth: &Secret) -> SandboxSpec {
    let program = format!("/cnb/lifecycle/{PHASE}");
    let mut mounts = vec![
        mount(PROGRAM, &program, Access::ReadOnly),
        mount(folders.out(PHASE), guest::OUT, Access::ReadWrite),
    ];
    let files = host_files(home);
    mounts.extend(files.iter().map(|file| mount(file, &file.to_string_lossy(), Access::ReadOnly)));
    let report = format!("{}/report.toml", guest::OUT);
    let mut argv = vec![program, "-distinct".to_owned(), "-report".to_owned(), report];
    argv.extend(request.run_image.iter().flat_map(|name| ["-run-image".to_owned(), name.to_string()]));
    argv.extend(request.insecure.iter().flat_map(|host| ["-insecure-registry".to_owned(), host.clone()]));
    argv.extend(request.force.then(|| "-force".to_owned()));
    argv.push(request.image.to_string());
    let mut env = home.proxies().to_vec();
    env.push(("CNB_PLATFORM_API".to_owned(), PLATFORM_API.to_string()));
    env.push(where_credentials_are());
    SandboxSpec {
        id: PHASE.to_owned(),
        runtime: request.runtime,
        rootfs: Rootfs::Empty,
        argv,
        env,
        cwd: "/".into(),
        uid: USER,
        gid: USER,
        mounts,
        files: vec![credentials(auth)],
        bounds: Bounds { writes_below: Some(Vec::new()), ..Bounds::default() },
        input: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_stands_on_is_of_one_repository() {
        let hex = "1".repeat(64);
        for (reference, run_image, stands) in [
            (format!("r.example/team/run@sha256:{hex}"), "r.example/team/run:new", true),
            ("r.example/team/run:1".to_owned(), "r.example/team/run", true),
            (format!("/layout/r.example/team/run/latest@sha256:{hex}"), "r.example/team/run:new", true),
            (format!("/layout/r.example/team/run/sha256/{hex}@sha256:{hex}"), "r.example/team/run", true),
            // Of the label's other names none is believed, near as it may be.
            (format!("r.example/team/run@sha256:{hex}"), "r.example/team/private", false),
            (format!("r.example/team/run@sha256:{hex}"), "r.example/team/run/private", false),
            (format!("r.example/team/run@sha256:{hex}"), "other.example/team/run", false),
            (format!("/layout/r.example/team/run/latest@sha256:{hex}"), "r.example/team", false),
            (format!("/layout/r.example/team/sha256/latest@sha256:{hex}"), "r.example/team", false),
            (format!("/elsewhere/r.example/team/run/latest@sha256:{hex}"), "r.example/team/run", false),
            (String::new(), "r.example/team/run", false),
        ] {
            assert_eq!(is_below(&reference, &run_image.parse().unwrap()), stands, "{reference} {run_image}");
        }
    }
}
