//! The records of a range of hashes, of all sources, brought together.

use std::cmp::Reverse;
use std::ops::RangeInclusive;

use crate::buckets::Buckets;
use crate::error::{Error, Result};
use crate::log::hint::HintEntry;

/// A record, as much as is known of it.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub hash: u64,
    pub timestamp: i64,
    pub offset: u64,
    pub len: u64,
    /// The number of its source.
    pub from: u32,
    pub tombstone: bool,
}

impl Found {
    #[inline]
    pub(super) fn new(entry: HintEntry, from: u32) -> Found {
        let HintEntry { hash, timestamp, len, .. } = entry;
        Found { hash, timestamp, offset: entry.offset(), len, from, tombstone: entry.tombstone() }
    }
}

/// Memory for the records of one range of hashes after the other.
pub(super) struct Window {
    /// So many top bits all hashes of a range have in common.
    common: u32,
    /// In any order.
    pub found: Vec<Found>,
    /// The numbers of those, sorted.
    order: Vec<u32>,
    buckets: Buckets<u32>,
}

impl Window {
    /// For ranges of hashes that have so many top bits in common: one at least.
    pub(super) fn new(common: u32) -> Window {
        Window { common, found: Vec::new(), order: Vec::new(), buckets: Buckets::new() }
    }

    /// The hashes that begin with these bits.
    pub(super) fn hashes(&self, bits: u64) -> RangeInclusive<u64> {
        let first = bits << (u64::BITS - self.common);
        first..=first | u64::MAX >> self.common
    }

    /// Sorts what has been found by hash, the newest of each hash first.
    pub(super) fn sort(&mut self) -> Result<()> {
        let no_memory = || Error::no_memory("the index");
        let count = u32::try_from(self.found.len()).map_err(|_| no_memory())?;
        self.order.clear();
        self.order.try_reserve(self.found.len()).map_err(|_| no_memory())?;
        self.order.extend(0..count);
        let record = |number: &u32| &self.found[*number as usize];
        let newest_first = |number: &u32| (record(number).hash, Reverse(record(number).timestamp));
        self.buckets.sort(&mut self.order, self.common, |number| record(number).hash, newest_first);
        Ok(())
    }

    /// The numbers of the records of each hash. After `sort`.
    pub(super) fn groups(&self) -> impl Iterator<Item = &[u32]> {
        self.order.chunk_by(|a, b| self.found[*a as usize].hash == self.found[*b as usize].hash)
    }
}
