//! What `coracle build` hands to programs of buildpacks.

use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Brought {
    /// A file of variables for the buildpacks, a NAME=VALUE or NAME in each line (repeatable); --env goes before it
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// A service binding for the buildpacks: a folder with a file `type` and others (repeatable)
    #[arg(long, value_name = "NAME=FOLDER")]
    pub(crate) binding: Vec<String>,
    /// A file for bin/build, at /run/secrets/NAME; for named buildpacks only with --build-layers strict (repeatable)
    #[arg(long, value_name = "id=NAME,src=FILE[,buildpack=ID]...")]
    pub(crate) secret: Vec<String>,
    /// A folder or file of this machine for the buildpacks, read-only unless it says rw (repeatable)
    #[arg(long, value_name = "HOST:CONTAINER[:ro|rw]")]
    pub(crate) volume: Vec<String>,
    /// Show to buildpacks what is sensitive, if --volume says so
    #[arg(long, requires = "volume")]
    pub(crate) volume_force: bool,
}
