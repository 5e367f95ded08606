//! Status codes and messages.

use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::slice;

use super::guard::preserve_errno;
use crate::error::Error;

/// What functions return, as an int32_t. The numbers are stable for ever and never used twice.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum kv_status {
    /// Done, found, present.
    KV_OK = 0,
    /// There is no such key.
    KV_NOT_FOUND = 1,
    /// Nothing is left to do.
    KV_DONE = 2,
    /// A condition does not hold. Nothing has changed.
    KV_CONFLICT = 3,
    /// An argument is not acceptable: a NULL pointer, an unknown option, a value out of range.
    KV_ERR_INVALID = -1,
    /// The operating system reported an error.
    KV_ERR_IO = -2,
    /// The disk, a quota or a file size limit is exhausted. The call changed nothing; it can be
    /// repeated once there is space.
    KV_ERR_NO_SPACE = -3,
    /// Memory is exhausted. The call changed nothing.
    KV_ERR_NO_MEMORY = -4,
    /// Another handle, in this process or another, has the database open.
    KV_ERR_LOCKED = -5,
    /// The store is still in use by objects made from it.
    KV_ERR_BUSY = -6,
    /// Stored data is damaged.
    KV_ERR_CORRUPT = -7,
    /// The database uses a format that this version does not know.
    KV_ERR_FORMAT = -8,
    /// A key, a value or a batch is over its limit.
    KV_ERR_TOO_LARGE = -9,
    /// The caller's buffer cannot hold the value.
    KV_ERR_BUFFER_TOO_SMALL = -10,
    /// The path holds something that is not a database, or nothing where one was demanded.
    KV_ERR_NOT_A_DATABASE = -11,
    /// There is a database where there should be none.
    KV_ERR_EXISTS = -12,
    /// The handle was opened for reading only.
    KV_ERR_READ_ONLY = -13,
    /// A sync failed, now or earlier, so what reached the disk is unknown: the handle takes no more
    /// writes. Reads go on; close and open again to write.
    KV_ERR_POISONED = -14,
    /// The handle belongs to the parent of this forked process.
    KV_ERR_FORKED = -15,
    /// The caller's callback asked to stop.
    KV_ERR_CANCELLED = -16,
    /// A bug in the library, caught.
    KV_ERR_INTERNAL = -17,
}

/// The static texts of `kv_strerror`.
const TEXTS: [(kv_status, &CStr); 21] = [
    (kv_status::KV_OK, c"success"),
    (kv_status::KV_NOT_FOUND, c"key not found"),
    (kv_status::KV_DONE, c"nothing left to do"),
    (kv_status::KV_CONFLICT, c"a condition does not hold"),
    (kv_status::KV_ERR_INVALID, c"invalid argument"),
    (kv_status::KV_ERR_IO, c"input/output error"),
    (kv_status::KV_ERR_NO_SPACE, c"no space left on the device"),
    (kv_status::KV_ERR_NO_MEMORY, c"out of memory"),
    (kv_status::KV_ERR_LOCKED, c"database is open elsewhere"),
    (kv_status::KV_ERR_BUSY, c"store is still in use"),
    (kv_status::KV_ERR_CORRUPT, c"stored data is damaged"),
    (kv_status::KV_ERR_FORMAT, c"unknown database format"),
    (kv_status::KV_ERR_TOO_LARGE, c"key, value or batch too large"),
    (kv_status::KV_ERR_BUFFER_TOO_SMALL, c"buffer too small"),
    (kv_status::KV_ERR_NOT_A_DATABASE, c"not a database"),
    (kv_status::KV_ERR_EXISTS, c"database exists"),
    (kv_status::KV_ERR_READ_ONLY, c"opened read-only"),
    (kv_status::KV_ERR_POISONED, c"an earlier sync failed, reopen to write"),
    (kv_status::KV_ERR_FORKED, c"handle inherited from the parent process"),
    (kv_status::KV_ERR_CANCELLED, c"cancelled"),
    (kv_status::KV_ERR_INTERNAL, c"internal error"),
];

/// What a status code means, in a few words.
///
/// Never NULL; an unknown code has a text too. The text is static: it needs no free and stays valid
/// for the life of the process. May be called from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn kv_strerror(code: i32) -> *const c_char {
    let known = TEXTS.iter().find(|(status, _)| *status as i32 == code);
    known.map_or(c"unknown status code", |(_, text)| text).as_ptr()
}

