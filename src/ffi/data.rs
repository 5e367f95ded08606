//! Reading and writing.

use std::mem::MaybeUninit;
use std::{ptr, slice};

use super::error::kv_status;
use super::guard::{array, bytes, guard, invalid, null, out, out_array, preserve_errno};
use super::store::{engine, kv_store};
use crate::ValueBuf;
use crate::error::{Code, Error, Result};

/// The longest key, in bytes.
pub const KV_MAX_KEY_LEN: u32 = 65536;
/// The longest value, in bytes.
pub const KV_MAX_VALUE_LEN: u64 = 4294967295;

// The generator of the header reads literals only.
const _: () = assert!(KV_MAX_KEY_LEN as usize == crate::MAX_KEY_LEN && KV_MAX_VALUE_LEN == crate::MAX_VALUE_LEN);

/// The key that a caller describes.
///
/// # Safety
/// As for [`bytes`].
pub(super) unsafe fn key_bytes<'a>(key: *const u8, key_len: usize) -> Result<&'a [u8]> {
    // SAFETY: by this function's contract.
    unsafe { bytes(key, key_len, crate::MAX_KEY_LEN, "key") }
}

/// The value that a caller describes.
///
/// # Safety
/// As for [`bytes`].
pub(super) unsafe fn value_bytes<'a>(value: *const u8, value_len: usize, what: &str) -> Result<&'a [u8]> {
    let limit = usize::try_from(crate::MAX_VALUE_LEN).unwrap_or(usize::MAX).min(isize::MAX as usize);
    // SAFETY: by this function's contract.
    unsafe { bytes(value, value_len, limit, what) }
}

/// What a caller has keys compared with: it may be longer than any key.
///
/// # Safety
/// As for [`bytes`].
pub(super) unsafe fn bound_bytes<'a>(bound: *const u8, bound_len: usize, what: &str) -> Result<&'a [u8]> {
    // SAFETY: by this function's contract.
    unsafe { bytes(bound, bound_len, isize::MAX as usize, what) }
}

/// Whether the buffer that a value is to be read into is where the key is.
fn overlap(key: &[u8], buf: *const u8, cap: usize) -> bool {
    let key = key.as_ptr_range();
    buf.addr() < key.end.addr() && key.start.addr() < buf.addr().saturating_add(cap)
}

/// Stores `value` under `key`, in place of a value that may be there. Both are copied.
///
/// Once it returns KV_OK the write survives the death of the process, and what else KV_OPT_SYNC
/// says. If it fails nothing has changed, with one exception: if the sync of KV_SYNC_ALWAYS fails,
/// whether this write is found after the next kv_open() is unknown.
///
/// While compaction cannot keep up with the writers, each write waits a little, so that the log stays
/// within its bound.
///
/// @return
/// - KV_OK
/// - KV_ERR_INVALID: `store` is NULL, or `key` or `value` is NULL with a length that is not 0.
/// - KV_ERR_TOO_LARGE: the key is longer than KV_MAX_KEY_LEN or the value longer than
///   KV_MAX_VALUE_LEN.
/// - KV_ERR_NO_SPACE: works again once there is space, without reopening.
/// - KV_ERR_READ_ONLY: this handle takes no writes.
/// - KV_ERR_POISONED: the sync of KV_SYNC_ALWAYS failed, or an earlier one did: this handle takes no
///   more writes.
/// - KV_ERR_NO_MEMORY, KV_ERR_IO, KV_ERR_CORRUPT, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_set(
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
        store.set(key, value)?;
        Ok(kv_status::KV_OK)
    })
}

/// Reads the value of `key` into new memory.
///
/// If found, `*value` is a copy that the caller owns and frees with kv_free_buf(); it stays valid
/// whatever happens to the store. An empty value is found: `*value` is not NULL, `*value_len` is 0.
/// In all other cases they are NULL and 0.
///
/// @return
/// - KV_OK
/// - KV_NOT_FOUND
/// - KV_ERR_INVALID: `store`, `value` or `value_len` is NULL, or `key` is NULL with a length that
///   is not 0.
/// - KV_ERR_TOO_LARGE: the key is longer than KV_MAX_KEY_LEN.
/// - KV_ERR_CORRUPT: the record of this key is damaged. Other keys can still be read.
/// - KV_ERR_NO_MEMORY, KV_ERR_IO, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_get(
    store: *mut kv_store,
    key: *const u8,
    key_len: usize,
    value: *mut *mut u8,
    value_len: *mut usize,
) -> i32 {
    // SAFETY: NULL or the caller's variables.
    let (value, value_len) = unsafe { (out(value, ptr::null_mut()), out(value_len, 0)) };
    guard(|| {
        // SAFETY: NULL or an open handle, and a pointer with the length of what it points to, says the header.
        let (store, key) = unsafe { (engine(store)?, key_bytes(key, key_len)?) };
        let value = value.ok_or_else(|| null("value"))?;
        let value_len = value_len.ok_or_else(|| null("value_len"))?;
        let mut buffer = MallocBuf { data: ptr::null_mut() };
        let Some(len) = store.get_with(key, &mut buffer)? else {
            return Ok(kv_status::KV_NOT_FOUND);
        };
        *value = buffer.into_raw();
        *value_len = len;
        Ok(kv_status::KV_OK)
    })
}

