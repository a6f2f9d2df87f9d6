//! A session with our folders bound: `/store`, `/work`, and what the operation adds.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Instant;

use coracle_images::unpack::Allowed;
use coracle_lifecycle::phases::{Took, took};
use coracle_runtime::{
    Access, Bind, IdMap, JobOutput, Outcome, Runtime, SandboxSpec, Session, StageSetup, TUN, Terminator,
};

use crate::build::folders::CACHE;
use crate::error::Error;
use crate::event::{Event, Observer, Stream, Work};
use crate::home::{Home, WorkFolder};
use crate::watch::{self, Watched};
use crate::worker::{Delete, Deleted, Job, Request, Weigh};

/// Where the store is in the stage's root.
pub(crate) const STORE: &str = "/store";
/// Where the work folders are in the stage's root.
pub(crate) const WORK: &str = "/work";

/// Where every TLS client of ours looks for certificate authorities.
pub(crate) const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How much an operation deletes while its user waits: entries, and MiB of files. What is more, the sweeper deletes.
const AT_MOST: u64 = 1000;

/// How many buildpacks of one phase can have told how long they took: more than an order has.
const BUILDPACKS: usize = 1000;

/// The longest line of a program's output that is handed on whole.
const LINE_LIMIT: u64 = 64 << 10;

/// A running stage and the folder that its operation works in.
pub(crate) struct Stage<'a> {
    session: Session,
    home: &'a Home,
    folder: WorkFolder,
    finished: bool,
    /// How much is deleted at its end; all of it where there is no number.
    pub(crate) at_most: Option<u64>,
    pub(crate) ids: IdMap,
    observer: &'a dyn Observer,
    started: Mutex<Started>,
    /// Where what guests write lies, on the host.
    disks: Vec<PathBuf>,
}

/// How many processes and mounts an operation took: what isolation costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Started {
    containers: usize,
    mounts: usize,
    workers: usize,
}

impl fmt::Display for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { containers, mounts, workers } = self;
        write!(f, "containers {containers}, with mounts {mounts}; workers {workers}")
    }
}

impl<'a> Stage<'a> {
    /// Start one. `hold` gets the handle that ends it, for a signal handler.
    pub(crate) fn start(
        home: &'a Home,
        runtime: Runtime,
        observer: &'a dyn Observer,
        hold: &dyn Fn(Terminator),
    ) -> Result<Self, Error> {
        Self::start_with(home, runtime, Vec::new(), observer, hold)
    }

    /// Start one that sees `extra` as well.
    pub(crate) fn start_with(
        home: &'a Home,
        runtime: Runtime,
        extra: Vec<Bind>,
        observer: &'a dyn Observer,
        hold: &dyn Fn(Terminator),
    ) -> Result<Self, Error> {
        let began = Instant::now();
        let ids = coracle_runtime::id_map_of_user().map_err(coracle_runtime::SessionError::from)?;
        let bind = |source: PathBuf, target: &str| {
            let source = source.canonicalize().map_err(Error::folder("use", &source))?;
            Ok::<_, Error>(Bind { source, target: target.into(), access: Access::ReadWrite })
        };
        let mut binds = vec![bind(home.store(), STORE)?, bind(home.work(), WORK)?];
        binds.extend(extra);
        binds.extend(home.certificates().map(|path| Bind {
            source: path.to_owned(),
            target: CA_BUNDLE.into(),
            access: Access::ReadOnly,
        }));
        if let Some(bind) = binds.iter().find(|bind| bind.source.to_str().is_none()) {
            return Err(Error::NotText(bind.source.clone()));
        }
        // The launcher starts pasta from there.
        let way_out = binds.iter().any(|bind| bind.target == Path::new(TUN));
        let host_programs = way_out || runtime.program().is_some();
        let setup = StageSetup { binds, host_programs, worker_env: home.proxies().to_vec() };
        let folder = home.new_work_folder()?;
        let session = Session::start(ids, &setup).inspect_err(|_| {
            // Nobody has written into it.
            if std::fs::remove_dir(&folder.path).is_ok() {
                folder.forget();
            }
        })?;
        hold(session.terminator().map_err(Error::Pipe)?);
        let started = Mutex::default();
        let at_most = Some(AT_MOST);
        let on_disk = |bind: &&Bind| [WORK, CACHE].map(Path::new).contains(&bind.target.as_path());
        let mut disks: Vec<PathBuf> =
            setup.binds.iter().filter(on_disk).map(|bind| bind.source.clone()).collect();
        disks.dedup_by_key(|path| std::fs::metadata(path).map_or(0, |about| about.dev()));
        let stage = Self { session, home, folder, finished: false, at_most, ids, observer, started, disks };
        stage.took(Work::Stage, "start", began);
        Ok(stage)
    }

