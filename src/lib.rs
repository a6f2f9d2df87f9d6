//! The conductor: turns a request into jobs for a worker and containers, and tells an [`Observer`] what happens.
//! It never prints, reads no environment, and knows no command line.
//!
//! | file | what it holds |
//! |---|---|
//! | `home.rs` | the folders on disk that outlive a process, and those that must not |
//! | `stage.rs` | a [`coracle_runtime::Session`] with our folders bound, its output turned into events |
//! | `worker.rs` | what runs inside the stage as the owner of all ids: pull, unpack, look up, delete |
//! | `pull.rs`, `run.rs`, `build.rs`, `import.rs`, `rebase.rs`, `save.rs`, `prune.rs` | one operation each |
//! | `credentials.rs` | who gets which of the user's credentials |
//! | `builder.rs` | another: builder.toml and folders of buildpacks become a builder's image |
//! | `launcher.rs` | the program that built images start with |
//! | `program.rs` | this program as a phase of a build |
//! | `config.rs`, `trust.rs` | what the user has chosen for every command; whether a builder is trusted |
//! | `event.rs`, `error.rs` | what an operation says on its way, and at its end |
//! | `sweeper.rs` | a process that deletes what an operation left |
//! | `timings.rs` | what it spent its time on, as a table, a trace and a page |

mod build;
mod builder;
mod config;
mod credentials;
mod error;
mod event;
mod home;
mod import;
mod launcher;
mod lifecycle_files;
mod program;
mod prune;
mod pull;
mod rebase;
mod run;
mod save;
mod sbom;
mod stage;
mod sweeper;
mod timings;
mod trust;
mod watch;
mod worker;

pub use build::{
    Binding, BindingError, Brought, BuildLayers, BuildRequest, BuildSecret, Buildpack, BuildpackError, Built,
    ChoiceError, ExecEnv, ExecEnvError, LifecycleArchives, LifecycleChoice, LifecycleDigest, LifecycleError,
    LifecycleImage, NativePhase, Restore, SharedLayer, Volume, VolumeError, build,
};
pub use builder::{BuilderCreated, BuilderError, BuilderRequest, create_builder};
pub use config::{Config, ConfigError};
pub use coracle_images::unpack::Allowed;
pub use coracle_images::{AuthFile, CompressionError, Digest, LayerCompression, Reference, Secret, Store};
pub use coracle_runtime::{Network, Outcome, Runtime, Terminator, take_variable};
pub use credentials::{
    AuthFormat, CredentialsError, HelperError, Helpers, Kept, Keychain, Login, LoginError, LoginRequest,
    RegistryName, helper_environment, log_in, log_out, logins,
};
pub use error::Error;
pub use event::{Event, Observer, Stream, Work};
pub use home::Home;
pub use import::{ImportError, ImportRequest, import};
pub use program::play_phase;
pub use prune::{PruneRequest, Pruned, prune};
pub use pull::{PullPolicy, PullRequest, Pulled, pull};
pub use rebase::{RebaseRequest, rebase};
pub use run::{RunRequest, run};
pub use save::{Loader, SaveError, load, save};
pub use stage::sweep;
pub use timings::{Mark, Span, Timings, Trace};
pub use trust::{BuilderName, Policy, Suggested, Trust, TrustError, TrustedBuilders, suggested};

/// The first call of `main`: plays a role inside a stage, if this process was started for one, sweeps, or plays a phase of a build,
/// told by the program's name or its first word. `report` shows a phase's failure.
pub fn take_over(report: fn(&dyn std::error::Error)) -> Option<i32> {
    coracle_runtime::take_over(worker::serve)
        .or_else(sweeper::take_over)
        .or_else(|| play_phase(&std::env::args_os().collect::<Vec<_>>(), report))
}
