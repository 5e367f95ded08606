//! Opening and closing.

use std::ffi::c_char;
use std::ptr;

use super::error::kv_status;
use super::guard::{self, guard, null, object, out, try_box};
use super::options::kv_options;
use crate::Store;
use crate::error::Result;
use crate::options::Options;

/// An open database.
///
/// Made by kv_open(), given back with kv_close(). May be used from any number of threads at once.
pub struct kv_store(pub(super) Store);

/// The store behind a handle.
///
/// # Safety
/// `store` is NULL or made by `kv_open`, and is not closed during `'a`.
pub(super) unsafe fn engine<'a>(store: *const kv_store) -> Result<&'a Store> {
    // SAFETY: by this function's contract.
    unsafe { object(store, "store") }.map(|store| &store.0)
}

/// Opens the database in the directory `path`, and creates both if there is none. After a crash,
/// opening restores what had been written: kv_recovery_info() tells what was found.
///
/// `path` is a NUL-terminated string, taken as the operating system takes it. Its parent directory
/// must exist. `options` may be NULL for the defaults; it is only read during the call. On success
/// `*store` is a handle that must be closed with kv_close(), on an error it is NULL. May be called
/// from any thread.
///
/// @return
/// - KV_OK
/// - KV_ERR_INVALID: `path` or `store` is NULL, `path` is empty, or two options contradict each
///   other.
/// - KV_ERR_LOCKED: the database is open already, in this process or another. Lock files left over
///   by dead processes do not matter.
/// - KV_ERR_NOT_A_DATABASE: `path` holds something else; or there is no database and the options
///   say not to create one.
/// - KV_ERR_EXISTS: there is a database, and KV_OPT_ERROR_IF_EXISTS is set.
/// - KV_ERR_CORRUPT: damage that opening cannot step around. Damage to single records does not
///   prevent opening.
/// - KV_ERR_FORMAT: the database was written by a newer version, with something this one does not
///   know.
/// - KV_ERR_NO_SPACE, KV_ERR_NO_MEMORY, KV_ERR_IO, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_open(path: *const c_char, options: *const kv_options, store: *mut *mut kv_store) -> i32 {
    // SAFETY: NULL or the caller's variable.
    let store = unsafe { out(store, ptr::null_mut()) };
    guard(|| {
        let store = store.ok_or_else(|| null("store"))?;
        // SAFETY: NULL or NUL-terminated, says the header.
        let path = unsafe { guard::path(path, "path") }?;
        // SAFETY: NULL or made by kv_options_new, and not changed by another thread, says the header.
        let opened = match unsafe { options.as_ref() } {
            Some(options) => Store::open(path, &options.0)?,
            None => Store::open(path, &Options::default())?,
        };
        *store = Box::into_raw(try_box(kv_store(opened), "the store")?);
        Ok(kv_status::KV_OK)
    })
}

/// Closes a database: syncs what was written, in every mode, and leaves a database that opens fast.
/// NULL is fine.
///
/// The handle is consumed whatever is returned, except after KV_ERR_BUSY. No other thread may be
/// using it: calls on a handle during or after its closing are undefined. In a forked child, the
/// handle stays the parent's: nothing is closed, nothing freed.
///
/// @return
/// - KV_OK
/// - KV_ERR_BUSY: snapshots or iterators of the store have not been freed. The store stays open.
/// - KV_ERR_FORKED: the handle was inherited from the parent process.
/// - KV_ERR_POISONED, KV_ERR_NO_SPACE, KV_ERR_NO_MEMORY, KV_ERR_IO: not everything could be made
///   durable. What was acknowledged before is still recovered by the next kv_open(), as after a
///   crash of the process.
/// - KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_close(store: *mut kv_store) -> i32 {
    guard(|| {
        if store.is_null() {
            return Ok(kv_status::KV_OK);
        }
        // SAFETY: not NULL, made by kv_open, and not closed yet, says the header.
        let open = unsafe { engine(store) }?;
        open.check_process()?;
        open.check_unused()?;
        // SAFETY: as above; kv_open made it out of a Box, and nobody else uses it any more.
        let owned = unsafe { Box::from_raw(store) };
        owned.0.close()?;
        Ok(kv_status::KV_OK)
    })
}
