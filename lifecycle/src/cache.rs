//! The cache between builds, a folder in the reference's own format: whoever changes lifecycles keeps their cache.
//!
//! Below `committed` lie the archive of each layer, `sha256:DIGITS.tar`, and their list, `io.buildpacks.lifecycle.cache.metadata`.
//! A new cache is made in `staging` and takes the place of `committed` at once; a process that is killed leaves the one or the
//! other. Nothing in it is trusted: [`crate::restore`] verifies each archive.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use coracle_cnb::{
    BuildpackLayers, CACHE_METADATA_LABEL, CacheMetadata, DocumentError, Group, GroupElement, LayerMetadata,
    LifecycleMetadata, Sha, json_of_toml, read_json, write_json,
};
use coracle_images::pack::{EPOCH, PackError, TarWriter};
use coracle_images::{Digest, Hashing};
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2};

use crate::export::{ExportError, FoundBuildpack, Layers};
use crate::file::MAX_DOCUMENT;
use crate::folder;

/// Why a cache could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A file of the cache could not be read.
    #[error("read cache: `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The list of layers is not what it should be.
    #[error("read cache: `{path}`")]
    Metadata {
        path: PathBuf,
        #[source]
        source: DocumentError,
    },
    /// A file of the cache could not be written.
    #[error("write cache: `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The list of layers has no form in JSON.
    #[error("write cache")]
    Document(#[source] DocumentError),
    /// What the build left could not be read.
    #[error("write cache")]
    Layers(#[source] Box<ExportError>),
    /// A layer could not be packed.
    #[error("write cache: layer `{layer}`")]
    Pack {
        layer: String,
        #[source]
        source: PackError,
    },
}

/// A cache as the last build left it.
#[derive(Debug, Default)]
pub struct Cache {
    committed: Option<PathBuf>,
    metadata: CacheMetadata,
}

impl Cache {
    /// Reads the list of layers; there need not be any. An error says that the cache is not usable: take an empty one for it.
    pub fn open(dir: &Path) -> Result<Self, CacheError> {
        // Whoever has been killed between two renames, here or in the reference, has left the old cache under the other name.
        let known = ["committed", "committed-backup"].map(|name| dir.join(name));
        let Some(committed) = known.into_iter().find(|path| path.is_dir()) else {
            return Ok(Self::default());
        };
        let path = committed.join(CACHE_METADATA_LABEL);
        let Some(file) = regular(&path)? else { return Ok(Self::default()) };
        let mut text = String::new();
        file.take(MAX_DOCUMENT)
            .read_to_string(&mut text)
            .map_err(|source| CacheError::Read { path: path.clone(), source })?;
        let metadata =
            read_json(CACHE_METADATA_LABEL, &text).map_err(|source| CacheError::Metadata { path, source })?;
        Ok(Self { committed: Some(committed), metadata })
    }

    /// What the cache says it holds.
    pub fn metadata(&self) -> &CacheMetadata {
        &self.metadata
    }

    /// The layers of a buildpack, whatever its version.
    pub fn buildpack(&self, id: &str) -> Option<&BuildpackLayers> {
        self.metadata.buildpacks.iter().find(|buildpack| buildpack.key == id)
    }

    /// The archive of a layer, not verified; nothing where there is none.
    pub fn archive(&self, diff_id: &Digest) -> Result<Option<File>, CacheError> {
        self.path(diff_id).map_or(Ok(None), |path| regular(&path))
    }

    fn path(&self, diff_id: &Digest) -> Option<PathBuf> {
        Some(self.committed.as_ref()?.join(archive_name(diff_id)))
    }
}

fn archive_name(diff_id: &Digest) -> String {
    format!("{diff_id}.tar")
}

/// Opens a file, but nothing that would lead elsewhere or wait for somebody.
fn regular(path: &Path) -> Result<Option<File>, CacheError> {
    let failed = |source| CacheError::Read { path: path.to_owned(), source };
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = match File::options().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is no regular file")));
    }
    Ok(Some(file))
}

/// What a cache is made of.
#[derive(Debug)]
pub struct SaveInput<'input> {
    pub group: &'input Group,
    /// Folder of the buildpacks' layers.
    pub layers_dir: BorrowedFd<'input>,
    /// Where that folder is for the build.
    pub layers_path: &'input str,
    /// Owner and group of what the build made.
    pub owner: (u32, u32),
    /// What the image says of layers, if it was packed of these very folders: nobody has written to them since.
    pub packed: Option<&'input LifecycleMetadata>,
    /// The archives that were verified since this build took the cache, and that nobody has written to since.
    pub verified: &'input [Digest],
}

