//! The end of the log: the active segment, how records are appended to it, and how it gives way to the next.
//!
//! Everything here happens under the append lock, so all writers agree on one order; but a place that a writer has [`claim`]ed he
//! fills without, and [`pages`] are made by a thread behind all that has been written.

mod active;
mod claim;
mod factory;
mod pages;
#[cfg(test)]
pub(crate) mod tests;

use std::ops::Deref;
use std::sync::{Arc, Mutex, RwLockWriteGuard};

use crate::error::{Code, Error, Result};
use crate::index::{Index, Position, Shard};
use crate::log::header::{HEADER_LEN, LogEnd, Role};
use crate::log::record::{self, DataFileEntry, MARK_LEN};
use crate::log::segment::{Segment, SegmentIo, State, file_name};
use crate::storage::{File, write_all_at};
use active::{Active, LARGE_FRAME, MIN_GROWTH};
pub(crate) use claim::Claim;
use claim::Place;
pub(crate) use factory::{OpenSegment, SegmentFactory};
pub(crate) use pages::PageMaker;

/// This fraction of a segment is for tombstones alone, so that deleting works on a full disk.
const HEADROOM_FRACTION: u64 = 64;
/// A log that has grown to this keeps a reserve.
const RESERVE_FROM: u64 = 1 << 20;
/// A larger buffer is not kept for the next batch. Batches over this are stored through the map after all.
const MOST_SCRATCH: usize = 4 << 20;

/// The append lock. What it guards changes with every write, so no line of it is one that others only read: where two processors
/// have far between them, a line that one writes costs the other as much as one from memory. What each write changes is on the
/// line of the lock itself, so that no more than this one goes from writer to writer.
#[repr(align(64))]
pub(crate) struct AppendLock(Mutex<Appender>);

impl AppendLock {
    pub(crate) fn new(appender: Appender) -> AppendLock {
        AppendLock(Mutex::new(appender))
    }
}

impl Deref for AppendLock {
    type Target = Mutex<Appender>;

    fn deref(&self) -> &Mutex<Appender> {
        &self.0
    }
}

/// The end of the log. In the order of memory: see [`AppendLock`].
#[repr(C)]
pub(crate) struct Appender {
    /// The largest timestamp given so far.
    pub last_timestamp: i64,
    /// Bytes appended since open: a position in the order of all writes.
    pub appended: u64,
    active: Option<Active>,
    factory: Arc<SegmentFactory>,
    /// Log segments that are complete but not synced, oldest first.
    pub rotated: Vec<OpenSegment>,
    /// Log segments that are complete and synced, but not sealed yet.
    pub synced: Vec<OpenSegment>,
    /// Where the newest log segment ended that takes no more appends.
    log_end: LogEnd,
    scratch: Vec<u8>,
}

