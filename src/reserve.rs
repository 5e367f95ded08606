//! A file that keeps a little of the disk back, so that compaction can make room when nothing else can be written.

use std::sync::atomic::{AtomicBool, Ordering::*};

use crate::storage::{Storage, create_anew};

/// The file's name.
pub(crate) const NAME: &str = "RESERVE";
/// The file's size.
const SIZE: u64 = 1 << 20;

/// The space kept back.
#[derive(Default)]
pub(crate) struct Reserve {
    held: AtomicBool,
    /// It has been given to compaction and could not be taken back yet. Until then only deleting may take space.
    lent: AtomicBool,
}

impl Reserve {
    /// Keeps the space, if it can be had and is not kept already. True if it is kept now and was not before.
    pub(crate) fn hold(&self, storage: &dyn Storage) -> bool {
        if self.held.swap(true, AcqRel) {
            return false;
        }
        let held = create_anew(storage, NAME).and_then(|file| file.allocate(SIZE)).is_ok();
        if held {
            self.lent.store(false, Release);
        } else {
            let _ = storage.remove(NAME);
            self.held.store(false, Release);
        }
        held
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

    /// Gives the space back to the system.
    pub(crate) fn release(&self, storage: &dyn Storage) {
        if self.held.swap(false, AcqRel) {
            let _ = storage.remove(NAME);
        }
    }

    /// Whether ordinary writes are to leave what space there is to compaction.
    pub(crate) fn lent(&self) -> bool {
        self.lent.load(Acquire)
    }
}
