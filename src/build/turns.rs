//! One phase and what is made of what it left, whoever plays it. Documents of phases with foreign code around them are read as a
//! stranger's by workers; what later phases act on is theirs.

use std::path::Path;

use coracle_cnb::{Analyzed, RunImage};
use coracle_images::{Digest, Reference};
use coracle_lifecycle::phases::layout_path;
use coracle_runtime::{Outcome, SandboxSpec};

use super::Build;
use super::bounds::watched;
use super::builder::Builder;
use super::folders::guest;
use super::foreign::{ANALYZES_FIRST, LifecycleError, REPORTS};
use super::phase::{Phase, Plan, VERIFIED, sandbox};
use crate::error::Error;
use crate::event::{Event, Stream};
use crate::watch::Watched;
use crate::worker::{self, AskDigest, CheckStacks, Detected, Lend, Remote, TakeDetected};

impl Build<'_> {
    /// Run one phase to its end.
    pub(super) fn phase(&self, phase: Phase, plan: &Plan) -> Result<(), Error> {
        self.started(phase.title());
        let spec = sandbox(phase, plan);
        let watched = watched(phase, plan, &spec);
        self.launched(phase.title(), spec, &watched)
    }

    pub(super) fn started(&self, phase: &str) {
        self.observer.event(Event::PhaseStarted { phase: phase.to_owned() });
    }

    /// Run one container to its end.
    pub(super) fn launched(
        &self,
        phase: &'static str,
        spec: SandboxSpec,
        watched: &Watched,
    ) -> Result<(), Error> {
        match self.stage.launch_phase(spec, phase, watched)? {
            Outcome::Exited(0) => Ok(()),
            outcome => Err(Error::Phase { phase, outcome }),
        }
    }

    /// Whether all that a build of an older Platform API is made of goes together.
    pub(super) fn check_stacks(&self, builder: &Builder, plan: &Plan) -> Result<(), Error> {
        let remote = |image: &Reference, known: bool| {
            Remote::new(image, &plan.insecure, Some(&self.keys).filter(|_| known))
        };
        self.stage.work(CheckStacks {
            folders: plan.folders.clone(),
            builder: self.request.builder.to_string(),
            stack: builder.stack.clone(),
            run_image: remote(&plan.run_image, self.is_known(&plan.run_image))?,
            previous: remote(&plan.image, true)?.into(),
        })
    }

    /// What the last build left, and what the image is to stand on.
    pub(super) fn analyze(&self, plan: &Plan) -> Result<(), Error> {
        self.phase(Phase::Analyze, plan)?;
        let text = self.keep(plan, Phase::Analyze, "analyzed.toml")?;
        self.check_analyzed(plan, Phase::Analyze, &text)?;
        self.disbelieve_others(plan, &text)
    }

    /// Which buildpacks take part, and whether image extensions do.
    pub(super) fn detect(&self, plan: &Plan) -> Result<(Vec<String>, bool), Error> {
        if plan.foreign_for(Phase::Detect).is_some() {
            return Ok((self.detect_elsewhere(plan)?, false));
        }
        self.phase(Phase::Detect, plan)?;
        let Detected { group, extensions, runs, tried } = self
            .stage
            .work(worker::Detect { folders: plan.folders.clone(), exec_env: plan.exec_env.clone() })?;
        let all = group.is_err() || plan.verbose;
        // What is broken in a buildpack is told also where the group does without it.
        for run in runs.into_iter().filter(|run| all || ![0, 100].contains(&run.exit)) {
            let verdict = match run.exit {
                0 => "passed".to_owned(),
                100 => "does not take part".to_owned(),
                exit => format!("failed (exit code {exit})"),
            };
            self.line(Phase::Detect, format!("{}: {verdict}", run.buildpack));
            run.output.lines().for_each(|text| self.line(Phase::Detect, format!("  {text}")));
        }
        let tried = tried.iter().filter(|_| all).flat_map(|group| group.lines());
        tried.for_each(|text| self.line(Phase::Detect, text.to_owned()));
        let buildpacks = self.taking_part(group)?;
        extensions.iter().for_each(|name| self.line(Phase::Detect, format!("{name} (image extension)")));
        Ok((buildpacks, !extensions.is_empty()))
    }

    /// Another lifecycle decides, and whether it can have decided so is decided here.
    fn detect_elsewhere(&self, plan: &Plan) -> Result<Vec<String>, Error> {
        self.lend(plan, Phase::Detect, "analyzed.toml")?;
        self.phase(Phase::Detect, plan)?;
        let (folders, phase) = (plan.folders.clone(), plan.out(Phase::Detect).to_owned());
        let group = self.stage.work(TakeDetected { folders, phase })?;
        self.taking_part(group)
    }

    fn taking_part(&self, group: Result<Vec<String>, (u8, String)>) -> Result<Vec<String>, Error> {
        match group {
            Ok(buildpacks) => {
                let count = buildpacks.len();
                self.line(Phase::Detect, format!("{count} of the builder's buildpacks take part:"));
                buildpacks.iter().for_each(|name| self.line(Phase::Detect, name.clone()));
                Ok(buildpacks)
            }
            Err((code, why)) => {
                self.line(Phase::Detect, why);
                Err(Error::Phase { phase: Phase::Detect.title(), outcome: Outcome::Exited(code.into()) })
            }
        }
    }

    /// Layers of the last build.
    pub(super) fn restore(&self, plan: &Plan) -> Result<(), Error> {
        if plan.foreign_for(Phase::Restore).is_none() {
            self.phase(Phase::Restore, plan)?;
            self.keep(plan, Phase::Restore, VERIFIED)?;
            return match plan.switched {
                true => self.keep(plan, Phase::Restore, "analyzed.toml").map(drop),
                false => Ok(()),
            };
        }
        // Where extensions have chosen the run image, it has its copy, which says so.
        if !plan.switched {
            self.lend(plan, Phase::Restore, "analyzed.toml")?;
        }
        self.phase(Phase::Restore, plan)?;
        if plan.api >= ANALYZES_FIRST {
            let text = self.keep(plan, Phase::Restore, "analyzed.toml")?;
            self.check_analyzed(plan, Phase::Restore, &text)?;
        }
        Ok(())
    }

    /// What the image says of itself, from what each buildpack asked for.
    pub(super) fn compose(&self, plan: &Plan) -> Result<(), Error> {
        let among_layers = plan.foreign_for(Phase::Export).is_some();
        let built_elsewhere = plan.foreign_for(Phase::Build).is_some();
        let (folders, api) = (plan.folders.clone(), plan.api);
        let left_out = self.stage.work(worker::Compose { folders, api, among_layers, built_elsewhere })?;
        left_out.into_iter().for_each(|text| self.line(Phase::Export, text));
        Ok(())
    }

    /// The digest of what was published.
    pub(super) fn digest_of_published(&self, plan: &Plan, report: &str) -> Result<Digest, Error> {
        if plan.api >= REPORTS || plan.foreign_for(Phase::Export).is_none() {
            return super::published(report);
        }
        let image = Remote::new(&plan.image, &plan.insecure, Some(&self.keys))?;
        self.stage.work(AskDigest { image })
    }

    /// Bring a document that a phase wrote to those that later phases read.
    pub(super) fn keep(&self, plan: &Plan, phase: Phase, document: &str) -> Result<String, Error> {
        let texts = self.stage.work(worker::Keep {
            folders: plan.folders.clone(),
            phase: plan.out(phase).to_owned(),
            documents: vec![document.to_owned()],
        })?;
        Ok(texts.into_iter().next().unwrap_or_default())
    }

    /// Give a phase a copy of a document that it changes.
    fn lend(&self, plan: &Plan, phase: Phase, document: &str) -> Result<(), Error> {
        self.stage.work(Lend {
            folders: plan.folders.clone(),
            ids: self.stage.ids,
            user: plan.user.clone(),
            phase: plan.out(phase).to_owned(),
            documents: vec![document.to_owned()],
        })
    }

    /// The run image is the one that was resolved here, and the previous image the output's, whatever another lifecycle says.
    fn check_analyzed(&self, plan: &Plan, phase: Phase, text: &str) -> Result<(), Error> {
        if plan.foreign_for(phase).is_none() {
            return Ok(());
        }
        let analyzed: Analyzed = coracle_cnb::read_toml("analyzed.toml", text).map_err(Error::Document)?;
        let (phase, name) = (phase.title(), self.lifecycle_name());
        let in_layout = !plan.publish;
        let other =
            analyzed.run_image.as_ref().and_then(|run| other_run_image(run, &plan.run_image, in_layout));
        if let Some((field, found)) = other {
            let (found, expected) = (found.to_owned(), plan.run_image.to_string());
            return Err(LifecycleError::OtherRunImage { phase, name, field, found, expected }.into());
        }
        let previous = analyzed.image.map(|image| image.reference);
        match previous.filter(|previous| !is_previous_image(previous, &plan.image, in_layout)) {
            None => Ok(()),
            Some(found) => {
                let expected = plan.image.to_string();
                Err(LifecycleError::OtherPreviousImage { phase, name, found, expected }.into())
            }
        }
    }

    fn line(&self, phase: Phase, text: String) {
        let phase = Some(phase.title().to_owned());
        self.observer.event(Event::Line { stream: Stream::Out, phase, text });
    }
}

