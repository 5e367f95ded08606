//! Hints: what opening needs to know of a segment, so that it need not read the segment.
//!
//! ```text
//! hint   = header entry* crc
//! header = magic "kvhint1\n", segment id u64, segment identity u64, covered length u64, seed 2 x u64,
//!          count u64, reserved u64 = 0                                             (64 bytes)
//! entry  = hash u64, position u64 (bit 63: tombstone), length u64, timestamp i64   (32 bytes)
//! crc    = u32, CRC32C of everything before it
//! ```
//!
//! All numbers are little-endian. There is an entry for each record of the segment before the covered
//! length, stale ones included, sorted by hash, then timestamp. A hint that does not match its segment is
//! as good as none.

use std::io;
use std::sync::Arc;

use wincode::{SchemaRead, SchemaWrite};

use crate::buckets;
use crate::error::{Error, Result};
use crate::storage::{File, Storage, create_anew, read_exact_at, write_all_at};

const MAGIC: [u8; 8] = *b"kvhint1\n";
const HEADER_LEN: usize = 64;
pub(super) const ENTRY_LEN: usize = 32;
const TOMBSTONE: u64 = 1 << 63;
/// Entries read or written at once.
const BLOCK: usize = 2048;

/// What a hint says of one record. No larger than it is on disk: sealing and compaction have many of them in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HintEntry {
    pub hash: u64,
    /// The offset, and `TOMBSTONE`.
    place: u64,
    pub len: u64,
    pub timestamp: i64,
}

impl HintEntry {
    /// Of a record at an offset.
    #[inline]
    pub(crate) fn new(hash: u64, offset: u64, len: u64, timestamp: i64, tombstone: bool) -> HintEntry {
        debug_assert_eq!(offset & TOMBSTONE, 0);
        HintEntry { hash, place: offset | if tombstone { TOMBSTONE } else { 0 }, len, timestamp }
    }

    #[inline]
    pub(crate) fn offset(&self) -> u64 {
        self.place & !TOMBSTONE
    }

    #[inline]
    pub(crate) fn tombstone(&self) -> bool {
        self.place & TOMBSTONE != 0
    }

    /// The entry of a copy of the record.
    #[inline]
    pub(crate) fn moved_to(self, offset: u64) -> HintEntry {
        HintEntry { place: offset | self.place & TOMBSTONE, ..self }
    }

    #[inline]
    pub(super) fn encode(&self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        let numbers = [self.hash, self.place, self.len, self.timestamp as u64];
        bytes.as_chunks_mut().0.iter_mut().zip(numbers).for_each(|(place, number)| *place = number.to_le_bytes());
        bytes
    }

    /// Any bytes are an entry, if not one that makes sense.
    #[inline]
    pub(crate) fn decode(bytes: &[u8; ENTRY_LEN]) -> HintEntry {
        let number = |i: usize| u64::from_le_bytes(bytes.as_chunks().0[i]);
        HintEntry { hash: number(0), place: number(1), len: number(2), timestamp: number(3) as i64 }
    }
}

impl AsRef<HintEntry> for HintEntry {
    fn as_ref(&self) -> &HintEntry {
        self
    }
}

#[derive(SchemaRead, SchemaWrite)]
struct Layout {
    magic: [u8; 8],
    id: u64,
    identity: u64,
    covered: u64,
    seed: [u64; 2],
    count: u64,
    reserved: u64,
}

/// The name of a segment's hint.
pub(crate) fn name(id: u64) -> String {
    format!("{id:010}.hint")
}

/// Where in a hint the entry of a number is.
pub(crate) fn offset_of(number: u64) -> u64 {
    number.saturating_mul(ENTRY_LEN as u64).saturating_add(HEADER_LEN as u64)
}

/// Writes the hint of the first `covered` bytes of a segment. `entries` are sorted. It is not synced: to lose it in a power
/// cut costs the next open a scan of that segment, and while much is overwritten most hints go before the system has brought
/// them to the disk.
pub(crate) fn write<'a>(
    storage: &dyn Storage,
    names: (u64, u64),
    covered: u64,
    seed: [u64; 2],
    mut entries: impl ExactSizeIterator<Item = &'a HintEntry>,
) -> io::Result<()> {
    let mut hint = HintWriter::create(storage, names, covered, seed, entries.len() as u64)?;
    entries.try_for_each(|entry| hint.push(entry))?;
    hint.finish()
}

