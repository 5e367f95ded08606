//! What a store tells about itself.
//!
//! The structures hold nothing but uint64_t and grow at their end. The caller passes the size of
//! the structure that it was compiled with, so a program and a library of different age understand
//! each other: an older library sets the fields that it does not know to 0, a newer one leaves out
//! those that the program does not know.

use std::{mem, ptr};

use super::error::kv_status;
use super::guard::{guard, invalid, null};
use super::store::{engine, kv_store};
use crate::error::Result;

/// Counters of an open store. Sizes are bytes.
#[repr(C)]
pub struct kv_stats {
    /// Keys stored.
    pub keys: u64,
    /// Records that a reader can reach, and tombstones that are still needed.
    pub live_bytes: u64,
    /// Everything else in the log: what compaction can give back.
    pub dead_bytes: u64,
    /// The part of live_bytes that is tombstones, the records of deletions.
    pub tombstone_bytes: u64,
    /// All segments together, without the space reserved ahead of appends.
    pub log_bytes: u64,
    /// Segments, the files that make up the log.
    pub segments: u64,
    /// Memory that the index takes.
    pub index_bytes: u64,
    /// Segments that are not part of the log any more, but still held on disk by a reader or a
    /// snapshot.
    pub pinned_bytes: u64,
    /// Snapshots that have not been freed.
    pub snapshots: u64,
    /// Segments that compaction leaves alone because a record in them cannot be read.
    pub quarantined_segments: u64,
    /// Compactions finished since the store was opened.
    pub compactions: u64,
    /// What compaction has written since the store was opened.
    pub compacted_bytes: u64,
    /// Syncs of log files since the store was opened.
    pub syncs: u64,
    /// 1 if appends go through a mapping, 0 if through system calls.
    pub mapped: u64,
    /// Iterators that have not been freed.
    pub iterators: u64,
}

/// What opening a database found and did.
#[repr(C)]
pub struct kv_recovery_info {
    /// 1 if the database had been closed properly, or is new.
    pub clean: u64,
    /// Records read because no hint file covered them.
    pub scanned_records: u64,
    /// Bytes scanned because no hint file covered them.
    pub scanned_bytes: u64,
    /// Bytes of an incomplete tail that were cut away (read-only: passed over). None of them was known
    /// to be synced.
    pub torn_bytes: u64,
    /// Whole segments behind the tear that were removed (read-only: passed over).
    pub removed_segments: u64,
    /// Records known to be synced that can no longer be read.
    pub damaged_records: u64,
    /// Files left over by an interrupted compaction or rotation, and removed.
    pub orphan_files: u64,
    /// Hint files that were missing or did not match their segment.
    pub rejected_hints: u64,
}

/// The structures as they were when first published; nothing smaller can be a caller's.
const FIRST_STATS: usize = 14 * 8;
const FIRST_RECOVERY_INFO: usize = 8 * 8;
/// Far more than the structures will ever have: a larger size is a mistake, best caught before it
/// is written to.
const LARGEST: usize = 4096;

/// Fills in the counters of an open store.
///
/// `size` is sizeof *stats, `stats` the caller's. The numbers are read one after another while
/// other threads go on, so they may not match each other to the byte.
///
/// @return
/// - KV_OK
/// - KV_ERR_INVALID: `store` or `stats` is NULL, or `size` is not the size of any version of the
///   structure.
/// - KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_stats(store: *mut kv_store, stats: *mut kv_stats, size: usize) -> i32 {
    // SAFETY: the caller vouches for `size` writable bytes.
    let target = unsafe { zeroed(stats.cast(), size, FIRST_STATS, "stats") };
    guard(|| {
        let target = target?;
        // SAFETY: NULL or an open handle, says the header.
        let store = unsafe { engine(store) }?;
        store.check_process()?;
        let found = store.stats();
        let filled = kv_stats {
            keys: found.keys,
            live_bytes: found.live_bytes,
            dead_bytes: found.dead_bytes,
            tombstone_bytes: found.tombstone_bytes,
            log_bytes: found.log_bytes,
            segments: found.segments,
            index_bytes: found.index_bytes,
            pinned_bytes: found.pinned_bytes,
            snapshots: found.snapshots,
            quarantined_segments: found.quarantined_segments,
            compactions: found.compactions,
            compacted_bytes: found.compacted_bytes,
            syncs: found.syncs,
            mapped: found.mapped.into(),
            iterators: found.iterators,
        };
        // SAFETY: `target` has `size` writable bytes.
        unsafe { copy_prefix(&filled, target, size) };
        Ok(kv_status::KV_OK)
    })
}

