//! Whether the user's credentials are used for a run image, by whose word names it
//! (docs/decisions/0033-whose-word-names-a-run-image.md). Pure, but for asking whether everybody may read one.

use coracle_images::Reference;

use super::{Build, BuildRequest};
use crate::error::Error;
use crate::stage::Stage;
use crate::trust::Trust;
use crate::worker::{AskOpenly, Remote, Shown};

/// A run image, and what speaks for credentials.
///
/// Builders and images name run images themselves. Were that enough for credentials, a stranger's builder could have an image fetched, and
/// published as the base of another, that only the user may read.
pub(crate) struct Reach<'a> {
    /// Images that the user named to have them read. Their neighbours, of the same registry and namespace, are the same people's.
    pub(crate) read: Vec<&'a Reference>,
    /// Images that the user named, on whose registries the word of a trusted builder counts; none for one that is not.
    pub(crate) believed: Vec<&'a Reference>,
    pub(crate) run_image: &'a Reference,
}

impl Reach<'_> {
    /// Whether credentials may be used for the run image.
    pub(crate) fn is_known(&self) -> bool {
        let beside = |read: &&Reference| place(read) == place(self.run_image);
        self.read.iter().any(beside)
            || self.believed.iter().any(|image| image.registry == self.run_image.registry)
    }
}

/// The registry, and all of the repository's path but the last component.
fn place(image: &Reference) -> (&str, &str) {
    (&image.registry, image.repository.rsplit_once('/').map_or("", |(namespace, _)| namespace))
}

/// Who names a run image that the user did not name; words that follow "named by".
pub(crate) struct Namer(pub(crate) String);

impl Namer {
    /// What the user should hear where there may be credentials, which are not used.
    pub(crate) fn notice(&self, run_image: &Reference) -> String {
        format!(
            "the run image {run_image} is named by {} alone, so it is read without your credentials; --run-image {run_image} reads it with them",
            self.0
        )
    }

    /// Ask the registry as somebody without credentials.
    ///
    /// # Errors
    /// [`Error::Withheld`] where not everybody may read the image.
    pub(crate) fn ask(
        &self,
        stage: &Stage<'_>,
        run_image: &Reference,
        insecure: &[String],
    ) -> Result<(), Error> {
        match stage.work(AskOpenly { image: Remote::new(run_image, insecure, None)? })? {
            Shown::ToAll => Ok(()),
            Shown::Refused => Err(self.withheld(run_image, "refuses that")),
            Shown::Missing => Err(self.withheld(run_image, "shows no such image then")),
        }
    }

    /// The failure of a run image that cannot be read in this way.
    fn withheld(&self, run_image: &Reference, answer: &'static str) -> Error {
        Error::Withheld { image: run_image.to_string(), by: self.0.clone(), answer }
    }
}

impl Build<'_> {
    /// Whether credentials may be used for a run image.
    pub(super) fn is_known(&self, run_image: &Reference) -> bool {
        let BuildRequest { builder, image, tags, cache_image, run_image: wanted, publish, trust, .. } =
            self.request;
        let read: Vec<_> = std::iter::once(builder).chain(wanted).collect();
        let written = std::iter::once(image).chain(tags).chain(cache_image).filter(|_| *publish);
        let believed = match trust {
            Trust::Trusted { .. } => read.iter().copied().chain(written).collect(),
            Trust::Untrusted { .. } => Vec::new(),
        };
        Reach { read, believed, run_image }.is_known()
    }

    /// Bring a run image into the store, or see that it can be read where the image is published: as `by` names it, if it is not known.
    pub(super) fn have_run_image(&self, run_image: &Reference, by: &Namer) -> Result<(), Error> {
        let request = self.request;
        let known = self.is_known(run_image);
        if !known && request.auth.may_have(&run_image.registry) {
            self.note(by.notice(run_image));
        }
        let ask = || by.ask(self.stage, run_image, &request.insecure);
        match request.publish {
            // Phases that send to the same registry have credentials for it, and show them there.
            true if !known => ask(),
            true => Ok(()),
            false => match self.image_with(run_image, Some(&self.keys).filter(|_| known)) {
                Err(error @ Error::Worker(_)) if !known => ask().and(Err(error)),
                fetched => fetched.map(drop),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_known(read: &[&str], believed: &[&str], run_image: &str) -> bool {
        let parsed = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>();
        let (read, believed): (Vec<Reference>, Vec<Reference>) = (parsed(read), parsed(believed));
        let run_image = run_image.parse().unwrap();
        Reach { read: read.iter().collect(), believed: believed.iter().collect(), run_image: &run_image }
            .is_known()
    }

    #[test]
    fn a_builder_alone_does_not_have_credentials_used() {
        let builder = ["hub.example/stranger/builder:1"];
        for (run_image, known) in [
            ("hub.example/stranger/run", true),
            (
                "hub.example/stranger/run@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                true,
            ),
            // The same registry is not enough, nor is a part of the path.
            ("hub.example/victim/private", false),
            ("hub.example/private", false),
            ("hub.example/stranger/of-another/private", false),
            ("hub.example/strangers/private", false),
            ("secret.example/stranger/private", false),
            ("stranger/run", false),
        ] {
            assert_eq!(is_known(&builder, &[], run_image), known, "{run_image}");
        }
        // What the user names counts.
        assert!(is_known(&[builder[0], "hub.example/victim/private:2"], &[], "hub.example/victim/private:2"));
        // Names without a registry are Docker Hub's, and without a namespace they are all in one.
        assert!(!is_known(&["builder"], &[], "victim/private"));
        assert!(is_known(&["flat.example/builder"], &[], "flat.example/run"));
        assert!(!is_known(&["flat.example/builder"], &[], "flat.example/victim/run"));
    }

    #[test]
    fn a_trusted_builder_s_word_counts_on_registries_that_the_user_named() {
        let named = ["hub.example/team/builder", "mine.example/team/app"];
        for (run_image, known) in [
            ("hub.example/bases/run", true),
            ("mine.example/mirrors/run", true),
            ("secret.example/team/private", false),
        ] {
            assert_eq!(is_known(&named[..1], &named, run_image), known, "{run_image}");
        }
    }

    #[test]
    fn who_names_it_is_told_and_what_to_do() {
        let (namer, run_image) =
            (Namer("the builder b.example/b:1".to_owned()), "r.example/x/run".parse().unwrap());
        assert_eq!(
            namer.notice(&run_image),
            "the run image r.example/x/run:latest is named by the builder b.example/b:1 alone, so it is read without your credentials; --run-image r.example/x/run:latest reads it with them"
        );
        assert_eq!(
            namer.withheld(&run_image, "refuses that").to_string(),
            "the run image r.example/x/run:latest is named by the builder b.example/b:1 alone, so it is read without your credentials, and its registry refuses that; if it is the one you want, name it yourself: --run-image r.example/x/run:latest"
        );
        let missing = namer.withheld(&run_image, "shows no such image then").to_string();
        assert!(
            missing.contains("your credentials, and its registry shows no such image then; if it is"),
            "{missing}"
        );
    }
}
