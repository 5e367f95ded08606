//! One part of the index, behind one lock.

use std::sync::Arc;

use super::arena::Arena;
use super::chunk::{Candidates, Chunk};
use super::directory::{Directory, MAX_DEPTH};
use super::{KeyHash, Overwrite, Position, Segments, Trust};
use crate::error::Result;
use crate::log::segment::Segment;

/// One part of the index: the keys whose hashes have the same top bits. What a look-up needs is on one cache line.
#[repr(C, align(64))]
pub(crate) struct Shard {
    number: usize,
    /// Counts the changes: what was found before is still true while this is the same.
    version: u64,
    pub(super) keys: u64,
    /// Shared with the views that have been taken since it last changed.
    pub(super) directory: Arc<Directory>,
    pub(super) segments: Arc<Segments>,
    trust: Trust,
}

impl Shard {
    pub(super) fn new(number: usize, arena: &Arc<Arena>, segments: Arc<Segments>) -> Result<Shard> {
        let directory = Directory { depth: 0, map: vec![0], chunks: vec![Chunk::new(arena, 1, 0)?] };
        Ok(Shard { number, version: 0, keys: 0, directory: Arc::new(directory), segments, trust: Trust::new()? })
    }

    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Where records may be whose key has this hash: nearly always one place for a key that is stored,
    /// none for one that is not. Only the record itself can tell.
    #[inline]
    pub(crate) fn candidates(&self, hash: KeyHash) -> Candidates<'_> {
        self.directory.chunk(hash.tag()).candidates(hash.tag())
    }

    #[inline]
    pub(crate) fn segment(&self, position: Position) -> Result<&Arc<Segment>> {
        self.segments.get(position.slot())
    }

    /// Makes sure that the next change to an entry of this hash cannot fail: room for one more, in
    /// memory that is shared with no snapshot.
    pub(crate) fn reserve(&mut self, hash: KeyHash) -> Result<()> {
        let directory = Directory::own(&mut self.directory)?;
        let mut at = directory.map[directory.map_index(hash.tag())] as usize;
        while directory.chunks[at].full() {
            if directory.chunks[at].largest() && directory.chunks[at].depth() < MAX_DEPTH {
                directory.split(at)?;
                at = directory.map[directory.map_index(hash.tag())] as usize;
            } else {
                directory.chunks[at] = directory.chunks[at].grown()?;
            }
        }
        directory.chunks[at].unshare()
    }

    /// Adds an entry. After `reserve`.
    pub(crate) fn insert(&mut self, hash: KeyHash, position: Position) {
        if let Some(chunk) = self.chunk_mut(hash) {
            chunk.insert(hash.tag(), position);
        }
        self.keys += 1;
        self.version += 1;
    }

    /// Puts all entries into a shard that is empty, in the order of their tags.
    pub(crate) fn fill(&mut self, entries: &[(u32, Position)]) -> Result<()> {
        let Some(chunk) = self.directory.chunks.first() else { return Ok(()) };
        self.directory = Arc::new(Directory::filled(chunk.arena(), entries)?);
        self.keys = entries.len() as u64;
        self.version += 1;
        Ok(())
    }

    /// Moves an entry from one position to another; false if there is none at the old one. After `reserve`.
    pub(crate) fn replace(&mut self, hash: KeyHash, old: Position, new: Position) -> bool {
        let done = self.chunk_mut(hash).is_some_and(|chunk| chunk.replace(hash.tag(), old, new));
        self.version += done as u64;
        done
    }

    /// As `replace`, of an entry whose record has not been looked at. Only while [`Trust`] is not full.
    pub(crate) fn replace_on_trust(&mut self, hash: KeyHash, old: Position, new: Position) -> bool {
        self.trust.add(Overwrite { hash, old, new });
        self.replace(hash, old, new)
    }

    /// What is on trust here.
    #[inline]
    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The first `count` overwrites are no longer on trust.
    pub(crate) fn end_trust(&mut self, count: usize) {
        self.trust.remove_first(count);
    }

    /// Removes the entry at a position; false if there is none. After `reserve`.
    pub(crate) fn remove(&mut self, hash: KeyHash, position: Position) -> bool {
        let done = self.chunk_mut(hash).is_some_and(|chunk| chunk.remove(hash.tag(), position));
        self.keys -= done as u64;
        self.version += done as u64;
        done
    }

    /// Asks for what a probe for this hash reads, or a change of an entry writes.
    pub(crate) fn prefetch(&self, hash: KeyHash) {
        self.directory.chunk(hash.tag()).prefetch(hash.tag());
    }

    /// The live segments, as they are while the shard is locked.
    pub(crate) fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }

    /// Whether an entry of this hash would be here.
    pub(crate) fn holds(&self, hash: KeyHash) -> bool {
        self.number == hash.shard()
    }

    /// The chunk of this hash. There is one to be changed after `reserve`, as a lock is held since, under which nobody
    /// takes a view.
    fn chunk_mut(&mut self, hash: KeyHash) -> Option<&mut Chunk> {
        let directory = Directory::if_owned(&mut self.directory)?;
        let at = directory.map[directory.map_index(hash.tag())] as usize;
        Some(&mut directory.chunks[at])
    }
}
