//! Folders and files of the host that programs of buildpacks see: what may be shown, and where. The rules are pure
//! (docs/decisions/0020-secrets-and-volumes-of-builds.md).

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use coracle_runtime::{Access, Bind, Mount};

use super::folders::guest;

/// A folder or file of the host in the containers of detect and build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// On the host; without links, once it is checked.
    pub(super) source: PathBuf,
    /// In containers.
    pub(super) target: PathBuf,
    pub(super) writable: bool,
}

/// What lies where on the host, as far as it decides what may be shown.
#[derive(Debug, Clone)]
pub(super) struct Surroundings<'a> {
    /// The user's home.
    pub(super) home: Option<&'a Path>,
    /// The application.
    pub(super) source: &'a Path,
    /// Folders of ours.
    pub(super) own: &'a [PathBuf],
    /// What secrets of this build were read from.
    pub(super) secrets: &'a [PathBuf],
    /// Whatever has another file system mounted on it.
    pub(super) mounted: &'a [PathBuf],
    /// Whether the user insists on what is sensitive.
    pub(super) forced: bool,
}

/// Why a volume is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VolumeError {
    /// Not as it must be typed.
    #[error("--volume {0:?} cannot be read; write HOST:CONTAINER, HOST:CONTAINER:ro or HOST:CONTAINER:rw")]
    Typed(String),
    /// An option that means something else elsewhere.
    #[error("--volume {text:?} asks for `{option}`, which is not to be had; there are ro and rw")]
    Option {
        /// As typed.
        text: String,
        /// What it asks for.
        option: String,
    },
    /// It is not there, or cannot be mounted.
    #[error("--volume {} cannot be used: {why}", path.display())]
    Source {
        /// On the host.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A place of the build's own.
    #[error("--volume cannot be mounted on {}: {} is the build's own; choose another folder, such as /volumes/NAME", target.display(), own.display())]
    Target {
        /// In the container.
        target: PathBuf,
        /// What is there.
        own: PathBuf,
    },
    /// Two volumes at one place.
    #[error("two volumes cannot be mounted on {} and {}: one is in the other", .0.display(), .1.display())]
    Nested(PathBuf, PathBuf),
    /// What programs of strangers should not see.
    #[error("--volume {} would show {} to programs of buildpacks; name a folder inside it, or insist with --volume-force", path.display(), sensitive.display())]
    Sensitive {
        /// On the host.
        path: PathBuf,
        /// What of it is sensitive.
        sensitive: PathBuf,
    },
    /// What nobody writes but the user.
    #[error("--volume {} would let buildpacks write to {}, {what}; mount it without rw", path.display(), ours.display())]
    Written {
        /// On the host.
        path: PathBuf,
        /// What is there.
        ours: PathBuf,
        /// What that is.
        what: &'static str,
    },
}

impl FromStr for Volume {
    type Err = VolumeError;

    /// `HOST:CONTAINER[:ro|rw]`; read-only unless it says otherwise.
    fn from_str(text: &str) -> Result<Self, VolumeError> {
        let typed = || VolumeError::Typed(text.to_owned());
        let mut parts = text.split(':');
        let (Some(source), Some(target)) = (parts.next(), parts.next()) else { return Err(typed()) };
        let options = parts.next();
        if source.is_empty() || target.is_empty() || parts.next().is_some() {
            return Err(typed());
        }
        let mut writable = false;
        for option in options.into_iter().flat_map(|options| options.split(',')) {
            match option {
                "ro" => writable = false,
                "rw" => writable = true,
                _ => return Err(VolumeError::Option { text: text.to_owned(), option: option.to_owned() }),
            }
        }
        Ok(Self { source: source.into(), target: target.into(), writable })
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.writable { "rw" } else { "ro" };
        write!(f, "{}:{}:{access}", self.source.display(), self.target.display())
    }
}

/// Places of a container that are no volume's: those of the specification, of every container, and ours.
const OWN: [&str; 15] = [
    "/cnb",
    guest::LAYERS,
    guest::WORKSPACE,
    "/platform",
    "/proc",
    "/dev",
    "/sys",
    "/etc",
    "/run",
    "/.coracle",
    guest::CONTROL,
    guest::OUT,
    guest::CACHE,
    guest::LAYOUT,
    guest::PLANS,
];

/// What of the host is sensitive whoever the user is, and what below a home.
const SENSITIVE: [&str; 10] =
    ["/etc", "/proc", "/sys", "/dev", "/run", "/var/run", "/var/lib", "/boot", "/root", "/var/spool"];
const BELOW_HOME: [&str; 26] = [
    ".ssh",
    ".gnupg",
    ".docker",
    ".dockercfg",
    ".config",
    ".aws",
    ".azure",
    ".kube",
    ".netrc",
    ".git-credentials",
    ".password-store",
    ".vault-token",
    ".terraform.d",
    ".pgpass",
    ".npmrc",
    ".pypirc",
    ".gem/credentials",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".m2/settings.xml",
    ".m2/settings-security.xml",
    ".local/share",
    ".bash_history",
    ".zsh_history",
    ".python_history",
    ".psql_history",
];

