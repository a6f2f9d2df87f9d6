//! Why an operation failed: each variant names the thing; the cause is the source.

use std::io;
use std::path::PathBuf;

use coracle_images::{RegistryError, StoreError};
use coracle_runtime::{Outcome, SessionError};

/// An operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder of ours could not be used.
    #[error("could not {act} {}", path.display())]
    Folder {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The stage, a worker or a container could not be run.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// There is no network with a way out.
    #[error(transparent)]
    WayOut(#[from] coracle_runtime::WayOutError),
    /// An archive was not imported.
    #[error(transparent)]
    Import(#[from] crate::import::ImportError),
    /// An image was not handed to others.
    #[error(transparent)]
    Save(#[from] crate::save::SaveError),
    /// A builder was not created.
    #[error(transparent)]
    Builder(#[from] crate::builder::BuilderError),
    /// The user's credentials cannot be used.
    #[error(transparent)]
    Credentials(#[from] crate::credentials::CredentialsError),
    /// Nobody was logged in.
    #[error(transparent)]
    Login(#[from] crate::credentials::LoginError),
    /// A lifecycle cannot play what it was chosen for.
    #[error(transparent)]
    Lifecycle(#[from] crate::build::LifecycleError),
    /// A binding or secret of a build.
    #[error(transparent)]
    Binding(#[from] crate::build::BindingError),
    /// A volume of a build.
    #[error(transparent)]
    Volume(#[from] crate::build::VolumeError),
    /// The worker gave up.
    #[error("{0}")]
    Worker(String),
    /// An image is not in the store.
    #[error("image {0} is not in the local store; fetch it with: coracle pull {0}")]
    NoImage(String),
    /// The layers of an image are stored but not unpacked for this user's ids.
    #[error(
        "image {0} is stored, but not unpacked for the ids of this user, and not all of it is here to do that; fetch it again with: coracle pull {0}"
    )]
    NotUnpacked(String),
    /// An image names nothing to run.
    #[error("image {0} has neither an entrypoint nor a command; name a program after the image")]
    NothingToRun(String),
    /// The source is no folder.
    #[error("the source {} is not a folder; name one with --path", .0.display())]
    NotAFolder(PathBuf),
    /// The source is where images or the cache are kept.
    #[error("the source {} is a folder in which images or caches are kept; name the application's with --path", .0.display())]
    SourceIsOurs(PathBuf),
    /// A path that is mounted but no text; libcontainer cannot read the mount table then.
    #[error("the path {} is not UTF-8, which runtimes need of what they mount; use a folder with another name", .0.display())]
    NotText(PathBuf),
    /// An image given as builder is none.
    #[error("image {image} is not a builder: {why}; name a builder image with --builder")]
    NotABuilder {
        /// The image.
        image: String,
        /// What it lacks.
        why: String,
    },
    /// A builder without a run image.
    #[error("builder {0} names no run image; name one with --run-image")]
    NoRunImage(String),
    /// A buildpack that was asked for.
    #[error("buildpack {name} cannot be used: {why}")]
    Buildpack {
        /// Its id or folder.
        name: String,
        /// The cause.
        why: String,
    },
    /// A cache image that nobody can write, or that would replace what is built.
    #[error("the cache cannot be kept in the image {image}: {}", if *is_output { "this is a name of the image to build; name another with --cache-image" } else { "it is in a registry, and so must be what is built: add --publish, or keep the cache in a folder (--cache-dir)" })]
    CacheImage {
        /// The image.
        image: String,
        /// Whether it is what is built.
        is_output: bool,
    },
    /// What an extension wrote into run.Dockerfile is no image's name.
    #[error("image extensions choose the run image `{name}`")]
    ChosenRunImage {
        /// What was written.
        name: String,
        /// What is wrong with it.
        #[source]
        source: coracle_images::ReferenceError,
    },
    /// An extension chose an image that could be any of those that the user may read.
    #[error(
        "image extensions choose the run image {image}, which the builder does not offer, and images of {registry} are read with credentials in this build; build without --publish, or take a builder that lists it among its run images"
    )]
    NotOffered {
        /// The image.
        image: String,
        /// Its registry.
        registry: String,
    },
    /// A run image that the user did not name, and that not everybody may read.
    #[error(
        "the run image {image} is named by {by} alone, so it is read without your credentials, and its registry {answer}; if it is the one you want, name it yourself: --run-image {image}"
    )]
    Withheld {
        /// The run image.
        image: String,
        /// Who names it.
        by: String,
        /// What the registry did.
        answer: &'static str,
    },
    /// A phase ended with something else than success.
    #[error("the {phase} {}", describe(*outcome))]
    Phase {
        /// The phase.
        phase: &'static str,
        /// Its exit code, or the signal that ended it.
        outcome: Outcome,
    },
    /// An application must stay on its run image.
    #[error("could not rebase {image}")]
    Rebase {
        /// The application.
        image: String,
        /// Why.
        #[source]
        source: coracle_lifecycle::rebase::RebaseError,
    },
    /// A document could not be read or written.
    #[error("could not use a document of the build")]
    Document(#[source] coracle_cnb::DocumentError),
    /// The exporter published, but said nothing of a digest.
    #[error("the exporter left no digest in report.toml; look for the image in its registry")]
    NoDigest,
    /// A pipe could not be made.
    #[error("could not make a pipe for a program's output")]
    Pipe(#[source] io::Error),
}

/// What an exit code of a phase means (Platform API, "Exit Codes"), and what to do.
fn describe(outcome: Outcome) -> String {
    let advice = match outcome {
        Outcome::Killed(9) => {
            " (SIGKILL): a program inside ended it, or the kernel did because memory had run out"
        }
        Outcome::Killed(_) => "",
        Outcome::TimedOut(_) => "; if it needs longer, say so with --timeout",
        Outcome::Silent(_) => "; what it said last is above; if it needs longer, say so with --idle-timeout",
        Outcome::Overfull(_) => "; if it needs more, say so with --max-disk",
        Outcome::Exited(12) => ": a buildpack was made for an API that is not supported; its name is above",
        Outcome::Exited(20) => {
            ": no group of buildpacks fits the application; see above what each said, or choose with --buildpack"
        }
        Outcome::Exited(21) => ": no group of buildpacks fits, and some failed with an error; see above",
        Outcome::Exited(102) => {
            ": extending images is not supported yet; see above which Dockerfiles ask for it, and name the buildpacks with --buildpack, or take a builder without these extensions"
        }
        Outcome::Exited(51) => ": a buildpack failed; what it said is above",
        Outcome::Exited(_) => "; its messages are above",
    };
    match outcome {
        Outcome::Exited(code) => format!("failed with exit code {code}{advice}"),
        Outcome::TimedOut(seconds) => {
            format!("was ended because it had not finished after {seconds} seconds{advice}")
        }
        Outcome::Silent(seconds) => {
            format!("was ended because it had printed nothing for {seconds} seconds{advice}")
        }
        Outcome::Overfull(bytes) => format!(
            "was ended because layers, application and temporary files took more than {} MiB{advice}",
            bytes >> 20
        ),
        Outcome::Killed(signal) => format!("was ended by signal {signal}{advice}"),
    }
}

impl Error {
    pub(crate) fn folder(act: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Error::Folder { act, path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens where no descriptor is left.
    #[test]
    fn a_pipe_that_cannot_be_made_is_told_with_its_cause() {
        let error = Error::Pipe(io::Error::from_raw_os_error(24));
        let expected = "could not make a pipe for a program's output: Too many open files (os error 24)";
        assert_eq!(coracle_runtime::with_causes(&error), expected);
    }

    #[test]
    fn a_failed_phase_says_which_how_and_what_next() {
        let text = |outcome| Error::Phase { phase: "builder", outcome }.to_string();
        assert_eq!(
            text(Outcome::Exited(51)),
            "the builder failed with exit code 51: a buildpack failed; what it said is above"
        );
        assert_eq!(text(Outcome::Exited(62)), "the builder failed with exit code 62; its messages are above");
        assert_eq!(
            text(Outcome::Killed(9)),
            "the builder was ended by signal 9 (SIGKILL): a program inside ended it, or the kernel did because memory had run out"
        );
        assert_eq!(
            text(Outcome::TimedOut(90)),
            "the builder was ended because it had not finished after 90 seconds; if it needs longer, say so with --timeout"
        );
        assert_eq!(
            text(Outcome::Silent(90)),
            "the builder was ended because it had printed nothing for 90 seconds; what it said last is above; if it needs longer, say so with --idle-timeout"
        );
        assert_eq!(
            text(Outcome::Overfull(64 << 20)),
            "the builder was ended because layers, application and temporary files took more than 64 MiB; if it needs more, say so with --max-disk"
        );
        assert!(text(Outcome::Exited(20)).contains("--buildpack"));
    }
}
