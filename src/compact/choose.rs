//! Which segments to compact next.

use std::sync::Arc;

use super::tombstones::{enough_useless_tombstones, useless_tombstones};
use crate::engine::Engine;
use crate::error::Result;
use crate::log::header::HEADER_LEN;
use crate::log::segment::{Segment, State};

/// A compaction takes on at most so many segments.
const MOST_INPUTS: usize = 64;
/// Small segments are merged when there are so many.
const MERGE_COUNT: usize = 8;

/// This much garbage makes a segment worth its while at any time: there is hardly anything left to copy.
const NEARLY_DEAD: u32 = 90;

/// Which segments a compaction is to take on.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// Those whose share of garbage is over the option's.
    Automatic,
    /// As `Automatic` while the log is over its limit, and the nearly dead ones otherwise. Writers who keep on
    /// overwriting make the rest of a segment garbage too, so the later it is copied, the less there is to copy.
    Patient,
    /// Those up to this id that hold any.
    Everything(u64),
}

/// The segments to compact next, if any: the worst first, and as many as fit into one output; but when compaction runs by
/// itself, no more than free half a segment.
///
/// `retirements` counts the compactions since open that have retired segments: tombstones that were needed are weighed again
/// only when it has changed.
pub(crate) fn choose(engine: &Engine, goal: Goal, retirements: u64) -> Result<Vec<Arc<Segment>>> {
    let (log, live) = engine.log_and_live();
    if !matches!(goal, Goal::Everything(_)) && log <= engine.options.compact_threshold {
        return Ok(Vec::new());
    }
    let goal = match goal {
        Goal::Patient if log > engine.log_limit(live) || engine.factory.reserve.lent() => Goal::Automatic,
        other => other,
    };
    let table = engine.index.segments();
    let sealed: Vec<_> = table.iter().filter(|s| s.state() == State::Sealed && !s.quarantined()).cloned().collect();
    let mut wanted = Vec::new();
    for segment in &sealed {
        if wants(engine, segment, goal, retirements)? {
            wanted.push(Arc::clone(segment));
        }
    }
    match goal {
        // Those with the largest part of garbage first.
        Goal::Automatic | Goal::Patient => {
            sort_by(&mut wanted, &|s| u64::MAX - s.dead().saturating_mul(1000) / s.len().max(1));
        }
        // Oldest first: then a tombstone comes up when what it hides has gone.
        Goal::Everything(_) => wanted.sort_by_key(|s| (s.min_timestamp(), s.id())),
    }
    if engine.factory.reserve.lent() {
        // The disk is full: the segment that takes least to be rewritten, and so gives back most.
        sort_by(&mut wanted, &|s| s.len() - s.dead());
        wanted.truncate(1);
    }
    if matches!(goal, Goal::Automatic) && wanted.first().is_some_and(nearly_dead) {
        // They are done at once; were they to wait for what others have to be copied, so would the space they take.
        wanted.retain(nearly_dead);
    }
    let (mut live, mut freed) = (0, 0);
    let fitting = wanted.iter().take(MOST_INPUTS).take_while(|s| {
        // Those that are not so bad get worse while they wait.
        let enough = matches!(goal, Goal::Automatic) && !nearly_dead(s) && freed >= engine.options.segment_size / 2;
        live += s.len() - s.dead();
        freed += s.dead();
        live <= engine.options.segment_size && !enough
    });
    wanted.truncate(fitting.count().max(1));
    if wanted.is_empty() {
        wanted = small_segments(engine, sealed);
    }
    Ok(wanted)
}

fn nearly_dead(segment: &Arc<Segment>) -> bool {
    segment.dead() * 100 >= segment.len() * NEARLY_DEAD as u64
}

