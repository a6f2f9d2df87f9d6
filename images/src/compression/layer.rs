//! Layers on their way out: an archive goes in, a blob comes out, and both digests are known at the end.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use flate2::Crc;

use super::block::{Compressed, Compressor};
use super::choice::{LayerCompression, Method};
use crate::digest::{Digest, Hashing};
use crate::document::Descriptor;

/// So much is compressed apart from the rest: several processors can share a layer, and its bytes do not depend on how many
/// there are, nor on how the archive was cut.
const BLOCK: usize = 1 << 18;

/// The same with zstd, which has more use of what came before; each block is a frame (RFC 8878, section 3).
const FRAME: usize = 1 << 19;

/// More compressors than this would wait for the one who reads.
const MOST_THREADS: usize = 4;

/// Method deflate, no name and no time, fast, on an unknown system: equal archives make equal layers.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// An empty last block. Those before end at a byte, and none says that it is the last.
const END: [u8; 2] = [3, 0];

/// A layer made in one pass: archive in, blob out, both digests known at the end.
#[derive(Debug)]
pub struct LayerWriter<W: Write> {
    blob: Hashing<CompressedWriter<W>>,
}

/// A finished layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenLayer {
    /// Digest of the archive.
    pub diff_id: Digest,
    /// Digest of the compressed archive.
    pub digest: Digest,
    /// Length of the compressed archive, bytes.
    pub size: u64,
    /// How it was compressed.
    pub compression: LayerCompression,
}

impl WrittenLayer {
    /// The layer as an image lists it.
    #[must_use]
    pub fn layer(&self) -> crate::image::Layer {
        crate::image::Layer {
            descriptor: Descriptor::new(self.compression.media_type(), self.digest.clone(), self.size),
            diff_id: self.diff_id.clone(),
        }
    }
}

impl<W: Write> LayerWriter<W> {
    /// Writes the compressed layer to `out`.
    pub fn new(out: W, compression: LayerCompression) -> Self {
        Self { blob: Hashing::new(CompressedWriter::new(out, compression)) }
    }

    /// Ends the layer.
    ///
    /// # Errors
    ///
    /// When the last bytes cannot be written.
    pub fn finish(self) -> io::Result<(W, WrittenLayer)> {
        let (blob, diff_id, _) = self.blob.finish();
        let compression = blob.compression;
        let (out, digest, size) = blob.finish()?;
        Ok((out, WrittenLayer { diff_id, digest, size, compression }))
    }
}

impl<W: Write> Write for LayerWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.blob.write(bytes)
    }

    /// Nothing: a flush in the middle of a layer would show in its bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As [`LayerWriter`], for those who know the archive's digest.
#[derive(Debug)]
pub struct CompressedWriter<W: Write> {
    out: Hashing<W>,
    compression: LayerCompression,
    block: Vec<u8>,
    checksum: Crc,
    /// Of this thread; most layers are small.
    own: Option<Compressor>,
    threads: Option<Threads>,
}

impl<W: Write> CompressedWriter<W> {
    /// Writes the compressed blob to `out`.
    pub fn new(out: W, compression: LayerCompression) -> Self {
        let (block, checksum, out) = (Vec::new(), Crc::new(), Hashing::new(out));
        Self { out, compression, block, checksum, own: None, threads: None }
    }

    /// How it is compressed.
    pub fn compression(&self) -> LayerCompression {
        self.compression
    }

    /// Ends the blob, and says what its digest and size are.
    ///
    /// # Errors
    ///
    /// When the last bytes cannot be written.
    pub fn finish(mut self) -> io::Result<(W, Digest, u64)> {
        let rest = std::mem::take(&mut self.block);
        self.begin()?;
        while let Some(done) = self.threads.as_mut().and_then(Threads::oldest) {
            self.pass(done?)?;
        }
        // Of nothing, too, there is a frame.
        let is_missing = self.compression.method == Method::Zstd && self.out.size() == 0;
        if !rest.is_empty() || is_missing {
            let mut own = match self.own.take() {
                Some(own) => own,
                None => Compressor::new(self.compression)?,
            };
            self.pass(own.compress(rest)?)?;
        }
        if self.compression.method == Method::Gzip {
            self.out.write_all(&END)?;
            self.out.write_all(&self.checksum.sum().to_le_bytes())?;
            self.out.write_all(&self.checksum.amount().to_le_bytes())?;
        }
        self.out.flush()?;
        Ok(self.out.finish())
    }

    fn begin(&mut self) -> io::Result<()> {
        let begins = self.compression.method == Method::Gzip && self.out.size() == 0;
        if begins { self.out.write_all(&HEADER) } else { Ok(()) }
    }

    /// Hands the full block over to a thread, and leaves an empty one.
    fn submit(&mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        self.begin()?;
        let threads = match &mut self.threads {
            Some(threads) => threads,
            none => none.insert(Threads::start(self.compression)?),
        };
        let done = if threads.is_busy() { threads.oldest() } else { None };
        threads.submit(block)?;
        done.map_or(Ok(()), |done| self.pass(done?))
    }

    fn pass(&mut self, done: Compressed) -> io::Result<()> {
        self.checksum.combine(&done.checksum);
        self.block = done.block;
        self.block.clear();
        self.out.write_all(&done.bytes)
    }
}

