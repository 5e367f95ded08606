//! Live records in the order of the log.
//!
//! A pass over the index marks in bitmaps where live records begin, one bit for 32 bytes of log, and then segments are
//! walked frame by frame. A database of large values has many bytes of log for a key, so segments are taken in groups
//! whose bitmaps together stay small beside the index.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::{Place, Source};
use crate::error::{Error, Result};
use crate::index::View;
use crate::log::header::HEADER_LEN;
use crate::log::record::{CRC_LEN, KEY_LEN_AT, Kind, PREFIX_LEN, Prefix, record_len};
use crate::log::segment::Segment;
use crate::read::unreadable;

/// Bytes of log for each bit. A record of a value takes more, so at most one of them begins in a cell.
const CELL: u64 = 32;
/// A group has so many bytes of log at most for each key there is: six bytes of bitmap.
const GROUP_PER_KEY: u64 = 6 * 8 * CELL;
const LEAST_GROUP: u64 = 1 << 30;
/// So much is asked for ahead where segments are mapped.
const READ_AHEAD: u64 = 2 << 20;

/// A walk over all live records.
pub(super) struct LogOrder {
    /// The segments that have been marked and not walked yet.
    group: VecDeque<Walk>,
    /// From here on no segment has been marked.
    next_slot: usize,
    group_len: u64,
}

impl LogOrder {
    pub(super) fn new(view: &View) -> LogOrder {
        let group_len = view.keys().saturating_mul(GROUP_PER_KEY).max(LEAST_GROUP);
        LogOrder { group: VecDeque::new(), next_slot: 0, group_len }
    }

    /// The place of the next live record, not yet verified.
    pub(super) fn next(&mut self, source: &mut Source) -> Result<Option<Place>> {
        loop {
            if let Some(walk) = self.group.front_mut() {
                if let Some((offset, len)) = walk.next(source)? {
                    return Ok(Some(Place { slot: walk.slot, offset, len }));
                }
                self.group.pop_front();
            } else if !self.mark_group(&source.view)? {
                return Ok(None);
            }
        }
    }

    /// Marks the next group of segments. False if there is none.
    fn mark_group(&mut self, view: &View) -> Result<bool> {
        let slots = view.segments().slots();
        let first = self.next_slot;
        if first == slots.len() {
            return Ok(false);
        }
        let mut len = 0;
        while let Some(slot) = slots.get(self.next_slot) {
            len += slot.as_ref().map_or(0, |segment| segment.len());
            if len > self.group_len && self.next_slot > first {
                break;
            }
            self.next_slot += 1;
        }
        let group = mark(view, first..self.next_slot)?;
        self.group.try_reserve(group.len()).map_err(|_| Error::no_memory("an iterator"))?;
        self.group.extend(group.into_iter().flatten());
        Ok(true)
    }
}

/// Marks where the live records of these slots begin.
fn mark(view: &View, slots: Range<usize>) -> Result<Vec<Option<Walk>>> {
    let mut walks: Vec<Option<Walk>> = Vec::new();
    walks.try_reserve_exact(slots.len()).map_err(|_| Error::no_memory("an iterator"))?;
    for (segment, slot) in view.segments().slots()[slots.clone()].iter().zip(slots.start..) {
        walks.push(segment.as_ref().map(|segment| Walk::new(segment, slot as u32)).transpose()?);
    }
    view.for_each(|position| {
        let walk = (position.slot() as usize).checked_sub(slots.start).and_then(|at| walks.get_mut(at));
        if let Some(Some(walk)) = walk {
            walk.mark(position.offset());
        }
    });
    Ok(walks)
}

/// A walk over the live records of one segment.
struct Walk {
    segment: Arc<Segment>,
    slot: u32,
    live: Bitmap,
    /// Where the next frame begins.
    at: u64,
    /// Where the last record of the batch ends that the next frame is in.
    batch_end: Option<u64>,
    /// From here on nothing has been shown.
    unshown: u64,
    ahead: u64,
    /// The frames could not be followed any more: where the live records are that were left, by the index.
    left: Option<VecDeque<u64>>,
    /// Where a live record was that has been lost with the end of the file.
    lost: Option<u64>,
}

impl Walk {
    fn new(segment: &Arc<Segment>, slot: u32) -> Result<Walk> {
        let (segment, live) = (Arc::clone(segment), Bitmap::new(segment.len() / CELL + 1)?);
        let at = HEADER_LEN as u64;
        Ok(Walk { segment, slot, live, at, batch_end: None, unshown: 0, ahead: 0, left: None, lost: None })
    }

    fn mark(&mut self, offset: u64) {
        if offset < self.segment.len() {
            self.live.set(offset / CELL);
        } else {
            self.lost = Some(self.lost.map_or(offset, |lost| lost.min(offset)));
        }
    }

