//! `coracle import`.

use std::path::PathBuf;

use coracle::Reference;

#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    /// The archive of a root filesystem: tar, plain or compressed with gzip or zstd
    #[arg(value_name = "TAR")]
    pub(crate) archive: PathBuf,
    /// The name of the image
    pub(crate) image: Reference,
    /// Set a variable, or copy it from the environment where there is no value (repeatable)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Set a label (repeatable)
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// The user programs run as
    #[arg(short, long, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
    /// The folder programs start in
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
}

fn label(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE"),
    }
}
