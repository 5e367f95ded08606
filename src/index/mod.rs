//! The index: key hash -> position of the key's newest record. Keys are not kept in memory.
//!
//! 256 shards by the hash's top bits, each behind a reader-writer lock. A shard is a directory of
//! [`chunk`]s (extendible hashing: "Extendible hashing — a fast access method for dynamic files",
//! Fagin et al. 1979), so growth never stops a shard for longer than it takes to rehash 64 KiB.
//!
//! Beside its table each shard has the table of live segments. Whoever holds a shard's lock therefore
//! has all that it takes to follow a position, and a segment that was taken out of every shard has no
//! readers left but those that hold a reference of their own.

mod arena;
mod bucket;
mod chunk;
mod directory;
mod position;
mod shard;
mod trust;

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::{Code, Error, Result};
use crate::log::segment::Segment;
use chunk::Candidates;
use directory::Directory;
pub(crate) use position::Position;
pub(crate) use shard::Shard;
pub(crate) use trust::{MOST as MOST_ON_TRUST, Overwrite, Trust, hidden};

const SHARDS: usize = 256;

/// A key's place in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyHash(pub u64);

impl KeyHash {
    #[inline]
    pub(crate) fn shard(self) -> usize {
        (self.0 >> 56) as usize
    }

    #[inline]
    pub(crate) fn tag(self) -> u32 {
        (self.0 >> 24) as u32 & bucket::TAG_MASK
    }

    /// Whether an index entry of one is an index entry of the other, as far as the index can tell.
    pub(crate) fn same_entry(self, other: KeyHash) -> bool {
        self.shard() == other.shard() && self.tag() == other.tag()
    }
}

/// The live segments, by slot.
#[derive(Clone, Default)]
pub(crate) struct Segments(Vec<Option<Arc<Segment>>>);

impl Segments {
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Result<&Arc<Segment>> {
        match self.0.get(slot as usize) {
            Some(Some(segment)) => Ok(segment),
            // Compaction moves what it finds in a segment. A hint can be made to name more than that.
            _ => Err(Error::new(Code::Corrupt, "a hint has named a record that its segment did not hold")),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.0.iter().flatten()
    }

    /// All slots, the empty ones included.
    pub(crate) fn slots(&self) -> &[Option<Arc<Segment>>] {
        &self.0
    }

    pub(crate) fn slot_of(&self, segment: &Arc<Segment>) -> Option<u32> {
        self.0.iter().position(|s| s.as_ref().is_some_and(|s| Arc::ptr_eq(s, segment))).map(|i| i as u32)
    }
}

/// The whole index.
pub(crate) struct Index {
    shards: Box<[RwLock<Shard>]>,
    /// What every shard has a copy of. Held while the copies are replaced.
    segments: Mutex<Arc<Segments>>,
}

impl Index {
    pub(crate) fn new() -> Result<Index> {
        let segments = Arc::new(Segments::default());
        let arena = Arc::default();
        let mut shards = Vec::with_capacity(SHARDS);
        for number in 0..SHARDS {
            shards.push(RwLock::new(Shard::new(number, &arena, Arc::clone(&segments))?));
        }
        Ok(Index { shards: shards.into_boxed_slice(), segments: Mutex::new(segments) })
    }

    #[inline]
    pub(crate) fn read(&self, hash: KeyHash) -> Result<RwLockReadGuard<'_, Shard>> {
        self.shards[hash.shard()].read().map_err(|_| poisoned())
    }

