//! A small hash table of at most 64 KiB: the unit in which the index grows and is copied.
//!
//! A bucket is one cache line: five slots of a 32-bit tag and a position each, and a count of the entries
//! that would have liked to live here but had to go on to the next bucket (as in F14, "Open-sourcing F14 for
//! faster, more memory-efficient hash tables", Facebook 2019). A probe ends at the first bucket that nobody
//! overflowed, so nearly every one, of present and absent keys alike, touches one line, and removal
//! leaves no marks.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::*};

use super::arena::Arena;
use super::position::Position;
use crate::error::{Error, Result};
use crate::prefetch::prefetch;

const SLOTS: usize = 5;

#[repr(C, align(64))]
struct Bucket {
    tags: [u32; SLOTS],
    overflowed: u32,
    positions: [u64; SLOTS],
}

/// What stands before the buckets.
#[repr(C, align(64))]
struct Prelude {
    references: AtomicU32,
    entries: u32,
    /// How many of the tag's top bits all entries have in common.
    depth: u32,
    /// Where the memory comes from.
    arena: Arc<Arena>,
}

/// The most buckets of a chunk that can still be split.
pub(crate) const MAX_BUCKETS: u32 = 1023;

/// A reference to a chunk. Cloning is cheap and shares; only a chunk that is not shared can be changed.
pub(crate) struct Chunk {
    prelude: NonNull<Prelude>,
    /// How many there are: with that a look-up need not touch the prelude.
    buckets: u32,
}

