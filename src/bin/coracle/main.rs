//! The terminal: reads the command line, the environment and settings, calls the library, prints.

mod args;
mod auth;
mod config;
mod failure;
mod report;
mod save;
mod settings;
mod timings;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};

use clap::Parser;
use coracle::{
    Allowed, BuildRequest, BuilderRequest, Home, ImportRequest, Observer, PruneRequest, PullRequest,
    RebaseRequest, RunRequest, Store, Terminator, Timings, Trust,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::args::config::TrustCommand;
use crate::args::{Args, Build, Command, builder};
use crate::failure::Failure;
use crate::report::{Quiet, Terminal};
use crate::settings::Given;

fn main() -> ExitCode {
    if let Some(code) = coracle::take_over(failure::print_phase) {
        return exit_code(code);
    }
    // Before anything is started that would have it.
    let given = match coracle::take_variable(settings::AUTH_VARIABLE) {
        Ok(given) => given,
        Err(error) => return failure::print(&Failure::Environment(error)),
    };
    let args = Args::parse_from(timings::joined(std::env::args_os()));
    let signal = AtomicI32::new(0);
    // The signal handler's thread lives as long as the process does, and so does what it holds.
    let held: &'static Held = Box::leak(Box::new(Held { signal, terminator: Mutex::new(None) }));
    if let Err(error) = held.listen() {
        return failure::print(&Failure::Signals(error));
    }
    let result = carry_out(&args, given.as_ref(), held);
    match (held.signal.load(Ordering::SeqCst), result) {
        (0, Ok(code)) => exit_code(code),
        (0, Err(failure)) => failure::print(&failure),
        (signal, result) => {
            // Every process is gone; what they wrote is not. What cannot be deleted now, the next operation tries again.
            let swept = home(&args).is_ok_and(|home| coracle::sweep(&home).is_ok());
            failure::interrupted(signal, swept, result.err().as_ref())
        }
    }
}

fn home(args: &Args) -> Result<Home, Failure> {
    let home = Home::open(settings::home(args.home.clone())?)?;
    let home = home.allowing(Allowed { layer: args.max_layer_size, window: args.max_zstd_window });
    Ok(home.with_certificates(settings::certificates()?).with_proxies(settings::proxies()))
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// What a signal needs to end an operation: the stage's control socket.
struct Held {
    signal: AtomicI32,
    terminator: Mutex<Option<Terminator>>,
}

impl Held {
    /// End the operation at the first signal; the stage takes every process with it, and the operation then fails
    /// with its connection lost, which `main` reports as an interruption.
    fn listen(&'static self) -> std::io::Result<()> {
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                if self.signal.swap(signal, Ordering::SeqCst) != 0 {
                    // Whoever asks twice does not want to wait for files to be deleted; the stage ends with us.
                    std::process::exit(128 + signal);
                }
                if let Ok(terminator) = self.terminator.lock() {
                    terminator.iter().for_each(Terminator::end);
                }
            }
        })?;
        Ok(())
    }

    fn hold(&self, terminator: Terminator) {
        if let Ok(mut held) = self.terminator.lock() {
            // A signal that came before there was anything to end ends this at once.
            if self.signal.load(Ordering::SeqCst) != 0 {
                terminator.end();
            }
            *held = Some(terminator);
        }
    }
}

/// The operation, with the clock beside it where that was asked for.
fn carry_out(args: &Args, given: Option<&Given>, held: &Held) -> Result<i32, Failure> {
    let (terminal, quiet) = (Terminal::new(), Quiet::default());
    // The program that `run` starts speaks for itself.
    let is_quiet = args.quiet && !matches!(args.command, Command::Run(_));
    let observer: &dyn Observer = if is_quiet { &quiet } else { &terminal };
    let Some(form) = &args.timings else { return operate(args, given, held, observer, &quiet) };
    let (output, timings) = (timings::Output::open(form)?, Timings::new(observer));
    let result = operate(args, given, held, &timings, &quiet);
    let written = output.write(&timings.trace(&args.command.title()));
    // What became of the operation comes first.
    result.and_then(|code| written.map(|()| code))
}

