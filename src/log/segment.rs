//! One segment of the log: an append-only file of frames, and how to read a frame of it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex};

use super::growth::Growth;
use super::header::{Header, LogEnd, Role};
use super::record::{self, CRC_LEN, Head, KEY_AT};
use crate::MAX_KEY_LEN;
use crate::error::{Error, Result};
use crate::prefetch::prefetch_bytes;
use crate::storage::{File, Map, Storage, read_exact_at};

/// So many bytes are worth a system call that makes syncing them cheaper.
const MANY_BYTES: u64 = 256 << 10;

/// The name of a segment's file.
pub(crate) fn file_name(id: u64) -> String {
    format!("{id:010}.log")
}

/// How far a segment has come in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub(crate) enum State {
    /// Takes appends.
    Active = 0,
    /// Complete, but not known to be synced.
    Rotated = 1,
    /// Synced and listed so in MANIFEST. Its bytes never change again.
    Sealed = 2,
    /// No longer part of the database; its file goes when nobody holds it any more.
    Retired = 3,
}

/// Where a segment's bytes are read from.
pub(crate) enum SegmentIo {
    Mapped(Map),
    /// By system calls, through a descriptor of the cache.
    Calls(Arc<FileCache>),
}

/// What changes with every record that is overwritten or deleted. Apart from what all readers read.
#[repr(align(64))]
struct Garbage {
    dead: AtomicU64,
    tombstones: AtomicU64,
}

/// A segment of the log, or of compaction's output.
pub(crate) struct Segment {
    header: Header,
    name: String,
    io: SegmentIo,
    growth: Growth,
    garbage: Garbage,
    state: AtomicU8,
    quarantined: AtomicBool,
    in_compaction: AtomicBool,
    /// There is a hint that covers so many bytes of it.
    hinted: AtomicU64,
    /// It was tried to make one that was missing.
    hint_tried: AtomicBool,
    /// So many bytes are known to be synced; 0 means that not even the file's name is.
    synced: AtomicU64,
    /// So many bytes are on their way to the disk.
    sent: AtomicU64,
    /// So many bytes MANIFEST says to be synced.
    listed: AtomicU64,
    /// Reads of it that failed, in compaction.
    failures: AtomicU8,
    /// The count of retirements when this segment's tombstones were last found to be needed, for all that could be told.
    checked: AtomicU64,
}

