//! What can be typed. No decision is made here.

pub(crate) mod builder;
mod import;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use coracle::Reference;

pub(crate) use builder::Builder;
pub(crate) use import::Import;

/// Build and run Cloud Native Buildpacks images: no daemon, no root.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, max_term_width = 100)]
pub(crate) struct Args {
    /// Where images are kept [default: $XDG_DATA_HOME/coracle or ~/.local/share/coracle]
    #[arg(long, global = true, env = "CORACLE_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// Print results and errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fetch an image from a registry and unpack it
    Pull(Pull),
    /// Start an image of the local store in the foreground
    Run(Run),
    /// Make an image of the archive of a root filesystem
    Import(Import),
    /// Make builders
    Builder(Builder),
    /// List the images of the local store
    Images,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Pull {
    /// The image, as REGISTRY/REPOSITORY:TAG or ...@DIGEST
    pub(crate) image: Reference,
    /// A registry to speak to in plain HTTP (repeatable); those on loopback are anyway
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) insecure_registry: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// What launches the container
    #[arg(long, value_enum, default_value_t = RuntimeName::Youki)]
    pub(crate) runtime: RuntimeName,
    /// A program or process type to start instead of the image's own
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Set a variable, or copy it from the environment where there is no value (repeatable)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// The image
    pub(crate) image: Reference,
    /// Arguments instead of the image's command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RuntimeName {
    /// libcontainer, built in
    Youki,
    /// The program crun
    Crun,
    /// The program runc
    Runc,
}

impl From<RuntimeName> for coracle::Runtime {
    fn from(name: RuntimeName) -> Self {
        match name {
            RuntimeName::Youki => Self::Youki,
            RuntimeName::Crun => Self::Crun,
            RuntimeName::Runc => Self::Runc,
        }
    }
}
