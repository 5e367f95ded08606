//! The boundary itself: what comes from C is checked here, and what must not reach C stops here.

use std::cell::Cell;
use std::ffi::{CStr, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Once;
use std::{alloc, slice, thread};

use super::error::{self, kv_status};
use crate::error::{Code, Error, Result};

/// Runs the body of a function that returns a status: errors and panics become codes with a message
/// for `kv_last_error`, and `errno` stays what it was.
pub(super) fn guard(body: impl FnOnce() -> Result<kv_status>) -> i32 {
    silence_panics();
    let outcome = preserve_errno(|| {
        let _inside = Inside::enter();
        panic::catch_unwind(AssertUnwindSafe(body))
    });
    match outcome {
        Ok(Ok(status)) => status as i32,
        Ok(Err(error)) => error::remember(&error),
        // The panic hook has left the message.
        Err(_) => Code::Internal as i32,
    }
}

/// Runs `body` and puts `errno` back.
pub(super) fn preserve_errno<T>(body: impl FnOnce() -> T) -> T {
    #[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
    use libc::__errno as location;
    #[cfg(any(target_os = "linux", target_os = "emscripten", target_os = "redox", target_os = "hurd"))]
    use libc::__errno_location as location;
    #[cfg(any(target_vendor = "apple", target_os = "freebsd", target_os = "dragonfly"))]
    use libc::__error as location;

    // SAFETY: the C library returns a pointer to this thread's errno, valid for as long as the thread runs.
    let (errno, before) = unsafe { (location(), *location()) };
    let result = body();
    // SAFETY: as above.
    unsafe { *errno = before };
    result
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Marks the thread as being inside a guarded function for as long as it lives. It may have been before: callbacks call
/// functions.
struct Inside(bool);

impl Inside {
    fn enter() -> Inside {
        Inside(INSIDE.replace(true))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(self.0);
    }
}

/// Keeps Rust from printing the panics that `guard` catches and those of the store's own threads,
/// which are named for it. Other panics, those of a Rust program that this library is linked into,
/// are left to the hook before.
fn silence_panics() {
    static ONCE: Once = Once::new();
    if thread::panicking() {
        // A Rust program that cleans up. The hook cannot be changed now, the next call will do it.
        return;
    }
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if INSIDE.get() {
                error::remember(&Error::new(Code::Internal, format!("internal error: {info}")));
            } else if !thread::current().name().is_some_and(|name| name.starts_with("kvstore")) {
                previous(info);
            }
        }));
    });
}

/// The bytes that the caller describes by a pointer and a length.
///
/// # Safety
/// `data` is NULL or points to `len` readable bytes that do not change for `'a`, unless `len`
/// exceeds `limit`.
pub(super) unsafe fn bytes<'a>(data: *const u8, len: usize, limit: usize, what: &str) -> Result<&'a [u8]> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(null_with_length(what, len));
    }
    if len > limit {
        return Err(too_long(what, len, limit));
    }
    // SAFETY: not NULL, and readable by this function's contract.
    Ok(unsafe { slice::from_raw_parts(data, len) })
}

#[cold]
fn null_with_length(what: &str, len: usize) -> Error {
    invalid(format!("the {what} is NULL, its length {len}"))
}

#[cold]
fn too_long(what: &str, len: usize, limit: usize) -> Error {
    Error::new(Code::TooLarge, format!("the {what} has {len} bytes, the limit is {limit}"))
}

/// A path that the caller gives as a NUL-terminated string.
///
/// # Safety
/// `path` is NULL or NUL-terminated, and does not change for `'a`.
pub(super) unsafe fn path<'a>(path: *const c_char, what: &str) -> Result<&'a Path> {
    if path.is_null() {
        return Err(null(what));
    }
    // SAFETY: not NULL, and NUL-terminated by this function's contract.
    let path = unsafe { CStr::from_ptr(path) };
    if path.is_empty() {
        return Err(invalid(format!("{what} is empty")));
    }
    Ok(Path::new(OsStr::from_bytes(path.to_bytes())))
}

/// What a pointer to one object points to.
///
/// # Safety
/// `pointer` is NULL or points to a valid `T` that lives, and is not written to, for `'a`.
pub(super) unsafe fn object<'a, T>(pointer: *const T, what: &str) -> Result<&'a T> {
    // SAFETY: by this function's contract.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(what))
}

/// As [`object`], for the one user of an object.
///
/// # Safety
/// `pointer` is NULL or points to a valid `T` that nobody else uses for `'a`.
pub(super) unsafe fn object_mut<'a, T>(pointer: *mut T, what: &str) -> Result<&'a mut T> {
    // SAFETY: by this function's contract.
    unsafe { pointer.as_mut() }.ok_or_else(|| null(what))
}

