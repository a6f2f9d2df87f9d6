//! The content store: an OCI image layout with unpacked layers and locks beside it.
//!
//! ```text
//! oci-layout, index.json, blobs/sha256/<hex>    an OCI image layout any tool reads
//! layers/<idmap key>/<diff id hex>/             one unpacked layer in overlay form
//! locks/<name>                                  what processes agree on, by flock(2)
//! unsettled/<layer>                             unpacked layers that a power cut might spoil
//! staging/<session>/                            unfinished; to be deleted once its process is gone
//! ```
//!
//! Nothing is visible under its final name before it is verified and complete: everything arrives by rename.

mod archive;
mod blob;
mod file;
mod ingest;
mod layers;
mod layout;
mod prune;
mod receive;
mod settled;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{Flock, FlockArg};

use crate::digest::Digest;
use crate::document::{Descriptor, Index};
use crate::image::{Image, ImageError};
use crate::reference::Reference;

pub use archive::ArchiveError;
pub use blob::{Blob, BlobWriter};
pub use file::FileError;
use file::failed;
pub use ingest::{IngestError, ingest_layer, ingest_layer_from};
pub use layers::{LayerSlot, StagedLayer};
pub use layout::{LayoutError, read_layout, write_layout, write_sparse_layout};
pub use prune::{Prune, Pruned, size_on_disk};
pub use receive::ReceiveError;

/// The annotation that names an image in a layout.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An open content store. Clones share one staging folder; processes may share one store.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    session: Arc<Session>,
}

#[derive(Debug)]
struct Session {
    path: PathBuf,
    token: String,
    next: AtomicU64,
    _lock: Flock<File>,
}

impl Drop for Session {
    fn drop(&mut self) {
        remove_tree(&self.path).ok();
    }
}

