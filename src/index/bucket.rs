//! Six slots of a chunk. What tells whether an entry may be in one of them stands apart from the entries.
//!
//! The entries of a bucket are a cache line. A word beside them has a fingerprint of each, seven bits of its tag (as in Abseil's
//! "Swiss tables", Google 2017), and a count of the entries that would have liked to live here but had to go on to the next bucket
//! (as in F14, "Open-sourcing F14 for faster, more memory-efficient hash tables", Facebook 2019). Eight words share a line: those of a
//! million keys fit into the caches, and are all that has to be read to know that a key is absent.

use super::position::Position;

pub(super) const SLOTS: usize = 6;

// The parts of a tag, from its lowest bit up: bits that are not kept, the fingerprint, the middle, the highest bits.
const FINGERPRINT_BITS: u32 = 7;
const MIDDLE_BITS: u32 = 16;
const HIGH_BITS: u32 = 5;
const HIGH_AT: u32 = u32::BITS - HIGH_BITS;
const MIDDLE_AT: u32 = HIGH_AT - MIDDLE_BITS;
const FINGERPRINT_AT: u32 = MIDDLE_AT - FINGERPRINT_BITS;

/// The bits of a tag. The others are zero.
pub(super) const TAG_MASK: u32 = u32::MAX << FINGERPRINT_AT;

/// A byte for each slot: its top bit says that the slot is taken, the others are the fingerprint of its entry. Above them the
/// count of entries that have overflowed the bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(super) struct Word(u64);

/// A word in which each slot's byte is 1.
const EACH: u64 = 0x0101_0101_0101;
const TAKEN: u64 = EACH << FINGERPRINT_BITS;
const FINGERPRINTS: u64 = TAKEN - EACH;
const OVERFLOWED_AT: u32 = 8 * SLOTS as u32;
const MOST_OVERFLOWED: u64 = u64::MAX >> OVERFLOWED_AT;

impl Word {
    /// The slots whose entries have this tag's fingerprint. See [`slot_of`].
    #[inline]
    pub(super) fn matches(self, tag: u32) -> u64 {
        let different = self.0 ^ (EACH * byte_of(tag));
        // The top bit of a byte that is not zero is set, or becomes so by the addition, which carries into no other byte.
        !(different | ((different & FINGERPRINTS) + FINGERPRINTS)) & TAKEN
    }

    /// The slots that are empty. See [`slot_of`].
    #[inline]
    pub(super) fn free(self) -> u64 {
        !self.0 & TAKEN
    }

    /// Gives an empty slot to an entry with this tag.
    pub(super) fn take(&mut self, slot: usize, tag: u32) {
        self.0 |= byte_of(tag) << (8 * slot);
    }

    /// Takes the slot from its entry.
    pub(super) fn clear(&mut self, slot: usize) {
        self.0 &= !(0xff << (8 * slot));
    }

    #[inline]
    pub(super) fn overflowed(self) -> bool {
        self.0 >> OVERFLOWED_AT > 0
    }

    /// Counts an entry that goes on to the next bucket. Once there are more than there is room to count, the count stays as it is
    /// for ever: it is true then that a probe need not end here.
    pub(super) fn count_overflow(&mut self) {
        if self.0 >> OVERFLOWED_AT < MOST_OVERFLOWED {
            self.0 += 1 << OVERFLOWED_AT;
        }
    }

    /// Such an entry is gone.
    pub(super) fn uncount_overflow(&mut self) {
        if self.0 >> OVERFLOWED_AT < MOST_OVERFLOWED {
            self.0 -= 1 << OVERFLOWED_AT;
        }
    }

    fn fingerprint(self, slot: usize) -> u32 {
        (self.0 >> (8 * slot) & FINGERPRINTS & 0xff) as u32
    }
}

/// The byte of a slot whose entry has this tag.
#[inline]
fn byte_of(tag: u32) -> u64 {
    (tag >> FINGERPRINT_AT) as u64 & (FINGERPRINTS & 0xff) | TAKEN & 0xff
}

/// The first of some slots, of which each is the top bit of its byte.
#[inline]
pub(super) fn slot_of(slots: u64) -> usize {
    slots.trailing_zeros() as usize / 8
}

/// The entries: their positions, and what of their tags is not in the word. An empty slot has no position.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line {
    positions: [u64; SLOTS],
    middles: [u16; SLOTS],
    highs: u32,
}

