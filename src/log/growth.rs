//! How far a segment has been written, by several writers at the same time.
//!
//! A writer may fill his place while those before it are still being filled, but nobody is to see it earlier than those: after a
//! crash the log ends at the first gap. Whoever has filled the first one publishes it, and with it those behind it that are filled
//! already. Their writers need not run for that: where there are more of them than processors, each would have to wait for his
//! turn to run before the next one could go on.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::*};
use std::thread::{sleep, yield_now};
use std::time::Duration;

/// So many bits of a hash choose where it is noted that a place is filled.
const CHOICE_BITS: u32 = 6;
/// What is noted is where the place begins, and in the lowest bits its size.
const SIZE_BITS: u32 = 16;
const NOTHING: u64 = 0;

/// How a thread waits for what another one is about to do: first it looks again at once, then it lets others run.
const SPINS: u32 = 200;
const YIELDS: u32 = 1000;
/// The other thread may have a lower priority.
const NAP: Duration = Duration::from_micros(50);

/// What changes with every record that is appended. On lines of its own: nothing else of a segment changes as often.
#[repr(align(64))]
pub(super) struct Growth {
    /// Bytes that hold the header and frames. Grows while the segment is active.
    len: AtomicU64,
    min_timestamp: AtomicI64,
    /// Places that are filled while one before them is not.
    filled: [AtomicU64; 1 << CHOICE_BITS],
}

impl Growth {
    pub(super) fn new(len: u64) -> Growth {
        let filled = [const { AtomicU64::new(NOTHING) }; 1 << CHOICE_BITS];
        Growth { len: AtomicU64::new(len), min_timestamp: AtomicI64::new(i64::MAX), filled }
    }

    #[inline]
    pub(super) fn len(&self) -> u64 {
        self.len.load(Acquire)
    }

    pub(super) fn min_timestamp(&self) -> i64 {
        self.min_timestamp.load(Relaxed)
    }

    #[inline]
    pub(super) fn note_timestamp(&self, timestamp: i64) {
        if timestamp < self.min_timestamp() {
            self.min_timestamp.fetch_min(timestamp, Relaxed);
        }
    }

    /// Publishes a place that has been filled, once all before it are.
    #[inline]
    pub(super) fn publish(&self, start: u64, size: u64) {
        if !self.try_publish(start, size) {
            self.publish_later(start, size);
        }
    }

    /// Publishes a place and those behind it that are filled. False if one before it has not been published.
    #[inline]
    fn try_publish(&self, start: u64, size: u64) -> bool {
        debug_assert!(size > 0, "an empty place cannot be told from the next one");
        let (mut end, mut size) = (start, size);
        while self.len.compare_exchange(end, end + size, SeqCst, Relaxed).is_ok() {
            end += size;
            // Whoever fills the place there notes it before he looks how long the segment is: either it is seen here, or he
            // sees what has just been published.
            let place = self.note(end).load(SeqCst);
            if place >> SIZE_BITS != end {
                return true;
            }
            size = place & ((1 << SIZE_BITS) - 1);
        }
        end > start
    }

    #[cold]
    fn publish_later(&self, start: u64, size: u64) {
        let (note, place) = (self.note(start), start << SIZE_BITS | size);
        // Should another place be noted there, this one is not until that is published.
        let mut noted = false;
        wait_until(|| {
            noted = noted || size >> SIZE_BITS == 0 && note.compare_exchange(NOTHING, place, SeqCst, Relaxed).is_ok();
            let len = self.len.load(SeqCst);
            len > start || len == start && self.try_publish(start, size)
        });
        if noted {
            note.store(NOTHING, Release);
        }
    }

    /// Where it is noted that the place that begins at `start` is filled (Knuth's multiplicative hashing).
    #[inline]
    fn note(&self, start: u64) -> &AtomicU64 {
        &self.filled[(start.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - CHOICE_BITS)) as usize]
    }

    /// Waits until everything before `end` is published.
    #[inline]
    pub(super) fn await_len(&self, end: u64) {
        if self.len() < end {
            wait_until(|| self.len() >= end);
        }
    }
}

#[cold]
fn wait_until(mut done: impl FnMut() -> bool) {
    let mut tries = 0;
    while !done() {
        match tries {
            0..SPINS => std::hint::spin_loop(),
            SPINS..YIELDS => yield_now(),
            _ => sleep(NAP),
        }
        tries = (tries + 1).min(YIELDS);
    }
}

#[cfg(test)]
mod tests {
    use std::thread::scope;

    use super::*;
    use crate::append::tests::{eventually, waits};

    #[test]
    fn a_place_is_published_once_all_before_it_are() {
        let growth = Growth::new(64);
        assert!(!growth.try_publish(164, 50));
        let noted = || growth.note(164).load(Relaxed) == 164 << SIZE_BITS | 50;
        let publish_first = || {
            let noted = eventually(noted);
            growth.publish(64, 100);
            assert!(noted);
        };
        assert!(waits(|| growth.publish(164, 50), publish_first));
        assert_eq!(growth.len(), 214);
        assert!(!noted());
        assert!(waits(|| growth.await_len(215), || growth.publish(214, 1 << 20)));
    }

    #[test]
    fn whoever_fills_the_first_place_publishes_what_is_filled_behind_it() {
        let growth = Growth::new(64);
        // Those who wait for that do not come to run meanwhile.
        for start in [164, 174, 194] {
            growth.note(start).store(start << SIZE_BITS | 10, Relaxed);
        }
        assert!(growth.try_publish(64, 100));
        assert_eq!(growth.len(), 184);
        assert!(growth.try_publish(184, 10));
        assert_eq!(growth.len(), 204);
    }

    #[test]
    fn of_two_places_that_are_noted_in_the_same_spot_both_are_published() {
        let growth = Growth::new(64);
        let same_spot = |start: &u64| std::ptr::eq(growth.note(*start), growth.note(100));
        let second = (101..).find(same_spot).unwrap();
        let wait_for_both = || {
            scope(|threads| {
                threads.spawn(|| growth.publish(100, second - 100));
                threads.spawn(|| growth.publish(second, 10));
            });
        };
        assert!(waits(wait_for_both, || growth.publish(64, 36)));
        assert_eq!((growth.len(), growth.note(100).load(Relaxed)), (second + 10, NOTHING));
    }

    #[test]
    fn more_places_than_can_be_noted_are_published() {
        let growth = Growth::new(64);
        let end = AtomicU64::new(64);
        const THREADS: u64 = 100;
        const EACH: u64 = 200;
        scope(|threads| {
            for size in 1..=THREADS {
                let (growth, end) = (&growth, &end);
                // Some are larger than what can be noted.
                let size = if size == THREADS { 1 << SIZE_BITS } else { size };
                threads.spawn(move || {
                    for _ in 0..EACH {
                        let start = end.fetch_add(size, Relaxed);
                        growth.publish(start, size);
                        assert!(growth.len() >= start + size);
                    }
                });
            }
        });
        assert_eq!(growth.len(), end.into_inner());
        assert!(growth.filled.iter().all(|note| note.load(Relaxed) == NOTHING));
    }
}
