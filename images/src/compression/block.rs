//! One block of a layer, compressed so that it needs none of those before.

use std::fmt;
use std::io;

use flate2::{Compress, Compression as Level, Crc, FlushCompress, Status};

use super::choice::{LayerCompression, Method};

/// What compresses a block, and after that another.
pub(super) enum Compressor {
    Deflate(Compress),
    Zstd(Box<zstd::bulk::Compressor<'static>>),
}

/// A block after compression, with its memory to use again.
pub(super) struct Compressed {
    pub(super) block: Vec<u8>,
    pub(super) bytes: Vec<u8>,
    pub(super) checksum: Crc,
}

impl Compressor {
    pub(super) fn new(compression: LayerCompression) -> io::Result<Self> {
        let level = compression.level;
        Ok(match compression.method {
            Method::None | Method::Gzip => Self::Deflate(Compress::new(Level::new(level.into()), false)),
            Method::Zstd => Self::Zstd(Box::new(zstd::bulk::Compressor::new(level.into())?)),
        })
    }

    pub(super) fn compress(&mut self, block: Vec<u8>) -> io::Result<Compressed> {
        match self {
            Self::Deflate(compress) => deflated(compress, block),
            Self::Zstd(compress) => {
                let bytes = compress.compress(&block)?;
                Ok(Compressed { block, bytes, checksum: Crc::new() })
            }
        }
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deflate(_) => "Deflate",
            Self::Zstd(_) => "Zstd",
        })
    }
}

/// Ends at a byte, and does not say that it is the last.
fn deflated(compress: &mut Compress, block: Vec<u8>) -> io::Result<Compressed> {
    compress.reset();
    let mut bytes = Vec::with_capacity(block.len() / 2 + (1 << 12));
    loop {
        let read = usize::try_from(compress.total_in()).map_err(io::Error::other)?;
        let status = compress.compress_vec(&block[read..], &mut bytes, FlushCompress::Sync)?;
        let all = compress.total_in() == block.len() as u64;
        // Room left over means that nothing is held back.
        if all && bytes.len() < bytes.capacity() || status == Status::StreamEnd {
            break;
        }
        bytes.reserve(1 << 16);
    }
    let mut checksum = Crc::new();
    checksum.update(&block);
    Ok(Compressed { block, bytes, checksum })
}