    /// What the user allows layers.
    pub(crate) fn allowed(&self) -> Allowed {
        self.home.allowed()
    }

    /// The work folder's path in the stage's root.
    pub(crate) fn folder(&self) -> PathBuf {
        Path::new(WORK).join(self.folder.path.file_name().unwrap_or_default())
    }

    /// The work folder's path on the host.
    pub(crate) fn folder_on_host(&self) -> &Path {
        &self.folder.path
    }

    /// What has been started so far.
    pub(crate) fn started(&self) -> Started {
        *self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, more: Started) {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.containers += more.containers;
        started.mounts += more.mounts;
        started.workers += more.workers;
    }

    /// Have a worker do something. Its standard output is a stream of events. Several may be at work at once.
    pub(crate) fn work<J: Job>(&self, job: J) -> Result<J::Answer, Error> {
        self.work_and_hear(job, &|_| ())
    }

    /// As [`Stage::work`], and let `heard` know of each event too.
    pub(crate) fn work_and_hear<J: Job>(
        &self,
        job: J,
        heard: &(dyn Fn(&Event) + Sync),
    ) -> Result<J::Answer, Error> {
        self.count(Started { workers: 1, ..Started::default() });
        let (request, began): (Request, Instant) = (job.into(), Instant::now());
        let told = |line: String| {
            let event = serde_json::from_str(&line).unwrap_or_else(|_| line_of(Stream::Out, None, line));
            heard(&event);
            self.observer.event(event);
        };
        let answer: Result<J::Answer, String> = with_output(
            |output| Ok(self.session.work(&request, output)?),
            |out| lines(out, told),
            |err| lines(err, |line| self.observer.event(line_of(Stream::Err, None, line))),
        )?;
        self.took(Work::Job, request.name(), began);
        answer.map_err(Error::Worker)
    }

    /// Run a phase's container. Its output becomes [`Event::Line`]s.
    pub(crate) fn launch_phase(
        &self,
        spec: SandboxSpec,
        phase: &str,
        watched: &Watched,
    ) -> Result<Outcome, Error> {
        let mounts = spec.mounts.len() + spec.files.len();
        self.count(Started { containers: 1, mounts, workers: 0 });
        // Programs of buildpacks can write the same, so there is an end to it, and nothing but a picture is made of it.
        let believed = if spec.argv.iter().any(|word| word == "-times") { BUILDPACKS } else { 0 };
        let believed = AtomicUsize::new(believed);
        let one_less = || believed.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        let event = |stream, line: String| match took(&line).filter(|_| one_less()) {
            Some(Took { detect, buildpack, took }) => {
                let work = if detect { Work::Detect } else { Work::Buildpack };
                Event::Took { work, name: buildpack.to_owned(), took, bytes: None }
            }
            None => line_of(stream, Some(phase), line),
        };
        let (word, words) = mpsc::channel();
        let forward = |from, stream, word| {
            lines(Heard { from, word }, |line| self.observer.event(event(stream, line)));
        };
        let before = self.weighed_before(watched);
        let began = Instant::now();
        let (session, disks) = (&self.session, self.disks.as_slice());
        let outcome = std::thread::scope(|scope| {
            // Until neither output is open any more.
            let watch = |ender| {
                let tell = |text| self.observer.event(Event::Notice { text });
                if !watched.is_nothing() {
                    scope.spawn(move || watch::watch(watched, session, disks, before, &words, &ender, &tell));
                }
            };
            let (for_out, for_err) = (word.clone(), word);
            with_output(
                |output| Ok(session.launch(spec, output, watch)?),
                |out| forward(out, Stream::Out, for_out),
                |err| forward(err, Stream::Err, for_err),
            )
        })?;
        self.took(Work::Container, phase, began);
        Ok(outcome)
    }

    /// Bytes in the folders that count by what they grow, before anything of the container runs.
    fn weighed_before(&self, watched: &Watched) -> Result<u64, String> {
        let growing = watched.disk.iter().flat_map(|disk| disk.growing.clone()).collect::<Vec<_>>();
        if growing.is_empty() {
            return Ok(0);
        }
        let job = Weigh { folders: growing, limit: u64::MAX, unnamed: false };
        self.work(job).map_err(|error| coracle_runtime::with_causes(&error))
    }

    fn took(&self, work: Work, name: &str, began: Instant) {
        let (name, took) = (name.to_owned(), began.elapsed());
        self.observer.event(Event::Took { work, name, took, bytes: None });
    }

