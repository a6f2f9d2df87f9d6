//! What builds need and images must not hold: service bindings and secrets. They reach containers as files of a tmpfs of
//! their own and are never on disk (docs/decisions/0020-secrets-and-volumes-of-builds.md).

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use coracle_runtime::EphemeralFile;
use nix::fcntl::OFlag;
use zeroize::Zeroizing;

use super::BuildLayers;

/// Where bindings are (Buildpack API; Kubernetes service bindings).
pub(super) const BINDINGS: &str = "/platform/bindings";

/// The variable that says so, to buildpacks and to what they start.
pub(super) const ROOT_VARIABLE: &str = "SERVICE_BINDING_ROOT";

/// Where secrets are.
const SECRETS: &str = "/run/secrets";

/// All files of one build together, bytes. Kubernetes has one mebibyte for each secret.
const LIMIT: u64 = 2 << 20;

/// The entries of one binding.
const ENTRIES: usize = 128;

/// Why a binding or a secret cannot be used. No message holds what files say.
#[derive(Debug, thiserror::Error)]
pub enum BindingError {
    /// Not as it must be typed. Who leaves the form may have typed the secret itself, so what was typed is not told.
    #[error("{option} cannot be read; write {form}")]
    Typed {
        /// The option.
        option: &'static str,
        /// How to write it.
        form: &'static str,
    },
    /// A file or folder cannot be read.
    #[error("could not read {} for {option}", path.display())]
    Read {
        /// The option.
        option: &'static str,
        /// Which.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A folder that is no binding.
    #[error("{} is no service binding: {why}", path.display())]
    Unfit {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: &'static str,
    },
    /// Two of one name.
    #[error("{option} names `{name}` twice")]
    Twice {
        /// The option.
        option: &'static str,
        /// The name.
        name: String,
    },
    /// More than a tmpfs should hold.
    #[error("bindings and secrets are larger than 2 MiB together; hand large files over with --volume")]
    TooLarge,
    /// Everybody could read it.
    #[error(
        "--secret {name} is for the buildpack {buildpack} alone, but in one container every buildpack could read it; add --build-layers strict"
    )]
    Shared {
        /// The secret.
        name: String,
        /// Who it is for.
        buildpack: String,
    },
}

/// A service binding: files by name, `type` among them ([Service Binding Specification]).
///
/// [Service Binding Specification]: https://servicebinding.io/spec/core/1.1.0/#workload-projection
#[derive(Clone)]
pub struct Binding {
    name: String,
    files: Files,
    /// The folder they were read from.
    origin: PathBuf,
}

/// Contents by name.
type Files = Vec<(String, Zeroizing<Vec<u8>>)>;

/// A file for buildpacks that need it.
#[derive(Clone)]
pub struct BuildSecret {
    name: String,
    content: Zeroizing<Vec<u8>>,
    /// The file it was read from.
    origin: PathBuf,
    /// Ids of buildpacks; all, if there is none.
    buildpacks: Vec<String>,
}

impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Binding").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for BuildSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuildSecret").field("name", &self.name).finish_non_exhaustive()
    }
}

impl FromStr for Binding {
    type Err = BindingError;

    /// `NAME=FOLDER`; reads the folder.
    fn from_str(text: &str) -> Result<Self, BindingError> {
        let form = "NAME=FOLDER, the name in lower-case letters, digits, `-` and `.`";
        let typed = || BindingError::Typed { option: "--binding", form };
        let (name, path) = text.split_once('=').filter(|(_, path)| !path.is_empty()).ok_or_else(typed)?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        if !is_name(name, plain) {
            return Err(typed());
        }
        Ok(Self { name: name.to_owned(), files: read_binding(Path::new(path))?, origin: path.into() })
    }
}

impl Binding {
    /// Where it is on the host, and what it is.
    pub(super) fn origin(&self) -> (&Path, String) {
        (&self.origin, format!("the service binding {}", self.name))
    }
}

impl BuildSecret {
    /// Where it is on the host, and what it is.
    pub(super) fn origin(&self) -> (&Path, String) {
        (&self.origin, format!("the secret {}", self.name))
    }
}

impl FromStr for BuildSecret {
    type Err = BindingError;