/// The field of analyzed.toml by which the image would stand on another one, now or, by its name, once it is rebased.
fn other_run_image<'a>(
    run: &'a RunImage,
    run_image: &Reference,
    in_layout: bool,
) -> Option<(&'static str, &'a str)> {
    if run.extend {
        return Some(("run-image.extend", &run.reference));
    }
    if !is_run_image(&run.reference, run_image, in_layout) {
        return Some(("run-image.reference", &run.reference));
    }
    // In a layout most lifecycles write the folder here, too.
    let is_it = |in_layout| is_run_image(&run.image, run_image, in_layout);
    let is_named = run.image.is_empty() || is_it(false) || (in_layout && is_it(true));
    (!is_named).then_some(("run-image.image", &run.image))
}

/// Whether a reference of analyzed.toml is to the run image that was resolved: by its tag, or by a digest of its repository; in a layout,
/// to its folder.
fn is_run_image(found: &str, run_image: &Reference, in_layout: bool) -> bool {
    if in_layout {
        return is_folder_of(found, run_image);
    }
    found.parse::<Reference>().is_ok_and(|found| {
        found.name() == run_image.name() && (found.digest.is_some() || found.tag == run_image.tag)
    })
}

/// Whether a reference of analyzed.toml is to what the image was before, or to nothing.
fn is_previous_image(found: &str, image: &Reference, in_layout: bool) -> bool {
    match in_layout {
        _ if found.is_empty() => true,
        true => is_folder_of(found, image),
        false => found.parse::<Reference>().is_ok_and(|found| found.name() == image.name()),
    }
}

