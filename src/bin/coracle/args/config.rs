//! `coracle config`, and the older spellings of what is now below it.

use clap::Subcommand;
use coracle::BuilderName;

#[derive(Debug, clap::Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Builders whose buildpacks may share a container with the program that has the credentials
    TrustedBuilders(TrustedBuilders),
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