/// A hint in the making.
pub(super) struct HintWriter {
    file: Arc<dyn File>,
    /// What comes next in the file.
    block: Vec<u8>,
    /// Where it goes.
    at: u64,
    /// The checksum of what is before that.
    crc: u32,
}

impl HintWriter {
    /// A hint that is to have so many entries.
    pub(super) fn create(
        storage: &dyn Storage,
        (id, identity): (u64, u64),
        covered: u64,
        seed: [u64; 2],
        count: u64,
    ) -> io::Result<HintWriter> {
        let file = create_anew(storage, &name(id))?;
        let layout = Layout { magic: MAGIC, id, identity, covered, seed, count, reserved: 0 };
        let block = wincode::serialize(&layout).map_err(io::Error::other)?;
        Ok(HintWriter { file, block, at: 0, crc: 0 })
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        write_all_at(&*self.file, &self.crc.to_le_bytes(), self.at)
    }

    /// They come sorted.
    pub(super) fn push(&mut self, entry: &HintEntry) -> io::Result<()> {
        if self.block.len() >= BLOCK * ENTRY_LEN {
            self.flush()?;
        }
        self.block.extend(entry.encode());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        write_all_at(&*self.file, &self.block, self.at)?;
        self.crc = crc32c::crc32c_append(self.crc, &self.block);
        self.at += self.block.len() as u64;
        self.block.clear();
        Ok(())
    }
}

/// Sorts what has a hint entry by its hash, then its timestamp.
pub(crate) fn sort<T: Copy + AsRef<HintEntry>>(entries: &mut [T]) {
    let order = |entry: &T| (entry.as_ref().hash, entry.as_ref().timestamp);
    buckets::sort(entries, |entry| order(entry).0, order);
}

/// Reads a hint, or a piece of one, front to back, in the order of the hashes. What it yields is to be trusted only once
/// [`HintReader::finish`] has found the checksum right.
///
/// It holds no descriptor: opening reads the hints of all segments side by side, and there may be more of those than a
/// process may have descriptors.
pub(crate) struct HintReader {
    storage: Arc<dyn Storage>,
    name: String,
    covered: u64,
    /// Entries read at once.
    block_len: u64,
    /// Entries not yet read from the file.
    unread: u64,
    /// Where those are.
    at: u64,
    /// The checksum of so many bytes before that.
    crc: u32,
    summed: u64,
    block: Vec<u8>,
    taken: usize,
}

impl HintReader {
    /// Opens the hint of a segment; `None` if there is none, or it belongs to something else.
    pub(crate) fn open(storage: &Arc<dyn Storage>, (id, identity): (u64, u64), seed: [u64; 2]) -> Option<HintReader> {
        let name = name(id);
        let file = storage.open(&name, false).ok()?;
        let mut header = [0; HEADER_LEN];
        read_exact_at(&*file, &mut header, 0).ok()?;
        let layout: Layout = wincode::deserialize_exact(&header).ok()?;
        let end = layout.count.checked_mul(ENTRY_LEN as u64)?.checked_add(HEADER_LEN as u64)?;
        let fits = layout.magic == MAGIC
            && layout.id == id
            && layout.identity == identity
            && layout.seed == seed
            && layout.reserved == 0
            && file.len().ok()? == end.checked_add(4)?;
        fits.then(|| HintReader {
            storage: Arc::clone(storage),
            name,
            covered: layout.covered,
            block_len: BLOCK as u64,
            unread: layout.count,
            at: HEADER_LEN as u64,
            crc: crc32c::crc32c(&header),
            summed: HEADER_LEN as u64,
            block: Vec::new(),
            taken: 0,
        })
    }

    /// The length of the segment that the hint covers.
    pub(crate) fn covered(&self) -> u64 {
        self.covered
    }

    /// How many entries there are that have not been read.
    pub(crate) fn unread(&self) -> u64 {
        self.unread
    }

