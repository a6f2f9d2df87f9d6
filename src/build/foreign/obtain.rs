//! Where the programs of another lifecycle come from, and whether they can do what is asked.

use std::path::{Path, PathBuf};

use coracle_cnb::ApiVersion;
use coracle_images::{Image, LayerCompression, Reference};
use coracle_lifecycle::api::{EXECUTION_ENVIRONMENTS, platform_apis};

use super::described::Described;
use super::interface::PROCESS_TYPES;
use super::{
    ANALYZES_FIRST, Foreign, LAYOUTS, LifecycleArchives, LifecycleChoice, LifecycleError, Place, SOURCE,
};
use crate::build::folders::Folders;
use crate::build::phase::{PLATFORM_API, Phase};
use crate::build::{Build, BuildLayers, BuildRequest, ExecEnv};
use crate::error::Error;
use crate::pull::PullPolicy;
use crate::run::layer_paths;
use crate::trust::Trust;
use crate::worker::{FetchLifecycle, FindLifecycle, TakeLifecycle, Verified};

/// The phases that have credentials.
const PRIVILEGED: [Phase; 3] = [Phase::Analyze, Phase::Restore, Phase::Export];

/// A lifecycle that was found.
struct Found {
    /// As messages call it.
    name: String,
    described: Described,
    place: Place,
}

impl Found {
    fn shown(&self) -> String {
        match self.described.version.as_str() {
            "" => self.name.clone(),
            version => format!("{} (version {version})", self.name),
        }
    }
}

/// Whether an image of this version was ever published.
fn is_published(version: &str) -> bool {
    let of = |text: &str| semver::Version::parse(text).ok();
    version == "0.6.1" || of(version).zip(of("0.7.5")).is_some_and(|(version, first)| version >= first)
}