impl SaveInput<'_> {
    /// Whether a layer would be packed to an archive that is known to be good, told without reading either.
    fn is_known(&self, buildpack: &GroupElement, layer: &str, diff_id: &Digest) -> bool {
        let packed = self.packed.and_then(|packed| packed.buildpacks.as_ref());
        let packed = packed.and_then(|packed| packed.iter().find(|known| known.key == buildpack.id.as_str()));
        let packed = packed.and_then(|packed| packed.layers.get(layer));
        packed.is_some_and(|packed| packed.sha == diff_id.as_str()) && self.verified.contains(diff_id)
    }
}

/// What became of a layer. The words are those people look for in a build's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheStep {
    /// The layer is new, or another one than before.
    Added(String),
    /// The cache had it.
    Reused(String),
}

impl std::fmt::Display for CacheStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Added(layer) => write!(f, "Adding cache layer '{layer}'"),
            Self::Reused(layer) => write!(f, "Reusing cache layer '{layer}'"),
        }
    }
}

/// Makes the layers marked `cache = true` the cache in `dir`. Archives that `previous` has are linked, not written again; those
/// of other layers are gone afterwards. On an error the cache is as it was.
pub fn save(dir: &Path, previous: &Cache, input: &SaveInput<'_>) -> Result<Vec<CacheStep>, CacheError> {
    let staging = dir.join("staging");
    remove(&staging)?;
    let steps = stage(&staging, previous, input).and_then(|steps| commit(dir).map(|()| steps));
    if steps.is_err() {
        // Half a cache is of no use, and may be what filled the disk. The error to tell is the first one.
        let _ = remove(&staging);
    }
    steps
}

fn stage(staging: &Path, previous: &Cache, input: &SaveInput<'_>) -> Result<Vec<CacheStep>, CacheError> {
    fs::create_dir_all(staging).map_err(|source| CacheError::Write { path: staging.to_owned(), source })?;
    let layers = Layers { dir: input.layers_dir, path: input.layers_path, owner: input.owner };
    let mut saving = Saving { previous, layers, staging: staging.to_owned(), steps: Vec::new() };
    let metadata = saving.layers(input)?;
    let path = staging.join(CACHE_METADATA_LABEL);
    let text = write_json(&metadata).map_err(CacheError::Document)?;
    fs::write(&path, format!("{text}\n")).map_err(|source| CacheError::Write { path, source })?;
    Ok(saving.steps)
}

/// A cache in the making.
struct Saving<'a> {
    previous: &'a Cache,
    layers: Layers<'a>,
    staging: PathBuf,
    steps: Vec<CacheStep>,
}

