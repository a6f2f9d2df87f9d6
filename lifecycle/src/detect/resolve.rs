//! The decision: which group of the order is taken, and with which plan.

use std::collections::BTreeSet;

use coracle_cnb::{BuildpackToml, Group, GroupElement, Order, OrderGroup, Plan, RunImageTarget};

use super::explain::{Tried, Verdict};
use super::outcome::{Outcome, Outcomes};
use super::search::{Steps, TooMany};
use super::trial::{self, Candidate};
use super::{Catalog, Module, Reports, targets};

/// Composites may hold composites, but not without end.
const MAX_DEPTH: usize = 64;

/// Of how many groups is told what became of them.
const MAX_TOLD: usize = 256;

/// What groups are chosen for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Given<'a> {
    /// Since Platform API 0.12: the run image's target.
    pub target: Option<&'a RunImageTarget>,
    /// Since Platform API 0.15: the execution environment.
    pub exec_env: Option<&'a str>,
}

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
    /// The order names what the catalog does not have, or nobody said what its program did.
    #[error("resolve order: {kind} `{name}` is not in the builder, or nothing is known of its bin/detect")]
    Unknown { kind: &'static str, name: String },
    /// A composite has what cannot be used.
    #[error("resolve order: {why}")]
    Unusable { why: String, exit: u8 },
    /// Composites contain one another.
    #[error("resolve order: buildpack `{0}` contains itself")]
    Cyclic(String),
    /// The order, or the plans of a group, can be combined in more ways than are looked at.
    #[error(
        "resolve order: there are too many ways to combine its groups and the alternatives (`or`) of its buildpacks' plans; name fewer buildpacks"
    )]
    TooMany,
}

impl ResolveError {
    /// The exit code of the detector (Platform API, "detector").
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NonePassed => 20,
            Self::NonePassedWithErrors => 21,
            Self::Unusable { exit, .. } => *exit,
            Self::Unknown { .. } | Self::Cyclic(_) | Self::TooMany => 22,
        }
    }
}

/// Takes the first group of the order that passes, asking for what programs said group by group; and what became of each
/// group on the way. Beside what `reports` does, pure.
pub fn resolve(
    order: &Order,
    catalog: &Catalog,
    given: Given<'_>,
    reports: &mut dyn Reports,
) -> (Result<Detected, ResolveError>, Vec<Tried>) {
    let mut resolver = Resolver {
        catalog,
        given,
        reports,
        outcomes: Outcomes::new(),
        mismatched: BTreeSet::new(),
        steps: Steps::default(),
        tried: Vec::new(),
    };
    let groups: Vec<Vec<Item<'_>>> = order.order.iter().map(|group| items(group, false)).collect();
    let groups = groups.into_iter().map(|items| {
        let extensions = (!order.order_extensions.is_empty()).then_some(&order.order_extensions);
        extensions.map(|orders| Item::Extensions(orders)).into_iter().chain(items).collect()
    });
    let resolved = match resolver.order(&groups.collect::<Vec<_>>(), &[], &[], false, 0) {
        Ok(detected) => Ok(detected),
        Err(Failed::Stop(error)) => Err(error),
        Err(Failed::Group { errors: true }) => Err(ResolveError::NonePassedWithErrors),
        Err(Failed::Group { errors: false }) => Err(ResolveError::NonePassed),
    };
    (resolved, resolver.tried)
}

/// What stands in a group.
#[derive(Debug, Clone, Copy)]
enum Item<'a> {
    Element {
        element: &'a GroupElement,
        extension: bool,
    },
    /// The order of extensions, of which none has to take part.
    Extensions(&'a [OrderGroup]),
}

fn items(group: &OrderGroup, extension: bool) -> Vec<Item<'_>> {
    group.group.iter().map(|element| Item::Element { element, extension }).collect()
}

/// One member of a group being tried.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) module: Module,
    pub(super) element: GroupElement,
}

impl Member {
    fn of(module: Module, element: &GroupElement, toml: &BuildpackToml) -> Self {
        let homepage = toml.buildpack.homepage.clone().filter(|homepage| !homepage.is_empty());
        let optional = element.optional || module.extension;
        Self { module, element: GroupElement { api: Some(toml.api), homepage, optional, ..element.clone() } }
    }
}

enum Failed {
    /// This group does not fit: the next is tried.
    Group {
        errors: bool,
    },
    Stop(ResolveError),
}

impl From<TooMany> for Failed {
    fn from(_: TooMany) -> Self {
        Self::Stop(ResolveError::TooMany)
    }
}

struct Resolver<'a> {
    catalog: &'a Catalog,
    given: Given<'a>,
    reports: &'a mut dyn Reports,
    outcomes: Outcomes,
    /// Those that were needed and are not for the target: that is remembered, as the reference does, where they are
    /// optional.
    mismatched: BTreeSet<Module>,
    steps: Steps,
    tried: Vec<Tried>,
}

