//! CRC32C of a frame. Most frames are short, and for those the way into the crate takes longer than the sum itself.

/// Frames longer than this gain by the crate's several sums side by side.
#[cfg(target_arch = "x86_64")]
const SHORT: usize = 512;

/// The CRC32C of these bytes.
#[inline]
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() <= SHORT && is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has the instructions.
        return unsafe { short(bytes) };
    }
    crc32c::crc32c(bytes)
}

/// Eight bytes at a time, wherever they lie.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn short(bytes: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64};
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(u32::MAX as u64, |sum, word| _mm_crc32_u64(sum, u64::from_le_bytes(*word)));
    let (half, rest) = rest.as_chunks::<4>();
    let sum = half.iter().fold(sum as u32, |sum, half| _mm_crc32_u32(sum, u32::from_le_bytes(*half)));
    !rest.iter().fold(sum, |sum, &byte| _mm_crc32_u8(sum, byte))
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn is_the_sum_of_the_crate_at_any_length_and_place() {
        let bytes: Vec<u8> = (0..2000u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 11) as u8).collect();
        for start in 0..9 {
            for len in (0..600).chain([1024, 1900]) {
                let piece = &bytes[start..start + len];
                assert_eq!(crc32c(piece), crc32c::crc32c(piece), "{len} bytes from {start}");
            }
        }
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
