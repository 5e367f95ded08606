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

/// As `prefetch`, for the record that begins there: one of a short key and a hundred bytes of value lies on three lines.
#[inline]
pub(crate) fn prefetch_record(first: *const u8) {
    (0..3).for_each(|line| prefetch(first.wrapping_add(64 * line)));
}
