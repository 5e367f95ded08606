//! Places in the log that several writers fill at the same time.
//!
//! Under the append lock a writer takes the lock of the key's shard and the next place in the log: so log and index agree on the
//! order of all writes to a key. It copies its record and changes the index while others go on behind it. Before
//! it lets anybody see that, it waits until all places before its own are filled: after a crash the log ends at the first gap.
//! (As insertions into the write-ahead log of PostgreSQL since 9.4.)

use std::sync::RwLockWriteGuard;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::thread::{sleep, yield_now};
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::index::{Position, Shard};
use crate::log::record::{self, DataFileEntry};
use crate::log::segment::{Segment, SegmentIo};

/// So many places are being filled at most. Their list is one cache line.
const MOST: usize = 8;
const FREE: u64 = u64::MAX;
/// Is added to where a place begins once it has been filled.
const FILLED: u64 = 1 << 63;

/// How a thread waits for what another one is about to do: first it looks again at once, then it lets others run.
const SPINS: u32 = 200;
const YIELDS: u32 = 1000;
/// The other thread may have a lower priority.
const NAP: Duration = Duration::from_micros(50);

/// The places that are being filled: where each begins, in bytes appended since open.
#[repr(align(64))]
pub(crate) struct Claims([AtomicU64; MOST]);

impl Default for Claims {
    fn default() -> Claims {
        Claims([const { AtomicU64::new(FREE) }; MOST])
    }
}

impl Claims {
    /// Notes a place that begins at `start`. Under the append lock.
    #[inline]
    pub(super) fn add(&self, start: u64) -> Turn<'_> {
        loop {
            if let Some(place) = self.0.iter().find(|place| place.load(Acquire) == FREE) {
                place.store(start, Release);
                return Turn { claims: self, place, start };
            }
            wait_until(|| self.0.iter().any(|place| place.load(Relaxed) == FREE));
        }
    }

    /// Waits until nothing is being filled. Under the append lock, so that nothing is added.
    #[inline]
    pub(crate) fn settle(&self) {
        self.0.iter().for_each(|place| wait_until(|| place.load(Acquire) == FREE));
    }
}

/// One of the places, until this is dropped.
pub(crate) struct Turn<'a> {
    claims: &'a Claims,
    place: &'a AtomicU64,
    start: u64,
}

impl Turn<'_> {
    /// Nobody needs to wait any more for what is in this place.
    pub(super) fn filled(&self) {
        self.place.store(self.start | FILLED, Release);
    }

    pub(super) fn await_earlier(&self) {
        self.claims.0.iter().for_each(|place| wait_until(|| place.load(Acquire) >= self.start));
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.place.store(FREE, Release);
    }
}

/// Where a record goes, and what its timestamp is.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub position: Position,
    pub len: u64,
    pub timestamp: i64,
}

/// A record's place that is being filled, and the shard that is to name it. Whoever has one takes no other lock of the store's,
/// as it may be waited for under the append lock. (Those of the index's memory and of the open files wait for nobody.)
pub(crate) struct Claim<'a> {
    pub place: Place,
    published: bool,
    pub shard: RwLockWriteGuard<'a, Shard>,
    turn: Turn<'a>,
}

impl<'a> Claim<'a> {
    pub(super) fn new(place: Place, shard: RwLockWriteGuard<'a, Shard>, turn: Turn<'a>) -> Claim<'a> {
        Claim { place, published: false, shard, turn }
    }

    /// Stores the record, which nobody sees yet.
    #[inline]
    pub(crate) fn fill(&self, entry: &DataFileEntry<'_>) -> Result<()> {
        self.store(|out| record::encode_record(entry, out))
    }

    /// Makes the record a part of the log, once all earlier ones are there.
    #[inline]
    pub(crate) fn publish(mut self) -> Result<()> {
        self.publish_now()
    }

    fn segment(&self) -> Result<&Segment> {
        self.shard.segment(self.place.position).map(|segment| &**segment)
    }

    fn store(&self, fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
        let (offset, len) = (self.place.position.offset() as usize, self.place.len as usize);
        let SegmentIo::Mapped(map) = self.segment()?.io() else { return Err(not_mapped()) };
        // SAFETY: the appender had blocks reserved for the place before it gave it away, so it is inside the file; it lies
        // behind the published end, where nobody reads, its pages have been made, and no other writer has been given it.
        unsafe { map.write(offset, len, fill) }.unwrap_or_else(|| Err(not_mapped()))
    }

    fn publish_now(&mut self) -> Result<()> {
        self.published = true;
        // Not earlier: as long as something can fail, other bytes may have to come here.
        self.turn.filled();
        self.turn.await_earlier();
        let segment = self.segment()?;
        segment.note_timestamp(self.place.timestamp);
        segment.publish_len(self.place.position.offset() + self.place.len);
        Ok(())
    }

    /// Fills the place with what changes nothing, as when there is no memory for the index: others may have filled theirs behind
    /// it. A short tombstone stays as it was stored, as no filler fits; after that only a panic can have led here.
    #[cold]
    fn leave_nothing(&self) -> Result<()> {
        let (segment, Place { len, timestamp, .. }) = (self.segment()?, self.place);
        if len < record::record_len(0, Some(0)) {
            return Ok(());
        }
        segment.add_tombstone(len);
        self.store(|out| {
            record::encode_filler(timestamp, segment.identity(), out);
            Ok(())
        })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.published {
            let _ = self.leave_nothing();
            let _ = self.publish_now();
        }
    }
}

#[inline]
fn wait_until(done: impl Fn() -> bool) {
    if !done() {
        wait_longer(done);
    }
}

#[cold]
fn wait_longer(done: impl Fn() -> bool) {
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

#[cold]
fn not_mapped() -> Error {
    Error::new(Code::Internal, "a place in the log that is not mapped")
}