    #[inline]
    pub(crate) fn write(&self, hash: KeyHash) -> Result<RwLockWriteGuard<'_, Shard>> {
        self.shards[hash.shard()].write().map_err(|_| poisoned())
    }

    /// The live segments of this moment.
    pub(crate) fn segments(&self) -> Arc<Segments> {
        Arc::clone(&self.lock_segments())
    }

    /// Makes a segment known to all shards, and so to readers. Returns its slot.
    pub(crate) fn add_segment(&self, segment: Arc<Segment>) -> Result<u32> {
        let mut current = self.lock_segments();
        let mut next = Segments::clone(&current);
        let free = next.0.iter().position(Option::is_none);
        let slot = free.unwrap_or(next.0.len());
        if slot >= position::MAX_SLOTS {
            return Err(Error::new(Code::NoSpace, "too many segments: choose a larger segment size"));
        }
        match free {
            Some(slot) => next.0[slot] = Some(segment),
            None => next.0.push(Some(segment)),
        }
        self.publish(&mut current, next)?;
        Ok(slot as u32)
    }

    /// Takes segments out of all shards. When this returns, no reader can come upon them any more; one
    /// that came upon them before holds a reference.
    pub(crate) fn remove_segments(&self, gone: &[Arc<Segment>]) -> Result<()> {
        let mut current = self.lock_segments();
        let mut next = Segments::clone(&current);
        for slot in &mut next.0 {
            if slot.as_ref().is_some_and(|s| gone.iter().any(|g| Arc::ptr_eq(g, s))) {
                *slot = None;
            }
        }
        self.publish(&mut current, next)
    }

    fn publish(&self, current: &mut MutexGuard<'_, Arc<Segments>>, next: Segments) -> Result<()> {
        let next = Arc::new(next);
        for shard in &self.shards {
            shard.write().map_err(|_| poisoned())?.segments = Arc::clone(&next);
        }
        **current = next;
        Ok(())
    }

    fn lock_segments(&self) -> MutexGuard<'_, Arc<Segments>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index as it is now. Under the append lock, while nobody has a claim and nothing is on trust, so that no entry changes
    /// meanwhile.
    pub(crate) fn view(&self) -> Result<View> {
        let (mut directories, mut keys) = (View::no_directories()?, 0);
        for shard in &self.shards {
            let shard = shard.read().map_err(|_| poisoned())?;
            directories.push(Arc::clone(&shard.directory));
            keys += shard.keys;
        }
        Ok(View { directories, segments: self.segments(), keys })
    }

    /// Locks the shards of these hashes, which are in ascending order, all at the same time.
    pub(crate) fn read_all(&self, hashes: impl Iterator<Item = KeyHash>) -> Result<Vec<RwLockReadGuard<'_, Shard>>> {
        lock_all(hashes, |shard| self.shards[shard].read().map_err(|_| poisoned()))
    }

    /// As `read_all`, to change entries.
    pub(crate) fn write_all(&self, hashes: impl Iterator<Item = KeyHash>) -> Result<Vec<RwLockWriteGuard<'_, Shard>>> {
        lock_all(hashes, |shard| self.shards[shard].write().map_err(|_| poisoned()))
    }

    /// Locks those shards where something is on trust, one after the other.
    pub(crate) fn on_trust(&self) -> impl Iterator<Item = Result<RwLockWriteGuard<'_, Shard>>> {
        let some = |shard: &&RwLock<Shard>| shard.read().is_ok_and(|shard| !shard.trust().overwrites().is_empty());
        self.shards.iter().filter(some).map(|shard| shard.write().map_err(|_| poisoned()))
    }

    /// Keys stored, and bytes of memory taken.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let mut keys = 0;
        let mut bytes = (SHARDS * (size_of::<RwLock<Shard>>() + MOST_ON_TRUST * size_of::<Overwrite>())) as u64;
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            keys += shard.keys;
            bytes += shard.directory.bytes();
        }
        (keys, bytes)
    }
}

/// Locks the shards of hashes that are in ascending order: everybody who locks several does so in this order.
fn lock_all<G>(hashes: impl Iterator<Item = KeyHash>, lock: impl Fn(usize) -> Result<G>) -> Result<Vec<G>> {
    let (mut guards, mut last) = (Vec::new(), usize::MAX);
    let no_memory = |_| Error::no_memory("locking the index");
    guards.try_reserve_exact(hashes.size_hint().0.min(SHARDS)).map_err(no_memory)?;
    for shard in hashes.map(KeyHash::shard) {
        if std::mem::replace(&mut last, shard) != shard {
            guards.try_reserve(1).map_err(no_memory)?;
            guards.push(lock(shard)?);
        }
    }
    Ok(guards)
}

