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

use std::sync::Arc;

use wincode::{SchemaRead, SchemaWrite};

use crate::error::{Error, Result};
use crate::storage::{Storage, create_anew, read_exact_at, write_all_at};

const MAGIC: [u8; 8] = *b"kvhint1\n";
const HEADER_LEN: usize = 64;
const ENTRY_LEN: usize = 32;
const TOMBSTONE: u64 = 1 << 63;
/// Hints of smaller segments are not synced: to lose one costs less than the sync.
const SYNC_FROM: u64 = 1 << 20;
/// Fewer entries than this many bits can count are sorted without buckets; and more buckets than that would only miss the
/// caches.
const LEAST_BUCKET_BITS: u32 = 8;
const MOST_BUCKET_BITS: u32 = 16;
/// Entries read or written at once.
const BLOCK: usize = 2048;

/// What a hint says of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HintEntry {
    pub hash: u64,
    pub offset: u64,
    pub len: u64,
    pub timestamp: i64,
    pub tombstone: bool,
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

/// Writes the hint of the first `covered` bytes of a segment. `entries` are sorted.
pub(crate) fn write<'a>(
    storage: &dyn Storage,
    (id, identity): (u64, u64),
    covered: u64,
    seed: [u64; 2],
    mut entries: impl ExactSizeIterator<Item = &'a HintEntry>,
) -> std::io::Result<()> {
    let name = name(id);
    let file = create_anew(storage, &name)?;
    let count = entries.len() as u64;
    let layout = Layout { magic: MAGIC, id, identity, covered, seed, count, reserved: 0 };
    let mut block = wincode::serialize(&layout).map_err(std::io::Error::other)?;
    let (mut crc, mut at) = (0, 0);
    while entries.len() > 0 {
        for e in entries.by_ref().take(BLOCK) {
            let flag = if e.tombstone { TOMBSTONE } else { 0 };
            for number in [e.hash, e.offset | flag, e.len, e.timestamp as u64] {
                block.extend(number.to_le_bytes());
            }
        }
        write_all_at(&*file, &block, at)?;
        crc = crc32c::crc32c_append(crc, &block);
        at += block.len() as u64;
        block.clear();
    }
    crc = crc32c::crc32c_append(crc, &block);
    block.extend(crc.to_le_bytes());
    write_all_at(&*file, &block, at)?;
    if covered < SYNC_FROM { Ok(()) } else { file.sync() }
}

/// Sorts what has a hint entry by its hash, then its timestamp.
///
/// The hashes are keyed and so spread evenly: distributed to as many buckets by their top bits as there are entries, few
/// are left to be compared in each. Without the memory for that they are all compared.
pub(crate) fn sort<T: Copy>(entries: &mut [T], hint_entry: impl Fn(&T) -> &HintEntry) {
    let order = |e: &T| (hint_entry(e).hash, hint_entry(e).timestamp);
    let bits = entries.len().checked_ilog2().unwrap_or(0).min(MOST_BUCKET_BITS);
    let (mut ends, mut copy) = (Vec::new(), Vec::new());
    let no_memory = ends.try_reserve_exact(1 << bits).is_err() || copy.try_reserve_exact(entries.len()).is_err();
    if bits < LEAST_BUCKET_BITS || no_memory || u32::try_from(entries.len()).is_err() {
        return entries.sort_unstable_by_key(order);
    }
    ends.resize(1 << bits, 0u32);
    copy.extend_from_slice(entries);
    let bucket_of = |e: &T| (hint_entry(e).hash >> (64 - bits)) as usize;
    copy.iter().for_each(|e| ends[bucket_of(e)] += 1);
    let mut end = 0;
    for count in &mut ends {
        end += *count;
        *count = end - *count;
    }
    for entry in &copy {
        // What is the start of the bucket at first is its end when all its entries are in place.
        let place = &mut ends[bucket_of(entry)];
        entries[*place as usize] = *entry;
        *place += 1;
    }
    let mut start = 0;
    for end in ends {
        entries[start..end as usize].sort_unstable_by_key(order);
        start = end as usize;
    }
}

/// Reads a hint front to back, in the order of the hashes. What it yields is to be trusted only once
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
    at: u64,
    crc: u32,
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
        let expected_len = layout.count.checked_mul(ENTRY_LEN as u64)?.checked_add((HEADER_LEN + 4) as u64)?;
        let fits = layout.magic == MAGIC
            && layout.id == id
            && layout.identity == identity
            && layout.seed == seed
            && layout.reserved == 0
            && file.len().ok()? == expected_len;
        let (at, crc) = (HEADER_LEN as u64, crc32c::crc32c(&header));
        let (covered, unread) = (layout.covered, layout.count);
        let (storage, block_len) = (Arc::clone(storage), BLOCK as u64);
        fits.then(|| HintReader { storage, name, covered, block_len, unread, at, crc, block: Vec::new(), taken: 0 })
    }

    /// The length of the segment that the hint covers.
    pub(crate) fn covered(&self) -> u64 {
        self.covered
    }

    /// Reads less at once, because there are many readers.
    pub(crate) fn read_less(&mut self) {
        self.block_len = BLOCK as u64 / 16;
    }

    /// The next entry, without taking it; `None` at the end.
    pub(crate) fn peek(&mut self) -> Result<Option<HintEntry>> {
        if self.taken == self.block.len() {
            if self.unread == 0 {
                return Ok(None);
            }
            self.read_block()?;
        }
        let bytes = &self.block[self.taken..self.taken + ENTRY_LEN];
        let number = |i: usize| u64::from_le_bytes(bytes[i * 8..i * 8 + 8].try_into().unwrap_or_default());
        Ok(Some(HintEntry {
            hash: number(0),
            offset: number(1) & !TOMBSTONE,
            len: number(2),
            timestamp: number(3) as i64,
            tombstone: number(1) & TOMBSTONE != 0,
        }))
    }

    /// Takes the entry that `peek` showed.
    pub(crate) fn advance(&mut self) {
        self.taken += ENTRY_LEN;
    }

    /// Reads what is left and says whether the checksum of the whole hint is right.
    pub(crate) fn finish(mut self) -> Result<bool> {
        while self.unread > 0 {
            self.read_block()?;
        }
        let mut crc = [0; 4];
        self.read(&mut crc)?;
        Ok(u32::from_le_bytes(crc) == self.crc)
    }

    fn read(&self, bytes: &mut [u8]) -> Result<()> {
        let read = self.storage.open(&self.name, false).and_then(|file| read_exact_at(&*file, bytes, self.at));
        read.map_err(|e| Error::os(format_args!("read {}", self.name), &e))
    }

    fn read_block(&mut self) -> Result<()> {
        let count = self.unread.min(self.block_len) as usize;
        self.block.resize(count * ENTRY_LEN, 0);
        let mut block = std::mem::take(&mut self.block);
        self.read(&mut block)?;
        self.block = block;
        self.crc = crc32c::crc32c_append(self.crc, &self.block);
        self.at += self.block.len() as u64;
        self.unread -= count as u64;
        self.taken = 0;
        Ok(())
    }
}
