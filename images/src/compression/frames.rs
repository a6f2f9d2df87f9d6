//! zstd streams, a frame at a time ([RFC 8878], section 3). Each says first how much of what came before it must be remembered: that much
//! memory is asked for before anything of it is read.
//!
//! [RFC 8878]: https://www.rfc-editor.org/rfc/rfc8878

use std::io::{self, BufRead, BufReader, Read};

use zstd::stream::raw::{DParameter, Decoder, Operation as _};

use super::windows::{Share, WINDOWS};

/// What each frame begins with.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Frames that readers pass over begin with these, behind a byte from 0x50 to 0x5f. Tools put lengths and tables of contents there.
const SKIPPED: [u8; 3] = [0x2a, 0x4d, 0x18];

/// The largest window that the library knows (`ZSTD_WINDOWLOG_MAX_64`). Before it decides, we have.
const LARGEST_LOG: u32 = 31;

/// A frame wants more memory than there is for it.
#[derive(Debug, thiserror::Error)]
#[error(
    "its zstd frame at byte {at} needs a window of {window} bytes, more than the {most} bytes that are allowed; if you trust it, allow more with --max-zstd-window, or make the image anew with a smaller window"
)]
struct WindowTooLarge {
    at: u64,
    window: u64,
    most: u64,
}

/// One that has no window yet.
fn decoder() -> io::Result<Decoder<'static>> {
    let mut decoder = Decoder::new()?;
    decoder.set_parameter(DParameter::WindowLogMax(LARGEST_LOG))?;
    Ok(decoder)
}

/// Whether a stream with these first bytes is one of zstd.
pub(super) fn are_frames(start: &[u8]) -> bool {
    start.starts_with(&MAGIC) || is_skipped(start)
}

fn is_skipped(start: &[u8]) -> bool {
    matches!(start.split_first(), Some((0x50..=0x5f, rest)) if rest.starts_with(&SKIPPED))
}

/// The uncompressed bytes of all frames of a stream.
pub(crate) struct Frames<R: Read> {
    source: BufReader<R>,
    decoder: Decoder<'static>,
    /// The largest window of a frame, bytes.
    most: u64,
    /// The header of this frame, as far as the decoder has not had it.
    head: Vec<u8>,
    fed: usize,
    /// Whether a frame has begun and not ended.
    is_inside: bool,
    /// How much of the stream was read.
    at: u64,
    share: Option<Share<'static>>,
}

impl<R: Read> Frames<R> {
    /// Frames whose windows have at most so many bytes.
    pub(super) fn new(source: R, most: u64) -> io::Result<Self> {
        let decoder = decoder()?;
        let source = BufReader::with_capacity(1 << 17, source);
        Ok(Self { source, decoder, most, head: Vec::new(), fed: 0, is_inside: false, at: 0, share: None })
    }

    pub(super) fn into_inner(self) -> R {
        self.source.into_inner()
    }

    /// Reads the next frame's header; false at the end of the stream.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            let at = self.at;
            self.head.clear();
            self.fed = 0;
            self.more(4)?;
            match self.head.len() {
                0 => return Ok(false),
                4 => {}
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            if is_skipped(&self.head) {
                let length = u64::from(u32::from_le_bytes(self.exactly()?));
                let skipped = io::copy(&mut self.source.by_ref().take(length), &mut io::sink())?;
                self.at += skipped;
                if skipped < length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            }
            if self.head != MAGIC {
                let why = format!("at byte {at}, where a zstd frame has ended, another does not begin");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            let window = self.window()?;
            if window > self.most {
                let error = WindowTooLarge { at, window, most: self.most };
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            if self.share.as_ref().is_none_or(|share| share.bytes() < window) {
                // Whoever waits holds nothing, so that somebody goes on.
                self.decoder = decoder()?;
                self.share = None;
                self.share = Some(WINDOWS.take(window));
            }
            self.is_inside = true;
            return Ok(true);
        }
    }

    /// The rest of the header, and how many bytes the decoder needs to remember (section 3.1.1.1).
    fn window(&mut self) -> io::Result<u64> {
        let [descriptor] = self.exactly()?;
        let is_single = descriptor & 0x20 != 0;
        let mut window = None;
        if !is_single {
            let [byte] = self.exactly()?;
            let base = 1u64 << (10 + (byte >> 3));
            window = Some(base + base / 8 * u64::from(byte & 7));
        }
        self.more([0, 1, 2, 4][usize::from(descriptor & 3)])?;
        let content = match descriptor >> 6 {
            0 if is_single => Some(u64::from(u8::from_le_bytes(self.exactly()?))),
            0 => None,
            1 => Some(u64::from(u16::from_le_bytes(self.exactly()?)) + 256),
            2 => Some(u64::from(u32::from_le_bytes(self.exactly()?))),
            _ => Some(u64::from_le_bytes(self.exactly()?)),
        };
        // Nothing before the frame's own first byte is ever remembered.
        Ok(window.into_iter().chain(content).min().unwrap_or(u64::MAX))
    }

    /// So many bytes of the header.
    fn exactly<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes)?;
        self.at += N as u64;
        self.head.extend_from_slice(&bytes);
        Ok(bytes)
    }

    /// As that, but fewer at the end of the stream.
    fn more(&mut self, length: usize) -> io::Result<()> {
        let read = self.source.by_ref().take(length as u64).read_to_end(&mut self.head)?;
        self.at += read as u64;
        Ok(())
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if buffer.is_empty() {
                return Ok(0);
            }
            if !self.is_inside && !self.begin()? {
                self.share = None;
                return Ok(0);
            }
            let is_head = self.fed < self.head.len();
            let input = if is_head { &self.head[self.fed..] } else { self.source.fill_buf()? };
            let is_end = input.is_empty();
            let step = self.decoder.run_on_buffers(input, buffer)?;
            if is_head {
                self.fed += step.bytes_read;
            } else {
                self.source.consume(step.bytes_read);
                self.at += step.bytes_read as u64;
            }
            self.is_inside = step.remaining > 0;
            if step.bytes_written > 0 {
                return Ok(step.bytes_written);
            }
            if is_end && self.is_inside {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