/// `<folder>@<digest>`; an image that is named by tag and digest may lie under either.
fn is_folder_of(found: &str, image: &Reference) -> bool {
    let path = found.split_once('@').map_or(found, |(path, _)| path);
    let by_tag = image.tag.is_some().then(|| Reference { digest: None, ..image.clone() });
    let mut folders = [Some(image), by_tag.as_ref()].into_iter().flatten();
    folders.any(|image| layout_path(Path::new(guest::LAYOUT), image).to_str() == Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_analysis_is_of_the_images_of_this_build() {
        let (digest, other) = (format!("sha256:{}", "1".repeat(64)), format!("sha256:{}", "2".repeat(64)));
        let folder = |path: &str| format!("/layout/r.example/{path}@{digest}");
        let run_image: Reference = "r.example/team/run:1".parse().unwrap();
        for (found, in_layout, is_it) in [
            ("r.example/team/run:1".to_owned(), false, true),
            (format!("r.example/team/run@{digest}"), false, true),
            ("r.example/team/run:2".to_owned(), false, false),
            ("r.example/team/run".to_owned(), false, false),
            (format!("r.example/team/other@{digest}"), false, false),
            (folder("team/run/1"), false, false),
            (folder("team/run/1"), true, true),
            ("/layout/r.example/team/run/1".to_owned(), true, true),
            (folder("team/run/2"), true, false),
            (folder("team/other/1"), true, false),
            (folder("team/run/1/../../app/1"), true, false),
            ("r.example/team/run:1".to_owned(), true, false),
            (String::new(), true, false),
        ] {
            assert_eq!(is_run_image(&found, &run_image, in_layout), is_it, "{found}");
        }
        let both: Reference = format!("r.example/team/run:1@{digest}").parse().unwrap();
        let by_digest = format!("team/run/sha256/{}", "1".repeat(64));
        for (found, is_it) in
            [(folder("team/run/1"), true), (folder(&by_digest), true), (folder("team/run/latest"), false)]
        {
            assert_eq!(is_run_image(&found, &both, true), is_it, "{found}");
        }

        let named = |image: &str, in_layout| {
            let reference = folder("team/run/1");
            let run = RunImage { reference, image: image.to_owned(), extend: false, target: None };
            other_run_image(&run, &run_image, in_layout).map(|(field, _)| field)
        };
        for image in ["", "r.example/team/run:1", "/layout/r.example/team/run/1"] {
            assert_eq!(named(image, true), None, "{image}");
        }
        for image in
            ["r.example/team/other:1", "/layout/r.example/team/other/1", "/layout/r.example/team/run/1/.."]
        {
            assert_eq!(named(image, true), Some("run-image.image"), "{image}");
        }

        let image: Reference = "r.example/team/app:1".parse().unwrap();
        for (found, in_layout, is_it) in [
            (String::new(), false, true),
            (String::new(), true, true),
            (format!("r.example/team/app@{other}"), false, true),
            (format!("r.example/team/other@{other}"), false, false),
            (format!("other.example/team/app@{other}"), false, false),
            (folder("team/app/1"), false, false),
            (folder("team/app/1"), true, true),
            (folder("team/app/2"), true, false),
        ] {
            assert_eq!(is_previous_image(&found, &image, in_layout), is_it, "{found}");
        }
    }
}
