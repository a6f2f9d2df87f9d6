//! Which lifecycle plays the phases: what can be asked for.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use coracle_images::{Digest, Reference};
use serde::{Deserialize, Serialize};

use crate::build::phase::Phase;
use crate::trust::BuilderName;

/// Whose programs play the phases.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LifecycleChoice {
    /// This program's own.
    #[default]
    Native,
    /// The builder's.
    Builder,
    /// Those of an image of a lifecycle.
    Image(Reference),
    /// Those of a release archive, or of a folder with what is in one.
    Path(PathBuf),
}

/// What a text given as lifecycle cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// Neither of the words, no image, no path.
    #[error(
        "`{text}` is neither `native`, `builder`, a path (begin it with `.` or `/`) nor the name of an image: {why}"
    )]
    Lifecycle {
        /// As typed.
        text: String,
        /// Why it is no image.
        why: String,
    },
    /// Neither a URL nor a folder.
    #[error(
        "`{0}` is neither a URL (https://..., plain HTTP from this machine alone) nor the absolute path of a folder"
    )]
    Archives(String),
    /// No version, or no digest.
    #[error(
        "`{0}` is no version with the digest of its archive; write VERSION=sha256:HEX, such as 0.6.0=sha256:..."
    )]
    Digest(String),
    /// No phase.
    #[error("`{0}` is no phase of a build: analyzer, detector, restorer, builder or exporter")]
    Phase(String),
}

impl FromStr for LifecycleChoice {
    type Err = ChoiceError;

    /// A path is what begins with `.` or `/`.
    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        match text {
            "native" => Ok(Self::Native),
            "builder" => Ok(Self::Builder),
            _ if text.starts_with(['.', '/']) => Ok(Self::Path(Path::new(text).to_owned())),
            _ => text.parse().map(Self::Image).map_err(|error: coracle_images::ReferenceError| {
                ChoiceError::Lifecycle { text: text.to_owned(), why: error.to_string() }
            }),
        }
    }
}

/// Where images of lifecycles are: a repository with a tag for each version, or one image for every version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LifecycleImage(String);

impl Default for LifecycleImage {
    /// Where other platforms look.
    fn default() -> Self {
        Self("docker.io/buildpacksio/lifecycle".to_owned())
    }
}

impl LifecycleImage {
    /// Whether an image of this name would be taken for one of these.
    pub(crate) fn means(&self, image: &Reference) -> bool {
        self.0.parse::<BuilderName>().is_ok_and(|name| name.means(image))
    }

    /// Whether it is one image, by tag or digest.
    pub(super) fn is_one(&self) -> bool {
        let name = self.0.rsplit('/').next().unwrap_or_default();
        name.contains([':', '@'])
    }

    /// The image of a version.
    pub(super) fn of_version(&self, version: &str) -> Result<Reference, coracle_images::ReferenceError> {
        if self.is_one() { self.0.parse() } else { format!("{}:{version}", self.0).parse() }
    }
}

impl std::fmt::Display for LifecycleImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LifecycleImage {
    type Err = coracle_images::ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<Reference>().map(|_| Self(text.to_owned()))
    }
}

impl TryFrom<String> for LifecycleImage {
    type Error = coracle_images::ReferenceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<LifecycleImage> for String {
    fn from(image: LifecycleImage) -> String {
        image.0
    }
}

/// Where release archives of lifecycles are: a URL with a folder for each version, or a folder of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LifecycleArchives(String);

impl Default for LifecycleArchives {
    /// Where they are released.
    fn default() -> Self {
        Self("https://github.com/buildpacks/lifecycle/releases/download".to_owned())
    }
}

impl LifecycleArchives {
    /// The folder, if it is one.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.0.starts_with('/').then(|| Path::new(&self.0))
    }

    /// The file name of a version's archive for this kind of machine.
    pub(super) fn file_of(version: &str) -> String {
        let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86-64" };
        format!("lifecycle-v{version}+linux.{machine}.tgz")
    }

    /// The URL of a version's archive.
    pub(super) fn url_of(&self, version: &str) -> String {
        format!("{}/v{version}/{}", self.0.trim_end_matches('/'), Self::file_of(version))
    }
}

impl std::fmt::Display for LifecycleArchives {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LifecycleArchives {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        let is_place = text.starts_with('/') || coracle_images::check_url(text).is_ok();
        if is_place { Ok(Self(text.to_owned())) } else { Err(ChoiceError::Archives(text.to_owned())) }
    }
}

/// What the user knows of a release archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecycleDigest {
    /// Of which lifecycle.
    pub version: String,
    /// Of its archive for this kind of machine.
    pub digest: Digest,
}

impl FromStr for LifecycleDigest {
    type Err = ChoiceError;