impl Appender {
    pub(crate) fn new(factory: Arc<SegmentFactory>, last_timestamp: i64, log_end: LogEnd) -> Appender {
        Appender {
            factory,
            active: None,
            last_timestamp,
            appended: 0,
            log_end,
            rotated: Vec::new(),
            synced: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Goes on appending to the last segment of an existing log.
    pub(crate) fn resume(&mut self, open: OpenSegment, slot: u32) {
        let end = open.segment.len();
        let capacity = self.factory.segment_size.max(end);
        self.active = Some(Active::new(open, slot, end, capacity));
    }

    /// The active segment and where it ends.
    pub(crate) fn active(&self) -> Option<&OpenSegment> {
        self.active.as_ref().map(|a| &a.open)
    }

    /// How many segments wait to be synced and sealed.
    pub(crate) fn backlog(&self) -> usize {
        self.rotated.len() + self.synced.len()
    }

    /// The timestamp of the next record.
    pub(crate) fn next_timestamp(&self) -> Result<i64> {
        let next = self.last_timestamp.checked_add(1);
        let next = next.ok_or_else(|| Error::new(Code::Corrupt, "the timestamps of this database are used up"))?;
        let timestamp = self.factory.storage.clock().max(next);
        if timestamp == i64::MAX {
            return Err(Error::new(Code::Invalid, "the clock is at the end of time"));
        }
        Ok(timestamp)
    }

    /// Makes sure that a record of `len` bytes can be appended: rotates, and reserves blocks. `index` gets
    /// to know a new segment. Tombstones may use the headroom. Nobody has a claim meanwhile.
    pub(crate) fn prepare(&mut self, len: u64, tombstone: bool, index: &Index) -> Result<()> {
        let headroom = if tombstone { 0 } else { self.factory.segment_size / HEADROOM_FRACTION };
        if self.active.as_ref().is_some_and(|a| a.end + len > a.capacity && a.end > HEADER_LEN as u64) {
            self.rotate()?;
        }
        if self.active.as_ref().is_some_and(|a| a.end + len > a.capacity) {
            // An empty segment, and still too small: it cannot become larger than its reserved addresses.
            self.rotate()?;
        }
        if self.active.is_none() {
            self.active = Some(self.create(len + headroom, index)?);
        }
        let Some(active) = &mut self.active else { return Ok(()) };
        active.tidy()?;
        if active.wanted(len, headroom) > active.allocated {
            if active.allocated >= RESERVE_FROM || active.open.segment.id() > 1 {
                self.factory.reserve.hold(&*self.factory.storage);
            }
            if !tombstone && self.factory.reserve.lent() {
                return Err(Error::new(Code::NoSpace, "the disk is full: what is left is for compaction and deleting"));
            }
            active.allocate(len, headroom, &self.factory)?;
        }
        // Before any part of the index is locked: it takes a while.
        if len < LARGE_FRAME {
            active.make_pages(len);
        }
        Ok(())
    }

    /// Makes the segment that follows the last one.
    fn create(&mut self, first_len: u64, index: &Index) -> Result<Active> {
        let factory = &self.factory;
        let capacity = factory.segment_size.max(HEADER_LEN as u64 + first_len);
        let header = factory.new_header(Role::Log, self.log_end)?;
        let name = file_name(header.id);
        let bytes = header.encode()?;
        let made = (|| {
            let file = factory.storage.create(&name)?;
            let least = HEADER_LEN as u64 + first_len;
            let generous = least.max(MIN_GROWTH).min(capacity);
            factory.reserve_blocks(&*file, generous).or_else(|_| factory.reserve_blocks(&*file, least))?;
            write_all_at(&*file, &bytes, 0)?;
            Ok(file)
        })();
        let added = made.map_err(|e| Error::os(format_args!("create {name}"), &e)).and_then(|file| {
            let io = factory.io(&*file, capacity, true);
            if matches!(io, SegmentIo::Calls(_)) {
                factory.cache.put(&name, Arc::clone(&file));
            }
            let segment = Arc::new(Segment::new(header, io, HEADER_LEN as u64, State::Active));
            let slot = index.add_segment(Arc::clone(&segment))?;
            Ok((OpenSegment { segment, file }, slot))
        });
        let (open, slot) = added.inspect_err(|_| {
            // What was made of it is an orphan; should this fail, the next open removes it.
            let _ = factory.storage.remove(&name);
        })?;
        Ok(Active::new(open, slot, HEADER_LEN as u64, capacity))
    }

    /// Waits until all places are filled that were given away.
    #[inline]
    pub(crate) fn settle(&self) {
        if let Some(active) = &self.active {
            active.open.segment.await_len(active.end);
        }
    }

    /// Whether records are stored through a map now, rather than by system calls.
    #[inline]
    pub(crate) fn stores_to_map(&self) -> bool {
        self.active.as_ref().map_or(self.factory.mapped, |active| active.map_to_store_to().is_some())
    }

    /// Whether a record of `len` bytes can be stored at once behind what has been claimed.
    #[inline]
    pub(crate) fn has_room(&self, len: u64, tombstone: bool) -> bool {
        let headroom = if tombstone { 0 } else { self.factory.segment_size / HEADROOM_FRACTION };
        self.active.as_ref().is_some_and(|active| active.has_room(len, headroom))
    }

    /// Gives the place of the next record away, for which there is room. The shard is the one that is to name it.
    #[inline]
    pub(crate) fn claim<'a>(&mut self, len: u64, shard: RwLockWriteGuard<'a, Shard>) -> Result<Claim<'a>> {
        let timestamp = self.next_timestamp()?;
        let Some(active) = &mut self.active else { return Err(no_active_segment()) };
        if let Some(maker) = &self.factory.page_maker {
            active.ask_ahead(maker);
        }
        let position = Position::new(active.slot, active.end, len);
        active.end += len;
        self.last_timestamp = timestamp;
        self.appended += len;
        Ok(Claim::new(Place { position, len, timestamp }, shard))
    }

    /// Appends a record. `prepare` has made room for it.
    pub(crate) fn append(&mut self, entry: &DataFileEntry<'_>, len: u64) -> Result<Position> {
        let Some(active) = &mut self.active else { return Err(no_active_segment()) };
        let (slot, offset) = (active.slot, active.end);
        if let Some(map) = active.map_to_store_to().filter(|_| len < LARGE_FRAME) {
            // SAFETY: `prepare` reserved blocks for the range, so it is inside the file; it lies behind the published end,
            // where nobody reads, the append lock, under which no place is being filled, keeps other writers out, and its pages
            // have been made.
            let stored = unsafe { map.write(offset as usize, len as usize, |out| record::encode_record(entry, out)) };
            stored.unwrap_or_else(|| Err(Error::new(Code::Internal, "append beyond the mapping")))?;
        } else {
            let written = write_record(active.file_to_write_to(len), entry, len, offset, &mut self.scratch);
            written.inspect_err(|_| active.untidy = true)?;
        }
        self.publish_batch(len, entry.timestamp, entry.timestamp);
        Ok(Position::new(slot, offset, len))
    }

    /// The slot and the offset of the next frame. After `prepare`.
    pub(crate) fn next_place(&self) -> Result<(u32, u64)> {
        let active = self.active.as_ref().ok_or_else(no_active_segment)?;
        Ok((active.slot, active.end))
    }

