//! Whether a builder is trusted, and because of whom. Pure but for reading a policy: the flag of this build, the user's own list, the
//! builders that are suggested, and what the machine's policy allows.
//!
//! A trusted builder's buildpacks share a container with the program that has the credentials (`build/flow.rs`); an untrusted one's
//! never do, and that is all that trust is about.

mod name;
mod policy;
mod suggested;

use std::path::PathBuf;

use coracle_images::Reference;
use serde::{Deserialize, Serialize};

pub use self::name::BuilderName;
pub use self::policy::Policy;
pub use self::suggested::{Suggested, suggested};

/// Whether a builder is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// It is.
    Trusted {
        /// Because of what; words that follow "trusted: ".
        why: String,
    },
    /// It is not.
    Untrusted {
        /// Because of what; words that follow "not trusted: ".
        why: String,
    },
}

/// What cannot be done about trust.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The flag asks for what the policy forbids.
    #[error(
        "--trust-builder: the policy {} does not let {builder} be trusted; without the flag, it is built with phases that are isolated from it",
        policy.display()
    )]
    Forbidden {
        /// The builder.
        builder: String,
        /// The policy's file.
        policy: PathBuf,
    },
    /// What is not in the list cannot be removed from it.
    #[error("{0} is not one of the trusted builders; see them with: coracle config trusted-builders list")]
    NotTrusted(String),
    /// What is in the list means more than what is to be removed.
    #[error(
        "{name} cannot be removed by itself: {by} is trusted, whatever its tag; remove that, and add the others by name"
    )]
    Covered {
        /// What is to be removed.
        name: String,
        /// What is in the list.
        by: String,
    },
    /// What is there under that name would be taken for the builder.
    #[error(
        "{image} is the name of a trusted builder ({by}): what lies there would be run as one; choose another name"
    )]
    NameOfBuilder {
        /// What is to be written.
        image: String,
        /// What is in the list.
        by: String,
    },
    /// Phases with credentials would be played by what is there under that name.
    #[error(
        "{image} is where lifecycles are looked for ({by}): what lies there would be run with credentials; choose another name"
    )]
    NameOfLifecycle {
        /// What is to be written.
        image: String,
        /// Where lifecycles are looked for.
        by: String,
    },
}

/// The user's own choices: what is trusted beside the suggested builders, and which of those are not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrustedBuilders {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    added: Vec<BuilderName>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    removed: Vec<BuilderName>,
}

impl TrustedBuilders {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Suggested builders that are trusted.
    pub fn suggested(&self) -> Vec<BuilderName> {
        let names = suggested().into_iter().map(|builder| builder.name);
        names.filter(|name| !self.removed.iter().any(|removed| removed.covers(name))).collect()
    }

    /// Builders that the user added.
    pub fn added(&self) -> &[BuilderName] {
        &self.added
    }

    /// All that are trusted.
    pub fn names(&self) -> Vec<BuilderName> {
        [self.suggested(), self.added.clone()].concat()
    }

    /// Trust `name` from now on.
    pub fn add(&mut self, name: &BuilderName) {
        self.removed.retain(|removed| !name.covers(removed));
        if !self.names().contains(name) {
            self.added.push(name.clone());
        }
    }

    /// Trust what `name` means no longer. Of suggested builders that is remembered.
    ///
    /// # Errors
    /// [`TrustError::NotTrusted`] and [`TrustError::Covered`]: nothing would change.
    pub fn remove(&mut self, name: &BuilderName) -> Result<(), TrustError> {
        let known = self.names();
        if !known.iter().any(|known| name.covers(known)) {
            let by = known.into_iter().find(|known| known.covers(name));
            return Err(match by {
                Some(by) => TrustError::Covered { name: name.to_string(), by: by.to_string() },
                None => TrustError::NotTrusted(name.to_string()),
            });
        }
        self.added.retain(|added| !name.covers(added));
        if self.suggested().iter().any(|suggested| name.covers(suggested)) {
            self.removed.push(name.clone());
        }
        Ok(())
    }

    /// Refuse `image` as the name of something built: see [`crate::Config::refuse_as_output`].
    pub(crate) fn refuse_as_output(&self, image: &Reference) -> Result<(), TrustError> {
        match self.names().into_iter().find(|name| name.means(image)) {
            Some(by) => Err(TrustError::NameOfBuilder { image: image.to_string(), by: by.to_string() }),
            None => Ok(()),
        }
    }
}

