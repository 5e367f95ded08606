//! A small hash table of at most 64 KiB: the unit in which the index grows and is copied.
//!
//! The words of its buckets stand together, and the entries of each on a line of its own: see [`super::bucket`]. A probe
//! ends at the first bucket that nobody overflowed, so nearly every one reads one word, and one line if the key is present, and
//! removal leaves no marks.
//!
//! A bucket is chosen by the bits of the tag below those that all entries of the chunk have in common: entries in the order of
//! their tags are in the order of memory.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::*};

use super::arena::Arena;
use super::bucket::{Line, SLOTS, Word, slot_of};
use super::position::Position;
use crate::error::{Error, Result};
use crate::prefetch::prefetch;

/// The most buckets of a chunk that can still be split.
pub(crate) const MAX_BUCKETS: u32 = 894;

/// What stands before the words.
#[repr(C)]
struct Prelude {
    /// How many chunks have this memory.
    references: AtomicU32,
    /// Where it comes from.
    arena: Arc<Arena>,
}

/// A chunk. What a probe or a change has to know is here, and not where the buckets are.
pub(crate) struct Chunk {
    prelude: NonNull<Prelude>,
    lines: NonNull<Line>,
    buckets: u32,
    entries: u32,
    /// How many of the tag's top bits all entries have in common.
    depth: u32,
    /// Another chunk may have the same memory.
    shared: bool,
}