impl Line {
    pub(super) fn set(&mut self, slot: usize, tag: u32, position: Position) {
        let (at, mask) = (HIGH_BITS * slot as u32, (1 << HIGH_BITS) - 1);
        self.positions[slot] = position.raw();
        self.middles[slot] = (tag >> MIDDLE_AT) as u16;
        self.highs = self.highs & !(mask << at) | (tag >> HIGH_AT) << at;
    }

    pub(super) fn clear(&mut self, slot: usize) {
        self.positions[slot] = 0;
    }

    /// Gives the slot's entry a new position.
    pub(super) fn move_to(&mut self, slot: usize, position: Position) {
        self.positions[slot] = position.raw();
    }

    #[inline]
    pub(super) fn position(&self, slot: usize) -> Option<Position> {
        Position::from_raw(self.positions[slot])
    }

    /// Whether the slot's entry, which has the fingerprint of this tag, has all of it.
    #[inline]
    pub(super) fn has(&self, slot: usize, tag: u32) -> bool {
        self.above_fingerprint(slot) == tag >> MIDDLE_AT
    }

    /// The tag of the slot's entry, of which the bucket's word has the fingerprint.
    pub(super) fn tag(&self, slot: usize, word: Word) -> u32 {
        self.above_fingerprint(slot) << MIDDLE_AT | word.fingerprint(slot) << FINGERPRINT_AT
    }

    #[inline]
    fn above_fingerprint(&self, slot: usize) -> u32 {
        let high = self.highs >> (HIGH_BITS * slot as u32) & ((1 << HIGH_BITS) - 1);
        high << MIDDLE_BITS | self.middles[slot] as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: Word = Word(0);

    fn slots(mut found: u64) -> Vec<usize> {
        std::iter::from_fn(|| {
            let slot = (found != 0).then(|| slot_of(found));
            found &= found.wrapping_sub(1);
            slot
        })
        .collect()
    }

    #[test]
    fn a_word_tells_the_slots_of_a_fingerprint_and_no_others() {
        for fingerprint in 0..128u32 {
            let (tag, other) = (fingerprint << FINGERPRINT_AT | 5 << MIDDLE_AT, (fingerprint ^ 1) << FINGERPRINT_AT);
            let mut word = EMPTY;
            assert_eq!((word.matches(tag), slots(word.free())), (0, (0..SLOTS).collect()));
            (0..SLOTS).for_each(|slot| word.take(slot, if slot % 2 == 0 { tag } else { other }));
            (0..3).for_each(|_| word.count_overflow());
            assert_eq!((slots(word.matches(tag)), slots(word.matches(other))), (vec![0, 2, 4], vec![1, 3, 5]));
            assert_eq!((word.free(), word.fingerprint(2)), (0, fingerprint));
            word.clear(2);
            assert_eq!((slots(word.matches(tag)), slots(word.free())), (vec![0, 4], vec![2]));
        }
    }

    #[test]
    fn overflows_beyond_what_can_be_counted_are_never_forgotten() {
        for (count, forgotten) in [(1, true), (MOST_OVERFLOWED - 1, true), (MOST_OVERFLOWED, false), (70_000, false)] {
            let mut word = EMPTY;
            word.take(5, TAG_MASK);
            let before = word;
            (0..count).for_each(|_| word.count_overflow());
            assert!(word.overflowed());
            (0..count).for_each(|_| word.uncount_overflow());
            assert_eq!((word == before, word.overflowed()), (forgotten, !forgotten));
        }
    }

    #[test]
    fn an_entry_keeps_its_whole_tag() {
        let tags = [0, 1, 2, 0x0aaa_aaaa, 0x0555_5555, 0x0fff_ffff].map(|tag| tag << FINGERPRINT_AT);
        let (mut word, mut line) = (EMPTY, Line { positions: [0; SLOTS], middles: [0; SLOTS], highs: 0 });
        for round in 0..SLOTS {
            for slot in 0..SLOTS {
                let tag = tags[(slot + round) % SLOTS];
                word.clear(slot);
                word.take(slot, tag);
                line.set(slot, tag, Position::new(slot as u32, 64, 50));
            }
            for slot in 0..SLOTS {
                let tag = tags[(slot + round) % SLOTS];
                assert_eq!((line.tag(slot, word), line.has(slot, tag)), (tag, true));
                assert!(!line.has(slot, tag ^ 1 << MIDDLE_AT) && !line.has(slot, tag ^ 1 << HIGH_AT));
                assert_eq!(line.position(slot).unwrap().slot() as usize, slot);
            }
        }
    }
}
