//! Which tombstones are still needed: those that hide an older record of some other segment.

use std::sync::Arc;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::log::hint::{self, HintEntry, HintReader};
use crate::log::segment::Segment;
use crate::transient::reserve_apart;

/// So many tombstones of a segment tell about all of them.
const SAMPLE: usize = 8192;

/// A tombstone that no newer record of its key has made useless.
#[derive(Clone, Copy)]
pub(super) struct Tombstone {
    /// As it stands in its input.
    pub entry: HintEntry,
    /// The number of that input.
    pub input: usize,
    pub needed: bool,
}

impl AsRef<HintEntry> for Tombstone {
    fn as_ref(&self) -> &HintEntry {
        &self.entry
    }
}

/// Keeps the tombstones that any segment but the inputs may need, in the order in which they can be read.
pub(super) fn weigh(engine: &Engine, inputs: &[Arc<Segment>], tombstones: &mut Vec<Tombstone>) {
    mark_all_needed(engine, inputs, tombstones, u64::MAX);
    tombstones.retain(|t| t.needed);
    tombstones.sort_unstable_by_key(|t| (t.input, t.entry.offset()));
}

/// Marks the tombstones that any segment but the inputs may need, and sorts them by hash. All their hashes are up to `last`.
fn mark_all_needed(engine: &Engine, inputs: &[Arc<Segment>], tombstones: &mut [Tombstone], last: u64) {
    hint::sort(tombstones);
    let newest = tombstones.iter().map(|t| t.entry.timestamp).max().unwrap_or(i64::MIN);
    let others = engine.index.segments();
    for other in others.iter().filter(|s| !inputs.iter().any(|i| Arc::ptr_eq(i, s))) {
        if other.min_timestamp() < newest {
            mark_needed(engine, other, tombstones, last);
        }
    }
}

/// Marks the tombstones, sorted by hash, that hide a record of `other`. Where that cannot be told, all of them.
fn mark_needed(engine: &Engine, other: &Segment, tombstones: &mut [Tombstone], last: u64) {
    let names = (other.id(), other.identity());
    let hint = HintReader::open(&engine.storage, names, engine.hash_seed).filter(|h| h.covered() == other.len());
    let told = hint.and_then(|hint| mark_by_hint(hint, tombstones, last).ok());
    if told != Some(true) {
        tombstones.iter_mut().filter(|t| t.entry.timestamp > other.min_timestamp()).for_each(|t| t.needed = true);
    }
}

/// As `mark_needed`. Whether the hint could be trusted. Of a hint that is read in part nobody knows: it is believed.
fn mark_by_hint(mut hint: HintReader, tombstones: &mut [Tombstone], last: u64) -> Result<bool> {
    let mut at = 0;
    while let Some(entry) = hint.peek()? {
        if entry.hash > last {
            return Ok(true);
        }
        while tombstones.get(at).is_some_and(|t| t.entry.hash < entry.hash) {
            at += 1;
        }
        let same = tombstones[at..].iter_mut().take_while(|t| t.entry.hash == entry.hash);
        same.filter(|t| !entry.tombstone() && entry.timestamp < t.entry.timestamp).for_each(|t| t.needed = true);
        hint.advance();
    }
    hint.finish()
}

/// Bytes of the segment's tombstones that hide no record of any other segment: they have become garbage.
pub(super) fn useless_tombstones(engine: &Engine, segment: &Arc<Segment>) -> Result<u64> {
    Ok(weigh_some(engine, segment, usize::MAX)?.useless)
}

/// Whether `useless_tombstones` are enough: to be asked again and again, for many segments. Only of those of which an estimate
/// says so it is found out exactly. A compaction will do so too, and were there less to go, it might be done for ever.
pub(super) fn enough_useless_tombstones(
    engine: &Engine,
    segment: &Arc<Segment>,
    enough: impl Fn(u64) -> bool,
) -> Result<bool> {
    let some = weigh_some(engine, segment, SAMPLE)?;
    Ok(enough(some.estimate(segment)) && (!some.sampled || enough(useless_tombstones(engine, segment)?)))
}

/// What has been found of a segment's tombstones, in bytes.
#[derive(Default)]
struct Weighed {
    /// Those that hide no record of any other segment.
    useless: u64,
    /// All that have been looked at.
    looked_at: u64,
    /// There are more.
    sampled: bool,
}

impl Weighed {
    /// About how many of the segment's tombstones are useless.
    fn estimate(&self, segment: &Segment) -> u64 {
        match self.sampled {
            false => self.useless,
            true => (segment.tombstones() as u128 * self.useless as u128 / self.looked_at.max(1) as u128) as u64,
        }
    }
}

