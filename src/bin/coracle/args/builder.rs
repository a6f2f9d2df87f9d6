//! `coracle builder`.

use std::path::PathBuf;

use clap::Subcommand;
use coracle::Reference;

use super::Access;

#[derive(Debug, clap::Args)]
pub(crate) struct Builder {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a builder of a build image and folders of buildpacks
    Create(Create),
    /// List well-known public builders
    Suggest,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// The name of the builder
    pub(crate) name: Reference,
    /// Its description; paths in it are relative to its folder
    #[arg(short, long, value_name = "BUILDER.TOML")]
    pub(crate) config: PathBuf,
    /// Send it to its registry as well
    #[arg(long)]
    pub(crate) publish: bool,
    #[command(flatten)]
    pub(crate) access: Access,
}
