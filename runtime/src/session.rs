//! The conductor's side of a stage: start it, give it jobs, end it.

use std::io::{self, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ids::IdMap;
use crate::launcher::LaunchRequest;
use crate::protocol::{self, Reply, Spawn};
use crate::root::StageSetup;
use crate::sandbox::{LaunchReport, Outcome, SandboxSpec};
use crate::stage::{self, StageReport};
use crate::userns::{self, UsernsError};

/// Why a stage or a job of it failed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Our own program could not be started again.
    #[error("could not start the stage")]
    Start(#[source] io::Error),
    /// The socket to the stage broke.
    #[error("lost the connection to the stage while {doing}")]
    Lost {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The stage ended by itself.
    #[error("the stage ended while {0}")]
    Ended(&'static str),
    /// The stage said why it cannot go on.
    #[error("{0}")]
    Stage(String),
    /// The id maps could not be written.
    #[error(transparent)]
    Userns(#[from] UsernsError),
    /// A worker or launcher ended without an answer.
    #[error("the {role} process ended without an answer; its messages are above")]
    NoAnswer {
        /// `worker` or `launcher`.
        role: &'static str,
    },
    /// The stage could not start a worker or launcher.
    #[error("could not start the {role} process: {message}")]
    NotStarted {
        /// `worker` or `launcher`.
        role: &'static str,
        /// The stage's message.
        message: String,
    },
    /// A container could not be run.
    #[error("container {id} could not be run: {message}")]
    Launch {
        /// The container's name.
        id: String,
        /// The launcher's message.
        message: String,
    },
}

/// Where a job's output goes: the writing ends of pipes, or files.
#[derive(Debug)]
pub struct JobOutput {
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// A running stage. Dropping it ends every process of the build. Threads may give it jobs at once.
#[derive(Debug)]
pub struct Session {
    control: UnixStream,
    child: Child,
    ids: IdMap,
}

/// A handle with which another thread (a signal handler's) can end at once what lives as long as a socket is open: a session.
#[derive(Debug)]
pub struct Terminator(UnixStream);

impl Terminator {
    /// For something else that ends with this socket.
    ///
    /// # Errors
    /// Where no more descriptors can be had.
    pub fn of(socket: &UnixStream) -> io::Result<Self> {
        Ok(Self(socket.try_clone()?))
    }

    /// Close the socket. Of a session it is the control socket: the stage ends, and everything in its PID namespace with it.
    pub fn end(&self) {
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

/// A handle with which another thread ends one container.
#[derive(Debug)]
pub struct Ender(UnixStream);

impl Ender {
    /// Have every process of the container asked to end, and ended if they do not; `why` becomes the outcome. A container that has
    /// ended meanwhile stays with its own.
    pub fn end(&self, why: Outcome) {
        // One call: what the launcher reads at once it hands on at once.
        let _ = serde_json::to_vec(&why).map(|order| (&self.0).write_all(&order));
    }
}

impl Session {
    /// Start a stage whose ids are mapped by `ids` and whose root holds what `setup` lists.
    ///
    /// # Errors
    /// [`SessionError`]: no user namespaces, no subordinate ids, or a step of building the root failed.
    pub fn start(ids: IdMap, setup: &StageSetup) -> Result<Session, SessionError> {
        let (control, theirs) = UnixStream::pair().map_err(SessionError::Start)?;
        let child = Command::new("/proc/self/exe")
            .arg0("coracle-stage")
            // What the user's environment says is nobody's business in there.
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(SessionError::Start)?;
        let mut session = Session { control, child, ids };
        session.set_up(setup)?;
        Ok(session)
    }

    fn set_up(&mut self, setup: &StageSetup) -> Result<(), SessionError> {
        let lost = |doing| move |source| SessionError::Lost { doing, source };
        let control = self.control.try_clone().map_err(lost("setting it up"))?;
        let mut reports = BufReader::new(control);
        loop {
            match stage::next_report(&mut reports).map_err(lost("setting it up"))? {
                None => return Err(SessionError::Ended("it was set up")),
                Some(StageReport::Failed(message)) => return Err(SessionError::Stage(message)),
                Some(StageReport::Ready) => return Ok(()),
                Some(StageReport::NeedMaps) => {
                    userns::write_maps(self.child.id(), &self.ids)?;
                    let mut line = serde_json::to_vec(setup).map_err(|e| lost("setting it up")(e.into()))?;
                    line.push(b'\n');
                    (&self.control).write_all(&line).map_err(lost("setting it up"))?;
                }
            }
        }
    }

    /// A handle that ends this session from another thread.
    ///
    /// # Errors
    /// Where no more descriptors can be had.
    pub fn terminator(&self) -> io::Result<Terminator> {
        Terminator::of(&self.control)
    }

    /// Run one container to its end. `hold` gets the handle that ends it before.
    ///
    /// # Errors
    /// [`SessionError::Launch`] where it could not be started, with the runtime's reason.
    pub fn launch(
        &self,
        spec: SandboxSpec,
        output: JobOutput,
        hold: impl FnOnce(Ender),
    ) -> Result<Outcome, SessionError> {
        let lost = |source| SessionError::Lost { doing: "running a job", source };
        let id = spec.id.clone();
        let request = LaunchRequest { ids: self.ids, spec };
        let socket = self.start_job("launcher", output)?;
        sent(protocol::send_sized(&socket, &request)).map_err(lost)?;
        hold(Ender(socket.try_clone().map_err(lost)?));
        let report: LaunchReport = answer("launcher", &socket)?;
        report.map_err(|message| SessionError::Launch { id, message })
    }

    /// Have a worker answer `request`; what it understands is the business of whoever gave
    /// [`take_over`](crate::take_over) the worker's function.
    ///
    /// # Errors
    /// [`SessionError::NoAnswer`] where the worker ended without one.
    pub fn work<Q: Serialize, A: DeserializeOwned>(
        &self,
        request: &Q,
        output: JobOutput,
    ) -> Result<A, SessionError> {
        self.job("worker", request, output)
    }

    fn job<Q: Serialize, A: DeserializeOwned>(
        &self,
        role: &'static str,
        request: &Q,
        output: JobOutput,
    ) -> Result<A, SessionError> {
        let socket = self.start_job(role, output)?;
        sent(protocol::send_last(&socket, request))
            .map_err(|source| SessionError::Lost { doing: "running a job", source })?;
        answer(role, &socket)
    }

    fn start_job(&self, role: &'static str, output: JobOutput) -> Result<UnixStream, SessionError> {
        let lost = |source| SessionError::Lost { doing: "running a job", source };
        let (ours, theirs) = UnixStream::pair().map_err(lost)?;
        let fds = [theirs.as_fd(), output.stdout.as_fd(), output.stderr.as_fd()];
        protocol::send(self.control.as_fd(), &Spawn { role: role.to_owned() }, &fds).map_err(lost)?;
        // Our copies must go, or the readers of the other ends would wait for us.
        drop((theirs, output));
        Ok(ours)
    }
}

/// A job that could not be started has closed its end already, and its reply says why.
fn sent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(source) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn answer<A: DeserializeOwned>(role: &'static str, socket: &UnixStream) -> Result<A, SessionError> {
    let lost = |source| SessionError::Lost { doing: "running a job", source };
    match protocol::receive_last(socket).map_err(lost)? {
        Some(Reply::Answer(answer)) => Ok(answer),
        Some(Reply::NotStarted(message)) => Err(SessionError::NotStarted { role, message }),
        None => Err(SessionError::NoAnswer { role }),
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::with_causes;

    /// A session whose stage is this end of its control socket.
    fn session() -> (Session, UnixStream) {
        let (control, theirs) = UnixStream::pair().unwrap();
        let child = Command::new("true").spawn().unwrap();
        let range = crate::ids::SubordinateRange { start: 1, count: crate::ids::GUEST_IDS };
        (Session { control, child, ids: IdMap { uids: range, gids: range } }, theirs)
    }

    fn output() -> JobOutput {
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        JobOutput { stdout: null(), stderr: null() }
    }

    #[test]
    fn a_stage_that_ends_is_told_with_what_was_being_done() {
        let (mut session, theirs) = session();
        // Also where a process that another test forks holds a copy.
        theirs.shutdown(std::net::Shutdown::Both).unwrap();
        let setup = StageSetup { binds: Vec::new(), host_programs: false, worker_env: Vec::new() };
        assert_eq!(session.set_up(&setup).unwrap_err().to_string(), "the stage ended while it was set up");
    }

    #[test]
    fn a_stage_that_cannot_be_reached_is_told_with_the_cause() {
        let (session, theirs) = session();
        theirs.shutdown(std::net::Shutdown::Both).unwrap();
        let lost = session.work::<(), ()>(&(), output()).unwrap_err();
        let expected = "lost the connection to the stage while running a job: Broken pipe (os error 32)";
        assert_eq!(with_causes(&lost), expected);
    }
}