    /// The offset and the length of the next live record.
    fn next(&mut self, source: &mut Source) -> Result<Option<(u64, u64)>> {
        if self.left.is_none() {
            let Some(cell) = self.live.next_from(self.unshown.div_ceil(CELL)) else {
                return self.lost.map_or(Ok(None), |offset| Err(unreadable(&self.segment, offset)));
            };
            if let Some(found) = self.follow_to(cell, source)? {
                // No other value begins in this cell.
                self.unshown = (cell + 1) * CELL;
                return Ok(Some(found));
            }
            self.left = Some(self.take_from_index(&source.view)?);
        }
        let Some(offset) = self.left.as_mut().and_then(VecDeque::pop_front) else { return Ok(None) };
        match self.prefix(offset, source)? {
            Some(prefix) if prefix.kind == Kind::Record => Ok(Some((offset, prefix.frame_len))),
            _ => Err(unreadable(&self.segment, offset)),
        }
    }

    fn prefix(&self, offset: u64, source: &mut Source) -> Result<Option<Prefix>> {
        let bytes = source.window.bytes(&self.segment, offset, PREFIX_LEN as u64)?;
        Ok(bytes.and_then(|bytes| bytes.first_chunk()).and_then(|bytes| Prefix::parse(*bytes)))
    }

    /// Follows the frames up to the value that begins in this cell. `None` if they lead elsewhere, for damage.
    fn follow_to(&mut self, cell: u64, source: &mut Source) -> Result<Option<(u64, u64)>> {
        loop {
            if self.batch_end == Some(self.at) {
                self.batch_end = None;
                self.at += CRC_LEN as u64;
            }
            if self.at / CELL > cell {
                return Ok(None);
            }
            if self.at >= self.ahead {
                self.segment.read_ahead(self.at, READ_AHEAD);
                self.ahead = self.at + READ_AHEAD / 2;
            }
            let at = self.at;
            let Some(prefix) = self.prefix(at, source)? else { return Ok(None) };
            match prefix.kind {
                Kind::Batch if self.batch_end.is_none() => {
                    self.batch_end = Some(at + prefix.frame_len - CRC_LEN as u64);
                    self.at += PREFIX_LEN as u64;
                    continue;
                }
                Kind::Record | Kind::Mark => self.at += prefix.frame_len,
                Kind::Batch | Kind::Unknown => return Ok(None),
            }
            // A tombstone is short enough to begin in the same cell.
            if at / CELL == cell && prefix.kind == Kind::Record && !self.is_tombstone(at, prefix.frame_len, source)? {
                return Ok(Some((at, prefix.frame_len)));
            }
        }
    }

    /// Whether the record that seems to stand at `offset` has no room for a value.
    fn is_tombstone(&self, offset: u64, len: u64, source: &mut Source) -> Result<bool> {
        let key_len = source.window.bytes(&self.segment, offset + KEY_LEN_AT as u64, 8)?;
        let key_len = key_len.and_then(|bytes| bytes.first_chunk()).map(|bytes| u64::from_le_bytes(*bytes));
        Ok(key_len.and_then(|key_len| key_len.checked_add(record_len(0, None))) == Some(len))
    }

    /// Where the live records are that have not been shown.
    fn take_from_index(&self, view: &View) -> Result<VecDeque<u64>> {
        let (mut left, mut no_memory) = (Vec::new(), false);
        view.for_each(|position| {
            if position.slot() == self.slot && position.offset() >= self.unshown {
                no_memory |= left.try_reserve(1).is_err();
                if !no_memory {
                    left.push(position.offset());
                }
            }
        });
        if no_memory {
            return Err(Error::no_memory("an iterator"));
        }
        left.sort_unstable();
        Ok(left.into())
    }
}

struct Bitmap(Vec<u64>);

impl Bitmap {
    fn new(bits: u64) -> Result<Bitmap> {
        let len = (bits / 64 + 1) as usize;
        let mut words = Vec::new();
        words.try_reserve_exact(len).map_err(|_| Error::no_memory("an iterator"))?;
        words.resize(len, 0);
        Ok(Bitmap(words))
    }

    fn set(&mut self, bit: u64) {
        if let Some(word) = self.0.get_mut((bit / 64) as usize) {
            *word |= 1 << (bit % 64);
        }
    }

    /// The first bit from `bit` on that is set.
    #[inline]
    fn next_from(&self, bit: u64) -> Option<u64> {
        let mut at = (bit / 64) as usize;
        let mut word = *self.0.get(at)? & (!0 << (bit % 64));
        while word == 0 {
            at += 1;
            word = *self.0.get(at)?;
        }
        Some(at as u64 * 64 + word.trailing_zeros() as u64)
    }
}
