//! Snapshots: the store as it was at one moment.
//!
//! Taking one takes the same short time however much is stored; nothing is copied. What is overwritten
//! or deleted while a snapshot is alive keeps its space on disk until the snapshot is freed:
//! kv_stats() shows how many there are, and the bytes they pin once compaction has left them behind.

use std::ptr;

use super::data::key_bytes;
use super::error::kv_status;
use super::guard::{guard, null, object, out, preserve_errno, try_box};
use super::store::{engine, kv_store};
use crate::Snapshot;

/// The store as it was when the snapshot was taken.
///
/// Made by kv_snapshot_new(), given back with kv_snapshot_free(). While one is alive, kv_close() is
/// KV_ERR_BUSY. May be used from any number of threads at once.
pub struct kv_snapshot(pub(super) Snapshot);

/// Takes a snapshot of the store as it is now.
///
/// @return
/// - KV_OK
/// - KV_ERR_INVALID: `store` or `snapshot` is NULL.
/// - KV_ERR_NO_MEMORY, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_snapshot_new(store: *mut kv_store, snapshot: *mut *mut kv_snapshot) -> i32 {
    // SAFETY: NULL or the caller's variable.
    let snapshot = unsafe { out(snapshot, ptr::null_mut()) };
    guard(|| {
        let snapshot = snapshot.ok_or_else(|| null("snapshot"))?;
        // SAFETY: NULL or an open handle, says the header.
        let taken = unsafe { engine(store) }?.snapshot()?;
        *snapshot = Box::into_raw(try_box(kv_snapshot(taken), "a snapshot")?);
        Ok(kv_status::KV_OK)
    })
}

/// Finds the value that `key` had when the snapshot was taken. Nothing is copied: `*value` points
/// into the log and stays valid until the snapshot is freed. It must not be freed or written to.
///
/// With system calls (KV_IO_SYSCALL) it points to memory of the snapshot's own instead, which each
/// value read adds to. An empty value is found: `*value` is not NULL, `*value_len` is 0. In all
/// other cases they are NULL and 0.
///
/// @return
/// - KV_OK
/// - KV_NOT_FOUND
/// - KV_ERR_INVALID: `snapshot`, `value` or `value_len` is NULL, or `key` is NULL with a length that
///   is not 0.
/// - KV_ERR_TOO_LARGE: the key is longer than KV_MAX_KEY_LEN.
/// - KV_ERR_CORRUPT: the record of this key is damaged. Other keys can still be read.
/// - KV_ERR_NO_MEMORY, KV_ERR_IO, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_snapshot_get(
    snapshot: *const kv_snapshot,
    key: *const u8,
    key_len: usize,
    value: *mut *const u8,
    value_len: *mut usize,
) -> i32 {
    // SAFETY: NULL or the caller's variables.
    let (value, value_len) = unsafe { (out(value, ptr::null()), out(value_len, 0)) };
    guard(|| {
        // SAFETY: NULL or a snapshot that is not freed meanwhile, and a pointer with its length, says the header.
        let (snapshot, key) = unsafe { (object(snapshot, "snapshot")?, key_bytes(key, key_len)?) };
        let value = value.ok_or_else(|| null("value"))?;
        let value_len = value_len.ok_or_else(|| null("value_len"))?;
        let Some(found) = snapshot.0.get(key)? else {
            return Ok(kv_status::KV_NOT_FOUND);
        };
        (*value, *value_len) = (found.as_ptr(), found.len());
        Ok(kv_status::KV_OK)
    })
}

/// Frees a snapshot: values that it has given out are no longer valid. NULL is fine.
///
/// Iterators made from it live on. In a forked child nothing is freed: the snapshot stays the
/// parent's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_snapshot_free(snapshot: *mut kv_snapshot) {
    // SAFETY: NULL or a snapshot that is not freed yet, says the header.
    let ours = unsafe { snapshot.as_ref() }.is_some_and(|snapshot| snapshot.0.check_process().is_ok());
    if ours {
        // SAFETY: made by kv_snapshot_new out of a Box, and not used afterwards, says the header.
        preserve_errno(|| drop(unsafe { Box::from_raw(snapshot) }));
    }
}