// SAFETY: the memory behind is only changed through `&mut Chunk` while the reference count is one, and freed
// by whoever drops the last reference; the count itself is atomic.
unsafe impl Send for Chunk {}
// SAFETY: as above: shared access only reads.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// An empty chunk.
    pub(crate) fn new(arena: &Arc<Arena>, buckets: u32, depth: u32) -> Result<Chunk> {
        let memory = arena.allocate(layout(buckets)).ok_or_else(|| Error::no_memory("the index"))?;
        let prelude = memory.cast::<Prelude>();
        // SAFETY: freshly allocated with the alignment and at least the size of a prelude; all-zero buckets are
        // empty buckets.
        unsafe {
            prelude.write(Prelude { references: AtomicU32::new(1), entries: 0, depth, arena: Arc::clone(arena) })
        };
        Ok(Chunk { prelude, buckets })
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

    /// Makes the chunk this reference's own, copying it if it is shared.
    pub(crate) fn unshare(&mut self) -> Result<()> {
        if self.prelude().references.load(Acquire) == 1 {
            return Ok(());
        }
        let copy = Chunk::new(&self.prelude().arena, self.buckets, self.prelude().depth)?;
        let count = self.buckets as usize;
        // SAFETY: both chunks have `count` buckets, `copy` is new and so apart from `self`, and nobody
        // changes a shared chunk.
        unsafe { self.buckets_ptr().copy_to_nonoverlapping(copy.buckets_ptr(), count) };
        // SAFETY: `copy` is not shared, nobody else can see its prelude.
        unsafe { (*copy.prelude.as_ptr()).entries = self.prelude().entries };
        *self = copy;
        Ok(())
    }

    /// Where its memory comes from.
    pub(crate) fn arena(&self) -> &Arc<Arena> {
        &self.prelude().arena
    }

    pub(crate) fn entries(&self) -> u32 {
        self.prelude().entries
    }

    pub(crate) fn depth(&self) -> u32 {
        self.prelude().depth
    }

    /// Bytes of memory that the chunk takes.
    pub(crate) fn bytes(&self) -> usize {
        layout(self.buckets).size()
    }

    /// Whether one more entry would make probes long.
    pub(crate) fn full(&self) -> bool {
        self.prelude().entries as usize >= most_entries(self.buckets)
    }

    /// Whether it has grown as large as a chunk should, so that it is time to split it.
    pub(crate) fn largest(&self) -> bool {
        self.buckets >= MAX_BUCKETS
    }

    /// The positions of all entries with this tag.
    #[inline]
    pub(crate) fn candidates(&self, tag: u32) -> Candidates<'_> {
        let buckets = self.buckets();
        let at = home(tag, buckets.len());
        let bucket = &buckets[at];
        Candidates { bucket, matches: bucket.matches(tag), buckets, at, left: buckets.len() - 1, tag }
    }

    /// Asks for the line that a probe for this tag reads first.
    pub(crate) fn prefetch(&self, tag: u32) {
        let buckets = self.buckets();
        prefetch(&buckets[home(tag, buckets.len())]);
    }

    /// As `prefetch`, and for the line that a change writes besides.
    pub(crate) fn prefetch_to_change(&self, tag: u32) {
        prefetch(self.prelude.as_ptr());
        self.prefetch(tag);
    }

    /// Adds an entry. There must be room: see [`Chunk::full`].
    pub(crate) fn insert(&mut self, tag: u32, position: Position) {
        let buckets = self.buckets_mut();
        let mut at = home(tag, buckets.len());
        loop {
            let bucket = &mut buckets[at];
            let free = bucket.free();
            if free != 0 {
                let slot = free.trailing_zeros() as usize;
                bucket.tags[slot] = tag;
                bucket.positions[slot] = position.raw();
                break;
            }
            bucket.overflowed += 1;
            at = next(at, buckets.len());
        }
        self.prelude_mut().entries += 1;
    }

    /// Gives the entry at `old` a new position; false if there is no such entry.
    pub(crate) fn replace(&mut self, tag: u32, old: Position, new: Position) -> bool {
        match self.find_slot(tag, old) {
            Some((at, slot)) => self.buckets_mut()[at].positions[slot] = new.raw(),
            None => return false,
        }
        true
    }

    /// Removes the entry at `position`; false if there is no such entry.
    pub(crate) fn remove(&mut self, tag: u32, position: Position) -> bool {
        let Some((found, slot)) = self.find_slot(tag, position) else {
            return false;
        };
        let buckets = self.buckets_mut();
        buckets[found].positions[slot] = 0;
        let mut at = home(tag, buckets.len());
        while at != found {
            buckets[at].overflowed -= 1;
            at = next(at, buckets.len());
        }
        self.prelude_mut().entries -= 1;
        true
    }

    /// A larger chunk with the same entries.
    pub(crate) fn grown(&self) -> Result<Chunk> {
        let mut larger = Chunk::new(&self.prelude().arena, next_size(self.buckets), self.prelude().depth)?;
        self.for_each(|tag, position| larger.insert(tag, position));
        Ok(larger)
    }

    /// Two chunks that share out the entries by the next bit of their tags.
    pub(crate) fn split(&self) -> Result<(Chunk, Chunk)> {
        let depth = self.prelude().depth + 1;
        let bit = 1 << (32 - depth);
        let mut ones = 0;
        self.for_each(|tag, _| ones += (tag & bit != 0) as u32);
        let size_for = |entries: u32| {
            let mut size = 1;
            while (entries + 1) * 3 > size * SLOTS as u32 * 2 {
                size = next_size(size);
            }
            size
        };
        let mut low = Chunk::new(&self.prelude().arena, size_for(self.entries() - ones), depth)?;
        let mut high = Chunk::new(&self.prelude().arena, size_for(ones), depth)?;
        self.for_each(|tag, position| if tag & bit == 0 { &mut low } else { &mut high }.insert(tag, position));
        Ok((low, high))
    }

    pub(crate) fn for_each(&self, mut visit: impl FnMut(u32, Position)) {
        for bucket in self.buckets() {
            for (tag, &position) in bucket.tags.iter().zip(&bucket.positions) {
                if let Some(position) = Position::from_raw(position) {
                    visit(*tag, position);
                }
            }
        }
    }

    fn find_slot(&self, tag: u32, position: Position) -> Option<(usize, usize)> {
        let buckets = self.buckets();
        let mut at = home(tag, buckets.len());
        for _ in 0..buckets.len() {
            let bucket = &buckets[at];
            if let Some(slot) = bucket.positions.iter().position(|&p| p == position.raw()) {
                return Some((at, slot));
            }
            if bucket.overflowed == 0 {
                break;
            }
            at = next(at, buckets.len());
        }
        None
    }

    fn prelude(&self) -> &Prelude {
        // SAFETY: points to a live prelude for as long as this reference exists.
        unsafe { self.prelude.as_ref() }
    }

    fn prelude_mut(&mut self) -> &mut Prelude {
        debug_assert_eq!(self.prelude().references.load(Relaxed), 1, "only an unshared chunk is changed");
        // SAFETY: live, and not shared: callers go through `unshare` before they change a chunk.
        unsafe { self.prelude.as_mut() }
    }

    fn buckets_ptr(&self) -> *mut Bucket {
        // SAFETY: the buckets follow the prelude in the same allocation; its size keeps them aligned.
        unsafe { self.prelude.as_ptr().add(1).cast() }
    }

    #[inline]
    fn buckets(&self) -> &[Bucket] {
        // SAFETY: so many buckets were allocated and zeroed behind the prelude, and while this reference is
        // shared nobody changes them.
        unsafe { std::slice::from_raw_parts(self.buckets_ptr(), self.buckets as usize) }
    }

    fn buckets_mut(&mut self) -> &mut [Bucket] {
        debug_assert_eq!(self.prelude().references.load(Relaxed), 1, "only an unshared chunk is changed");
        // SAFETY: as `buckets`, and exclusive: callers go through `unshare` before they change a chunk.
        unsafe { std::slice::from_raw_parts_mut(self.buckets_ptr(), self.buckets as usize) }
    }
}

impl Clone for Chunk {
    fn clone(&self) -> Chunk {
        self.prelude().references.fetch_add(1, Relaxed);
        Chunk { prelude: self.prelude, buckets: self.buckets }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.prelude().references.fetch_sub(1, Release) == 1 {
            // A load rather than a fence, of which ThreadSanitizer knows nothing.
            self.prelude().references.load(Acquire);
            let layout = layout(self.buckets);
            // SAFETY: this was the last reference, so the prelude is never used again; its memory outlives the arena's
            // handle that is taken out of it, and was allocated there with this very layout.
            unsafe {
                let prelude = self.prelude.read();
                prelude.arena.release(self.prelude.cast(), layout);
            }
        }
    }
}

