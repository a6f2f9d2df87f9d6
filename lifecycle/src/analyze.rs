//! What is known of the run image and of the image that the build will replace (Platform API, "analyzer").

use coracle_cnb::{
    Analyzed, Distro, ImageReference, LIFECYCLE_METADATA_LABEL, LifecycleMetadata, RunImage, RunImageTarget,
    RunToml, read_json,
};
use coracle_images::{Config, Platform, Reference};

/// An image that was found: what analyzed.toml calls it, and its configuration.
#[derive(Debug, Clone, Copy)]
pub struct Found<'input> {
    /// Pinned by digest.
    pub reference: &'input str,
    pub config: &'input Config,
}

/// What there is to look at.
#[derive(Debug, Clone, Copy)]
pub struct AnalyzeInput<'input> {
    /// The image of the last build, if there was one.
    pub previous: Option<Found<'input>>,
    /// The run image as the user or run.toml names it.
    pub run_name: &'input str,
    /// The run image, if it exists.
    pub run: Option<Found<'input>>,
    /// Whether buildpacks are chosen by the run image's system, as they are since Platform API 0.12.
    pub has_targets: bool,
}

/// Why nothing could be said.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnalyzeError {
    /// Nobody names a run image.
    #[error("no run image is known: give -run-image, or a run.toml with [[images]]")]
    NoRunImage,
    /// None of the run image's names leads to an image.
    #[error("no run image can be read; tried: {0}")]
    Unreadable(String),
    /// Before Platform API 0.12: what is built in one stack does not run in another.
    #[error(
        "run image `{run}` is of stack `{found}`, the build image of stack `{wanted}` (CNB_STACK_ID): take a run image of that stack"
    )]
    OtherStack { run: String, found: String, wanted: String },
    /// Nothing can be chosen for the image's platform.
    #[error("the configuration of run image `{0}` names no operating system")]
    NoOs(String),
}

impl AnalyzeError {
    /// The exit code of the analyzer (Platform API, "analyzer").
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoRunImage | Self::Unreadable(_) => 3,
            Self::NoOs(_) | Self::OtherStack { .. } => 32,
        }
    }
}

/// Composes analyzed.toml. A previous image whose metadata cannot be read counts as none, so that it is replaced as a whole.
pub fn analyze(input: &AnalyzeInput<'_>) -> Result<Analyzed, AnalyzeError> {
    let (image, metadata) = previous(input.previous).unwrap_or_default();
    let target = match input.run {
        Some(run) => target(run.config),
        // As the reference: what is not there is taken for an empty image of this machine's kind.
        None => {
            let Platform { os, architecture, .. } = Platform::host();
            RunImageTarget { os, arch: architecture, ..RunImageTarget::default() }
        }
    };
    if target.os.is_empty() && input.has_targets {
        return Err(AnalyzeError::NoOs(input.run_name.to_owned()));
    }
    Ok(Analyzed {
        build_image: None,
        image: Some(image),
        metadata,
        run_image: Some(RunImage {
            reference: input.run.map(|run| run.reference.to_owned()).unwrap_or_default(),
            image: input.run_name.to_owned(),
            extend: false,
            target: Some(target),
        }),
    })
}

fn previous(found: Option<Found<'_>>) -> Option<(ImageReference, LifecycleMetadata)> {
    let found = found?;
    let metadata = match found.config.label(LIFECYCLE_METADATA_LABEL) {
        Some(label) => read_json(LIFECYCLE_METADATA_LABEL, label).ok()?,
        None => LifecycleMetadata::default(),
    };
    Some((ImageReference { reference: found.reference.to_owned() }, metadata))
}

/// What an image says it runs on, in its configuration and its labels (Platform API, "Target Data").
pub fn target(config: &Config) -> RunImageTarget {
    let label = |name: &str| config.label(name).map(str::to_owned);
    let (name, version) =
        (label("io.buildpacks.base.distro.name"), label("io.buildpacks.base.distro.version"));
    let distro = (name.is_some() || version.is_some())
        .then(|| Distro { name: name.unwrap_or_default(), version: version.unwrap_or_default() });
    RunImageTarget {
        id: label("io.buildpacks.base.id").unwrap_or_default(),
        os: config.os.clone(),
        arch: config.architecture.clone(),
        arch_variant: config.variant.clone(),
        distro,
    }
}

