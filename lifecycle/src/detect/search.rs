//! Which alternative of each plan is taken: the first combination that fits, the first plan's alternative changing slowest.
//!
//! A combination fits when some of its modules, among them all that cannot be left out, satisfy one another. Going from the
//! first plan to the last, all that matters of what was chosen is what is provided by now and what of it still has to be
//! required ([`State`]). What is known of a state is kept, so that a state that many combinations lead to is looked at once.
//! The problem is that of satisfiability, and there are plans for which nothing of this helps: steps are counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use coracle_cnb::PlanSections;

/// After how many steps no more is tried: a fraction of a second.
const MAX_STEPS: usize = 20_000_000;

/// More plans than any group has.
const MAX_PLANS: usize = 1024;

/// There is more to try than is tried.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// How much may still be tried.
#[derive(Debug)]
pub(super) struct Steps(usize);

impl Default for Steps {
    fn default() -> Self {
        Self(MAX_STEPS)
    }
}

impl Steps {
    pub(super) fn take(&mut self, steps: usize) -> Result<(), TooMany> {
        self.0 = self.0.checked_sub(steps).ok_or(TooMany)?;
        Ok(())
    }
}

/// The alternatives of one plan, and whether its module can be left out with the last of them.
pub(super) struct Alternatives<'a> {
    pub(super) sections: Vec<&'a PlanSections>,
    pub(super) optional: bool,
}

/// The numbers of the alternatives that fit first, or nothing where none do.
pub(super) fn first_fitting(
    plans: &[Alternatives<'_>],
    steps: &mut Steps,
) -> Result<Option<Vec<usize>>, TooMany> {
    if plans.len() > MAX_PLANS {
        return Err(TooMany);
    }
    Search::new(plans, steps)?.run()
}

/// A name in plans.
type Name = usize;

/// One alternative.
struct Option_ {
    provides: Vec<Name>,
    requires: Vec<Name>,
}

/// What is provided, each with whether it still has to be required; and whether any module takes part. Names that no later
/// plan requires are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct State {
    provided: BTreeMap<Name, bool>,
    taken: bool,
}

struct Search<'s> {
    /// By plan.
    options: Vec<Vec<Option_>>,
    optional: Vec<bool>,
    /// By name: the last plan that requires it, and all that provide it.
    last_required: BTreeMap<Name, usize>,
    provided_by: BTreeMap<Name, Vec<usize>>,
    /// Whether a state before a plan can be brought to an end that fits.
    known: HashMap<(usize, State), bool>,
    steps: &'s mut Steps,
}

impl<'s> Search<'s> {
    fn new(plans: &[Alternatives<'_>], steps: &'s mut Steps) -> Result<Self, TooMany> {
        let mut names: HashMap<&str, Name> = HashMap::new();
        let mut search = Self {
            options: Vec::new(),
            optional: plans.iter().map(|plan| plan.optional).collect(),
            last_required: BTreeMap::new(),
            provided_by: BTreeMap::new(),
            known: HashMap::new(),
            steps,
        };
        for (place, plan) in plans.iter().enumerate() {
            let mut options = Vec::new();
            for sections in &plan.sections {
                search.steps.take(1 + sections.provides.len() + sections.requires.len())?;
                let mut name = |name| {
                    let next = names.len();
                    *names.entry(name).or_insert(next)
                };
                let provides: Vec<Name> =
                    sections.provides.iter().map(|provide| name(provide.name.as_str())).collect();
                let requires: Vec<Name> =
                    sections.requires.iter().map(|require| name(require.name.as_str())).collect();
                for name in &provides {
                    let places = search.provided_by.entry(*name).or_default();
                    if places.last() != Some(&place) {
                        places.push(place);
                    }
                }
                search.last_required.extend(requires.iter().map(|name| (*name, place)));
                options.push(Option_ { provides, requires });
            }
            search.options.push(options);
        }
        Ok(search)
    }

    fn run(mut self) -> Result<Option<Vec<usize>>, TooMany> {
        let mut states = BTreeSet::from([State::default()]);
        if !self.can_end(0, &State::default())? {
            return Ok(None);
        }
        let mut chosen = Vec::new();
        for place in 0..self.options.len() {
            for number in 0..self.options[place].len() {
                let mut next = BTreeSet::new();
                for state in &states {
                    for after in self.after(place, number, state)? {
                        if self.can_end(place + 1, &after)? {
                            next.insert(after);
                        }
                    }
                }
                if !next.is_empty() {
                    chosen.push(number);
                    states = next;
                    break;
                }
            }
        }
        Ok(Some(chosen))
    }

    /// Whether the plans from `place` on can be taken so that it all fits.
    fn can_end(&mut self, place: usize, state: &State) -> Result<bool, TooMany> {
        if place == self.options.len() {
            return Ok(state.taken && state.provided.values().all(|pending| !pending));
        }
        self.steps.take(1 + state.provided.len())?;
        if let Some(known) = self.known.get(&(place, state.clone())) {
            return Ok(*known);
        }
        let mut ends = false;
        if self.may_end(place, state)? {
            'options: for number in 0..self.options[place].len() {
                for after in self.after(place, number, state)? {
                    if self.can_end(place + 1, &after)? {
                        ends = true;
                        break 'options;
                    }
                }
            }
        }
        self.known.insert((place, state.clone()), ends);
        Ok(ends)
    }

    /// Not, where a plan to come that cannot be left out requires what nobody can provide any more.
    fn may_end(&mut self, place: usize, state: &State) -> Result<bool, TooMany> {
        for later in place..self.options.len() {
            if self.optional[later] {
                continue;
            }
            let mut satisfiable = false;
            for option in &self.options[later] {
                self.steps.take(1 + option.requires.len())?;
                satisfiable |= option.requires.iter().all(|name| {
                    let providers = self.provided_by.get(name).map_or(&[][..], Vec::as_slice);
                    let next = providers.partition_point(|provider| *provider < place);
                    state.provided.contains_key(name)
                        || providers.get(next).is_some_and(|provider| *provider <= later)
                });
            }
            if !satisfiable {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What an alternative makes of a state, with its module and, where it can be left out, without.
    fn after(&mut self, place: usize, number: usize, state: &State) -> Result<Vec<State>, TooMany> {
        let option = &self.options[place][number];
        self.steps.take(1 + option.provides.len() + option.requires.len() + state.provided.len())?;
        let mut taken = State { taken: true, ..state.clone() };
        taken.provided.extend(option.provides.iter().map(|name| (*name, true)));
        let mut fits = true;
        for name in &option.requires {
            match taken.provided.get_mut(name) {
                Some(pending) => *pending = false,
                None => fits = false,
            }
        }
        let mut after = Vec::new();
        if fits {
            after.extend(self.forget(place, taken));
        }
        if self.optional[place] && number + 1 == self.options[place].len() {
            after.extend(self.forget(place, state.clone()));
        }
        Ok(after)
    }

    /// The state without what no later plan requires; nothing if that still had to be required.
    fn forget(&self, place: usize, mut state: State) -> Option<State> {
        let mut fits = true;
        state.provided.retain(|name, pending| {
            let wanted = self.last_required.get(name).is_some_and(|last| *last > place);
            fits &= wanted || !*pending;
            wanted
        });
        fits.then_some(state)
    }
}