/// Puts hashes, each with a number, into ascending order.
pub(crate) fn sort_hashes(hashes: &mut Vec<(KeyHash, u32)>) -> Result<()> {
    if hashes.len() < SHARDS {
        hashes.sort_unstable();
        return Ok(());
    }
    // Hashes are spread evenly: once they are with those of their shard, little is left to be sorted.
    let mut sorted = Vec::new();
    sorted.try_reserve_exact(hashes.len()).map_err(|_| Error::no_memory("sorting hashes"))?;
    sorted.resize(hashes.len(), (KeyHash(0), 0));
    let mut ends = [0; SHARDS];
    hashes.iter().for_each(|(hash, _)| ends[hash.shard()] += 1);
    let mut end = 0;
    for count in &mut ends {
        end += std::mem::replace(count, end);
    }
    for &entry in hashes.iter() {
        let place = &mut ends[entry.0.shard()];
        sorted[*place] = entry;
        *place += 1;
    }
    sorted.chunk_by_mut(|a, b| a.0.shard() == b.0.shard()).for_each(<[_]>::sort_unstable);
    *hashes = sorted;
    Ok(())
}

/// Finds the shards of hashes in ascending order among those that were locked for them.
pub(crate) fn shards_in_order<'a, S: Deref<Target = Shard>>(shards: &'a [S]) -> impl FnMut(KeyHash) -> &'a Shard {
    let mut at = 0;
    move |hash| {
        while !shards[at].holds(hash) {
            at += 1;
        }
        &shards[at]
    }
}

/// The whole index as it was at one moment. It shares the memory of the index until that changes; what it has seen stays
/// as it was. The segments that it knows stay readable for as long as it lives.
pub(crate) struct View {
    directories: Vec<Arc<Directory>>,
    segments: Arc<Segments>,
    keys: u64,
}

impl View {
    /// Room for those of all shards.
    fn no_directories() -> Result<Vec<Arc<Directory>>> {
        let mut directories = Vec::new();
        directories.try_reserve_exact(SHARDS).map_err(|_| Error::no_memory("a snapshot"))?;
        Ok(directories)
    }

    /// Another view of the same moment.
    pub(crate) fn try_clone(&self) -> Result<View> {
        let mut directories = View::no_directories()?;
        directories.extend(self.directories.iter().cloned());
        Ok(View { directories, segments: Arc::clone(&self.segments), keys: self.keys })
    }

    /// As [`Shard::candidates`].
    pub(crate) fn candidates(&self, hash: KeyHash) -> Candidates<'_> {
        self.directories[hash.shard()].chunk(hash.tag()).candidates(hash.tag())
    }

    pub(crate) fn segment(&self, position: Position) -> Result<&Arc<Segment>> {
        self.segments.get(position.slot())
    }

    pub(crate) fn segments(&self) -> &Segments {
        &self.segments
    }

    /// How many keys there are.
    pub(crate) fn keys(&self) -> u64 {
        self.keys
    }

    /// Shows the position of every key, in no order.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(Position)) {
        let chunks = self.directories.iter().flat_map(|directory| &directory.chunks);
        chunks.for_each(|chunk| chunk.for_each(|_, position| visit(position)));
    }
}

