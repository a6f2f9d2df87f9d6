//! What each phase's container is: who sees what of the build, and who gets credentials. Pure; snapshot tests hold it
//! against the table of "One build" in ARCHITECTURE.md.

mod arguments;

use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_cnb::ApiVersion;
use coracle_images::{AuthFile, LayerCompression, Reference, Secret};
use coracle_lifecycle::api::EXECUTION_ENVIRONMENTS;
use coracle_lifecycle::build::SharedLayer;
use coracle_runtime::{Access, Bounds, EphemeralFile, Mount, Network, PROGRAM, Rootfs, Runtime, SandboxSpec};
use zeroize::Zeroizing;

pub(super) use self::arguments::{known_by_name, where_images_are};
use super::bounds::bounds;
use super::folders::{self, Folders, guest};
use super::foreign::{self, Foreign};
use super::proxies;
use super::{Brought, BuildLayers};
use crate::sbom;
use crate::stage::CA_BUNDLE;
use crate::worker::User;

/// The Platform API that our phases are driven at.
pub(crate) const PLATFORM_API: ApiVersion = ApiVersion::new(0, 15);

/// The restorer's word to the exporter on archives of the cache.
pub(super) const VERIFIED: &str = "verified.toml";

/// A phase, by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Read the builder, before anything foreign runs in it.
    Describe,
    Analyze,
    /// Run the `bin/detect` programs.
    Detect,
    /// Run the `bin/generate` programs, where extensions take part.
    Generate,
    Restore,
    /// Run the `bin/build` programs.
    Build,
    Export,
}

impl Phase {
    /// The program's name.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Describe => "describe-builder",
            Self::Analyze => "analyzer",
            Self::Detect => "detect-programs",
            Self::Generate => "generate-programs",
            Self::Restore => "restorer",
            Self::Build => "builder",
            Self::Export => "exporter",
        }
    }

    /// The name that users know.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Detect | Self::Generate => "detector",
            other => other.program(),
        }
    }

    /// Whether programs of the builder and its buildpacks run in it.
    pub(crate) fn runs_foreign_code(self) -> bool {
        matches!(self, Self::Detect | Self::Generate | Self::Build)
    }

    fn has_builder_root(self) -> bool {
        matches!(self, Self::Describe) || self.runs_foreign_code()
    }

    pub(super) fn speaks_to_registries(self, plan: &Plan) -> bool {
        plan.publish && !reached(self, plan).is_empty()
    }
}

/// What the phases of one build have in common.
pub(crate) struct Plan {
    pub(crate) folders: Folders,
    pub(crate) runtime: Runtime,
    /// The Platform API that all phases are driven at.
    pub(crate) api: ApiVersion,
    /// Another lifecycle, if one plays phases.
    pub(crate) foreign: Option<Foreign>,
    pub(crate) user: User,
    /// The builder's layers, the lowest first.
    pub(crate) builder: Vec<PathBuf>,
    /// The builder's own variables.
    pub(crate) env: Vec<(String, String)>,
    /// Variables for buildpacks, by `--env`.
    pub(crate) platform_env: Vec<(String, Zeroizing<String>)>,
    /// What else they get.
    pub(crate) brought: Brought,
    /// `HTTP_PROXY` and its kind.
    pub(crate) proxies: Vec<(String, String)>,
    pub(crate) image: Reference,
    pub(crate) tags: Vec<Reference>,
    pub(crate) run_image: Reference,
    /// Whether extensions have chosen it, after the analyzer looked at another.
    pub(crate) switched: bool,
    pub(crate) process_type: Option<String>,
    /// Whether the image goes to its registry.
    pub(crate) publish: bool,
    /// Instead of a folder.
    pub(crate) cache_image: Option<Reference>,
    /// Whether what earlier builds left there counts for nothing.
    pub(crate) clear_cache: bool,
    pub(crate) compression: LayerCompression,
    pub(crate) insecure: Vec<String>,
    /// What the images of this build need that a phase must reach, and nothing else.
    pub(crate) auth: AuthFile,
    /// Whether the order is the user's, not the builder's.
    pub(crate) own_order: bool,
    /// Whether buildpacks of the system count, which the builder puts around those of each group.
    pub(crate) system_buildpacks: bool,
    /// What the image is for: `production`, `test`, ...
    pub(crate) exec_env: String,
    pub(crate) build_layers: BuildLayers,
    pub(crate) shared_layers: Vec<SharedLayer>,
    /// The network of foreign code.
    pub(crate) network: Network,
    /// How long foreign code may run in one container.
    pub(crate) time: Duration,
    /// How long its programs may print nothing in the build.
    pub(crate) idle: Duration,
    /// Bytes that it may write.
    pub(crate) disk: u64,
    pub(crate) verbose: bool,
    /// Files of the host for name resolution and TLS, where it has them.
    pub(crate) host_files: Vec<PathBuf>,
}

impl Plan {
    /// The other lifecycle, if it plays this phase.
    pub(crate) fn foreign_for(&self, phase: Phase) -> Option<&Foreign> {
        self.foreign.as_ref().filter(|foreign| foreign.plays(phase))
    }

