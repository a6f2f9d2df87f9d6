//! What happens inside the stage as its id 0, which owns every id of the build: pulling, unpacking, looking into
//! images, deciding on what phases left, deleting. One request, one answer; events go to standard output, a line of
//! JSON each.
//!
//! | file | jobs |
//! |---|---|
//! | `pull.rs` | an image from a registry into the store |
//! | `user.rs` | the numbers of an image's user |
//! | `prepare.rs`, `source.rs` | the folders that the phases of a build see |
//! | `step.rs` | what a buildpack sees that has a container of its own |
//! | `decide.rs`, `generate.rs` | what is made of what phases with foreign programs left |
//! | `lifecycle.rs` | the programs of another lifecycle, and ours for others |
//! | `foreign.rs` | documents to and from phases that another lifecycle plays |
//! | `left.rs` | what buildpacks left, before an exporter of another lifecycle reads it |
//! | `layers.rs`, `tree.rs` | layers that stay unpacked between builds |
//! | `receive.rs` | a finished image from a phase's outbox into the store |
//! | `delete.rs` | folders that guests have filled |
//! | `prune.rs` | what the store holds to no use |
//! | `pack.rs` | layers of what lies on the host |
//! | `weigh.rs` | what folders take that a phase fills |
//! | `remote.rs` | whether a registry takes a password, or shows an image to everybody |
//! | `known.rs` | what a published image says it runs on |
//! | `keep.rs` | images that were put together here: into the store, to a registry |

mod decide;
mod delete;
mod evidence;
mod foreign;
mod generate;
mod keep;
mod known;
mod layers;
mod left;
mod lifecycle;
mod pack;
mod prepare;
mod prune;
mod pull;
mod receive;
mod remote;
mod source;
mod step;
mod tree;
mod user;
mod weigh;

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::event::Event;

pub(crate) use decide::{Compose, Detect, Detected, Disbelieve, Keep};
pub(crate) use delete::{Delete, Deleted};
pub(crate) use foreign::{AskDigest, CheckStacks, Lend, TakeDetected};
pub(crate) use generate::{Generate, Generated, SwitchRunImage};
pub(crate) use keep::{KeepImage, PushImage};
pub(crate) use known::{KnownRunImage, RunImageOfLabel};
pub(crate) use layers::{CheckLayers, KeepCreated, KeepLayers, LeaveLayers, ReuseLayers};
pub(crate) use lifecycle::{FetchLifecycle, FindLifecycle, TakeLifecycle, Verified, WriteLifecycle};
pub(crate) use pack::{Entry, LayerSource, PackLayers};
pub(crate) use prepare::{LayOut, MakeFolders, Prepare};
pub(crate) use prune::{Measure, PruneStore};
pub(crate) use pull::{Pull, Unpack};
pub(crate) use receive::Receive;
pub(crate) use remote::{AskOpenly, LogIn, Remote, Shown};
pub(crate) use step::{Place, PrepareStep};
pub(crate) use tree::Clocks;
pub(crate) use user::{FindUser, User};
pub(crate) use weigh::Weigh;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Something to do, and what comes of it.
pub(crate) trait Job: Into<Request> {
    type Answer: Serialize + DeserializeOwned;

    /// Do it, inside the stage.
    fn carry_out(self) -> Result<Self::Answer, AnyError>;
}

/// Every job by name: what crosses the process boundary.
macro_rules! jobs {
    ($($job:ident),* $(,)?) => {
        #[derive(Debug, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub(crate) enum Request { $($job($job)),* }

        impl Request {
            /// The job's name.
            pub(crate) fn name(&self) -> &'static str {
                match self {
                    $(Self::$job(_) => stringify!($job)),*
                }
            }
        }

        $(impl From<$job> for Request {
            fn from(job: $job) -> Self { Self::$job(job) }
        })*

        fn answer(request: Request) -> Result<serde_json::Value, AnyError> {
            match request {
                $(Request::$job(job) => Ok(serde_json::to_value(job.carry_out()?)?)),*
            }
        }
    };
}

jobs!(
    Pull,
    Unpack,
    FindUser,
    WriteLifecycle,
    Disbelieve,
    Prepare,
    LayOut,
    MakeFolders,
    PrepareStep,
    ReuseLayers,
    CheckLayers,
    KeepLayers,
    KeepCreated,
    LeaveLayers,
    Keep,
    KnownRunImage,
    Detect,
    Generate,
    SwitchRunImage,
    Compose,
    Lend,
    TakeDetected,
    AskDigest,
    AskOpenly,
    CheckStacks,
    TakeLifecycle,
    FetchLifecycle,
    FindLifecycle,
    Receive,
    PackLayers,
    KeepImage,
    PushImage,
    LogIn,
    PruneStore,
    Measure,
    Weigh,
    Delete,
);

/// Answer one request on `socket`; the exit status of the worker process.
pub(crate) fn serve(socket: UnixStream) -> i32 {
    let result = coracle_runtime::read_request(&socket)
        .map_err(|error| format!("the worker could not read its request: {error}"))
        .and_then(|request| answer(request).map_err(|error| coracle_runtime::with_causes(&*error)));
    i32::from(coracle_runtime::send_answer(&socket, &result).is_err())
}

/// Tell the conductor. It may be gone, and then this process is about to be: nothing is lost.
fn tell(event: &Event) {
    if let Ok(mut line) = serde_json::to_vec(event) {
        line.push(b'\n');
        let _ = io::stdout().lock().write_all(&line);
    }
}
