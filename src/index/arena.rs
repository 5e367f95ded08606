//! Memory for the larger chunks, from huge pages: a random probe of a large index then costs no walk of the page tables on top
//! of each cache miss.
//!
//! Blocks of 2 MiB are cut into units, of which the words and the lines of a chunk take four to seven each. The words of all
//! chunks lie together, apart from the lines: so they take as few pages as can be, and every part of the caches. A block that is
//! empty goes back to the system.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

const BLOCK: usize = 2 << 20;
/// The units of the words and of the lines: a word takes an eighth of what a line takes.
const WORDS_UNIT: usize = 1 << 10;
const LINES_UNIT: usize = 8 << 10;
/// So many units are counted by the bits of one number.
const RUN: usize = u128::BITS as usize;
/// Pieces up to so many units come from the allocator: an index of those fits into the caches anyway.
const LEAST: usize = 3;
/// Larger ones do too; there are hardly any.
const MOST: usize = 7;

/// The blocks of one index. Not of the process: a forked child may find a lock of the process taken for ever.
pub(crate) struct Arena {
    pub(super) words: Pool,
    pub(super) lines: Pool,
}

impl Default for Arena {
    fn default() -> Arena {
        Arena { words: Pool::new(WORDS_UNIT), lines: Pool::new(LINES_UNIT) }
    }
}

/// The blocks of one unit.
pub(super) struct Pool {
    unit: usize,
    blocks: Mutex<Vec<Block>>,
}

struct Block {
    base: NonNull<u8>,
    /// A bit for each unit that is taken. Of larger units there are fewer.
    taken: [u128; BLOCK / WORDS_UNIT / RUN],
}

// SAFETY: a block is plain memory that is reached through its arena's mutex alone; who is given units of it owns them.
unsafe impl Send for Block {}

impl Block {
    /// Takes `count` units in a row, if there are such.
    fn take(&mut self, count: usize, unit: usize) -> Option<NonNull<u8>> {
        for (number, taken) in self.taken[..BLOCK / unit / RUN].iter_mut().enumerate() {
            if (taken.count_zeros() as usize) < count {
                continue;
            }
            // A bit for each unit from which on so many are free.
            let starts = (1..count).fold(!*taken, |free, _| free & free >> 1);
            if starts != 0 {
                let at = starts.trailing_zeros() as usize;
                *taken |= run(at, count);
                // SAFETY: the unit lies within the block.
                return Some(unsafe { self.base.add((number * RUN + at) * unit) });
            }
        }
        None
    }

    /// Gives back `count` units in a row. True if none is taken any more.
    fn give_back(&mut self, memory: NonNull<u8>, count: usize, unit: usize) -> bool {
        let at = (memory.as_ptr() as usize - self.base.as_ptr() as usize) / unit;
        self.taken[at / RUN] &= !run(at % RUN, count);
        self.taken.iter().all(|&taken| taken == 0)
    }
}

/// The bits of `count` units in a row.
fn run(at: usize, count: usize) -> u128 {
    ((1 << count) - 1) << at
}

impl Pool {
    fn new(unit: usize) -> Pool {
        Pool { unit, blocks: Mutex::default() }
    }

    /// Zeroed memory of this layout, or `None` if there is no more.
    pub(super) fn allocate(&self, layout: Layout) -> Option<NonNull<u8>> {
        if !self.fits_blocks(layout) {
            // SAFETY: no layout of the index is empty.
            return NonNull::new(unsafe { alloc_zeroed(layout) });
        }
        let count = layout.size().div_ceil(self.unit);
        let mut blocks = self.lock();
        // The youngest block is the one that is not full.
        let memory = match blocks.iter_mut().rev().find_map(|block| block.take(count, self.unit)) {
            Some(memory) => memory,
            None => {
                blocks.try_reserve(1).ok()?;
                let mut block = Block { base: system::map_block()?, taken: Default::default() };
                let memory = block.take(count, self.unit)?;
                blocks.push(block);
                memory
            }
        };
        drop(blocks);
        // SAFETY: the units have just been taken, so nobody else has them.
        unsafe { memory.write_bytes(0, layout.size()) };
        Some(memory)
    }

