//! The active segment: how it grows, and which of its pages are at hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::*};

use super::claim::Turn;
use super::factory::{OpenSegment, SegmentFactory};
use crate::error::{Error, Result};
use crate::log::segment::SegmentIo;
use crate::storage::{Map, write_zeros_at};

/// The active segment grows by as much as it has, within these bounds.
pub(super) const MIN_GROWTH: u64 = 64 << 10;
const MAX_GROWTH: u64 = 16 << 20;
/// Pages are made ahead of the appends, up to the next multiple of this.
const POPULATE: u64 = 256 << 10;
/// When so much of them is left, a writer makes more, and others can go on meanwhile.
const MAKE_EARLY: u64 = POPULATE / 2;
/// So many bytes after a sync, records are stored through the map again, where few were appended between two of them.
const STORE_AFTER: u64 = POPULATE;
/// Frames from this length on are written by system calls: those make the pages and fill them at once. Of a single record the
/// value goes straight from the caller's memory.
pub(super) const LARGE_FRAME: u64 = 32 << 10;

/// The segment that takes the appends.
pub(super) struct Active {
    pub open: OpenSegment,
    pub slot: u32,
    /// Where the next frame goes.
    pub end: u64,
    /// Blocks are reserved up to here.
    pub allocated: u64,
    /// The segment never grows beyond this.
    pub capacity: u64,
    /// The pages up to here are at hand.
    populated: Arc<AtomicU64>,
    /// A writer is making those up to here, or has.
    asked: u64,
    /// The end of the last sync mark.
    pub marked: Option<u64>,
    /// How much had been appended between that and the one before; `u64::MAX` if there was none.
    pub sync_distance: u64,
    /// A failed write may have left bytes behind the end.
    pub untidy: bool,
}

impl Active {
    pub(super) fn new(open: OpenSegment, slot: u32, end: u64, capacity: u64) -> Active {
        Active {
            open,
            slot,
            end,
            allocated: end,
            capacity,
            populated: Arc::new(AtomicU64::new(end)),
            asked: end,
            marked: None,
            sync_distance: u64::MAX,
            untidy: false,
        }
    }

    /// The map, if records are to be stored through it. While they are synced every few, they are written by system calls
    /// instead: a store to a map makes a whole folio of the page cache dirty, which the next sync would then have to write.
    pub(super) fn map_to_store_to(&self) -> Option<&Map> {
        let synced_lately = self.marked.is_some_and(|marked| self.end - marked < STORE_AFTER);
        match self.open.segment.io() {
            SegmentIo::Mapped(map) if !(self.sync_distance < STORE_AFTER && synced_lately) => Some(map),
            _ => None,
        }
    }

    pub(super) fn advance(&mut self, len: u64) {
        self.end += len;
        self.open.segment.publish_len(self.end);
    }

    /// Whether `len` bytes can be stored through the map at once.
    #[inline]
    pub(super) fn has_room(&self, len: u64, headroom: u64) -> bool {
        let end = self.end + len;
        let at_hand = end <= self.populated.load(Acquire).min(self.capacity) && !self.untidy;
        at_hand && self.wanted(len, headroom) <= self.allocated && self.map_to_store_to().is_some()
    }

    /// Has the pages up to `end` at hand, and some ahead. Nobody fills a place meanwhile.
    #[inline]
    pub(super) fn populate(&mut self, end: u64) {
        if end > self.populated.load(Relaxed) {
            self.populate_ahead(end);
        }
    }

    #[cold]
    fn populate_ahead(&mut self, end: u64) {
        let to = end.next_multiple_of(POPULATE).min(self.allocated).max(end);
        let from = self.populated.load(Relaxed).max(self.end);
        // Where files are mapped to be written, blocks are really reserved: elsewhere the zeros might take room of their own.
        let synced_often = self.sync_distance < LARGE_FRAME && matches!(self.open.segment.io(), SegmentIo::Mapped(_));
        // Where records are synced every few, the file system notes once for all these blocks that they are in use now, not with
        // every page that a sync comes to: that takes another write to the disk.
        if self.map_to_store_to().is_some() || synced_often {
            make_pages(&self.open, from, to);
            self.populated.store(to, Relaxed);
            self.asked = to;
        }
    }

    /// What the writer who has this turn is to make ahead, so that those who come after need not wait for it.
    #[inline]
    pub(super) fn ahead<'a>(&mut self, turn: impl FnOnce() -> Option<Turn<'a>>) -> Option<Ahead<'a>> {
        let (from, to) = (self.asked, (self.asked + POPULATE).min(self.allocated));
        if self.end + MAKE_EARLY < from || from >= to {
            return None;
        }
        let turn = turn()?;
        turn.filled();
        self.asked = to;
        Some(Ahead { open: self.open.clone(), populated: Arc::clone(&self.populated), from, to, _turn: turn })
    }

    /// Cuts away what a failed write left: it must never be taken for a record.
    pub(super) fn tidy(&mut self) -> Result<()> {
        if self.untidy {
            let cut = self.open.file.set_len(self.end);
            cut.map_err(|e| Error::os(format_args!("truncate {}", self.open.segment.name()), &e))?;
            self.allocated = self.end;
            self.populated.store(self.end, Relaxed);
            self.asked = self.end;
            self.untidy = false;
        }
        Ok(())
    }

    /// Up to where blocks must be reserved for `len` more bytes, and `headroom` behind them as far as there is room.
    pub(super) fn wanted(&self, len: u64, headroom: u64) -> u64 {
        let least = self.end + len;
        (least + headroom).min(self.capacity.max(least))
    }

    /// Reserves blocks for `len` more bytes and `headroom` behind them.
    pub(super) fn allocate(&mut self, len: u64, headroom: u64, factory: &SegmentFactory) -> Result<()> {
        let (least, wanted) = (self.end + len, self.wanted(len, headroom));
        let growth = self.allocated.clamp(MIN_GROWTH, MAX_GROWTH);
        let mut generous = (self.allocated + growth).max(wanted);
        if generous > POPULATE {
            generous = generous.next_multiple_of(POPULATE);
        }
        let generous = generous.min(self.capacity.max(wanted));
        let reserved = match factory.reserve_blocks(&*self.open.file, generous) {
            Ok(()) => Ok(generous),
            Err(_) => factory.reserve_blocks(&*self.open.file, wanted).map(|()| wanted),
        };
        match reserved {
            Ok(allocated) => self.allocated = allocated,
            Err(_) if headroom == 0 && least <= self.allocated => {}
            Err(e) => return Err(Error::os(format_args!("extend {}", self.open.segment.name()), &e)),
        }
        Ok(())
    }
}

/// Pages that are made when this is dropped. Until then nobody else makes any.
pub(super) struct Ahead<'a> {
    open: OpenSegment,
    populated: Arc<AtomicU64>,
    from: u64,
    to: u64,
    _turn: Turn<'a>,
}

impl Drop for Ahead<'_> {
    #[cold]
    fn drop(&mut self) {
        make_pages(&self.open, self.from, self.to);
        self.populated.store(self.to, Release);
    }
}

/// Makes the pages of a part of the file to which nobody has stored anything yet. Writing makes many pages of the page cache at
/// once: to have them made one by one, as they are first stored to, was measured to take three times as long. Should writing
/// fail, that is what happens.
fn make_pages(open: &OpenSegment, from: u64, to: u64) {
    let _ = write_zeros_at(&*open.file, from, to - from);
    if let SegmentIo::Mapped(map) = open.segment.io() {
        map.populate(from as usize, (to - from) as usize);
    }
}