    /// Whether the exporter takes over what the analyzer has read of images: phases of one lifecycle, and images in registries.
    pub(crate) fn has_known_images(&self) -> bool {
        let is_ours = |phase| self.foreign_for(phase).is_none();
        self.publish && is_ours(Phase::Analyze) && is_ours(Phase::Export)
    }

    /// Where the buildpacks of the system are named: in the builder, or where nothing ever is.
    pub(crate) fn system_toml(&self) -> String {
        if self.system_buildpacks && self.api >= EXECUTION_ENVIRONMENTS {
            "/cnb/system.toml".to_owned()
        } else {
            format!("{}/system.toml", guest::CONTROL)
        }
    }

    /// Where a phase leaves what it writes.
    pub(crate) fn out(&self, phase: Phase) -> &'static str {
        if self.foreign_for(phase).is_some() { phase.title() } else { phase.program() }
    }
}

/// The container of one phase.
pub(crate) fn sandbox(phase: Phase, plan: &Plan) -> SandboxSpec {
    if let Some(foreign) = plan.foreign_for(phase) {
        return foreign::sandbox(phase, plan, foreign);
    }
    let rootfs = if phase.has_builder_root() {
        Rootfs::Overlay { lower: plan.builder.clone(), scratch: plan.folders.scratch(phase.program()) }
    } else {
        Rootfs::Empty
    };
    let program = format!("/cnb/lifecycle/{}", phase.program());
    let mut mounts = vec![mount(Path::new(PROGRAM), &program, Access::ReadOnly)];
    mounts.extend(mounts_of(phase, plan));
    let bounds = bounds(phase, plan);
    let env = environment(phase, plan, bounds.network != Network::None);
    let mut argv = vec![program];
    argv.extend(arguments::arguments(phase, plan));
    let own = Own { name: phase.program(), rootfs, argv, env, mounts, files: files_of(phase, plan), bounds };
    assembled(phase, plan, own, !phase.has_builder_root())
}

/// What of a phase's container depends on who plays the phase.
pub(super) struct Own {
    pub(super) name: &'static str,
    pub(super) rootfs: Rootfs,
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) mounts: Vec<Mount>,
    pub(super) files: Vec<EphemeralFile>,
    pub(super) bounds: Bounds,
}

/// The container of a phase, whoever plays it. Where the builder's own certificate authorities do not count, the host's do.
pub(super) fn assembled(phase: Phase, plan: &Plan, own: Own, with_authorities: bool) -> SandboxSpec {
    let Own { name, rootfs, argv, env, mut mounts, files, bounds } = own;
    let is_foreign_code = phase.runs_foreign_code();
    mounts.extend(plan.brought.mounts().filter(|_| is_foreign_code));
    mounts.extend(host_mounts(plan, bounds.network, with_authorities));
    SandboxSpec {
        id: name.to_owned(),
        runtime: plan.runtime,
        rootfs,
        argv,
        env,
        cwd: if is_foreign_code { guest::WORKSPACE } else { "/" }.into(),
        uid: plan.user.uid,
        gid: plan.user.gid,
        mounts,
        files,
        bounds,
        input: None,
    }
}

/// The host's files for name resolution, where the network has no other, and those for TLS where the builder's own do not count.
fn host_mounts(plan: &Plan, network: Network, with_authorities: bool) -> impl Iterator<Item = Mount> {
    let files = plan.host_files.iter().filter(move |_| network != Network::None);
    let files = files.filter(move |file| network == Network::Host || *file != Path::new("/etc/resolv.conf"));
    let files = files.filter(move |file| with_authorities || *file != Path::new(CA_BUNDLE));
    files.map(|file| mount(file, &file.to_string_lossy(), Access::ReadOnly))
}

pub(crate) fn mount(source: impl AsRef<Path>, target: &str, access: Access) -> Mount {
    Mount { source: source.as_ref().to_owned(), target: target.into(), access }
}

fn mounts_of(phase: Phase, plan: &Plan) -> Vec<Mount> {
    use Access::{ReadOnly, ReadWrite};
    let folders = &plan.folders;
    let control = || mount(folders.control(), guest::CONTROL, ReadOnly);
    let out = || mount(folders.out(phase.program()), guest::OUT, ReadWrite);
    let layers = |access| mount(folders.layers(), guest::LAYERS, access);
    let workspace = |access| mount(folders.workspace(), guest::WORKSPACE, access);
    let cache = |access| {
        let folder = Path::new(folders::CACHE).join(folders::CACHE_DATA);
        plan.cache_image.is_none().then(|| mount(folder, guest::CACHE, access))
    };
    let layout = |access| (!plan.publish).then(|| mount(folders.layout(), guest::LAYOUT, access));
    match phase {
        Phase::Describe => vec![control(), out()],
        Phase::Analyze => [control(), out(), layers(ReadWrite)].into_iter().chain(layout(ReadOnly)).collect(),
        // What the restorer finds in the layers' folder is the analyzer's and nobody else's.
        Phase::Detect | Phase::Generate => vec![control(), out(), workspace(ReadWrite)],
        Phase::Restore => [control(), out(), layers(ReadWrite)]
            .into_iter()
            .chain(cache(ReadOnly))
            .chain(layout(ReadOnly).filter(|_| plan.switched))
            .collect(),
        Phase::Build => vec![control(), layers(ReadWrite), workspace(ReadWrite)],
        Phase::Export => [control(), out(), layers(ReadOnly), workspace(ReadOnly)]
            .into_iter()
            .chain(cache(ReadWrite))
            .chain([mount(folders.new_layers(), guest::SCRATCH, ReadWrite)])
            .chain(layout(ReadWrite))
            .chain(
                plan.has_known_images()
                    .then(|| mount(folders.out(Phase::Analyze.program()), guest::ANALYZER, ReadOnly)),
            )
            .collect(),
    }
}

