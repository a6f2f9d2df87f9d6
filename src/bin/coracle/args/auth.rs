//! Credentials for registries: where they are, which every command has that speaks to one, and `coracle auth`.

use std::path::PathBuf;

use clap::Subcommand;
use coracle::RegistryName;

#[derive(Debug, clap::Args)]
pub(crate) struct Access {
    #[command(flatten)]
    pub(crate) place: Place,
    /// A registry to speak to in plain HTTP (repeatable); those on loopback are anyway
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) insecure_registry: Vec<String>,
    /// Say more: what phases do, and where credentials are from
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// A file with credentials, instead of all other places where they are looked for
    #[arg(long, env = "REGISTRY_AUTH_FILE", value_name = "FILE")]
    pub(crate) registry_auth_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Auth {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Keep a name and a password for a registry, which is asked whether they are right
    Login(Login),
    /// Forget those of a registry, in every file and with every helper where they are looked for
    Logout(Logout),
    /// List whose credentials there are, and where: of two for one registry, the first counts
    List {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Login {
    /// The registry's host
    #[arg(value_name = "HOST[:PORT]")]
    pub(crate) registry: RegistryName,
    /// The user's name there [default: ask]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Read the password from standard input, instead of asking for it
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,
    /// Speak to it in plain HTTP; one on loopback is spoken to so anyway
    #[arg(long)]
    pub(crate) insecure: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Logout {
    /// The registry, as `coracle auth list` calls it
    #[arg(value_name = "REGISTRY", required_unless_present = "all")]
    pub(crate) registry: Option<String>,
    /// Forget those of all registries
    #[arg(long, conflicts_with = "registry")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}
