//! Records that have been read and verified in one go, and are shown one by one: what is the same for all of them is
//! done once, and the checksums of several are computed side by side.

use std::ptr::NonNull;

use super::Place;
use crate::error::{Error, Result};

/// So many records at most.
const MOST: usize = 64;
/// Nothing is added to so many bytes of records: they are to be shown while they are in the nearest cache.
const ENOUGH: u64 = 16 << 10;

/// A record that has been verified.
pub(super) struct Item {
    pub place: Place,
    key: NonNull<[u8]>,
    value: NonNull<[u8]>,
}

impl Item {
    /// The key and the value, which is empty if values are left out.
    #[inline]
    pub(super) fn shown(&self) -> (&[u8], &[u8]) {
        // SAFETY: an item is nowhere but in a run, and until that is cleared, which takes a `&mut` of it, the bytes stay
        // as `Run::push` was given them.
        unsafe { (self.key.as_ref(), self.value.as_ref()) }
    }
}

/// What is shown next.
#[derive(Default)]
pub(super) struct Run {
    items: Vec<Item>,
    /// How many of them have been stepped over.
    passed: usize,
    /// Bytes of their records.
    len: u64,
}

// SAFETY: the bytes that items point to are only read, and they do not belong to a thread.
unsafe impl Send for Run {}

impl Run {
    /// Makes it empty, with room for the records to come.
    pub(super) fn clear(&mut self) -> Result<()> {
        self.items.clear();
        (self.passed, self.len) = (0, 0);
        self.items.try_reserve_exact(MOST).map_err(|_| Error::no_memory("an iterator"))
    }

    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.items.len() < MOST && self.len < ENOUGH
    }

    /// Adds a record. There must be room.
    ///
    /// # Safety
    /// Until the run is cleared or dropped the bytes stay where they are, and nobody writes to them.
    #[inline]
    pub(super) unsafe fn push(&mut self, place: Place, key: &[u8], value: &[u8]) {
        debug_assert!(self.has_room());
        self.len += place.len;
        self.items.push(Item { place, key: key.into(), value: value.into() });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The first record that has not been stepped over.
    #[inline]
    pub(super) fn front(&self) -> Option<&Item> {
        self.items.get(self.passed)
    }

    /// Steps over the first record, and returns it.
    #[inline]
    pub(super) fn next(&mut self) -> Option<&Item> {
        let item = self.items.get(self.passed)?;
        self.passed += 1;
        Some(item)
    }
}
