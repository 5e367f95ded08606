//! The active segment: how it grows, and which of its pages are at hand.

use std::sync::Arc;

use super::factory::{OpenSegment, SegmentFactory};
use super::pages::{AHEAD, PageMaker, Pages};
use crate::error::{Error, Result};
use crate::log::segment::{SegmentIo, State};
use crate::storage::{File, LARGE_PAGE, Map};

/// The active segment grows by as much as it has, within these bounds.
pub(super) const MIN_GROWTH: u64 = 64 << 10;
const MAX_GROWTH: u64 = 16 << 20;
/// When so much of the pages is left that were made ahead, more are asked for.
const ASK_EARLY: u64 = LARGE_PAGE;
/// So many bytes after a sync, records are stored through the map again, where few were appended between two of them.
const STORE_AFTER: u64 = 256 << 10;
/// Frames from this length on are written by system calls: those make the pages and fill them at once. Of a single record the
/// value goes straight from the caller's memory.
pub(super) const LARGE_FRAME: u64 = 32 << 10;

/// The segment that takes the appends. In the order of memory: see [`super::AppendLock`].
#[repr(C)]
pub(super) struct Active {
    /// Where the next frame goes.
    pub end: u64,
    /// Blocks are reserved up to here.
    pub allocated: u64,
    /// The segment never grows beyond this.
    pub capacity: u64,
    pages: Arc<Pages>,
    /// Pages up to here have been asked for, or are not worth it.
    asked: u64,
    /// The end of the last sync mark.
    pub marked: Option<u64>,
    /// How much had been appended between that and the one before; `u64::MAX` if there was none.
    pub sync_distance: u64,
    pub slot: u32,
    /// A failed write may have left bytes behind the end.
    pub untidy: bool,
    pub open: OpenSegment,
}

impl Active {
    pub(super) fn new(open: OpenSegment, slot: u32, end: u64, capacity: u64) -> Active {
        Active {
            pages: Arc::new(Pages::new(open.clone(), end)),
            open,
            slot,
            end,
            allocated: end,
            capacity,
            asked: end.max(AHEAD),
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

    /// The file, to which the next `len` bytes are to be written by system calls.
    pub(super) fn file_to_write_to(&self, len: u64) -> &dyn File {
        self.pages.leave(self.end + len);
        &*self.open.file
    }

    pub(super) fn advance(&mut self, len: u64) {
        self.open.segment.publish(self.end, len);
        self.end += len;
    }

    /// Whether `len` bytes can be stored through the map at once.
    #[inline]
    pub(super) fn has_room(&self, len: u64, headroom: u64) -> bool {
        let end = self.end + len;
        let at_hand = end <= self.pages.made().min(self.capacity) && !self.untidy;
        at_hand && self.wanted(len, headroom) <= self.allocated && self.map_to_store_to().is_some()
    }

    /// Has the pages of the next `len` bytes at hand, and some more, if that is where records are stored.
    #[inline]
    pub(super) fn make_pages(&self, len: u64) {
        if self.end + len > self.pages.made() {
            self.make_missing_pages(len);
        }
    }

    #[cold]
    fn make_missing_pages(&self, len: u64) {
        debug_assert!(self.pages.made() >= self.end, "what has been written is not to be made anew");
        // Where files are mapped to be written, blocks are really reserved: elsewhere the zeros might take room of their own.
        let synced_often = self.sync_distance < LARGE_FRAME && matches!(self.open.segment.io(), SegmentIo::Mapped(_));
        // Where records are synced every few, the file system notes once for all these blocks that they are in use now, not with
        // every page that a sync comes to: that takes another write to the disk.
        if self.map_to_store_to().is_some() || synced_often {
            self.pages.make(self.end + len, self.allocated);
        }
    }

    /// Has more pages made before the writers come to them.
    #[inline]
    pub(super) fn ask_ahead(&mut self, maker: &PageMaker) {
        if self.end + ASK_EARLY > self.asked && self.asked < self.allocated {
            self.asked = maker.ask(&self.pages, self.end, self.allocated);
        }
    }

    /// Cuts away what a failed write left: it must never be taken for a record.
    pub(super) fn tidy(&mut self) -> Result<()> {
        if self.untidy {
            self.pages.cut(self.end);
            let cut = self.open.file.set_len(self.end);
            cut.map_err(|e| Error::os(format_args!("truncate {}", self.open.segment.name()), &e))?;
            self.allocated = self.end;
            self.asked = self.end;
            self.untidy = false;
        }
        Ok(())
    }

    /// It takes no more appends.
    pub(super) fn complete(self) -> OpenSegment {
        self.pages.cut(self.end);
        self.open.segment.set_state(State::Rotated);
        self.open
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
        if generous > LARGE_PAGE {
            generous = generous.next_multiple_of(LARGE_PAGE);
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