/// Frees what kv_get() or kv_get_many() returned. NULL is fine. May be called from any thread, and
/// after the store is closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_free_buf(value: *mut u8) {
    // SAFETY: NULL or from MallocBuf, and not used afterwards, says the header.
    preserve_errno(|| unsafe { libc::free(value.cast()) });
}

/// Reads the value of `key` into the caller's buffer of `cap` bytes. Allocates nothing.
///
/// `*value_len` becomes the length of the value, also if it does not fit: then nothing is copied,
/// and the caller may come again with a larger buffer (another thread may have stored another value
/// meanwhile). `buf` may be NULL if `cap` is 0, to ask for the length. If the key is not found, or
/// on other errors, `*value_len` is 0; after an error the content of `buf` is unspecified. `buf`
/// must not overlap `key`.
///
/// @return
/// - KV_OK
/// - KV_NOT_FOUND
/// - KV_ERR_BUFFER_TOO_SMALL: `*value_len` is the length needed.
/// - KV_ERR_INVALID: `store` or `value_len` is NULL, `key` or `buf` is NULL with a length that is
///   not 0, or `buf` overlaps `key`.
/// - KV_ERR_TOO_LARGE: the key is longer than KV_MAX_KEY_LEN.
/// - KV_ERR_CORRUPT: the record of this key is damaged. Other keys can still be read.
/// - KV_ERR_IO, KV_ERR_NO_MEMORY, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_get_into(
    store: *mut kv_store,
    key: *const u8,
    key_len: usize,
    buf: *mut u8,
    cap: usize,
    value_len: *mut usize,
) -> i32 {
    // SAFETY: NULL or the caller's variable.
    let value_len = unsafe { out(value_len, 0) };
    guard(|| {
        // SAFETY: NULL or an open handle, and a pointer with the length of what it points to, says the header.
        let (store, key) = unsafe { (engine(store)?, key_bytes(key, key_len)?) };
        let value_len = value_len.ok_or_else(|| null("value_len"))?;
        if buf.is_null() && cap > 0 {
            return Err(invalid(format!("the buffer is NULL, its capacity {cap}")));
        }
        if overlap(key, buf, cap) {
            return Err(invalid("the buffer overlaps the key"));
        }
        let mut buffer = CallerBuf { data: buf, cap, too_small_for: None };
        let outcome = store.get_with(key, &mut buffer);
        if let Some(needed) = buffer.too_small_for {
            *value_len = needed;
        }
        let Some(len) = outcome? else {
            return Ok(kv_status::KV_NOT_FOUND);
        };
        *value_len = len;
        Ok(kv_status::KV_OK)
    })
}

/// Reads the values of `count` keys as they are at one moment, into new memory. Faster than as many
/// calls of kv_get(): the waiting for memory overlaps.
///
/// `keys` and `key_lens` are arrays of `count`, as are `values` and `value_lens`, which are filled.
/// `values[i]` points to the value of key i inside `*buf` and `value_lens[i]` is its length, or they
/// are NULL and 0 if that is not found. `*buf` holds all the values and nothing else; the caller owns
/// it and frees it with kv_free_buf(). An empty value is not NULL. After an error there is no `*buf`,
/// and all values are NULL. If `count` is 0, the arrays may be NULL. No two arrays may overlap.
///
/// @return
/// - KV_OK: also if some or all keys are not found.
/// - KV_ERR_INVALID: `store`, `buf` or an array is NULL, a key is NULL with a length that is not 0,
///   or `count` is 2^32 or more.
/// - KV_ERR_TOO_LARGE: a key is longer than KV_MAX_KEY_LEN.
/// - KV_ERR_CORRUPT: the record of one of the keys is damaged.
/// - KV_ERR_NO_MEMORY, KV_ERR_IO, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_get_many(
    store: *mut kv_store,
    count: usize,
    keys: *const *const u8,
    key_lens: *const usize,
    values: *mut *const u8,
    value_lens: *mut usize,
    buf: *mut *mut u8,
) -> i32 {
    // SAFETY: NULL or the caller's variable.
    let buf = unsafe { out(buf, ptr::null_mut()) };
    guard(|| {
        // SAFETY: NULL or arrays of `count`, says the header, and the values are nobody else's.
        let (values, value_lens) = unsafe {
            (out_array(values, count, ptr::null(), "values")?, out_array(value_lens, count, 0, "value_lens")?)
        };
        let buf = buf.ok_or_else(|| null("buf"))?;
        // SAFETY: NULL or an open handle, and NULL or arrays of `count`, says the header.
        let (store, keys, key_lens) =
            unsafe { (engine(store)?, array(keys, count, "keys")?, array(key_lens, count, "key_lens")?) };
        let mut described = Vec::new();
        described.try_reserve_exact(count).map_err(|_| Error::no_memory("many keys"))?;
        for (&key, &len) in keys.iter().zip(key_lens) {
            // SAFETY: a pointer with the length of what it points to, says the header.
            described.push(unsafe { key_bytes(key, len) }?);
        }
        let mut buffer = MallocBuf { data: ptr::null_mut() };
        let places = store.get_many(&described, &mut buffer)?;
        *buf = buffer.into_raw();
        for (number, place) in places.into_iter().enumerate() {
            if let Some(place) = place {
                values[number] = buf.wrapping_add(place.start).cast_const();
                value_lens[number] = place.len();
            }
        }
        Ok(kv_status::KV_OK)
    })
}

