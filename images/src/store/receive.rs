//! A finished image from a folder that somebody else wrote, into the store.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::{Store, StoreError};
use crate::digest::Digest;
use crate::document::{Descriptor, Index};
use crate::image::{Image, ImageError, parse_manifest};
use crate::limits;

/// Why a folder's image was not taken over. Blobs that were verified before stay in the store and do no harm.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The folder, or a file of it, cannot be opened without following a link or leaving it.
    #[error("cannot open {path} of the finished image")]
    Open {
        /// Path below the outbox.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Something in a file's place.
    #[error("{path} of the finished image is not a regular file")]
    NotAFile {
        /// Path below the outbox.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {path} of the finished image")]
    Read {
        /// Path below the outbox.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A layer cannot be copied.
    #[error("cannot copy {path} of the finished image into the store")]
    Copy {
        /// Path below the outbox.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// More than a document or an image may have.
    #[error("{path} of the finished image is over the limit of {limit} bytes")]
    Limit {
        /// Path below the outbox.
        path: PathBuf,
        /// How much is allowed.
        limit: u64,
    },
    /// A file of another length than its descriptor says.
    #[error("{digest} of the finished image has {found} bytes, but is described with {expected}")]
    Size {
        /// The content.
        digest: Digest,
        /// As described.
        expected: u64,
        /// As found.
        found: u64,
    },
    /// The index is no index.
    #[error("cannot read the index {path} of the finished image")]
    Index {
        /// Path below the outbox.
        path: PathBuf,
        /// Cause.
        #[source]
        source: serde_json::Error,
    },
    /// No image, or several.
    #[error("the index {path} lists {found} images, expected the finished one")]
    Count {
        /// Path below the outbox.
        path: PathBuf,
        /// How many it lists.
        found: usize,
    },
    /// The documents make no image.
    #[error("the documents of the finished image make no image")]
    Image(#[source] ImageError),
    /// A blob is not what its name says.
    #[error("the content of {path} is {found}; it was not stored")]
    OtherContent {
        /// Path below the outbox.
        path: PathBuf,
        /// As computed.
        found: Digest,
    },
    /// A layer that is nowhere.
    #[error("the finished image names the layer {digest}, which is neither beside it nor in the store")]
    MissingLayer {
        /// The layer.
        digest: Digest,
    },
    /// The store failed.
    #[error("cannot store {digest} of the finished image")]
    Store {
        /// The content.
        digest: Digest,
        /// Cause.
        #[source]
        source: StoreError,
    },
}

impl Store {
    /// Takes over the one image of an OCI layout that lies at `layout` below the folder `outbox`.
    ///
    /// Nothing below `outbox` is trusted: files are opened beneath it without following links, must be regular, and
    /// must have the size and digest they are described with. Layers that the store has already may be absent; of
    /// the others at most `limit` bytes are copied. Afterwards the store has every blob that the manifest names.
    /// The image has no name yet ([`Store::tag`]), and its diff ids stay the writer's claim until a layer is
    /// unpacked. Whoever wrote the folder must have ended.
    ///
    /// # Errors
    ///
    /// When the folder is not such a layout, a layer is missing, or the store cannot be written.
    pub fn receive(&self, outbox: &Path, layout: &Path, limit: u64) -> Result<Image, ReceiveError> {
        let root =
            File::open(outbox).map_err(|source| ReceiveError::Open { path: outbox.to_owned(), source })?;
        let outbox = Outbox { folder: root.as_fd(), layout };
        let path = layout.join("index.json");
        let bytes = outbox.document(&path)?;
        let index: Index = serde_json::from_slice(&bytes)
            .map_err(|source| ReceiveError::Index { path: path.clone(), source })?;
        let [entry] = &index.manifests[..] else {
            return Err(ReceiveError::Count { path, found: index.manifests.len() });
        };
        let manifest = outbox.described(entry)?;
        let (_, parsed) = parse_manifest(&manifest).map_err(ReceiveError::Image)?;
        let config = outbox.described(&parsed.config)?;
        let image = Image::from_bytes(None, manifest, config).map_err(ReceiveError::Image)?;
        let mut left = limit;
        for layer in &image.manifest.layers {
            match std::fs::metadata(self.blob_path(&layer.digest)) {
                Ok(stored) => check_size(layer, stored.len())?,
                Err(_) => {
                    let over = || ReceiveError::Limit { path: layout.to_owned(), limit };
                    left = left.checked_sub(layer.size).ok_or_else(over)?;
                    self.copy_layer(&outbox, layer)?;
                }
            }
        }
        let digest = image.digest.clone();
        self.put_image(&image).map_err(|source| ReceiveError::Store { digest, source })?;
        Ok(image)
    }

    fn copy_layer(&self, outbox: &Outbox<'_>, layer: &Descriptor) -> Result<(), ReceiveError> {
        let digest = &layer.digest;
        let path = outbox.blob_path(digest);
        let (file, found) = match outbox.open(&path) {
            Err(ReceiveError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(ReceiveError::MissingLayer { digest: digest.clone() });
            }
            opened => opened?,
        };
        check_size(layer, found)?;
        let stored = |source| ReceiveError::Store { digest: digest.clone(), source };
        let mut writer = self.writer().map_err(stored)?;
        io::copy(&mut file.take(layer.size), &mut writer)
            .map_err(|source| ReceiveError::Copy { path: path.clone(), source })?;
        match writer.commit(Some(digest)) {
            Ok(_) => Ok(()),
            Err(StoreError::OtherContent { found, .. }) => Err(ReceiveError::OtherContent { path, found }),
            Err(source) => Err(stored(source)),
        }
    }
}

/// A folder that somebody else wrote.
struct Outbox<'a> {
    folder: BorrowedFd<'a>,
    layout: &'a Path,
}

impl Outbox<'_> {
    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.layout.join("blobs/sha256").join(digest.hex())
    }

    /// A regular file and its length. Neither a FIFO nor anything behind a link is waited for or read.
    fn open(&self, path: &Path) -> Result<(File, u64), ReceiveError> {
        let resolve = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV;
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let fail = |source| ReceiveError::Open { path: path.to_owned(), source };
        let opened = openat2(self.folder, path, OpenHow::new().flags(flags).resolve(resolve));
        let file = File::from(opened.map_err(|errno| fail(errno.into()))?);
        let found = file.metadata().map_err(fail)?;
        if !found.is_file() {
            return Err(ReceiveError::NotAFile { path: path.to_owned() });
        }
        Ok((file, found.len()))
    }

    fn document(&self, path: &Path) -> Result<Vec<u8>, ReceiveError> {
        let (file, size) = self.open(path)?;
        if size > limits::CONFIG {
            return Err(ReceiveError::Limit { path: path.to_owned(), limit: limits::CONFIG });
        }
        let mut bytes = Vec::new();
        file.take(limits::CONFIG)
            .read_to_end(&mut bytes)
            .map_err(|source| ReceiveError::Read { path: path.to_owned(), source })?;
        Ok(bytes)
    }

    fn described(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ReceiveError> {
        let path = self.blob_path(&descriptor.digest);
        let bytes = self.document(&path)?;
        check_size(descriptor, bytes.len() as u64)?;
        let found = Digest::of(&bytes);
        if found != descriptor.digest {
            return Err(ReceiveError::OtherContent { path, found });
        }
        Ok(bytes)
    }
}

fn check_size(descriptor: &Descriptor, found: u64) -> Result<(), ReceiveError> {
    if found == descriptor.size {
        return Ok(());
    }
    Err(ReceiveError::Size { digest: descriptor.digest.clone(), expected: descriptor.size, found })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::Config;
    use crate::document::media;
    use crate::image::Layer;
    use crate::store::write_sparse_layout;

    const LAYOUT: &str = "example.org/app/latest";

    /// A store with a base layer, and an outbox with an image of that layer and a new one.
    struct Ground {
        dir: tempfile::TempDir,
        store: Store,
        image: Image,
        new: Digest,
    }

    impl Ground {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path().join("store")).unwrap();
            let layer = |content: &str| Layer {
                descriptor: Descriptor::new(media::OCI_LAYER, Digest::of(content), content.len() as u64),
                diff_id: Digest::of(content),
            };
            store.put(b"base").unwrap();
            let image = Image::assemble(Config::default(), vec![layer("base"), layer("new")]).unwrap();
            let ground = Self { dir, store, image, new: Digest::of("new") };
            write_sparse_layout(&ground.image, None, &ground.layout()).unwrap();
            fs::write(ground.blob(&ground.new), "new").unwrap();
            ground
        }

        fn layout(&self) -> PathBuf {
            self.dir.path().join("outbox").join(LAYOUT)
        }

        fn blob(&self, digest: &Digest) -> PathBuf {
            self.layout().join("blobs/sha256").join(digest.hex())
        }

        fn receive(&self) -> Result<Image, ReceiveError> {
            self.store.receive(&self.dir.path().join("outbox"), Path::new(LAYOUT), 7)
        }

        /// Receiving fails, and neither the new layer nor the image is in the store.
        fn refused(&self) -> ReceiveError {
            let error = self.receive().unwrap_err();
            assert!(!self.store.has(&self.new) && !self.store.has(&self.image.digest), "{error}");
            error
        }

        /// Moves a file away and leaves a link to it.
        fn link(&self, path: &Path) {
            let elsewhere = self.dir.path().join("elsewhere");
            fs::rename(path, &elsewhere).unwrap();
            symlink(&elsewhere, path).unwrap();
        }
    }

    #[test]
    fn new_blobs_are_copied_and_the_rest_is_in_the_store() {
        let ground = Ground::new();
        let image = ground.receive().unwrap();
        assert_eq!(image, ground.image);
        assert_eq!(fs::read(ground.store.blob_path(&ground.new)).unwrap(), b"new");
        let name = "example.org/app".parse::<crate::Reference>().unwrap();
        ground.store.tag(&name, &image.descriptor()).unwrap();
        assert_eq!(ground.store.image(&name).unwrap().unwrap().digest, image.digest);
        // What the store has need not be beside the image.
        fs::remove_file(ground.blob(&ground.new)).unwrap();
        ground.receive().unwrap();
    }

    #[test]
    fn a_layer_that_is_nowhere() {
        let ground = Ground::new();
        fs::remove_file(ground.blob(&ground.new)).unwrap();
        assert!(matches!(ground.refused(), ReceiveError::MissingLayer { digest } if digest == ground.new));
        let ground = Ground::new();
        fs::remove_file(ground.store.blob_path(&Digest::of("base"))).unwrap();
        assert!(matches!(ground.refused(), ReceiveError::MissingLayer { .. }));
    }

    #[test]
    fn links_are_not_followed() {
        for path in ["index.json", "blobs", "blobs/sha256", "."] {
            let ground = Ground::new();
            ground.link(ground.layout().join(path).components().as_path());
            assert!(matches!(ground.refused(), ReceiveError::Open { .. }), "{path}");
        }
        let ground = Ground::new();
        ground.link(&ground.blob(&ground.new));
        assert!(matches!(ground.refused(), ReceiveError::Open { .. }));
    }

    #[test]
    fn only_regular_files() {
        let ground = Ground::new();
        fs::remove_file(ground.blob(&ground.new)).unwrap();
        nix::unistd::mkfifo(&ground.blob(&ground.new), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(ground.refused(), ReceiveError::NotAFile { .. }));
        let ground = Ground::new();
        fs::remove_file(ground.layout().join("index.json")).unwrap();
        fs::create_dir(ground.layout().join("index.json")).unwrap();
        assert!(matches!(ground.refused(), ReceiveError::NotAFile { .. }));
    }

    #[test]
    fn content_must_be_as_described() {
        let ground = Ground::new();
        fs::write(ground.blob(&ground.new), "now").unwrap();
        assert!(matches!(ground.refused(), ReceiveError::OtherContent { .. }));
        fs::write(ground.blob(&ground.new), "newer").unwrap();
        assert!(matches!(ground.refused(), ReceiveError::Size { expected: 3, found: 5, .. }));
        let ground = Ground::new();
        let mut config = ground.image.config_bytes.clone();
        *config.last_mut().unwrap() = b' ';
        fs::write(ground.blob(&ground.image.manifest.config.digest), config).unwrap();
        assert!(matches!(ground.refused(), ReceiveError::OtherContent { .. }));
        let ground = Ground::new();
        fs::write(ground.store.blob_path(&Digest::of("base")), "cut").unwrap();
        assert!(matches!(ground.refused(), ReceiveError::Size { expected: 4, found: 3, .. }));
    }

    #[test]
    fn limits() {
        let ground = Ground::new();
        let outbox = ground.dir.path().join("outbox");
        let error = ground.store.receive(&outbox, Path::new(LAYOUT), 2).unwrap_err();
        assert!(matches!(error, ReceiveError::Limit { limit: 2, .. }), "{error}");
        // A hole costs its writer nothing.
        let index = fs::File::options().write(true).open(ground.layout().join("index.json")).unwrap();
        index.set_len(limits::CONFIG + 1).unwrap();
        assert!(matches!(ground.refused(), ReceiveError::Limit { limit, .. } if limit == limits::CONFIG));
    }

    #[test]
    fn one_image() {
        let ground = Ground::new();
        for manifests in [vec![], vec![ground.image.descriptor(), ground.image.descriptor()]] {
            let found = manifests.len();
            let index = serde_json::to_vec(&Index { manifests, ..Index::default() }).unwrap();
            fs::write(ground.layout().join("index.json"), index).unwrap();
            assert!(matches!(ground.refused(), ReceiveError::Count { found: f, .. } if f == found));
        }
        let error = ground.store.receive(&ground.layout(), Path::new("../latest"), 3).unwrap_err();
        assert!(matches!(error, ReceiveError::Open { .. }), "{error}");
    }
}
