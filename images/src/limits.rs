//! How much an image's documents may ask for. Those of archives are in `unpack/limits.rs`.
//!
//! Values inside values end at 128, where `serde_json` ends.

/// Bytes of a manifest or index: as many as registries must take ([distribution specification]).
///
/// [distribution specification]: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-manifests
pub(crate) const MANIFEST: u64 = 4 << 20;

/// Bytes of a configuration. It carries labels and, in those, bills of materials of older buildpacks.
pub(crate) const CONFIG: u64 = 16 << 20;

/// Layers of an image: as many as overlayfs mounts on top of each other (`OVL_MAX_STACK` of Linux).
pub(crate) const LAYERS: usize = 500;

/// An index may lead to another one, but not forever.
pub(crate) const NESTING: usize = 3;
