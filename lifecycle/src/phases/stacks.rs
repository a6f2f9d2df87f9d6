//! Before Platform API 0.12 all of a build is of one stack: build image, run image, previous image and buildpacks
//! (docs/decisions/0010). Who says nothing of a stack is of any.

use std::path::Path;

use coracle_cnb::{BuildpackToml, Order};
use coracle_images::{Config, Image, Reference};

use super::{Call, PhaseError};
use crate::analyze::AnalyzeError;
use crate::detect::Catalog;
use crate::file;
use crate::rebase::{RebaseError, STACK_ID_LABEL, mixins, of_run_images, of_stack};

/// The previous image, if it goes with the run image. One that does not counts as none: none of its layers would be made for what they
/// run on.
///
/// # Errors
/// Where the run image itself is of another stack than the build image.
pub(super) fn fitting(
    call: &Call<'_>,
    (run_name, run_image): (&str, &Image),
    previous: &Reference,
    previous_image: Option<Image>,
) -> Result<Option<Image>, PhaseError> {
    if let (Some(found), Some(wanted)) = (run_image.config.label(STACK_ID_LABEL), call.stack_id())
        && found != wanted
    {
        let (run, found) = (run_name.to_owned(), found.to_owned());
        return Err(PhaseError::Analyze(AnalyzeError::OtherStack { run, found, wanted }));
    }
    let fits = |image: &Image| match of_stack(&image.config, &run_image.config) {
        Ok(()) | Err(RebaseError::NoStack(_)) => true,
        Err(error) => {
            let text =
                format!("previous image `{previous}` does not go with the run image and counts as none");
            call.warn_because(&text, &error);
            false
        }
    };
    Ok(previous_image.filter(fits))
}

/// A buildpack names the stacks that it is for, unless it has targets already.
pub(super) fn check_buildpacks(call: &Call<'_>, catalog: &Catalog) -> Result<(), PhaseError> {
    let Some(stack) = call.stack_id() else { return Ok(()) };
    for toml in catalog.buildpacks().filter(|toml| has_stacks(toml)) {
        let mut known = toml.stacks.iter().map(|known| known.id.as_str());
        if !known.any(|known| known == "*" || known == stack) {
            let stacks = toml.stacks.iter().map(|known| format!("`{}`", known.id)).collect::<Vec<_>>();
            return Err(PhaseError::OtherStack { buildpack: name(toml), stacks: stacks.join(", "), stack });
        }
    }
    Ok(())
}

/// What a run image says of its stack.
pub(super) struct RunStack {
    run: String,
    id: String,
    mixins: Vec<String>,
}

impl RunStack {
    /// Nothing where it does not say its stack.
    pub(super) fn of(run: &str, config: &Config) -> Option<Self> {
        let id = config.label(STACK_ID_LABEL).filter(|id| !id.is_empty())?;
        Some(Self { run: run.to_owned(), id: id.to_owned(), mixins: mixins(config) })
    }

    /// Fails where a buildpack of the order needs more than the run image has. What it needs of the build image is not known here, nor
    /// what there is no order of: platforms may start the analyzer elsewhere than in a builder.
    pub(super) fn check_mixins(&self, call: &Call<'_>) -> Result<(), PhaseError> {
        let arguments = &call.arguments;
        let Ok(Some(order)) = file::read_document::<Order>("order.toml", &arguments.path("order")) else {
            return Ok(());
        };
        let order = Order { order_extensions: Vec::new(), ..order };
        // What is wrong with it otherwise is the detector's to say.
        let Ok(catalog) = Catalog::read(&arguments.path("buildpacks"), Path::new(""), &order) else {
            return Ok(());
        };
        for toml in catalog.buildpacks().filter(|toml| has_stacks(toml)) {
            let stacks = toml.stacks.iter().filter(|stack| stack.id == "*" || stack.id == self.id);
            let mut needed = stacks.flat_map(|stack| &stack.mixins).filter_map(|mixin| of_run_images(mixin));
            if let Some(mixin) = needed.find(|mixin| !self.mixins.iter().any(|has| has == mixin)) {
                let (mixin, run) = (mixin.to_owned(), self.run.clone());
                return Err(PhaseError::NoMixin { buildpack: name(toml), mixin, run });
            }
        }
        Ok(())
    }
}

/// Whether stacks say what the buildpack is for. One that only names others is for any.
fn has_stacks(toml: &BuildpackToml) -> bool {
    !toml.stacks.is_empty() && toml.targets.is_empty() && toml.order.is_empty()
}

fn name(toml: &BuildpackToml) -> String {
    format!("{}@{}", toml.buildpack.id, toml.buildpack.version)
}