    /// Writes a batch frame behind the end of the log, where `prepare` has made room for it. It is no part of the log
    /// until `publish_batch`.
    pub(crate) fn write_batch_frame<'a>(
        &mut self,
        len: u64,
        entries: impl Iterator<Item = DataFileEntry<'a>>,
    ) -> Result<()> {
        let Some(active) = &mut self.active else { return Err(no_active_segment()) };
        let offset = active.end;
        let by_call = (LARGE_FRAME..=MOST_SCRATCH as u64).contains(&len);
        if len > MOST_SCRATCH as u64 {
            active.make_pages(len);
        }
        if !by_call && let Some(map) = active.map_to_store_to() {
            // SAFETY: as in `append`: inside the file, behind the published end, and under the append lock.
            let stored = unsafe { map.write(offset as usize, len as usize, |out| record::encode_batch(entries, out)) };
            return stored.unwrap_or_else(|| Err(Error::new(Code::Internal, "append beyond the mapping")));
        }
        let scratch = &mut self.scratch;
        scratch.try_reserve((len as usize).saturating_sub(scratch.len())).map_err(|_| Error::no_memory("a batch"))?;
        scratch.resize(len as usize, 0);
        record::encode_batch(entries, scratch)?;
        let written = write_all_at(active.file_to_write_to(len), scratch, offset);
        if scratch.capacity() > MOST_SCRATCH {
            *scratch = Vec::new();
        }
        active.untidy |= written.is_err();
        written.map_err(|e| Error::os(format_args!("append at offset {offset}"), &e))
    }

    /// Takes back what `write_batch_frame` has written: all of it, as each record in it is whole. It is cut away at
    /// once, as the process may end before the next write. Should that fail, the next write tries again.
    pub(crate) fn retract_frame(&mut self) {
        let Some(active) = &mut self.active else { return };
        if let Some(map) = active.map_to_store_to() {
            // SAFETY: the frame that was just written there is no part of the log; under the append lock.
            unsafe { map.write(active.end as usize, record::PREFIX_LEN, |out| out.fill(0)) };
        }
        active.untidy = true;
        let _ = active.tidy();
    }

    /// Makes the frame that was written a part of the log. Its records have the timestamps from `first` to `last`.
    pub(crate) fn publish_batch(&mut self, len: u64, first: i64, last: i64) {
        let Some(active) = &mut self.active else { return };
        active.open.segment.note_timestamp(first);
        active.advance(len);
        self.last_timestamp = last;
        self.appended += len;
    }

    /// Notes in the log that everything before `offset` of `segment`, and every earlier segment, has been
    /// synced. Does nothing if that segment has given way to another, or if there is no room at hand.
    pub(crate) fn append_mark(&mut self, segment: &Arc<Segment>, offset: u64) {
        let Some(active) = &mut self.active else { return };
        let fits = active.end + MARK_LEN as u64 <= active.allocated.min(active.capacity);
        if !Arc::ptr_eq(&active.open.segment, segment)
            || active.marked.is_some_and(|marked| offset <= marked)
            || !fits
            || active.untidy
        {
            return;
        }
        let mut mark = [0; MARK_LEN];
        record::encode_mark(offset, &mut mark);
        if write_all_at(active.file_to_write_to(MARK_LEN as u64), &mark, active.end).is_err() {
            active.untidy = true;
            return;
        }
        active.open.segment.add_dead(MARK_LEN as u64);
        active.advance(MARK_LEN as u64);
        active.sync_distance = active.marked.map_or(u64::MAX, |marked| active.end - marked);
        active.marked = Some(active.end);
    }

    /// Ends the active segment: the next record goes to a new one.
    pub(crate) fn rotate(&mut self) -> Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        active.tidy()?;
        self.log_end = active.open.segment.log_end()?;
        if let Some(active) = self.active.take() {
            self.rotated.push(active.complete());
        }
        Ok(())
    }
}

#[cold]
fn no_active_segment() -> Error {
    Error::new(Code::Internal, "no active segment")
}

/// Writes a record by system calls.
fn write_record(
    file: &dyn File,
    entry: &DataFileEntry<'_>,
    len: u64,
    offset: u64,
    scratch: &mut Vec<u8>,
) -> Result<()> {
    let os = |e| Error::os(format_args!("append at offset {offset}"), &e);
    let value = entry.value.unwrap_or_default();
    scratch.clear();
    if len < LARGE_FRAME {
        let len = len as usize;
        scratch.try_reserve(len).map_err(|_| Error::no_memory("a record"))?;
        scratch.resize(len, 0);
        record::encode_record(entry, scratch)?;
        return write_all_at(file, scratch, offset).map_err(os);
    }
    let crc = record::encode_split(entry, scratch)?;
    write_all_at(file, scratch, offset).map_err(os)?;
    write_all_at(file, value, offset + scratch.len() as u64).map_err(os)?;
    write_all_at(file, &crc, offset + (scratch.len() + value.len()) as u64).map_err(os)
}
