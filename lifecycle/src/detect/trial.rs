//! Trials over the alternatives of the plans of one group (Buildpack API, "Phase #1: Detection").
//!
//! A trial takes one alternative of each buildpack's plan. It fits when everything required was provided earlier (or by
//! the same buildpack) and everything provided is required later. Optional buildpacks that stand in the way are left
//! out and the trial is looked at again.

use std::collections::BTreeMap;

use coracle_cnb::{BuildPlan, Entry, Group, GroupElement, Plan, PlanSections, Provider, Require};

use super::resolve::Detected;

/// A buildpack that passed, with its plan.
pub(super) struct Candidate<'run> {
    pub(super) element: &'run GroupElement,
    pub(super) plan: &'run BuildPlan,
}

/// One buildpack with the alternative that a trial took.
#[derive(Clone)]
struct Choice<'run> {
    element: &'run GroupElement,
    sections: &'run PlanSections,
    /// An optional buildpack can be left out only with its last alternative, when nothing better is left to try.
    removable: bool,
}

/// A buildpack that a trial left out, or that ended it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// `id@version`.
    pub buildpack: String,
    /// Whether the trial went on without it.
    pub left_out: bool,
    /// The name in its plan that nobody shares.
    pub entry: String,
    /// Whether it requires that, or provides it.
    pub requires: bool,
}

/// The first combination of alternatives that fits; the first buildpack's alternative changes slowest. `obstacles` are those of
/// the last that was tried.
pub(super) fn first_that_fits(
    candidates: &[Candidate<'_>],
    obstacles: &mut Vec<Obstacle>,
) -> Option<Detected> {
    try_from(&mut Vec::new(), candidates, obstacles)
}

fn try_from<'run>(
    prefix: &mut Vec<Choice<'run>>,
    rest: &[Candidate<'run>],
    obstacles: &mut Vec<Obstacle>,
) -> Option<Detected> {
    let Some((first, rest)) = rest.split_first() else {
        obstacles.clear();
        return settle(prefix.clone(), obstacles);
    };
    let last = first.plan.or.len();
    for (index, sections) in std::iter::once(&first.plan.sections).chain(&first.plan.or).enumerate() {
        let removable = first.element.optional && index == last;
        prefix.push(Choice { element: first.element, sections, removable });
        let settled = try_from(prefix, rest, obstacles);
        prefix.pop();
        if settled.is_some() {
            return settled;
        }
    }
    None
}

fn settle(mut trial: Vec<Choice<'_>>, obstacles: &mut Vec<Obstacle>) -> Option<Detected> {
    loop {
        let dependencies = Dependencies::of(&trial);
        let in_the_way = dependencies.in_the_way();
        if in_the_way.is_empty() {
            if trial.is_empty() {
                return None;
            }
            return Some(Detected { group: group_of(&trial), plan: dependencies.plan() });
        }
        let in_the_way: Vec<usize> = in_the_way
            .into_iter()
            .map(|(index, entry, requires)| {
                let choice = &trial[index];
                obstacles.push(Obstacle {
                    buildpack: choice.element.name(),
                    left_out: choice.removable,
                    entry: entry.to_owned(),
                    requires,
                });
                index
            })
            .collect();
        if in_the_way.iter().any(|index| !trial[*index].removable) {
            return None;
        }
        let mut index = 0;
        trial.retain(|_| {
            index += 1;
            !in_the_way.contains(&(index - 1))
        });
    }
}

fn group_of(trial: &[Choice<'_>]) -> Group {
    let element = |choice: &Choice<'_>| GroupElement { optional: false, ..choice.element.clone() };
    Group { group: trial.iter().map(element).collect(), group_extensions: Vec::new() }
}

#[derive(Default)]
struct Dependency<'run> {
    providers: Vec<(usize, &'run GroupElement)>,
    requires: Vec<&'run Require>,
    /// Provided, but not required since.
    extra: Vec<(usize, &'run GroupElement)>,
    /// Required before anything provided it.
    early: Vec<usize>,
}

struct Dependencies<'run>(BTreeMap<&'run str, Dependency<'run>>);

impl<'run> Dependencies<'run> {
    fn of(trial: &[Choice<'run>]) -> Self {
        let mut map: BTreeMap<&'run str, Dependency<'run>> = BTreeMap::new();
        for (index, choice) in trial.iter().enumerate() {
            for provide in &choice.sections.provides {
                map.entry(&provide.name).or_default().extra.push((index, choice.element));
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
                .map(|(_, element)| Provider {
                    id: element.id.clone(),
                    version: element.version.clone(),
                    extension: false,
                })
                .collect(),
            requires: dependency.requires.iter().map(|require| (*require).clone()).collect(),
        });
        Plan { entries: entries.collect() }
    }
}
