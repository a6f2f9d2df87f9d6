//! A network of a container's own, with nothing but loopback. The launcher makes it, so the container's user namespace
//! does not own it: not even a guest that were root in there could change it. See network_namespaces(7).

use std::io;
use std::os::fd::AsRawFd;

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// Leave the host's network for a new one whose loopback is up.
///
/// # Errors
/// The errno of unshare(2), or of the exchange with rtnetlink(7).
pub(crate) fn leave() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let kernel =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    send(kernel.as_raw_fd(), &loopback_up(), MsgFlags::empty())?;
    let mut answer = [0; 64];
    let length = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    acknowledged(answer.get(..length).unwrap_or_default())
}

/// Loopback is the first interface of every network namespace.
const LOOPBACK: i32 = 1;

/// `RTM_NEWLINK` with the one flag `IFF_UP`: a header (netlink(7)) and an `ifinfomsg` (rtnetlink(7)).
fn loopback_up() -> Vec<u8> {
    const LENGTH: u32 = 32;
    const RTM_NEWLINK: u16 = 16;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
    const IFF_UP: u32 = 1;
    let (sequence, sender) = (1_u32, 0_u32);
    let (family, kind) = ([0_u8; 2], 0_u16);
    [
        &LENGTH.to_ne_bytes()[..],
        &RTM_NEWLINK.to_ne_bytes(),
        &REQUEST_AND_ACKNOWLEDGE.to_ne_bytes(),
        &sequence.to_ne_bytes(),
        &sender.to_ne_bytes(),
        &family,
        &kind.to_ne_bytes(),
        &LOOPBACK.to_ne_bytes(),
        &IFF_UP.to_ne_bytes(),
        &IFF_UP.to_ne_bytes(),
    ]
    .concat()
}

/// Behind the header an acknowledgement has an errno, negative, or 0 for success (netlink(7), `NLMSG_ERROR`).
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    const NLMSG_ERROR: [u8; 2] = 2_u16.to_ne_bytes();
    let code = match (answer.get(4..6), answer.get(16..20).map(<[u8; 4]>::try_from)) {
        (Some(kind), Some(Ok(code))) if kind == NLMSG_ERROR => i32::from_ne_bytes(code),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel sent no acknowledgement")),
    };
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_the_kernel_is_its_errno() {
        let answer = |kind: u16, code: i32| {
            [&36_u32.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], &code.to_ne_bytes(), &[0; 16]].concat()
        };
        assert!(acknowledged(&answer(2, 0)).is_ok());
        assert_eq!(acknowledged(&answer(2, -1)).unwrap_err().raw_os_error(), Some(1));
        let no_answer = acknowledged(&answer(3, 0)).unwrap_err();
        assert_eq!(no_answer.to_string(), "the kernel sent no acknowledgement");
        assert!(acknowledged(&[]).is_err());
    }

    #[test]
    fn the_message_is_as_long_as_it_says() {
        let message = loopback_up();
        assert_eq!(message.len().to_ne_bytes()[..4], message[..4]);
    }
}