/// What a process left that ended before it had finished.
#[derive(Debug)]
pub struct Abandoned {
    /// Folders, to be deleted in this order: while the last is there, the others are found.
    pub paths: Vec<PathBuf>,
    _lock: Option<Flock<File>>,
}

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store's folders cannot be made.
    #[error("cannot open the image store in {path}; choose another folder or mend its permissions")]
    Open {
        /// Folder.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A file cannot be locked, read, written, or published.
    #[error(transparent)]
    File(#[from] FileError),
    /// A name that would lead out of the store.
    #[error("`{name}` cannot name a folder of the store: use letters, digits, `-`, `_`, `.`")]
    Name {
        /// The name.
        name: String,
    },
    /// Content is not what was promised.
    #[error("the content is {found}, expected {expected}; nothing was stored")]
    OtherContent {
        /// As promised.
        expected: Digest,
        /// As received.
        found: Digest,
    },
    /// The index of images is damaged.
    #[error("cannot read the list of images {path}; remove the file to start an empty list")]
    Index {
        /// File.
        path: PathBuf,
        /// Cause.
        #[source]
        source: serde_json::Error,
    },
    /// Stored documents do not make an image.
    #[error("the stored image `{name}` is damaged; pull it again")]
    Image {
        /// Name or digest.
        name: String,
        /// Cause.
        #[source]
        source: Box<ImageError>,
    },
}

impl Store {
    /// Opens or makes the store in this folder, for this user's eyes only (0700: layers keep set-user-id programs).
    ///
    /// # Errors
    ///
    /// When the folders cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        let open = |source| StoreError::Open { path: root.clone(), source };
        for folder in ["blobs/sha256", "layers", "locks", "staging"] {
            DirBuilder::new().recursive(true).mode(0o700).create(root.join(folder)).map_err(open)?;
        }
        let root = root.canonicalize().map_err(open)?;
        let guard = lock_file(&root.join("locks/store"))?;
        let session = Session::begin(&root)?;
        let store = Self { root, session: Arc::new(session) };
        if !store.root.join("oci-layout").exists() {
            store.replace("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        if !store.root.join("index.json").exists() {
            store.write_index(&Index::default())?;
        }
        drop(guard);
        Ok(store)
    }

    /// The store's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether this content is stored.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Where this content is, or would be.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Opens stored content.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.blob_path(digest);
        Ok(File::open(&path).map_err(failed("read", path))?)
    }

    /// Stores these bytes.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if !self.has(&digest) {
            let mut writer = self.writer()?;
            io::Write::write_all(&mut writer, bytes).map_err(failed("write", self.blob_path(&digest)))?;
            writer.commit(Some(&digest))?;
        }
        Ok(digest)
    }

    /// Stores an image's documents; its layers come by [`ingest_layer`] or [`Store::writer`].
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn put_image(&self, image: &Image) -> Result<(), StoreError> {
        self.put(&image.config_bytes)?;
        self.put(&image.manifest_bytes)?;
        Ok(())
    }

    /// Names a manifest; a former meaning of the name is forgotten.
    ///
    /// # Errors
    ///
    /// When the list of images cannot be read or written.
    pub fn tag(&self, reference: &Reference, descriptor: &Descriptor) -> Result<(), StoreError> {
        let _guard = self.lock("index")?;
        let mut index = self.read_index()?;
        let name = reference.to_string();
        index.manifests.retain(|m| m.annotations.get(REF_NAME) != Some(&name));
        let mut entry = descriptor.clone();
        entry.annotations.insert(REF_NAME.to_owned(), name);
        index.manifests.push(entry);
        self.write_index(&index)
    }

    /// The image of this name, or of this digest if the name has one.
    ///
    /// # Errors
    ///
    /// When the list of images or a stored document is damaged.
    pub fn image(&self, reference: &Reference) -> Result<Option<Image>, StoreError> {
        let digest = match &reference.digest {
            Some(digest) => digest.clone(),
            None => {
                let name = reference.to_string();
                let index = self.read_index()?;
                match index.manifests.into_iter().find(|m| m.annotations.get(REF_NAME) == Some(&name)) {
                    Some(entry) => entry.digest,
                    None => return Ok(None),
                }
            }
        };
        if !self.has(&digest) {
            return Ok(None);
        }
        let manifest = self.bytes(&digest)?;
        let damaged = |source| StoreError::Image { name: reference.to_string(), source: Box::new(source) };
        let (found, parsed) = crate::image::parse_manifest(&manifest).map_err(damaged)?;
        if found != digest {
            return Err(StoreError::OtherContent { expected: digest, found });
        }
        if !self.has(&parsed.config.digest) {
            return Ok(None);
        }
        let config = self.bytes(&parsed.config.digest)?;
        Image::from_bytes(Some(reference.clone()), manifest, config).map(Some).map_err(damaged)
    }

    /// All named images.
    ///
    /// # Errors
    ///
    /// When the list of images is damaged.
    pub fn images(&self) -> Result<Vec<(Reference, Descriptor)>, StoreError> {
        let named = |entry: Descriptor| {
            let reference = entry.annotations.get(REF_NAME)?.parse().ok()?;
            Some((reference, entry))
        };
        Ok(self.read_index()?.manifests.into_iter().filter_map(named).collect())
    }

    /// Waits for the lock of this name; it is given back when the value is dropped.
    ///
    /// # Errors
    ///
    /// When the lock file cannot be made.
    pub fn lock(&self, name: &str) -> Result<Flock<File>, StoreError> {
        check_name(name)?;
        lock_file(&self.root.join("locks").join(name))
    }

    fn bytes(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        self.blob(digest)?.read_to_end(&mut bytes).map_err(failed("read", self.blob_path(digest)))?;
        Ok(bytes)
    }

    fn read_index(&self) -> Result<Index, StoreError> {
        let path = self.root.join("index.json");
        let bytes = fs::read(&path).map_err(failed("read", &path))?;
        serde_json::from_slice(&bytes).map_err(|source| StoreError::Index { path, source })
    }

    fn write_index(&self, index: &Index) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(index)
            .map_err(|source| StoreError::Index { path: self.root.join("index.json"), source })?;
        self.replace("index.json", &bytes)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let (path, staged) = (self.root.join(name), self.staging_path("file"));
        fs::write(&staged, bytes).map_err(failed("write", &staged))?;
        Ok(fs::rename(&staged, &path).map_err(failed("publish", path))?)
    }

    fn staging_path(&self, kind: &str) -> PathBuf {
        let number = self.session.next.fetch_add(1, Ordering::Relaxed);
        self.session.path.join(format!("{kind}-{number}"))
    }

    /// What dead processes left, now the caller's to delete: nobody else gets it as long as it is held. Layers belong to ids that only a
    /// process in the user's namespace may delete.
    ///
    /// # Errors
    ///
    /// When the lock file cannot be used, under which sessions begin.
    pub fn abandoned(&self) -> Result<Vec<Abandoned>, StoreError> {
        let _opening = lock_file(&self.root.join("locks/store"))?;
        let mut found = Vec::new();
        for entry in fs::read_dir(self.root.join("staging")).into_iter().flatten().flatten() {
            let Ok(token) = entry.file_name().into_string() else { continue };
            let lock = match File::open(entry.path().join("lock")) {
                Ok(file) => Flock::lock(file, FlockArg::LockExclusiveNonblock).map(Some).map_err(drop),
                // Whoever deleted it was ended.
                Err(_) => Ok(None),
            };
            let Some(lock) = lock.ok().filter(|_| token != self.session.token) else { continue };
            let mut paths = layers::unfinished(&self.root, &token);
            paths.push(entry.path());
            found.push(Abandoned { paths, _lock: lock });
        }
        Ok(found)
    }
}

impl Session {
    /// Called under the store's lock, so that no other process sweeps the folder before it is locked.
    fn begin(root: &Path) -> Result<Self, StoreError> {
        let staging = root.join("staging");
        let (path, token) = (0..)
            .map(|n| format!("{}-{n}", std::process::id()))
            .find_map(|token| {
                let path = staging.join(&token);
                match DirBuilder::new().mode(0o700).create(&path) {
                    Ok(()) => Some(Ok((path, token))),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                    Err(source) => Some(Err(StoreError::Open { path, source })),
                }
            })
            .unwrap_or_else(|| Err(StoreError::Name { name: "staging".to_owned() }))?;
        let lock = lock_file(&path.join("lock"))?;
        Ok(Self { path, token, next: AtomicU64::new(0), _lock: lock })
    }
}

fn lock_file(path: &Path) -> Result<Flock<File>, StoreError> {
    let file =
        File::options().create(true).truncate(false).write(true).open(path).map_err(failed("lock", path))?;
    Ok(Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed("lock", path)(errno.into()))?)
}

fn check_name(name: &str) -> Result<(), StoreError> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.starts_with('.') || name.len() > 200 || !name.bytes().all(good) {
        return Err(StoreError::Name { name: name.to_owned() });
    }
    Ok(())
}

/// Removes a folder of ours, also where an archive took our own write permission away.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fn open_up(path: &Path) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(path)?.flatten() {
            if entry.file_type()?.is_dir() {
                open_up(&entry.path())?;
            }
        }
        Ok(())
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
