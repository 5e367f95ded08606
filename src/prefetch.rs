//! Asking for memory before it is needed, so that the waiting for several places overlaps.

/// Brings the cache line at an address near, if the processor can. Changes nothing.
#[inline]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint that changes nothing and cannot fault, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Behind these the processor has noticed by itself that the bytes are read one after the other.
const MOST: usize = 2 << 10;

/// As `prefetch`, for the lines on which the first of `len` bytes lie.
#[inline]
pub(crate) fn prefetch_bytes(first: *const u8, len: u64) {
    let line = first.wrapping_sub(first.addr() % 64);
    let len = len.min(MOST as u64) as usize + first.addr() % 64;
    (0..len).step_by(64).for_each(|at| prefetch(line.wrapping_add(at)));
}
