//! What another lifecycle's detector says was chosen, held against what the builder has. The detector ran where programs of
//! buildpacks ran, as their user: its documents are a stranger's. Pure.

use std::collections::BTreeMap;

use coracle_cnb::{BuildpackToml, Group, GroupElement, OrderGroup, Plan};
use coracle_lifecycle::describe::Description;

/// Why a detector's choice is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GroupError {
    /// No group of the order can become this.
    #[error(
        "the detector chose buildpacks ({0}) that no group of the builder's order consists of; nothing of it is used"
    )]
    NotOfTheOrder(String),
    /// The order can be combined in more ways than anybody has meant.
    #[error(
        "the builder's order can be combined in too many ways to tell whether the detector's choice is one of them"
    )]
    TooMany,
    /// A plan that speaks of somebody else.
    #[error(
        "the detector's plan names {0} as provider, which is not among the buildpacks that it chose; nothing of it is used"
    )]
    NotOfTheGroup(String),
}

/// Steps of the search. An order of hundreds of buildpacks takes thousands.
const STEPS: usize = 1_000_000;
/// How deep it goes: each element of an order is one step down.
const DEPTH: usize = 1_000;

type Catalog<'a> = BTreeMap<(&'a str, &'a str), &'a BuildpackToml>;

/// The group with what the builder says of its buildpacks, not the detector.
pub(crate) fn checked(group: &Group, description: &Description) -> Result<Group, GroupError> {
    let catalog: Catalog<'_> = description
        .buildpacks
        .iter()
        .map(|toml| ((toml.buildpack.id.as_str(), toml.buildpack.version.as_str()), toml))
        .collect();
    let mut search = Search { catalog: &catalog, group: &group.group, steps: STEPS };
    let names = || group.group.iter().map(GroupElement::name).collect::<Vec<_>>().join(", ");
    let mut found = false;
    for alternative in &description.order.order {
        let rest = Rest { elements: &alternative.group, then: None };
        found = found || search.becomes(0, Some(&rest), 0)?;
    }
    if !found || group.group.is_empty() {
        return Err(GroupError::NotOfTheOrder(names()));
    }
    let known = |element: &GroupElement| {
        let toml = catalog.get(&(element.id.as_str(), element.version.as_str()));
        let toml = toml.ok_or_else(|| GroupError::NotOfTheOrder(names()))?;
        let homepage = toml.buildpack.homepage.clone();
        Ok(GroupElement { api: Some(toml.api), homepage, optional: false, ..element.clone() })
    };
    let elements = group.group.iter().map(known).collect::<Result<_, _>>()?;
    Ok(Group { group: elements, group_extensions: Vec::new() })
}

/// The plan, if all who provide something are in the group.
pub(crate) fn checked_plan(plan: Plan, group: &Group) -> Result<Plan, GroupError> {
    for provider in plan.entries.iter().flat_map(|entry| &entry.providers) {
        let is_in = |element: &GroupElement| element.id == provider.id && element.version == provider.version;
        if provider.extension || !group.group.iter().any(is_in) {
            return Err(GroupError::NotOfTheGroup(format!("{}@{}", provider.id, provider.version)));
        }
    }
    Ok(plan)
}

/// What of an order is still to be gone through: a list, and what comes after it.
struct Rest<'a> {
    elements: &'a [GroupElement],
    then: Option<&'a Rest<'a>>,
}

struct Search<'a> {
    catalog: &'a Catalog<'a>,
    group: &'a [GroupElement],
    steps: usize,
}

impl Search<'_> {
    /// Whether what is left of the order can become what is left of the group after its first `taken` elements. An element that
    /// is optional may be left out, one that is in the group already is; a composite becomes one of its own groups.
    fn becomes(&mut self, taken: usize, rest: Option<&Rest<'_>>, depth: usize) -> Result<bool, GroupError> {
        self.steps = self.steps.checked_sub(1).filter(|_| depth < DEPTH).ok_or(GroupError::TooMany)?;
        let depth = depth + 1;
        let Some(Rest { elements, then }) = rest else { return Ok(taken == self.group.len()) };
        let Some((first, others)) = elements.split_first() else { return self.becomes(taken, *then, depth) };
        let after = Rest { elements: others, then: *then };
        let is_taken = self.group[..taken].iter().any(|element| element.id == first.id);
        if (first.optional || is_taken) && self.becomes(taken, Some(&after), depth)? {
            return Ok(true);
        }
        let composite: &[OrderGroup] =
            self.catalog.get(&(first.id.as_str(), first.version.as_str())).map_or(&[], |toml| &toml.order);
        for alternative in composite {
            let inner = Rest { elements: &alternative.group, then: Some(&after) };
            if self.becomes(taken, Some(&inner), depth)? {
                return Ok(true);
            }
        }
        let next = self.group.get(taken);
        let is_next = next.is_some_and(|next| next.id == first.id && next.version == first.version);
        if composite.is_empty() && is_next { self.becomes(taken + 1, Some(&after), depth) } else { Ok(false) }
    }
}

