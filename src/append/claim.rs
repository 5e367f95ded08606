//! Places in the log that several writers fill at the same time.
//!
//! Under the append lock a writer takes the lock of the key's shard and the next place in the log: so log and index agree on the
//! order of all writes to a key. It copies its record and changes the index while others go on behind it, and lets others see that
//! once all places before its own are filled. (As insertions into the write-ahead log of PostgreSQL since 9.4.)

use std::sync::RwLockWriteGuard;

use crate::error::{Code, Error, Result};
use crate::index::{Position, Shard};
use crate::log::record::{self, DataFileEntry};
use crate::log::segment::{Segment, SegmentIo};

/// Where a record goes, and what its timestamp is.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub position: Position,
    pub len: u64,
    pub timestamp: i64,
}

/// A record's place that is being filled, and the shard that is to name it. It must come to be published: all who write wait for
/// that. Whoever has one takes no other lock of the store's, as it may be waited for under the append lock. (Those of the index's
/// memory and of the open files wait for nobody.)
pub(crate) struct Claim<'a> {
    pub place: Place,
    published: bool,
    pub shard: RwLockWriteGuard<'a, Shard>,
}

impl<'a> Claim<'a> {
    pub(super) fn new(place: Place, shard: RwLockWriteGuard<'a, Shard>) -> Claim<'a> {
        Claim { place, published: false, shard }
    }

    /// Stores the record, which nobody sees yet.
    #[inline]
    pub(crate) fn fill(&self, entry: &DataFileEntry<'_>) -> Result<()> {
        self.store(|out| record::encode_record(entry, out))
    }

    /// Makes the record a part of the log, once all earlier ones are there. Nothing is to be changed after this: the log counts as
    /// settled as soon as it has happened, even if this thread does not run meanwhile.
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
        let segment = self.segment()?;
        segment.note_timestamp(self.place.timestamp);
        segment.publish(self.place.position.offset(), self.place.len);
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

#[cold]
fn not_mapped() -> Error {
    Error::new(Code::Internal, "a place in the log that is not mapped")
}
