//! A mapping of a file, and what the system is told about how it is used.

use super::*;

/// Address space that shows a file.
pub(super) struct Mapping {
    pub(super) base: NonNull<u8>,
    /// How much is still mapped. Locked while pages change, so that none of it goes away meanwhile.
    len: Mutex<usize>,
}

// SAFETY: the struct itself never reads or writes the mapped bytes, and the system calls that it makes
// on the addresses may come from any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; `len` is behind a lock.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(super) fn new(file: &fs::File, len: usize, write: bool) -> io::Result<Mapping> {
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let access = if write { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: without MAP_FIXED the kernel chooses addresses that nothing else uses.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapping = Mapping { base, len: Mutex::new(len) };
        // Not for a map that is appended to: there, without read-ahead the page cache grows by single pages
        // instead of large ones, which was measured to make an append four times as slow.
        if !write {
            mapping.advise(0, len, libc::MADV_RANDOM);
        }
        Ok(mapping)
    }

    /// Gives the kernel a hint about whole pages, which start at `offset`.
    pub(super) fn advise(&self, offset: usize, len: usize, advice: c_int) {
        // SAFETY: the callers stay inside the mapping, and none of the advice used changes its contents.
        unsafe { libc::madvise(self.base.as_ptr().add(offset).cast(), len, advice) };
    }

    #[cfg(target_vendor = "apple")]
    pub(super) fn sync(&self) -> io::Result<()> {
        let len = guard(&self.len);
        // SAFETY: the lock keeps these `len` bytes mapped.
        retry(|| check(unsafe { libc::msync(self.base.as_ptr().cast(), *len, libc::MS_SYNC) }))?;
        Ok(())
    }
}

impl MapOwner for Arc<Mapping> {
    fn wrote(&self, _offset: usize, _len: usize) {}

    fn seal(&self, len: usize) {
        let mut mapped = guard(&self.len);
        let keep = len.next_multiple_of(page_size());
        // First unmap, then protect: then the protection is that of the whole mapping and splits nothing,
        // so it does not count against the kernel's limit of mappings.
        if keep < *mapped {
            // SAFETY: whole pages at the end of our own mapping; that nobody uses bytes behind `len`, which
            // are outside the file, is the contract of `Map`.
            if unsafe { libc::munmap(self.base.as_ptr().add(keep).cast(), *mapped - keep) } == 0 {
                *mapped = keep;
            }
        }
        let protect = keep.min(*mapped);
        if protect > 0 {
            os::forget_pages(self, 0, protect);
            // SAFETY: pages of our own mapping; a store to sealed bytes is a bug that this turns into a fault.
            unsafe { libc::mprotect(self.base.as_ptr().cast(), protect, libc::PROT_READ) };
            // From here on the bytes are only read, at random; should they leave the cache, a page at a time
            // is to come back.
            self.advise(0, protect, libc::MADV_RANDOM);
        }
    }

    fn populate(&self, offset: usize, len: usize) {
        let mapped = guard(&self.len);
        let end = offset.saturating_add(len).min(*mapped);
        let start = offset - offset % page_size();
        if start < end {
            os::populate(self, start, end - start);
        }
    }

    fn expect_sync(&self, offset: usize, len: usize) {
        let mapped = guard(&self.len);
        let start = offset.next_multiple_of(page_size());
        let end = offset.saturating_add(len).min(*mapped) / page_size() * page_size();
        if start < end {
            os::forget_pages(self, start, end - start);
        }
    }

    fn expect_reads(&self, len: usize) {
        // A fault brings the pages around along, 16 of them as Linux is set up: to ask for one of each 16 takes half the
        // time of asking for all.
        let around = 16 * page_size();
        for offset in (0..len).step_by(around) {
            let mapped = guard(&self.len);
            if offset < *mapped {
                os::populate_to_read(self, offset, page_size());
            }
        }
    }

    fn read_ahead(&self, offset: usize, len: usize) {
        let mapped = guard(&self.len);
        let end = offset.saturating_add(len).min(*mapped);
        let start = offset - offset % page_size();
        if start < end {
            self.advise(start, end - start, libc::MADV_WILLNEED);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let len = *guard(&self.len);
        if len > 0 {
            // SAFETY: our own mapping; the `Map` that lent out its bytes is gone with its owner.
            unsafe { libc::munmap(self.base.as_ptr().cast(), len) };
        }
    }
}