/// The volumes, as they can be mounted; each source must exist.
pub(super) fn checked(volumes: &[Volume], around: &Surroundings<'_>) -> Result<Vec<Volume>, VolumeError> {
    let mut checked: Vec<Volume> = Vec::new();
    for volume in volumes {
        let unusable = |why: String| VolumeError::Source { path: volume.source.clone(), why };
        let source = volume.source.canonicalize().map_err(|error| unusable(error.to_string()))?;
        let about = source.metadata().map_err(|error| unusable(error.to_string()))?;
        if !about.is_dir() && !about.is_file() {
            return Err(unusable("only folders and files can be volumes".to_owned()));
        }
        let volume = Volume { source, ..volume.clone() };
        check(&volume, around)?;
        let overlaps = |other: &&Volume| related(&other.target, &volume.target);
        if let Some(other) = checked.iter().find(overlaps) {
            return Err(VolumeError::Nested(other.target.clone(), volume.target));
        }
        checked.push(volume);
    }
    Ok(checked)
}

/// Whether one of the two is in the other, or they are the same.
fn related(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn check(volume: &Volume, around: &Surroundings<'_>) -> Result<(), VolumeError> {
    let Volume { source, target, writable } = volume;
    let is_plain = target.is_absolute()
        && target.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !is_plain {
        return Err(VolumeError::Typed(volume.to_string()));
    }
    if let Some(own) = OWN.iter().map(Path::new).find(|own| related(target, own)) {
        return Err(VolumeError::Target { target: target.clone(), own: own.to_owned() });
    }
    if *writable {
        let written =
            |ours: &Path, what| VolumeError::Written { path: source.clone(), ours: ours.to_owned(), what };
        if related(source, around.source) {
            return Err(written(around.source, "the application's folder"));
        }
        if let Some(own) = around.own.iter().find(|own| related(source, own)) {
            return Err(written(own, "where images and caches are kept"));
        }
    }
    let below_home = around.home.into_iter().flat_map(|home| BELOW_HOME.iter().map(|name| home.join(name)));
    let places = SENSITIVE.iter().map(PathBuf::from).chain(below_home);
    let places = places.chain(around.own.iter().chain(around.secrets).cloned());
    let mut found = places.into_iter().find(|place| related(source, place));
    // All of a home is sensitive, a folder in it is not.
    found = found.or_else(|| around.home.filter(|home| home.starts_with(source)).map(Path::to_owned));
    found = found.or_else(|| Some(source.clone()).filter(|source| source == Path::new("/tmp")));
    if let Some(sensitive) = found.filter(|_| !around.forced) {
        return Err(VolumeError::Sensitive { path: source.clone(), sensitive });
    }
    // What is mounted there would keep its own options: it could be written where the volume cannot.
    match around.mounted.iter().find(|place| *place != source && place.starts_with(source)) {
        Some(place) => Err(VolumeError::Source {
            path: source.clone(),
            why: format!(
                "another file system is mounted on {}; name that as a volume of its own",
                place.display()
            ),
        }),
        None => Ok(()),
    }
}

/// Mount points of this process, from the text of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
pub(super) fn mount_points(mountinfo: &str) -> Vec<PathBuf> {
    let unescaped = |field: &str| {
        let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
        escapes.iter().fold(field.to_owned(), |text, (code, character)| text.replace(code, character))
    };
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(|field| unescaped(field).into()).collect()
}

/// Where the stage has them.
fn place(number: usize) -> String {
    format!("/volumes/{number}")
}

fn access(volume: &Volume) -> Access {
    if volume.writable { Access::ReadWrite } else { Access::ReadOnly }
}

/// What the stage binds.
pub(super) fn binds(volumes: &[Volume]) -> impl Iterator<Item = Bind> {
    volumes.iter().enumerate().map(|(number, volume)| Bind {
        source: volume.source.clone(),
        target: place(number).into(),
        access: access(volume),
    })
}

/// What a container sees.
pub(super) fn mounts(volumes: &[Volume]) -> impl Iterator<Item = Mount> {
    volumes.iter().enumerate().map(|(number, volume)| Mount {
        source: place(number).into(),
        target: volume.target.clone(),
        access: access(volume),
    })
}

/// What the user should know of a volume that buildpacks may write to: what they make there is not the user's, and whose it is.
pub(super) fn notice(volume: &Volume, id: u32) -> Option<String> {
    volume.writable.then(|| {
        let path = volume.source.display();
        format!(
            "buildpacks write to {path} with the user id {id}, a subordinate one of yours; they can where others may, or with: setfacl -m u:{id}:rwx {path}"
        )
    })
}

#[cfg(test)]
mod tests;
