//! Well-known public builders: suggested to who looks for one, and trusted unless the user says otherwise.

use super::BuilderName;

/// A builder that everybody can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggested {
    /// Without tag and digest where each of them is meant.
    pub name: BuilderName,
    /// Who makes it.
    pub vendor: &'static str,
    /// What it is for.
    pub description: &'static str,
}

/// Name, maker, and what its maker says that it builds; by maker, the newest first.
const SUGGESTED: [(&str, &str, &str); 12] = [
    (
        "gcr.io/buildpacks/builder:google-22",
        "Google",
        "Ubuntu 22.04; .NET, Dart, Go, Java, Node.js, PHP, Python, Ruby",
    ),
    (
        "docker.io/heroku/builder:26",
        "Heroku",
        "Ubuntu 26.04, AMD64 and ARM64; .NET, Go, Java, Node.js, Python, Scala",
    ),
    (
        "docker.io/heroku/builder:24",
        "Heroku",
        "Ubuntu 24.04, AMD64 and ARM64; Go, Java, Node.js, PHP, Python, Ruby, Scala",
    ),
    (
        "docker.io/heroku/builder:22",
        "Heroku",
        "Ubuntu 22.04, AMD64; Go, Java, Node.js, PHP, Python, Ruby, Scala",
    ),
    (
        "docker.io/paketobuildpacks/ubuntu-noble-builder",
        "Paketo Buildpacks",
        "Ubuntu 24.04, small; .NET, Java, Node.js",
    ),
    (
        "docker.io/paketobuildpacks/builder-jammy-base",
        "Paketo Buildpacks",
        "Ubuntu 22.04, small; .NET, Go, Java, Node.js, Python, Ruby",
    ),
    (
        "docker.io/paketobuildpacks/builder-jammy-full",
        "Paketo Buildpacks",
        "Ubuntu 22.04, larger; .NET, Go, Java, Node.js, PHP, Python, Ruby",
    ),
    (
        "docker.io/paketobuildpacks/builder-jammy-tiny",
        "Paketo Buildpacks",
        "Ubuntu 22.04, a run image without a shell; Go, Java",
    ),
    (
        "docker.io/paketobuildpacks/builder-jammy-buildpackless-static",
        "Paketo Buildpacks",
        "Ubuntu 22.04, a run image for static programs; no buildpacks of its own",
    ),
    ("docker.io/paketobuildpacks/ubi-10-builder", "Paketo Buildpacks", "Universal Base Image 10; Node.js"),
    ("docker.io/paketobuildpacks/ubi-9-builder", "Paketo Buildpacks", "Universal Base Image 9; Node.js"),
    (
        "docker.io/paketobuildpacks/builder-ubi8-base",
        "Paketo Buildpacks",
        "Universal Base Image 8; Java, Node.js",
    ),
];

/// All of them, those included that the user does not trust.
pub fn suggested() -> Vec<Suggested> {
    let named = |(name, vendor, description): &(&str, &'static str, &'static str)| {
        Some(Suggested { name: name.parse().ok()?, vendor, description })
    };
    SUGGESTED.iter().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suggested_builder_has_a_name_of_its_own() {
        let mut names: Vec<_> = suggested().into_iter().map(|builder| builder.name.to_string()).collect();
        assert_eq!(names.len(), SUGGESTED.len(), "each can be parsed");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), SUGGESTED.len());
    }
}
