//! Reading ahead: one thread makes what another uses.

use std::io::{self, Read};
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// Bytes of a piece.
const PIECE: usize = 1 << 18;

/// How many pieces there are at most, and so how far the reading thread gets ahead.
const PIECES: usize = 6;

/// What was read of a source.
struct Piece {
    bytes: Vec<u8>,
    length: usize,
}

/// What a thread of its own reads, in order; an error comes where it happened.
pub(crate) struct ReadAhead {
    full: Receiver<io::Result<Piece>>,
    empty: Sender<Piece>,
    current: Option<Piece>,
    used: usize,
}

/// Does `job` with what a thread reads from `source` meanwhile, and gives the source back. Where the job does not read to the end, no more
/// than [`PIECES`] of [`PIECE`] bytes more were read.
pub(crate) fn ahead<R: Read + Send, T>(mut source: R, job: impl FnOnce(&mut ReadAhead) -> T) -> (T, R) {
    let (filled, full) = channel();
    let (empty, emptied) = channel();
    for _ in 0..PIECES {
        // The receiver is there.
        let _ = empty.send(Piece { bytes: Vec::new(), length: 0 });
    }
    thread::scope(|scope| {
        let reading = scope.spawn(move || {
            read(&mut source, &emptied, &filled);
            drop((emptied, filled));
            source
        });
        let mut ahead = ReadAhead { full, empty, current: None, used: 0 };
        let done = job(&mut ahead);
        drop(ahead);
        (done, reading.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// Until the end, an error, or nobody wants more.
fn read(source: &mut impl Read, emptied: &Receiver<Piece>, filled: &Sender<io::Result<Piece>>) {
    while let Ok(Piece { mut bytes, .. }) = emptied.recv() {
        bytes.resize(PIECE, 0);
        let mut length = 0;
        let ended = loop {
            match source.read(&mut bytes[length..]) {
                Ok(0) => break Some(Ok(())),
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(Err(error)),
            }
            if length == PIECE {
                break None;
            }
        };
        let is_wanted = filled.send(Ok(Piece { bytes, length })).is_ok();
        if let Some(Err(error)) = ended {
            // Whoever does not want it any more has an error to tell.
            let _ = filled.send(Err(error));
            return;
        }
        if ended.is_some() || !is_wanted {
            return;
        }
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(piece) = &self.current {
                let left = &piece.bytes[self.used..piece.length];
                if !left.is_empty() || buffer.is_empty() {
                    let length = left.len().min(buffer.len());
                    buffer[..length].copy_from_slice(&left[..length]);
                    self.used += length;
                    return Ok(length);
                }
            }
            let Ok(next) = self.full.recv() else { return Ok(0) };
            if let Some(used) = self.current.replace(next?) {
                // At the end nobody takes it.
                let _ = self.empty.send(used);
            }
            self.used = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Gives so many bytes, a few at a time, and counts them; after that an error, if there is one.
    struct Source<'a> {
        left: usize,
        given: &'a AtomicUsize,
        error: Option<io::Error>,
    }

    impl Read for Source<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.left == 0 {
                return self.error.take().map_or(Ok(0), Err);
            }
            let length = buffer.len().min(self.left).min(10_007);
            let given = self.given.fetch_add(length, Ordering::Relaxed);
            for (place, byte) in buffer[..length].iter_mut().enumerate() {
                *byte = u8::try_from((given + place) % 251).unwrap();
            }
            self.left -= length;
            Ok(length)
        }
    }

    #[test]
    fn everything_comes_in_order_and_the_source_comes_back() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECES * PIECE + 17] {
            let given = AtomicUsize::new(0);
            let source = Source { left: length, given: &given, error: None };
            let (bytes, source) = ahead(source, |ahead| {
                let mut bytes = Vec::new();
                ahead.read_to_end(&mut bytes).unwrap();
                bytes
            });
            assert_eq!((bytes.len(), source.left), (length, 0));
            assert!(
                bytes.iter().enumerate().all(|(place, byte)| usize::from(*byte) == place % 251),
                "{length}"
            );
        }
    }

    #[test]
    fn an_error_comes_behind_what_was_read_before_it() {
        let given = AtomicUsize::new(0);
        let source = Source { left: PIECE + 5, given: &given, error: Some(io::Error::other("broken")) };
        let (read, _) = ahead(source, |ahead| {
            let mut bytes = Vec::new();
            let error = ahead.read_to_end(&mut bytes).unwrap_err();
            (bytes.len(), error.to_string())
        });
        assert_eq!(read, (PIECE + 5, "broken".to_owned()));
    }

    #[test]
    fn not_more_is_read_than_there_are_pieces() {
        let given = AtomicUsize::new(0);
        let source = Source { left: 100 * PIECE, given: &given, error: None };
        ahead(source, |ahead| ahead.read_exact(&mut [0; 10]).unwrap());
        assert!(given.load(Ordering::Relaxed) <= PIECES * PIECE, "{given:?}");
    }

    #[test]
    #[should_panic(expected = "the source's own")]
    fn a_panic_of_the_source_is_not_taken_for_the_end() {
        struct Panics;
        impl Read for Panics {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                panic!("the source's own")
            }
        }
        let _ = ahead(Panics, |ahead| ahead.read_to_end(&mut Vec::new()).unwrap());
    }
}
