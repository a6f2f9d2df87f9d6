//! The resolver against one that is slow and obviously right, for orders by chance.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use coracle_cnb::{BuildpackToml, Distro, Order, RunImageTarget};
use coracle_lifecycle::detect::{Catalog, DetectRun, Given, Module, ResolveError, resolve};
use proptest::prelude::*;

/// A buildpack or an extension, and what its program does.
#[derive(Debug, Clone)]
struct Thing {
    exit: i32,
    /// The alternatives of its plan: what is provided, what is required.
    plan: Vec<(Vec<u8>, Vec<u8>)>,
    other_target: bool,
    other_exec_env: bool,
    /// A composite has groups, of elements of a number below its own.
    groups: Groups,
}

/// By number, and whether it is optional.
type Groups = Vec<Vec<(usize, bool)>>;

#[derive(Debug, Clone)]
struct Case {
    things: Vec<Thing>,
    extensions: Vec<Thing>,
    order: Groups,
    extension_order: Groups,
}

/// Two of each id: versions of one buildpack.
fn id(number: usize) -> String {
    format!("b{}", number / 2)
}

fn plans() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let names = || prop::collection::vec(0..4u8, 0..2);
    prop::collection::vec((names(), names()), 1..4)
}

fn groups(below: usize) -> impl Strategy<Value = Groups> {
    prop::collection::vec(prop::collection::vec((0..below, prop::bool::weighted(0.4)), 0..5), 0..4)
}

