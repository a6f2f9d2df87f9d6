//! The decision: which group of the order is taken, and with which plan.

use std::cell::RefCell;
use std::collections::BTreeMap;

use coracle_cnb::{
    ApiVersion, BuildPlan, BuildpackId, Distro, Group, GroupElement, Order, OrderGroup, Plan, RunImageTarget,
};

use super::explain::{Tried, Verdict};
use super::trial::{self, Candidate};
use super::{Catalog, DetectRun, catalog};

/// Composites may hold composites, but not without end.
const MAX_DEPTH: usize = 64;

/// The group and the plan that detect settled on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Detected {
    pub group: Group,
    pub plan: Plan,
}

/// Why no group was taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No group passes (exit 20).
    #[error("no buildpack group passed detection")]
    NonePassed,
    /// No group passes, and a program failed in one of them (exit 21).
    #[error("no buildpack group passed detection, and a buildpack failed with an error")]
    NonePassedWithErrors,
    /// The order names a buildpack that the catalog does not have.
    #[error("resolve order: buildpack `{0}` is not in the builder")]
    Unknown(String),
    /// Composites contain one another.
    #[error("resolve order: buildpack `{0}` contains itself")]
    Cyclic(String),
}

impl ResolveError {
    /// The exit code of the detector (Platform API, "detector").
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NonePassed => 20,
            Self::NonePassedWithErrors => 21,
            Self::Unknown(_) | Self::Cyclic(_) => 22,
        }
    }
}

/// Takes the first group of the order that passes. Pure: all it knows is in its arguments. `target` and `build_distro`
/// are the run image's target and the distribution of the build image.
pub fn resolve(
    order: &Order,
    catalog: &Catalog,
    runs: &[DetectRun],
    target: Option<&RunImageTarget>,
    build_distro: Option<&Distro>,
) -> Result<Detected, ResolveError> {
    explain(order, catalog, runs, target, build_distro).0
}

/// As [`resolve`], and what became of each group on the way.
pub fn explain(
    order: &Order,
    catalog: &Catalog,
    runs: &[DetectRun],
    target: Option<&RunImageTarget>,
    build_distro: Option<&Distro>,
) -> (Result<Detected, ResolveError>, Vec<Tried>) {
    let outcomes =
        runs.iter().map(|run| ((run.id.clone(), run.version.clone()), Outcome::of(run, catalog))).collect();
    let resolver = Resolver { catalog, outcomes, target, build_distro, tried: RefCell::default() };
    let resolved = match resolver.order(&order.order, &[], &[], false, 0) {
        Ok(detected) => Ok(detected),
        Err(Failed::Stop(error)) => Err(error),
        Err(Failed::Group { errors: true }) => Err(ResolveError::NonePassedWithErrors),
        Err(Failed::Group { errors: false }) => Err(ResolveError::NonePassed),
    };
    (resolved, resolver.tried.into_inner())
}

/// What became of one program.
#[derive(Debug, Clone)]
enum Outcome {
    Passed(BuildPlan),
    Failed,
    Error,
}

impl Outcome {
    fn of(run: &DetectRun, catalog: &Catalog) -> Self {
        let element = GroupElement {
            id: run.id.clone(),
            version: run.version.clone(),
            api: None,
            homepage: None,
            optional: false,
        };
        match run.exit {
            100 => Self::Failed,
            0 => match coracle_cnb::read_toml::<BuildPlan>("build plan", &run.plan_toml) {
                Ok(plan) if catalog.get(&element).is_some_and(|toml| versions_agree(&plan, toml.api)) => {
                    Self::Passed(plan)
                }
                Ok(_) | Err(_) => Self::Error,
            },
            _ => Self::Error,
        }
    }
}

