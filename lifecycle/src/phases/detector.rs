//! `detector`: which buildpacks take part (Platform API, "detector"). The programs and the decision, in one process.
//!
//! `coracle build` runs the two halves apart, so that no program can reach the decision: see [`crate::detect`].

use std::ffi::OsStr;

use coracle_cnb::{Analyzed, Group, Order, Plan};

use super::chosen::offers;
use super::scratch::Scratch;
use super::stacks;
use super::times;
use super::{Call, PhaseError, analyzed, needed};
use crate::api::{EXECUTION_ENVIRONMENTS, EXTENSIONS_KEEP_FOLDERS};
use crate::detect::{self, Catalog, DetectRun, Detected, Module, Programs, system};
use crate::file;
use crate::generate::{self, GenerateInput, Generated, Told};

pub(super) fn run(call: &Call<'_>) -> Result<(), PhaseError> {
    let arguments = &call.arguments;
    let analyzed = analyzed(arguments)?;
    let Detected { group, plan } = detect_group(call, &analyzed)?;
    file::write_document(&arguments.path("group"), &group)?;
    file::write_document(&arguments.path("plan"), &plan)?;
    if group.group_extensions.is_empty() {
        return Ok(());
    }
    let (Generated { analyzed, plan }, _) = generate(call, &group, plan, analyzed)?;
    file::write_document(&arguments.path("analyzed"), &analyzed)?;
    Ok(file::write_document(&arguments.path("plan"), &plan)?)
}

/// Has the group's extensions say what they want images to be extended with, and tells of what is unusual in that.
pub(super) fn generate(
    call: &Call<'_>,
    group: &Group,
    plan: Plan,
    analyzed: Analyzed,
) -> Result<(Generated, Told), PhaseError> {
    let (generated, told) = generate_with(call, group, plan, analyzed)?;
    if let Some(base) = &told.new_base
        && !offers(&super::run_toml(call)?, base)
    {
        call.warn(&format!("the run image `{base}`, which an extension asks for, is not in run.toml"));
    }
    Ok((generated, told))
}

/// As [`generate`], whatever run.toml says.
pub(super) fn generate_with(
    call: &Call<'_>,
    group: &Group,
    plan: Plan,
    analyzed: Analyzed,
) -> Result<(Generated, Told), PhaseError> {
    let scratch = Scratch::of(call)?;
    let target = super::target(&analyzed)?;
    let generated_dir = call.arguments.path("generated");
    let around = call.surroundings(&scratch, Some(&target), None);
    let input = GenerateInput {
        extensions: &group.group_extensions,
        plan,
        analyzed,
        generated_dir: &generated_dir,
        around: &around,
        platform_api: call.api,
    };
    let (generated, told) = generate::generate(input)?;
    told.warnings.iter().for_each(|text| call.warn(text));
    Ok((generated, told))
}

/// Before Platform API 0.13 extensions are an experiment that platforms have to ask for.
pub(super) fn guard_experiment(call: &Call<'_>, what: &'static str) -> Result<(), PhaseError> {
    if call.api >= EXTENSIONS_KEEP_FOLDERS {
        return Ok(());
    }
    match call.env.get(OsStr::new("CNB_EXPERIMENTAL_MODE")).and_then(|mode| mode.to_str()) {
        Some("quiet") => {}
        None | Some("" | "error") => return Err(PhaseError::Experiment { what, api: call.api }),
        Some(_) => call.warn("image extensions are an experiment before Platform API 0.13"),
    }
    Ok(())
}

/// Runs the programs, and decides.
pub(super) fn detect_group(call: &Call<'_>, analyzed: &Analyzed) -> Result<Detected, PhaseError> {
    let arguments = &call.arguments;
    let mut order: Order = needed("order.toml", &arguments.path("order"))?;
    let exec_env = call.exec_env();
    if call.api >= EXECUTION_ENVIRONMENTS {
        system::surround(&mut order, &arguments.path("system"))?;
    }
    if !order.order_extensions.is_empty() {
        guard_experiment(call, "order.toml has [[order-extensions]]")?;
    }
    let catalog = Catalog::read(&arguments.path("buildpacks"), &arguments.path("extensions"), &order)?;
    stacks::check_buildpacks(call, &catalog)?;
    let target = super::target(analyzed)?;
    let scratch = Scratch::of(call)?;
    let around = call.surroundings(&scratch, Some(&target), Some(&exec_env));
    let watch = |module: &Module, took| times::tell(call, module, took);
    let mut programs = Programs::new(&catalog, &around, &watch);
    let given = call.given(&target, Some(&exec_env));
    let (detected, tried) = detect::resolve(&order, &catalog, given, &mut programs);
    let runs = programs.runs;
    let explain = |is_told: bool, text: &str| if is_told { call.say(text) } else { call.whisper(text) };
    let failed = detected.is_err();
    for run in &runs {
        // What is broken in a buildpack is told also where the group does without it.
        said(run).iter().for_each(|text| explain(failed || ![0, 100].contains(&run.exit), text));
    }
    tried.iter().for_each(|group| explain(failed, &group.to_string()));
    let detected = detected.map_err(PhaseError::NotDetected)?;
    announce(call, &detected.group, tried.last().map_or(0, |group| group.results.len()));
    Ok(detected)
}

/// What a program printed, and how it ended.
fn said(run: &DetectRun) -> Option<String> {
    let DetectRun { module, exit, output, .. } = run;
    let end = match exit {
        0 | 100 if output.trim().is_empty() => return None,
        0 => String::new(),
        100 => " (does not take part)".to_owned(),
        -1 => " (could not be run)".to_owned(),
        exit => format!(" (exit code {exit})"),
    };
    Some(format!("======== Output: {module}{end} ========\n{}", output.trim_end()))
}

/// Who takes part, of how many that were asked, in the words that people look for in a build's log.
fn announce(call: &Call<'_>, group: &Group, asked: usize) {
    let elements: Vec<_> = group.group_extensions.iter().chain(&group.group).collect();
    if elements.len() < asked {
        call.say(&format!("{} of {asked} buildpacks participating", elements.len()));
    }
    let width = elements.iter().map(|element| element.id.as_str().len()).max().unwrap_or(0);
    for element in elements {
        call.say(&format!("{:width$} {}", element.id.as_str(), element.version));
    }
}