// SAFETY: the memory is only changed through the `&mut Chunk` of the one that has it alone, and freed by whoever drops the last
// reference; the count itself is atomic, and the arena may be used by any thread.
unsafe impl Send for Chunk {}
// SAFETY: as above: shared access only reads.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// An empty chunk.
    #[inline(never)]
    pub(crate) fn new(arena: &Arc<Arena>, buckets: u32, depth: u32) -> Result<Chunk> {
        let no_memory = || Error::no_memory("the index");
        let words = arena.words.allocate(words_layout(buckets)).ok_or_else(no_memory)?;
        let Some(lines) = arena.lines.allocate(lines_layout(buckets)) else {
            // SAFETY: it has just come from there with this layout.
            unsafe { arena.words.release(words, words_layout(buckets)) };
            return Err(no_memory());
        };
        let prelude = words.cast::<Prelude>();
        // SAFETY: freshly allocated with the alignment and at least the size of a prelude; all-zero words and lines are
        // empty buckets.
        unsafe { prelude.write(Prelude { references: AtomicU32::new(1), arena: Arc::clone(arena) }) };
        Ok(Chunk { prelude, lines: lines.cast(), buckets, entries: 0, depth, shared: false })
    }

    /// A chunk of these entries, as large as it would be had it grown with them.
    pub(crate) fn filled(arena: &Arc<Arena>, depth: u32, entries: &[(u32, Position)]) -> Result<Chunk> {
        let mut buckets = 1;
        while entries.len() > most_entries(buckets) {
            buckets = next_size(buckets);
        }
        let mut chunk = Chunk::new(arena, buckets, depth)?;
        entries.iter().for_each(|&(tag, position)| chunk.insert(tag, position));
        Ok(chunk)
    }

    /// Another chunk with the same memory. Only that one is to be changed from now on, which has it copied before: this one stays
    /// with those who have taken a view.
    pub(super) fn share(&self) -> Chunk {
        self.prelude().references.fetch_add(1, Relaxed);
        Chunk { shared: true, ..*self }
    }

    /// Makes the memory this chunk's own, copying it if another has it, too.
    pub(super) fn unshare(&mut self) -> Result<()> {
        if !self.shared || self.prelude().references.load(Acquire) == 1 {
            self.shared = false;
            return Ok(());
        }
        let mut copy = Chunk::new(self.arena(), self.buckets, self.depth)?;
        let (words, lines) = copy.buckets_mut();
        words.copy_from_slice(self.words());
        lines.copy_from_slice(self.lines());
        copy.entries = self.entries;
        *self = copy;
        Ok(())
    }

    /// Where its memory comes from.
    pub(crate) fn arena(&self) -> &Arc<Arena> {
        &self.prelude().arena
    }

    pub(crate) fn depth(&self) -> u32 {
        self.depth
    }

    /// Bytes of memory that the chunk takes.
    pub(crate) fn bytes(&self) -> usize {
        words_layout(self.buckets).size() + lines_layout(self.buckets).size()
    }

    /// Whether one more entry would make probes long.
    pub(crate) fn full(&self) -> bool {
        self.entries as usize >= most_entries(self.buckets)
    }

    /// Whether it has grown as large as a chunk should, so that it is time to split it.
    pub(crate) fn largest(&self) -> bool {
        self.buckets >= MAX_BUCKETS
    }

    /// The positions of all entries with this tag.
    #[inline]
    pub(crate) fn candidates(&self, tag: u32) -> Candidates<'_> {
        let (words, lines) = (self.words(), self.lines());
        let at = self.home(tag);
        Candidates { word: words[at], matches: words[at].matches(tag), words, lines, at, left: words.len() - 1, tag }
    }

    /// Asks for what a probe for this tag reads first.
    pub(crate) fn prefetch(&self, tag: u32) {
        let at = self.home(tag);
        prefetch(&self.words()[at]);
        prefetch(&self.lines()[at]);
    }

    /// Adds an entry. There must be room: see [`Chunk::full`].
    pub(crate) fn insert(&mut self, tag: u32, position: Position) {
        let mut at = self.home(tag);
        let (words, lines) = self.buckets_mut();
        while words[at].free() == 0 {
            words[at].count_overflow();
            at = next(at, words.len());
        }
        let slot = slot_of(words[at].free());
        words[at].take(slot, tag);
        lines[at].set(slot, tag, position);
        self.entries += 1;
    }

    /// Gives the entry at `old` a new position; false if there is no such entry.
    pub(crate) fn replace(&mut self, tag: u32, old: Position, new: Position) -> bool {
        match self.find_slot(tag, old) {
            Some((at, slot)) => self.buckets_mut().1[at].move_to(slot, new),
            None => return false,
        }
        true
    }

    /// Removes the entry at `position`; false if there is no such entry.
    pub(crate) fn remove(&mut self, tag: u32, position: Position) -> bool {
        let Some((found, slot)) = self.find_slot(tag, position) else {
            return false;
        };
        let mut at = self.home(tag);
        let (words, lines) = self.buckets_mut();
        words[found].clear(slot);
        lines[found].clear(slot);
        while at != found {
            words[at].uncount_overflow();
            at = next(at, words.len());
        }
        self.entries -= 1;
        true
    }

    /// A larger chunk with the same entries.
    pub(crate) fn grown(&self) -> Result<Chunk> {
        let mut larger = Chunk::new(self.arena(), next_size(self.buckets), self.depth)?;
        self.for_each(|tag, position| larger.insert(tag, position));
        Ok(larger)
    }

    /// Two chunks that share out the entries by the next bit of their tags.
    pub(crate) fn split(&self) -> Result<(Chunk, Chunk)> {
        let depth = self.depth + 1;
        let bit = 1 << (u32::BITS - depth);
        let mut ones = 0;
        self.for_each(|tag, _| ones += (tag & bit != 0) as u32);
        let size_for = |entries: u32| {
            let mut size = 1;
            while (entries + 1) * 3 > size * SLOTS as u32 * 2 {
                size = next_size(size);
            }
            size
        };
        let half = |entries| Chunk::new(self.arena(), size_for(entries), depth);
        let mut halves = [half(self.entries - ones)?, half(ones)?];
        self.for_each(|tag, position| halves[(tag & bit != 0) as usize].insert(tag, position));
        Ok(halves.into())
    }

    pub(crate) fn for_each(&self, mut visit: impl FnMut(u32, Position)) {
        for (word, line) in self.words().iter().zip(self.lines()) {
            for slot in 0..SLOTS {
                if let Some(position) = line.position(slot) {
                    visit(line.tag(slot, *word), position);
                }
            }
        }
    }

    fn find_slot(&self, tag: u32, position: Position) -> Option<(usize, usize)> {
        let (words, lines) = (self.words(), self.lines());
        let mut at = self.home(tag);
        for _ in 0..words.len() {
            let mut matches = words[at].matches(tag);
            while matches != 0 {
                let slot = slot_of(matches);
                if lines[at].position(slot) == Some(position) {
                    return Some((at, slot));
                }
                matches &= matches - 1;
            }
            if !words[at].overflowed() {
                break;
            }
            at = next(at, words.len());
        }
        None
    }

    /// The bucket where the probe for a tag starts.
    #[inline]
    fn home(&self, tag: u32) -> usize {
        (((tag << self.depth) as u64 * self.buckets as u64) >> u32::BITS) as usize
    }

    fn prelude(&self) -> &Prelude {
        // SAFETY: points to a live prelude for as long as this reference exists.
        unsafe { self.prelude.as_ref() }
    }

    #[inline]
    fn words_ptr(&self) -> *mut Word {
        // SAFETY: the words follow the prelude in the same allocation; its size keeps them aligned.
        unsafe { self.prelude.as_ptr().add(1).cast() }
    }

    #[inline]
    fn words(&self) -> &[Word] {
        // SAFETY: so many were allocated and zeroed, and while this reference is shared nobody changes them.
        unsafe { std::slice::from_raw_parts(self.words_ptr(), self.buckets as usize) }
    }

    #[inline]
    fn lines(&self) -> &[Line] {
        // SAFETY: as `words`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr(), self.buckets as usize) }
    }

    fn buckets_mut(&mut self) -> (&mut [Word], &mut [Line]) {
        debug_assert_eq!(self.prelude().references.load(Relaxed), 1, "only memory that is not shared is changed");
        let (words, lines, count) = (self.words_ptr(), self.lines.as_ptr(), self.buckets as usize);
        // SAFETY: as `words` and `lines`, which lie apart, and exclusive: what is shared is not changed before `unshare`.
        unsafe { (std::slice::from_raw_parts_mut(words, count), std::slice::from_raw_parts_mut(lines, count)) }
    }
}