impl Build<'_> {
    /// Who plays the phases, and at which Platform API. What cannot be is refused before anything runs.
    pub(in crate::build) fn players(
        &self,
        builder: &Image,
        run_image: &Reference,
    ) -> Result<(ApiVersion, Option<Foreign>), Error> {
        let request = self.request;
        let native: Vec<Phase> = request.native_phases.iter().map(|phase| phase.0).collect();
        let (found, privileged) = match &request.lifecycle {
            LifecycleChoice::Native => {
                self.tell_of_the_unused(builder)?;
                return Ok((PLATFORM_API, None));
            }
            LifecycleChoice::Image(reference) => (self.of_image(reference, self.lifecycle_name())?, None),
            LifecycleChoice::Path(_) => {
                (self.taken(SOURCE.into(), self.lifecycle_name(), Verified::Not)?, None)
            }
            LifecycleChoice::Builder => {
                let own = self.of_builder(builder)?;
                let other = match request.trust {
                    Trust::Trusted { .. } => None,
                    // None of them is another lifecycle's.
                    Trust::Untrusted { .. } if PRIVILEGED.iter().all(|phase| native.contains(phase)) => None,
                    Trust::Untrusted { .. } => Some(self.published(&own.described.version)?),
                };
                (own, other)
            }
        };
        let other = privileged.as_ref().map(|found| &found.described);
        let api = found.described.highest(&found.name, other)?;
        check(request, run_image, &native, &found.name, api)?;
        self.note(format!("{} plays the phases, at Platform API {api}", found.shown()));
        if let Some(privileged) = &privileged {
            self.note(format!("{} plays those with credentials", privileged.shown()));
        }
        let privileged = privileged.map_or_else(|| found.place.clone(), |found| found.place);
        Ok((api, Some(Foreign { with_buildpacks: found.place, privileged, native })))
    }

    fn of_image(&self, reference: &Reference, name: String) -> Result<Found, Error> {
        let image = self.image(reference)?;
        let described = Described::of_image(&image.config)
            .map_err(|source| LifecycleError::Described { name: name.clone(), source })?;
        let layers = layer_paths(&self.store, &image, self.stage);
        let layer = self.stage.work(FindLifecycle { layers, name: name.clone() })?;
        Ok(Found { name, described, place: Place::Layer(layer) })
    }

    fn of_builder(&self, builder: &Image) -> Result<Found, Error> {
        let name = self.lifecycle_name();
        let described = Described::of_builder(&builder.config)
            .map_err(|source| LifecycleError::Described { name: name.clone(), source })?;
        match described.filter(|described| !described.version.is_empty()) {
            Some(described) => Ok(Found { name, described, place: Place::InBuilder }),
            None => Err(LifecycleError::NoneInBuilder(self.request.builder.to_string()).into()),
        }
    }

    /// The lifecycle that was published under this version, for phases that an untrusted builder is kept away from: an image, or
    /// else a root filesystem made of the release archive, for this build alone.
    fn published(&self, version: &str) -> Result<Found, Error> {
        let no_image = match self.published_image(version) {
            Ok(found) => return Ok(found),
            Err(why) => why,
        };
        let no_archive = match self.published_archive(version) {
            Ok(found) => return Ok(found),
            Err(why) => why,
        };
        Err(LifecycleError::Unavailable {
            builder: self.request.builder.to_string(),
            version: version.to_owned(),
            looked: format!("{no_image}; {no_archive}"),
        }
        .into())
    }

    fn published_image(&self, version: &str) -> Result<Found, String> {
        let images = &self.request.lifecycle_image;
        if !images.is_one() && !is_published(version) {
            return Err("images are published of 0.6.1, and of 0.7.5 and later".to_owned());
        }
        let reference = images
            .of_version(version)
            .map_err(|error| format!("{images} with the tag {version}: {error}"))?;
        let found = self.of_image(&reference, format!("the lifecycle {reference}"));
        let found =
            found.map_err(|error| format!("{reference}: {}", coracle_runtime::with_causes(&error)))?;
        if !images.is_one() && found.described.version != version {
            return Err(format!("{reference} says that its version is `{}`", found.described.version));
        }
        Ok(found)
    }

    fn published_archive(&self, version: &str) -> Result<Found, String> {
        // It becomes part of a path.
        if semver::Version::parse(version).is_err() {
            return Err(format!("`{version}` is the version of no release"));
        }
        let archives = &self.request.lifecycle_archives;
        let digest = self.request.lifecycle_digests.get(version);
        let place = match archives.folder() {
            Some(folder) => {
                let source = Path::new(SOURCE).join(LifecycleArchives::file_of(version));
                Ok((folder.join(LifecycleArchives::file_of(version)).display().to_string(), source))
            }
            None => self.fetched_archive(archives.url_of(version), digest.is_none()),
        };
        let (shown, source) = place?;
        let name = format!("the archive {shown}");
        let found =
            self.taken(source, name, digest.map_or(Verified::Beside, |digest| Verified::By(digest.clone())));
        let found = found.map_err(|error| coracle_runtime::with_causes(&error))?;
        if found.described.version != version {
            return Err(format!("{} says that its version is `{}`", found.name, found.described.version));
        }
        Ok(found)
    }

    fn fetched_archive(&self, url: String, digest: bool) -> Result<(String, PathBuf), String> {
        if self.request.pull_policy == PullPolicy::Never {
            return Err(format!("{url} is not fetched: nothing is, with --offline or --pull-policy never"));
        }
        let into = Folders::lifecycle().with_extension("tgz");
        let fetched = self.stage.work(FetchLifecycle { url: url.clone(), into: into.clone(), digest });
        fetched.map_err(|error| coracle_runtime::with_causes(&error)).map(|()| (url, into))
    }

    /// As messages call the lifecycle that was chosen.
    pub(in crate::build) fn lifecycle_name(&self) -> String {
        match &self.request.lifecycle {
            LifecycleChoice::Native => "Coracle".to_owned(),
            LifecycleChoice::Builder => format!("the lifecycle of builder {}", self.request.builder),
            LifecycleChoice::Image(reference) => format!("the lifecycle {reference}"),
            LifecycleChoice::Path(path) => format!("the lifecycle {}", path.display()),
        }
    }

    /// Whoever chose nothing learns what was not chosen, unless it is the same.
    fn tell_of_the_unused(&self, builder: &Image) -> Result<(), Error> {
        let name = || format!("builder {}", self.request.builder);
        let described = Described::of_builder(&builder.config)
            .map_err(|source| LifecycleError::Described { name: name(), source })?;
        let ours = Described { version: env!("CARGO_PKG_VERSION").to_owned(), platform: platform_apis() };
        let other = described.filter(|found| !found.version.is_empty() && *found != ours);
        if let Some(Described { version, .. }) = other {
            self.note(format!(
                "the builder's own lifecycle {version} is not used; --lifecycle builder uses it"
            ));
        }
        Ok(())
    }

    /// A root filesystem of a lifecycle for this build, with nothing else in it.
    fn taken(&self, source: PathBuf, name: String, verified: Verified) -> Result<Found, Error> {
        let text = self.stage.work(TakeLifecycle {
            source,
            name: name.clone(),
            into: Folders::lifecycle(),
            ids: self.stage.ids,
            verified,
        })?;
        let described = Described::of_toml(&text)
            .map_err(|source| LifecycleError::Described { name: name.clone(), source })?;
        Ok(Found { name, described, place: Place::Layer(Folders::lifecycle()) })
    }
}

