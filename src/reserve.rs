//! A file that keeps a little of the disk back, so that compaction can make room when nothing else can be written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::*};

use crate::storage::{File, Storage, create_anew};

/// The file's name.
pub(crate) const NAME: &str = "RESERVE";
/// The file's size: the first of these that can be had.
const SIZES: [u64; 5] = [1 << 20, 512 << 10, 256 << 10, 128 << 10, 64 << 10];

/// The space kept back.
#[derive(Default)]
pub(crate) struct Reserve {
    held: AtomicBool,
    /// It has been given to compaction and could not be taken back yet. Until then only deleting may take space.
    lent: AtomicBool,
    /// The disk was full at some time.
    needed: AtomicBool,
}

impl Reserve {
    /// Keeps the space, if it can be had and is not kept already. True if it is kept now and was not before.
    pub(crate) fn hold(&self, storage: &dyn Storage) -> bool {
        if self.held.swap(true, AcqRel) {
            return false;
        }
        let take = |file: Arc<dyn File>| SIZES.iter().any(|&size| file.allocate(size).is_ok());
        let held = create_anew(storage, NAME).is_ok_and(take);
        if held {
            self.lent.store(false, Release);
        } else {
            let _ = storage.remove(NAME);
            self.held.store(false, Release);
        }
        held
    }

    /// Takes over the space that an earlier handle kept.
    pub(crate) fn adopt(&self, storage: &dyn Storage) {
        let kept = storage.open(NAME, false).and_then(|file| file.len());
        self.held.store(true, Release);
        if !kept.is_ok_and(|len| len > 0) {
            self.release(storage);
        }
    }

    /// Gives the space to whoever calls, who does the work that makes more. False if there is none.
    pub(crate) fn lend(&self, storage: &dyn Storage) -> bool {
        if !self.held.load(Acquire) {
            return false;
        }
        self.lent.store(true, Release);
        self.release(storage);
        true
    }

    /// Notes that the disk was full. Then the space is kept beyond the closing of the store, or the next handle would
    /// have none to delete with.
    pub(crate) fn needed(&self) {
        self.needed.store(true, Relaxed);
    }

    /// Whether the disk was full at some time.
    pub(crate) fn was_needed(&self) -> bool {
        self.needed.load(Relaxed)
    }

    /// Gives the space back to the system when the store is closed.
    pub(crate) fn close(&self, storage: &dyn Storage) {
        if !self.was_needed() {
            self.release(storage);
        }
    }

    fn release(&self, storage: &dyn Storage) {
        if self.held.swap(false, AcqRel) {
            let _ = storage.remove(NAME);
        }
    }

    /// Whether ordinary writes are to leave what space there is to compaction.
    pub(crate) fn lent(&self) -> bool {
        self.lent.load(Acquire)
    }
}