impl Drop for Chunk {
    #[inline(never)]
    fn drop(&mut self) {
        if self.prelude().references.fetch_sub(1, Release) == 1 {
            // A load rather than a fence, of which ThreadSanitizer knows nothing.
            self.prelude().references.load(Acquire);
            // SAFETY: this was the last reference, so neither is ever used again; both were allocated in the arena, whose
            // handle is taken out of the prelude before, with these very layouts.
            unsafe {
                let arena = self.prelude.read().arena;
                arena.words.release(self.prelude.cast(), words_layout(self.buckets));
                arena.lines.release(self.lines.cast(), lines_layout(self.buckets));
            }
        }
    }
}

/// The entries with one tag. See [`Chunk::candidates`].
pub(crate) struct Candidates<'a> {
    word: Word,
    /// The slots of the bucket that have not been looked at.
    matches: u64,
    words: &'a [Word],
    lines: &'a [Line],
    at: usize,
    /// So many buckets have not been looked at.
    left: usize,
    tag: u32,
}

impl Candidates<'_> {
    /// Goes on to the next bucket. False if none has been missed.
    #[inline]
    fn overflow(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.at = next(self.at, self.words.len());
        self.word = self.words[self.at];
        self.matches = self.word.matches(self.tag);
        true
    }
}

impl Iterator for Candidates<'_> {
    type Item = Position;

    #[inline]
    fn next(&mut self) -> Option<Position> {
        loop {
            while self.matches != 0 {
                let (slot, line) = (slot_of(self.matches), &self.lines[self.at]);
                self.matches &= self.matches - 1;
                if line.has(slot, self.tag) {
                    return line.position(slot);
                }
            }
            if !self.word.overflowed() || !self.overflow() {
                return None;
            }
        }
    }
}

#[inline]
fn next(at: usize, buckets: usize) -> usize {
    if at + 1 == buckets { 0 } else { at + 1 }
}

/// The next larger number of buckets. Sizes step up by a half or a third, and by 128 from 254 on, so that little memory lies idle.
/// From there on, until chunks can be split no more, the words with what stands before them take whole units of the arena, and the
/// lines all but two lines.
fn next_size(buckets: u32) -> u32 {
    match buckets {
        n if n >= MAX_BUCKETS => n * 2,
        n if n >= 254 => n + 128,
        192 => 254,
        1 => 2,
        n if n.is_power_of_two() => n + n / 2,
        n => n / 3 * 4,
    }
}

/// With more entries probes would be long.
#[inline]
pub(crate) const fn most_entries(buckets: u32) -> usize {
    buckets as usize * SLOTS * 3 / 4
}

fn words_layout(buckets: u32) -> Layout {
    layout(size_of::<Prelude>() + buckets as usize * size_of::<Word>())
}

fn lines_layout(buckets: u32) -> Layout {
    layout(buckets as usize * size_of::<Line>())
}