fn poisoned() -> Error {
    Error::new(Code::Internal, "the index is unusable after an internal error; reopen the store")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> KeyHash {
        KeyHash(n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9))
    }

    fn add(index: &Index, n: u64) {
        let mut shard = index.write(hash(n)).unwrap();
        shard.reserve(hash(n)).unwrap();
        shard.insert(hash(n), Position::new(0, 64 + n, 50));
    }

    #[test]
    fn entries_are_found_replaced_and_removed_at_any_size() {
        let index = Index::new().unwrap();
        const N: u64 = 300_000;
        // All in one shard too, so that its directory doubles.
        for n in 0..N {
            add(&index, n);
            let crowded = KeyHash(hash(n).0 >> 8);
            let mut shard = index.write(crowded).unwrap();
            shard.reserve(crowded).unwrap();
            shard.insert(crowded, Position::new(1, 64 + n, 50));
        }
        for n in 0..N {
            let at = Position::new(0, 64 + n, 50);
            let moved = Position::new(2, 64 + n, 50);
            let mut shard = index.write(hash(n)).unwrap();
            assert!(shard.candidates(hash(n)).any(|p| p == at));
            shard.reserve(hash(n)).unwrap();
            assert!(shard.replace(hash(n), at, moved));
            assert!(!shard.replace(hash(n), at, moved));
            if n % 2 == 0 {
                assert!(shard.remove(hash(n), moved));
            }
            drop(shard);
            let crowded = KeyHash(hash(n).0 >> 8);
            assert!(index.read(crowded).unwrap().candidates(crowded).any(|p| p == Position::new(1, 64 + n, 50)));
        }
        assert_eq!(index.usage().0, N / 2 + N);
    }

    #[test]
    fn few_and_many_hashes_are_sorted() {
        for count in [0, 1, 255, 256, 5000] {
            let few_shards = |n: u64| if n.is_multiple_of(3) { hash(n % 100) } else { hash(n) };
            let mut hashes: Vec<_> = (0..count).map(|n| (few_shards(n), (count - n) as u32)).collect();
            let mut expected = hashes.clone();
            expected.sort();
            sort_hashes(&mut hashes).unwrap();
            assert!(hashes == expected, "{count}");
        }
    }

    #[test]
    fn a_shard_filled_at_once_is_as_one_that_has_grown() {
        // With hashes that are spread evenly, and with many that are nearly the same.
        let most = chunk::most_entries(chunk::MAX_BUCKETS) as u64;
        for (n, shift) in [(0, 8), (1, 8), (most, 8), (most + 1, 8), (60_000, 8), (5_000, 24), (9_000, 40)] {
            let (grown, filled) = (Index::new().unwrap(), Index::new().unwrap());
            let mut entries: Vec<_> =
                (0..n).map(|i| (KeyHash(hash(i).0 >> shift), Position::new(0, 64 + i, 50))).collect();
            let mut shard = grown.write(KeyHash(0)).unwrap();
            for (hash, position) in &entries {
                shard.reserve(*hash).unwrap();
                shard.insert(*hash, *position);
            }
            drop(shard);
            entries.sort_unstable_by_key(|(hash, _)| hash.tag());
            let tags: Vec<_> = entries.iter().map(|(hash, position)| (hash.tag(), *position)).collect();
            filled.write(KeyHash(0)).unwrap().fill(&tags).unwrap();
            let shard = filled.read(KeyHash(0)).unwrap();
            for (hash, position) in &entries {
                assert_eq!(shard.candidates(*hash).filter(|p| p == position).count(), 1);
            }
            drop(shard);
            assert_eq!(filled.usage().0, n);
            let (memory, grown) = (filled.usage().1, grown.usage().1);
            assert!(shift > 8 || memory <= grown, "{n} entries: {memory} bytes, {grown} when grown");
            // It goes on as any other.
            let mut shard = filled.write(KeyHash(0)).unwrap();
            for (hash, position) in &entries {
                shard.reserve(*hash).unwrap();
                shard.insert(*hash, Position::new(1, position.offset(), 50));
                assert!(shard.remove(*hash, *position));
                assert!(shard.candidates(*hash).any(|p| p == Position::new(1, position.offset(), 50)));
            }
        }
    }

    #[test]
    fn memory_stays_near_18_bytes_a_key() {
        let index = Index::new().unwrap();
        let (mut n, mut samples) = (0, Vec::new());
        for target in (1..=20).map(|i| i * 100_000) {
            while n < target {
                add(&index, n);
                n += 1;
            }
            samples.push(index.usage().1 as f64 / n as f64);
        }
        let mean = samples.iter().sum::<f64>() / samples.len() as f64;
        assert!(mean < 19.0, "{mean} bytes a key on average: {samples:?}");
        assert!(samples.iter().all(|&s| s < 25.0), "{samples:?}");
    }
}