    /// `VERSION=sha256:HEX`.
    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        let (version, digest) = text.split_once('=').unwrap_or_default();
        match (semver::Version::parse(version), digest.parse()) {
            (Ok(_), Ok(digest)) => Ok(Self { version: version.to_owned(), digest }),
            _ => Err(ChoiceError::Digest(text.to_owned())),
        }
    }
}

impl TryFrom<String> for LifecycleArchives {
    type Error = ChoiceError;

    fn try_from(text: String) -> Result<Self, ChoiceError> {
        text.parse()
    }
}

impl From<LifecycleArchives> for String {
    fn from(archives: LifecycleArchives) -> String {
        archives.0
    }
}

/// A phase that this program plays although another lifecycle was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NativePhase(pub(crate) Phase);

impl FromStr for NativePhase {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        let phases = [Phase::Analyze, Phase::Detect, Phase::Restore, Phase::Build, Phase::Export];
        let found = phases.into_iter().find(|phase| phase.title() == text);
        found.map(Self).ok_or_else(|| ChoiceError::Phase(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifecycle_is_a_word_a_path_or_an_image() {
        let of = |text: &str| text.parse::<LifecycleChoice>();
        assert_eq!(of("native"), Ok(LifecycleChoice::Native));
        assert_eq!(of("builder"), Ok(LifecycleChoice::Builder));
        assert_eq!(of("./x.tgz"), Ok(LifecycleChoice::Path("./x.tgz".into())));
        assert_eq!(of("/x"), Ok(LifecycleChoice::Path("/x".into())));
        let image = "r.example/lifecycle:1".parse().unwrap();
        assert_eq!(of("r.example/lifecycle:1"), Ok(LifecycleChoice::Image(image)));
        let refused = of("A b").unwrap_err().to_string();
        let start = "`A b` is neither `native`, `builder`, a path (begin it with `.` or `/`) nor the name of an image: ";
        assert!(refused.starts_with(start), "{refused}");
    }

    #[test]
    fn an_image_without_a_tag_has_one_for_each_version() {
        let of =
            |text: &str| text.parse::<LifecycleImage>().unwrap().of_version("1.2.3").unwrap().to_string();
        assert_eq!(of("r.example:5000/team/lifecycle"), "r.example:5000/team/lifecycle:1.2.3");
        assert_eq!(of("r.example:5000/team/lifecycle:own"), "r.example:5000/team/lifecycle:own");
        let digest = format!("r.example/l@sha256:{}", "0".repeat(64));
        assert_eq!(of(&digest), digest);
        assert_eq!(
            LifecycleImage::default().of_version("1").unwrap().to_string(),
            "index.docker.io/buildpacksio/lifecycle:1"
        );
        assert!("A b".parse::<LifecycleImage>().is_err());
    }

    #[test]
    fn archives_lie_in_a_folder_for_each_version_or_in_one() {
        let of = |text: &str| text.parse::<LifecycleArchives>().unwrap();
        let url = of("https://r.example/x/").url_of("1.2.3");
        assert_eq!(url, format!("https://r.example/x/v1.2.3/{}", LifecycleArchives::file_of("1.2.3")));
        assert_eq!((of("/srv").folder(), of("https://x").folder()), (Some(Path::new("/srv")), None));
        assert_eq!(of("http://127.0.0.1:8000").folder(), None);
        for text in ["srv", "http://mirror.example/lifecycles", "https://", "ftp://mirror.example"] {
            let refused = text.parse::<LifecycleArchives>().unwrap_err().to_string();
            let expected = format!(
                "`{text}` is neither a URL (https://..., plain HTTP from this machine alone) nor the absolute path of a folder"
            );
            assert_eq!(refused, expected);
        }
    }

    #[test]
    fn a_digest_is_of_a_version() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let known: LifecycleDigest = format!("0.6.0={digest}").parse().unwrap();
        assert_eq!((known.version.as_str(), known.digest.to_string()), ("0.6.0", digest.clone()));
        for text in ["", &digest, "0.6.0", "0.6.0=", "0.6.0=sha256:0", &format!("v0.6.0={digest}")] {
            let expected = format!(
                "`{text}` is no version with the digest of its archive; write VERSION=sha256:HEX, such as 0.6.0=sha256:..."
            );
            assert_eq!(text.parse::<LifecycleDigest>().unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_phase_is_called_as_its_program_is() {
        assert_eq!("detector".parse(), Ok(NativePhase(Phase::Detect)));
        let refused = "detect-programs".parse::<NativePhase>().unwrap_err().to_string();
        assert_eq!(
            refused,
            "`detect-programs` is no phase of a build: analyzer, detector, restorer, builder or exporter"
        );
    }
}
