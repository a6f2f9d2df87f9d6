//! Where credentials for registries are: what every command has that speaks to one.

use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Access {
    /// A file with credentials, instead of all other places where they are looked for
    #[arg(long, env = "REGISTRY_AUTH_FILE", value_name = "FILE")]
    pub(crate) registry_auth_file: Option<PathBuf>,
    /// A registry to speak to in plain HTTP (repeatable); those on loopback are anyway
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) insecure_registry: Vec<String>,
    /// Say more: what phases do, and where credentials are from
    #[arg(short, long)]
    pub(crate) verbose: bool,
}
