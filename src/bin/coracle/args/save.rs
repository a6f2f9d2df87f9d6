//! `coracle save`, and the engines for `--load`.

use std::path::PathBuf;

use clap::ValueEnum;
use coracle::Reference;

#[derive(Debug, clap::Args)]
pub(crate) struct Save {
    /// The image
    pub(crate) image: Reference,
    /// The archive's file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Who loads images, by the name of its program.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LoaderName {
    /// The daemon that the program docker speaks to
    Docker,
    /// The program podman
    Podman,
    /// The daemon that the program nerdctl speaks to
    Nerdctl,
}

impl LoaderName {
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Nerdctl => "nerdctl",
        }
    }
}