/// Weighs so many of the segment's tombstones at most. Hashes are spread evenly, so those that come first tell about all, and
/// of each hint only the first part has to be read. A hint that is worth nothing tells of none.
fn weigh_some(engine: &Engine, segment: &Arc<Segment>, most: usize) -> Result<Weighed> {
    let names = (segment.id(), segment.identity());
    let Some(mut hint) = HintReader::open(&engine.storage, names, engine.hash_seed) else {
        return Ok(Weighed::default());
    };
    let mut tombstones = Vec::new();
    if most == usize::MAX {
        reserve_apart(&mut tombstones, segment.tombstones());
    }
    while tombstones.len() < most
        && let Some(entry) = hint.peek()?
    {
        if entry.tombstone() {
            tombstones.try_reserve(1).map_err(|_| Error::no_memory("compaction"))?;
            tombstones.push(Tombstone { entry, input: 0, needed: false });
        }
        hint.advance();
    }
    let sampled = tombstones.len() == most;
    if !sampled && !hint.finish()? {
        return Ok(Weighed::default());
    }
    let last = tombstones.last().filter(|_| sampled).map_or(u64::MAX, |t| t.entry.hash);
    mark_all_needed(engine, &[Arc::clone(segment)], &mut tombstones, last);
    let mut weighed = Weighed { sampled, ..Weighed::default() };
    for Tombstone { entry, needed, .. } in tombstones {
        weighed.looked_at = weighed.looked_at.saturating_add(entry.len);
        weighed.useless = weighed.useless.saturating_add(if needed { 0 } else { entry.len });
    }
    Ok(weighed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sim::{PageMode, SimStorage};
    use crate::{Options, Store};

    fn store(compact_threshold: u64) -> Store {
        let options = Options { background: false, compact_threshold, ..Options::default() };
        Store::open_on(Arc::new(SimStorage::new(1, PageMode::Page)), &options).unwrap()
    }

    /// The segment so far is sealed, and whatever else is due is done.
    fn rotate(store: &Store) {
        store.engine.appender().unwrap().rotate().unwrap();
        let steps = (0..1000).take_while(|_| store.maintain(1 << 20).unwrap()).count();
        assert!(steps < 1000, "compaction goes on and on");
    }

    fn keys(range: std::ops::Range<u64>) -> impl Iterator<Item = [u8; 8]> {
        range.map(u64::to_le_bytes)
    }

    #[test]
    fn some_tombstones_tell_about_all() {
        let store = store(u64::MAX);
        // A quarter of what is deleted is still there, in another segment.
        keys(0..5_000).for_each(|key| store.set(&key, b"old").unwrap());
        rotate(&store);
        keys(0..20_000).for_each(|key| assert!(store.set(&key, b"").is_ok() && store.del(&key).unwrap()));
        rotate(&store);
        let engine = &store.engine;
        let segments = engine.index.segments();
        let with_tombstones: Vec<_> = segments.iter().filter(|s| s.tombstones() > 0).collect();
        let &[segment] = &with_tombstones[..] else { panic!("{} segments", with_tombstones.len()) };
        let exact = useless_tombstones(engine, segment).unwrap();
        let estimate = weigh_some(engine, segment, SAMPLE).unwrap().estimate(segment);
        assert_eq!(exact, segment.tombstones() / 4 * 3);
        assert_ne!(exact, estimate, "it is one");
        assert!(exact.abs_diff(estimate) < exact / 20, "{exact} bytes, estimated to be {estimate}");
    }

    #[test]
    fn an_estimate_by_a_hint_that_is_rotten_does_not_make_compaction_go_on_for_ever() {
        let store = store(1 << 20);
        keys(20_000..40_000).for_each(|key| store.set(&key, b"live").unwrap());
        rotate(&store);
        let engine = &store.engine;
        let first = engine.index.segments().iter().next().unwrap().id();
        let rotten = engine.storage.open(&hint::name(first), true).unwrap();
        rotten.write_at(b"rot", rotten.len().unwrap() - 20).unwrap();
        // The output of the next compaction is nothing but tombstones, of which nobody can tell that they are not needed.
        keys(0..20_000).for_each(|key| assert!(store.set(&key, b"").is_ok() && store.del(&key).unwrap()));
        rotate(&store);
        assert_eq!(store.stats().tombstone_bytes, 20_000 * 37);
    }
}
