//! What a launcher tells the kernel of its network namespace: rtnetlink(7), in as few messages as it takes.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// A socket to the kernel's routing, in the network namespace in which it was opened.
pub(crate) struct Routing(OwnedFd);

impl Routing {
    /// # Errors
    /// The errno of socket(2).
    pub(crate) fn open() -> io::Result<Self> {
        let kind = (AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC);
        Ok(Self(socket(kind.0, kind.1, kind.2, SockProtocol::NetlinkRoute)?))
    }

    /// Send one message and wait until the kernel has done what it says.
    ///
    /// # Errors
    /// The errno with which the kernel refuses it.
    pub(crate) fn tell(&self, message: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), message, MsgFlags::empty())?;
        let mut answer = [0; 512];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        acknowledged(answer.get(..length).unwrap_or_default())
    }
}

/// What is done with packets to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// They go where the routes say, whatever later rules say.
    Route,
    /// They are refused: whoever sends one gets EACCES.
    Prohibit,
}

/// `RTM_NEWLINK` with the one flag `IFF_UP` for loopback, the first interface of every network namespace.
pub(crate) fn loopback_up() -> Vec<u8> {
    const LOOPBACK: i32 = 1;
    const IFF_UP: u32 = 1;
    let (family, kind) = ([0_u8; 2], 0_u16);
    let body = [
        &family[..],
        &kind.to_ne_bytes(),
        &LOOPBACK.to_ne_bytes(),
        &IFF_UP.to_ne_bytes(),
        &IFF_UP.to_ne_bytes(),
    ];
    message(libc::RTM_NEWLINK, 0, &body.concat())
}

/// `RTM_NEWRULE`: what is done with packets to `prefix`, before any route is looked at (ip-rule(8), linux/fib_rules.h).
/// Rules with lower numbers come first, and 0 is that of the namespace's own addresses.
pub(crate) fn rule(number: u32, prefix: (IpAddr, u8), rule: Rule) -> Vec<u8> {
    const FRA_DST: u16 = 1;
    const FRA_PRIORITY: u16 = 6;
    const FR_ACT_TO_TBL: u8 = 1;
    const FR_ACT_PROHIBIT: u8 = 8;
    let (family, address) = match prefix.0 {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let (table, action) = match rule {
        Rule::Route => (libc::RT_TABLE_MAIN, FR_ACT_TO_TBL),
        Rule::Prohibit => (libc::RT_TABLE_UNSPEC, FR_ACT_PROHIBIT),
    };
    // `struct fib_rule_hdr`: family, lengths of destination and source, type of service, table, two unused, action, flags.
    let header = [family as u8, prefix.1, 0, 0, table, 0, 0, action, 0, 0, 0, 0];
    let body = [&header[..], &attribute(FRA_DST, &address), &attribute(FRA_PRIORITY, &number.to_ne_bytes())];
    message(libc::RTM_NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &body.concat())
}

/// A header (netlink(7)), with the wish for an acknowledgement, and what follows it.
fn message(kind: u16, flags: libc::c_int, body: &[u8]) -> Vec<u8> {
    let flags = (flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    let length = 16 + body.len() as u32;
    let (sequence, sender) = (1_u32, 0_u32);
    [
        &length.to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &sequence.to_ne_bytes(),
        &sender.to_ne_bytes(),
        body,
    ]
    .concat()
}

/// A `struct rtattr` and its value, which is here always a multiple of four bytes long.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len() as u16;
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
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
    fn messages_are_as_long_as_they_say() {
        let prefix = |address: &str| (address.parse().unwrap(), 32);
        let messages = [
            loopback_up(),
            rule(200, prefix("169.254.0.0"), Rule::Prohibit),
            rule(200, prefix("fe80::"), Rule::Route),
        ];
        for message in messages {
            assert_eq!(message.len().to_ne_bytes()[..4], message[..4]);
        }
    }
}
