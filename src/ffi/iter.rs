//! Iteration: every key of one moment, exactly once, whatever is written or compacted meanwhile.
//!
//! Make an iterator, say what it is to show, and step through it:
//!
//!     kv_iter *iter;
//!     kv_iter_new(store, &iter);
//!     kv_iter_prefix(iter, (const uint8_t *)"user:", 5);
//!     while ((status = kv_iter_next(iter, &key, &key_len, &value, &value_len)) == KV_OK) ...
//!     kv_iter_free(iter);
//!
//! Without kv_iter_sort() items come in the order of the log, which is the fastest. Any order is one
//! of the moment: another iterator may show another.

use std::{ptr, slice};

use super::data::bound_bytes;
use super::error::kv_status;
use super::guard::{guard, invalid, null, object, object_mut, out, preserve_errno, try_box};
use super::snapshot::kv_snapshot;
use super::store::{engine, kv_store};
use crate::error::{Code, Error, Result};
use crate::{Iter, IterOptions};

/// Shows keys and values one after the other, as they were when it was made.
///
/// Made by kv_iter_new() or kv_snapshot_iter(), given back with kv_iter_free(). While one is alive,
/// kv_close() is KV_ERR_BUSY, and space on disk is kept as for a snapshot. For one thread at a time.
pub struct kv_iter(Iter);

/// Bytes that kv_iter_fill() puts before each item: the lengths of key and value.
pub const KV_ITER_ITEM_HEAD: u32 = 8;

/// Makes an iterator over what is stored now.
///
/// @return
/// - KV_OK
/// - KV_ERR_INVALID: `store` or `iter` is NULL.
/// - KV_ERR_NO_MEMORY, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_iter_new(store: *mut kv_store, iter: *mut *mut kv_iter) -> i32 {
    // SAFETY: NULL or the caller's variable.
    let iter = unsafe { out(iter, ptr::null_mut()) };
    guard(|| {
        // SAFETY: NULL or an open handle, says the header.
        let store = unsafe { engine(store) }?;
        deliver(iter, || store.iter(IterOptions::default()))
    })
}

/// Makes an iterator over what was stored when the snapshot was taken. The snapshot may be freed
/// before the iterator.
///
/// @return
/// - KV_OK
/// - KV_ERR_INVALID: `snapshot` or `iter` is NULL.
/// - KV_ERR_NO_MEMORY, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_snapshot_iter(snapshot: *const kv_snapshot, iter: *mut *mut kv_iter) -> i32 {
    // SAFETY: NULL or the caller's variable.
    let iter = unsafe { out(iter, ptr::null_mut()) };
    guard(|| {
        // SAFETY: NULL or a snapshot that is not freed meanwhile, says the header.
        let snapshot = unsafe { object(snapshot, "snapshot") }?;
        deliver(iter, || snapshot.0.iter(IterOptions::default()))
    })
}

fn deliver(iter: Option<&mut *mut kv_iter>, make: impl FnOnce() -> Result<Iter>) -> Result<kv_status> {
    let iter = iter.ok_or_else(|| null("iter"))?;
    *iter = Box::into_raw(try_box(kv_iter(make()?), "an iterator")?);
    Ok(kv_status::KV_OK)
}

/// Shows keys only: values come as NULL with length 0.
///
/// @return
/// - KV_OK
/// - KV_ERR_INVALID: `iter` is NULL, or has been stepped already.
/// - KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_iter_keys_only(iter: *mut kv_iter) -> i32 {
    // SAFETY: as `set` asks for.
    unsafe { set(iter, |options| options.keys_only = true) }
}

/// Shows items in ascending order of their keys, compared byte by byte as unsigned numbers, a key
/// before those that it is a prefix of.
///
/// The index is a hash table, so this has its cost: the first step reads everything once and sorts
/// the keys that are to be shown, which takes their length and 40 bytes for each of memory until the
/// iterator is freed. The steps that follow read the log at random.
///
/// @return as for kv_iter_keys_only().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_iter_sort(iter: *mut kv_iter) -> i32 {
    // SAFETY: as `set` asks for.
    unsafe { set(iter, |options| options.sorted = true) }
}

