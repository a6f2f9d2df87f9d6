//! What an operation says on its way.

use std::time::Duration;

use coracle_images::Digest;
use serde::{Deserialize, Serialize};

/// Which of a program's two outputs a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// What an operation spends time on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// The namespaces and mounts in which everything else happens.
    Stage,
    /// A job of ours on images, layers or documents.
    Job,
    /// A container, from the request for it to its end.
    Container,
    /// A buildpack's program that says whether it takes part, in the container of a phase.
    Detect,
    /// A buildpack's program that builds.
    Buildpack,
    /// A layer on its way from a registry into the store.
    Layer,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// An image's documents are known; its missing layers follow.
    PullStarted {
        /// The image's name.
        image: String,
        /// Its manifest's, by which the store has the documents.
        digest: Digest,
        /// Layers to fetch.
        layers: usize,
        /// Their compressed size, bytes.
        bytes: u64,
    },
    /// Compressed bytes of a layer have arrived.
    LayerProgress {
        /// The layer's place among those fetched.
        layer: usize,
        /// So far, bytes.
        bytes: u64,
    },
    /// A layer is verified and in the store.
    LayerReady {
        /// The layer's place among those fetched.
        layer: usize,
        /// Its entries that were left out (devices, sockets), which a container cannot use here.
        skipped: usize,
    },
    /// A phase of a build begins.
    PhaseStarted {
        /// Its name.
        phase: String,
    },
    /// Something that took time is over.
    Took {
        /// What kind of thing.
        work: Work,
        /// Which one.
        name: String,
        /// From its beginning until now.
        took: Duration,
        /// The bytes it moved, where that is what it was for.
        bytes: Option<u64>,
    },
    /// Something the user should know that stops nothing.
    Notice {
        /// One sentence, of ours.
        text: String,
    },
    /// What a container that runs for itself wrote, byte for byte.
    Output {
        /// Where it came from.
        stream: Stream,
        /// A piece of it.
        bytes: Vec<u8>,
    },
    /// A line that a program in a container wrote, without its line feed.
    Line {
        /// Where it came from.
        stream: Stream,
        /// The phase of a build that wrote it.
        #[serde(default)]
        phase: Option<String>,
        /// The line; bytes that are not UTF-8 are replaced.
        text: String,
    },
}

/// Hears of every event, from any thread.
pub trait Observer: Sync {
    /// Something happened.
    fn event(&self, event: Event);
}
