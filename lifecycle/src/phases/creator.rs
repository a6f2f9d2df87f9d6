//! `creator`: analyze, detect, restore, build and export, one after the other in one process (Platform API, "creator").
//!
//! What a phase comes to goes on in memory. The documents are written for whoever reads them afterwards and not read again: programs of
//! buildpacks can write to them, and this process has credentials that those programs do not have.

use std::collections::BTreeSet;
use std::path::Path;

use coracle_cnb::{Analyzed, Group, RunToml};

use super::analyzer::analyze_images;
use super::builder::build_group;
use super::chosen::{look_up, offers};
use super::detector::{detect_group, generate_with};
use super::exporter::{Documents, ExporterError, PlatformDocuments, export_image};
use super::images::Images;
use super::keys::credentials_file;
use super::outputs::{Outputs, reference};
use super::restorer::restore_layers;
use super::scratch::Scratch;
use super::{Call, PhaseError, exposed, run_toml};
use crate::detect::Detected;
use crate::file;
use crate::generate::{Generated, Told};
use crate::processes::Processes;

pub(super) fn run(call: &Call<'_>) -> Result<(), PhaseError> {
    let arguments = &call.arguments;
    let outputs = Outputs::of(arguments)?;
    let run = run_toml(call).map_err(PhaseError::RunImages)?;
    let platform = PlatformDocuments::read(call, run)?;
    let images = Images::new(call)?;
    tell_what_is_exposed(call);
    let processes = Processes::adopt().map_err(PhaseError::LeftRunning)?;

    call.say("===> ANALYZING");
    let analyzed = analyze_images(call, &images, &outputs.names)?;
    file::write_document(&arguments.path("analyzed"), &analyzed)?;

    call.say("===> DETECTING");
    let detected = detect_group(call, &analyzed);
    end(call, &processes)?;
    let Detected { group, plan } = detected?;
    file::write_document(&arguments.path("group"), &group)?;
    file::write_document(&arguments.path("plan"), &plan)?;
    let (analyzed, plan) = if group.group_extensions.is_empty() {
        (analyzed, plan)
    } else {
        let generated = generate_with(call, &group, plan, analyzed);
        end(call, &processes)?;
        let (Generated { mut analyzed, plan }, told) = generated?;
        file::write_document(&arguments.path("plan"), &plan)?;
        switch_run_image(call, &platform.run, &group, &told, &mut analyzed)?;
        (analyzed, plan)
    };

    let mut verified = Vec::new();
    if !call.skips_layers() || call.api >= STORE_COMES_BACK {
        call.say("===> RESTORING");
        verified = restore_layers(call, &group, &analyzed)?;
    }

    call.say("===> BUILDING");
    let metadata = build_group(call, &group, &plan, &analyzed);
    end(call, &processes)?;
    let metadata = metadata?;

    call.say("===> EXPORTING");
    if arguments.text("cache-image").is_none() {
        // Whatever programs of buildpacks could write to is read again before it is believed: a cache's folder too.
        verified.clear();
    }
    let scratch = Scratch::fresh(call)?;
    let documents = Documents { group, metadata, analyzed, platform };
    let exported = export_image(call, &images, &outputs, documents, None, &verified, &scratch);
    exported.map_err(|error| match error {
        PhaseError::Export(ExporterError::NoRunImage) => PhaseError::NoRunImage,
        error => error,
    })
}

/// Goes on with the run image that extensions ask for, if that is all they ask for. An image that the platform does not offer is not read
/// with its credentials (docs/decisions/0015-extensions-that-choose-and-those-that-extend.md).
fn switch_run_image(
    call: &Call<'_>,
    run: &RunToml,
    group: &Group,
    told: &Told,
    analyzed: &mut Analyzed,
) -> Result<(), PhaseError> {
    if !told.extending.is_empty() {
        return Err(PhaseError::CreateExtensions(told.extending.join(", ")));
    }
    let Some(base) = &told.new_base else { return Ok(()) };
    if !offers(run, base) {
        let registry = reference(base)?.registry;
        if call.auth.has_any_for(&registry) {
            return Err(PhaseError::NotOffered { image: base.clone(), registry });
        }
        call.warn(&format!("the run image `{base}`, which an extension asks for, is not in run.toml"));
    }
    call.say(&format!("Extensions choose the run image {base}"));
    look_up(call, group, analyzed)?;
    Ok(file::write_document(&call.arguments.path("analyzed"), analyzed)?)
}

/// Nothing that a buildpack started goes on beside the phases after it.
fn end(call: &Call<'_>, processes: &Processes) -> Result<(), PhaseError> {
    let ended = processes.end().map_err(PhaseError::LeftRunning)?;
    if ended > 0 {
        call.warn(&format!("processes that buildpacks left running were ended: {ended}"));
    }
    Ok(())
}

/// Since this Platform API, what buildpacks stored comes back also where layers do not.
const STORE_COMES_BACK: coracle_cnb::ApiVersion = coracle_cnb::ApiVersion::new(0, 10);

/// Warns of credentials that programs of buildpacks can read although this process keeps its own to itself.
fn tell_what_is_exposed(call: &Call<'_>) {
    // The user's own, and the one that was read, which is another where root started this process.
    let configs: BTreeSet<_> =
        credentials_file(call.env).into_iter().chain(call.credentials_file.clone()).collect();
    let configs: Vec<_> = configs.iter().filter_map(|path| exposed::file(path)).collect();
    let asked = call.asked.iter().map(|helper| exposed::helper(helper));
    asked.for_each(|text| call.warn(&text));
    configs.iter().chain(&exposed::processes(Path::new("/proc"))).for_each(|text| call.warn(text));
}
