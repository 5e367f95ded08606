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

/// The segments to compact next, if any: the worst first, and as many as fit into one output.
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
        Goal::Automatic | Goal::Patient => wanted.sort_by_key(|s| std::cmp::Reverse(s.dead() * 1000 / s.len().max(1))),
        // Oldest first: then a tombstone comes up when what it hides has gone.
        Goal::Everything(_) => wanted.sort_by_key(|s| (s.min_timestamp(), s.id())),
    }
    if engine.factory.reserve.lent() {
        // The disk is full: the segment that takes least to be rewritten, and so gives back most.
        wanted.sort_by_key(|s| s.len() - s.dead());
        wanted.truncate(1);
    }
    if matches!(goal, Goal::Automatic) && wanted.first().is_some_and(nearly_dead) {
        // They are done at once; were they to wait for what others have to be copied, so would the space they take.
        wanted.retain(nearly_dead);
    }
    let mut live = 0;
    let fitting = wanted.iter().take(MOST_INPUTS).take_while(|s| {
        live += s.len() - s.dead();
        live <= engine.options.segment_size
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

/// Small segments that are worth merging: enough of them, and none so much larger than the others that its records
/// would be rewritten for their sake.
fn small_segments(engine: &Engine, sealed: Vec<Arc<Segment>>) -> Vec<Arc<Segment>> {
    let mut small: Vec<_> = sealed.into_iter().filter(|s| s.len() < engine.options.segment_size / 4).collect();
    small.sort_by_key(|s| s.len());
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