fn thing(number: usize, composites_from: usize) -> impl Strategy<Value = Thing> {
    let exit = prop_oneof![8 => Just(0), 1 => Just(100), 1 => Just(1)];
    let groups = if number < composites_from { Just(Vec::new()).boxed() } else { groups(number).boxed() };
    (exit, plans(), prop::bool::weighted(0.1), prop::bool::weighted(0.1), groups).prop_map(
        |(exit, plan, other_target, other_exec_env, groups)| Thing {
            exit,
            plan,
            other_target,
            other_exec_env,
            groups,
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let things: Vec<_> = (0..10).map(|number| thing(number, 7)).collect();
    let extensions: Vec<_> = (0..3).map(|number| thing(number, usize::MAX)).collect();
    let extension_order = prop_oneof![2 => Just(Vec::new()), 1 => groups(3)];
    (things, extensions, groups(10), extension_order).prop_map(
        |(things, mut extensions, order, extension_order)| {
            for (_, requires) in extensions.iter_mut().flat_map(|extension| &mut extension.plan) {
                requires.clear();
            }
            Case { things, extensions, order, extension_order }
        },
    )
}

impl Case {
    fn order(&self) -> Order {
        let text =
            text_of("order", &self.order, id) + &text_of("order-extensions", &self.extension_order, id);
        coracle_cnb::read_toml("order.toml", &text).unwrap()
    }

    fn catalog(&self) -> Catalog {
        let toml = |(number, thing): (usize, &Thing)| -> BuildpackToml {
            let mut text =
                format!("api = \"0.12\"\n[buildpack]\nid = \"{}\"\nversion = \"{number}\"\n", id(number));
            if thing.other_exec_env {
                text.push_str("exec-env = [\"test\"]\n");
            }
            if thing.other_target {
                text.push_str("[[targets]]\nos = \"linux\"\n[[targets.distros]]\nname = \"other\"\n");
            }
            text.push_str(&text_of("order", &thing.groups, id));
            coracle_cnb::read_toml("buildpack.toml", &text).unwrap()
        };
        let all = |things: &[Thing]| things.iter().enumerate().map(toml).collect::<Vec<_>>();
        Catalog::of(all(&self.things), all(&self.extensions), [])
    }

    fn runs(&self) -> Vec<DetectRun> {
        let all = |things: &[Thing], extension: bool| -> Vec<DetectRun> {
            let run = |(number, thing): (usize, &Thing)| DetectRun {
                module: Module { id: id(number).parse().unwrap(), version: number.to_string(), extension },
                exit: thing.exit,
                plan_toml: plan_of(&thing.plan),
                output: String::new(),
            };
            things.iter().enumerate().map(run).collect()
        };
        [all(&self.things, false), all(&self.extensions, true)].concat()
    }
}

fn text_of(key: &str, groups: &Groups, id: fn(usize) -> String) -> String {
    let mut text = String::new();
    for group in groups {
        writeln!(text, "[[{key}]]").unwrap();
        for (number, optional) in group {
            let id = id(*number);
            writeln!(text, "[[{key}.group]]\nid = \"{id}\"\nversion = \"{number}\"\noptional = {optional}")
                .unwrap();
        }
    }
    text
}

fn plan_of(plan: &[(Vec<u8>, Vec<u8>)]) -> String {
    let mut text = String::new();
    for (number, (provides, requires)) in plan.iter().enumerate() {
        let or = if number == 0 { "" } else { "or." };
        if number > 0 {
            text.push_str("[[or]]\n");
        }
        for name in provides {
            writeln!(text, "[[{or}provides]]\nname = \"{name}\"").unwrap();
        }
        for name in requires {
            writeln!(text, "[[{or}requires]]\nname = \"{name}\"").unwrap();
        }
    }
    text
}

/// One place of a group.
#[derive(Debug, Clone)]
enum Item {
    Extensions,
    Of { number: usize, optional: bool, extension: bool },
}

/// The group that is taken, buildpacks by number and extensions by number; or whether programs failed.
type Taken = Result<(Vec<usize>, Vec<usize>), bool>;

/// Every group, every combination of alternatives, one after the other.
struct Naive<'a> {
    case: &'a Case,
    /// Those that were needed once and are not for the target.
    refused: BTreeSet<(bool, usize)>,
}

impl Naive<'_> {
    fn decide(case: &Case) -> Taken {
        let mut naive = Naive { case, refused: BTreeSet::new() };
        let groups: Vec<Vec<Item>> = case
            .order
            .iter()
            .map(|group| {
                let extensions =
                    if case.extension_order.is_empty() { vec![] } else { vec![Item::Extensions] };
                [extensions, items(group)].concat()
            })
            .collect();
        naive.any_of(&groups, &[], &[], false)
    }

    fn any_of(&mut self, groups: &[Vec<Item>], done: &[Item], rest: &[Item], optional: bool) -> Taken {
        let mut failed = false;
        for group in groups {
            match self.group(&[group.as_slice(), rest].concat(), done) {
                Ok(taken) => return Ok(taken),
                Err(errors) => failed |= errors,
            }
        }
        if optional { self.group(rest, done) } else { Err(failed) }
    }

    fn group(&mut self, group: &[Item], done: &[Item]) -> Taken {
        let mut done = done.to_vec();
        for (place, item) in group.iter().enumerate() {
            let rest = &group[place + 1..];
            let Item::Of { number, optional, extension } = *item else {
                let mut groups: Vec<Vec<Item>> =
                    self.case.extension_order.iter().map(|group| items(group)).collect();
                for item in groups.iter_mut().flatten() {
                    if let Item::Of { optional, extension, .. } = item {
                        (*optional, *extension) = (true, true);
                    }
                }
                return self.any_of(&groups, &done, rest, true);
            };
            let is_there = done.iter().any(
                |other| matches!(other, Item::Of { number: there, extension: kind, .. } if id(*there) == id(number) && *kind == extension),
            );
            if is_there {
                continue;
            }
            let thing = self.thing(number, extension).clone();
            if !thing.groups.is_empty() {
                let groups: Vec<Vec<Item>> = thing.groups.iter().map(|group| items(group)).collect();
                return self.any_of(&groups, &done, rest, optional);
            }
            if thing.other_target && !optional {
                self.refused.insert((extension, number));
            } else if thing.other_exec_env {
                continue;
            }
            done.push(item.clone());
        }
        self.settle(&done)
    }

    fn thing(&self, number: usize, extension: bool) -> &Thing {
        if extension { &self.case.extensions[number] } else { &self.case.things[number] }
    }

    fn settle(&self, done: &[Item]) -> Taken {
        let (mut passed, mut fits, mut failed) = (Vec::new(), true, false);
        for item in done {
            let Item::Of { number, optional, extension } = *item else { unreachable!() };
            let exit = self.thing(number, extension).exit;
            let refused = self.refused.contains(&(extension, number));
            if exit == 0 && !refused {
                passed.push((number, optional, extension));
            } else {
                fits &= optional;
                failed |= refused || exit != 100;
            }
        }
        if !fits {
            return Err(failed);
        }
        if passed.iter().all(|(_, _, extension)| *extension) {
            return Err(false);
        }
        let counts: Vec<usize> =
            passed.iter().map(|(number, _, extension)| self.thing(*number, *extension).plan.len()).collect();
        let mut trial = vec![0; counts.len()];
        loop {
            if let Some(taken) = self.attempt(&passed, &trial) {
                return Ok(taken);
            }
            // The next combination, the last one's alternative changing fastest.
            let Some(place) = (0..trial.len()).rev().find(|place| trial[*place] + 1 < counts[*place]) else {
                return Err(false);
            };
            trial[place] += 1;
            trial[place + 1..].fill(0);
        }
    }

    /// Leaves out what is in the way until nothing is.
    fn attempt(&self, passed: &[(usize, bool, bool)], trial: &[usize]) -> Option<(Vec<usize>, Vec<usize>)> {
        let mut left: Vec<usize> = (0..passed.len()).collect();
        loop {
            let plan = |place: usize| {
                let (number, _, extension) = passed[place];
                &self.thing(number, extension).plan[trial[place]]
            };
            let in_the_way = left.iter().position(|&place| {
                let (provides, requires) = plan(place);
                let provided =
                    |name: &u8| left.iter().any(|&other| other <= place && plan(other).0.contains(name));
                let required =
                    |name: &u8| left.iter().any(|&other| other >= place && plan(other).1.contains(name));
                !requires.iter().all(provided) || !provides.iter().all(required)
            });
            let Some(index) = in_the_way else { break };
            let place = left.remove(index);
            let (number, optional, extension) = passed[place];
            if !optional || trial[place] + 1 < self.thing(number, extension).plan.len() {
                return None;
            }
        }
        let of = |kind: bool| {
            left.iter().filter(|place| passed[**place].2 == kind).map(|place| passed[*place].0).collect()
        };
        (!left.is_empty()).then(|| (of(false), of(true)))
    }
}

