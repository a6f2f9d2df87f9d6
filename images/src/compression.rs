//! How layers are compressed: told by their first bytes, not by what a manifest says.

mod block;
mod choice;
mod layer;

use std::io::{self, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;

pub use choice::{CompressionError, LayerCompression};
pub use layer::{CompressedWriter, LayerWriter, WrittenLayer};

/// Larger windows than 128 MiB are refused: memory is for the archive's reader, not for its writer to spend.
const ZSTD_WINDOW_LOG: u32 = 27;

type Source<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// The uncompressed bytes of a stream.
pub(crate) enum Inflated<R: Read> {
    Plain(Source<R>),
    Gzip(Box<MultiGzDecoder<BufReader<Source<R>>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Source<R>>>>),
}

/// Compressions that layers do not have, by first bytes that no archive begins with: a name of a file comes first there.
const OTHERS: [(&str, &[u8]); 4] =
    [("xz", b"\xfd7zXZ\0"), ("bzip2", b"1AY&SY"), ("lz4", b"\x04\x22\x4d\x18"), ("compress", b"\x1f\x9d")];

/// A layer in a compression that is none of the specification's.
#[derive(Debug, thiserror::Error)]
#[error(
    "it is compressed with {0}; layers are plain, or compressed with gzip or zstd: the image must be made anew with one of these"
)]
struct OtherCompression(&'static str);

/// Looks at the first bytes and decompresses accordingly.
pub(crate) fn inflate<R: Read>(mut source: R) -> io::Result<Inflated<R>> {
    let mut start = Vec::with_capacity(10);
    source.by_ref().take(10).read_to_end(&mut start)?;
    // Of bzip2, the first four bytes could be a name.
    let magic = start.strip_prefix(b"BZh").and_then(|rest| rest.get(1..)).unwrap_or(&start);
    if let Some((name, _)) = OTHERS.iter().find(|(_, other)| magic.starts_with(other)) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, OtherCompression(name)));
    }
    let gzip = start.starts_with(&[0x1f, 0x8b]);
    let zstd = start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::digest::Digest;

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
        let mut gzip = LayerWriter::new(Vec::new(), LayerCompression::default());
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
}
