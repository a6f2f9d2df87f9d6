//! Start an image of the store in the foreground.

use std::path::{Path, PathBuf};

use coracle_images::{Config, Image, Reference, Store};
use coracle_runtime::{Access, Bounds, Mount, Outcome, Rootfs, Runtime, SandboxSpec, Terminator};

use crate::error::Error;
use crate::event::Observer;
use crate::home::Home;
use crate::pull::is_unpacked;
use crate::stage::{CA_BUNDLE, STORE, Stage};
use crate::worker::{FindUser, User};

/// What to run.
#[derive(Debug)]
pub struct RunRequest {
    /// An image of the store.
    pub image: Reference,
    /// The runtime that launches it.
    pub runtime: Runtime,
    /// Instead of the image's entrypoint: a program, or the name of a process type.
    pub entrypoint: Option<String>,
    /// Variables, over those of the image.
    pub env: Vec<(String, String)>,
    /// Arguments, instead of the image's command.
    pub args: Vec<String>,
}

/// Run to the end.
///
/// # Errors
/// [`Error`]: the image is not there or names nothing to run, or the container could not be launched.
pub fn run(
    home: &Home,
    request: &RunRequest,
    observer: &dyn Observer,
    hold: &dyn Fn(Terminator),
) -> Result<Outcome, Error> {
    let name = request.image.to_string();
    let store = Store::open(home.store())?;
    let image = store.image(&request.image)?.ok_or_else(|| Error::NoImage(name.clone()))?;
    let argv = command_line(&image.config, request);
    if argv.is_empty() {
        return Err(Error::NothingToRun(name));
    }
    let stage = Stage::start(home, request.runtime, observer, hold)?;
    if !is_unpacked(&stage, &store, &image)? {
        return stage.finish_with(Err(Error::NotUnpacked(name)));
    }
    let layers = layer_paths(&store, &image, &stage);
    let user = image.config.config.user.clone();
    let User { uid, gid, home: home_folder } = stage.work(FindUser { layers: layers.clone(), user })?;
    let spec = SandboxSpec {
        id: "run".to_owned(),
        runtime: request.runtime,
        rootfs: Rootfs::Overlay { lower: layers, scratch: stage.folder() },
        argv,
        env: with_home(environment(&image.config, &request.env), home_folder),
        cwd: working_folder(&image.config).into(),
        uid,
        gid,
        mounts: host_files(home)
            .into_iter()
            .filter(|path| !path.starts_with("/etc/ssl"))
            .map(read_only)
            .collect(),
        files: Vec::new(),
        bounds: Bounds::default(),
        input: None,
    };
    let outcome = stage.launch(spec);
    stage.finish_with(outcome)
}

/// Where the unpacked layers of `image` are as the stage sees them, or will be ([`crate::pull::is_unpacked`]); the lowest first.
pub(crate) fn layer_paths(store: &Store, image: &Image, stage: &Stage<'_>) -> Vec<PathBuf> {
    let key = stage.ids.key();
    let path = |diff_id| {
        let path = store.layer_path(&key, diff_id)?;
        Some(Path::new(STORE).join(path.strip_prefix(store.root()).ok()?))
    };
    image.layers().iter().filter_map(|layer| path(&layer.diff_id)).collect()
}

/// The host's files for name resolution and TLS, where the stage has them.
pub(crate) fn host_files(home: &Home) -> Vec<PathBuf> {
    let is_there =
        |path: &PathBuf| path.exists() || path == Path::new(CA_BUNDLE) && home.certificates().is_some();
    ["/etc/resolv.conf", "/etc/hosts", CA_BUNDLE].map(PathBuf::from).into_iter().filter(is_there).collect()
}

fn read_only(path: PathBuf) -> Mount {
    Mount { source: path.clone(), target: path, access: Access::ReadOnly }
}

