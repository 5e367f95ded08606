//! A share of the index, which one thread loads: some shards, and what is to go into them from each source.

use std::ops::{Range, RangeInclusive};

use super::window::{Found, Window};
use super::{SHARD_BITS, Source};
use crate::engine::hash_key;
use crate::error::{Code, Error, Result};
use crate::index::{Index, KeyHash, Position};
use crate::log::header::HEADER_LEN;
use crate::log::hint::{HintEntry, HintReader};
use crate::log::segment::Segment;

/// So many records are brought together at once, if hashes are spread evenly: no more than the caches hold.
const WINDOW: u64 = 2048;
/// And so many of each source, or there would be more to do for sources than for records.
const LEAST_OF_SOURCE: u64 = 8;
/// They have at most so many top bits of the hash in common.
const MOST_BITS: u32 = 32;

/// What one thread loads.
pub(super) struct Share<'a> {
    pub shards: Range<u64>,
    /// Of each source.
    pub feeds: Vec<Feed<'a>>,
}

/// What a share takes from one source, in the order of the hashes.
pub(super) struct Feed<'a> {
    slot: u32,
    pub hint: Option<HintReader>,
    scanned: &'a [HintEntry],
    /// The hint cannot be read, or says what cannot be.
    pub rotten: bool,
    pub tally: Tally,
}

/// What a segment is told of its records.
pub(super) struct Tally {
    /// Bytes of records.
    bytes: u64,
    /// Bytes of records of which there are newer versions.
    stale: u64,
    /// Bytes of tombstones that are the newest records of their keys.
    tombstones: u64,
    min_timestamp: i64,
    pub max_timestamp: i64,
}

impl<'a> Share<'a> {
    pub(super) fn new(shards: Range<u64>) -> Share<'a> {
        Share { shards, feeds: Vec::new() }
    }

    /// Fills the shards. So many records are expected in all shares together.
    pub(super) fn load(&mut self, index: &Index, seed: [u64; 2], sources: &[Source], records: u64) -> Result<()> {
        let at_once = WINDOW.max(LEAST_OF_SOURCE * sources.len() as u64);
        let bits = (records / at_once).checked_ilog2().unwrap_or(0).clamp(SHARD_BITS, MOST_BITS);
        let mut window = Window::new(bits);
        let mut entries = Vec::new();
        for shard in self.shards.clone() {
            entries.clear();
            for part in shard << (bits - SHARD_BITS)..(shard + 1) << (bits - SHARD_BITS) {
                self.gather(&window.hashes(part), &mut window.found)?;
                window.sort()?;
                entries.try_reserve(window.found.len()).map_err(no_memory)?;
                let record = |number: &u32| &window.found[*number as usize];
                for group in window.groups() {
                    match group {
                        [only] => self.settle(record(only), true, &mut entries),
                        _ => self.settle_group(seed, sources, group.iter().map(record), &mut entries),
                    }
                }
            }
            index.write(KeyHash(shard << (u64::BITS - SHARD_BITS)))?.fill(&entries)?;
        }
        self.feeds.iter_mut().for_each(Feed::end);
        Ok(())
    }

    /// Brings all records of these hashes together.
    fn gather(&mut self, hashes: &RangeInclusive<u64>, out: &mut Vec<Found>) -> Result<()> {
        out.clear();
        for (from, feed) in self.feeds.iter_mut().enumerate() {
            feed.take_hinted(hashes, from as u32, out)?;
            feed.take_scanned(hashes, from as u32, out)?;
        }
        Ok(())
    }

    /// Settles records whose keys have the same hash, newest first: nearly always versions of one key, but it takes the
    /// keys to know.
    fn settle_group<'f>(
        &mut self,
        seed: [u64; 2],
        sources: &[Source],
        group: impl Iterator<Item = &'f Found>,
        entries: &mut Vec<(u32, Position)>,
    ) {
        let mut seen: Vec<Option<Vec<u8>>> = Vec::new();
        for record in group {
            let segment = &sources[record.from as usize].segment;
            let key = segment.key_at(record.offset, record.len).filter(|key| hash_key(seed, key).0 == record.hash);
            // A record that cannot be read is taken for a version of the same key: with 64 bits of a keyed hash it is.
            let older = !seen.is_empty() && (key.is_none() || seen.iter().any(|s| s.is_none() || *s == key));
            self.settle(record, !older, entries);
            if !older {
                seen.push(key);
            }
        }
    }

    /// Puts a record into what will be a shard, and into the counters.
    fn settle(&mut self, record: &Found, newest: bool, entries: &mut Vec<(u32, Position)>) {
        let feed = &mut self.feeds[record.from as usize];
        if !newest {
            feed.tally.stale += record.len;
        } else if record.tombstone {
            feed.tally.tombstones += record.len;
        } else {
            let position = Position::new(feed.slot, record.offset, record.len);
            entries.push((KeyHash(record.hash).tag(), position));
        }
    }
}