impl<W: Write> Write for CompressedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = match self.compression.method {
            Method::None => return self.out.write(bytes),
            Method::Gzip => BLOCK,
            Method::Zstd => FRAME,
        };
        if self.block.len() == length {
            self.submit()?;
        }
        let taken = bytes.len().min(length - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// Nothing: see [`LayerWriter::flush`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A block on its way to a compressor, and where it goes then.
type Task = (Vec<u8>, SyncSender<io::Result<Compressed>>);

/// Threads that compress the blocks of one layer. They end when this value does.
#[derive(Debug)]
struct Threads {
    tasks: SyncSender<Task>,
    pending: VecDeque<Receiver<io::Result<Compressed>>>,
    at_once: usize,
}

impl Threads {
    fn start(compression: LayerCompression) -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        let at_once = 2 * count;
        let (tasks, waiting) = sync_channel::<Task>(at_once);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..count {
            let (waiting, mut own) = (Arc::clone(&waiting), Compressor::new(compression)?);
            thread::spawn(move || {
                loop {
                    let task = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((block, to)) = task else { break };
                    // Whoever does not want it any more has an error to tell.
                    let _ = to.send(own.compress(block));
                }
            });
        }
        Ok(Self { tasks, pending: VecDeque::new(), at_once })
    }

    fn is_busy(&self) -> bool {
        self.pending.len() >= self.at_once
    }

    fn submit(&mut self, block: Vec<u8>) -> io::Result<()> {
        let (to, from) = sync_channel(1);
        self.tasks.send((block, to)).map_err(|_| ended())?;
        self.pending.push_back(from);
        Ok(())
    }

    /// Waits for the oldest block; nothing where none is on its way.
    fn oldest(&mut self) -> Option<io::Result<Compressed>> {
        let from = self.pending.pop_front()?;
        Some(from.recv().unwrap_or_else(|_| Err(ended())))
    }
}

fn ended() -> io::Error {
    io::Error::other("a compressor ended early")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn round(compressed: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        // Not one that knows of several members: this must be a single one.
        flate2::read::GzDecoder::new(compressed).read_to_end(&mut out).unwrap();
        out
    }

    fn make(text: &[u8], size: usize) -> Vec<u8> {
        make_with(text, size, LayerCompression::default())
    }

    fn make_with(text: &[u8], size: usize, compression: LayerCompression) -> Vec<u8> {
        let mut writer = LayerWriter::new(Vec::new(), compression);
        for part in text.chunks(size) {
            writer.write_all(part).unwrap();
            writer.flush().unwrap();
        }
        let (bytes, written) = writer.finish().unwrap();
        assert_eq!(written.diff_id, Digest::of(text));
        assert_eq!((written.digest, written.size), (Digest::of(&bytes), bytes.len() as u64));
        bytes
    }

    #[test]
    fn equal_archives_equal_layers_however_they_are_written() {
        let text: Vec<u8> = (0..1_200_000u32).flat_map(|n| (n.wrapping_mul(n) / 7).to_le_bytes()).collect();
        let whole = make(&text, text.len());
        assert_eq!(round(&whole), text);
        assert_eq!(whole[..10], HEADER);
        for size in [511, 8191, 65_536, BLOCK, BLOCK + 1] {
            assert_eq!(make(&text, size), whole, "in parts of {size}");
        }
    }

    #[test]
    fn of_any_length_and_any_content() {
        let noise: Vec<u8> =
            (0..BLOCK as u64 * 3).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 29) as u8).collect();
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK] {
            assert_eq!(round(&make(&noise[..length], 1 << 16)), noise[..length], "{length}");
            let zeros = vec![0; length];
            assert_eq!(round(&make(&zeros, 1 << 16)), zeros, "{length} zeros");
        }
    }

    #[test]
    fn by_choice_with_another_level_with_zstd_or_not_at_all() {
        let text: Vec<u8> = (0..600_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for (name, magic) in
            [("gzip:6", &HEADER[..]), ("zstd", &[0x28, 0xb5, 0x2f, 0xfd]), ("none", &text[..9])]
        {
            let compression = name.parse().unwrap();
            for length in [0, 1, FRAME - 1, FRAME, FRAME + 1, text.len()] {
                let text = &text[..length];
                let made = make_with(text, 1 << 16, compression);
                let mut read = Vec::new();
                crate::uncompressed(&made[..]).unwrap().read_to_end(&mut read).unwrap();
                assert!(read == text, "{name}: {length}");
                assert!(made.starts_with(&magic[..magic.len().min(made.len())]), "{name}: {length}");
                assert_eq!(made.is_empty(), name == "none" && length == 0, "{name}: {length}");
                assert_eq!(make_with(text, 511, compression), made, "{name}: {length}");
            }
            let parts = make_with(&text, 1 << 20, compression).len();
            assert_eq!(parts < make(&text, 1 << 20).len(), name != "none", "{name}");
        }
    }

    /// What images of earlier versions have, they have again: their layers are not sent anew.
    #[test]
    fn unless_told_otherwise_the_bytes_are_those_of_ever() {
        let text: Vec<u8> = (0..300_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        assert_eq!(
            Digest::of(make(&text, 1 << 16)).hex(),
            "6ea23dce01dbea947087eb3961473090e725915028206f852c997350253ac0c5"
        );
    }

    #[test]
    fn the_first_error_of_the_output_is_told() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = LayerWriter::new(Full, LayerCompression::default());
        let written = writer.write_all(&vec![0; 4 * BLOCK]).unwrap_err();
        assert_eq!(written.kind(), io::ErrorKind::StorageFull);
    }
}
