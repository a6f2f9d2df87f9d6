//! What a list of builders names.

use std::fmt;
use std::str::FromStr;

use coracle_images::{Digest, Reference, ReferenceError};
use serde::{Deserialize, Serialize};

/// One builder, or all of one repository: registry and repository, with a tag or a digest where only that is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BuilderName {
    /// The host in lower case, as DNS has it, with its port.
    registry: String,
    repository: String,
    which: Which,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Which {
    Any,
    Tag(String),
    Digest(Digest),
}

impl BuilderName {
    /// Whether `builder` is meant. A tag does not mean what a reference with a digest names: the digest decides there, and whoever
    /// writes the reference can put any tag before it.
    pub fn means(&self, builder: &Reference) -> bool {
        let which = match &self.which {
            Which::Any => true,
            Which::Tag(tag) => builder.digest.is_none() && builder.tag.as_ref() == Some(tag),
            Which::Digest(digest) => builder.digest.as_ref() == Some(digest),
        };
        which && self.is_of(&builder.registry, &builder.repository)
    }

    /// Whether everything that `other` means is meant.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.is_of(&other.registry, &other.repository)
            && (self.which == Which::Any || self.which == other.which)
    }

    /// The whole registry and the whole repository: the same repository elsewhere is somebody else's.
    fn is_of(&self, registry: &str, repository: &str) -> bool {
        self.registry == host(registry) && self.repository == repository
    }
}

/// What runs as `docker.io` has several names.
fn host(registry: &str) -> String {
    let host = registry.to_ascii_lowercase();
    match host.as_str() {
        "docker.io" | "registry-1.docker.io" => coracle_images::DOCKER_HUB.to_owned(),
        _ => host,
    }
}

impl FromStr for BuilderName {
    type Err = ReferenceError;

    /// As a [`Reference`], but a name with neither tag nor digest means all of the repository.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let Reference { registry, repository, tag, digest } = text.parse()?;
        let bare = !text.rsplit('/').next().unwrap_or_default().contains([':', '@']);
        let which = match (digest, tag) {
            (Some(digest), _) => Which::Digest(digest),
            (None, Some(tag)) if !bare => Which::Tag(tag),
            _ => Which::Any,
        };
        Ok(Self { registry: host(&registry), repository, which })
    }
}

impl fmt::Display for BuilderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match &self.which {
            Which::Any => Ok(()),
            Which::Tag(tag) => write!(f, ":{tag}"),
            Which::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

impl TryFrom<String> for BuilderName {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<BuilderName> for String {
    fn from(name: BuilderName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const OTHER: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

    fn means(name: &str, builder: &str) -> bool {
        name.parse::<BuilderName>().unwrap().means(&builder.parse().unwrap())
    }

    #[test]
    fn a_name_means_registry_and_repository_and_tag_or_digest_where_given() {
        let pinned = |name: &str, digest: &str| format!("{name}@{digest}");
        for (name, builder) in [
            ("r.example/team/b", "r.example/team/b"),
            ("r.example/team/b", "r.example/team/b:2"),
            ("r.example/team/b", &pinned("r.example/team/b", DIGEST)),
            ("r.example/team/b:2", "r.example/team/b:2"),
            ("r.example/team/b:latest", "r.example/team/b"),
            (&pinned("r.example/team/b", DIGEST), &pinned("r.example/team/b:2", DIGEST)),
            ("localhost:5000/b", "localhost:5000/b:2"),
            ("R.Example/team/b", "r.example/team/b"),
            ("team/b", "docker.io/team/b"),
            ("docker.io/team/b", "index.docker.io/team/b:1"),
            ("team/b", "registry-1.docker.io/team/b"),
            ("team/b", "Docker.IO/team/b"),
            ("b", "docker.io/library/b"),
        ] {
            assert!(means(name, builder), "{name} means {builder}");
        }
        for (name, builder) in [
            // The same repository elsewhere is somebody else's, also where the name of the one is short.
            ("team/b", "evil.example/team/b"),
            ("evil.example/team/b", "team/b"),
            ("r.example/team/b", "r.example:443/team/b"),
            ("localhost:5000/b", "localhost:5001/b"),
            ("r.example/team/b", "r.example/team/b-2"),
            ("r.example/team/b", "r.example/team/b/c"),
            ("r.example/team/b", "r.example/other/team/b"),
            ("r.example/team/b:2", "r.example/team/b"),
            ("r.example/team/b:2", "r.example/team/b:20"),
            // Whoever writes the reference chooses the tag; the digest decides.
            ("r.example/team/b:2", &pinned("r.example/team/b:2", OTHER)),
            (&pinned("r.example/team/b", DIGEST), &pinned("r.example/team/b", OTHER)),
            (&pinned("r.example/team/b", DIGEST), "r.example/team/b:latest"),
        ] {
            assert!(!means(name, builder), "{name} does not mean {builder}");
        }
    }

    #[test]
    fn a_name_is_shown_whole() {
        let shown = |text: &str| text.parse::<BuilderName>().unwrap().to_string();
        assert_eq!(shown("b"), "index.docker.io/library/b");
        assert_eq!(shown("Docker.io/team/b:1"), "index.docker.io/team/b:1");
        assert_eq!(shown(&format!("localhost:5000/b:1@{DIGEST}")), format!("localhost:5000/b@{DIGEST}"));
        assert!("A B".parse::<BuilderName>().is_err());
    }
}
