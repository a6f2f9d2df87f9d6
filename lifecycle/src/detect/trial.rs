//! Trials over the alternatives of the plans of one group (Buildpack API, "Phase #1: Detection").
//!
//! A trial takes one alternative of each buildpack's plan. It fits when everything required was provided earlier (or by
//! the same buildpack) and everything provided is required later. Optional buildpacks that stand in the way are left
//! out and the trial is looked at again.

use std::collections::{BTreeMap, BTreeSet};

use coracle_cnb::{BuildPlan, Entry, Group, GroupElement, Plan, PlanSections, Provider, Require};

use super::resolve::{Detected, Member};
use super::search::{self, Alternatives, Steps, TooMany};

/// A module that passed, with its plan.
pub(super) struct Candidate<'run> {
    pub(super) member: &'run Member,
    pub(super) plan: &'run BuildPlan,
}

impl<'run> Candidate<'run> {
    fn alternatives(&self) -> Alternatives<'run> {
        let sections = std::iter::once(&self.plan.sections).chain(&self.plan.or).collect();
        Alternatives { sections, optional: self.member.element.optional }
    }
}

/// One module with the alternative that a trial took.
struct Choice<'run> {
    member: &'run Member,
    sections: &'run PlanSections,
    /// An optional module can be left out only with its last alternative, when nothing better is left to try.
    removable: bool,
}

/// A module that a trial left out, or that ended it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// `id@version`.
    pub module: String,
    /// Whether the trial went on without it.
    pub left_out: bool,
    /// The name in its plan that nobody shares.
    pub entry: String,
    /// Whether it requires that, or provides it.
    pub requires: bool,
}

/// The first combination of alternatives that fits; the first module's alternative changes slowest. `obstacles` are those of
/// that combination, or of the last where none fits.
pub(super) fn first_that_fits(
    candidates: &[Candidate<'_>],
    obstacles: &mut Vec<Obstacle>,
    steps: &mut Steps,
) -> Result<Option<Detected>, TooMany> {
    let plans: Vec<Alternatives<'_>> = candidates.iter().map(Candidate::alternatives).collect();
    let fitting = search::first_fitting(&plans, steps)?;
    let last = || plans.iter().map(|plan| plan.sections.len() - 1).collect();
    let trial =
        candidates.iter().zip(&plans).zip(fitting.unwrap_or_else(last)).map(|((candidate, plan), number)| {
            Choice {
                member: candidate.member,
                sections: plan.sections[number],
                removable: plan.optional && number + 1 == plan.sections.len(),
            }
        });
    settle(trial.collect(), obstacles, steps)
}

fn settle(
    mut trial: Vec<Choice<'_>>,
    obstacles: &mut Vec<Obstacle>,
    steps: &mut Steps,
) -> Result<Option<Detected>, TooMany> {
    loop {
        steps.take(
            trial
                .iter()
                .map(|choice| 1 + choice.sections.provides.len() + choice.sections.requires.len())
                .sum(),
        )?;
        let dependencies = Dependencies::of(&trial);
        let in_the_way = dependencies.in_the_way();
        if in_the_way.is_empty() {
            let detected = || Detected { group: group_of(&trial), plan: dependencies.plan() };
            return Ok((!trial.is_empty()).then(detected));
        }
        let in_the_way: BTreeSet<usize> = in_the_way
            .into_iter()
            .map(|(index, entry, requires)| {
                let choice = &trial[index];
                obstacles.push(Obstacle {
                    module: choice.member.module.to_string(),
                    left_out: choice.removable,
                    entry: entry.to_owned(),
                    requires,
                });
                index
            })
            .collect();
        if in_the_way.iter().any(|index| !trial[*index].removable) {
            return Ok(None);
        }
        let mut index = 0;
        trial.retain(|_| {
            index += 1;
            !in_the_way.contains(&(index - 1))
        });
    }
}

fn group_of(trial: &[Choice<'_>]) -> Group {
    let of = |extension: bool| {
        let chosen = trial.iter().filter(move |choice| choice.member.module.extension == extension);
        chosen.map(|choice| GroupElement { optional: false, ..choice.member.element.clone() }).collect()
    };
    Group { group: of(false), group_extensions: of(true) }
}

#[derive(Default)]
struct Dependency<'run> {
    providers: Vec<(usize, &'run Member)>,
    requires: Vec<&'run Require>,
    /// Provided, but not required since.
    extra: Vec<(usize, &'run Member)>,
    /// Required before anything provided it.
    early: Vec<usize>,
}

struct Dependencies<'run>(BTreeMap<&'run str, Dependency<'run>>);

impl<'run> Dependencies<'run> {
    fn of(trial: &[Choice<'run>]) -> Self {
        let mut map: BTreeMap<&'run str, Dependency<'run>> = BTreeMap::new();
        for (index, choice) in trial.iter().enumerate() {
            for provide in &choice.sections.provides {
                map.entry(&provide.name).or_default().extra.push((index, choice.member));
            }
            for require in &choice.sections.requires {
                let dependency = map.entry(&require.name).or_default();
                let extra = std::mem::take(&mut dependency.extra);
                dependency.providers.extend(extra);
                if dependency.providers.is_empty() {
                    dependency.early.push(index);
                } else {
                    dependency.requires.push(require);
                }
            }
        }
        Self(map)
    }

    /// Requirements come first: leaving out who requires too early may change what is provided for nothing. Each by its
    /// place, the name, and whether it is required.
    fn in_the_way(&self) -> Vec<(usize, &'run str, bool)> {
        let of = |early: bool| {
            self.0.iter().flat_map(move |(name, dependency)| {
                let extra = dependency.extra.iter().map(|(index, _)| *index);
                let indices: Vec<usize> = if early { dependency.early.clone() } else { extra.collect() };
                indices.into_iter().map(move |index| (index, *name, early))
            })
        };
        let early: Vec<_> = of(true).collect();
        if early.is_empty() { of(false).collect() } else { early }
    }

    fn plan(&self) -> Plan {
        let entries = self.0.values().map(|dependency| Entry {
            providers: dependency
                .providers
                .iter()
                .map(|(_, Member { module, .. })| Provider {
                    id: module.id.clone(),
                    version: module.version.clone(),
                    extension: module.extension,
                })
                .collect(),
            requires: dependency.requires.iter().map(|require| (*require).clone()).collect(),
        });
        Plan { entries: entries.collect() }
    }
}
