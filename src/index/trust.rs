//! Overwrites taken on trust: those whose older record has not been looked at yet.
//!
//! An entry has but 36 bits of a key's hash. That the one a set finds is its key's is as good as certain, and to be sure takes
//! the older record itself, which is seldom in the caches: the longest wait of an overwrite. So a set may replace the entry
//! at once and leave the proof for later, when the records of many are asked for together.
//!
//! Should the older record be another key's after all, it must not be lost meanwhile. A look-up of that key finds the entry
//! that replaced it, sees that this is not its key's, and goes on to the older positions that are hidden here. So there must
//! be an entry with these bits as long as something is hidden, of a record that is read through a map: whoever removes
//! entries, or writes to a segment that is not mapped, has what the shard hides proven first.

use super::{KeyHash, Position};
use crate::error::{Error, Result};

/// So many are proven together. With 64 an overwrite took as long in the mean, but one in a hundred nearly twice as long.
pub(crate) const MOST: usize = 16;
/// They are proven earlier if their records may be longer than this together: in all shards there are never more than about 2 MiB of garbage
/// that has not been counted.
const MOST_BYTES: u64 = 4 << 10;

/// An entry that was replaced on trust.
#[derive(Clone, Copy)]
pub(crate) struct Overwrite {
    pub hash: KeyHash,
    pub old: Position,
    pub new: Position,
}

/// Those of a shard.
pub(crate) struct Trust {
    /// Oldest first. It never grows.
    list: Vec<Overwrite>,
    bytes: u64,
}

impl Trust {
    pub(super) fn new() -> Result<Trust> {
        let mut list = Vec::new();
        list.try_reserve_exact(MOST).map_err(|_| Error::no_memory("the index"))?;
        Ok(Trust { list, bytes: 0 })
    }

    /// Unless it is full.
    #[inline]
    pub(super) fn add(&mut self, overwrite: Overwrite) {
        self.list.push(overwrite);
        self.bytes += overwrite.old.len_bound();
    }

    /// Whether they are to be proven before another is added.
    #[inline]
    pub(crate) fn full(&self) -> bool {
        self.list.len() >= MOST || self.bytes > MOST_BYTES
    }

    /// All of them, oldest first.
    #[inline]
    pub(crate) fn overwrites(&self) -> &[Overwrite] {
        &self.list
    }

    /// What these hid has its entries again, if it is needed.
    pub(super) fn remove_first(&mut self, count: usize) {
        self.list.drain(..count);
        self.bytes = self.list.iter().map(|overwrite| overwrite.old.len_bound()).sum();
    }
}

/// Where records may be of a key of this hash for which the index has the record of another, newest first.
pub(crate) fn hidden(overwrites: &[Overwrite], hash: KeyHash) -> impl Iterator<Item = Position> {
    overwrites.iter().rev().filter(move |overwrite| overwrite.hash.same_entry(hash)).map(|overwrite| overwrite.old)
}
