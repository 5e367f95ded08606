//! The chunks of a shard, found by the top bits of a tag: extendible hashing.

use std::sync::Arc;
#[cfg(not(tsan))]
use std::sync::atomic::{Ordering::Acquire, fence};

use super::Position;
use super::arena::Arena;
use super::chunk::{self, Chunk};
use crate::error::{Code, Error, Result};

/// Directories do not double beyond this: from there on chunks grow instead.
pub(super) const MAX_DEPTH: u32 = 16;

/// Chunks by the top bits of a tag.
pub(super) struct Directory {
    /// So many top bits of the tag choose the entry of `map`.
    pub(super) depth: u32,
    pub(super) map: Vec<u32>,
    pub(super) chunks: Vec<Chunk>,
}

impl Directory {
    /// A directory of entries in the order of their tags, as it would have grown with them.
    pub(super) fn filled(arena: &Arc<Arena>, entries: &[(u32, Position)]) -> Result<Directory> {
        let no_memory = |_| Error::no_memory("the index");
        let (mut map, mut chunks) = (Vec::new(), Vec::new());
        // Hashes are spread evenly: all chunks are split as often.
        let expected = entries.len().div_ceil(chunk::most_entries(chunk::MAX_BUCKETS)).next_power_of_two();
        chunks.try_reserve_exact(expected).map_err(no_memory)?;
        Directory::cut(arena, 0, entries, &mut chunks)?;
        let depth = chunks.iter().map(Chunk::depth).max().unwrap_or(0);
        map.try_reserve_exact(1 << depth).map_err(no_memory)?;
        for (number, chunk) in chunks.iter().enumerate() {
            map.extend(std::iter::repeat_n(number as u32, 1 << (depth - chunk.depth())));
        }
        Ok(Directory { depth, map, chunks })
    }

    /// Cuts entries whose tags have the first `depth` bits in common into chunks.
    fn cut(arena: &Arc<Arena>, depth: u32, entries: &[(u32, Position)], chunks: &mut Vec<Chunk>) -> Result<()> {
        if entries.len() > chunk::most_entries(chunk::MAX_BUCKETS) && depth < MAX_DEPTH {
            let ones = entries.partition_point(|(tag, _)| tag << depth >> 31 == 0);
            let (low, high) = entries.split_at(ones);
            Directory::cut(arena, depth + 1, low, chunks)?;
            return Directory::cut(arena, depth + 1, high, chunks);
        }
        chunks.try_reserve(1).map_err(|_| Error::no_memory("the index"))?;
        chunks.push(Chunk::filled(arena, depth, entries)?);
        Ok(())
    }

    #[inline]
    pub(super) fn map_index(&self, tag: u32) -> usize {
        ((tag as u64) << self.depth >> 32) as usize
    }

    #[inline]
    pub(super) fn chunk(&self, tag: u32) -> &Chunk {
        &self.chunks[self.map[self.map_index(tag)] as usize]
    }

    /// Makes the directory its owner's own, copying it if a view shares it. The chunks stay shared.
    pub(super) fn own(shared: &mut Arc<Directory>) -> Result<&mut Directory> {
        if Arc::strong_count(shared) > 1 {
            let no_memory = |_| Error::no_memory("the index");
            let (mut map, mut chunks) = (Vec::new(), Vec::new());
            map.try_reserve_exact(shared.map.len()).map_err(no_memory)?;
            chunks.try_reserve_exact(shared.chunks.len() + 1).map_err(no_memory)?;
            map.extend_from_slice(&shared.map);
            chunks.extend(shared.chunks.iter().map(Chunk::share));
            *shared = Arc::new(Directory { depth: shared.depth, map, chunks });
        }
        Directory::if_owned(shared).ok_or_else(|| Error::new(Code::Internal, "a directory of the index is shared"))
    }

    /// As `Arc::get_mut`, which takes two atomic operations to exclude weak references. Of directories there are none.
    pub(super) fn if_owned(shared: &mut Arc<Directory>) -> Option<&mut Directory> {
        if Arc::strong_count(shared) > 1 {
            return None;
        }
        // ThreadSanitizer does not know what a fence does.
        #[cfg(tsan)]
        return Arc::get_mut(shared);
        // Whoever dropped the last other reference is done with reading.
        #[cfg(not(tsan))]
        fence(Acquire);
        // SAFETY: this is the only reference, borrowed exclusively, and there are no weak ones from which others could
        // be made.
        #[cfg(not(tsan))]
        Some(unsafe { &mut *Arc::as_ptr(shared).cast_mut() })
    }

    /// Replaces a chunk by two, each with half of its entries.
    pub(super) fn split(&mut self, at: usize) -> Result<()> {
        if self.chunks[at].depth() == self.depth {
            self.double()?;
        }
        self.chunks.try_reserve(1).map_err(|_| Error::no_memory("the index"))?;
        let (low, high) = self.chunks[at].split()?;
        let new = self.chunks.len() as u32;
        // The entries of the old chunk are next to each other, and the upper half of them has the bit set.
        let first = self.map.iter().position(|&c| c == at as u32).unwrap_or(0);
        let count = 1 << (self.depth - low.depth() + 1);
        self.map[first + count / 2..first + count].fill(new);
        self.chunks[at] = low;
        self.chunks.push(high);
        Ok(())
    }

    fn double(&mut self) -> Result<()> {
        let mut map = Vec::new();
        map.try_reserve_exact(self.map.len() * 2).map_err(|_| Error::no_memory("the index"))?;
        map.extend(self.map.iter().flat_map(|&c| [c, c]));
        self.map = map;
        self.depth += 1;
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        let chunks: usize = self.chunks.iter().map(Chunk::bytes).sum();
        let directory = size_of::<Directory>()
            + self.map.capacity() * size_of::<u32>()
            + self.chunks.capacity() * size_of::<Chunk>();
        (chunks + directory) as u64
    }
}
