//! `detector`: which buildpacks take part (Platform API, "detector"). The programs and the decision, in one process.
//!
//! `coracle build` runs the two halves apart, so that no program can reach the decision: see [`crate::detect`].

use coracle_cnb::{Analyzed, Group, GroupElement, Order, SystemToml};

use super::scratch::Scratch;
use super::{Call, PhaseError, analyzed, needed};
use crate::detect::{self, Catalog, DetectRun, Detected, Programs};
use crate::file;

pub(super) fn run(call: &Call<'_>) -> Result<(), PhaseError> {
    let arguments = &call.arguments;
    let detected = detect_group(call, &analyzed(arguments)?)?;
    file::write_document(&arguments.path("group"), &detected.group)?;
    Ok(file::write_document(&arguments.path("plan"), &detected.plan)?)
}

/// Runs the programs, and decides.
pub(super) fn detect_group(call: &Call<'_>, analyzed: &Analyzed) -> Result<Detected, PhaseError> {
    let arguments = &call.arguments;
    let mut order: Order = needed("order.toml", &arguments.path("order"))?;
    let exec_env = call.exec_env();
    if exec_env.is_some() {
        let system: Option<SystemToml> = file::read_document("system.toml", &arguments.path("system"))?;
        surround(&mut order, &system.unwrap_or_default());
    }
    let catalog = Catalog::read(&arguments.path("buildpacks"), &arguments.path("extensions"), &order)?;
    let target = super::target(analyzed)?;
    let scratch = Scratch::of(call)?;
    let around = call.surroundings(&scratch, Some(&target), exec_env.as_deref());
    let mut programs = Programs::new(&catalog, &around);
    let given = call.given(&target, exec_env.as_deref());
    let (detected, tried) = detect::resolve(&order, &catalog, given, &mut programs);
    let runs = programs.runs;
    let explain = |text: &str| if detected.is_err() { call.say(text) } else { call.whisper(text) };
    runs.iter().filter_map(said).for_each(|text| explain(&text));
    tried.iter().for_each(|group| explain(&group.to_string()));
    let detected = detected.map_err(PhaseError::NotDetected)?;
    announce(call, &detected.group);
    Ok(detected)
}

/// Puts the system's buildpacks around those of each group that do not have them. None is optional, as with the reference.
fn surround(order: &mut Order, system: &SystemToml) {
    for group in &mut order.order {
        let new = |buildpacks: &[GroupElement], group: &[GroupElement]| -> Vec<GroupElement> {
            let known = |element: &GroupElement| group.iter().any(|known| known.id == element.id);
            let new = buildpacks.iter().filter(|element| !known(element)).cloned();
            new.map(|element| GroupElement { optional: false, ..element }).collect()
        };
        let pre = new(&system.system.pre.buildpacks, &group.group);
        let post = new(&system.system.post.buildpacks, &group.group);
        group.group.splice(0..0, pre);
        group.group.extend(post);
    }
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

fn announce(call: &Call<'_>, group: &Group) {
    let width = group.group.iter().map(|element| element.id.as_str().len()).max().unwrap_or(0);
    for element in &group.group {
        call.say(&format!("{:width$} {}", element.id.as_str(), element.version));
    }
}
