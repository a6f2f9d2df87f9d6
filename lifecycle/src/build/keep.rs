//! What each buildpack left in its folder stays as it is while later ones run (docs/decisions/0013-layers-of-earlier-buildpacks.md).

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use coracle_cnb::{BuildpackId, GroupElement, IdError};
use nix::sys::stat::{Mode, fchmod, fstat};

use super::layers::Layer;
use super::record::Record;
use super::tree::{Node, TreeError, Walk};
use crate::processes::Processes;

/// What later buildpacks may do with layers of earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BuildLayers {
    /// What they do to a `build` layer is told of and undone.
    #[default]
    Snapshot,
    /// What they like, as the reference has it.
    Shared,
}

impl BuildLayers {
    /// What it is called on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Shared => "shared",
        }
    }
}

/// A layer, or all of a buildpack, that later buildpacks may change: `BUILDPACK` or `BUILDPACK:LAYER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedLayer {
    pub buildpack: BuildpackId,
    pub layer: Option<String>,
}

impl FromStr for SharedLayer {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (buildpack, layer) = match text.split_once(':') {
            Some((buildpack, layer)) => (buildpack, Some(layer.to_owned())),
            None => (text, None),
        };
        Ok(Self { buildpack: buildpack.parse()?, layer })
    }
}

impl fmt::Display for SharedLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.layer {
            Some(layer) => write!(f, "{}:{layer}", self.buildpack),
            None => write!(f, "{}", self.buildpack),
        }
    }
}

/// What was done to a buildpack's layers, or what it left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A buildpack changed what an earlier one had left; it is as it was again.
    PutBack { by: String, of: String, layer: Option<String>, paths: usize, example: PathBuf },
    /// Processes of a buildpack were ended.
    Ended { of: String, processes: usize },
    /// A buildpack's program is over.
    Took { buildpack: String, took: Duration },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutBack { by, of, layer, paths, example } => {
                write!(f, "buildpack `{by}` changed ")?;
                match layer {
                    Some(layer) => write!(f, "layer `{}` of buildpack `{of}`", shown(layer))?,
                    None => write!(f, "files of buildpack `{of}`")?,
                }
                let example = shown(&example.to_string_lossy());
                let places = if *paths == 1 { "place" } else { "places" };
                write!(f, " in {paths} {places}, such as `{example}`: that is undone")?;
                match layer {
                    Some(_) => f.write_str(" (see --shared-layer and --build-layers)"),
                    None => Ok(()),
                }
            }
            Self::Ended { of, processes } => {
                write!(f, "buildpack `{of}` left {processes} running: ended", processes = count(*processes))
            }
            Self::Took { buildpack, took } => write!(f, "buildpack `{buildpack}` took {took:.1?}"),
        }
    }
}

fn count(processes: usize) -> String {
    if processes == 1 { "a process".to_owned() } else { format!("{processes} processes") }
}

/// A buildpack may put line ends into a name, and with them lines of its own into the log.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Why layers could not be kept as they were.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// Nothing can be kept beside the layers.
    #[error("make a file for what is kept of layers in `{path}`")]
    Record {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The processes of the build cannot be told from others, or not be ended.
    #[error("end processes that buildpack `{name}` left running")]
    Processes {
        name: String,
        #[source]
        source: io::Error,
    },
    /// A buildpack's folder could not be read.
    #[error("keep the layers of buildpack `{name}`")]
    Keep {
        name: String,
        #[source]
        source: TreeError,
    },
    /// A buildpack's folder could not be put back.
    #[error("undo what buildpack `{by}` did to the layers of buildpack `{name}`")]
    PutBack {
        by: String,
        name: String,
        #[source]
        source: TreeError,
    },
}

/// What buildpacks have left so far.
#[derive(Debug)]
pub(super) struct Keeper {
    layers_dir: File,
    permissions: Mode,
    record: Record,
    processes: Processes,
    kept: Vec<Kept>,
}

/// One buildpack's folder.
#[derive(Debug)]
struct Kept {
    name: String,
    folder: OsString,
    /// Those of its layers whose content is kept.
    layers: BTreeSet<OsString>,
    node: Node,
}