fn operate(
    args: &Args,
    given: Option<&Given>,
    held: &Held,
    observer: &dyn Observer,
    quiet: &Quiet,
) -> Result<i32, Failure> {
    // Made where it is missing, for those who keep something in it.
    let home = || home(args);
    let hold = |terminator| held.hold(terminator);
    let why = |error: &coracle::Error| {
        if matches!(error, coracle::Error::Phase { .. }) {
            quiet.tell();
        }
    };
    match &args.command {
        Command::Build(build) => {
            let (request, loader) = (build_request(build, given)?, save::loader(build)?);
            let home = home()?;
            let built = coracle::build(&home, &request, observer, &hold).inspect_err(why)?;
            if let Some(loader) = loader {
                coracle::load(&home, &built.names, &loader, observer, &hold)?;
            }
            for name in &built.names {
                report::result(&format!("{}@{}", name, built.digest));
            }
            Ok(0)
        }
        Command::Pull(pull) => {
            let request = PullRequest {
                reference: pull.image.clone(),
                insecure: pull.access.insecure_registry.clone(),
                auth: settings::keychain(&pull.access, given)?,
            };
            let pulled = coracle::pull(&home()?, &request, observer, &hold)?;
            report::result(&format!("{}", pulled.digest));
            Ok(0)
        }
        Command::Run(run) => {
            let request = RunRequest {
                image: run.image.clone(),
                runtime: run.runtime.into(),
                entrypoint: run.entrypoint.clone(),
                env: settings::shown_variables(&run.env)?,
                args: run.args.clone(),
            };
            Ok(coracle::run(&home()?, &request, observer, &hold)?.code())
        }
        Command::Import(import) => {
            settings::config()?.refuse_as_output(&import.image)?;
            let request = ImportRequest {
                archive: import.archive.clone(),
                reference: import.image.clone(),
                env: settings::shown_variables(&import.env)?,
                labels: import.label.clone(),
                user: import.user.clone(),
                working_dir: import.workdir.clone(),
            };
            let digest = coracle::import(&home()?, &request, observer, &hold)?;
            report::result(digest.as_str());
            Ok(0)
        }
        Command::Rebase(rebase) => {
            settings::config()?.refuse_as_output(&rebase.image)?;
            let request = RebaseRequest {
                image: rebase.image.clone(),
                run_image: rebase.run_image.clone(),
                publish: rebase.publish,
                force: rebase.force,
                pull_policy: rebase.pull_policy.into(),
                runtime: rebase.runtime.into(),
                insecure: rebase.access.insecure_registry.clone(),
                auth: settings::keychain(&rebase.access, given)?,
            };
            let digest = coracle::rebase(&home()?, &request, observer, &hold).inspect_err(why)?;
            report::result(digest.as_str());
            Ok(0)
        }
        Command::Builder(args::Builder { command: builder::Command::Create(create) }) => {
            let request = BuilderRequest {
                reference: create.name.clone(),
                config: create.config.clone(),
                publish: create.publish,
                insecure: create.access.insecure_registry.clone(),
                auth: settings::keychain(&create.access, given)?,
            };
            let created = coracle::create_builder(&home()?, &request, observer, &hold)?;
            report::result(created.digest.as_str());
            Ok(0)
        }
        Command::Builder(args::Builder { command: builder::Command::Suggest }) => {
            config::suggest()?;
            Ok(0)
        }
        Command::Auth(args::Auth { command: args::auth::Command::Login(typed) }) => {
            let gone = || held.signal.load(Ordering::SeqCst) != 0;
            auth::login(typed, given, &home, observer, &hold, &gone)?;
            Ok(0)
        }
        Command::Auth(args::Auth { command: args::auth::Command::Logout(typed) }) => {
            auth::logout(typed, given, observer)?;
            Ok(0)
        }
        Command::Auth(args::Auth { command: args::auth::Command::List { place } }) => {
            auth::list(place, given, observer)?;
            Ok(0)
        }
        Command::Config(args::Config { command: args::config::Command::DefaultBuilder(typed) }) => {
            config::default_builder(typed)?;
            Ok(0)
        }
        Command::Config(args::Config { command: args::config::Command::LifecycleArchives(typed) }) => {
            config::lifecycle_archives(typed)?;
            Ok(0)
        }
        Command::Config(args::Config { command: args::config::Command::LifecycleImage(typed) }) => {
            config::lifecycle_image(typed)?;
            Ok(0)
        }
        Command::Config(args::Config { command: args::config::Command::TrustedBuilders(trusted) }) => {
            config::trusted_builders(trusted.command.as_ref().unwrap_or(&TrustCommand::List))?;
            Ok(0)
        }
        Command::TrustBuilder(name) => {
            config::trusted_builders(&TrustCommand::Add(name.clone()))?;
            Ok(0)
        }
        Command::UntrustBuilder(name) => {
            config::trusted_builders(&TrustCommand::Remove(name.clone()))?;
            Ok(0)
        }
        // Only with flags before it: otherwise `take_over` has seen the word.
        Command::Lifecycle(lifecycle) => {
            let words: Vec<_> = std::iter::once("lifecycle".into()).chain(lifecycle.words.clone()).collect();
            Ok(coracle::play_phase(&words, failure::print_phase).unwrap_or(1))
        }
        Command::Prune(typed) => {
            let pruned = coracle::prune(&home()?, &prune_request(typed), observer, &hold)?;
            report::pruned(&pruned, typed.dry_run);
            Ok(0)
        }
        Command::Save(typed) => {
            save::save(&home()?, typed, &|| held.signal.load(Ordering::SeqCst) != 0)?;
            Ok(0)
        }
        Command::Images => {
            let store = Store::open(home()?.store()).map_err(coracle::Error::from)?;
            for (reference, descriptor) in store.images().map_err(coracle::Error::from)? {
                report::result(&format!("{reference} {}", descriptor.digest));
            }
            Ok(0)
        }
    }
}

