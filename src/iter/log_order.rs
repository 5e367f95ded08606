//! Live records in the order of the log.
//!
//! A pass over the index marks in bitmaps where live records begin, one bit for 32 bytes of log, and then segments are
//! walked frame by frame. A database of large values has many bytes of log for a key, so segments are taken in groups
//! whose bitmaps together stay small beside the index.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::run::Run;
use super::window::Piece;
use super::{IterOptions, Place, Source};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::index::View;
use crate::log::header::HEADER_LEN;
use crate::log::record::{CRC_LEN, KEY_LEN_AT, Kind, PREFIX_LEN, Prefix, record_len};
use crate::log::segment::Segment;
use crate::prefetch::prefetch_bytes;
use crate::read::unreadable;

/// Bytes of log for each bit. A record of a value takes more, so at most one of them begins in a cell.
const CELL: u64 = 32;
/// A group has so many bytes of log at most for each key there is: six bytes of bitmap.
const GROUP_PER_KEY: u64 = 6 * 8 * CELL;
const LEAST_GROUP: u64 = 1 << 30;
/// So far ahead memory is asked for: the processor by itself does not look beyond a page.
const NEAR: usize = 2 << 10;
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

    /// Adds the next live records that are wanted to an empty run. False if there are no more; a run may stay empty
    /// all the same.
    pub(super) fn fill(&mut self, source: &mut Source, options: &IterOptions, run: &mut Run) -> Result<bool> {
        loop {
            if let Some(walk) = self.group.front_mut() {
                if walk.fill(source, options, run)? {
                    return Ok(true);
                }
                self.group.pop_front();
            } else if !self.mark_group(&source.view)? {
                return Ok(false);
            }
        }
    }

    /// Marks the next group of segments. False if there is none.
    #[inline(never)]
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
    /// From this cell on nothing has been shown.
    unshown: u64,
    /// Up to here bytes have been asked for ahead.
    asked: u64,
    /// The frames could not be followed any more: where the live records are that were left, by the index.
    left: Option<VecDeque<u64>>,
    /// Where a live record was that has been lost with the end of the file.
    lost: Option<u64>,
}

impl Walk {
    fn new(segment: &Arc<Segment>, slot: u32) -> Result<Walk> {
        let (segment, live) = (Arc::clone(segment), Bitmap::new(segment.len() / CELL + 1)?);
        let at = HEADER_LEN as u64;
        Ok(Walk { segment, slot, live, at, batch_end: None, unshown: 0, asked: 0, left: None, lost: None })
    }

    #[inline]
    fn mark(&mut self, offset: u64) {
        if !self.live.set(offset / CELL) {
            self.lost = Some(self.lost.map_or(offset, |lost| lost.min(offset)));
        }
    }

    /// As [`LogOrder::fill`], with records of this segment. What cannot be read is not told before all records in front of
    /// it have been shown.
    #[inline(never)]
    fn fill(&mut self, source: &mut Source, options: &IterOptions, run: &mut Run) -> Result<bool> {
        if self.left.is_some() {
            return self.fill_from_index(source, options, run);
        }
        self.ask_ahead();
        let segment = Arc::clone(&self.segment);
        let mut piece = source.window.piece(&segment, self.at, PREFIX_LEN as u64)?;
        while run.has_room() {
            let Some(cell) = self.live.next_from(self.unshown) else {
                return match self.lost {
                    Some(offset) if run.is_empty() => Err(unreadable(&segment, offset)),
                    _ => Ok(!run.is_empty()),
                };
            };
            match self.follow_to(cell, &piece) {
                Step::Value(offset, frame) => {
                    prefetch_bytes(frame.as_ptr().wrapping_add(NEAR), frame.len() as u64);
                    // No other value begins in this cell.
                    self.unshown = cell + 1;
                    self.take(offset, frame, &source.engine, options, run)?;
                }
                _ if !run.is_empty() => break,
                Step::Beyond(len) => {
                    piece = source.window.piece(&segment, self.at, len)?;
                    if piece.get(self.at, len).is_none() {
                        self.left = Some(self.take_from_index(&source.view)?);
                        break;
                    }
                }
                Step::Astray => {
                    self.left = Some(self.take_from_index(&source.view)?);
                    break;
                }
            }
        }
        Ok(true)
    }

