//! What runs in one container, as values: the request of the conductor to a launcher, and its answer.

use std::ffi::CString;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The low-level runtime that launches a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// youki's libcontainer, in the launcher's own process.
    Youki,
    /// The program `crun`.
    Crun,
    /// The program `runc`.
    Runc,
}

impl Runtime {
    /// The program to start, or `None` for the one inside this binary.
    pub fn program(self) -> Option<&'static str> {
        match self {
            Runtime::Youki => None,
            Runtime::Crun => Some("crun"),
            Runtime::Runc => Some("runc"),
        }
    }
}

/// Whether a guest may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// No.
    ReadOnly,
    /// Yes.
    ReadWrite,
}

/// A folder or file of the stage's root that the guest sees at `target`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// A path in the stage's root (beneath `/store`, `/work`, `/source` or `/etc`).
    pub source: PathBuf,
    /// An absolute path in the guest.
    pub target: PathBuf,
    /// Whether the guest may write.
    pub access: Access,
}

/// A file that exists for this container alone, on a tmpfs of the launcher's own mount namespace. The guest's user
/// owns it and may only read it.
#[derive(Clone, Serialize, Deserialize)]
pub struct EphemeralFile {
    /// An absolute path in the guest.
    pub target: PathBuf,
    /// The content; never shown by `Debug`.
    pub content: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for EphemeralFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EphemeralFile").field("target", &self.target).finish_non_exhaustive()
    }
}

/// What a container's process finds on its standard input, in sealed memory that no other process of the container can open:
/// see [`sealed_memory`](crate::sealed_memory).
#[derive(Clone, Serialize, Deserialize)]
pub struct Input {
    /// What the memory is called.
    pub name: CString,
    /// The content; never shown by `Debug`.
    pub content: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What the guest's root folder is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Rootfs {
    /// Unpacked layers, the lowest first, below a folder that takes the guest's writes.
    Overlay {
        /// Paths in the stage's root.
        lower: Vec<PathBuf>,
        /// An existing folder in the stage's root; `upper` and `work` are made in it.
        scratch: PathBuf,
    },
    /// Nothing but mount points, read-only.
    Empty,
}

/// The network that a guest is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// The host's, whole: its services on loopback and what the host's neighbours offer it.
    #[default]
    Host,
    /// One of its own with a way out (see [`way_out`](crate::way_out)), but none to this machine, its cloud's metadata or
    /// link-local neighbours. The guest's `/etc/resolv.conf` is that network's.
    Isolated,
    /// One of its own with nothing but loopback.
    None,
}

/// What a guest may use and change, besides what its mounts say. The default is what a container that runs for itself
/// has: all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// The network it is in.
    pub network: Network,
    /// Seconds that it may run, where there is an end to them.
    pub seconds: Option<u64>,
    /// Bytes that no file gets over by its writing, where there is an end to them.
    pub file_size: Option<u64>,
    /// The folders of its root below which it may write, besides what is mounted for that; `None` for all of them. Held
    /// by Landlock, so only where the kernel has it; the modes of files hold in any case.
    pub writes_below: Option<Vec<PathBuf>>,
}

/// One process in one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The container's name: letters, digits, `-`.
    pub id: String,
    /// What launches it.
    pub runtime: Runtime,
    /// Its root folder.
    pub rootfs: Rootfs,
    /// The program and its arguments; a program without `/` is looked up in the `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The working folder, in the guest.
    pub cwd: PathBuf,
    /// The guest's user id.
    pub uid: u32,
    /// The guest's group id.
    pub gid: u32,
    /// What it sees of the stage's root, in order.
    pub mounts: Vec<Mount>,
    /// Files made for it alone.
    pub files: Vec<EphemeralFile>,
    /// What it may use and change.
    pub bounds: Bounds,
    /// Its standard input, which is empty otherwise.
    pub input: Option<Input>,
}

/// How the process in a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It exited with this status.
    Exited(i32),
    /// A signal ended it.
    Killed(i32),
    /// It ran for longer than these seconds, all that it had, and was ended.
    TimedOut(u64),
    /// It printed nothing for these seconds, and was ended.
    Silent(u64),
    /// It wrote more than these bytes, and was ended.
    Overfull(u64),
}

impl Outcome {
    /// The status as a shell would give it: 128 + n for signal n, which for what is too large is SIGXFSZ, and as timeout(1) gives
    /// it: 124.
    pub fn code(self) -> i32 {
        match self {
            Outcome::TimedOut(_) | Outcome::Silent(_) => 124,
            Outcome::Overfull(_) => 128 + nix::libc::SIGXFSZ,
            Outcome::Exited(code) => code,
            Outcome::Killed(signal) => 128 + signal,
        }
    }
}

/// What a launcher reports: the outcome, or why there is none.
pub(crate) type LaunchReport = Result<Outcome, String>;

/// What process 1 of a container needs to know, as a read-only file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InitRequest {
    pub(crate) argv: Vec<String>,
    pub(crate) bounds: Bounds,
    /// What the memory on the standard input is called, where there is any.
    pub(crate) input: Option<CString>,
}

/// What process 1 writes on its status descriptor, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum InitReport {
    Failed(String),
    Ended(Outcome),
}