/// A requirement may name its version at the top or in its metadata, not both; since Buildpack API 0.11 only there.
fn versions_agree(plan: &BuildPlan, _api: ApiVersion) -> bool {
    let sections = std::iter::once(&plan.sections).chain(&plan.or);
    let mut requires = sections.flat_map(|section| &section.requires);
    requires.all(|require| {
        !(require.version.as_deref().is_some_and(|version| !version.is_empty())
            && require.metadata.contains_key("version"))
    })
}

enum Failed {
    /// This group does not fit: the next is tried.
    Group {
        errors: bool,
    },
    Stop(ResolveError),
}

struct Resolver<'input> {
    catalog: &'input Catalog,
    outcomes: BTreeMap<(BuildpackId, String), Outcome>,
    target: Option<&'input RunImageTarget>,
    build_distro: Option<&'input Distro>,
    tried: RefCell<Vec<Tried>>,
}

impl Resolver<'_> {
    fn order(
        &self,
        groups: &[OrderGroup],
        done: &[GroupElement],
        rest: &[GroupElement],
        optional: bool,
        depth: usize,
    ) -> Result<Detected, Failed> {
        let mut any_errors = false;
        for group in groups {
            let elements = [group.group.as_slice(), rest].concat();
            match self.group(&elements, done, depth) {
                Err(Failed::Group { errors }) => any_errors |= errors,
                settled => return settled,
            }
        }
        if optional { self.group(rest, done, depth) } else { Err(Failed::Group { errors: any_errors }) }
    }

    fn group(
        &self,
        elements: &[GroupElement],
        done: &[GroupElement],
        depth: usize,
    ) -> Result<Detected, Failed> {
        let mut done = done.to_vec();
        for (index, element) in elements.iter().enumerate() {
            if done.iter().any(|earlier| earlier.id == element.id) {
                continue;
            }
            let Some(toml) = self.catalog.get(element) else {
                return Err(Failed::Stop(ResolveError::Unknown(element.name())));
            };
            if !toml.order.is_empty() {
                if depth >= MAX_DEPTH {
                    return Err(Failed::Stop(ResolveError::Cyclic(element.name())));
                }
                return self.order(&toml.order, &done, &elements[index + 1..], element.optional, depth + 1);
            }
            done.push(GroupElement {
                api: Some(toml.api),
                homepage: toml.buildpack.homepage.clone().filter(|homepage| !homepage.is_empty()),
                ..element.clone()
            });
        }
        self.settle(&done)
    }

    fn settle(&self, done: &[GroupElement]) -> Result<Detected, Failed> {
        let (mut passes, mut errors, mut candidates) = (true, false, Vec::new());
        let mut tried = Tried::default();
        for element in done {
            let verdict = match self.outcome(element)? {
                None => Verdict::OtherTarget,
                Some(Outcome::Passed(plan)) => {
                    candidates.push(Candidate { element, plan });
                    Verdict::Passed
                }
                Some(Outcome::Failed) => Verdict::Failed,
                Some(Outcome::Error) => Verdict::Error,
            };
            if verdict != Verdict::Passed {
                passes &= element.optional;
                errors |= verdict != Verdict::Failed;
            }
            tried.results.push((element.name(), element.optional, verdict));
        }
        let detected = if passes { trial::first_that_fits(&candidates, &mut tried.obstacles) } else { None };
        self.tried.borrow_mut().push(tried);
        detected.ok_or(Failed::Group { errors: !passes && errors })
    }

    /// What the program said; nothing where the buildpack is not for the run image's target.
    fn outcome(&self, element: &GroupElement) -> Result<Option<&Outcome>, Failed> {
        let unknown = || Failed::Stop(ResolveError::Unknown(element.name()));
        let toml = self.catalog.get(element).ok_or_else(unknown)?;
        let mismatch = self.target.is_some_and(|target| !catalog::supports(toml, target, self.build_distro));
        if mismatch && !element.optional {
            return Ok(None);
        }
        self.outcomes.get(&(element.id.clone(), element.version.clone())).map(Some).ok_or_else(unknown)
    }
}
