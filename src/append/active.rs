//! The active segment: how it grows, and which of its pages are at hand.

use super::factory::{OpenSegment, SegmentFactory};
use crate::error::{Error, Result};
use crate::log::segment::SegmentIo;
use crate::storage::{Map, write_zeros_at};

/// The active segment grows by as much as it has, within these bounds.
pub(super) const MIN_GROWTH: u64 = 64 << 10;
const MAX_GROWTH: u64 = 16 << 20;
/// Pages are made ahead of the appends, up to the next multiple of this.
const POPULATE: u64 = 256 << 10;
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
    pub populated: u64,
    /// The end of the last sync mark.
    pub marked: Option<u64>,
    /// How much had been appended between that and the one before; `u64::MAX` if there was none.
    pub sync_distance: u64,
    /// A failed write may have left bytes behind the end.
    pub untidy: bool,
}

impl Active {
    pub(super) fn new(open: OpenSegment, slot: u32, end: u64, capacity: u64) -> Active {
        let (allocated, populated) = (end, end);
        Active { open, slot, end, allocated, capacity, populated, marked: None, sync_distance: u64::MAX, untidy: false }
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

    /// Has the pages up to `end` at hand, and some ahead.
    #[inline]
    pub(super) fn populate(&mut self, end: u64) {
        if end > self.populated {
            self.populate_ahead(end);
        }
    }

    #[cold]
    pub(super) fn populate_ahead(&mut self, end: u64) {
        let to = end.next_multiple_of(POPULATE).min(self.allocated).max(end);
        let from = self.populated.max(self.end);
        let map = self.map_to_store_to();
        // Where files are mapped to be written, blocks are really reserved: elsewhere the zeros might take room of their own.
        let synced_often = self.sync_distance < LARGE_FRAME && matches!(self.open.segment.io(), SegmentIo::Mapped(_));
        if map.is_some() || synced_often {
            // Writing makes many pages of the page cache at once. To have them made one by one, as they are first stored to,
            // was measured to take three times as long; should writing fail, that is what happens. Where records are synced
            // every few, the file system notes once for all these blocks that they are in use now, not with every page that a
            // sync comes to: that takes another write to the disk.
            let _ = write_zeros_at(&*self.open.file, from, to - from);
            map.inspect(|map| map.populate(from as usize, (to - from) as usize));
            self.populated = to;
        }
    }

    /// Cuts away what a failed write left: it must never be taken for a record.
    pub(super) fn tidy(&mut self) -> Result<()> {
        if self.untidy {
            let cut = self.open.file.set_len(self.end);
            cut.map_err(|e| Error::os(format_args!("truncate {}", self.open.segment.name()), &e))?;
            self.allocated = self.end;
            self.populated = self.end;
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
