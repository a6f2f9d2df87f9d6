//! `detector`: which buildpacks take part (Platform API, "detector"). The programs and the decision, in one process.
//!
//! `coracle build` runs the two halves apart, so that no program can reach the decision: see [`crate::detect`].

use coracle_cnb::{Analyzed, Group, GroupElement, Order, SystemToml};

use super::scratch::Scratch;
use super::{Call, PhaseError, analyzed, needed};
use crate::api::TARGETS;
use crate::describe;
use crate::detect::{self, Catalog, DetectRun, Detected};
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
    let mut catalog = Catalog::read(&arguments.path("buildpacks"), &order)?;
    if let Some(exec_env) = &exec_env {
        catalog.leave_out_other_exec_envs(&mut order, exec_env);
    }
    // Before Platform API 0.12 there are stacks, which the platform compares, and no targets.
    let target = analyzed.run_image.as_ref().and_then(|image| image.target.as_ref());
    let target = target.filter(|_| call.api >= TARGETS);
    let told = super::target(analyzed)?;
    let distro = describe::build_distro()?;
    let scratch = Scratch::of(call)?;
    let around = call.surroundings(&scratch, Some(&told), exec_env.as_deref());
    let runs = detect::run_programs(&catalog, &around);
    let (detected, tried) = detect::explain(&order, &catalog, &runs, target, distro.as_ref());
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
    let DetectRun { id, version, exit, output, .. } = run;
    let end = match exit {
        0 | 100 if output.trim().is_empty() => return None,
        0 => String::new(),
        100 => " (does not take part)".to_owned(),
        -1 => " (could not be run)".to_owned(),
        exit => format!(" (exit code {exit})"),
    };
    Some(format!("======== Output: {id}@{version}{end} ========\n{}", output.trim_end()))
}

fn announce(call: &Call<'_>, group: &Group) {
    let width = group.group.iter().map(|element| element.id.as_str().len()).max().unwrap_or(0);
    for element in &group.group {
        call.say(&format!("{:width$} {}", element.id.as_str(), element.version));
    }
}
