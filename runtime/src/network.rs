//! A network of a container's own. The launcher makes it, so the container's user namespace does not own it: not even a
//! guest that were root in there could change it. See network_namespaces(7).

use std::io;

use nix::sched::{CloneFlags, unshare};

use crate::rtnetlink::{Routing, loopback_up};

/// Leave the host's network for a new one with nothing but loopback, which is up.
///
/// # Errors
/// The errno of unshare(2), or of the exchange with rtnetlink(7).
pub(crate) fn leave() -> io::Result<Routing> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let routing = Routing::open()?;
    routing.tell(&loopback_up())?;
    Ok(routing)
}
