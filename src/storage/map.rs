//! A shared mapping of a file: the bytes that hot paths read and write without a system call.

use std::ptr::NonNull;

/// What an implementation keeps behind a [`Map`]. Dropping it unmaps.
pub(crate) trait MapOwner: Send + Sync {
    /// The bytes at `offset..offset + len` were just stored through the map. Only called when
    /// [`Map::new`] was given `observed`.
    fn wrote(&self, offset: usize, len: usize);
    /// Makes the first `len` bytes read-only and gives back the addresses behind them. Best effort.
    fn seal(&self, len: usize);
    /// Brings the pages of `offset..offset + len` into the page table, ready to be stored to. A hint.
    fn populate(&self, offset: usize, len: usize);
    /// The bytes at `offset..offset + len` are to be synced, and hardly stored to any more: makes that cheaper.
    fn expect_sync(&self, _offset: usize, _len: usize) {}
    /// Brings the pages of the first `len` bytes into the page table, ready to be read. A hint: where that fails, reading
    /// brings them one by one.
    fn expect_reads(&self, _len: usize) {}
    /// Has what is missing of `offset..offset + len` read from the disk. A hint, which does not wait.
    fn read_ahead(&self, _offset: usize, _len: usize) {}
}

/// A mapping of a file's first `len` bytes. Which of them hold data, and who may write where, is
/// the segment's business; this type only bounds-checks against the mapping itself.
pub(crate) struct Map {
    base: NonNull<u8>,
    len: usize,
    observed: bool,
    owner: Box<dyn MapOwner>,
}

// SAFETY: the mapping is plain shared memory that lives until `owner` is dropped, `MapOwner` is Send
// and Sync, and the accessors that touch the memory are unsafe and state who may call them when.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Wraps a mapping that `owner` keeps alive. `observed` asks for a call of `wrote` after each store.
    ///
    /// # Safety
    /// `base..base + len` must stay mapped at that address until `owner` is dropped.
    pub(crate) unsafe fn new(base: NonNull<u8>, len: usize, observed: bool, owner: Box<dyn MapOwner>) -> Map {
        Map { base, len, observed, owner }
    }

    /// The length of the mapping, which may reach beyond the end of the file.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The bytes at `offset..offset + len`, or `None` where that is not inside the mapping.
    ///
    /// # Safety
    /// The range must lie inside the file, and nobody may store to it while the slice lives.
    #[inline]
    pub(crate) unsafe fn bytes(&self, offset: usize, len: usize) -> Option<&[u8]> {
        if offset > self.len || len > self.len - offset {
            return None;
        }
        // SAFETY: in bounds of the mapping by the check; inside the file and not written to, by the caller.
        Some(unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset), len) })
    }

    /// Lets `fill` store to the bytes at `offset..offset + len`; `None` where that is not inside the mapping.
    ///
    /// # Safety
    /// The range must lie inside the file, the map must be writable, and nobody else may read or store
    /// to the range meanwhile.
    #[inline]
    pub(crate) unsafe fn write<T>(&self, offset: usize, len: usize, fill: impl FnOnce(&mut [u8]) -> T) -> Option<T> {
        if offset > self.len || len > self.len - offset {
            return None;
        }
        // SAFETY: in bounds of the mapping by the check; exclusive and inside the file by the caller.
        let result = fill(unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(offset), len) });
        if self.observed {
            self.owner.wrote(offset, len);
        }
        Some(result)
    }

    /// See [`MapOwner::seal`].
    pub(crate) fn seal(&self, len: usize) {
        self.owner.seal(len);
    }

    /// See [`MapOwner::populate`].
    pub(crate) fn populate(&self, offset: usize, len: usize) {
        self.owner.populate(offset, len);
    }

    /// See [`MapOwner::expect_sync`].
    pub(crate) fn expect_sync(&self, offset: usize, len: usize) {
        self.owner.expect_sync(offset, len);
    }

    /// See [`MapOwner::expect_reads`].
    pub(crate) fn expect_reads(&self, len: usize) {
        self.owner.expect_reads(len);
    }

    /// See [`MapOwner::read_ahead`].
    pub(crate) fn read_ahead(&self, offset: usize, len: usize) {
        self.owner.read_ahead(offset, len);
    }
}
