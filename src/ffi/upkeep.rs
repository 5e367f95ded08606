//! Durability and space.

use std::ffi::c_void;

use super::error::kv_status;
use super::guard::guard;
use super::progress::{kv_progress, with_progress};
use super::store::{engine, kv_store};

/// Makes everything acknowledged so far survive power loss. Returns when the disk has confirmed.
///
/// @return
/// - KV_OK
/// - KV_ERR_INVALID: `store` is NULL.
/// - KV_ERR_READ_ONLY: the handle was opened for reading only.
/// - KV_ERR_POISONED: the sync failed, or an earlier one did. What reached the disk is unknown; the
///   handle takes no more writes.
/// - KV_ERR_NO_MEMORY, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_sync(store: *mut kv_store) -> i32 {
    guard(|| {
        // SAFETY: NULL or an open handle, says the header.
        unsafe { engine(store) }?.sync()?;
        Ok(kv_status::KV_OK)
    })
}

/// Gives back the space of all that is overwritten or deleted by the time of the call. Afterwards,
/// if nobody writes meanwhile, the log holds live records only. Reads and writes by other threads
/// go on. What a snapshot or an iterator can still see keeps its space until that is freed.
///
/// Calling this is never needed: compaction runs by itself. A call takes as long as it takes to
/// rewrite the segments that hold garbage.
///
/// @return
/// - KV_OK
/// - KV_ERR_INVALID: `store` is NULL.
/// - KV_ERR_NO_SPACE: no room for the new segments. Nothing is lost.
/// - KV_ERR_CORRUPT: a segment holds a record that cannot be read, and is kept as it is.
/// - KV_ERR_READ_ONLY, KV_ERR_POISONED: this handle takes no writes.
/// - KV_ERR_NO_MEMORY, KV_ERR_IO, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_compact(store: *mut kv_store) -> i32 {
    guard(|| {
        // SAFETY: NULL or an open handle, says the header.
        unsafe { engine(store) }?.compact()?;
        Ok(kv_status::KV_OK)
    })
}

/// As kv_compact(), telling `progress` how far it has come. `progress` may be NULL.
///
/// When it is cancelled, the segments rewritten so far stay so, and the one under way is given up:
/// the store is as good as before. What is left is done by automatic compaction in its time.
///
/// @return
/// - KV_OK
/// - KV_ERR_CANCELLED: `progress` said so.
/// - the errors of kv_compact().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_compact_with(store: *mut kv_store, progress: kv_progress, ctx: *mut c_void) -> i32 {
    guard(|| {
        // SAFETY: NULL or an open handle, says the header.
        let store = unsafe { engine(store) }?;
        // SAFETY: NULL or a function of that type, says the header.
        unsafe { with_progress(progress, ctx, |progress| store.compact_with(progress)) }?;
        Ok(kv_status::KV_OK)
    })
}

/// Does some of the work that is waiting, automatic compaction above all, and returns after about
/// `budget_bytes` bytes of it (at least one step). For programs that set KV_OPT_BACKGROUND to 0 and
/// know when they have time; allowed in all others.
///
/// @return
/// - KV_OK: more work is waiting; call again.
/// - KV_DONE: nothing is left to do.
/// - KV_ERR_INVALID: `store` is NULL.
/// - KV_ERR_READ_ONLY, KV_ERR_POISONED: this handle takes no writes.
/// - KV_ERR_NO_SPACE, KV_ERR_NO_MEMORY, KV_ERR_IO, KV_ERR_CORRUPT, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_maintain(store: *mut kv_store, budget_bytes: u64) -> i32 {
    guard(|| {
        // SAFETY: NULL or an open handle, says the header.
        let more = unsafe { engine(store) }?.maintain(budget_bytes)?;
        Ok(if more { kv_status::KV_OK } else { kv_status::KV_DONE })
    })
}
