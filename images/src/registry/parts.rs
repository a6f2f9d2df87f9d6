//! Content that comes slower than it is used: what lies further on is fetched beside it, by ranges (RFC 9110, section 14), each over a
//! connection of its own. Links with a long way, and registries that give each connection its share only, are used in full so.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use oci_client::errors::OciDistributionError;
use reqwest::StatusCode;
use reqwest::header::CONTENT_RANGE;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::read::Repository;

/// Bytes of a range; so many of each are in memory at most.
pub(super) const PART: u64 = 2 << 20;

/// How many ranges there are at once, of all that a client reads: 6 MiB.
const AT_ONCE: usize = 3;

/// Before this time nobody knows how fast a connection is: each begins slowly.
const LOOK: Duration = Duration::from_secs(1);

/// Bytes that a connection brings in a second at least, where to ask for ranges would take longer than it saves.
const FAST: u64 = 24 << 20;

/// What may be asked for beside the rest.
pub(super) fn permits() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(AT_ONCE))
}

/// What a connection brought, and how long its reader waited for it.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), waited: Duration::ZERO, bytes: 0 }
    }

    /// Waits for a piece, and counts both.
    pub(super) fn piece<E>(
        &mut self,
        wait: impl FnOnce() -> Result<Option<Bytes>, E>,
    ) -> Result<Option<Bytes>, E> {
        let began = Instant::now();
        let piece = wait();
        self.waited += began.elapsed();
        self.bytes += piece.iter().flatten().map(|bytes| bytes.len() as u64).sum::<u64>();
        piece
    }

    pub(super) fn is_slow(&self) -> bool {
        is_slow(self.bytes, self.waited, self.since.elapsed())
    }
}

/// Whether the connection is what everybody waits for, more than half of the time, and several would bring more.
fn is_slow(bytes: u64, waited: Duration, of: Duration) -> bool {
    of >= LOOK && waited * 2 > of && (bytes as f64) < FAST as f64 * of.as_secs_f64()
}

/// Ranges of some content on their way, in order.
#[derive(Debug)]
pub(super) struct Parts {
    permits: Arc<Semaphore>,
    pending: VecDeque<Part>,
    /// Where the next range begins, and the content ends.
    next: u64,
    end: u64,
}

#[derive(Debug)]
struct Part {
    pieces: UnboundedReceiver<io::Result<Bytes>>,
    task: JoinHandle<()>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Parts {
    /// Ranges of what lies between these bytes.
    pub(super) fn new(permits: Arc<Semaphore>, next: u64, end: u64) -> Self {
        Self { permits, pending: VecDeque::new(), next, end }
    }

    /// Asks for as many more as there may be. Whether any is on its way.
    pub(super) fn ask<E>(
        &mut self,
        runtime: &Runtime,
        digest: &str,
        connect: impl Fn() -> Result<Repository, E>,
    ) -> Result<bool, E> {
        while self.next < self.end
            && let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned()
        {
            let (repository, digest) = (connect()?, digest.to_owned());
            let (from, to) = (self.next, self.end.min(self.next + PART));
            let (sender, pieces) = unbounded_channel();
            let task = runtime.spawn(async move {
                if let Err(error) = fetch(&repository, &digest, from, to, &sender).await {
                    // Who does not want it any more has an error to tell.
                    let _ = sender.send(Err(error));
                }
            });
            self.pending.push_back(Part { pieces, task, _permit: permit });
            self.next = to;
        }
        Ok(!self.pending.is_empty())
    }

    /// The next piece; none where none is on its way any more.
    pub(super) fn next(&mut self, runtime: &Runtime) -> Option<io::Result<Bytes>> {
        while let Some(part) = self.pending.front_mut() {
            match runtime.block_on(part.pieces.recv()) {
                Some(piece) => return Some(piece),
                None => drop(self.pending.pop_front()),
            }
        }
        None
    }
}

/// Exactly these bytes, as they come.
async fn fetch(
    repository: &Repository,
    digest: &str,
    from: u64,
    to: u64,
    pieces: &UnboundedSender<io::Result<Bytes>>,
) -> io::Result<()> {
    let other = |error: OciDistributionError| io::Error::other(error);
    let mut response = repository.blob_part(digest, from, to).await.map_err(other)?;
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    if response.status() != StatusCode::PARTIAL_CONTENT
        || range.is_none_or(|range| !range.starts_with(&format!("bytes {from}-")))
    {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the registry gives no ranges"));
    }
    let mut left = to - from;
    while left > 0 {
        let piece = response.chunk().await.map_err(io::Error::other)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        left = left.checked_sub(piece.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
        if pieces.send(Ok(piece)).is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_slow_when_half_of_the_time_is_spent_waiting_for_little() {
        let slow =
            |bytes, waited, of| is_slow(bytes, Duration::from_millis(waited), Duration::from_millis(of));
        assert!(slow(0, 501, 1000) && slow(FAST - 1, 1000, 1000) && slow(FAST, 2000, 2000));
        assert!(!slow(0, 500, 1000) && !slow(0, 0, 1000));
        // Too early to tell, and too fast for it to be worth anything.
        assert!(!slow(0, 999, 999) && !slow(FAST, 1000, 1000));
    }
}