/// Shows only keys that begin with `prefix`. All keys are looked at all the same: the index is a hash
/// table.
///
/// @return
/// - KV_OK
/// - KV_ERR_INVALID: `iter` is NULL or has been stepped already, or `prefix` is NULL with a length
///   that is not 0.
/// - KV_ERR_NO_MEMORY, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_iter_prefix(iter: *mut kv_iter, prefix: *const u8, prefix_len: usize) -> i32 {
    // SAFETY: a pointer with the length of what it points to, and as `set` asks for.
    unsafe {
        set_bytes(
            iter,
            || Ok([bound_bytes(prefix, prefix_len, "prefix")?, &[]]),
            |options, [prefix, _]| {
                options.prefix = prefix;
            },
        )
    }
}

/// Shows only keys that are not less than `start`, and less than `end` if that is not empty, in the
/// order of kv_iter_sort(), whichever order they are shown in.
///
/// @return
/// - KV_OK
/// - KV_ERR_INVALID: `iter` is NULL or has been stepped already, or `start` or `end` is NULL with a
///   length that is not 0.
/// - KV_ERR_NO_MEMORY, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_iter_range(
    iter: *mut kv_iter,
    start: *const u8,
    start_len: usize,
    end: *const u8,
    end_len: usize,
) -> i32 {
    // SAFETY: pointers with the lengths of what they point to, and as `set` asks for.
    unsafe {
        let bounds = || Ok([bound_bytes(start, start_len, "start")?, bound_bytes(end, end_len, "end")?]);
        set_bytes(iter, bounds, |options, [start, end]| (options.start, options.end) = (start, end))
    }
}

/// Changes what an iterator shows.
///
/// # Safety
/// `iter` is NULL or an iterator that is not freed and that nobody else uses.
unsafe fn set(iter: *mut kv_iter, change: impl FnOnce(&mut IterOptions)) -> i32 {
    guard(|| {
        // SAFETY: by this function's contract.
        change(unsafe { object_mut(iter, "iter") }?.0.options_mut()?);
        Ok(kv_status::KV_OK)
    })
}

/// As `set`, with copies of bytes.
///
/// # Safety
/// As for `set`.
unsafe fn set_bytes<'a>(
    iter: *mut kv_iter,
    bytes: impl FnOnce() -> Result<[&'a [u8]; 2]>,
    change: impl FnOnce(&mut IterOptions, [Vec<u8>; 2]),
) -> i32 {
    guard(|| {
        // SAFETY: by this function's contract.
        let options = unsafe { object_mut(iter, "iter") }?.0.options_mut()?;
        let mut copies = [Vec::new(), Vec::new()];
        for (copy, bytes) in copies.iter_mut().zip(bytes()?) {
            copy.try_reserve_exact(bytes.len()).map_err(|_| Error::no_memory("an iterator"))?;
            copy.extend_from_slice(bytes);
        }
        change(options, copies);
        Ok(kv_status::KV_OK)
    })
}

/// The next key and its value. The pointers stay valid until the next call with this iterator; what
/// they point to must not be freed or written to.
///
/// `value` and `value_len` may be NULL. At the end and after errors all are set to NULL and 0. An
/// empty key or value is not NULL, except for values of kv_iter_keys_only(). After an error every
/// further call returns that error: what would follow is not all there is.
///
/// @return
/// - KV_OK
/// - KV_DONE: there are no more.
/// - KV_ERR_INVALID: `iter`, `key` or `key_len` is NULL.
/// - KV_ERR_CORRUPT: a record is damaged.
/// - KV_ERR_NO_MEMORY, KV_ERR_IO, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_iter_next(
    iter: *mut kv_iter,
    key: *mut *const u8,
    key_len: *mut usize,
    value: *mut *const u8,
    value_len: *mut usize,
) -> i32 {
    // SAFETY: NULL or the caller's variables.
    let (key, key_len, value, value_len) =
        unsafe { (out(key, ptr::null()), out(key_len, 0), out(value, ptr::null()), out(value_len, 0)) };
    // SAFETY: NULL or an iterator that nobody else uses, says the header.
    let (iter, key, key_len) = match (unsafe { iter.as_mut() }, key, key_len) {
        (Some(iter), Some(key), Some(key_len)) => (iter, key, key_len),
        (None, ..) => return refuse_null("iter"),
        (_, None, _) => return refuse_null("key"),
        (.., None) => return refuse_null("key_len"),
    };
    // To give out what is at hand cannot fail, and takes less time than the guard.
    if !iter.0.at_hand() {
        let status = read_more(iter);
        if status != kv_status::KV_OK as i32 {
            return status;
        }
    }
    let keys_only = iter.0.keys_only();
    let Some((found_key, found_value)) = iter.0.next_at_hand() else { return kv_status::KV_DONE as i32 };
    (*key, *key_len) = (found_key.as_ptr(), found_key.len());
    if let Some(value) = value.filter(|_| !keys_only) {
        *value = found_value.as_ptr();
    }
    if let Some(value_len) = value_len {
        *value_len = found_value.len();
    }
    kv_status::KV_OK as i32
}

