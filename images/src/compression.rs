//! How layers are compressed: told by their first bytes, not by what a manifest says.

use std::io::{self, BufReader, Cursor, Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression as Level, GzBuilder};

use crate::digest::{Digest, Hashing};
use crate::document::{Descriptor, media};

/// Larger windows than 128 MiB are refused: memory is for the archive's reader, not for its writer to spend.
const ZSTD_WINDOW_LOG: u32 = 27;

type Source<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// The uncompressed bytes of a stream.
pub(crate) enum Inflated<R: Read> {
    Plain(Source<R>),
    Gzip(Box<MultiGzDecoder<BufReader<Source<R>>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Source<R>>>>),
}

/// Looks at the first bytes and decompresses accordingly.
pub(crate) fn inflate<R: Read>(mut source: R) -> io::Result<Inflated<R>> {
    let mut start = Vec::with_capacity(4);
    source.by_ref().take(4).read_to_end(&mut start)?;
    let gzip = start.starts_with(&[0x1f, 0x8b]);
    let zstd = start == [0x28, 0xb5, 0x2f, 0xfd];
    let source = Cursor::new(start).chain(source);
    if gzip {
        let buffered = BufReader::with_capacity(1 << 17, source);
        return Ok(Inflated::Gzip(Box::new(MultiGzDecoder::new(buffered))));
    }
    if zstd {
        let mut decoder =
            zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(1 << 17, source))?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        return Ok(Inflated::Zstd(Box::new(decoder)));
    }
    Ok(Inflated::Plain(source))
}

/// The uncompressed bytes of a plain, gzip or zstd stream, told by its first bytes.
///
/// # Errors
///
/// When they cannot be read.
pub fn uncompressed<R: Read>(source: R) -> io::Result<impl Read> {
    inflate(source)
}

impl<R: Read> Inflated<R> {
    /// Gives the source back; what the decoder had buffered of it counts as read.
    pub(crate) fn finish(self) -> io::Result<R> {
        let chained = match self {
            Self::Plain(source) => source,
            Self::Gzip(decoder) => decoder.into_inner().into_inner(),
            Self::Zstd(decoder) => decoder.finish().into_inner(),
        };
        Ok(chained.into_inner().1)
    }
}

impl<R: Read> Read for Inflated<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// The compressor is always given this much at once: what it makes of its input depends on how the input is cut.
const BLOCK: usize = 1 << 16;

/// A layer made in one pass: archive in, gzip out, both digests known at the end.
///
/// The gzip header carries neither time nor name, so equal archives give equal layers, however they are written.
#[derive(Debug)]
pub struct LayerWriter<W: Write> {
    gzip: Hashing<GzEncoder<Hashing<W>>>,
    block: Vec<u8>,
}

/// A finished layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenLayer {
    /// Digest of the archive.
    pub diff_id: Digest,
    /// Digest of the compressed archive.
    pub digest: Digest,
    /// Length of the compressed archive.
    pub size: u64,
}

impl WrittenLayer {
    /// The layer as an image lists it.
    #[must_use]
    pub fn layer(&self) -> crate::image::Layer {
        crate::image::Layer {
            descriptor: Descriptor::new(media::OCI_LAYER_GZIP, self.digest.clone(), self.size),
            diff_id: self.diff_id.clone(),
        }
    }
}

impl<W: Write> LayerWriter<W> {
    /// Writes the compressed layer to `out`.
    pub fn new(out: W) -> Self {
        // 255: "unknown" operating system; flate2 would say which one it ran on.
        let gzip = GzBuilder::new().mtime(0).operating_system(255).write(Hashing::new(out), Level::fast());
        Self { gzip: Hashing::new(gzip), block: Vec::with_capacity(BLOCK) }
    }

    /// Ends the layer.
    ///
    /// # Errors
    ///
    /// When the last bytes cannot be written.
    pub fn finish(mut self) -> io::Result<(W, WrittenLayer)> {
        self.gzip.write_all(&self.block)?;
        let (gzip, diff_id, _) = self.gzip.finish();
        let (mut out, digest, size) = gzip.finish()?.finish();
        out.flush()?;
        Ok((out, WrittenLayer { diff_id, digest, size }))
    }
}

impl<W: Write> Write for LayerWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK {
            self.gzip.write_all(&self.block)?;
            self.block.clear();
        }
        Ok(taken)
    }

    /// Nothing: a flush in the middle of a layer would show in its bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(compressed: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut inflated = inflate(compressed)?;
        inflated.read_to_end(&mut out)?;
        assert!(inflated.finish()?.is_empty());
        Ok(out)
    }

    #[test]
    fn by_first_bytes() {
        let text = b"tar bytes".repeat(1000);
        let mut gzip = LayerWriter::new(Vec::new());
        gzip.write_all(&text).unwrap();
        let (gzip, written) = gzip.finish().unwrap();
        assert_eq!(written.diff_id, Digest::of(&text));
        assert_eq!((written.digest, written.size), (Digest::of(&gzip), gzip.len() as u64));
        assert_eq!(round(&gzip).unwrap(), text);
        let two = [gzip.clone(), gzip.clone()].concat();
        assert_eq!(round(&two).unwrap(), [text.clone(), text.clone()].concat());
        assert_eq!(round(&zstd::encode_all(&text[..], 1).unwrap()).unwrap(), text);
        assert_eq!(round(&text).unwrap(), text);
        assert_eq!(round(b"ab").unwrap(), b"ab");
        assert!(round(&gzip[..gzip.len() - 1]).is_err());
    }

    #[test]
    fn a_window_of_256_megabytes_is_refused() {
        let with_window = |log| {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            encoder.write_all(b"little").unwrap();
            encoder.finish().unwrap()
        };
        assert_eq!(round(&with_window(ZSTD_WINDOW_LOG)).unwrap(), b"little");
        assert!(round(&with_window(ZSTD_WINDOW_LOG + 1)).is_err());
    }

    #[test]
    fn equal_archives_equal_layers_however_they_are_written() {
        let text: Vec<u8> = (0..400_000u32).flat_map(|n| (n.wrapping_mul(n) / 7).to_le_bytes()).collect();
        let make = |size: usize| {
            let mut writer = LayerWriter::new(Vec::new());
            for part in text.chunks(size) {
                writer.write_all(part).unwrap();
                writer.flush().unwrap();
            }
            let (bytes, written) = writer.finish().unwrap();
            assert_eq!(written.diff_id, Digest::of(&text));
            assert_eq!(round(&bytes).unwrap(), text);
            bytes
        };
        let whole = make(text.len());
        assert_eq!(whole[3..10], [0, 0, 0, 0, 0, 4, 255]);
        for size in [511, 8191, 65_536, 131_071] {
            assert_eq!(make(size), whole, "in parts of {size}");
        }
    }
}
