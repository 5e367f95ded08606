//! Overwrites taken on trust: those whose older record has not been looked at yet.
//!
//! An entry has but 40 bits of a key's hash. That the one a set finds is its key's is as good as certain, and to be sure takes
//! the older record itself, which is seldom in the caches: the longest wait of an overwrite. So a set may replace the entry
//! at once and leave the proof for later, when the records of many are asked for together.
//!
//! Should the older record be another key's after all, it must not be lost meanwhile. A look-up of that key finds the entry
//! that replaced it, sees that this is not its key's, and goes on to the older positions that are hidden here. So there must
//! be an entry with these bits as long as something is hidden, of a record that is read through a map: whoever removes
//! entries, or writes by system calls, has everything proven first.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{KeyHash, Position};

/// So many are proven together. With 64 an overwrite took as long in the mean, but one in a hundred nearly twice as long.
pub(crate) const MOST: usize = 16;

/// An entry that was replaced on trust.
#[derive(Clone, Copy)]
pub(crate) struct Overwrite {
    pub hash: KeyHash,
    pub old: Position,
    pub new: Position,
}

/// All of them, oldest first. Whoever changes the list holds the append lock; whoever adds to it, the shard as well.
pub(crate) struct Trust(RwLock<Vec<Overwrite>>);

impl Trust {
    pub(super) fn new() -> Trust {
        Trust(RwLock::new(Vec::with_capacity(MOST)))
    }

    /// There must be fewer than [`MOST`].
    #[inline]
    pub(crate) fn add(&self, overwrite: Overwrite) {
        self.write().push(overwrite);
    }

    /// What these hid has its entries again, if it is needed.
    pub(crate) fn remove_first(&self, count: usize) {
        self.write().drain(..count);
    }

    /// Those of this moment. While a shard is locked, none of its own is added, and none vanishes that hides what is needed.
    pub(crate) fn list(&self) -> RwLockReadGuard<'_, Vec<Overwrite>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Overwrite>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where records may be of a key of this hash for which the index has the record of another, newest first.
pub(crate) fn hidden(overwrites: &[Overwrite], hash: KeyHash) -> impl Iterator<Item = Position> {
    overwrites.iter().rev().filter(move |overwrite| overwrite.hash.same_entry(hash)).map(|overwrite| overwrite.old)
}
