//! Whose credentials the run image gets. Pure.

use coracle_images::Reference;

/// The registries that a build must reach, and what of the user's credentials goes to them.
///
/// A builder names its run image itself. Were that enough for credentials, a stranger's builder could have an image
/// fetched, and published as the base of another, that only the user may read; so the builder's word counts where the user
/// named the registry already: as the builder's, or as the output's.
pub(super) struct Reach<'a> {
    /// What the user named: builder and outputs, and a run image instead of the builder's.
    pub(super) named: Vec<&'a Reference>,
    pub(super) run_image: &'a Reference,
    /// Whether the user may have any for the run image's registry.
    pub(super) has_credentials: bool,
}

impl Reach<'_> {
    /// Whether credentials may be used for the run image.
    pub(super) fn is_known(&self) -> bool {
        self.named.iter().any(|named| named.registry == self.run_image.registry)
    }

    /// What the user should hear, where credentials are withheld.
    pub(super) fn notice(&self) -> Option<String> {
        let Self { run_image, has_credentials, .. } = self;
        (*has_credentials && !self.is_known()).then(|| {
            format!(
                "the run image {run_image} is on a registry that only the builder names, so it is read without your credentials; --run-image {run_image} reads it with them"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(named: &[&str], run_image: &str) -> (bool, Option<String>) {
        let named: Vec<Reference> = named.iter().map(|name| name.parse().unwrap()).collect();
        let run_image: Reference = run_image.parse().unwrap();
        let has_credentials = run_image.registry == "secret.example";
        let reach = Reach { named: named.iter().collect(), run_image: &run_image, has_credentials };
        (reach.is_known(), reach.notice())
    }

    #[test]
    fn a_builder_alone_does_not_have_credentials_used() {
        let named = ["stranger.example/builder", "mine.example/app"];
        let expected = "the run image secret.example/run:latest is on a registry that only the builder names, so it is read without your credentials; --run-image secret.example/run:latest reads it with them";
        assert_eq!(reach(&named, "secret.example/run"), (false, Some(expected.to_owned())));
        // Where there are none, there is nothing to say.
        assert_eq!(reach(&named, "open.example/run"), (false, None));
        for run_image in ["stranger.example/run", "mine.example/run"] {
            assert_eq!(reach(&named, run_image), (true, None));
        }
        let with_run_image = [&named[..], &["secret.example/run"]].concat();
        assert_eq!(reach(&with_run_image, "secret.example/run"), (true, None));
    }
}
