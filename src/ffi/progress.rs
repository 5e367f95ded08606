//! Progress of long work. Functions whose name ends in _with take a callback.

use std::ffi::c_void;

use crate::error::Result;
use crate::progress::Progress;

/// Called now and then during long work with how many bytes of it are done and how many there are
/// in all, and with the `ctx` that was passed along. Returns 0 to go on; anything else cancels the
/// work, which then ends with KV_ERR_CANCELLED.
///
/// It is called by the thread that does the call, and only until that returns: first with `done` 0,
/// then after each piece of the work; where bytes are copied, a piece is about 1 MiB. `total` stays
/// the same, `done` never decreases and never exceeds `total`. When all has succeeded there is one
/// last call with `done` equal to `total`, whatever that returns; there is no such call otherwise. If
/// there is nothing to do, that is the only call, with 0 and 0.
///
/// It may call any function, also on the same store, except kv_close(): the library holds no lock
/// meanwhile. It must return: not by longjmp(), and not by an exception.
///
/// NULL is allowed wherever a kv_progress is taken.
pub type kv_progress = Option<unsafe extern "C" fn(ctx: *mut c_void, done: u64, total: u64) -> i32>;

/// Does long work that reports to the caller's callback, if there is one.
///
/// # Safety
/// `callback` is NULL or a function that may be called with `ctx` during this call.
pub(super) unsafe fn with_progress<T>(
    callback: kv_progress,
    ctx: *mut c_void,
    work: impl FnOnce(&mut Progress<'_>) -> Result<T>,
) -> Result<T> {
    let mut report = |done, total| match callback {
        // SAFETY: by this function's contract.
        Some(callback) => unsafe { callback(ctx, done, total) == 0 },
        None => true,
    };
    work(&mut Progress::new(&mut report))
}