fn items(group: &[(usize, bool)]) -> Vec<Item> {
    group.iter().map(|&(number, optional)| Item::Of { number, optional, extension: false }).collect()
}

fn decide(case: &Case) -> Taken {
    let target = RunImageTarget {
        os: "linux".into(),
        distro: Some(Distro { name: "debian".into(), version: "12".into() }),
        ..RunImageTarget::default()
    };
    let given = Given { target: Some(&target), exec_env: Some("production") };
    let (detected, tried) = resolve(&case.order(), &case.catalog(), given, &mut case.runs().as_slice());
    match detected {
        Ok(detected) => {
            let numbers = |group: Vec<coracle_cnb::GroupElement>| {
                group.into_iter().map(|element| element.version.parse().unwrap()).collect()
            };
            assert!(!tried.is_empty());
            Ok((numbers(detected.group.group), numbers(detected.group.group_extensions)))
        }
        Err(ResolveError::NonePassed) => Err(false),
        Err(ResolveError::NonePassedWithErrors) => Err(true),
        Err(error) => panic!("{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decides_as_the_slow_resolver_does(case in case()) {
        prop_assert_eq!(decide(&case), Naive::decide(&case));
    }
}

/// What is compared above must not be failure alone.
#[test]
fn orders_by_chance_end_in_all_ways() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..1000 {
        let end = match Naive::decide(&case().new_tree(&mut runner).unwrap().current()) {
            Ok((_, extensions)) if !extensions.is_empty() => "with extensions",
            Ok((buildpacks, _)) if buildpacks.len() > 2 => "with many",
            Ok(_) => "with few",
            Err(true) => "failed",
            Err(false) => "none",
        };
        *ends.entry(end).or_default() += 1;
    }
    assert!(ends.len() == 5 && ends.values().all(|count| *count >= 20), "{ends:?}");
}

/// Plans with alternatives: each provides what nobody requires, or one of two names of which the last requires both.
fn adversary(count: usize, last: &str) -> (Order, Catalog, Vec<DetectRun>) {
    let mut case =
        Case { things: Vec::new(), extensions: Vec::new(), order: Vec::new(), extension_order: Vec::new() };
    let thing =
        Thing { exit: 0, plan: Vec::new(), other_target: false, other_exec_env: false, groups: Vec::new() };
    case.things = vec![thing; 2 * count + 2];
    case.order = vec![(0..=count).map(|number| (2 * number, false)).collect()];
    let mut runs = case.runs();
    for number in 0..count {
        runs[2 * number].plan_toml =
            format!("[[provides]]\nname = \"a{number}\"\n[[or]]\n[[or.provides]]\nname = \"b{number}\"\n");
    }
    runs[2 * count].plan_toml = last.to_owned();
    (case.order(), case.catalog(), runs)
}

#[test]
fn forty_alternatives_that_do_not_fit_are_seen_through() {
    let requires = |names: &mut dyn Iterator<Item = String>| {
        names.fold(String::new(), |text, name| text + &format!("[[requires]]\nname = \"{name}\"\n"))
    };
    let nobody = String::new();
    let both = requires(&mut (0..40).flat_map(|number| [format!("a{number}"), format!("b{number}")]));
    let missing = requires(&mut ["c".to_owned()].into_iter());
    for last in [nobody, both, missing] {
        let (order, catalog, runs) = adversary(40, &last);
        let (detected, _) = resolve(&order, &catalog, Given::default(), &mut runs.as_slice());
        assert_eq!(detected, Err(ResolveError::NonePassed), "{last}");
    }
    let fits = requires(
        &mut (0..40).map(|number| if number % 3 == 0 { format!("b{number}") } else { format!("a{number}") }),
    );
    let (order, catalog, runs) = adversary(40, &fits);
    let (detected, _) = resolve(&order, &catalog, Given::default(), &mut runs.as_slice());
    assert_eq!(detected.unwrap().group.group.len(), 41);
}
