//! One process in one sandbox, launched without a daemon and without root. Knows no images and no buildpacks.
//!
//! ```text
//! conductor            Session: runs as the user, multithreaded
//!   stage              process 1 of the outer namespaces, one thread; starts jobs, reaps, ends with the conductor
//!     worker           whatever the conductor's crate makes of it: unpacks, copies, archives
//!     launcher         one for each container: mounts, bundle, runtime
//!       init           process 1 of the container: keyring, Landlock, filter, reaping, status
//!         the process  what the container is for
//! ```
//!
//! All of them are this same program, started again under another name: [`take_over`] must be the first call of
//! `main`.

#[doc(hidden)]
pub mod confine;
mod domain;
mod ids;
mod init;
mod launch;
mod launcher;
mod memory;
mod network;
mod protocol;
mod reaper;
mod root;
mod rtnetlink;
mod sandbox;
mod seccomp;
mod session;
mod spec;
mod stage;
mod sys;
mod userns;
mod way_out;

use std::os::unix::net::UnixStream;

pub use ids::{GUEST_IDS, IdMap, SubordinateRange, UnmappedId, find_range};
pub use memory::sealed_memory;
pub use protocol::with_causes;
pub use root::{Bind, PROGRAM, StageSetup};
pub use sandbox::{
    Access, Bounds, EphemeralFile, Input, Mount, Network, Outcome, Rootfs, Runtime, SandboxSpec,
};
pub use session::{Ender, JobOutput, Session, SessionError, Terminator};
pub use sys::{
    close_inherited_descriptors, drop_capabilities, has_no_writer, keep_inherited_descriptors, set_variable,
    take_variable,
};
pub use userns::{UsernsError, id_map_of_user};
pub use way_out::{TUN, WayOutError, way_out};

/// If this process was started by a stage or a container under one of our names, play that role and return the exit
/// status. `worker` answers one request on the socket it is given.
pub fn take_over(worker: fn(UnixStream) -> i32) -> Option<i32> {
    let name = std::env::args_os().next()?;
    let name = std::path::Path::new(&name).file_name()?.to_str()?.to_owned();
    match name.as_str() {
        "coracle-stage" => Some(stage::run()),
        "coracle-launcher" => Some(launcher::run()),
        "coracle-worker" => Some(protocol::job_socket().map_or(125, worker)),
        "init" => Some(init::run()),
        _ => None,
    }
}

/// Read the request of a worker's socket.
///
/// # Errors
/// Where it cannot be read or parsed, or nothing was sent.
pub fn read_request<T: serde::de::DeserializeOwned>(socket: &UnixStream) -> std::io::Result<T> {
    protocol::receive_last(socket)?.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

/// Send a worker's answer.
///
/// # Errors
/// Where the conductor is gone.
pub fn send_answer<T: serde::Serialize>(socket: &UnixStream, answer: &T) -> std::io::Result<()> {
    protocol::send_last(socket, &protocol::Reply::Answer(answer))
}