impl<'a> Feed<'a> {
    pub(super) fn new(slot: u32, hint: Option<HintReader>, scanned: &'a [HintEntry], rotten: bool) -> Feed<'a> {
        Feed { slot, hint, scanned, rotten, tally: Tally::default() }
    }

    /// Moves what the hint says of these hashes, which come next, to `out`.
    fn take_hinted(&mut self, hashes: &RangeInclusive<u64>, from: u32, out: &mut Vec<Found>) -> Result<()> {
        while let Some(hint) = &mut self.hint {
            let end = hint.covered().min(Position::MAX_END);
            let known = match hint.peek_block() {
                Ok(known) => known,
                Err(e) if e.code() == Code::NoMemory => return Err(e),
                Err(_) => {
                    self.reject();
                    break;
                }
            };
            let count = known.iter().take_while(|bytes| HintEntry::decode(bytes).hash <= *hashes.end()).count();
            let more = count > 0 && count == known.len();
            let before = out.len();
            out.try_reserve(count).map_err(no_memory)?;
            out.extend(known[..count].iter().map(|bytes| Found::new(HintEntry::decode(bytes), from)));
            hint.take(count);
            let possible = |f: &Found| {
                f.hash >= *hashes.start() && f.offset >= HEADER_LEN as u64 && f.offset.saturating_add(f.len) <= end
            };
            if !out[before..].iter().fold(true, |all, found| all & possible(found)) {
                out.truncate(before);
                self.reject();
                break;
            }
            self.tally.note(&out[before..]);
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// Moves what a scan has found of these hashes, which come next, to `out`.
    fn take_scanned(&mut self, hashes: &RangeInclusive<u64>, from: u32, out: &mut Vec<Found>) -> Result<()> {
        let count = self.scanned.partition_point(|e| e.hash <= *hashes.end());
        let (here, later) = self.scanned.split_at(count);
        let before = out.len();
        out.try_reserve(count).map_err(no_memory)?;
        out.extend(here.iter().map(|entry| Found::new(*entry, from)));
        self.tally.note(&out[before..]);
        self.scanned = later;
        Ok(())
    }

    /// All there was has been taken, unless the hint is not in order.
    fn end(&mut self) {
        if self.hint.as_mut().is_some_and(|hint| !matches!(hint.peek(), Ok(None))) {
            self.reject();
        }
    }

    /// A hint that cannot be read, or says what cannot be, is as good as none, and so is what has come of it.
    fn reject(&mut self) {
        self.rotten = true;
        self.hint = None;
    }
}

fn no_memory(_: std::collections::TryReserveError) -> Error {
    Error::no_memory("the index")
}

impl Tally {
    pub(super) fn add(&mut self, other: &Tally) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.stale = self.stale.saturating_add(other.stale);
        self.tombstones = self.tombstones.saturating_add(other.tombstones);
        self.min_timestamp = self.min_timestamp.min(other.min_timestamp);
        self.max_timestamp = self.max_timestamp.max(other.max_timestamp);
    }

    fn note(&mut self, found: &[Found]) {
        // A lie of a hint may come to more than there can be.
        self.bytes = found.iter().fold(self.bytes, |bytes, f| bytes.saturating_add(f.len));
        self.min_timestamp = found.iter().fold(self.min_timestamp, |least, f| least.min(f.timestamp));
        self.max_timestamp = found.iter().fold(self.max_timestamp, |most, f| most.max(f.timestamp));
    }

    pub(super) fn tell(&self, segment: &Segment) {
        let frames = segment.len().saturating_sub(HEADER_LEN as u64);
        segment.add_dead(self.stale.saturating_add(frames.saturating_sub(self.bytes)));
        segment.add_tombstone(self.tombstones);
        segment.note_timestamp(self.min_timestamp);
    }
}

impl Default for Tally {
    fn default() -> Tally {
        Tally { bytes: 0, stale: 0, tombstones: 0, min_timestamp: i64::MAX, max_timestamp: i64::MIN }
    }
}
