//! Which records of a segment are live, found without reading it: its hint lists them, and the index knows.

use std::sync::Arc;

use super::tombstones::Tombstone;
use crate::buckets;
use crate::engine::{Engine, hash_key};
use crate::error::{Error, Result};
use crate::index::{KeyHash, Position};
use crate::log::hint::{self, HintEntry, HintReader};
use crate::log::segment::Segment;
use crate::transient::reserve_apart;

/// So many records of a shard are looked up under one hold of its lock, with the waiting for memory overlapped.
const BLOCK: usize = 64;

/// The records of a sealed segment, sorted by hash: so the index is asked shard by shard.
pub(super) enum Listing {
    Hint(HintReader),
    /// Of a segment that has no hint to be trusted.
    Scanned(std::vec::IntoIter<HintEntry>),
}

/// A record that the index points at.
#[derive(Clone, Copy)]
pub(super) struct Live {
    pub entry: HintEntry,
    /// As the index has it.
    pub from: Position,
}

impl AsRef<HintEntry> for Live {
    fn as_ref(&self) -> &HintEntry {
        &self.entry
    }
}

/// What has been found of an input's records so far.
#[derive(Default)]
pub(super) struct Found {
    pub live: Vec<Live>,
    /// Those that nothing newer has made useless.
    pub tombstones: Vec<Tombstone>,
}

impl Found {
    /// Puts the live records of an input of this length into the order in which they can be read.
    pub(super) fn sort_by_offset(&mut self, len: u64) {
        let spread = len.leading_zeros();
        buckets::sort(&mut self.live, |live| live.entry.offset() << spread, |live| live.entry.offset());
    }
}

impl Listing {
    /// What the segment's hint lists, if there is one.
    pub(super) fn by_hint(engine: &Engine, segment: &Segment) -> Option<Listing> {
        let names = (segment.id(), segment.identity());
        let hint = HintReader::open(&engine.storage, names, engine.hash_seed)?;
        (hint.covered() == segment.len()).then_some(Listing::Hint(hint))
    }

    /// What the segment holds; `None` if some of it cannot be read.
    pub(super) fn by_scan(engine: &Engine, segment: &Segment) -> Result<Option<Listing>> {
        let mut entries = Vec::new();
        reserve_apart(&mut entries, segment.len());
        let scan = engine.visit_complete(segment, &mut |entry| {
            entries.try_reserve(1).map_err(|_| Error::no_memory("compaction"))?;
            entries.push(entry);
            Ok(())
        })?;
        hint::sort(&mut entries);
        Ok((scan.damaged == 0).then(|| Listing::Scanned(entries.into_iter())))
    }

    fn peek(&mut self) -> Result<Option<HintEntry>> {
        match self {
            Listing::Hint(hint) => hint.peek(),
            Listing::Scanned(entries) => Ok(entries.as_slice().first().copied()),
        }
    }

    fn advance(&mut self) {
        match self {
            Listing::Hint(hint) => hint.advance(),
            Listing::Scanned(entries) => drop(entries.next()),
        }
    }

    /// Whether what was listed can be trusted. After the last of it.
    pub(super) fn finish(self) -> Result<bool> {
        match self {
            Listing::Hint(hint) => hint.finish(),
            Listing::Scanned(_) => Ok(true),
        }
    }

    /// Finds out what has become of the next records. Returns how many bytes they take, 0 at the end.
    pub(super) fn look_up(
        &mut self,
        engine: &Engine,
        (number, slot, segment): (usize, u32, &Arc<Segment>),
        found: &mut Found,
    ) -> Result<u64> {
        let mut block: Vec<HintEntry> = Vec::with_capacity(BLOCK);
        while block.len() < BLOCK
            && let Some(entry) = self.peek()?
            && block.first().is_none_or(|first| KeyHash(first.hash).shard() == KeyHash(entry.hash).shard())
        {
            block.push(entry);
            self.advance();
        }
        let Some(first) = block.first() else { return Ok(0) };
        let no_memory = |_| Error::no_memory("compaction");
        reserve_apart(&mut found.live, segment.len());
        reserve_apart(&mut found.tombstones, segment.tombstones());
        found.live.try_reserve(block.len()).map_err(no_memory)?;
        found.tombstones.try_reserve(block.len()).map_err(no_memory)?;
        let shard = engine.index.read(KeyHash(first.hash))?;
        block.iter().for_each(|entry| shard.prefetch(KeyHash(entry.hash)));
        let mut doubtful = Vec::new();
        for entry in &block {
            let mut candidates = shard.candidates(KeyHash(entry.hash));
            if !entry.tombstone() {
                let from =
                    candidates.find(|candidate| (candidate.slot(), candidate.offset()) == (slot, entry.offset()));
                found.live.extend(from.map(|from| Live { entry: *entry, from }));
            } else if let Some(newer) = candidates.next() {
                shard.segment(newer)?.prefetch(newer.offset(), entry.len);
                segment.prefetch(entry.offset(), entry.len);
                doubtful.push(*entry);
            } else {
                found.tombstones.push(Tombstone { entry: *entry, input: number, needed: false });
            }
        }
        drop(shard);
        for entry in doubtful {
            if !superseded(engine, segment, &entry)? {
                found.tombstones.push(Tombstone { entry, input: number, needed: false });
            }
        }
        Ok(block.iter().fold(0u64, |sum, entry| sum.saturating_add(entry.len)).max(1))
    }
}

/// Whether there is a newer record of the tombstone's key.
fn superseded(engine: &Engine, segment: &Segment, tombstone: &HintEntry) -> Result<bool> {
    let key = segment
        .key_at(tombstone.offset(), tombstone.len)
        .filter(|key| hash_key(engine.hash_seed, key).0 == tombstone.hash);
    let Some(key) = key else { return Ok(false) };
    Ok(engine.locate(&key, KeyHash(tombstone.hash))?.1.is_some_and(|newer| newer.len > 0))
}
