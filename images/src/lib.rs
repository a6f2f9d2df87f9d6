//! OCI images: names, documents, registries, a content store, and layers in both directions.
//!
//! Knows nothing of buildpacks and nothing of sandboxes. An [`Image`] is the same value whether it came from a
//! [`Registry`], a [`Store`] or an OCI layout folder.

mod config;
mod digest;
mod document;
mod image;
mod reference;

pub use config::{Config, Empty, Execution, History, RootFs};
pub use digest::{Digest, DigestError, Hashing};
pub use document::{Descriptor, Index, Manifest, Platform, PlatformError, go_json, media};
pub use image::{Image, ImageError, Layer};
pub use reference::{DOCKER_HUB, Reference, ReferenceError};
