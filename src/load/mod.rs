//! Filling the index from what is known of each segment's records: from hints, or from a scan where there is none.
//!
//! The hashes are shared out among a few threads. Each brings all records of one hash together, in the order of the
//! hashes, and the newest of each key wins. Values are not read, and keys only where two records have the same hash.

mod share;
#[cfg(test)]
mod tests;
mod window;

use std::num::NonZero;
use std::sync::{Arc, Mutex};

use crate::engine::lock;
use crate::error::{Code, Error, Result};
use crate::index::Index;
use crate::log::hint::{self, HintEntry, HintReader};
use crate::log::segment::Segment;
use crate::maintenance::with_signals_blocked;
use share::{Feed, Share, Tally};

/// The shards of the index are chosen by so many top bits of the hash.
const SHARD_BITS: u32 = 8;
/// For fewer records than this no thread is worth starting.
const WORTH_A_THREAD: u64 = 100_000;
const MOST_THREADS: usize = 4;
/// So many entries of all hints together are in memory at once; but each hint is read in blocks of so many at least, and at
/// most.
const READ_AT_ONCE: u64 = 256 << 10;
const LEAST_READ: u64 = 128;
const MOST_READ: u64 = 8 << 10;

/// The records of one segment: of its first part from a hint, of the rest from a scan.
pub(crate) struct Source {
    pub segment: Arc<Segment>,
    pub slot: u32,
    pub hint: Option<HintReader>,
    /// Sorted by hash.
    pub scanned: Vec<HintEntry>,
}

impl Source {
    pub(crate) fn new(
        segment: Arc<Segment>,
        slot: u32,
        hint: Option<HintReader>,
        mut scanned: Vec<HintEntry>,
    ) -> Source {
        hint::sort(&mut scanned);
        Source { segment, slot, hint, scanned }
    }
}

/// Fills the empty index, with the help of threads if they are allowed. Returns the largest timestamp, and the sources
/// whose hint turned out to be rotten: what was put into the index is worth nothing if there is any.
pub(crate) fn fill(index: &Index, seed: [u64; 2], sources: &mut [Source], threads: bool) -> Result<(i64, Vec<usize>)> {
    let worth_it = threads && number_of_records(sources) >= WORTH_A_THREAD;
    let threads = if worth_it { std::thread::available_parallelism().map_or(1, NonZero::get) } else { 1 };
    fill_with(index, seed, sources, threads.min(MOST_THREADS))
}

/// As `fill`, with so many threads.
fn fill_with(index: &Index, seed: [u64; 2], sources: &mut [Source], threads: usize) -> Result<(i64, Vec<usize>)> {
    let records = number_of_records(sources);
    let hints: Vec<_> = sources.iter_mut().map(|source| source.hint.take()).collect();
    let sources = &*sources;
    let mut shares = share_out(sources, hints, threads)?;
    load_all(&mut shares, |share| share.load(index, seed, sources, records))?;
    let (mut last_timestamp, mut rotten) = (i64::MIN, Vec::new());
    let mut feeds: Vec<_> = shares.into_iter().map(|share| share.feeds.into_iter()).collect();
    for (i, source) in sources.iter().enumerate() {
        let (mut pieces, mut tally, mut intact) = (Vec::new(), Tally::default(), true);
        for feed in feeds.iter_mut().filter_map(Iterator::next) {
            tally.add(&feed.tally);
            intact &= !feed.rotten;
            pieces.extend(feed.hint);
        }
        tally.tell(&source.segment);
        last_timestamp = last_timestamp.max(tally.max_timestamp);
        if !intact || !pieces.is_empty() && !HintReader::finish_all(pieces).unwrap_or(false) {
            rotten.push(i);
        }
    }
    Ok((last_timestamp, rotten))
}

/// How many records there are, if the hints say the truth.
fn number_of_records(sources: &[Source]) -> u64 {
    sources.iter().map(|s| s.hint.as_ref().map_or(0, HintReader::unread) + s.scanned.len() as u64).sum()
}

/// Divides the shards, and what is to go into them, evenly.
fn share_out(sources: &[Source], hints: Vec<Option<HintReader>>, count: usize) -> Result<Vec<Share<'_>>> {
    let bounds: Vec<u64> = (0..=count).map(|i| ((i << SHARD_BITS) / count) as u64).collect();
    let mut shares: Vec<Share> = bounds.windows(2).map(|w| Share::new(w[0]..w[1])).collect();
    let starts: Vec<u64> = bounds[1..count].iter().map(|shard| shard << (u64::BITS - SHARD_BITS)).collect();
    let block = (READ_AT_ONCE / (sources.len().max(1) * count) as u64).clamp(LEAST_READ, MOST_READ);
    for (source, hint) in sources.iter().zip(hints) {
        let had_hint = hint.is_some();
        let pieces = match hint.map(|hint| hint.divide(&starts, block)).transpose() {
            Err(e) if e.code() == Code::NoMemory => return Err(e),
            // A hint that cannot be read is as good as none.
            pieces => pieces.ok().flatten().unwrap_or_default(),
        };
        let rotten = had_hint && pieces.is_empty();
        let (mut pieces, mut scanned) = (pieces.into_iter(), source.scanned.as_slice());
        for share in &mut shares {
            let here = scanned.partition_point(|e| e.hash >> (u64::BITS - SHARD_BITS) < share.shards.end);
            let (taken, rest) = scanned.split_at(here);
            scanned = rest;
            share.feeds.push(Feed::new(source.slot, pieces.next(), taken, rotten));
        }
    }
    Ok(shares)
}

/// Loads all shares, each in a thread of its own if those can be started.
fn load_all(shares: &mut [Share], load: impl Fn(&mut Share) -> Result<()> + Sync) -> Result<()> {
    let helpers = shares.len() - 1;
    let work = Mutex::new(shares.iter_mut());
    let next = || lock(&work).next();
    let run = || {
        while let Some(share) = next() {
            load(share)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let start = || std::thread::Builder::new().name("kvstore".into()).spawn_scoped(scope, run);
        let started: Vec<_> = (0..helpers).map_while(|_| with_signals_blocked(start).ok()).collect();
        let mut result = run();
        for thread in started {
            let panicked = |_| Err(Error::new(Code::Internal, "a thread that loads the index has panicked"));
            result = result.and(thread.join().unwrap_or_else(panicked));
        }
        result
    })
}
