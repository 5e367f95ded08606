//! Salvage: gets out of a damaged database what can be read.

use std::ffi::{c_char, c_void};
use std::ptr;

use super::guard::{guard, out, path};
use super::progress::{kv_progress, with_progress};
use super::report::{give, kv_report};

/// Copies what can be read of the database at `path` into a new database at `new_path`. The old one
/// is not changed, and may be on a disk that cannot be written to.
///
/// It works with a MANIFEST, headers or hints that are damaged or missing, with missing segments,
/// and with damaged stretches in segments, behind which the next intact record is searched for at
/// every byte. Of each key the newest record that can be read counts: a value is copied, a deletion
/// keeps older values from being copied. Therefore
///
/// - a key whose newest record is damaged comes back with the value that it had before, if that is
///   still on disk;
/// - a deleted key comes back if the record of the deletion is damaged or gone, or if MANIFEST is:
///   then files that had left the database but not yet the disk cannot be told from others;
/// - the intact records of a damaged batch are copied, so a batch may come back in part;
/// - writes are copied that kv_open() would cut away as the torn end that a crash has left, behind a
///   tear too.
///
/// What is not copied is told by the report, which may be NULL, or else is to be freed with
/// kv_report_free(): `lost_bytes` in its totals says how much it is. After an error `*report` is NULL
/// and nothing is left at `new_path`. The new database is synced and closed. Nothing may be at
/// `new_path` before; its parent directory must exist, and is not `path` or below. Memory is needed
/// for each key, about as much as for opening. May be called from any thread.
///
/// @return
/// - KV_OK: the new database is there, even if much was lost.
/// - KV_ERR_INVALID: `path` or `new_path` is NULL or empty, or `new_path` is inside `path`.
/// - KV_ERR_EXISTS: there is something at `new_path`.
/// - KV_ERR_LOCKED: a writer has the old database open.
/// - KV_ERR_NOT_A_DATABASE: there is nothing at `path` that looks like a database.
/// - KV_ERR_FORMAT: it was written by a newer version, with something this one does not know.
/// - KV_ERR_NO_SPACE, KV_ERR_NO_MEMORY, KV_ERR_IO, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_salvage(path: *const c_char, new_path: *const c_char, report: *mut *mut kv_report) -> i32 {
    // SAFETY: what this function demands of its caller.
    unsafe { kv_salvage_with(path, new_path, None, ptr::null_mut(), report) }
}

/// As kv_salvage(), and tells of its progress. `progress` may be NULL; `ctx` is passed to it.
///
/// @return
/// - KV_ERR_CANCELLED: the callback asked to stop.
/// - the results of kv_salvage().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_salvage_with(
    path: *const c_char,
    new_path: *const c_char,
    progress: kv_progress,
    ctx: *mut c_void,
    report: *mut *mut kv_report,
) -> i32 {
    // SAFETY: NULL or the caller's variable.
    let report = unsafe { out(report, ptr::null_mut()) };
    guard(|| {
        // SAFETY: NULL or NUL-terminated, says the header.
        let (path, new_path) = unsafe { (self::path(path, "path")?, self::path(new_path, "new_path")?) };
        // SAFETY: NULL or a function of that type, says the header.
        give(unsafe { with_progress(progress, ctx, |progress| crate::salvage(path, new_path, progress)) }?, report)
    })
}