/// The run image of run.toml: of its first entry, a name on the output's registry if it may be read, else the first that may. What is not
/// there may be read, as with the reference.
pub fn choose_run_image(
    output: &Reference,
    run: &RunToml,
    may_read: &mut dyn FnMut(&Reference) -> bool,
) -> Result<String, AnalyzeError> {
    let entry = run.images.first().filter(|entry| !entry.image.is_empty()).ok_or(AnalyzeError::NoRunImage)?;
    let names: Vec<&String> = std::iter::once(&entry.image).chain(&entry.mirrors).collect();
    let parsed = |name: &&String| name.parse::<Reference>().ok();
    let near = |name: &&String| parsed(name).is_some_and(|reference| reference.registry == output.registry);
    let (mut order, far): (Vec<&String>, Vec<&String>) = names.iter().partition(|name| near(name));
    order.extend(far);
    let chosen = order.into_iter().find(|name| parsed(name).is_some_and(|reference| may_read(&reference)));
    chosen.cloned().ok_or_else(|| {
        AnalyzeError::Unreadable(names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(labels: &[(&str, &str)]) -> Config {
        let mut config = Config { os: "linux".into(), architecture: "arm64".into(), ..Config::default() };
        config.variant = "v8".into();
        config.config.labels =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        config
    }

    #[test]
    fn the_target_is_what_configuration_and_labels_say() {
        let run = config(&[("io.buildpacks.base.distro.name", "debian"), ("io.buildpacks.base.id", "i")]);
        let found = Found { reference: "r@d", config: &run };
        let input = AnalyzeInput { previous: None, run_name: "r", run: Some(found), has_targets: true };
        let run_image = analyze(&input).unwrap().run_image.unwrap();
        let target = run_image.target.unwrap();
        assert_eq!((target.os.as_str(), target.arch.as_str()), ("linux", "arm64"));
        assert_eq!((target.arch_variant.as_str(), target.id.as_str()), ("v8", "i"));
        assert_eq!(target.distro, Some(Distro { name: "debian".into(), version: String::new() }));
        let nothing = Config::default();
        let run = Some(Found { reference: "r@d", config: &nothing });
        let input = AnalyzeInput { run, ..input };
        assert_eq!(analyze(&input), Err(AnalyzeError::NoOs("r".into())));
        assert!(analyze(&AnalyzeInput { has_targets: false, ..input }).is_ok());
    }

    #[test]
    fn broken_metadata_counts_as_no_previous_image() {
        let run = config(&[]);
        let run = Some(Found { reference: "r@d", config: &run });
        let with = |label: &str| {
            let previous = config(&[(LIFECYCLE_METADATA_LABEL, label)]);
            let previous = Some(Found { reference: "p@d", config: &previous });
            analyze(&AnalyzeInput { previous, run_name: "r", run, has_targets: true }).unwrap()
        };
        assert_eq!(with(r#"{"config":{"sha":"c"}}"#).metadata.config.sha, "c");
        assert_eq!(with("{}").image.unwrap().reference, "p@d");
        let broken = with("{");
        assert_eq!(broken.image.unwrap().reference, "");
        assert_eq!(broken.metadata, LifecycleMetadata::default());
    }

    #[test]
    fn a_mirror_on_the_output_s_registry_goes_first() {
        let run: RunToml =
            toml::from_str("[[images]]\nimage = \"a.org/run\"\nmirrors = [\"b.org/run\", \"c.org/run\"]\n")
                .unwrap();
        let choose = |output: &str, readable: &[&str]| {
            let may_read = &mut |reference: &Reference| readable.contains(&reference.registry.as_str());
            choose_run_image(&output.parse().unwrap(), &run, may_read)
        };
        let all = ["a.org", "b.org", "c.org"];
        assert_eq!(choose("c.org/app", &all).unwrap(), "c.org/run");
        assert_eq!(choose("d.org/app", &all).unwrap(), "a.org/run");
        assert_eq!(choose("c.org/app", &["b.org"]).unwrap(), "b.org/run");
        let error = choose("c.org/app", &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no run image can be read; tried: `a.org/run`, `b.org/run`, `c.org/run`"
        );
        let none = choose_run_image(&"x".parse().unwrap(), &RunToml::default(), &mut |_| true);
        assert_eq!(none, Err(AnalyzeError::NoRunImage));
    }
}