/// Entrypoint and arguments. A name without `/` given as entrypoint is a process type, as a launcher's image has
/// them below `/cnb/process`, where the image has process types at all.
fn command_line(config: &Config, request: &RunRequest) -> Vec<String> {
    let execution = &config.config;
    let has_processes = execution.entrypoint.first().is_some_and(|program| program.starts_with("/cnb/"));
    let (mut argv, own_command) = match &request.entrypoint {
        Some(name) if has_processes && !name.contains('/') => {
            (vec![format!("/cnb/process/{name}")], Vec::new())
        }
        Some(program) => (vec![program.clone()], Vec::new()),
        None => (execution.entrypoint.clone(), execution.cmd.clone()),
    };
    argv.extend(if request.args.is_empty() { own_command } else { request.args.clone() });
    argv
}

/// The image's variables, those of the request over them, and a `PATH` in any case.
pub(crate) fn environment(config: &Config, extra: &[(String, String)]) -> Vec<(String, String)> {
    let default = ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    // What no process can have (environ(7)) runtimes fail over, each in its own way.
    let can_be =
        |(name, value): &(&str, &str)| !name.is_empty() && !name.contains('\0') && !value.contains('\0');
    let own = config.config.env.iter().filter_map(|variable| variable.split_once('=')).filter(can_be);
    let given = extra.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut env: Vec<(String, String)> = Vec::new();
    for (name, value) in std::iter::once(default).chain(own).chain(given) {
        match env.iter_mut().find(|(known, _)| known == name) {
            Some(known) => value.clone_into(&mut known.1),
            None => env.push((name.to_owned(), value.to_owned())),
        }
    }
    env
}

/// `HOME` of the image's user, where nothing else says what it is.
fn with_home(mut env: Vec<(String, String)>, home: String) -> Vec<(String, String)> {
    if !env.iter().any(|(name, _)| name == "HOME") {
        env.push(("HOME".to_owned(), home));
    }
    env
}

fn working_folder(config: &Config) -> &str {
    let folder = config.config.working_dir.as_str();
    if folder.is_empty() { "/" } else { folder }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(entrypoint: Option<&str>, args: &[&str]) -> RunRequest {
        RunRequest {
            image: "demo".parse().unwrap(),
            runtime: Runtime::Youki,
            entrypoint: entrypoint.map(str::to_owned),
            env: Vec::new(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        }
    }

    fn config(entrypoint: &[&str], cmd: &[&str]) -> Config {
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let mut config = Config::default();
        config.config.entrypoint = strings(entrypoint);
        config.config.cmd = strings(cmd);
        config
    }

    #[test]
    fn arguments_replace_the_command_and_an_entrypoint_replaces_both() {
        let image = config(&["/bin/web"], &["--port", "80"]);
        let line = |entrypoint, args: &[&str]| command_line(&image, &request(entrypoint, args)).join(" ");
        assert_eq!(line(None, &[]), "/bin/web --port 80");
        assert_eq!(line(None, &["--help"]), "/bin/web --help");
        assert_eq!(line(Some("sh"), &["-c", "id"]), "sh -c id");
    }

    #[test]
    fn a_process_type_is_meant_only_where_the_image_has_some() {
        let built = config(&["/cnb/process/web"], &[]);
        assert_eq!(command_line(&built, &request(Some("worker"), &["now"])), ["/cnb/process/worker", "now"]);
        assert_eq!(command_line(&built, &request(Some("/bin/sh"), &[])), ["/bin/sh"]);
    }

    #[test]
    fn given_variables_win_and_there_is_always_a_path() {
        let mut image = config(&[], &[]);
        image.config.env = ["A=1", "PATH=/x", "=y", "B\0=z", "C=\0", "none"].map(str::to_owned).to_vec();
        let env = environment(&image, &[("A".to_owned(), "2".to_owned())]);
        let pairs: Vec<_> = env.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("PATH", "/x"), ("A", "2")]);
    }
}
