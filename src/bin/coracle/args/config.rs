//! `coracle config`, and the older spellings of what is now below it.

use clap::Subcommand;
use coracle::{BuilderName, Reference};

#[derive(Debug, clap::Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The builder of builds that name none
    DefaultBuilder(DefaultBuilder),
    /// Builders whose buildpacks may share a container with the program that has the credentials
    TrustedBuilders(TrustedBuilders),
    /// Where images of lifecycles are, for --lifecycle builder with a builder that is not trusted
    LifecycleImage(LifecycleImage),
    /// Where release archives of lifecycles are, for versions of which there is no image
    LifecycleArchives(LifecycleArchives),
}

#[derive(Debug, clap::Args)]
pub(crate) struct DefaultBuilder {
    /// The builder; without it, say which is in use
    #[arg(value_name = "IMAGE", conflicts_with = "unset")]
    pub(crate) builder: Option<Reference>,
    /// Have builds name theirs again
    #[arg(long)]
    pub(crate) unset: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LifecycleArchives {
    /// A URL below which each version has a folder (vVERSION), or a folder with all archives; each with its digest beside it
    /// (.sha256). Without it, say which is in use
    #[arg(value_name = "URL|DIR", conflicts_with = "unset")]
    pub(crate) archives: Option<coracle::LifecycleArchives>,
    /// The digest of this machine's archive of a version, in place of the one beside it
    #[arg(long, value_name = "VERSION=DIGEST", conflicts_with = "unset")]
    pub(crate) digest: Vec<coracle::LifecycleDigest>,
    /// Look where they are released again, and forget all digests
    #[arg(long)]
    pub(crate) unset: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LifecycleImage {
    /// A repository with a tag for each version, or one image by tag or digest; without it, say which is in use
    #[arg(value_name = "IMAGE", conflicts_with = "unset")]
    pub(crate) image: Option<coracle::LifecycleImage>,
    /// Look where other platforms do again
    #[arg(long)]
    pub(crate) unset: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TrustedBuilders {
    #[command(subcommand)]
    pub(crate) command: Option<TrustCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    /// List them; those that are suggested are trusted unless they were removed
    List,
    /// Trust a builder in every build to come
    Add(Name),
    /// Trust a builder no longer
    Remove(Name),
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Name {
    /// The builder, as REGISTRY/REPOSITORY, with :TAG or @DIGEST where only that is meant
    #[arg(value_name = "BUILDER")]
    pub(crate) builder: BuilderName,
}