impl Saving<'_> {
    fn layers(&mut self, input: &SaveInput<'_>) -> Result<CacheMetadata, CacheError> {
        let foreign = |source| CacheError::Layers(Box::new(source));
        let mut metadata = CacheMetadata::default();
        for element in &input.group.group {
            let found = FoundBuildpack::read(self.layers.dir, element).map_err(foreign)?;
            let known = self.previous.buildpack(element.id.as_str());
            let mut layers = std::collections::BTreeMap::new();
            for layer in found.layers.into_iter().filter(|layer| layer.toml.types.cache && layer.has_folder) {
                let known = known.and_then(|known| known.layers.get(&layer.name));
                let known: Option<Digest> = known.and_then(|known| known.sha.parse().ok());
                let name = format!("{}:{}", element.id, layer.name);
                let kept = known.as_ref().filter(|known| input.is_known(element, &layer.name, known));
                let sha = match kept.filter(|diff_id| self.link(diff_id)) {
                    Some(diff_id) => {
                        self.steps.push(CacheStep::Reused(name));
                        diff_id.clone()
                    }
                    None => self.layer(&name, &Path::new(&element.id.dir()).join(&layer.name), known)?,
                };
                let data = layer.toml.metadata.map(|table| json_of_toml(&toml::Value::Table(table)));
                let types = layer.toml.types;
                let (build, launch, cache) = (types.build, types.launch, types.cache);
                let saved = LayerMetadata {
                    sha: sha.to_string(),
                    data: data.unwrap_or_default(),
                    build,
                    launch,
                    cache,
                };
                layers.insert(layer.name, saved);
            }
            let version = element.version.clone();
            let saved = BuildpackLayers { key: element.id.to_string(), version, layers, store: None };
            metadata.buildpacks.push(saved);
        }
        let sbom = Path::new("sbom/cache");
        let has_sbom =
            folder::folder(self.layers.dir, sbom).map_err(|source| foreign(source.into()))?.is_some();
        if has_sbom {
            let known = self.previous.metadata.sbom.sha.parse().ok();
            let sha = self.layer("buildpacksio/lifecycle:cache.sbom", sbom, known)?;
            metadata.sbom = Sha { sha: sha.to_string() };
        }
        Ok(metadata)
    }

    /// Puts a layer's archive into the staging folder and gives its diff id.
    fn layer(&mut self, name: &str, path: &Path, known: Option<Digest>) -> Result<Digest, CacheError> {
        if let Some(diff_id) = known
            && self.reuse(path, &diff_id)
        {
            self.steps.push(CacheStep::Reused(name.to_owned()));
            return Ok(diff_id);
        }
        let new = self.staging.join("new");
        let failed = |source| CacheError::Write { path: new.clone(), source };
        let mut file = Hashing::new(BufWriter::with_capacity(1 << 17, File::create(&new).map_err(failed)?));
        self.layers
            .pack(path, TarWriter::new(&mut file, EPOCH))
            .map_err(|source| CacheError::Pack { layer: name.to_owned(), source })?;
        let (mut file, diff_id, _) = file.finish();
        file.flush().map_err(failed)?;
        fs::rename(&new, self.staging.join(archive_name(&diff_id))).map_err(failed)?;
        self.steps.push(CacheStep::Added(name.to_owned()));
        Ok(diff_id)
    }

    /// Links the previous cache's archive, if the layer would be packed to the very bytes that lie there. They are compared, not
    /// only their digest: a damaged archive would otherwise stay damaged for ever.
    fn reuse(&self, path: &Path, diff_id: &Digest) -> bool {
        let Ok(Some(file)) = self.previous.archive(diff_id) else { return false };
        let mut same = Hashing::new(Same { old: BufReader::with_capacity(1 << 17, file) });
        // Not the same, or not readable: packing it again will tell which.
        if self.layers.pack(path, TarWriter::new(&mut same, EPOCH)).is_err() {
            return false;
        }
        let (mut same, found, _) = same.finish();
        let ended = matches!(same.old.read(&mut [0]), Ok(0));
        ended && found == *diff_id && self.link(diff_id)
    }

    /// Takes the previous cache's archive over. Not every file system has links; then it is written like a new one.
    fn link(&self, diff_id: &Digest) -> bool {
        let Some(old) = self.previous.path(diff_id) else { return false };
        let new = self.staging.join(archive_name(diff_id));
        new.exists() || fs::hard_link(old, new).is_ok()
    }
}

/// Takes what is written only while it is what lies there already.
struct Same {
    old: BufReader<File>,
}

impl Write for Same {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let old = self.old.fill_buf()?;
        let length = old.len().min(buffer.len());
        if length == 0 && !buffer.is_empty() || old[..length] != buffer[..length] {
            return Err(io::Error::other("another archive"));
        }
        self.old.consume(length);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Puts the staging folder into the place of the committed one, and removes what that was.
fn commit(dir: &Path) -> Result<(), CacheError> {
    let [staging, committed, backup] =
        ["staging", "committed", "committed-backup"].map(|name| dir.join(name));
    let exchange = RenameFlags::RENAME_EXCHANGE;
    if renameat2(AT_FDCWD, &staging, AT_FDCWD, &committed, exchange).is_err() {
        // There was none yet, or the file system cannot exchange: in two steps, as the reference does.
        remove(&backup)?;
        match fs::rename(&committed, &backup) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved.map_err(|source| CacheError::Write { path: backup.clone(), source })?,
        }
        fs::rename(&staging, &committed).map_err(|source| CacheError::Write { path: committed, source })?;
    }
    remove(&staging)?;
    remove(&backup)
}

fn remove(path: &Path) -> Result<(), CacheError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|source| CacheError::Write { path: path.to_owned(), source }),
    }
}
