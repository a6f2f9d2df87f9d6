//! OCI images: names, documents, registries, a content store, and layers in both directions.
//!
//! Knows nothing of buildpacks and nothing of sandboxes. An [`Image`] is the same value whether it came from a
//! [`Registry`], a [`Store`] or an OCI layout folder.

mod ahead;
mod auth;
mod compression;
mod config;
mod digest;
mod document;
mod fetch;
mod image;
mod limits;
pub mod pack;
mod reference;
mod registry;
mod store;
pub mod unpack;

pub use auth::{
    AuthDocument, AuthError, AuthFile, Credentials, HelperError, Helpers, Secret, TOKEN_USER,
    helper_environment, host_program, is_root_s_alone, registry_of, server_url, with_entry,
};
pub use compression::{
    CompressedWriter, CompressionError, LayerCompression, LayerWriter, WrittenLayer, uncompressed,
};
pub use config::{Config, Empty, Execution, History, RootFs};
pub use digest::{Digest, DigestError, Hashing, Unverified};
pub use document::{Descriptor, Index, Manifest, Platform, PlatformError, go_json, media};
pub use fetch::{FetchError, check_url, fetch};
pub use image::{Image, ImageError, Layer};
pub use reference::{DOCKER_HUB, Reference, ReferenceError};
#[doc(hidden)]
pub use registry::fuzzing;
pub use registry::{IdentityError, Pushed, Registry, RegistryError, RegistryOptions};
pub use store::{
    Abandoned, ArchiveError, Blob, BlobWriter, FileError, IngestError, LayerSlot, LayoutError, Prune, Pruned,
    ReceiveError, StagedLayer, Store, StoreError, ingest_layer, ingest_layer_from, read_layout, size_on_disk,
    write_layout, write_sparse_layout,
};
pub use unpack::{OwnerError, OwnerMap};
