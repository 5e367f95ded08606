//! Filling the index from what is known of each segment's records: from hints, or from a scan where there is none.
//!
//! Shard by shard, in the order of the hashes, all records of one hash are brought together, and the newest of
//! each key wins. Values are not read, and keys only where two records have the same hash.

use std::sync::Arc;

use crate::MAX_KEY_LEN;
use crate::engine::hash_key;
use crate::error::{Code, Error, Result};
use crate::index::{Index, KeyHash, Position, Shard};
use crate::log::header::HEADER_LEN;
use crate::log::hint::{HintEntry, HintReader};
use crate::log::record::{Head, KEY_LEN_AT};
use crate::log::segment::Segment;

/// From so many sources on, memory for reading them is to be saved.
const MANY: usize = 128;

/// The records of one segment: of its first part from a hint, of the rest from a scan.
pub(crate) struct Source {
    pub segment: Arc<Segment>,
    pub slot: u32,
    pub hint: Option<HintReader>,
    /// Sorted by hash.
    pub scanned: Vec<HintEntry>,
    taken: usize,
    bytes: u64,
    /// The hint says what cannot be.
    rotten: bool,
}

impl Source {
    pub(crate) fn new(
        segment: Arc<Segment>,
        slot: u32,
        hint: Option<HintReader>,
        mut scanned: Vec<HintEntry>,
    ) -> Source {
        scanned.sort_unstable_by_key(|e| e.hash);
        Source { segment, slot, hint, scanned, taken: 0, bytes: 0, rotten: false }
    }

    /// Moves all entries up to the end of a shard to `out`.
    fn take_shard(&mut self, shard: u64, from: usize, out: &mut Vec<(usize, HintEntry)>) -> Result<()> {
        while let Some(hint) = &mut self.hint {
            let entry = match hint.peek() {
                Ok(Some(entry)) if entry.hash >> 56 <= shard => entry,
                Ok(_) => break,
                Err(e) if e.code() == Code::NoMemory => return Err(e),
                Err(_) => HintEntry { hash: 0, offset: 0, len: 0, timestamp: 0, tombstone: false },
            };
            // A hint that cannot be read, or says what cannot be, is as good as none.
            let end = entry.offset.saturating_add(entry.len);
            if entry.offset < HEADER_LEN as u64 || end > hint.covered() || end > Position::MAX_END {
                self.rotten = true;
                self.hint = None;
                break;
            }
            hint.advance();
            self.bytes += entry.len;
            out.try_reserve(1).map_err(|_| Error::no_memory("the index"))?;
            out.push((from, entry));
        }
        while let Some(entry) = self.scanned.get(self.taken).filter(|e| e.hash >> 56 <= shard) {
            self.taken += 1;
            self.bytes += entry.len;
            out.try_reserve(1).map_err(|_| Error::no_memory("the index"))?;
            out.push((from, *entry));
        }
        Ok(())
    }
}

/// Fills the empty index. Returns the largest timestamp, and the sources whose hint turned out to be rotten: what
/// was put into the index is worth nothing if there is any.
pub(crate) fn fill(index: &Index, seed: [u64; 2], sources: &mut [Source]) -> Result<(i64, Vec<usize>)> {
    let mut entries: Vec<(usize, HintEntry)> = Vec::new();
    if sources.len() > MANY {
        sources.iter_mut().filter_map(|source| source.hint.as_mut()).for_each(HintReader::read_less);
    }
    let mut last_timestamp = i64::MIN;
    for shard in 0..256 {
        entries.clear();
        for (i, source) in sources.iter_mut().enumerate() {
            source.take_shard(shard, i, &mut entries)?;
        }
        entries.sort_unstable_by_key(|(_, e)| (e.hash, std::cmp::Reverse(e.timestamp)));
        let mut guard = index.write(KeyHash(shard << 56))?;
        for group in entries.chunk_by(|(_, a), (_, b)| a.hash == b.hash) {
            last_timestamp = last_timestamp.max(group[0].1.timestamp);
            if let [(from, entry)] = group {
                settle(&mut guard, &sources[*from], entry, true)?;
            } else {
                settle_group(&mut guard, seed, sources, group)?;
            }
        }
    }
    let mut rotten = Vec::new();
    for (i, source) in sources.iter_mut().enumerate() {
        let intact = source.hint.take().is_none_or(|hint| hint.finish().unwrap_or(false));
        if source.rotten || !intact {
            rotten.push(i);
        }
        let frames = source.segment.len().saturating_sub(HEADER_LEN as u64);
        source.segment.add_dead(frames.saturating_sub(source.bytes));
    }
    Ok((last_timestamp, rotten))
}

/// Settles records whose keys have the same hash, newest first: nearly always versions of one key, but it takes the
/// keys to know.
fn settle_group(shard: &mut Shard, seed: [u64; 2], sources: &[Source], group: &[(usize, HintEntry)]) -> Result<()> {
    let mut seen: Vec<Option<Vec<u8>>> = Vec::new();
    for (from, entry) in group {
        let key = read_key(&sources[*from].segment, entry).filter(|key| hash_key(seed, key).0 == entry.hash);
        // A record that cannot be read is taken for a version of the same key: with 64 bits of a keyed hash it is.
        let older = !seen.is_empty() && (key.is_none() || seen.iter().any(|s| s.is_none() || *s == key));
        settle(shard, &sources[*from], entry, !older)?;
        if !older {
            seen.push(key);
        }
    }
    Ok(())
}

/// Puts a record into the index and the counters.
fn settle(shard: &mut Shard, source: &Source, entry: &HintEntry, newest: bool) -> Result<()> {
    source.segment.note_timestamp(entry.timestamp);
    if !newest {
        source.segment.add_dead(entry.len);
    } else if entry.tombstone {
        source.segment.add_tombstone(entry.len);
    } else {
        let hash = KeyHash(entry.hash);
        shard.reserve(hash)?;
        shard.insert(hash, Position::new(source.slot, entry.offset, entry.len));
    }
    Ok(())
}

/// A record's key, which may be damaged; `None` if it cannot be read.
pub(crate) fn read_key(segment: &Segment, entry: &HintEntry) -> Option<Vec<u8>> {
    let mut fixed = [0; KEY_LEN_AT + 8];
    segment.read_exact(&mut fixed, entry.offset).ok()?;
    let key_len = usize::try_from(u64::from_le_bytes(*fixed.last_chunk()?)).ok()?;
    let mut bytes = vec![0; Head::max_len(key_len.min(MAX_KEY_LEN)).min(entry.len as usize)];
    segment.read_exact(&mut bytes, entry.offset).ok()?;
    Head::parse(&bytes, entry.len).map(|head| head.key.to_vec())
}
