//! How much an archive may ask for.

use serde::{Deserialize, Serialize};

use crate::compression::LARGEST_WINDOW;

/// What the user allows, where it is not what is usual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// The length of one layer's archive, bytes, however short it is when compressed.
    pub layer: Option<u64>,
    /// What the decoder of a zstd frame must remember, bytes (RFC 8878, section 3.1.1.1.2).
    pub window: Option<u64>,
}

/// How much an archive may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Entries.
    pub entries: u64,
    /// Bytes of the archive.
    pub bytes: u64,
    /// How many times as long as the compressed archive it may be.
    pub ratio: u64,
    /// How long it may be in any case.
    pub free: u64,
    /// Length of a path in bytes; Linux takes 4095 and the end.
    pub path: usize,
    /// Depth of a path in components.
    pub depth: usize,
    /// Bytes of one extended header.
    pub extended_header: u64,
    /// Bytes of all extended attributes of one file.
    pub attributes: usize,
    /// Bytes that the decoder of a zstd frame must remember.
    pub window: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 2_000_000,
            bytes: 50 << 30,
            // Layers of programs shrink to a third, text to a tenth; a gzip of nothing but zeros to a thousandth.
            ratio: 200,
            free: 1 << 30,
            path: 4095,
            depth: 256,
            extended_header: 1 << 20,
            attributes: 64 << 10,
            window: LARGEST_WINDOW,
        }
    }
}

impl Limits {
    /// The limits for an archive that is this long when compressed.
    #[must_use]
    pub fn for_compressed(&self, size: u64) -> Self {
        let bytes = size.saturating_mul(self.ratio).max(self.free).min(self.bytes);
        Self { bytes, ..self.clone() }
    }

    /// As usual, but for what the user allows.
    #[must_use]
    pub fn allowing(allowed: Allowed) -> Self {
        let usual = Self::default();
        let window = allowed.window.unwrap_or(usual.window);
        match allowed.layer {
            Some(bytes) => Self { bytes, free: bytes, window, ..usual },
            None => Self { window, ..usual },
        }
    }
}
