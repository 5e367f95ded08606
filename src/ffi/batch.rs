//! Several changes as one, and changes on a condition.
//!
//! A batch collects changes, kv_write() applies them: all of them or, after a failure or a crash,
//! none, and no reader that looks at one moment (a snapshot, an iterator, kv_get_many()) sees a part.
//! With KV_SYNC_ALWAYS it is also very much faster than single calls: one sync covers it.
//!
//! With conditions this is enough for transactions: read what you need, add a kv_batch_require() for
//! each value read, add the changes, and start again if kv_write() says KV_CONFLICT.

use std::ptr;

use super::data::{key_bytes, value_bytes};
use super::error::kv_status;
use super::guard::{guard, null, object, object_mut, out, preserve_errno, try_box};
use super::store::{engine, kv_store};
use crate::Batch;

/// The most bytes of log that a batch of several changes may take. A record takes 37 bytes besides
/// its key and value, a deletion 29 besides its key.
pub const KV_MAX_BATCH_LEN: u64 = 1073741824;

// The generator of the header reads literals only.
const _: () = assert!(KV_MAX_BATCH_LEN == crate::MAX_BATCH_LEN);

/// Changes to be applied together, and the conditions for it.
///
/// Made by kv_batch_new(), given back with kv_batch_free(). It belongs to no store: it can be
/// applied to several, and lives on when they are closed. For one thread at a time. It keeps copies
/// of the keys and values that are added to it.
pub struct kv_batch(pub(super) Batch);

/// Makes an empty batch.
///
/// @return
/// - KV_OK
/// - KV_ERR_INVALID: `batch` is NULL.
/// - KV_ERR_NO_MEMORY, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_batch_new(batch: *mut *mut kv_batch) -> i32 {
    // SAFETY: NULL or the caller's variable.
    let batch = unsafe { out(batch, ptr::null_mut()) };
    guard(|| {
        let batch = batch.ok_or_else(|| null("batch"))?;
        *batch = Box::into_raw(try_box(kv_batch(Batch::new()), "a batch")?);
        Ok(kv_status::KV_OK)
    })
}

/// Adds the storing of `value` under `key`. Of several changes of one key the last one counts.
///
/// @return
/// - KV_OK
/// - KV_ERR_INVALID: `batch` is NULL, or `key` or `value` is NULL with a length that is not 0.
/// - KV_ERR_TOO_LARGE: the key is longer than KV_MAX_KEY_LEN, the value longer than
///   KV_MAX_VALUE_LEN, or the batch would take more than KV_MAX_BATCH_LEN bytes of log (a batch of a
///   single change may be larger) or more than 2^32 - 1 operations. The batch stays as it was.
/// - KV_ERR_NO_MEMORY: the batch stays as it was.
/// - KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_batch_set(
    batch: *mut kv_batch,
    key: *const u8,
    key_len: usize,
    value: *const u8,
    value_len: usize,
) -> i32 {
    guard(|| {
        // SAFETY: NULL or a batch that nobody else uses, and pointers with the lengths of what they point to, says
        // the header.
        let (batch, key, value) =
            unsafe { (object_mut(batch, "batch")?, key_bytes(key, key_len)?, value_bytes(value, value_len, "value")?) };
        batch.0.set(key, value)?;
        Ok(kv_status::KV_OK)
    })
}

/// Adds the deletion of `key`, which need not be there when the batch is applied.
///
/// @return as for kv_batch_set().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_batch_del(batch: *mut kv_batch, key: *const u8, key_len: usize) -> i32 {
    guard(|| {
        // SAFETY: as in kv_batch_set.
        let (batch, key) = unsafe { (object_mut(batch, "batch")?, key_bytes(key, key_len)?) };
        batch.0.del(key)?;
        Ok(kv_status::KV_OK)
    })
}

/// Adds a condition: the batch is only applied if `key` then has the value `expected`. Conditions
/// look at the store as it is before the batch, whatever their place among the changes.
///
/// @return as for kv_batch_set().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_batch_require(
    batch: *mut kv_batch,
    key: *const u8,
    key_len: usize,
    expected: *const u8,
    expected_len: usize,
) -> i32 {
    guard(|| {
        // SAFETY: as in kv_batch_set.
        let (batch, key, expected) = unsafe {
            let expected = value_bytes(expected, expected_len, "expected value")?;
            (object_mut(batch, "batch")?, key_bytes(key, key_len)?, expected)
        };
        batch.0.require(key, expected)?;
        Ok(kv_status::KV_OK)
    })
}

