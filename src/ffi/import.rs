//! Import of what the reference engine has stored.

use std::ffi::{c_char, c_void};
use std::ptr;

use super::guard::{guard, out, path};
use super::progress::{kv_progress, with_progress};
use super::report::{give, kv_report};
use super::store::{engine, kv_store};

/// Does everything again, in a store, that a log of the reference engine says was done: one file of
/// records, each a length of 8 bytes and the serialized DataFileEntry, with or without a header
/// ("KVS1" and a threshold of 8 bytes). The file is only read, and must not change meanwhile.
///
/// Values and deletions go on top of what the store holds, in the order of the file; timestamps are
/// made anew. A torn last record is skipped: the report has it as a problem, the result is KV_OK.
/// Such logs have no checksums: a flipped bit in a value is imported as it is.
///
/// The import is not atomic. If it fails, what was imported before stays, and importing the same
/// file again leads to the same. It is as durable as other writes: call kv_sync() afterwards.
///
/// `report` may be NULL. Else `*report` is a report to be freed with kv_report_free(), also if the
/// result is KV_ERR_CORRUPT; after other errors it is NULL.
///
/// @return
/// - KV_OK: everything is imported, but for a torn last record.
/// - KV_ERR_CORRUPT: there is something in the log that is no record. What is before it has been
///   imported, what is behind it has not. `*report` and kv_last_error() tell where it is.
/// - KV_ERR_FORMAT: `file` is no such log. Nothing has been imported.
/// - KV_ERR_INVALID: `store` or `file` is NULL, or `file` is empty.
/// - KV_ERR_TOO_LARGE: a key or a value is longer than this store takes.
/// - KV_ERR_READ_ONLY, KV_ERR_POISONED: this handle takes no writes.
/// - KV_ERR_NO_SPACE, KV_ERR_NO_MEMORY, KV_ERR_IO, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_import(store: *mut kv_store, file: *const c_char, report: *mut *mut kv_report) -> i32 {
    // SAFETY: what this function demands of its caller.
    unsafe { kv_import_with(store, file, None, ptr::null_mut(), report) }
}

/// As kv_import(), and tells of its progress. `progress` may be NULL; `ctx` is passed to it.
///
/// @return
/// - KV_ERR_CANCELLED: the callback asked to stop. What was imported before stays.
/// - the results of kv_import().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_import_with(
    store: *mut kv_store,
    file: *const c_char,
    progress: kv_progress,
    ctx: *mut c_void,
    report: *mut *mut kv_report,
) -> i32 {
    // SAFETY: NULL or the caller's variable.
    let report = unsafe { out(report, ptr::null_mut()) };
    guard(|| {
        // SAFETY: NULL or an open handle, and NULL or NUL-terminated, says the header.
        let (store, file) = unsafe { (engine(store)?, path(file, "file")?) };
        // SAFETY: NULL or a function of that type, says the header.
        give(unsafe { with_progress(progress, ctx, |progress| store.import(file, progress)) }?, report)
    })
}
