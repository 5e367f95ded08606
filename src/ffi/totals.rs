//! What a report counts. The structure grows as those above do.

use std::mem;

use super::error::kv_status;
use super::guard::guard;
use super::info::{copy_prefix, zeroed};
use super::report::{kv_report, totals_of};

/// How much there was of everything. Sizes are bytes.
#[repr(C)]
pub struct kv_report_totals {
    /// Problems, those included that are not kept one by one.
    pub problems: u64,
    /// Files of the log that were looked through.
    pub segments: u64,
    /// Intact records, tombstones included.
    pub records: u64,
    /// The part of records that is tombstones, the records of deletions.
    pub tombstones: u64,
    /// Intact batches, the frames that kv_write() writes.
    pub batches: u64,
    /// What was looked through.
    pub bytes: u64,
    /// Damaged records. A damaged stretch counts as one, for nobody knows how many it held.
    pub lost_records: u64,
    /// What is damaged, or gone although it is known to have been there.
    pub lost_bytes: u64,
    /// An incomplete end that was never synced: what a crash leaves. The next kv_open() cuts it away.
    pub torn_bytes: u64,
    /// Hint files that are missing or that kv_open() would ignore. It then takes longer, and the next
    /// kv_close() makes them anew.
    pub unusable_hints: u64,
    /// Files left over by work that a crash interrupted. The next kv_open() removes them.
    pub orphan_files: u64,
    /// What kv_salvage() has stored in the new database, and kv_import() in the store.
    pub written_records: u64,
}

/// The structure as it was when first published.
const FIRST_TOTALS: usize = 12 * 8;
const _: () = assert!(mem::size_of::<kv_report_totals>() >= FIRST_TOTALS);

/// Fills in what a report counts. `size` is sizeof *totals, `totals` the caller's.
///
/// @return
/// - KV_OK
/// - KV_ERR_INVALID: `report` or `totals` is NULL, or `size` is not the size of any version of the
///   structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_report_totals(report: *const kv_report, totals: *mut kv_report_totals, size: usize) -> i32 {
    // SAFETY: the caller vouches for `size` writable bytes.
    let target = unsafe { zeroed(totals.cast(), size, FIRST_TOTALS, "totals") };
    guard(|| {
        let target = target?;
        // SAFETY: NULL or a report that has not been freed, says the header.
        let found = totals_of(unsafe { report.as_ref() })?;
        let filled = kv_report_totals {
            problems: found.problems,
            segments: found.segments,
            records: found.records,
            tombstones: found.tombstones,
            batches: found.batches,
            bytes: found.bytes,
            lost_records: found.lost_records,
            lost_bytes: found.lost_bytes,
            torn_bytes: found.torn_bytes,
            unusable_hints: found.unusable_hints,
            orphan_files: found.orphan_files,
            written_records: found.written_records,
        };
        // SAFETY: `target` has `size` writable bytes.
        unsafe { copy_prefix(&filled, target, size) };
        Ok(kv_status::KV_OK)
    })
}