/// An out-parameter, set to `zero` at once unless it is NULL.
///
/// # Safety
/// `pointer` is NULL or points to a writable `T`, initialized or not, that nobody else uses for
/// `'a`.
pub(super) unsafe fn out<'a, T>(pointer: *mut T, zero: T) -> Option<&'a mut T> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: not NULL, writable by this function's contract, and initialized before there is a reference to it.
    unsafe {
        pointer.write(zero);
        Some(&mut *pointer)
    }
}

/// The elements of a caller's array.
///
/// # Safety
/// `pointer` is NULL or points to `count` valid elements that do not change for `'a`.
pub(super) unsafe fn array<'a, T>(pointer: *const T, count: usize, what: &str) -> Result<&'a [T]> {
    check_array(pointer, count, what)?;
    // SAFETY: `count` elements by this function's contract; an empty one needs no memory.
    Ok(if count == 0 { &[] } else { unsafe { slice::from_raw_parts(pointer, count) } })
}

/// A caller's array of results, all set to `zero` at once.
///
/// # Safety
/// `pointer` is NULL or points to `count` writable elements, initialized or not, that nobody else uses for `'a`.
pub(super) unsafe fn out_array<'a, T: Copy>(pointer: *mut T, count: usize, zero: T, what: &str) -> Result<&'a mut [T]> {
    check_array(pointer, count, what)?;
    if count == 0 {
        return Ok(&mut []);
    }
    // SAFETY: `count` writable elements by this function's contract, initialized before there is a reference to them.
    unsafe {
        (0..count).for_each(|at| pointer.add(at).write(zero));
        Ok(slice::from_raw_parts_mut(pointer, count))
    }
}

fn check_array<T>(pointer: *const T, count: usize, what: &str) -> Result<()> {
    if pointer.is_null() && count > 0 {
        return Err(null(what));
    }
    match count.checked_mul(size_of::<T>()) {
        Some(len) if isize::try_from(len).is_ok() => Ok(()),
        _ => Err(invalid(format!("{what} cannot have {count} elements"))),
    }
}

/// The error for a NULL where there must be something.
#[cold]
pub(super) fn null(what: &str) -> Error {
    invalid(format!("{what} is NULL"))
}

/// The error for an argument that is not acceptable.
#[cold]
pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::Invalid, message)
}

/// `Box::new` that reports an exhausted memory, where that aborts.
pub(super) fn try_box<T>(value: T, what: &str) -> Result<Box<T>> {
    let layout = alloc::Layout::new::<T>();
    assert_ne!(layout.size(), 0);
    // SAFETY: the layout is not empty.
    let place = unsafe { alloc::alloc(layout) }.cast::<T>();
    if place.is_null() {
        return Err(Error::no_memory(what));
    }
    // SAFETY: `place` is fresh from the global allocator, with the layout that a Box of T has.
    unsafe {
        place.write(value);
        Ok(Box::from_raw(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_code_and_a_message() {
        let status = guard(|| panic!("on purpose"));
        assert_eq!(status, Code::Internal as i32);
        let message = error::tests::last_error();
        assert!(message.contains("on purpose") && message.contains("guard.rs"), "{message}");
        assert!(!INSIDE.get());
        guard(|| {
            guard(|| panic!("on purpose"));
            assert!(INSIDE.get(), "a call from a callback is over, this one is not");
            Ok(kv_status::KV_OK)
        });
        assert!(!INSIDE.get());
    }

    #[test]
    fn errno_stays() {
        let status = guard(|| {
            let missing = std::fs::metadata("/nonexistent").unwrap_err();
            Err(Error::os("look", &missing))
        });
        assert_eq!(status, Code::Io as i32);
        let before = std::io::Error::last_os_error().raw_os_error();
        guard(|| std::fs::metadata("/proc/self/mem/x").map_or(Ok(kv_status::KV_OK), |_| Ok(kv_status::KV_DONE)));
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), before);
    }

    #[test]
    fn null_is_the_empty_string_only_with_length_zero() {
        // SAFETY: NULL is allowed by the contract.
        unsafe {
            assert_eq!(bytes(std::ptr::null(), 0, 10, "key").unwrap(), b"");
            assert_eq!(bytes(std::ptr::null(), 1, 10, "key").unwrap_err().code(), Code::Invalid);
        }
    }

    #[test]
    fn a_length_over_the_limit_is_never_read() {
        // SAFETY: a length over the limit need not be readable.
        let error = unsafe { bytes(b"x".as_ptr(), usize::MAX, 10, "key") }.unwrap_err();
        assert_eq!(error.code(), Code::TooLarge);
    }
}