/// Whether what is asked for can be asked of a lifecycle at this Platform API. Nothing is passed over in silence.
fn check(
    request: &BuildRequest,
    run_image: &Reference,
    native: &[Phase],
    name: &str,
    api: ApiVersion,
) -> Result<(), LifecycleError> {
    let name = || name.to_owned();
    let too_old = |what| LifecycleError::TooOld { name: name(), api, what };
    if api < ANALYZES_FIRST && !native.is_empty() {
        return Err(LifecycleError::TooOldToMix { name: name(), api });
    }
    if api < LAYOUTS && !request.publish {
        return Err(LifecycleError::NoLayouts { name: name(), api });
    }
    if api < PROCESS_TYPES && request.process_type.is_some() {
        return Err(too_old("the process to start cannot be chosen (--default-process, since 0.3)"));
    }
    if api < EXECUTION_ENVIRONMENTS && request.exec_env != ExecEnv::default() {
        return Err(too_old("images are for nothing in particular (--exec-env, since 0.15)"));
    }
    let mut used = [&request.image, run_image].into_iter().chain(&request.tags).chain(&request.cache_image);
    let is_plain = |registry: &str| request.insecure.iter().any(|plain| plain == registry);
    if api < ApiVersion::new(0, 13)
        && request.publish
        && used.any(|image| is_plain(&image.registry) && !image.is_loopback())
    {
        return Err(too_old("no registry is spoken to in plain HTTP (--insecure-registry, since 0.13)"));
    }
    let of_ours = [
        ("--build-layers", Phase::Build, request.build_layers != BuildLayers::default()),
        ("--shared-layer", Phase::Build, !request.shared_layers.is_empty()),
        ("--compression", Phase::Export, request.compression != LayerCompression::default()),
    ];
    match of_ours.into_iter().find(|(_, phase, asked)| *asked && !native.contains(phase)) {
        Some((option, phase, _)) => Err(LifecycleError::OursAlone { option, phase: phase.program() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::is_published;

    #[test]
    fn images_are_published_of_one_old_version_and_of_those_since_another() {
        for (version, expected) in [
            ("0.6.0", false),
            ("0.6.1", true),
            ("0.6.1-rc", false),
            ("0.6.2", false),
            ("0.7.4", false),
            ("0.7.5-rc", false),
            ("0.7.5", true),
            ("0.7.6-rc.1", true),
            ("0.21.17", true),
            ("1.0.0", true),
            ("", false),
            ("0.8", false),
        ] {
            assert_eq!(is_published(version), expected, "{version}");
        }
    }
}
