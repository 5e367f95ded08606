//! Which tombstones are still needed: those that hide an older record of some other segment.

use std::sync::Arc;

use crate::engine::Engine;
use crate::error::Result;
use crate::log::hint::{self, HintEntry, HintReader};
use crate::log::segment::Segment;
use crate::transient::reserve_apart;

/// A tombstone that no newer record of its key has made useless.
#[derive(Clone, Copy)]
pub(super) struct Tombstone {
    /// As it stands in its input.
    pub entry: HintEntry,
    /// The number of that input.
    pub input: usize,
    pub needed: bool,
}

/// Keeps the tombstones that any segment but the inputs may need, in the order in which they can be read.
pub(super) fn weigh(engine: &Engine, inputs: &[Arc<Segment>], tombstones: &mut Vec<Tombstone>) {
    hint::sort(tombstones, |t| &t.entry);
    let newest = tombstones.iter().map(|t| t.entry.timestamp).max().unwrap_or(i64::MIN);
    let others = engine.index.segments();
    for other in others.iter().filter(|s| !inputs.iter().any(|i| Arc::ptr_eq(i, s))) {
        if other.min_timestamp() < newest {
            mark_needed(engine, other, tombstones);
        }
    }
    tombstones.retain(|t| t.needed);
    tombstones.sort_unstable_by_key(|t| (t.input, t.entry.offset()));
}

/// Marks the tombstones, sorted by hash, that hide a record of `other`. Where that cannot be told, all of them.
fn mark_needed(engine: &Engine, other: &Segment, tombstones: &mut [Tombstone]) {
    let names = (other.id(), other.identity());
    let hint = HintReader::open(&engine.storage, names, engine.hash_seed).filter(|h| h.covered() == other.len());
    let told = hint.and_then(|hint| mark_by_hint(hint, tombstones).ok());
    if told != Some(true) {
        tombstones.iter_mut().filter(|t| t.entry.timestamp > other.min_timestamp()).for_each(|t| t.needed = true);
    }
}

/// As `mark_needed`. Whether the hint could be trusted.
fn mark_by_hint(mut hint: HintReader, tombstones: &mut [Tombstone]) -> Result<bool> {
    let mut at = 0;
    while let Some(entry) = hint.peek()? {
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
pub(crate) fn useless_tombstones(engine: &Engine, segment: &Arc<Segment>) -> Result<u64> {
    let names = (segment.id(), segment.identity());
    let Some(mut hint) = HintReader::open(&engine.storage, names, engine.hash_seed) else {
        return Ok(0);
    };
    let mut tombstones = Vec::new();
    reserve_apart(&mut tombstones, segment.tombstones());
    while let Some(entry) = hint.peek()? {
        if entry.tombstone() {
            tombstones.push(Tombstone { entry, input: 0, needed: false });
        }
        hint.advance();
    }
    if !hint.finish()? {
        return Ok(0);
    }
    let all: u64 = tombstones.iter().map(|t| t.entry.len).sum();
    weigh(engine, &[Arc::clone(segment)], &mut tombstones);
    Ok(all - tombstones.iter().map(|t| t.entry.len).sum::<u64>())
}
