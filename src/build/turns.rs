//! One phase and what is made of what it left, whoever plays it. Documents of phases with foreign code around them are read as a
//! stranger's by workers; what later phases act on is theirs.

use coracle_cnb::{Analyzed, RunImage};
use coracle_images::{Digest, Reference};
use coracle_runtime::{Outcome, SandboxSpec};

use super::Build;
use super::builder::Builder;
use super::folders::guest;
use super::foreign::{ANALYZES_FIRST, LifecycleError, REPORTS};
use super::phase::{Phase, Plan, VERIFIED, sandbox};
use crate::error::Error;
use crate::event::{Event, Stream};
use crate::worker::{self, AskDigest, CheckStacks, Detected, Lend, Remote, TakeDetected};

impl Build<'_> {
    /// Run one phase to its end.
    pub(super) fn phase(&self, phase: Phase, plan: &Plan) -> Result<(), Error> {
        if phase != Phase::Describe {
            self.started(phase.title());
        }
        self.launched(phase.title(), sandbox(phase, plan))
    }

    pub(super) fn started(&self, phase: &str) {
        self.observer.event(Event::PhaseStarted { phase: phase.to_owned() });
    }

    pub(super) fn launched(&self, phase: &'static str, spec: SandboxSpec) -> Result<(), Error> {
        match self.stage.launch_phase(spec, phase)? {
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
            previous: remote(&plan.image, true)?,
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
        if group.is_err() || plan.verbose {
            for run in runs {
                let verdict = match run.exit {
                    0 => "passed".to_owned(),
                    100 => "does not take part".to_owned(),
                    exit => format!("failed (exit code {exit})"),
                };
                self.line(Phase::Detect, format!("{}: {verdict}", run.buildpack));
                run.output.lines().for_each(|text| self.line(Phase::Detect, format!("  {text}")));
            }
            let tried = tried.iter().flat_map(|group| group.lines());
            tried.for_each(|text| self.line(Phase::Detect, text.to_owned()));
        }
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
        self.stage.work(worker::Compose { folders, api, among_layers, built_elsewhere })
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

    /// The run image is the one that was resolved here, whatever another lifecycle says.
    fn check_analyzed(&self, plan: &Plan, phase: Phase, text: &str) -> Result<(), Error> {
        if plan.foreign_for(phase).is_none() {
            return Ok(());
        }
        let analyzed: Analyzed = coracle_cnb::read_toml("analyzed.toml", text).map_err(Error::Document)?;
        let expected = plan.run_image.to_string();
        let is_it = |run: &RunImage| {
            let in_layout = !plan.publish && run.reference.starts_with(guest::LAYOUT);
            let named = run.reference.parse().is_ok_and(|found: coracle_images::Reference| {
                found.registry == plan.run_image.registry && found.repository == plan.run_image.repository
            });
            !run.extend && (in_layout || named)
        };
        match analyzed.run_image.as_ref().filter(|run| !is_it(run)) {
            None => Ok(()),
            Some(run) => Err(LifecycleError::OtherRunImage {
                phase: phase.title(),
                name: self.lifecycle_name(),
                found: run.reference.clone(),
                expected,
            }
            .into()),
        }
    }

    fn line(&self, phase: Phase, text: String) {
        let phase = Some(phase.title().to_owned());
        self.observer.event(Event::Line { stream: Stream::Out, phase, text });
    }
}