impl Keeper {
    /// To be made before the first buildpack runs. What is kept lies beside what is in `beside`, without a name.
    pub(super) fn new(layers_dir: &Path, beside: &Path) -> Result<Self, KeepError> {
        let failed = |source| KeepError::Record { path: beside.to_owned(), source };
        std::fs::create_dir_all(beside).map_err(failed)?;
        let dir = File::open(layers_dir).map_err(failed)?;
        let permissions = permissions(&dir).map_err(failed)?;
        let record = File::open(beside).and_then(|beside| Record::new(beside.as_fd())).map_err(failed)?;
        let processes =
            Processes::adopt().map_err(|source| KeepError::Processes { name: "(all)".to_owned(), source })?;
        Ok(Self { layers_dir: dir, permissions, record, processes, kept: Vec::new() })
    }

    /// Ends what a buildpack left running, and undoes what it did to the folders of those before it.
    pub(super) fn undo(&mut self, by: &GroupElement) -> Result<Vec<Note>, KeepError> {
        // Two ids may have one folder, which is the later one's own then, as with the reference.
        let own = OsString::from(by.id.dir());
        let by = by.name();
        let mut notes = Vec::new();
        self.kept.retain(|kept| kept.folder != own);
        let ended =
            self.processes.end().map_err(|source| KeepError::Processes { name: by.clone(), source })?;
        if ended > 0 {
            notes.push(Note::Ended { of: by.clone(), processes: ended });
        }
        for kept in &mut self.kept {
            let failed = |source| KeepError::PutBack { by: by.clone(), name: kept.name.clone(), source };
            let open =
                |source| failed(TreeError::Call { act: "set the mode of", path: PathBuf::new(), source });
            // Where it is the root's it is as it was, and nothing may be set.
            if permissions(&self.layers_dir).map_err(open)? != self.permissions {
                fchmod(&self.layers_dir, self.permissions).map_err(|errno| open(errno.into()))?;
            }
            let mut walk = Walk::new(&mut self.record);
            walk.put_back(self.layers_dir.as_fd(), &kept.folder, &mut kept.node).map_err(failed)?;
            let changed = walk.changed;
            notes.extend(notes_of(&by, kept, changed));
        }
        Ok(notes)
    }

    /// Keeps what a buildpack has left: its files, and the layers that later buildpacks work with and that somebody sees again.
    pub(super) fn keep(
        &mut self,
        element: &GroupElement,
        layers: &[Layer],
        shared: &[SharedLayer],
    ) -> Result<(), KeepError> {
        let is_kept = |layer: &&Layer| {
            let types = layer.toml.types;
            types.build && (types.launch || types.cache) && !is_shared(element, layer, shared)
        };
        let kept: BTreeSet<OsString> =
            layers.iter().filter(is_kept).map(|layer| layer.name.clone().into()).collect();
        let name = element.name();
        let folder = OsString::from(element.id.dir());
        let node = Walk::new(&mut self.record)
            .look(self.layers_dir.as_fd(), &folder, &kept)
            .map_err(|source| KeepError::Keep { name: name.clone(), source })?;
        self.kept.push(Kept { name, folder, layers: kept, node });
        self.record.newest.settle();
        Ok(())
    }
}

fn permissions(dir: &File) -> io::Result<Mode> {
    Ok(Mode::from_bits_truncate(fstat(dir)?.st_mode))
}

/// Whether the layer's own buildpack, or the user, lets later buildpacks change it.
fn is_shared(element: &GroupElement, layer: &Layer, shared: &[SharedLayer]) -> bool {
    let named = |shared: &SharedLayer| {
        shared.buildpack == element.id && shared.layer.as_ref().is_none_or(|name| *name == layer.name)
    };
    layer.toml.coracle.shared || shared.iter().any(named)
}

/// A note for each layer, and one for what lies beside them.
fn notes_of(by: &str, kept: &Kept, changed: Vec<PathBuf>) -> Vec<Note> {
    let mut notes: Vec<Note> = Vec::new();
    for path in changed {
        let first = path.iter().next().map(OsStr::to_owned).filter(|name| kept.layers.contains(name));
        let of_layer = first.map(|name| name.to_string_lossy().into_owned());
        let known = notes.iter_mut().find_map(|note| match note {
            Note::PutBack { layer, paths, .. } if *layer == of_layer => Some(paths),
            _ => None,
        });
        match known {
            Some(paths) => *paths += 1,
            None => notes.push(Note::PutBack {
                by: by.to_owned(),
                of: kept.name.clone(),
                layer: of_layer,
                paths: 1,
                example: path,
            }),
        }
    }
    notes
}
