//! Memory for the windows of compressed streams: all that this process reads at once share it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// All together, bytes: three windows of 8 MiB, which every decoder should have (RFC 8878, section 3.1.1.1.2). 64 MiB are for all of our
/// processes.
const ALL: u64 = 24 << 20;

/// The largest window where nobody allows more, bytes: zstd's levels up to 20 have none that is larger. It is had by one alone.
pub(crate) const LARGEST_WINDOW: u64 = 32 << 20;

pub(super) static WINDOWS: Windows = Windows::new(ALL);

/// Bytes to share out, first come, first served: nobody who needs much waits for ever.
#[derive(Debug)]
pub(super) struct Windows {
    all: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    taken: u64,
    /// Who came so manieth is next.
    next: u64,
    pub(super) came: u64,
}

/// Some of the bytes; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share<'a> {
    of: &'a Windows,
    bytes: u64,
}

impl Windows {
    const fn new(all: u64) -> Self {
        Self { all, state: Mutex::new(State { taken: 0, next: 0, came: 0 }), changed: Condvar::new() }
    }

    /// Waits until there are so many; for more than there are at all, until nobody else has any.
    pub(super) fn take(&self, bytes: u64) -> Share<'_> {
        let mut state = self.state();
        let number = state.came;
        state.came += 1;
        let must_wait = |state: &mut State| {
            state.next != number || state.taken > 0 && state.taken.saturating_add(bytes) > self.all
        };
        let waited = self.changed.wait_while(state, must_wait);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.next += 1;
        state.taken = state.taken.saturating_add(bytes);
        self.changed.notify_all();
        Share { of: self, bytes }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share<'_> {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut state = self.of.state();
        state.taken = state.taken.saturating_sub(self.bytes);
        self.of.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn never_more_is_taken_than_there_is_and_everybody_gets_theirs() {
        let windows = Windows::new(10);
        let (taken, most, served) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for bytes in [1, 4, 10, 3, 10, 2, 7, 5] {
                scope.spawn({
                    let (windows, taken, most, served) = (&windows, &taken, &most, &served);
                    move || {
                        for _ in 0..200 {
                            let share = windows.take(bytes);
                            let now = taken.fetch_add(share.bytes(), Ordering::SeqCst) + bytes;
                            most.fetch_max(now, Ordering::SeqCst);
                            thread::yield_now();
                            taken.fetch_sub(bytes, Ordering::SeqCst);
                            drop(share);
                            served.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 10, "{most:?}");
        assert_eq!((served.load(Ordering::SeqCst), windows.state().taken), (8 * 200, 0));
    }

    #[test]
    fn who_needs_all_is_served_before_those_who_came_later() {
        let windows = Windows::new(10);
        let order = Mutex::new(Vec::new());
        let first = windows.take(6);
        thread::scope(|scope| {
            for (place, bytes) in [(1, 10), (2, 4)] {
                while windows.state().came < place {
                    thread::yield_now();
                }
                scope.spawn({
                    let (windows, order) = (&windows, &order);
                    move || {
                        let share = windows.take(bytes);
                        order.lock().unwrap().push(share.bytes());
                    }
                });
            }
            while windows.state().came < 3 {
                thread::yield_now();
            }
            // The last could have had its four.
            assert_eq!(windows.state().taken, 6);
            drop(first);
        });
        assert_eq!(order.into_inner().unwrap(), [10, 4]);
    }

    #[test]
    fn more_than_there_is_goes_to_one_alone() {
        let windows = Windows::new(10);
        let large = windows.take(50);
        thread::scope(|scope| {
            let small = scope.spawn(|| windows.take(1));
            while windows.state().came < 2 {
                thread::yield_now();
            }
            assert_eq!(windows.state().taken, 50);
            drop(large);
            assert_eq!(small.join().unwrap().bytes(), 1);
        });
    }
}