/// Whether there is a value for `key`, without reading it.
///
/// @return
/// - KV_OK: there is.
/// - KV_NOT_FOUND: there is none.
/// - KV_ERR_INVALID: `store` is NULL, or `key` is NULL with a length that is not 0.
/// - KV_ERR_TOO_LARGE: the key is longer than KV_MAX_KEY_LEN.
/// - KV_ERR_CORRUPT, KV_ERR_NO_MEMORY, KV_ERR_IO, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_exists(store: *mut kv_store, key: *const u8, key_len: usize) -> i32 {
    guard(|| {
        // SAFETY: NULL or an open handle, and a pointer with the length of what it points to, says the header.
        let (store, key) = unsafe { (engine(store)?, key_bytes(key, key_len)?) };
        Ok(if store.exists(key)? { kv_status::KV_OK } else { kv_status::KV_NOT_FOUND })
    })
}

/// Deletes `key` and its value. Durability is as for kv_set(). Deleting an absent key writes
/// nothing.
///
/// @return
/// - KV_OK: it was there, and is no more.
/// - KV_NOT_FOUND: it was not there.
/// - KV_ERR_INVALID: `store` is NULL, or `key` is NULL with a length that is not 0.
/// - KV_ERR_TOO_LARGE: the key is longer than KV_MAX_KEY_LEN.
/// - KV_ERR_NO_SPACE: works again once there is space. Deleting works longer than storing does, to
///   make some.
/// - KV_ERR_READ_ONLY, KV_ERR_POISONED: this handle takes no writes.
/// - KV_ERR_CORRUPT, KV_ERR_NO_MEMORY, KV_ERR_IO, KV_ERR_FORKED, KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_del(store: *mut kv_store, key: *const u8, key_len: usize) -> i32 {
    guard(|| {
        // SAFETY: NULL or an open handle, and a pointer with the length of what it points to, says the header.
        let (store, key) = unsafe { (engine(store)?, key_bytes(key, key_len)?) };
        Ok(if store.del(key)? { kv_status::KV_OK } else { kv_status::KV_NOT_FOUND })
    })
}

/// A value on its way to `kv_free_buf`. Freed on the way if the read fails.
struct MallocBuf {
    data: *mut u8,
}

impl MallocBuf {
    fn into_raw(mut self) -> *mut u8 {
        std::mem::replace(&mut self.data, ptr::null_mut())
    }
}

impl ValueBuf for MallocBuf {
    fn reserve(&mut self, len: usize) -> Result<&mut [MaybeUninit<u8>]> {
        let no_memory = || Error::no_memory(format!("a value of {len} bytes"));
        if isize::try_from(len).is_err() {
            return Err(no_memory());
        }
        // At least 1, because malloc(0) may be NULL, and an empty value is not.
        // SAFETY: malloc takes any size; what an earlier reserve may have left is not in use any more.
        let data = unsafe {
            libc::free(self.data.cast());
            libc::malloc(len.max(1)).cast::<u8>()
        };
        self.data = data;
        if data.is_null() {
            return Err(no_memory());
        }
        // SAFETY: `len` bytes from malloc, borrowed through self.
        Ok(unsafe { slice::from_raw_parts_mut(data.cast(), len) })
    }
}

impl Drop for MallocBuf {
    fn drop(&mut self) {
        // SAFETY: NULL or from malloc.
        unsafe { libc::free(self.data.cast()) };
    }
}

/// The caller's own buffer.
struct CallerBuf {
    data: *mut u8,
    cap: usize,
    too_small_for: Option<usize>,
}

impl ValueBuf for CallerBuf {
    fn reserve(&mut self, len: usize) -> Result<&mut [MaybeUninit<u8>]> {
        if len > self.cap {
            self.too_small_for = Some(len);
            let message = format!("the value has {len} bytes, the buffer {}", self.cap);
            return Err(Error::new(Code::BufferTooSmall, message));
        }
        if len == 0 {
            return Ok(&mut []);
        }
        // SAFETY: the caller vouches for `cap` writable bytes that do not overlap the key.
        Ok(unsafe { slice::from_raw_parts_mut(self.data.cast(), len) })
    }
}