impl Segment {
    pub(crate) fn new(header: Header, io: SegmentIo, len: u64, state: State) -> Segment {
        Segment {
            name: file_name(header.id),
            header,
            io,
            growth: Growth::new(len),
            garbage: Garbage { dead: AtomicU64::new(0), tombstones: AtomicU64::new(0) },
            state: AtomicU8::new(state as u8),
            quarantined: AtomicBool::new(false),
            in_compaction: AtomicBool::new(false),
            hinted: AtomicU64::new(0),
            hint_tried: AtomicBool::new(false),
            synced: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            listed: AtomicU64::new(0),
            failures: AtomicU8::new(0),
            checked: AtomicU64::new(u64::MAX),
        }
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn id(&self) -> u64 {
        self.header.id
    }

    pub(crate) fn identity(&self) -> u64 {
        self.header.identity
    }

    pub(crate) fn role(&self) -> Role {
        self.header.role
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Bytes that hold the header and frames.
    pub(crate) fn len(&self) -> u64 {
        self.growth.len()
    }

    /// Lets readers see what has been stored in the place of `size` bytes at `start`, once all places before it are filled.
    #[inline]
    pub(crate) fn publish(&self, start: u64, size: u64) {
        self.growth.publish(start, size);
    }

    /// Waits until all places before `end` are published.
    #[inline]
    pub(crate) fn await_len(&self, end: u64) {
        self.growth.await_len(end);
    }

    pub(crate) fn state(&self) -> State {
        match self.state.load(Acquire) {
            0 => State::Active,
            1 => State::Rotated,
            2 => State::Sealed,
            _ => State::Retired,
        }
    }

    pub(crate) fn set_state(&self, state: State) {
        self.state.store(state as u8, Release);
    }

    /// Bytes of frames that nobody needs any more.
    pub(crate) fn dead(&self) -> u64 {
        self.garbage.dead.load(Relaxed).min(self.len())
    }

    pub(crate) fn add_dead(&self, bytes: u64) {
        self.garbage.dead.fetch_add(bytes, Relaxed);
    }

    /// Bytes of tombstones, needed or not.
    pub(crate) fn tombstones(&self) -> u64 {
        self.garbage.tombstones.load(Relaxed)
    }

    pub(crate) fn add_tombstone(&self, bytes: u64) {
        self.garbage.tombstones.fetch_add(bytes, Relaxed);
    }

    /// The least timestamp of the records, `i64::MAX` if there is none.
    pub(crate) fn min_timestamp(&self) -> i64 {
        self.growth.min_timestamp()
    }

    #[inline]
    pub(crate) fn note_timestamp(&self, timestamp: i64) {
        self.growth.note_timestamp(timestamp);
    }

    /// Whether compaction must leave the segment alone, for it holds a record that cannot be read.
    pub(crate) fn quarantined(&self) -> bool {
        self.quarantined.load(Relaxed)
    }

    pub(crate) fn quarantine(&self) {
        self.quarantined.store(true, Relaxed);
    }

    /// Whether a compaction is under way, or was, that retires it.
    #[inline]
    pub(crate) fn in_compaction(&self) -> bool {
        self.in_compaction.load(Relaxed)
    }

    pub(crate) fn set_in_compaction(&self, in_compaction: bool) {
        self.in_compaction.store(in_compaction, Relaxed);
    }

    /// Whether there is a hint that covers all of it.
    pub(crate) fn hinted(&self) -> bool {
        self.hinted.load(Relaxed) == self.len()
    }

    pub(crate) fn set_hinted(&self, hinted: bool) {
        self.hinted.store(if hinted { self.len() } else { 0 }, Relaxed);
    }

    /// Whether this is the first try to make a missing hint.
    pub(crate) fn try_hint(&self) -> bool {
        !self.hint_tried.swap(true, Relaxed)
    }

    /// So many bytes are on their way to the disk, or there.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Relaxed).max(self.synced())
    }

    pub(crate) fn set_sent(&self, len: u64) {
        self.sent.store(len, Relaxed);
    }

    /// So many bytes are known to be synced; 0 means that not even the file's name is.
    pub(crate) fn synced(&self) -> u64 {
        self.synced.load(Acquire)
    }

    pub(crate) fn set_synced(&self, len: u64) {
        self.synced.fetch_max(len, AcqRel);
    }

    /// So many bytes MANIFEST says to be synced.
    pub(crate) fn listed(&self) -> u64 {
        self.listed.load(Relaxed)
    }

    pub(crate) fn set_listed(&self, len: u64) {
        self.listed.store(len, Relaxed);
    }

    /// Notes that compaction could not read it. Returns how often that has happened.
    pub(crate) fn note_failure(&self) -> u8 {
        self.failures.fetch_add(1, Relaxed).saturating_add(1)
    }

    pub(crate) fn checked(&self) -> u64 {
        self.checked.load(Relaxed)
    }

    pub(crate) fn set_checked(&self, retirements: u64) {
        self.checked.store(retirements, Relaxed);
    }

    pub(crate) fn io(&self) -> &SegmentIo {
        &self.io
    }

    /// The bytes from `offset` on, as far as frames reach; `None` if the segment is not mapped, or ends before.
    #[inline]
    pub(crate) fn mapped_from(&self, offset: u64) -> Option<&[u8]> {
        let SegmentIo::Mapped(map) = &self.io else { return None };
        let len = self.len().checked_sub(offset)?;
        // SAFETY: bytes before the published length are inside the file and are never stored to again:
        // the appender writes behind it only, and sealing or retiring changes nothing before it.
        unsafe { map.bytes(offset as usize, len as usize) }
    }

    /// The bytes from `offset` on for `len`, if the segment is mapped and holds them.
    #[inline]
    pub(crate) fn mapped(&self, offset: u64, len: u64) -> Option<&[u8]> {
        self.mapped_from(offset)?.get(..usize::try_from(len).ok()?)
    }

    /// The whole frame at `offset`, if the segment is mapped and a frame of plausible length stands there.
    #[inline]
    pub(crate) fn mapped_record(&self, offset: u64) -> Option<&[u8]> {
        record::first_record(self.mapped_from(offset)?)
    }

    /// Brings the bytes from `offset` on for `len` into the cache, or the first of many, if the segment is mapped.
    #[inline]
    pub(crate) fn prefetch(&self, offset: u64, len: u64) {
        if let Some(bytes) = self.mapped(offset, 1) {
            prefetch_bytes(bytes.as_ptr(), len);
        }
    }

    /// Prepares a sync of the first `end` bytes, if many of them have been stored since the last one was made or started.
    pub(crate) fn expect_sync(&self, end: u64) {
        let (start, SegmentIo::Mapped(map)) = (self.sent(), &self.io) else { return };
        if end.saturating_sub(start) >= MANY_BYTES {
            map.expect_sync(start as usize, (end - start) as usize);
        }
    }

    /// Prepares reads of all of it, which has just been written: it is in the page cache.
    pub(crate) fn expect_reads(&self) {
        if let SegmentIo::Mapped(map) = &self.io {
            map.expect_reads(self.len() as usize);
        }
    }

    /// Makes what is mapped of it read-only. It is complete.
    pub(crate) fn seal_map(&self) {
        if let SegmentIo::Mapped(map) = &self.io {
            map.seal(self.len() as usize);
        }
    }

    /// Has bytes from `offset` on read from the disk if the segment is mapped; by system calls that happens by itself.
    pub(crate) fn read_ahead(&self, offset: u64, len: u64) {
        if let SegmentIo::Mapped(map) = &self.io {
            map.read_ahead(offset as usize, len.min(self.len().saturating_sub(offset)) as usize);
        }
    }

    /// Fills `buf` from `offset` on, by whichever way the segment is read.
    pub(crate) fn read_exact(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match &self.io {
            SegmentIo::Mapped(_) => match self.mapped(offset, buf.len() as u64) {
                Some(bytes) => buf.copy_from_slice(bytes),
                None => return Err(Error::corrupt(&self.name, offset, "beyond the end of the segment")),
            },
            SegmentIo::Calls(cache) => {
                let os = |e| Error::os(format_args!("read {} at offset {offset}", self.name), &e);
                let file = cache.get(&self.name).map_err(os)?;
                read_exact_at(&*file, buf, offset).map_err(|e| match e.kind() {
                    std::io::ErrorKind::UnexpectedEof => Error::corrupt(&self.name, offset, "the file ends here"),
                    _ => os(e),
                })?;
            }
        }
        Ok(())
    }

    /// The key of the record of `len` bytes at `offset`, which may be damaged; `None` if it cannot be read.
    pub(crate) fn key_at(&self, offset: u64, len: u64) -> Option<Vec<u8>> {
        let mut fixed = [0; KEY_AT];
        self.read_exact(&mut fixed, offset).ok()?;
        let key_len = usize::try_from(u64::from_le_bytes(*fixed.last_chunk()?)).ok()?;
        let mut bytes = vec![0; Head::max_len(key_len.min(MAX_KEY_LEN)).min(len as usize)];
        self.read_exact(&mut bytes, offset).ok()?;
        Head::parse(&bytes, len).map(|head| head.key.to_vec())
    }

    /// What a successor's header says of this segment, once it takes no more appends.
    pub(crate) fn log_end(&self) -> Result<LogEnd> {
        let len = self.len();
        let mut crc = [0; CRC_LEN];
        if len > super::header::HEADER_LEN as u64 {
            self.read_exact(&mut crc, len - CRC_LEN as u64)?;
        }
        Ok(LogEnd { id: self.id(), len, crc: u32::from_le_bytes(crc) })
    }
}

/// A bounded cache of open descriptors for segments that are read by system calls, so that neither a
/// terabyte of segments nor `ulimit -n 256` is a problem.
pub(crate) struct FileCache {
    storage: Arc<dyn Storage>,
    /// Most recently used last.
    open: Mutex<Vec<(String, Arc<dyn File>)>>,
}

const CACHED_FILES: usize = 32;

impl FileCache {
    pub(crate) fn new(storage: Arc<dyn Storage>) -> FileCache {
        FileCache { storage, open: Mutex::new(Vec::new()) }
    }

    fn get(&self, name: &str) -> std::io::Result<Arc<dyn File>> {
        {
            let mut open = self.open.lock().unwrap_or_else(|e| e.into_inner());
            if let Some(i) = open.iter().rposition(|(n, _)| n == name) {
                let entry = open.remove(i);
                let file = Arc::clone(&entry.1);
                open.push(entry);
                return Ok(file);
            }
        }
        let file = self.storage.open(name, false)?;
        self.put(name, Arc::clone(&file));
        Ok(file)
    }

    /// Remembers a descriptor, closing the one that was not used for longest.
    pub(crate) fn put(&self, name: &str, file: Arc<dyn File>) {
        let mut open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        open.retain(|(n, _)| n != name);
        if open.len() >= CACHED_FILES {
            open.remove(0);
        }
        open.push((name.to_owned(), file));
    }

    /// Forgets the descriptor of a file that is going away.
    pub(crate) fn forget(&self, name: &str) {
        self.open.lock().unwrap_or_else(|e| e.into_inner()).retain(|(n, _)| n != name);
    }
}
