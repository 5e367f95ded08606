//! Making and opening the files of the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::pages::PageMaker;
use crate::error::{Error, Result};
use crate::log::header::{Header, LogEnd, Role};
use crate::log::segment::{FileCache, Segment, SegmentIo};
use crate::reserve::Reserve;
use crate::storage::{File, Storage};

/// What making and opening segments takes.
pub(crate) struct SegmentFactory {
    pub storage: Arc<dyn Storage>,
    pub cache: Arc<FileCache>,
    pub mapped: bool,
    /// The file system turned out not to reserve blocks, whatever it is called.
    pub cannot_reserve: AtomicBool,
    pub segment_size: u64,
    pub next_id: AtomicU64,
    pub reserve: Reserve,
    /// None if there is no thread that makes pages.
    pub page_maker: Option<Arc<PageMaker>>,
}

impl SegmentFactory {
    /// Reserves blocks where the file system can; elsewhere the write itself will tell that the disk is full, and then
    /// it must not be a store to a map.
    pub(crate) fn reserve_blocks(&self, file: &dyn File, len: u64) -> std::io::Result<()> {
        match file.allocate(len) {
            Err(e) if e.kind() == std::io::ErrorKind::Unsupported => {
                self.cannot_reserve.store(true, Relaxed);
                Ok(())
            }
            other => other,
        }
    }

    /// How a file of the log is to be read: mapped if that is wanted and possible.
    pub(crate) fn io(&self, file: &dyn File, len: u64, write: bool) -> SegmentIo {
        let wanted = self.mapped && !(write && self.cannot_reserve.load(Relaxed));
        let map = if wanted { usize::try_from(len).ok().and_then(|len| file.map(len, write).ok()) } else { None };
        match map {
            Some(map) => SegmentIo::Mapped(map),
            None => SegmentIo::Calls(Arc::clone(&self.cache)),
        }
    }

    /// A header for a new segment.
    pub(crate) fn new_header(&self, role: Role, predecessor: LogEnd) -> Result<Header> {
        let identity = self.storage.random().map_err(|e| Error::os("get random bytes", &e))?;
        Ok(Header { id: self.next_id.fetch_add(1, Relaxed), identity, role, predecessor })
    }
}

/// A segment that still has a descriptor.
#[derive(Clone)]
pub(crate) struct OpenSegment {
    pub segment: Arc<Segment>,
    pub file: Arc<dyn File>,
}