impl Trust {
    /// Decide on `builder`: `asked` is `--trust-builder` of this build, which goes before the lists. What is trusted by either must be
    /// allowed by each policy.
    ///
    /// # Errors
    /// [`TrustError::Forbidden`], where trust is asked for by the flag.
    pub fn decide(
        builder: &Reference,
        asked: Option<bool>,
        lists: &TrustedBuilders,
        policies: &[Policy],
    ) -> Result<Self, TrustError> {
        let untrusted = |why: String| Ok(Self::Untrusted { why });
        let meant = |names: &[BuilderName]| names.iter().find(|name| name.means(builder)).cloned();
        let why = match asked {
            Some(false) => return untrusted("--trust-builder=false".to_owned()),
            Some(true) => "--trust-builder".to_owned(),
            None => match (meant(&lists.added), meant(&lists.suggested()), meant(&lists.removed)) {
                (Some(name), _, _) => format!("{name} is one of your trusted builders"),
                (None, Some(name), _) => format!("{name} is a suggested builder"),
                (None, None, Some(name)) => {
                    return untrusted(format!("{name} was removed from the trusted builders"));
                }
                (None, None, None) => return untrusted("it is not one of the trusted builders".to_owned()),
            },
        };
        match policies.iter().find(|policy| meant(&policy.may_trust).is_none()) {
            None => Ok(Self::Trusted { why }),
            Some(policy) if asked == Some(true) => {
                Err(TrustError::Forbidden { builder: builder.to_string(), policy: policy.path.clone() })
            }
            Some(policy) => {
                untrusted(format!("the policy {} does not let it be trusted", policy.path.display()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(added: &[&str], removed: &[&str]) -> TrustedBuilders {
        let names = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        TrustedBuilders { added: names(added), removed: names(removed) }
    }

    fn policy(may_trust: &[&str]) -> Policy {
        let may_trust = may_trust.iter().map(|text| text.parse().unwrap()).collect();
        Policy { path: "/etc/coracle/policy.toml".into(), may_trust }
    }

    fn decided(builder: &str, asked: Option<bool>, lists: &TrustedBuilders, policies: &[Policy]) -> String {
        match Trust::decide(&builder.parse().unwrap(), asked, lists, policies) {
            Ok(Trust::Trusted { why }) => format!("trusted: {why}"),
            Ok(Trust::Untrusted { why }) => format!("not trusted: {why}"),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn who_is_trusted_and_because_of_whom() {
        let own = lists(&["r.example/team/builder"], &["heroku/builder:22"]);
        let policies = [
            ("no policy", None),
            ("a closed one", Some(policy(&[]))),
            ("another", Some(policy(&["r.example/team/builder:1", "heroku/builder"]))),
        ];
        let mut text = String::new();
        for builder in [
            "r.example/team/builder:1",
            "r.example/team/builder:2",
            "evil.example/team/builder",
            "heroku/builder:22",
            "heroku/builder:24",
            "evil.example/heroku/builder:24",
        ] {
            text.push_str(&format!("{builder}\n"));
            text.push_str(&format!(
                "  --trust-builder=false: {}\n",
                decided(builder, Some(false), &own, &[])
            ));
            for asked in [None, Some(true)] {
                let flag = asked.map_or("", |_| "--trust-builder, ");
                for (name, policy) in &policies {
                    let decided = decided(builder, asked, &own, policy.as_slice());
                    text.push_str(&format!("  {flag}{name}: {decided}\n"));
                }
            }
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn every_policy_must_allow_it() {
        let [open, closed] = [policy(&["heroku/builder"]), policy(&[])];
        let none = TrustedBuilders::default();
        let decided = |policies: &[Policy]| decided("heroku/builder:24", None, &none, policies);
        assert!(decided(&[open.clone(), open.clone()]).starts_with("trusted"));
        assert!(decided(&[open.clone(), closed.clone()]).starts_with("not trusted"));
        assert!(decided(&[closed, open]).starts_with("not trusted"));
    }

    #[test]
    fn what_is_removed_is_remembered_and_can_be_added_again() {
        let mut lists = TrustedBuilders::default();
        let name = |text: &str| text.parse::<BuilderName>().unwrap();
        let all = lists.suggested().len();
        lists.add(&name("heroku/builder:24"));
        assert!(lists.is_default(), "it is trusted already");
        lists.remove(&name("heroku/builder:24")).unwrap();
        assert_eq!((lists.suggested().len(), lists.removed.len()), (all - 1, 1));
        assert_eq!(
            lists.remove(&name("docker.io/heroku/builder:24")).unwrap_err().to_string(),
            "index.docker.io/heroku/builder:24 is not one of the trusted builders; see them with: coracle config trusted-builders list"
        );
        lists.add(&name("docker.io/heroku/builder:24"));
        assert!(lists.is_default());
        // The whole repository, also the tags that a later list may suggest; one of them is taken back.
        lists.remove(&name("heroku/builder")).unwrap();
        assert_eq!((lists.suggested().len(), lists.removed.len()), (all - 3, 1));
        lists.add(&name("heroku/builder:24"));
        assert_eq!((lists.suggested().len(), lists.added.len()), (all - 3, 1));
        lists.remove(&name("heroku/builder")).unwrap();
        assert_eq!((lists.names().len(), lists.removed.len()), (all - 3, 1));
    }

    #[test]
    fn a_part_of_what_is_trusted_cannot_be_removed_by_itself() {
        let mut lists = lists(&["r.example/b"], &[]);
        assert_eq!(
            lists.remove(&"r.example/b:1".parse().unwrap()).unwrap_err().to_string(),
            "r.example/b:1 cannot be removed by itself: r.example/b is trusted, whatever its tag; remove that, and add the others by name"
        );
        lists.remove(&"r.example/b".parse().unwrap()).unwrap();
        assert!(lists.is_default());
    }

    #[test]
    fn nothing_is_built_under_the_name_of_a_trusted_builder() {
        let lists = lists(&["r.example/b:1"], &["heroku/builder:22"]);
        let refused = |image: &str| lists.refuse_as_output(&image.parse().unwrap());
        assert_eq!(
            refused("r.example/b:1").unwrap_err().to_string(),
            "r.example/b:1 is the name of a trusted builder (r.example/b:1): what lies there would be run as one; choose another name"
        );
        assert!(refused("paketobuildpacks/builder-jammy-base:x").is_err());
        for image in ["r.example/b:2", "heroku/builder:22", "r.example/heroku/builder:24"] {
            assert_eq!(refused(image), Ok(()));
        }
    }
}