    /// Gives memory back.
    ///
    /// # Safety
    /// It came from this pool's `allocate` with this layout, and nobody uses it any more.
    pub(super) unsafe fn release(&self, memory: NonNull<u8>, layout: Layout) {
        if !self.fits_blocks(layout) {
            // SAFETY: it came from `alloc_zeroed` with this layout.
            return unsafe { dealloc(memory.as_ptr(), layout) };
        }
        let mut blocks = self.lock();
        let base = memory.as_ptr() as usize & !(BLOCK - 1);
        let Some(number) = blocks.iter().position(|b| b.base.as_ptr() as usize == base) else { return };
        if blocks[number].give_back(memory, layout.size().div_ceil(self.unit), self.unit) {
            let block = blocks.swap_remove(number);
            system::unmap_block(block.base);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Block>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fits_blocks(&self, layout: Layout) -> bool {
        cfg!(not(miri)) && layout.size() > LEAST * self.unit && layout.size() <= MOST * self.unit
    }
}

mod system {
    use super::*;

    /// A block of addresses aligned to its size, so that a huge page fits.
    pub(super) fn map_block() -> Option<NonNull<u8>> {
        let (read_write, private) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
        // SAFETY: a new mapping at an address of the system's choice disturbs nobody. Of the two blocks' worth of
        // addresses the aligned one is kept, and what lies before and behind it is unmapped; it is ours alone.
        unsafe {
            let memory = libc::mmap(std::ptr::null_mut(), 2 * BLOCK, read_write, private, -1, 0);
            if memory == libc::MAP_FAILED {
                return None;
            }
            let before = (BLOCK - memory as usize % BLOCK) % BLOCK;
            let base = memory.cast::<u8>().add(before);
            if before > 0 {
                libc::munmap(memory, before);
            }
            libc::munmap(base.add(BLOCK).cast(), BLOCK - before);
            #[cfg(target_os = "linux")]
            libc::madvise(base.cast(), BLOCK, libc::MADV_HUGEPAGE);
            NonNull::new(base)
        }
    }

    pub(super) fn unmap_block(base: NonNull<u8>) {
        // SAFETY: a whole block of which no unit is taken, so nobody uses it.
        unsafe { libc::munmap(base.as_ptr().cast(), BLOCK) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zeroed_aligned_and_apart() {
        for unit in [WORDS_UNIT, LINES_UNIT] {
            pieces_of(
                &Pool::new(unit),
                [64, 2 * unit, 4 * unit, 5 * unit, 6 * unit - 64, 7 * unit, 7 * unit - 8, 12 * unit],
            );
        }
    }

    fn pieces_of(pool: &Pool, sizes: [usize; 8]) {
        let mut pieces = Vec::new();
        for n in 0..900usize {
            let layout = Layout::from_size_align(sizes[n % sizes.len()], 64).unwrap();
            let memory = pool.allocate(layout).unwrap();
            assert_eq!(memory.as_ptr() as usize % 64, 0);
            // SAFETY: just allocated with this size.
            let bytes = unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), layout.size()) };
            assert!(bytes.iter().all(|&b| b == 0));
            bytes.fill(n as u8 | 1);
            pieces.push((memory, layout, n as u8 | 1));
            if n % 3 == 2 {
                let (memory, layout, fill) = pieces.swap_remove(n % pieces.len());
                // SAFETY: allocated with this layout and still ours; released once.
                unsafe {
                    assert!(std::slice::from_raw_parts(memory.as_ptr(), layout.size()).iter().all(|&b| b == fill));
                    pool.release(memory, layout);
                }
            }
        }
        for (memory, layout, fill) in pieces {
            // SAFETY: as above.
            unsafe {
                assert!(std::slice::from_raw_parts(memory.as_ptr(), layout.size()).iter().all(|&b| b == fill));
                pool.release(memory, layout);
            }
        }
        assert!(pool.lock().is_empty());
    }
}
