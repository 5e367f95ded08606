//! The version of the library, which may be newer than the header that a program was compiled with.

use std::ffi::c_char;

/// What kv_abi_version() returned when this header was made.
pub const KV_ABI_VERSION: u32 = 1;

/// The version of the library, such as "0.1.0": static text, never NULL. May be called from any
/// thread.
#[unsafe(no_mangle)]
pub extern "C" fn kv_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// A number that grows with every function, option, status code or structure field added, so that a
/// program can ask whether the library it runs with has what its header promises: it does if this
/// is at least KV_ABI_VERSION. Nothing is ever changed or taken away without a new name for the
/// shared library. May be called from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn kv_abi_version() -> u32 {
    KV_ABI_VERSION
}