    /// Divides a hint that has not been read yet: each piece but the first begins where the hashes reach the next one of
    /// `starts`, if the hint is in order. Each is read in blocks of so many entries.
    pub(crate) fn divide(mut self, starts: &[u64], block: u64) -> Result<Vec<HintReader>> {
        let mut pieces = Vec::new();
        pieces.try_reserve_exact(starts.len() + 1).map_err(|_| Error::no_memory("reading a hint"))?;
        self.block_len = block.max(1);
        let mut rest = self;
        for &start in starts {
            let before = rest.count_before(start)?;
            let (at, unread) = (rest.at + before * ENTRY_LEN as u64, rest.unread - before);
            let (storage, name) = (Arc::clone(&rest.storage), rest.name.clone());
            rest.unread = before;
            let next = HintReader { storage, name, unread, at, crc: 0, summed: 0, block: Vec::new(), ..rest };
            pieces.push(std::mem::replace(&mut rest, next));
        }
        pieces.push(rest);
        Ok(pieces)
    }

    /// How many of the entries have hashes before this one.
    fn count_before(&self, hash: u64) -> Result<u64> {
        let file = self.open_file()?;
        let (mut low, mut high) = (0, self.unread);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut found = [0; 8];
            let read = read_exact_at(&*file, &mut found, self.at + middle * ENTRY_LEN as u64);
            read.map_err(|e| self.failed(&e))?;
            if u64::from_le_bytes(found) < hash { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// The next entries, without taking them: all that have been read, at least one, unless there are none left.
    pub(crate) fn peek_block(&mut self) -> Result<&[[u8; ENTRY_LEN]]> {
        if self.taken == self.block.len() && self.unread > 0 {
            self.read_block()?;
        }
        Ok(self.block[self.taken..].as_chunks().0)
    }

    /// Takes so many of the entries that `peek_block` showed.
    pub(crate) fn take(&mut self, entries: usize) {
        self.taken = self.block.len().min(self.taken + entries * ENTRY_LEN);
    }

    /// The next entry, without taking it; `None` at the end.
    pub(crate) fn peek(&mut self) -> Result<Option<HintEntry>> {
        Ok(self.peek_block()?.first().map(HintEntry::decode))
    }

    /// Takes the entry that `peek` showed.
    pub(crate) fn advance(&mut self) {
        self.take(1);
    }

    /// Reads what is left and says whether the checksum of the whole hint is right.
    pub(crate) fn finish(self) -> Result<bool> {
        HintReader::finish_all(vec![self])
    }

    /// As `finish`, of a hint that has been divided into these pieces.
    pub(crate) fn finish_all(mut pieces: Vec<HintReader>) -> Result<bool> {
        let mut sum = 0;
        for piece in &mut pieces {
            while piece.unread > 0 {
                piece.read_block()?;
            }
            sum = crc32c::crc32c_combine(sum, piece.crc, piece.summed as usize);
        }
        let mut expected = [0; 4];
        pieces.last().map_or(Ok(()), |last| last.read(&mut expected))?;
        Ok(u32::from_le_bytes(expected) == sum)
    }

    fn open_file(&self) -> Result<Arc<dyn File>> {
        self.storage.open(&self.name, false).map_err(|e| self.failed(&e))
    }

    fn failed(&self, e: &std::io::Error) -> Error {
        Error::os(format_args!("read {}", self.name), e)
    }

    fn read(&self, bytes: &mut [u8]) -> Result<()> {
        read_exact_at(&*self.open_file()?, bytes, self.at).map_err(|e| self.failed(&e))
    }

    fn read_block(&mut self) -> Result<()> {
        let count = self.unread.min(self.block_len) as usize;
        let mut block = std::mem::take(&mut self.block);
        self.taken = 0;
        block
            .try_reserve((count * ENTRY_LEN).saturating_sub(block.len()))
            .map_err(|_| Error::no_memory("reading a hint"))?;
        block.resize(count * ENTRY_LEN, 0);
        self.read(&mut block)?;
        self.block = block;
        self.crc = crc32c::crc32c_append(self.crc, &self.block);
        self.summed += self.block.len() as u64;
        self.at += self.block.len() as u64;
        self.unread -= count as u64;
        Ok(())
    }
}