impl Bucket {
    /// A bit for each slot with this tag.
    #[inline]
    fn matches(&self, tag: u32) -> u32 {
        let mut matches = 0;
        for slot in 0..SLOTS {
            matches |= ((self.tags[slot] == tag) as u32) << slot;
        }
        matches
    }

    /// A bit for each slot that is empty.
    #[inline]
    fn free(&self) -> u32 {
        let mut free = 0;
        for slot in 0..SLOTS {
            free |= ((self.positions[slot] == 0) as u32) << slot;
        }
        free
    }
}

/// The entries with one tag. See [`Chunk::candidates`].
pub(crate) struct Candidates<'a> {
    bucket: &'a Bucket,
    /// The slots of the bucket that have not been looked at.
    matches: u32,
    buckets: &'a [Bucket],
    at: usize,
    /// So many buckets have not been looked at.
    left: usize,
    tag: u32,
}

impl Candidates<'_> {
    /// Goes on to the next bucket. False if none has been missed.
    #[inline(never)]
    fn overflow(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.at = next(self.at, self.buckets.len());
        self.bucket = &self.buckets[self.at];
        self.matches = self.bucket.matches(self.tag);
        true
    }
}

impl Iterator for Candidates<'_> {
    type Item = Position;

    #[inline]
    fn next(&mut self) -> Option<Position> {
        loop {
            while self.matches != 0 {
                let slot = self.matches.trailing_zeros() as usize;
                self.matches &= self.matches - 1;
                // An empty slot may have any tag.
                if let Some(position) = Position::from_raw(self.bucket.positions[slot]) {
                    return Some(position);
                }
            }
            if self.bucket.overflowed == 0 || !self.overflow() {
                return None;
            }
        }
    }
}

/// The bucket where the probe for a tag starts. Uses the tag's low bits; a chunk's entries have the top
/// ones in common.
#[inline]
fn home(tag: u32, buckets: usize) -> usize {
    ((tag & 0xffff) as usize * buckets) >> 16
}

#[inline]
fn next(at: usize, buckets: usize) -> usize {
    if at + 1 == buckets { 0 } else { at + 1 }
}

/// Sizes step up by a half or a third, and by 8 KiB from 32 KiB on, so that little memory lies idle. With the prelude a small
/// chunk takes two or three times a power of two; the largest before a split takes 64 KiB.
fn next_size(buckets: u32) -> u32 {
    let lines = buckets + 1;
    let next = match lines {
        2 => 3,
        n if n > MAX_BUCKETS => n * 2,
        n if n >= 512 => n + 128,
        n if n.is_power_of_two() => n + n / 2,
        n => n / 3 * 4,
    };
    next - 1
}

/// With more entries probes would be long.
#[inline]
pub(crate) const fn most_entries(buckets: u32) -> usize {
    buckets as usize * SLOTS * 3 / 4
}

fn layout(buckets: u32) -> Layout {
    let size = size_of::<Prelude>() + buckets as usize * size_of::<Bucket>();
    // SAFETY: the alignment is a power of two, and even 2^32 buckets do not overflow the size.
    unsafe { Layout::from_size_align_unchecked(size, align_of::<Prelude>()) }
}

#[cfg(test)]
mod tests {
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
        for mask in [u32::MAX, 0xffff_0003, 0x8000_0001] {
            let mut seed = mask as u64;
            let mut chunks = [Chunk::new(&Arc::default(), 1, 0).unwrap()];
            let mut model: HashMap<u64, u32> = HashMap::new();
            for step in 0..20_000u64 {
                let r = random(&mut seed);
                let tag = (r >> 32) as u32 & mask;
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
                assert_eq!(chunk.entries() as usize, model.len());
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
        let mut chunk = Chunk::new(&Arc::default(), 4, 0).unwrap();
        chunk.insert(7, position(1));
        let shared = chunk.clone();
        chunk.unshare().unwrap();
        chunk.insert(7, position(2));
        assert!(chunk.replace(7, position(1), position(3)));
        assert_eq!(shared.candidates(7).collect::<Vec<_>>(), vec![position(1)]);
        assert_eq!(chunk.candidates(7).count(), 2);
        assert_eq!(shared.candidates(8).count(), 0);
    }

    #[test]
    fn a_chunk_grows_in_small_steps() {
        let sizes: Vec<_> = std::iter::successors(Some(1), |&n| (n < MAX_BUCKETS).then(|| next_size(n))).collect();
        assert_eq!(sizes[..8], [1, 2, 3, 5, 7, 11, 15, 23]);
        assert_eq!(sizes[sizes.len() - 6..], [383, 511, 639, 767, 895, MAX_BUCKETS]);
        assert_eq!(next_size(MAX_BUCKETS), 2 * MAX_BUCKETS + 1);
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
        assert!(chunk.buckets().iter().all(|b| b.overflowed == 0));
        assert_eq!(chunk.candidates(0).count(), 0);
    }
}
