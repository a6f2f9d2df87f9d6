//! How much an archive may ask for.

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

    /// As usual, but for the length of an archive: this is allowed however short it is when compressed.
    #[must_use]
    pub fn with_largest_layer(bytes: Option<u64>) -> Self {
        bytes.map_or_else(Self::default, |bytes| Self { bytes, free: bytes, ..Self::default() })
    }
}
