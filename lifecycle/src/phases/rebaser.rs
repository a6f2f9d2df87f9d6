//! `rebaser`: an application on another run image (Platform API, "rebaser").

use std::ffi::OsStr;

use coracle_cnb::{Report, ReportImage, RunToml};
use coracle_images::Reference;

use super::analyzer::may_read;
use super::images::{Images, ImagesError, layout_path};
use super::keys::names_of;
use super::outputs::{Outputs, reference};
use super::{ArgumentError, Call, PhaseError};
use crate::analyze::{AnalyzeError, choose_run_image};
use crate::export::{Outbox, OutboxError, PublishError, Publisher, Source};
use crate::file::{self, FileError};
use crate::rebase::{RebaseError, RebaseInput, known_run_image, metadata_of, rebase};

/// The exit code where no run image can be read, for who wants to tell that from other failures (`-distinct`). No specification has it.
pub const RUN_IMAGE_UNREADABLE: u8 = 79;

/// Why the image stays on its run image, or did not get all of its names.
#[derive(Debug, thiserror::Error)]
pub enum RebaserError {
    /// The image could not be had.
    #[error("rebase")]
    Image(#[source] ImagesError),
    /// The run image could not be had.
    #[error("rebase")]
    Images(#[from] ImagesError),
    /// No run image can be chosen.
    #[error("rebase")]
    Choice(#[source] AnalyzeError),
    /// One of the two before, and who called wants to know that it is this (`-distinct`).
    #[error(transparent)]
    RunImage(Box<RebaserError>),
    /// The image must stay where it is.
    #[error("rebase `{name}`")]
    Rebase {
        name: String,
        #[source]
        source: RebaseError,
    },
    /// The layout folder could not be written.
    #[error("rebase")]
    Outbox(#[from] OutboxError),
    /// The image could not be published.
    #[error("rebase")]
    Publish(#[from] PublishError),
    /// The image is there, but nothing says so.
    #[error("report the rebased image")]
    Report(#[source] FileError),
}

impl RebaserError {
    /// The exit code of the rebaser (Platform API, "rebaser"): as the reference, 1 where only the run image is not to be had.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Images(_) => 1,
            Self::RunImage(_) => RUN_IMAGE_UNREADABLE,
            _ => 72,
        }
    }
}

pub(super) fn run(call: &Call<'_>) -> Result<(), PhaseError> {
    let names = Outputs::of(&call.arguments)?.names;
    let run_name = named_run_image(call)?.filter(|name| !name.is_empty());
    run_name.as_deref().map(reference).transpose()?;
    let source = match call.arguments.text("previous-image") {
        Some(name) => reference(&name.to_string_lossy())?,
        None => names[0].clone(),
    };
    let images = Images::new(call)?;
    move_image(call, &images, &source, &names, run_name).map_err(|error| {
        let of_run_image = matches!(error, RebaserError::Images(_) | RebaserError::Choice(_));
        let distinct = of_run_image && call.arguments.on("distinct");
        if distinct { RebaserError::RunImage(Box::new(error)) } else { error }.into()
    })
}

/// As `-run-image` says, or its old name `-image`. Who gives both can mean only one; the variable means less than either.
fn named_run_image(call: &Call<'_>) -> Result<Option<String>, ArgumentError> {
    let text = |flag| call.arguments.text(flag).map(|name| name.to_string_lossy().into_owned());
    let by_variable = call.env.get(OsStr::new("CNB_RUN_IMAGE")).map(|name| name.to_string_lossy());
    match (text("image"), text("run-image")) {
        (Some(_), Some(run)) if by_variable.as_deref() != Some(run.as_str()) => {
            Err(ArgumentError::Both("run-image", "image"))
        }
        (image, run) => Ok(image.or(run)),
    }
}

fn move_image(
    call: &Call<'_>,
    images: &Images,
    source: &Reference,
    names: &[Reference],
    run_name: Option<String>,
) -> Result<(), RebaserError> {
    let arguments = &call.arguments;
    let failed = |error| RebaserError::Rebase { name: source.to_string(), source: error };
    let old = images.image(source).map_err(RebaserError::Image)?;
    let mut images = images.clone();
    let metadata = metadata_of(&old);
    let run_name = match (run_name, metadata) {
        (Some(name), Ok(_) | Err(RebaseError::NoMetadata)) => name,
        (_, Err(error)) => return Err(failed(error)),
        (None, Ok(metadata)) => {
            let known = known_run_image(&metadata, call.api).map_err(failed)?;
            let known = RunToml { images: vec![known] };
            let offered: Vec<_> = names_of(&known).filter_map(|name| name.parse().ok()).collect();
            images = images.also_for(call, &offered)?;
            choose_run_image(&names[0], &known, &mut may_read(&images)).map_err(RebaserError::Choice)?
        }
    };
    let run_reference: Reference = run_name.parse().map_err(ImagesError::from)?;
    let run = images.image(&run_reference)?;
    let rebased = rebase(&RebaseInput {
        image: &old,
        run: &run,
        run_name: &run_name,
        run_reference: &run_reference.with_digest(run.digest.clone()).to_string(),
        force: arguments.on("force"),
        platform_api: call.api,
    })
    .map_err(failed)?;
    rebased.overruled.iter().for_each(|objection| call.warn_because("overruled", objection));

    let (image, texts) = (&rebased.image, arguments.images());
    match &images {
        Images::Registry(registry) => {
            let sources =
                [Source { name: &run_reference, image: &run }, Source { name: source, image: &old }];
            Publisher::new(registry, &[], &sources, &[]).publish(image, names)?;
        }
        Images::Layout(dir) => {
            for name in names {
                Outbox::new(&layout_path(dir, name))?.finish(image, name.identifier())?;
            }
        }
    }
    call.say(&format!("*** Images ({}):", image.digest));
    texts.iter().for_each(|name| call.say(&format!("      {name}")));
    let report = Report {
        build: None,
        image: ReportImage {
            tags: texts.to_vec(),
            image_id: String::new(),
            digest: image.digest.to_string(),
            manifest_size: Some(image.manifest_bytes.len() as u64),
        },
    };
    file::write_document(&arguments.path("report"), &report).map_err(RebaserError::Report)
}
