//! Where a record is, packed into eight bytes.

/// A record's place: the slot of its segment, its offset there, and about how long it is.
///
/// Bits 44..64 are the slot, 8..44 the offset, 0..8 the size class. No record is at offset 0 (a header is
/// there), so zero is never a position: the table uses it for an empty slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position(u64);

const SLOT_BITS: u32 = 20;
const CLASS_BITS: u32 = 8;
const OFFSET_BITS: u32 = 64 - SLOT_BITS - CLASS_BITS;

/// So many segments can be live at once.
pub(crate) const MAX_SLOTS: usize = 1 << SLOT_BITS;

impl Position {
    /// No record ends behind this offset.
    pub(crate) const MAX_END: u64 = 1 << OFFSET_BITS;

    #[inline]
    pub(crate) fn new(slot: u32, offset: u64, len: u64) -> Position {
        debug_assert!((slot as usize) < MAX_SLOTS && offset > 0 && offset < 1 << OFFSET_BITS);
        Position((slot as u64) << (OFFSET_BITS + CLASS_BITS) | offset << CLASS_BITS | size_class(len))
    }

    #[inline]
    pub(crate) fn from_raw(raw: u64) -> Option<Position> {
        (raw != 0).then_some(Position(raw))
    }

    #[inline]
    pub(crate) fn raw(self) -> u64 {
        self.0
    }

    #[inline]
    pub(crate) fn slot(self) -> u32 {
        (self.0 >> (OFFSET_BITS + CLASS_BITS)) as u32
    }

    #[inline]
    pub(crate) fn offset(self) -> u64 {
        self.0 >> CLASS_BITS & ((1 << OFFSET_BITS) - 1)
    }

    /// At least the record's length, at most an eighth more: so much is read at once.
    #[inline]
    pub(crate) fn len_bound(self) -> u64 {
        let (exponent, mantissa) = (self.0 >> 3 & 31, self.0 & 7);
        if exponent == 0 { mantissa } else { (8 + mantissa) << (exponent - 1) }
    }
}

/// A length as a float of three bits of mantissa, rounded up.
#[inline]
fn size_class(len: u64) -> u64 {
    if len < 8 {
        return len;
    }
    let shift = 60 - len.leading_zeros() as u64;
    let mantissa = len.div_ceil(1 << shift) - 8;
    // Rounding up may carry into the exponent, which is just what a float does.
    ((shift + 1) << 3) + mantissa
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        for (slot, offset) in [(0, 64), (1, 65), (MAX_SLOTS as u32 - 1, (1 << OFFSET_BITS) - 1)] {
            let position = Position::new(slot, offset, 153);
            assert_eq!((position.slot(), position.offset()), (slot, offset));
        }
    }

    #[test]
    fn the_length_bound_is_tight() {
        let lens = (1..5000).chain((12..33).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + 1]));
        for len in lens.chain([(1 << 32) + 70_000]) {
            let bound = Position::new(0, 64, len).len_bound();
            assert!(bound >= len && bound <= len + len / 8 + 1, "{len} -> {bound}");
        }
    }
}