/// Copies the message of the last call that failed in the calling thread: what was done, to which
/// file, at which offset, and what the operating system said. Calls that do not fail leave it as it
/// is; before the first failure it is empty.
///
/// As snprintf(): at most `cap` bytes are written, the terminating NUL included (there always is
/// one if `cap` is not 0), and the return value is the length of the whole message without the NUL,
/// so that a return value of `cap` or more means that it was cut. The text is UTF-8 and is cut
/// between characters. `buf` may be NULL to ask for the length. May be called from any thread; each
/// has its own message.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_last_error(buf: *mut c_char, cap: usize) -> usize {
    preserve_errno(|| {
        // A thread that is ending may have dropped its message already.
        let message = LAST.try_with(Cell::take).unwrap_or_default();
        if !buf.is_null() && cap > 0 {
            let mut len = message.len().min(cap - 1);
            while !message.is_char_boundary(len) {
                len -= 1;
            }
            // SAFETY: the caller vouches for `cap` writable bytes, and len + 1 <= cap. Written before they are read.
            let target = unsafe {
                buf.write_bytes(0, len + 1);
                slice::from_raw_parts_mut(buf.cast::<u8>(), len)
            };
            target.copy_from_slice(&message.as_bytes()[..len]);
        }
        let len = message.len();
        let _ = LAST.try_with(|last| last.set(message));
        len
    })
}

thread_local! {
    static LAST: Cell<String> = const { Cell::new(String::new()) };
}

/// Keeps the message for `kv_last_error` and returns the code.
#[cold]
pub(super) fn remember(error: &Error) -> i32 {
    // A NUL would end the message early in C.
    let message = error.message().replace('\0', "\u{fffd}");
    let _ = LAST.try_with(|last| last.set(message));
    error.code() as i32
}

/// The codes of C and those of the engine are the same numbers.
const _: () = {
    use crate::error::Code;
    assert!(kv_status::KV_ERR_INVALID as i32 == Code::Invalid as i32);
    assert!(kv_status::KV_ERR_IO as i32 == Code::Io as i32);
    assert!(kv_status::KV_ERR_NO_SPACE as i32 == Code::NoSpace as i32);
    assert!(kv_status::KV_ERR_NO_MEMORY as i32 == Code::NoMemory as i32);
    assert!(kv_status::KV_ERR_LOCKED as i32 == Code::Locked as i32);
    assert!(kv_status::KV_ERR_BUSY as i32 == Code::Busy as i32);
    assert!(kv_status::KV_ERR_CORRUPT as i32 == Code::Corrupt as i32);
    assert!(kv_status::KV_ERR_FORMAT as i32 == Code::Format as i32);
    assert!(kv_status::KV_ERR_TOO_LARGE as i32 == Code::TooLarge as i32);
    assert!(kv_status::KV_ERR_BUFFER_TOO_SMALL as i32 == Code::BufferTooSmall as i32);
    assert!(kv_status::KV_ERR_NOT_A_DATABASE as i32 == Code::NotADatabase as i32);
    assert!(kv_status::KV_ERR_EXISTS as i32 == Code::Exists as i32);
    assert!(kv_status::KV_ERR_READ_ONLY as i32 == Code::ReadOnly as i32);
    assert!(kv_status::KV_ERR_POISONED as i32 == Code::Poisoned as i32);
    assert!(kv_status::KV_ERR_FORKED as i32 == Code::Forked as i32);
    assert!(kv_status::KV_ERR_CANCELLED as i32 == Code::Cancelled as i32);
    assert!(kv_status::KV_ERR_INTERNAL as i32 == Code::Internal as i32);
};

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::error::Code;

    /// This thread's message, asked for as C would.
    pub(in crate::ffi) fn last_error() -> String {
        let mut buffer = [0x7f_u8; 4096];
        // SAFETY: the buffer has the capacity that it is said to have.
        let len = unsafe { kv_last_error(buffer.as_mut_ptr().cast(), buffer.len()) };
        assert_eq!(buffer[len], 0);
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    #[test]
    fn every_code_has_its_own_text() {
        let mut texts: Vec<_> = TEXTS.iter().map(|(_, text)| text).collect();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), TEXTS.len());
        for code in [i32::MIN, -18, 4, i32::MAX] {
            // SAFETY: kv_strerror returns a static C string.
            let text = unsafe { CStr::from_ptr(kv_strerror(code)) };
            assert_eq!(text, c"unknown status code");
        }
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        remember(&Error::new(Code::Io, "aä\0€"));
        assert_eq!(last_error(), "aä\u{fffd}€");
        for (cap, expected) in [(1, ""), (2, "a"), (3, "a"), (4, "aä"), (9, "aä\u{fffd}"), (10, "aä\u{fffd}€")] {
            let mut buffer = [0x7f_u8; 16];
            // SAFETY: the capacity is not over the buffer's.
            let len = unsafe { kv_last_error(buffer.as_mut_ptr().cast(), cap) };
            assert_eq!(len, 9);
            assert_eq!(&buffer[..expected.len()], expected.as_bytes());
            assert_eq!(buffer[expected.len()], 0);
            assert!(buffer[cap..].iter().all(|byte| *byte == 0x7f));
        }
        // SAFETY: NULL asks for the length only.
        assert_eq!(unsafe { kv_last_error(std::ptr::null_mut(), 100) }, 9);
    }
}