#[cold]
fn refuse_null(what: &str) -> i32 {
    guard(|| Err(null(what)))
}

#[cold]
fn read_more(iter: &mut kv_iter) -> i32 {
    guard(|| iter.0.load().map(|()| kv_status::KV_OK))
}

/// Packs as many of the next items as fit into the caller's buffer of `cap` bytes. For languages in
/// which a call of C is dear: one call brings hundreds of items.
///
/// Items stand one behind the other without gaps: the length of the key and the length of the value,
/// 4 bytes each, little-endian, not aligned; the key; the value. `*count` is how many there are,
/// `*used` how many bytes they take together. With kv_iter_keys_only() the values are empty.
///
/// If the next item alone does not fit, nothing is copied, `*used` is the number of bytes that it
/// takes, and it stays the next one. An error that comes behind items is returned by the next call.
///
/// @return
/// - KV_OK: `*count` is at least 1.
/// - KV_DONE: there are no more; `*count` is 0.
/// - KV_ERR_BUFFER_TOO_SMALL: call again with at least `*used` bytes; `*count` is 0.
/// - KV_ERR_INVALID: `iter`, `used` or `count` is NULL, or `buf` is NULL with a `cap` that is not 0.
/// - KV_ERR_CORRUPT: a record is damaged.
/// - KV_ERR_NO_MEMORY, KV_ERR_IO, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_iter_fill(
    iter: *mut kv_iter,
    buf: *mut u8,
    cap: usize,
    used: *mut usize,
    count: *mut usize,
) -> i32 {
    // SAFETY: NULL or the caller's variables.
    let (used, count) = unsafe { (out(used, 0), out(count, 0)) };
    guard(|| {
        // SAFETY: NULL or an iterator that nobody else uses, says the header.
        let iter = unsafe { object_mut(iter, "iter") }?;
        let used = used.ok_or_else(|| null("used"))?;
        let count = count.ok_or_else(|| null("count"))?;
        if buf.is_null() && cap > 0 {
            return Err(invalid(format!("the buffer is NULL, its capacity {cap}")));
        }
        loop {
            let item = match iter.0.peek() {
                Ok(Some(item)) => item,
                Err(error) if *count == 0 => return Err(error),
                Ok(None) if *count == 0 => return Ok(kv_status::KV_DONE),
                _ => return Ok(kv_status::KV_OK),
            };
            let len = item_len(item);
            if len > cap - *used {
                if *count > 0 {
                    return Ok(kv_status::KV_OK);
                }
                *used = len;
                return Err(Error::new(
                    Code::BufferTooSmall,
                    format!("the item takes {len} bytes, the buffer has {cap}"),
                ));
            }
            // SAFETY: the caller vouches for `cap` writable bytes; `len` is not 0, so `buf` is not NULL.
            unsafe { pack(item, slice::from_raw_parts_mut(buf.add(*used), len)) };
            *used += len;
            *count += 1;
            iter.0.skip();
        }
    })
}

fn item_len((key, value): (&[u8], &[u8])) -> usize {
    KV_ITER_ITEM_HEAD as usize + key.len() + value.len()
}

/// Writes an item to `target`, which is as long as it takes. No length is over 32 bits.
fn pack((key, value): (&[u8], &[u8]), target: &mut [u8]) {
    let (head, rest) = target.split_at_mut(KV_ITER_ITEM_HEAD as usize);
    head[..4].copy_from_slice(&(key.len() as u32).to_le_bytes());
    head[4..].copy_from_slice(&(value.len() as u32).to_le_bytes());
    rest[..key.len()].copy_from_slice(key);
    rest[key.len()..].copy_from_slice(value);
}

/// Frees an iterator. NULL is fine. In a forked child nothing is freed: the iterator stays the
/// parent's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_iter_free(iter: *mut kv_iter) {
    // SAFETY: NULL or an iterator that is not freed yet, says the header.
    let ours = unsafe { iter.as_ref() }.is_some_and(|iter| iter.0.check_process().is_ok());
    if ours {
        // SAFETY: made out of a Box by this module, and not used afterwards, says the header.
        preserve_errno(|| drop(unsafe { Box::from_raw(iter) }));
    }
}
