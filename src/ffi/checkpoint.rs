//! Backup: checkpoints.

use std::ffi::{c_char, c_void};
use std::ptr;

use super::error::kv_status;
use super::guard::{self, guard};
use super::progress::{kv_progress, with_progress};
use super::store::{engine, kv_store};

/// Makes a checkpoint: a database of its own in the directory `dir`, which holds what the store held
/// at one moment during the call, and at least everything that was acknowledged before it. Reads and
/// writes by other threads go on meanwhile.
///
/// `dir` is a NUL-terminated string. It must not exist; its parent directory must. When the call
/// returns KV_OK, the checkpoint survives power loss, whatever the sync level, and can be opened
/// with kv_open(), copied and removed like any database. Nothing that happens to one of the two
/// databases later changes the other.
///
/// On the file system of the store this takes little time and space: files that never change again
/// are shared by hard links, and only the end of the log is copied. Elsewhere all is copied. A
/// shared file counts as used by the checkpoint for as long as it is there, also when compaction has
/// removed it from the store.
///
/// The end of the log is read back and verified. The shared files are not: a record in them that is
/// damaged is as damaged in the checkpoint.
///
/// Works on a store that was opened for reading only, too, and on one that takes no more writes
/// after a failed sync.
///
/// After an error nothing is left at `dir`. If the process dies in the middle, what is left there is
/// an empty directory, or one that opens as KV_ERR_NOT_A_DATABASE or KV_ERR_CORRUPT; remove it. The
/// store itself is never at risk. May be called from any thread, and from several at once.
///
/// @return
/// - KV_OK
/// - KV_ERR_EXISTS: there is something at `dir`. It was not touched.
/// - KV_ERR_INVALID: `store` or `dir` is NULL, or `dir` is empty.
/// - KV_ERR_CORRUPT: a record at the end of the log cannot be read.
/// - KV_ERR_NO_SPACE, KV_ERR_NO_MEMORY, KV_ERR_IO, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_checkpoint(store: *mut kv_store, dir: *const c_char) -> i32 {
    // SAFETY: the header says the same of both functions.
    unsafe { kv_checkpoint_with(store, dir, ptr::null(), None, ptr::null_mut()) }
}

/// As kv_checkpoint(), with two things more, either of which may be NULL.
///
/// `base` is the directory of an older checkpoint of the same store, which is not changed. Files
/// that are the same in both are shared with it by hard links: on another file system than the
/// store's, only what is new is copied. The older checkpoint can be removed at any time without harm
/// to the newer. What is damaged in `base` is damaged in what is shared with it.
///
/// `progress` is told how far it has come, and can cancel it: then nothing is left at `dir`.
///
/// @return
/// - KV_OK
/// - KV_ERR_CANCELLED: `progress` said so.
/// - KV_ERR_NOT_A_DATABASE, KV_ERR_CORRUPT, KV_ERR_FORMAT, KV_ERR_IO: `base` is no database, or
///   cannot be read.
/// - the errors of kv_checkpoint().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_checkpoint_with(
    store: *mut kv_store,
    dir: *const c_char,
    base: *const c_char,
    progress: kv_progress,
    ctx: *mut c_void,
) -> i32 {
    guard(|| {
        // SAFETY: NULL or an open handle, says the header.
        let store = unsafe { engine(store) }?;
        // SAFETY: NULL or NUL-terminated, says the header.
        let dir = unsafe { guard::path(dir, "dir") }?;
        // SAFETY: as above.
        let base = if base.is_null() { None } else { Some(unsafe { guard::path(base, "base") }?) };
        // SAFETY: NULL or a function of that type, says the header.
        unsafe { with_progress(progress, ctx, |progress| store.checkpoint_with(dir, base, progress)) }?;
        Ok(kv_status::KV_OK)
    })
}
