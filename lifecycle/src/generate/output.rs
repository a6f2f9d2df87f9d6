//! What an extension left for the images to be extended with. A program wrote it: no link is followed.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde::Deserialize;

use super::GenerateError;
use super::dockerfile::Dockerfile;
use crate::detect::Module;
use crate::file::{self, FileError};
use crate::folder;

const CONFIG: &str = "extend-config.toml";

/// Arguments that the extender sets.
const OWN_ARGUMENTS: [&str; 3] = ["build_id", "user_id", "group_id"];

/// Which image a Dockerfile is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Run,
    Build,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Build => "build",
        }
    }

    fn document(self) -> String {
        format!("{}.Dockerfile", self.name())
    }
}

/// A Dockerfile.
pub(super) struct Found {
    text: String,
    pub(super) other_base: Option<String>,
    pub(super) extends: bool,
    discouraged: Vec<(usize, &'static str)>,
    /// Whether a later one makes it pointless.
    pub(super) ignored: bool,
}

/// What one extension left.
pub(super) struct Output {
    name: String,
    /// The extension's id as the name of a folder.
    dir: String,
    path: PathBuf,
    /// Whether its program wrote it, and not its author.
    written: bool,
    pub(super) files: BTreeMap<Kind, Found>,
    config: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    build: Section,
    #[serde(default)]
    run: Section,
}

#[derive(Debug, Default, Deserialize)]
struct Section {
    #[serde(default)]
    args: Vec<Argument>,
}

#[derive(Debug, Deserialize)]
struct Argument {
    #[serde(default)]
    name: String,
}

/// The folder itself, and nothing that it may have been replaced by.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    File::options().read(true).custom_flags(flags.bits()).open(path)
}

impl Output {
    /// What lies in a folder, if there is one.
    pub(super) fn read(module: &Module, path: &Path, written: bool) -> Result<Self, GenerateError> {
        let name = module.to_string();
        let mut output = Self {
            name: name.clone(),
            dir: module.id.dir(),
            path: path.to_owned(),
            written,
            files: BTreeMap::new(),
            config: None,
        };
        let at: OwnedFd = match open(path) {
            Ok(folder) => folder.into(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(output),
            Err(source) => {
                let source = FileError::List { path: path.to_owned(), source };
                return Err(GenerateError::File { name, source });
            }
        };
        let unreadable = |source| GenerateError::Output { name: name.clone(), source };
        let text = |document: &str| folder::text(at.as_fd(), Path::new(document)).map_err(unreadable);
        let config: Option<Config> =
            folder::document(CONFIG, at.as_fd(), Path::new(CONFIG)).map_err(unreadable)?;
        let arguments =
            config.into_iter().flat_map(|config| config.build.args.into_iter().chain(config.run.args));
        let own = |argument: &Argument| OWN_ARGUMENTS.contains(&argument.name.as_str());
        if let Some(Argument { name: argument }) = arguments.into_iter().find(own) {
            return Err(GenerateError::Argument { name, argument });
        }
        output.config = text(CONFIG)?;
        for kind in [Kind::Run, Kind::Build] {
            let Some(text) = text(&kind.document())? else { continue };
            let read = match kind {
                Kind::Run => Dockerfile::run(&text),
                Kind::Build => Dockerfile::build(&text),
            };
            let refused =
                |source| GenerateError::Dockerfile { name: name.clone(), document: kind.document(), source };
            let Dockerfile { other_base, extends, discouraged, .. } = read.map_err(refused)?;
            output.files.insert(kind, Found { text, other_base, extends, discouraged, ignored: false });
        }
        let is_dir = |name: &str| path.join(name).symlink_metadata().is_ok_and(|about| about.is_dir());
        if is_dir("context") && (is_dir("context.build") || is_dir("context.run")) {
            return Err(GenerateError::Contexts { name });
        }
        Ok(output)
    }

    /// What people should know.
    pub(super) fn warnings(&self) -> Vec<String> {
        let of = |(kind, found): (&Kind, &Found)| -> Vec<String> {
            let document = kind.document();
            let text = |(line, instruction): &(usize, &str)| {
                format!(
                    "extension `{}`: {document}: {instruction} on line {line} is not recommended",
                    self.name
                )
            };
            found.discouraged.iter().map(text).collect()
        };
        self.files.iter().flat_map(of).collect()
    }

    /// The Dockerfiles that ask for more than another run image.
    pub(super) fn extending(&self) -> impl Iterator<Item = String> {
        let extends = |(kind, found): &(&Kind, &Found)| match kind {
            Kind::Run => found.extends && !found.ignored,
            Kind::Build => true,
        };
        self.files.iter().filter(extends).map(|(kind, _)| format!("{} of {}", kind.document(), self.name))
    }

    /// Since Platform API 0.13: what it left stays where it is, but for what is ignored.
    pub(super) fn set_aside(&self) -> Result<(), GenerateError> {
        for (kind, _) in self.files.iter().filter(|(_, found)| found.ignored && self.written) {
            let from = self.path.join(kind.document());
            let to = self.path.join(format!("{}.ignore", kind.document()));
            std::fs::rename(&from, to)
                .map_err(|source| self.failed(FileError::Write { path: from, source }))?;
        }
        Ok(())
    }

    /// Before: Dockerfiles and their arguments go to a folder for each kind of image.
    pub(super) fn copy_to(&self, generated: &Path) -> Result<(), GenerateError> {
        for (kind, found) in &self.files {
            let dir = generated.join(kind.name()).join(&self.dir);
            let name = if found.ignored { "Dockerfile.ignore" } else { "Dockerfile" };
            let config = self.config.iter().map(|config| (CONFIG, config));
            for (name, text) in config.chain([(name, &found.text)]) {
                file::write(&dir.join(name), text.as_bytes()).map_err(|source| self.failed(source))?;
            }
        }
        Ok(())
    }

    fn failed(&self, source: FileError) -> GenerateError {
        GenerateError::File { name: self.name.clone(), source }
    }
}