    /// Run a container. Its output becomes [`Event::Output`], byte for byte.
    pub(crate) fn launch(&self, spec: SandboxSpec) -> Result<Outcome, Error> {
        let forward = |mut from: File, stream| {
            let mut bytes = vec![0; 1 << 16];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                self.observer.event(Event::Output { stream, bytes: bytes[..count].to_vec() });
            }
        };
        let (name, began) = (spec.id.clone(), Instant::now());
        let outcome = with_output(
            |output| Ok(self.session.launch(spec, output, drop)?),
            |out| forward(out, Stream::Out),
            |err| forward(err, Stream::Err),
        )?;
        self.took(Work::Container, &name, began);
        Ok(outcome)
    }

    /// [`Stage::finish`] whatever came of the operation; what failed first is what the user needs to hear.
    pub(crate) fn finish_with<T>(self, result: Result<T, Error>) -> Result<T, Error> {
        let finished = self.finish();
        let value = result?;
        finished.map(|()| value)
    }

    /// Delete the work folder, and those of operations that were killed, and end the stage.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        self.finished = true;
        let (home, deleted) = (self.home, self.delete());
        // Only then is the work folder's lock free, and the sweeper finds the folder.
        drop(self);
        if deleted? {
            home.leave_to_sweeper();
        }
        Ok(())
    }

    /// Says whether something is left for the sweeper.
    fn delete(&self) -> Result<bool, Error> {
        let abandoned = self.home.abandoned();
        let in_stage =
            |folder: &WorkFolder| Path::new(WORK).join(folder.path.file_name().unwrap_or_default());
        let all = || std::iter::once(&self.folder).chain(&abandoned);
        let folders = all().map(in_stage).collect();
        let Deleted { folders, store_is_clean } = self.work(Delete { folders, at_most: self.at_most })?;
        let mut results = all().zip(folders).map(|(folder, deleted)| {
            if deleted == Ok(true) {
                folder.forget();
            }
            deleted
        });
        let own = results.next().unwrap_or(Ok(true));
        let mut is_clean = store_is_clean && own != Ok(false);
        for deleted in results {
            is_clean &= deleted != Ok(false);
            // What another operation left does not make this one fail.
            deleted.err().into_iter().for_each(|text| self.observer.event(Event::Notice { text }));
        }
        own.map_err(Error::Worker)?;
        Ok(!is_clean && self.at_most.is_some())
    }
}

impl Drop for Stage<'_> {
    /// What failed half-way leaves nothing either. What cannot be deleted now, the next operation tries again.
    fn drop(&mut self) {
        if !self.finished && self.delete().is_ok_and(|is_left| is_left) {
            self.home.leave_to_sweeper();
        }
    }
}

/// Delete what operations left that were ended.
///
/// # Errors
/// Where no stage can be started, or something cannot be deleted.
pub fn sweep(home: &Home) -> Result<(), Error> {
    struct Silent;
    impl Observer for Silent {
        fn event(&self, _: Event) {}
    }
    let mut stage = Stage::start(home, Runtime::Youki, &Silent, &|_| ())?;
    stage.at_most = None;
    stage.finish()
}

/// Run `job` with two pipes, reading both until everybody who could write is gone.
pub(crate) fn with_output<T>(
    job: impl FnOnce(JobOutput) -> Result<T, Error>,
    on_stdout: impl FnOnce(File) + Send,
    on_stderr: impl FnOnce(File) + Send,
) -> Result<T, Error> {
    let pipe = || std::io::pipe().map_err(Error::Pipe);
    let ((out, stdout), (err, stderr)) = (pipe()?, pipe()?);
    std::thread::scope(|scope| {
        scope.spawn(|| on_stdout(File::from(OwnedFd::from(out))));
        scope.spawn(|| on_stderr(File::from(OwnedFd::from(err))));
        job(JobOutput { stdout: stdout.into(), stderr: stderr.into() })
    })
}

/// An output that tells of every piece that comes, lines or not.
struct Heard {
    from: File,
    word: mpsc::Sender<()>,
}

impl Read for Heard {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.from.read(buffer)?;
        // Whoever watches may have had enough.
        let _ = self.word.send(());
        Ok(count)
    }
}

/// Each line without its line feed. One over the limit is handed on in pieces, so that a program cannot make us hold
/// it all.
pub(crate) fn lines(from: impl Read, each: impl Fn(String)) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while reader.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line);
        each(text.trim_end_matches(['\n', '\r']).to_owned());
        line.clear();
    }
}

pub(crate) fn line_of(stream: Stream, phase: Option<&str>, text: String) -> Event {
    Event::Line { stream, phase: phase.map(str::to_owned), text }
}
