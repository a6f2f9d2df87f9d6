//! `coracle rebase`.

use coracle::Reference;

use super::{Access, PullPolicyName, RuntimeName};

#[derive(Debug, clap::Args)]
pub(crate) struct Rebase {
    /// The image to rebase: of the local store, or with --publish of its registry
    pub(crate) image: Reference,
    /// The image to run on, instead of the one that the image was built for
    #[arg(long, value_name = "IMAGE")]
    pub(crate) run_image: Option<Reference>,
    /// Rebase the image where it is published: no layer of it is fetched
    #[arg(long)]
    pub(crate) publish: bool,
    /// Rebase even if the image is marked as not rebasable, or was built for another run image or platform
    #[arg(long)]
    pub(crate) force: bool,
    /// When the run image is fetched into the local store
    #[arg(long, value_enum, default_value_t = PullPolicyName::Always)]
    pub(crate) pull_policy: PullPolicyName,
    /// What launches the container
    #[arg(long, value_enum, default_value_t = RuntimeName::Youki)]
    pub(crate) runtime: RuntimeName,
    #[command(flatten)]
    pub(crate) access: Access,
}
