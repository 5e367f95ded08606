//! Verification: reads a whole database and tells what is damaged. Nothing is written.
//!
//! Every record, batch, header, hint and the MANIFEST is checked, by its checksum and against the
//! others. What a crash leaves is no damage and only counted: an incomplete end that was never
//! synced, hint files that do not fit, files of interrupted work.

use std::ffi::{c_char, c_void};
use std::ptr;

use super::guard::{guard, out, path};
use super::progress::{kv_progress, with_progress};
use super::report::{give, kv_report};
use super::store::{engine, kv_store};

/// Verifies the database at `path`, which nobody may have open for writing meanwhile.
///
/// `path` is as for kv_open(). `report` may be NULL. Else `*report` is a report to be freed with
/// kv_report_free(), also if the result is KV_ERR_CORRUPT; after other errors it is NULL. Memory is
/// bounded: it does not grow with the synced part of the database. May be called from any thread.
///
/// @return
/// - KV_OK: nothing is damaged.
/// - KV_ERR_CORRUPT: something is; `*report` tells what, kv_last_error() the first of it. Damage to
///   single records does not prevent kv_open(); kv_salvage() gets the data out where something does.
/// - KV_ERR_INVALID: `path` is NULL or empty.
/// - KV_ERR_LOCKED: a writer has the database open.
/// - KV_ERR_NOT_A_DATABASE: there is no database.
/// - KV_ERR_FORMAT: it was written by a newer version, with something this one does not know.
/// - KV_ERR_NO_MEMORY, KV_ERR_IO, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_verify(path: *const c_char, report: *mut *mut kv_report) -> i32 {
    // SAFETY: what this function demands of its caller.
    unsafe { kv_verify_with(path, None, ptr::null_mut(), report) }
}

/// As kv_verify(), and tells of its progress. `progress` may be NULL; `ctx` is passed to it.
///
/// @return
/// - KV_ERR_CANCELLED: the callback asked to stop. `*report` is NULL.
/// - the results of kv_verify().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_verify_with(
    path: *const c_char,
    progress: kv_progress,
    ctx: *mut c_void,
    report: *mut *mut kv_report,
) -> i32 {
    // SAFETY: NULL or the caller's variable.
    let report = unsafe { out(report, ptr::null_mut()) };
    guard(|| {
        // SAFETY: NULL or NUL-terminated, says the header.
        let path = unsafe { self::path(path, "path") }?;
        // SAFETY: NULL or a function of that type, says the header.
        give(unsafe { with_progress(progress, ctx, |progress| crate::verify(path, progress)) }?, report)
    })
}

/// Verifies an open store: everything written before the call. Reads, writes and compaction by other
/// threads go on meanwhile; the segments that are being read stay on disk until it is done.
///
/// `report` is as for kv_verify().
///
/// @return
/// - KV_OK: nothing is damaged.
/// - KV_ERR_CORRUPT: something is.
/// - KV_ERR_INVALID: `store` is NULL.
/// - KV_ERR_FORMAT, KV_ERR_NO_MEMORY, KV_ERR_IO, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_verify_store(store: *mut kv_store, report: *mut *mut kv_report) -> i32 {
    // SAFETY: what this function demands of its caller.
    unsafe { kv_verify_store_with(store, None, ptr::null_mut(), report) }
}

/// As kv_verify_store(), and tells of its progress. `progress` may be NULL; `ctx` is passed to it.
///
/// @return
/// - KV_ERR_CANCELLED: the callback asked to stop. `*report` is NULL.
/// - the results of kv_verify_store().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_verify_store_with(
    store: *mut kv_store,
    progress: kv_progress,
    ctx: *mut c_void,
    report: *mut *mut kv_report,
) -> i32 {
    // SAFETY: NULL or the caller's variable.
    let report = unsafe { out(report, ptr::null_mut()) };
    guard(|| {
        // SAFETY: NULL or an open handle, says the header.
        let store = unsafe { engine(store) }?;
        // SAFETY: NULL or a function of that type, says the header.
        give(unsafe { with_progress(progress, ctx, |progress| store.verify(progress)) }?, report)
    })
}
