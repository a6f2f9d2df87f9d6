//! Messages between the processes of a build: JSON over UNIX sockets, descriptors beside them (unix(7)).

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::sys;

/// The longest message: a job's request holds no file content, so more than this is a fault of ours or an attack.
const MESSAGE_LIMIT: u64 = 16 << 20;

/// What the conductor asks of the stage: start a process of ours in the role `role`, with three descriptors beside
/// the message: the job's socket (becomes standard input), standard output and standard error.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spawn {
    pub(crate) role: String,
}

/// What comes back on a job's socket: from the job itself, or from the stage in its place.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply<A> {
    /// The job's answer.
    Answer(A),
    /// The stage could not start the job, and why.
    NotStarted(String),
}

/// Send `message` as one line of JSON, with `fds` attached to its first byte.
pub(crate) fn send<T: Serialize>(to: BorrowedFd<'_>, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(message)?;
    bytes.push(b'\n');
    let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let sent = sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    if sent < bytes.len() {
        UnixStream::from(to.try_clone_to_owned()?).write_all(&bytes[sent..])?;
    }
    Ok(())
}

/// Receive one [`Spawn`] and its descriptors; `None` at the end of the stream. Requests are short, and each brings descriptors,
/// which a read never goes beyond (unix(7), `SCM_RIGHTS`): so one read holds one line, also where threads send at once.
pub(crate) fn receive_spawn(from: BorrowedFd<'_>) -> io::Result<Option<(Spawn, Vec<OwnedFd>)>> {
    let mut buffer = [0u8; 4096];
    let mut space = cmsg_space!([std::os::fd::RawFd; 3]);
    let (length, fds) = {
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let message =
            recvmsg::<()>(from.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let mut fds = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                fds.extend(sys::adopt(&raw));
            }
        }
        (message.bytes, fds)
    };
    if length == 0 {
        return Ok(None);
    }
    let spawn = serde_json::from_slice(&buffer[..length])?;
    Ok(Some((spawn, fds)))
}

/// Write `message` and close the writing side.
pub(crate) fn send_last<T: Serialize>(stream: &UnixStream, message: &T) -> io::Result<()> {
    // Requests hold secrets.
    let mut bytes = Wiped::default();
    serde_json::to_writer(&mut bytes, message)?;
    let mut writer = stream;
    writer.write_all(&bytes.0)?;
    stream.shutdown(std::net::Shutdown::Write)
}

/// Write `message`, of which more come: its length, eight bytes, the lowest first, and then it.
pub(crate) fn send_sized<T: Serialize>(mut stream: &UnixStream, message: &T) -> io::Result<()> {
    let mut bytes = Wiped::default();
    serde_json::to_writer(&mut bytes, message)?;
    stream.write_all(&(bytes.0.len() as u64).to_le_bytes())?;
    stream.write_all(&bytes.0)
}

/// Read a message of [`send_sized`] and nothing of the next. `None` where the other side ended without a word.
pub(crate) fn receive_sized<T: DeserializeOwned>(mut stream: impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 8];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u64::from_le_bytes(length);
    if length > MESSAGE_LIMIT {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Zeroizing::new(vec![0; usize::try_from(length).unwrap_or(usize::MAX)]);
    stream.read_exact(&mut bytes)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

/// Bytes that are overwritten when they go, wherever they have been.
#[derive(Default)]
struct Wiped(Zeroizing<Vec<u8>>);

impl Write for Wiped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            // What grows by itself leaves a copy behind.
            let mut larger = Zeroizing::new(Vec::with_capacity((2 * needed).max(1 << 16)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Read one message, up to the end of the stream. `None` where the other side ended without a word.
pub(crate) fn receive_last<T: DeserializeOwned>(stream: impl Read) -> io::Result<Option<T>> {
    let mut bytes = Zeroizing::new(Vec::new());
    match stream.take(MESSAGE_LIMIT).read_to_end(&mut bytes) {
        // The other side ended without reading all that it was sent; what it said before counts.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        read => drop(read?),
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&bytes)?))
}

/// An error and its causes in one line: the form in which errors cross from one process to another.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The job's socket of a process that the stage has started: its standard input.
pub(crate) fn job_socket() -> io::Result<UnixStream> {
    Ok(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layered {
        text: &'static str,
        source: Option<Box<Layered>>,
    }

    #[test]
    fn requests_that_came_together_are_received_one_by_one() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let fds = [null.as_fd(); 3];
        for role in ["worker", "launcher"] {
            send(ours.as_fd(), &Spawn { role: role.to_owned() }, &fds).unwrap();
        }
        drop(ours);
        for role in ["worker", "launcher"] {
            let (spawn, fds) = receive_spawn(theirs.as_fd()).unwrap().unwrap();
            assert_eq!((spawn.role.as_str(), fds.len()), (role, 3));
        }
        assert!(receive_spawn(theirs.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_message_ends_where_it_says_and_none_is_larger_than_any_may_be() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        send_sized(&ours, &"first").unwrap();
        send_sized(&ours, &"second").unwrap();
        let receive = || receive_sized::<String>(&theirs);
        assert_eq!(receive().unwrap().as_deref(), Some("first"));
        assert_eq!(receive().unwrap().as_deref(), Some("second"));
        (&ours).write_all(&(MESSAGE_LIMIT + 1).to_le_bytes()).unwrap();
        assert_eq!(receive().unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        drop(ours);
        assert_eq!(receive().unwrap(), None);
    }

    #[test]
    fn every_cause_crosses_the_border() {
        let layer = |text, source: Option<Layered>| Layered { text, source: source.map(Box::new) };
        let error = layer("no sandbox", Some(layer("no mount", Some(layer("no right", None)))));
        assert_eq!(with_causes(&error), "no sandbox: no mount: no right");
    }
}