/// Fills in what opening this database found and did. `size` is sizeof *info, `info` the caller's.
///
/// @return
/// - KV_OK
/// - KV_ERR_INVALID: `store` or `info` is NULL, or `size` is not the size of any version of the
///   structure.
/// - KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_recovery_info(store: *mut kv_store, info: *mut kv_recovery_info, size: usize) -> i32 {
    // SAFETY: the caller vouches for `size` writable bytes.
    let target = unsafe { zeroed(info.cast(), size, FIRST_RECOVERY_INFO, "info") };
    guard(|| {
        let target = target?;
        // SAFETY: NULL or an open handle, says the header.
        let store = unsafe { engine(store) }?;
        store.check_process()?;
        let found = store.recovery_info();
        let filled = kv_recovery_info {
            clean: found.clean.into(),
            scanned_records: found.scanned_records,
            scanned_bytes: found.scanned_bytes,
            torn_bytes: found.torn_bytes,
            removed_segments: found.removed_segments,
            damaged_records: found.damaged_records,
            orphan_files: found.orphan_files,
            rejected_hints: found.rejected_hints,
        };
        // SAFETY: `target` has `size` writable bytes.
        unsafe { copy_prefix(&filled, target, size) };
        Ok(kv_status::KV_OK)
    })
}

/// Sets the caller's structure to zero, all of it: what this version does not know is 0, never
/// garbage.
///
/// # Safety
/// `target` is NULL or points to `size` writable bytes.
pub(super) unsafe fn zeroed(target: *mut u8, size: usize, first: usize, what: &str) -> Result<*mut u8> {
    if target.is_null() {
        return Err(null(what));
    }
    if !(first..=LARGEST).contains(&size) || !size.is_multiple_of(mem::size_of::<u64>()) {
        return Err(invalid(format!("{what} cannot have a size of {size} bytes")));
    }
    // SAFETY: not NULL, writable by this function's contract.
    unsafe { target.write_bytes(0, size) };
    Ok(target)
}

/// Copies as much of `filled` as the caller's structure has room for.
///
/// # Safety
/// `target` points to `size` writable bytes, apart from `filled`.
pub(super) unsafe fn copy_prefix<T>(filled: &T, target: *mut u8, size: usize) {
    // SAFETY: by this function's contract, and no more than T has. T is made of u64 only, so there is no padding.
    unsafe { ptr::copy_nonoverlapping(ptr::from_ref(filled).cast::<u8>(), target, size.min(mem::size_of::<T>())) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_may_be_older_or_newer_than_the_library() {
        for size in [8, 16, 24, 32] {
            let mut buffer = [0xff_u8; 48];
            // SAFETY: the buffer is larger than `size`.
            unsafe {
                let target = zeroed(buffer.as_mut_ptr(), size, 8, "test").unwrap();
                copy_prefix(&[0x1111_1111_1111_1111_u64, 0x2222_2222_2222_2222], target, size);
            }
            let filled = size.min(16);
            assert!(buffer[..filled].iter().all(|byte| *byte == 0x11 || *byte == 0x22));
            assert!(buffer[filled..size].iter().all(|byte| *byte == 0));
            assert!(buffer[size..].iter().all(|byte| *byte == 0xff), "nothing is written beyond the size");
        }
    }

    #[test]
    fn sizes_that_no_version_has_are_refused_and_nothing_is_written() {
        let mut buffer = [0xff_u8; 48];
        for size in [0, 8, 15, 17, LARGEST + 8, usize::MAX] {
            // SAFETY: these sizes are refused before anything is written.
            assert!(unsafe { zeroed(buffer.as_mut_ptr(), size, 16, "test") }.is_err());
        }
        assert_eq!(buffer, [0xff; 48]);
    }
}