    /// `id=NAME,src=FILE[,buildpack=ID]...`; reads the file.
    fn from_str(text: &str) -> Result<Self, BindingError> {
        let form = "id=NAME,src=FILE[,buildpack=ID]..., the name in letters, digits, `-`, `_` and `.`";
        let typed = || BindingError::Typed { option: "--secret", form };
        let (mut name, mut source, mut buildpacks) = (None, None, Vec::new());
        for part in text.split(',') {
            match part.split_once('=').filter(|(_, value)| !value.is_empty()) {
                Some(("id", value)) if name.is_none() => name = Some(value),
                Some(("src" | "source", value)) if source.is_none() => source = Some(value),
                Some(("buildpack", value)) => buildpacks.push(value.to_owned()),
                _ => return Err(typed()),
            }
        }
        let (Some(name), Some(source)) = (name, source) else { return Err(typed()) };
        if !is_name(name, is_key) {
            return Err(typed());
        }
        let content = read_file("--secret", Path::new(source))?;
        Ok(Self { name: name.to_owned(), content, origin: source.into(), buildpacks })
    }
}

fn is_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn is_name(name: &str, plain: impl Fn(char) -> bool) -> bool {
    !name.is_empty() && name.len() <= 253 && !name.starts_with("..") && name != "." && name.chars().all(plain)
}

/// The files of a folder. Kubernetes keeps them in a folder `..data` and links to them; no link leads out.
fn read_binding(folder: &Path) -> Result<Files, BindingError> {
    let option = "--binding";
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| BindingError::Read { option, path, source }
    };
    let unfit = |path: &Path, why| BindingError::Unfit { path: path.to_owned(), why };
    let root = folder.canonicalize().map_err(failed(folder))?;
    let mut files = Vec::new();
    for entry in fs::read_dir(&root).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("..") {
            continue;
        }
        if !is_name(name, is_key) {
            return Err(unfit(
                &path,
                "a name in it is not of letters, digits, `-`, `_` and `.`; rename the file",
            ));
        }
        let real = path.canonicalize().map_err(failed(&path))?;
        if !real.starts_with(&root) || !real.is_file() {
            return Err(unfit(&path, "only files can be in it, and links to files of the same folder"));
        }
        if files.len() == ENTRIES {
            return Err(unfit(folder, "it has more than 128 files"));
        }
        files.push((name.to_owned(), read_file(option, &real)?));
    }
    if !files.iter().any(|(name, _)| name == "type") {
        return Err(unfit(folder, "it has no file `type`, which says what kind of service it is for"));
    }
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(files)
}

fn read_file(option: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, BindingError> {
    let failed = |source| BindingError::Read { option, path: path.to_owned(), source };
    // A FIFO is not waited for.
    let file =
        OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if about.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    if about.len() > LIMIT {
        return Err(BindingError::TooLarge);
    }
    // Reserved whole: what outgrows its place leaves copies behind.
    let size = usize::try_from(about.len()).unwrap_or_default();
    let mut content = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(LIMIT + 1).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

/// Whether these can be handed over together.
pub(super) fn check(
    bindings: &[Binding],
    secrets: &[BuildSecret],
    build_layers: BuildLayers,
) -> Result<(), BindingError> {
    let twice = |option, names: Vec<&String>| {
        let twice = names.iter().enumerate().find(|(place, name)| names[..*place].contains(name));
        twice.map_or(Ok(()), |(_, name)| Err(BindingError::Twice { option, name: (*name).clone() }))
    };
    twice("--binding", bindings.iter().map(|binding| &binding.name).collect())?;
    twice("--secret", secrets.iter().map(|secret| &secret.name).collect())?;
    let files = bindings.iter().flat_map(|binding| &binding.files).map(|(_, content)| content.len());
    let all: usize = files.chain(secrets.iter().map(|secret| secret.content.len())).sum();
    if all as u64 > LIMIT {
        return Err(BindingError::TooLarge);
    }
    let shared = secrets.iter().filter(|_| build_layers != BuildLayers::Strict);
    match shared.filter_map(|secret| Some((secret, secret.buildpacks.first()?))).next() {
        Some((secret, buildpack)) => {
            Err(BindingError::Shared { name: secret.name.clone(), buildpack: buildpack.clone() })
        }
        None => Ok(()),
    }
}

/// The files of bindings, for every phase that runs programs of buildpacks.
pub(super) fn files_of(bindings: &[Binding]) -> impl Iterator<Item = EphemeralFile> {
    bindings.iter().flat_map(|Binding { name, files, origin: _ }| {
        files.iter().map(move |(key, content)| EphemeralFile {
            target: format!("{BINDINGS}/{name}/{key}").into(),
            content: content.clone(),
        })
    })
}

impl BuildSecret {
    pub(super) fn is_for_all(&self) -> bool {
        self.buildpacks.is_empty()
    }

    pub(super) fn is_for(&self, buildpack: &str) -> bool {
        self.buildpacks.iter().any(|named| named == buildpack)
    }

    pub(super) fn file(&self) -> EphemeralFile {
        EphemeralFile { target: format!("{SECRETS}/{}", self.name).into(), content: self.content.clone() }
    }
}

#[cfg(test)]
mod tests;
