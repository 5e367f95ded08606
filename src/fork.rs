//! Knowing whether this process is the one that opened a store, without a system call.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::error::{Code, Error, Result};

/// Counts the forks between the first process and this one.
static GENERATION: AtomicU32 = AtomicU32::new(0);

extern "C" fn forked() {
    GENERATION.fetch_add(1, Relaxed);
}

/// The process that opened a store.
#[derive(Clone, Copy)]
pub(crate) struct Birthplace(u32);

impl Birthplace {
    /// This process.
    pub(crate) fn here() -> Birthplace {
        static REGISTER: Once = Once::new();
        REGISTER.call_once(|| {
            // SAFETY: the handler only touches an atomic, which any thread may do right after a fork.
            unsafe { libc::pthread_atfork(None, None, Some(forked)) };
        });
        Birthplace(GENERATION.load(Relaxed))
    }

    /// An error in a child of that process.
    #[inline]
    pub(crate) fn check(self) -> Result<()> {
        if GENERATION.load(Relaxed) == self.0 { Ok(()) } else { Err(inherited()) }
    }
}

#[cold]
fn inherited() -> Error {
    Error::new(Code::Forked, "the store was opened by the parent of this process; open it anew after the fork")
}