    /// As `fill`, with one record that the frames do not lead to.
    #[cold]
    fn fill_from_index(&mut self, source: &mut Source, options: &IterOptions, run: &mut Run) -> Result<bool> {
        let Some(offset) = self.left.as_mut().and_then(VecDeque::pop_front) else { return Ok(false) };
        let damaged = || unreadable(&self.segment, offset);
        let prefix = source.window.bytes(&self.segment, offset, PREFIX_LEN as u64)?;
        let prefix = prefix.and_then(|bytes| bytes.first_chunk()).and_then(|bytes| Prefix::parse(*bytes));
        let prefix = prefix.filter(|prefix| prefix.kind == Kind::Record).ok_or_else(damaged)?;
        let frame = source.window.bytes(&self.segment, offset, prefix.frame_len)?.ok_or_else(damaged)?;
        self.take(offset, frame, &source.engine, options, run)?;
        Ok(true)
    }

    /// Verifies a record and adds it to the run if it is wanted.
    #[inline(always)] // Its caller's loop is all that iterating takes.
    fn take(&self, offset: u64, frame: &[u8], engine: &Engine, options: &IterOptions, run: &mut Run) -> Result<()> {
        let (key, value) = engine.verified(frame).ok_or_else(|| unreadable(&self.segment, offset))?;
        if options.wants(key) {
            let place = Place { slot: self.slot, offset, len: frame.len() as u64 };
            // SAFETY: the segment is held by the view, and the window is read into when the run is empty.
            unsafe { run.push(place, key, if options.keys_only { &[] } else { value }) };
        }
        Ok(())
    }

    /// Follows the frames up to the value that begins in this cell.
    #[inline]
    fn follow_to<'a>(&mut self, cell: u64, piece: &Piece<'a>) -> Step<'a> {
        loop {
            if self.batch_end == Some(self.at) {
                self.batch_end = None;
                self.at += CRC_LEN as u64;
            }
            let at = self.at;
            if at / CELL > cell {
                return Step::Astray;
            }
            let Some(prefix) = piece.get(at, PREFIX_LEN as u64) else { return Step::Beyond(PREFIX_LEN as u64) };
            let Some(prefix) = prefix.first_chunk().and_then(|bytes| Prefix::parse(*bytes)) else {
                return Step::Astray;
            };
            match prefix.kind {
                Kind::Batch if self.batch_end.is_none() => {
                    self.batch_end = Some(at + prefix.frame_len - CRC_LEN as u64);
                    self.at += PREFIX_LEN as u64;
                    continue;
                }
                Kind::Batch | Kind::Unknown => return Step::Astray,
                Kind::Record if at / CELL == cell => {
                    let Some(frame) = piece.get(at, prefix.frame_len) else { return Step::Beyond(prefix.frame_len) };
                    // A tombstone is short enough to begin in the same cell.
                    if !is_tombstone(frame) {
                        self.at += prefix.frame_len;
                        return Step::Value(at, frame);
                    }
                }
                Kind::Record | Kind::Mark => {}
            }
            self.at += prefix.frame_len;
            self.ask_ahead();
        }
    }

    /// Asks for what comes next, well before the walk is there.
    #[inline]
    fn ask_ahead(&mut self) {
        if self.at + READ_AHEAD / 2 > self.asked {
            self.read_ahead();
        }
    }

    #[cold]
    fn read_ahead(&mut self) {
        let from = self.asked.max(self.at);
        self.segment.read_ahead(from, READ_AHEAD);
        self.asked = from + READ_AHEAD;
    }

    /// Where the live records are that have not been shown.
    #[cold]
    fn take_from_index(&self, view: &View) -> Result<VecDeque<u64>> {
        let (mut left, mut no_memory) = (Vec::new(), false);
        view.for_each(|position| {
            if position.slot() == self.slot && position.offset() / CELL >= self.unshown {
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

/// What following the frames comes to.
enum Step<'a> {
    /// The offset of a record, and all of it. It is none of a tombstone.
    Value(u64, &'a [u8]),
    /// So many bytes from where the walk is now are not at hand.
    Beyond(u64),
    /// The frames lead elsewhere, for damage.
    Astray,
}

/// Whether what seems to be a record has no room for a value.
#[inline]
fn is_tombstone(frame: &[u8]) -> bool {
    let key_len = frame.get(KEY_LEN_AT..).and_then(|bytes| bytes.first_chunk()).map(|bytes| u64::from_le_bytes(*bytes));
    key_len.and_then(|key_len| key_len.checked_add(record_len(0, None))) == Some(frame.len() as u64)
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

    /// False if there is no such bit.
    #[inline]
    fn set(&mut self, bit: u64) -> bool {
        let word = self.0.get_mut((bit / 64) as usize);
        word.map(|word| *word |= 1 << (bit % 64)).is_some()
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
