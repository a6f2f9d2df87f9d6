//! How layers are compressed: told by their first bytes, not by what a manifest says.

mod block;
mod choice;
mod frames;
mod layer;
mod windows;

use std::io::{self, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;

pub use choice::{CompressionError, LayerCompression};
pub use layer::{CompressedWriter, LayerWriter, WrittenLayer};
pub(crate) use windows::LARGEST_WINDOW;

use frames::{Frames, are_frames};

type Source<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// The uncompressed bytes of a stream.
pub(crate) enum Inflated<R: Read> {
    Plain(Source<R>),
    Gzip(Box<MultiGzDecoder<BufReader<Source<R>>>>),
    Zstd(Box<Frames<Source<R>>>),
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

/// Looks at the first bytes and decompresses accordingly, with a window of at most so many bytes: memory is for the archive's reader, not
/// for its writer to spend.
pub(crate) fn inflate<R: Read>(mut source: R, window: u64) -> io::Result<Inflated<R>> {
    let mut start = Vec::with_capacity(10);
    source.by_ref().take(10).read_to_end(&mut start)?;
    // Of bzip2, the first four bytes could be a name.
    let magic = start.strip_prefix(b"BZh").and_then(|rest| rest.get(1..)).unwrap_or(&start);
    if let Some((name, _)) = OTHERS.iter().find(|(_, other)| magic.starts_with(other)) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, OtherCompression(name)));
    }
    let gzip = start.starts_with(&[0x1f, 0x8b]);
    let zstd = are_frames(&start);
    let source = Cursor::new(start).chain(source);
    if gzip {
        let buffered = BufReader::with_capacity(1 << 17, source);
        return Ok(Inflated::Gzip(Box::new(MultiGzDecoder::new(buffered))));
    }
    if zstd {
        return Ok(Inflated::Zstd(Box::new(Frames::new(source, window)?)));
    }
    Ok(Inflated::Plain(source))
}

/// The largest window of zstd where nobody is asked for more: archives of caches, of root filesystems and of lifecycles. 128 MiB are what the
/// library itself allows.
pub(crate) const WINDOW_OF_OTHERS: u64 = 128 << 20;

/// The uncompressed bytes of a plain, gzip or zstd stream, told by its first bytes.
///
/// # Errors
///
/// When they cannot be read.
pub fn uncompressed<R: Read>(source: R) -> io::Result<impl Read> {
    inflate(source, WINDOW_OF_OTHERS)
}

impl<R: Read> Inflated<R> {
    /// Gives the source back; what the decoder had buffered of it counts as read.
    pub(crate) fn finish(self) -> io::Result<R> {
        let chained = match self {
            Self::Plain(source) => source,
            Self::Gzip(decoder) => decoder.into_inner().into_inner(),
            Self::Zstd(frames) => frames.into_inner(),
        };
        Ok(chained.into_inner().1)
    }
}

impl<R: Read> Read for Inflated<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(frames) => frames.read(buffer),
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
        let mut inflated = inflate(compressed, LARGEST_WINDOW)?;
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

    /// One frame that needs this window, of which only a little is used.
    fn with_window(log: u32) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(b"little").unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_window_larger_than_is_allowed_is_refused_by_its_length() {
        assert_eq!(round(&with_window(25)).unwrap(), b"little");
        let refused = |bytes: &[u8]| round(bytes).unwrap_err().to_string();
        let expected = |at: usize| {
            format!(
                "its zstd frame at byte {at} needs a window of 67108864 bytes, more than the 33554432 bytes that are allowed; if you trust it, allow more with --max-zstd-window, or make the image anew with a smaller window"
            )
        };
        assert_eq!(refused(&with_window(26)), expected(0));
        // The second frame, too, and whatever was passed over before it.
        let first = with_window(10);
        assert_eq!(refused(&[&first[..], &SKIP, &with_window(26)].concat()), expected(first.len() + 11));
        let mut read = Vec::new();
        inflate(&with_window(26)[..], 64 << 20).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, b"little");
        // A frame that says how long it is needs no more than that.
        let mut whole = zstd::bulk::Compressor::new(1).unwrap();
        whole.set_parameter(zstd::zstd_safe::CParameter::WindowLog(27)).unwrap();
        assert_eq!(round(&whole.compress(b"little").unwrap()).unwrap(), b"little");
        // The largest that can be written into a header, and one that is not there.
        assert!(refused(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0xff]).contains("a window of 4123168604160 bytes"));
        assert_eq!(refused(&[0x28, 0xb5, 0x2f, 0xfd, 0]), "failed to fill whole buffer");
    }

    /// A frame of three bytes that nobody reads.
    const SKIP: [u8; 11] = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, b'a', b'b', b'c'];

    #[test]
    fn zstd_of_several_frames_and_with_some_that_are_passed_over() {
        let text: Vec<u8> = (0..400_000u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        let frame = |part: &[u8], level| zstd::encode_all(part, level).unwrap();
        let (first, second) = text.split_at(1_000_001);
        let empty = frame(b"", 1);
        for parts in [
            vec![&frame(first, 3)[..], &frame(second, 19)],
            // As pzstd writes: before each frame its length.
            vec![&SKIP, &frame(first, 3), &SKIP, &frame(second, 1)],
            // As seekable and chunked streams end: with a table of what is in them.
            vec![&frame(first, 3), &empty, &frame(second, 1), &empty, &SKIP],
        ] {
            let bytes = parts.concat();
            assert!(round(&bytes).unwrap() == text);
            let cut = round(&bytes[..bytes.len() - 1]).unwrap_err();
            assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
            let more = round(&[&bytes[..], b"rubbish"].concat()).unwrap_err();
            let expected =
                format!("at byte {}, where a zstd frame has ended, another does not begin", bytes.len());
            assert_eq!(more.to_string(), expected);
        }
        assert!(round(&SKIP).unwrap().is_empty());
    }

    #[test]
    fn a_layer_waits_for_its_memory_and_gets_it() {
        let bytes = with_window(25);
        std::thread::scope(|scope| {
            let all = windows::WINDOWS.take(LARGEST_WINDOW);
            let before = windows::WINDOWS.state().came;
            let readers = [(); 3].map(|()| scope.spawn(|| round(&bytes).unwrap()));
            while windows::WINDOWS.state().came < before + 3 {
                assert!(!readers.iter().any(|reader| reader.is_finished()));
                std::thread::yield_now();
            }
            drop(all);
            for reader in readers {
                assert_eq!(reader.join().unwrap(), b"little");
            }
        });
    }
}