impl<'a> Resolver<'a> {
    fn order(
        &mut self,
        groups: &[Vec<Item<'a>>],
        done: &[Member],
        rest: &[Item<'a>],
        optional: bool,
        depth: usize,
    ) -> Result<Detected, Failed> {
        let mut any_errors = false;
        for group in groups {
            let elements = [group.as_slice(), rest].concat();
            match self.group(&elements, done, depth) {
                Err(Failed::Group { errors }) => any_errors |= errors,
                settled => return settled,
            }
        }
        if optional { self.group(rest, done, depth) } else { Err(Failed::Group { errors: any_errors }) }
    }

    fn group(&mut self, items: &[Item<'a>], done: &[Member], depth: usize) -> Result<Detected, Failed> {
        self.steps.take(1 + items.len() + done.len())?;
        let mut done = done.to_vec();
        for (index, item) in items.iter().enumerate() {
            let rest = &items[index + 1..];
            let (element, module) = match *item {
                Item::Extensions(orders) => {
                    let groups: Vec<_> = orders.iter().map(|group| self::items(group, true)).collect();
                    return self.order(&groups, &done, rest, true, depth);
                }
                Item::Element { element, extension: true } => (element, Module::extension(element)),
                Item::Element { element, extension: false } => (element, Module::buildpack(element)),
            };
            let same = |earlier: &Member| {
                earlier.module.id == module.id && earlier.module.extension == module.extension
            };
            self.steps.take(done.len())?;
            if done.iter().any(same) {
                continue;
            }
            let toml = self.look_up(&module)?;
            if !toml.order.is_empty() {
                if depth >= MAX_DEPTH {
                    return Err(Failed::Stop(ResolveError::Cyclic(module.to_string())));
                }
                let groups: Vec<_> = toml.order.iter().map(|group| self::items(group, false)).collect();
                return self.order(&groups, &done, rest, element.optional, depth + 1);
            }
            let member = Member::of(module, element, toml);
            let other = |target: &RunImageTarget| !targets::supports(toml, target);
            if !member.element.optional && self.given.target.is_some_and(other) {
                self.mismatched.insert(member.module.clone());
            } else if !self.is_for_exec_env(toml) {
                continue;
            }
            done.push(member);
        }
        self.settle(&done)
    }

    fn look_up(&self, module: &Module) -> Result<&'a BuildpackToml, Failed> {
        self.catalog.get(module).ok_or_else(|| {
            Failed::Stop(match self.catalog.why_not(module) {
                Some(unusable) => ResolveError::Unusable { why: unusable.why.clone(), exit: unusable.exit },
                None => unknown(module),
            })
        })
    }

    /// Whether a module is for the execution environment (Buildpack API, "Execution Environments").
    fn is_for_exec_env(&self, toml: &BuildpackToml) -> bool {
        let offered = &toml.buildpack.exec_env;
        let knows = toml.api >= crate::api::BUILDPACK_EXECUTION_ENVIRONMENTS && !offered.is_empty();
        let fits = |wanted| offered.iter().any(|offered| offered == "*" || offered == wanted);
        self.given.exec_env.is_none_or(|wanted| !knows || fits(wanted))
    }

    fn settle(&mut self, done: &[Member]) -> Result<Detected, Failed> {
        self.ask(done)?;
        let (mut passes, mut errors, mut candidates) = (true, false, Vec::new());
        let mut tried = Tried::default();
        for member in done {
            let verdict = match self.outcomes.get(&member.module) {
                _ if self.mismatched.contains(&member.module) => Verdict::OtherTarget,
                Some(Outcome::Passed(plan)) => {
                    candidates.push(Candidate { member, plan });
                    Verdict::Passed
                }
                Some(Outcome::Failed) => Verdict::Failed,
                Some(Outcome::Error(why)) => Verdict::Error(why.clone()),
                None => return Err(Failed::Stop(unknown(&member.module))),
            };
            passes &= verdict == Verdict::Passed || member.element.optional;
            errors |= matches!(verdict, Verdict::Error(_) | Verdict::OtherTarget);
            tried.results.push((member.module.to_string(), member.element.optional, verdict));
        }
        tried.no_buildpack = passes && candidates.iter().all(|candidate| candidate.member.module.extension);
        let detected = if passes && !tried.no_buildpack {
            trial::first_that_fits(&candidates, &mut tried.obstacles, &mut self.steps)?
        } else {
            None
        };
        if self.tried.len() < MAX_TOLD {
            self.tried.push(tried);
        }
        detected.ok_or(Failed::Group { errors: !passes && errors })
    }

    /// Asks for what is not known yet.
    fn ask(&mut self, done: &[Member]) -> Result<(), Failed> {
        self.steps.take(done.len())?;
        let known = |module: &Module| self.outcomes.contains_key(module) || self.mismatched.contains(module);
        let wanted: Vec<&Module> =
            done.iter().map(|member| &member.module).filter(|module| !known(module)).collect();
        if !wanted.is_empty() {
            let runs = self.reports.of(&wanted);
            self.outcomes.extend(runs.into_iter().map(|run| (run.module.clone(), Outcome::of(&run))));
        }
        Ok(())
    }
}

fn unknown(module: &Module) -> ResolveError {
    ResolveError::Unknown { kind: module.kind(), name: module.to_string() }
}