/// Whether a segment holds enough garbage.
fn wants(engine: &Engine, segment: &Arc<Segment>, goal: Goal, retirements: u64) -> Result<bool> {
    let unchecked = segment.tombstones() > 0 && segment.checked() != retirements;
    let frames = segment.len().saturating_sub(HEADER_LEN as u64);
    let garbage_is = |bytes: u64, percent: u32| bytes > 0 && bytes * 100 >= frames * percent as u64;
    match goal {
        Goal::Everything(newest) => {
            if segment.id() <= newest && segment.dead() > 0 {
                return Ok(true);
            }
            if unchecked {
                segment.set_checked(retirements);
                return Ok(useless_tombstones(engine, segment)? > 0);
            }
            Ok(false)
        }
        Goal::Patient => Ok(garbage_is(segment.dead(), engine.options.garbage_percent.max(NEARLY_DEAD))),
        Goal::Automatic => {
            let garbage_is = |bytes| garbage_is(bytes, engine.options.garbage_percent);
            if garbage_is(segment.dead()) {
                return Ok(true);
            }
            if unchecked && garbage_is(segment.dead() + segment.tombstones()) {
                segment.set_checked(retirements);
                return enough_useless_tombstones(engine, segment, |bytes| garbage_is(segment.dead() + bytes));
            }
            Ok(false)
        }
    }
}

/// Sorts by keys that writers may change meanwhile: each is taken once. For each kind of key the library would have a sort of
/// its own, of several KiB.
fn sort_by(segments: &mut [Arc<Segment>], key: &dyn Fn(&Segment) -> u64) {
    segments.sort_by_cached_key(|segment| key(segment));
}

/// Small segments that are worth merging: enough of them, and none so much larger than the others that its records
/// would be rewritten for their sake.
fn small_segments(engine: &Engine, sealed: Vec<Arc<Segment>>) -> Vec<Arc<Segment>> {
    let mut small: Vec<_> = sealed.into_iter().filter(|s| s.len() < engine.options.segment_size / 4).collect();
    sort_by(&mut small, &|s| s.len());
    while let [rest @ .., largest] = &small[..] {
        if small.len() < MERGE_COUNT {
            return Vec::new();
        }
        let total: u64 = rest.iter().map(|s| s.len()).sum();
        if largest.len() <= total && largest.len() + total <= engine.options.segment_size {
            break;
        }
        small.pop();
    }
    small
}

impl Engine {
    /// What the log is to stay under with so many live bytes in it: with the default ratio, twice as many and the
    /// threshold.
    pub(crate) fn log_limit(&self, live: u64) -> u64 {
        let live_share = 100 - self.options.garbage_percent.min(99) as u64;
        self.options.compact_threshold.saturating_add(live * 100 / live_share.min(50))
    }

    /// Bytes of the log and live bytes in it, what compaction cannot touch apart.
    pub(crate) fn log_and_live(&self) -> (u64, u64) {
        self.index
            .segments()
            .iter()
            .filter(|s| !s.quarantined())
            .fold((0, 0), |(log, live), s| (log + s.len(), live + s.len().saturating_sub(s.dead() + HEADER_LEN as u64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sim::{PageMode, SimStorage};
    use crate::{Options, Store};

    #[test]
    fn no_more_is_compacted_than_frees_half_a_segment_unless_it_is_nearly_dead() {
        let segment_size = 128 << 10;
        let options = Options { background: false, segment_size, compact_threshold: 1, ..Options::default() };
        let store = Store::open_on(Arc::new(SimStorage::new(1, PageMode::Page)), &options).unwrap();
        let engine = &store.engine;
        let nothing_is_compacted = engine.maintenance.lock();
        // About half a segment.
        const KEYS: u8 = 100;
        let set = |group: u8, keys| (0..keys).for_each(|n| store.set(&[group, n], &[0; 600]).unwrap());
        for group in 0..4 {
            set(group, KEYS);
            engine.appender().unwrap().rotate().unwrap();
        }
        (0..3).for_each(|group| set(group, 80 - 10 * group));
        engine.sync_rotated().unwrap();
        engine.seal_synced().unwrap();
        let chosen = |goal| {
            engine.prove_all().unwrap();
            choose(engine, goal, 0).unwrap().iter().map(|segment| segment.id()).collect::<Vec<_>>()
        };
        assert_eq!(chosen(Goal::Automatic), [1, 2]);
        assert_eq!(chosen(Goal::Everything(u64::MAX)), [1, 2, 3]);
        (0..3).for_each(|group| set(group, 97 - group));
        assert!(chosen(Goal::Automatic).ends_with(&[1, 2, 3]));
        drop(nothing_is_compacted);
    }
}