/// Credentials only where a registry is spoken to and nothing foreign runs; the user's variables only where something
/// foreign does; what the launcher is made of where it is put into an image.
fn files_of(phase: Phase, plan: &Plan) -> Vec<EphemeralFile> {
    let file = |target: String, content: &[u8]| EphemeralFile {
        target: target.into(),
        content: content.to_vec().into(),
    };
    if phase.runs_foreign_code() {
        return files_for_programs(phase, plan);
    }
    let mut files = Vec::new();
    if phase == Phase::Export {
        let bills = sbom::launchers();
        files.extend(bills.iter().map(|(name, text)| file(format!("/cnb/lifecycle/{name}"), text)));
    }
    if phase.speaks_to_registries(plan) {
        files.push(credentials_for(&reached(phase, plan), plan));
    }
    files
}

/// The images that a phase asks registries for, or sends there, in a build that publishes.
pub(super) fn reached(phase: Phase, plan: &Plan) -> Vec<&Reference> {
    let cache_image = plan.cache_image.iter();
    match phase {
        Phase::Analyze | Phase::Export => {
            [&plan.image, &plan.run_image].into_iter().chain(&plan.tags).chain(cache_image).collect()
        }
        Phase::Restore => {
            let cache_image = cache_image.filter(|_| !plan.clear_cache);
            cache_image.chain(plan.switched.then_some(&plan.run_image)).collect()
        }
        Phase::Describe | Phase::Detect | Phase::Generate | Phase::Build => Vec::new(),
    }
}

/// The user's variables as buildpacks get them, a file each, and what else the user brings.
pub(super) fn files_for_programs(phase: Phase, plan: &Plan) -> Vec<EphemeralFile> {
    let file = |(name, value): &(String, Zeroizing<String>)| EphemeralFile {
        target: format!("/platform/env/{name}").into(),
        content: value.as_bytes().to_vec().into(),
    };
    plan.platform_env.iter().map(file).chain(plan.brought.files(phase == Phase::Build)).collect()
}

/// The user's credentials for the registries of these images.
pub(super) fn credentials_for(images: &[&Reference], plan: &Plan) -> EphemeralFile {
    let names: Vec<String> = images.iter().map(|image| image.name()).collect();
    credentials(&plan.auth.for_repositories(names.iter().map(String::as_str)).to_config())
}

/// Credentials as a phase that speaks to registries gets them, a `config.json`: a file of its own.
pub(crate) fn credentials(auth: &Secret) -> EphemeralFile {
    let target = format!("{}/config.json", guest::DOCKER_CONFIG);
    EphemeralFile { target: target.into(), content: auth.as_bytes().to_vec().into() }
}

/// The variable by which the phase finds them.
pub(crate) fn where_credentials_are() -> (String, String) {
    ("DOCKER_CONFIG".to_owned(), guest::DOCKER_CONFIG.to_owned())
}

fn environment(phase: Phase, plan: &Plan, online: bool) -> Vec<(String, String)> {
    // Whatever the others are driven at: this one is ours.
    let api = if phase == Phase::Describe { PLATFORM_API } else { plan.api };
    let mut env = base_environment(api, plan, phase.has_builder_root());
    if online {
        env.extend(proxies::known_to(phase, plan));
    }
    if phase.speaks_to_registries(plan) {
        env.push(where_credentials_are());
    }
    env
}

/// The Platform API, and the builder's own variables where they belong.
pub(super) fn base_environment(api: ApiVersion, plan: &Plan, of_builder: bool) -> Vec<(String, String)> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut env = vec![pair("CNB_PLATFORM_API", &api.to_string())];
    if api >= EXECUTION_ENVIRONMENTS {
        env.push(pair("CNB_EXEC_ENV", &plan.exec_env));
    }
    if of_builder {
        let is_ours = |name: &str| ["CNB_PLATFORM_API", "CNB_EXEC_ENV"].contains(&name);
        env.extend(plan.env.iter().filter(|(name, _)| !is_ours(name)).cloned());
        if !env.iter().any(|(name, _)| name == "HOME") {
            env.push(pair("HOME", &plan.user.home));
        }
    }
    env
}

#[cfg(test)]
pub(super) mod tests;
