//! What became of one program.

use std::collections::BTreeMap;

use coracle_cnb::BuildPlan;

use super::{DetectRun, Module};

/// What a program said, read.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Passed(BuildPlan),
    Failed,
    /// It, or its plan, is broken; why, where its exit code does not say.
    Error(Option<String>),
}

impl Outcome {
    pub(super) fn of(run: &DetectRun) -> Self {
        match run.exit {
            0 => match coracle_cnb::read_toml::<BuildPlan>("build plan", &run.plan_toml) {
                Ok(plan) => match refusal(&plan, &run.module) {
                    None => Self::Passed(plan),
                    Some(why) => Self::Error(Some(why.to_owned())),
                },
                Err(error) => Self::Error(Some(crate::with_causes(&error))),
            },
            100 => Self::Failed,
            -1 => Self::Error(Some(run.output.clone())),
            exit => Self::Error(Some(format!("exit code {exit}"))),
        }
    }
}

/// Versions of requirements stand in their metadata; and extensions only provide.
fn refusal(plan: &BuildPlan, module: &Module) -> Option<&'static str> {
    let sections = || std::iter::once(&plan.sections).chain(&plan.or);
    let mut requires = sections().flat_map(|section| &section.requires);
    if requires.any(|require| require.version.as_deref().is_some_and(|version| !version.is_empty())) {
        return Some("its plan requires a `version`, which belongs into `metadata.version`");
    }
    let requires = sections().any(|section| !section.requires.is_empty());
    (module.extension && requires).then_some("its plan has `requires`, which extensions must not have")
}

/// What became of the programs that have been asked for.
pub(super) type Outcomes = BTreeMap<Module, Outcome>;