#[cfg(test)]
mod tests {
    use coracle_cnb::read_toml;

    use super::*;

    fn description() -> Description {
        let element = |id: &str| format!("[[order.group]]\nid = \"{id}\"\nversion = \"1\"\n");
        let group = |ids: &[&str]| {
            let elements: String = ids
                .iter()
                .map(|id| match id.strip_suffix('?') {
                    Some(id) => format!("{}optional = true\n", element(id)),
                    None => element(id),
                })
                .collect();
            format!("[[order]]\n{elements}")
        };
        let toml = |id: &str, order: &str| {
            let text = format!(
                "api = \"0.10\"\n[buildpack]\nid = \"{id}\"\nversion = \"1\"\nhomepage = \"{id}.example\"\n{order}"
            );
            read_toml("buildpack.toml", &text).unwrap()
        };
        let order = [group(&["a", "all", "z?"]), group(&["b?", "c"])].concat();
        let all = [group(&["x", "y?"]), group(&["y", "a"])].concat();
        let buildpacks = ["a", "b", "c", "x", "y", "z"].map(|id| toml(id, ""));
        let buildpacks = buildpacks.into_iter().chain([toml("all", &all)]).collect();
        Description { order: read_toml("order.toml", &order).unwrap(), buildpacks, ..Description::default() }
    }

    fn group(ids: &[&str]) -> Group {
        let element = |id: &&str| {
            format!("[[group]]\nid = \"{id}\"\nversion = \"1\"\napi = \"0.2\"\nhomepage = \"evil\"\n")
        };
        read_toml("group.toml", &ids.iter().map(element).collect::<String>()).unwrap()
    }

    #[test]
    fn only_what_the_order_can_become_is_taken() {
        for ids in
            [&["a", "x"][..], &["a", "x", "y", "z"], &["a", "y"], &["a", "y", "z"], &["c"], &["b", "c"]]
        {
            assert!(checked(&group(ids), &description()).is_ok(), "{ids:?}");
        }
        for ids in [
            &[][..],
            &["a"],
            &["x", "a"],
            &["a", "x", "c"],
            &["a", "all"],
            &["b"],
            &["c", "b"],
            &["c", "c"],
            &["evil"],
        ] {
            let expected = Err(GroupError::NotOfTheOrder(
                ids.iter().map(|id| format!("{id}@1")).collect::<Vec<_>>().join(", "),
            ));
            assert_eq!(checked(&group(ids), &description()), expected, "{ids:?}");
        }
    }

    #[test]
    fn what_a_buildpack_is_the_builder_says() {
        let found = checked(&group(&["c"]), &description()).unwrap();
        assert_eq!(found.group[0].api, Some(coracle_cnb::ApiVersion::new(0, 10)));
        assert_eq!(found.group[0].homepage.as_deref(), Some("c.example"));
        let mut other = group(&["c"]);
        other.group[0].version = "2".to_owned();
        assert!(checked(&other, &description()).is_err(), "another version");
    }

    #[test]
    fn an_order_without_end_is_given_up() {
        let mut description = description();
        let mut all = description.buildpacks.pop().unwrap();
        all.order.iter_mut().for_each(|group| group.group = description.order.order[0].group.clone());
        for group in &mut all.order {
            group.group.iter_mut().for_each(|element| element.optional = true);
        }
        description.buildpacks.push(all);
        assert_eq!(checked(&group(&["a", "evil"]), &description), Err(GroupError::TooMany));
    }

    #[test]
    fn a_plan_names_buildpacks_of_the_group() {
        let plan = |id: &str, more: &str| -> Plan {
            let text = format!(
                "[[entries]]\n[[entries.providers]]\nid = \"{id}\"\nversion = \"1\"\n{more}[[entries.requires]]\nname = \"n\"\n"
            );
            read_toml("plan.toml", &text).unwrap()
        };
        let taken = |plan: Plan| checked_plan(plan, &group(&["a", "c"]));
        assert!(taken(plan("a", "")).is_ok());
        assert_eq!(taken(plan("b", "")), Err(GroupError::NotOfTheGroup("b@1".to_owned())));
        assert!(taken(plan("a", "extension = true\n")).is_err());
    }
}
