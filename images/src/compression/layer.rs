//! Layers on their way out: an archive goes in, gzip comes out, and both digests are known at the end.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use flate2::{Compress, Compression as Level, Crc, FlushCompress, Status};

use crate::digest::{Digest, Hashing};
use crate::document::{Descriptor, media};

/// So much is compressed apart from the rest: several processors can share a layer, and its bytes do not depend on how many
/// there are, nor on how the archive was cut.
const BLOCK: usize = 1 << 18;

/// More compressors than this would wait for the one who reads.
const MOST_THREADS: usize = 4;

/// Method deflate, no name and no time, fast, on an unknown system: equal archives make equal layers.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// An empty last block. Those before end at a byte, and none says that it is the last.
const END: [u8; 2] = [3, 0];

/// A layer made in one pass: archive in, gzip out, both digests known at the end.
#[derive(Debug)]
pub struct LayerWriter<W: Write> {
    blob: Hashing<GzipWriter<W>>,
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
        Self { blob: Hashing::new(GzipWriter::new(out)) }
    }

    /// Ends the layer.
    ///
    /// # Errors
    ///
    /// When the last bytes cannot be written.
    pub fn finish(self) -> io::Result<(W, WrittenLayer)> {
        let (blob, diff_id, _) = self.blob.finish();
        let (out, digest, size) = blob.finish()?;
        Ok((out, WrittenLayer { diff_id, digest, size }))
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
pub struct GzipWriter<W: Write> {
    out: Hashing<W>,
    block: Vec<u8>,
    checksum: Crc,
    /// Of this thread; most layers are small.
    own: Option<Compress>,
    threads: Option<Threads>,
}

impl<W: Write> GzipWriter<W> {
    /// Writes the compressed blob to `out`.
    pub fn new(out: W) -> Self {
        Self { out: Hashing::new(out), block: Vec::new(), checksum: Crc::new(), own: None, threads: None }
    }

    /// Ends the blob, and says what its digest and size are.
    ///
    /// # Errors
    ///
    /// When the last bytes cannot be written.
    pub fn finish(mut self) -> io::Result<(W, Digest, u64)> {
        if self.out.size() == 0 {
            self.out.write_all(&HEADER)?;
        }
        let rest = std::mem::take(&mut self.block);
        while let Some(done) = self.threads.as_mut().and_then(Threads::oldest) {
            self.pass(done?)?;
        }
        if !rest.is_empty() {
            let done = compressed(self.own.get_or_insert_with(compressor), rest)?;
            self.pass(done)?;
        }
        self.out.write_all(&END)?;
        self.out.write_all(&self.checksum.sum().to_le_bytes())?;
        self.out.write_all(&self.checksum.amount().to_le_bytes())?;
        self.out.flush()?;
        Ok(self.out.finish())
    }

    /// Hands the full block over to a thread, and leaves an empty one.
    fn submit(&mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        if self.out.size() == 0 {
            self.out.write_all(&HEADER)?;
        }
        let threads = self.threads.get_or_insert_with(Threads::start);
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

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK {
            self.submit()?;
        }
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// Nothing: see [`LayerWriter::flush`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A block after compression, with its memory to use again.
struct Compressed {
    block: Vec<u8>,
    bytes: Vec<u8>,
    checksum: Crc,
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
    fn start() -> Self {
        let count = thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        let at_once = 2 * count;
        let (tasks, waiting) = sync_channel::<Task>(at_once);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..count {
            let waiting = Arc::clone(&waiting);
            thread::spawn(move || {
                let mut compress = compressor();
                loop {
                    let task = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((block, to)) = task else { break };
                    // Whoever does not want it any more has an error to tell.
                    let _ = to.send(compressed(&mut compress, block));
                }
            });
        }
        Self { tasks, pending: VecDeque::new(), at_once }
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

fn compressor() -> Compress {
    Compress::new(Level::fast(), false)
}

/// Compresses a block so that it needs none of those before, and ends at a byte.
fn compressed(compress: &mut Compress, block: Vec<u8>) -> io::Result<Compressed> {
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
        let mut writer = LayerWriter::new(Vec::new());
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
        let mut writer = LayerWriter::new(Full);
        let written = writer.write_all(&vec![0; 4 * BLOCK]).unwrap_err();
        assert_eq!(written.kind(), io::ErrorKind::StorageFull);
    }
}