/// Adds a condition: the batch is only applied if `key` then has no value.
///
/// @return as for kv_batch_set().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_batch_require_absent(batch: *mut kv_batch, key: *const u8, key_len: usize) -> i32 {
    guard(|| {
        // SAFETY: as in kv_batch_set.
        let (batch, key) = unsafe { (object_mut(batch, "batch")?, key_bytes(key, key_len)?) };
        batch.0.require_absent(key)?;
        Ok(kv_status::KV_OK)
    })
}

/// Empties a batch, changes and conditions. It keeps its memory for the next use.
///
/// @return
/// - KV_OK
/// - KV_ERR_INVALID: `batch` is NULL.
/// - KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_batch_clear(batch: *mut kv_batch) -> i32 {
    guard(|| {
        // SAFETY: NULL or a batch that nobody else uses, says the header.
        unsafe { object_mut(batch, "batch") }?.0.clear();
        Ok(kv_status::KV_OK)
    })
}

/// How many changes have been added, conditions not counted. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_batch_len(batch: *const kv_batch) -> usize {
    // SAFETY: NULL or a batch that nobody changes meanwhile, says the header.
    unsafe { batch.as_ref() }.map_or(0, |batch| batch.0.len())
}

/// Frees a batch. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_batch_free(batch: *mut kv_batch) {
    if !batch.is_null() {
        // SAFETY: made by kv_batch_new out of a Box, and not used afterwards, says the header.
        preserve_errno(|| drop(unsafe { Box::from_raw(batch) }));
    }
}

/// Applies a batch: all its changes or, if it fails or a condition does not hold, none. Durability
/// and failures are as for kv_set(). The batch stays as it is and can be applied again.
///
/// An empty batch writes nothing. Deleting keys that are not there writes nothing either.
///
/// @return
/// - KV_OK
/// - KV_CONFLICT: a condition does not hold. Nothing has changed.
/// - KV_ERR_INVALID: `store` or `batch` is NULL.
/// - KV_ERR_NO_SPACE: works again once there is space, without reopening. A batch of nothing but
///   deletions works longer than others.
/// - KV_ERR_READ_ONLY, KV_ERR_POISONED: this handle takes no writes.
/// - KV_ERR_CORRUPT: a record that a condition asks for is damaged.
/// - KV_ERR_NO_MEMORY, KV_ERR_IO, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_write(store: *mut kv_store, batch: *const kv_batch) -> i32 {
    guard(|| {
        // SAFETY: NULL or an open handle, and NULL or a batch that nobody changes meanwhile, says the header.
        let (store, batch) = unsafe { (engine(store)?, object(batch, "batch")?) };
        Ok(applied(store.write(&batch.0)?))
    })
}

/// Stores `value` under `key` if that has no value yet. No other write comes between.
///
/// @return
/// - KV_OK: stored.
/// - KV_CONFLICT: there is a value. Nothing has changed.
/// - errors as for kv_set(), and KV_ERR_CORRUPT if a damaged record may be the value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_set_if_absent(
    store: *mut kv_store,
    key: *const u8,
    key_len: usize,
    value: *const u8,
    value_len: usize,
) -> i32 {
    guard(|| {
        // SAFETY: NULL or an open handle, and pointers with the lengths of what they point to, says the header.
        let (store, key, value) =
            unsafe { (engine(store)?, key_bytes(key, key_len)?, value_bytes(value, value_len, "value")?) };
        Ok(applied(store.set_if_absent(key, value)?))
    })
}

/// Stores `value` under `key` if that has the value `expected`: compare and swap. No other write
/// comes between.
///
/// @return
/// - KV_OK: stored.
/// - KV_CONFLICT: the key has another value, or none. Nothing has changed.
/// - errors as for kv_set(), and KV_ERR_CORRUPT if the present value is damaged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_replace_if(
    store: *mut kv_store,
    key: *const u8,
    key_len: usize,
    expected: *const u8,
    expected_len: usize,
    value: *const u8,
    value_len: usize,
) -> i32 {
    guard(|| {
        // SAFETY: NULL or an open handle, and pointers with the lengths of what they point to, says the header.
        let (store, key, expected, value) = unsafe {
            let expected = value_bytes(expected, expected_len, "expected value")?;
            (engine(store)?, key_bytes(key, key_len)?, expected, value_bytes(value, value_len, "value")?)
        };
        Ok(applied(store.replace_if(key, expected, value)?))
    })
}

fn applied(applied: bool) -> kv_status {
    if applied { kv_status::KV_OK } else { kv_status::KV_CONFLICT }
}