fn prune_request(typed: &args::Prune) -> PruneRequest {
    PruneRequest { all: typed.all, dry_run: typed.dry_run, older_than: typed.older_than }
}

fn build_request(build: &Build, given: Option<&Given>) -> Result<BuildRequest, Failure> {
    let config = settings::config()?;
    let written = std::iter::once(&build.image).chain(&build.tag).chain(&build.cache_image);
    written.into_iter().try_for_each(|name| config.refuse_as_output(name))?;
    let builder = build.builder.as_ref().or(config.default_builder.as_ref()).ok_or(Failure::NoBuilder)?;
    let trust =
        Trust::decide(builder, build.trust_builder, &config.trusted_builders, &settings::policies()?)?;
    Ok(BuildRequest {
        image: build.image.clone(),
        tags: build.tag.clone(),
        path: build.path.clone(),
        builder: builder.clone(),
        trust,
        run_image: build.run_image.clone(),
        buildpacks: build.buildpack.clone(),
        system_buildpacks: !build.disable_system_buildpacks,
        exec_env: build.exec_env.clone(),
        env: settings::variables(&build.brought.env_file, &build.env)?,
        brought: settings::brought(&build.brought)?,
        process_type: build.default_process.clone(),
        publish: build.publish,
        cache_dir: build.cache_dir.clone(),
        cache_image: build.cache_image.clone(),
        clear_cache: build.clear_cache,
        compression: build.compression,
        restore: build.restore.into(),
        pull_policy: if build.offline { coracle::PullPolicy::Never } else { build.pull_policy.into() },
        runtime: build.runtime.into(),
        insecure: build.access.insecure_registry.clone(),
        auth: settings::keychain(&build.access, given)?,
        build_layers: build.build_layers.into(),
        shared_layers: build.shared_layer.clone(),
        network: build.network.into(),
        time: build.timeout,
        idle: build.idle_timeout,
        disk: build.max_disk,
        lifecycle: build.lifecycle.clone(),
        lifecycle_image: config.lifecycle_image.unwrap_or_default(),
        lifecycle_archives: config.lifecycle_archives.unwrap_or_default(),
        lifecycle_digests: config.lifecycle_digests,
        native_phases: build.native_phase.clone(),
        verbose: build.access.verbose,
    })
}