/// So many bytes, from the start of a cache line on.
fn layout(size: usize) -> Layout {
    // SAFETY: the alignment is a power of two, and even 2^32 buckets do not overflow the size.
    unsafe { Layout::from_size_align_unchecked(size, align_of::<Line>()) }
}

#[cfg(test)]
mod tests {
    use super::super::bucket::TAG_MASK;
    use super::*;
    use std::collections::HashMap;

    fn position(n: u64) -> Position {
        Position::new(0, n + 64, 50)
    }

    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[test]
    fn behaves_like_a_map_through_growth_and_splits() {
        for mask in [u32::MAX, 0xffff_0030, 0x8000_0010] {
            let mut seed = mask as u64;
            let mut chunks = [Chunk::new(&Arc::default(), 1, 0).unwrap()];
            let mut model: HashMap<u64, u32> = HashMap::new();
            for step in 0..20_000u64 {
                let r = random(&mut seed);
                let tag = (r >> 32) as u32 & mask & TAG_MASK;
                let i = chunks.len() - 1;
                if !r.is_multiple_of(4) {
                    if chunks[i].full() {
                        chunks[i] = chunks[i].grown().unwrap();
                    }
                    chunks[i].insert(tag, position(step));
                    model.insert(step, tag);
                } else if let Some((&n, &tag)) = model.iter().next() {
                    assert!(chunks[i].remove(tag, position(n)));
                    assert!(!chunks[i].remove(tag, position(n)));
                    model.remove(&n);
                }
            }
            let check = |chunk: &Chunk, model: &HashMap<u64, u32>| {
                assert_eq!(chunk.entries as usize, model.len());
                for (&n, &tag) in model {
                    assert_eq!(chunk.candidates(tag).filter(|&p| p == position(n)).count(), 1);
                }
            };
            check(&chunks[0], &model);
            let (low, high) = chunks[0].split().unwrap();
            check(&low, &model.iter().filter(|(_, t)| **t < 1 << 31).map(|(k, v)| (*k, *v)).collect());
            check(&high, &model.iter().filter(|(_, t)| **t >= 1 << 31).map(|(k, v)| (*k, *v)).collect());
        }
    }

    #[test]
    fn a_shared_chunk_is_copied_before_it_changes() {
        let mut old = Chunk::new(&Arc::default(), 4, 0).unwrap();
        old.insert(7 << 4, position(1));
        let mut new = old.share();
        new.unshare().unwrap();
        new.insert(7 << 4, position(2));
        assert!(new.replace(7 << 4, position(1), position(3)));
        assert_eq!(old.candidates(7 << 4).collect::<Vec<_>>(), vec![position(1)]);
        assert_eq!((new.candidates(7 << 4).count(), new.entries, old.entries), (2, 2, 1));
        assert_eq!(old.candidates(8 << 4).count(), 0);
        // Once it has the memory alone there is nothing to be copied.
        let (mut newer, words) = (new.share(), new.words_ptr());
        drop(new);
        newer.unshare().unwrap();
        assert!(newer.words_ptr() == words && !newer.shared);
    }

    #[test]
    fn a_chunk_grows_in_small_steps() {
        let sizes: Vec<_> = std::iter::successors(Some(1), |&n| (n < MAX_BUCKETS).then(|| next_size(n))).collect();
        assert_eq!(sizes[..8], [1, 2, 3, 4, 6, 8, 12, 16]);
        assert_eq!(sizes[sizes.len() - 5..], [382, 510, 638, 766, MAX_BUCKETS]);
        assert_eq!(next_size(MAX_BUCKETS), 2 * MAX_BUCKETS);
        assert!(sizes.iter().filter(|&&n| n > 192).all(|&n| words_layout(n).size().is_multiple_of(1 << 10)));
        assert!(Chunk::new(&Arc::default(), MAX_BUCKETS, 0).unwrap().bytes() <= 64 << 10);
    }

    #[test]
    fn removing_all_leaves_a_table_that_probes_in_one_step() {
        let mut chunk = Chunk::new(&Arc::default(), 3, 0).unwrap();
        for n in 0..15 {
            chunk.insert(0, position(n));
        }
        for n in 0..15 {
            assert!(chunk.remove(0, position(n)));
        }
        let every = chunk.words()[0].free();
        assert_eq!(every.count_ones() as usize, SLOTS);
        assert!(chunk.words().iter().all(|word| word.free() == every && !word.overflowed()));
        assert_eq!(chunk.candidates(0).count(), 0);
    }
}
