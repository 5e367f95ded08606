//! Compaction: the live records of some segments are moved to a new one, and the old ones are retired.
//!
//! A [`Job`] does it in steps of bounded size, so that it can run in a thread of its own or in slices inside `set`.
//! The order makes it safe against a crash at any point:
//!
//! 1. ask the index which records are live, and copy those to an output, and the tombstones that still hide an older
//!    record somewhere;
//! 2. sync the output, and the log: what made the dropped records stale must not be lost after they are;
//! 3. point the index at the copies, wherever it still points at what was copied;
//! 4. replace MANIFEST: the output is in, the inputs are out;
//! 5. unlink the inputs once nobody reads them any more.

mod choose;
mod everything;
mod listing;
mod output;
mod tombstones;

use std::sync::Arc;

use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::index::{KeyHash, Position};
use crate::log::header::HEADER_LEN;
use crate::log::hint;
use crate::log::scan::Scanner;
use crate::log::segment::{Segment, State, file_name};
pub(crate) use choose::{Goal, choose};
use listing::{Found, Listing, Live};
use output::Output;

/// A segment that so often could not be read is left alone.
const MOST_FAILURES: u8 = 5;
/// So many entries are pointed at their new place under one hold of the append lock.
const REPOINT_BATCH: usize = 32;

/// A compaction under way.
pub(crate) struct Job {
    inputs: Vec<Input>,
    stage: Stage,
    output: Option<Output>,
    /// The live records of the input that is being copied, and the tombstones of all inputs.
    found: Found,
}

struct Input {
    segment: Arc<Segment>,
    slot: u32,
    /// There while the index is asked.
    listing: Option<Listing>,
    /// Open while the segment is read: a job may have more inputs than the process may have descriptors.
    scanner: Option<Scanner>,
}

impl Input {
    fn scanner(&mut self, engine: &Engine) -> Result<&mut Scanner> {
        if self.scanner.is_none() {
            let name = self.segment.name();
            let file = engine.storage.open(name, false).map_err(|e| Error::os(format_args!("open {name}"), &e))?;
            self.scanner = Some(Scanner::new(name, file, HEADER_LEN as u64, self.segment.len())?);
        }
        self.scanner.as_mut().ok_or_else(|| Error::new(Code::Internal, "no scanner"))
    }
}

enum Stage {
    /// Finding out which records of the input of this number are live.
    LookUp(usize),
    /// Copying those: so many of them have been.
    Copy(usize, usize),
    /// Finding out which tombstones are needed.
    Weigh,
    /// Copying those.
    CopyTombstones(usize),
    Sync,
    /// Pointing the index at the copy of this number.
    Repoint(usize, u32),
    Commit,
}

/// How far a step has brought a job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    More,
    /// The inputs are retired.
    Done,
    /// An input cannot be read. It has been quarantined, and the job has left no trace.
    Quarantined,
}

impl Job {
    /// A job that compacts these segments. They are sealed.
    pub(crate) fn new(engine: &Engine, segments: Vec<Arc<Segment>>) -> Result<Job> {
        let table = engine.index.segments();
        let mut inputs = Vec::new();
        for segment in segments {
            let slot = table.slot_of(&segment);
            let slot = slot.ok_or_else(|| Error::new(Code::Internal, "a segment to compact is not live"))?;
            inputs.push(Input { segment, slot, listing: None, scanner: None });
        }
        let job = Job { inputs, stage: Stage::LookUp(0), output: None, found: Found::default() };
        // Once those are done who have a claim, no record of an input loses its entry on trust: it would be taken for garbage.
        job.inputs().for_each(|segment| segment.set_in_compaction(true));
        match engine.appender().map(drop).and_then(|()| engine.prove_all()) {
            Ok(()) => Ok(job),
            Err(e) => {
                job.abandon(engine);
                Err(e)
            }
        }
    }

    /// Does about `budget` bytes of work. After an error the job is to be abandoned, unless it must finish: then the
    /// step is to be tried again.
    pub(crate) fn step(&mut self, engine: &Engine, budget: u64) -> Result<Progress> {
        match self.stage {
            Stage::LookUp(number) => self.look_up(engine, number, budget),
            Stage::Copy(number, copied) => self.copy(engine, number, copied, budget),
            Stage::Weigh => {
                let inputs: Vec<_> = self.inputs().cloned().collect();
                tombstones::weigh(engine, &inputs, &mut self.found.tombstones);
                self.stage = Stage::CopyTombstones(0);
                Ok(Progress::More)
            }
            Stage::CopyTombstones(number) => self.copy_tombstone(engine, number, budget),
            Stage::Sync => self.sync(engine),
            Stage::Repoint(number, slot) => self.repoint(engine, number, slot, budget),
            Stage::Commit => self.commit(engine),
        }
    }

    /// Whether the index already points at copies, so that the job can only go forward.
    pub(crate) fn must_finish(&self) -> bool {
        matches!(self.stage, Stage::Repoint(..) | Stage::Commit)
    }

    pub(crate) fn inputs(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.inputs.iter().map(|input| &input.segment)
    }

    /// Leaves everything as if the job had never been.
    pub(crate) fn abandon(self, engine: &Engine) {
        self.inputs().for_each(|segment| segment.set_in_compaction(false));
        if let Some(output) = self.output {
            // Should this fail, the next open removes it: MANIFEST does not list it.
            let _ = engine.storage.remove(&file_name(output.header.id));
            let _ = engine.storage.remove(&hint::name(output.header.id));
        }
    }

    fn look_up(&mut self, engine: &Engine, number: usize, budget: u64) -> Result<Progress> {
        let Some(input) = self.inputs.get_mut(number) else {
            self.stage = Stage::Weigh;
            return Ok(Progress::More);
        };
        let segment = &input.segment;
        if input.listing.is_none() {
            if segment.dead() + HEADER_LEN as u64 >= segment.len() && segment.tombstones() == 0 {
                self.stage = Stage::LookUp(number + 1);
                return Ok(Progress::More);
            }
            input.listing = Listing::by_hint(engine, segment);
        }
        let Some(listing) = &mut input.listing else { return self.list_by_scan(engine, number) };
        let by_hint = matches!(listing, Listing::Hint(_));
        let trusted = match look_up_some(engine, listing, (number, input.slot, segment), &mut self.found, budget) {
            Ok(true) => return Ok(Progress::More),
            Ok(false) => input.listing.take().map_or(Ok(false), Listing::finish),
            Err(e) => Err(e),
        };
        match trusted {
            Ok(true) => {
                self.found.sort_by_offset(segment.len());
                self.stage = Stage::Copy(number, 0);
                Ok(Progress::More)
            }
            Err(e) if e.code() == Code::NoMemory => Err(e),
            // It may not be the hint that cannot be read, but a scan is made only once.
            Err(e) if !by_hint => self.failed(number, e),
            _ => self.list_by_scan(engine, number),
        }
    }

    /// Has the listing of an input made anew, as its hint is worth nothing.
    fn list_by_scan(&mut self, engine: &Engine, number: usize) -> Result<Progress> {
        self.found.live.clear();
        self.found.tombstones.retain(|t| t.input != number);
        let input = &mut self.inputs[number];
        match Listing::by_scan(engine, &input.segment) {
            Ok(Some(listing)) => {
                input.listing = Some(listing);
                Ok(Progress::More)
            }
            Ok(None) => Ok(self.quarantine(number)),
            Err(e) => self.failed(number, e),
        }
    }

    fn copy(&mut self, engine: &Engine, number: usize, mut copied: usize, budget: u64) -> Result<Progress> {
        let mut done = 0;
        while let Some(live) = self.found.live.get(copied) {
            if done >= budget {
                return Ok(Progress::More);
            }
            done += live.entry.len;
            if let Some(end) = self.copy_record(engine, number, *live)? {
                return Ok(end);
            }
            copied += 1;
            self.stage = Stage::Copy(number, copied);
        }
        self.found.live.clear();
        self.inputs[number].scanner = None;
        self.stage = Stage::LookUp(number + 1);
        Ok(Progress::More)
    }

    fn copy_tombstone(&mut self, engine: &Engine, mut number: usize, budget: u64) -> Result<Progress> {
        let mut done = 0;
        while done < budget {
            let Some(t) = self.found.tombstones.get(number) else {
                self.stage = Stage::Sync;
                return Ok(Progress::More);
            };
            if let Some(before) = t.input.checked_sub(1) {
                self.inputs[..=before].iter_mut().for_each(|input| input.scanner = None);
            }
            let (source, entry) = (t.input, t.entry);
            let Input { segment, slot, .. } = &self.inputs[source];
            if entry.offset().checked_add(entry.len).is_none_or(|end| end > segment.len()) {
                return Ok(self.quarantine(source));
            }
            let from = Position::new(*slot, entry.offset(), entry.len);
            if let Some(end) = self.copy_record(engine, source, Live { entry, from })? {
                return Ok(end);
            }
            done += entry.len;
            number += 1;
            self.stage = Stage::CopyTombstones(number);
        }
        Ok(Progress::More)
    }

    /// Copies a record to the output. What the job has come to if it cannot be read.
    fn copy_record(&mut self, engine: &Engine, number: usize, live: Live) -> Result<Option<Progress>> {
        let input = &mut self.inputs[number];
        let read = input.scanner(engine).and_then(|s| s.holds_record(live.entry.offset(), live.entry.len));
        match read {
            Ok(true) => {
                let output = Output::of(&mut self.output, engine, input.segment.len())?;
                output.take(input.scanner(engine)?, live).map(|()| None)
            }
            Ok(false) => Ok(Some(self.quarantine(number))),
            Err(e) => self.failed(number, e).map(Some),
        }
    }

    /// Has compaction leave an input alone from now on.
    fn quarantine(&self, number: usize) -> Progress {
        self.inputs[number].segment.quarantine();
        Progress::Quarantined
    }

    /// What a failed read of an input leads to: it may work the next time, but is not to be tried for ever.
    fn failed(&self, number: usize, e: Error) -> Result<Progress> {
        let for_good = e.code() == Code::Io && self.inputs[number].segment.note_failure() >= MOST_FAILURES;
        if for_good { Ok(self.quarantine(number)) } else { Err(e) }
    }

    fn sync(&mut self, engine: &Engine) -> Result<Progress> {
        if let Some(output) = &mut self.output {
            output.flush()?;
            let name = file_name(output.header.id);
            output.file.sync().map_err(|e| engine.poison(format_args!("sync {name}"), &e))?;
        }
        engine.sync_log()?;
        self.stage = match &mut self.output {
            Some(output) => Stage::Repoint(0, output.publish(engine)?),
            None => Stage::Commit,
        };
        Ok(Progress::More)
    }

    fn repoint(&mut self, engine: &Engine, mut number: usize, slot: u32, budget: u64) -> Result<Progress> {
        let Some(Output { moved, segment: Some(segment), .. }) = &self.output else {
            return Err(Error::new(Code::Internal, "an output without a segment"));
        };
        let stop = number.saturating_add((budget / 64).max(1) as usize);
        while number < stop.min(moved.len()) {
            let first = KeyHash(moved[number].entry.hash);
            let of_shard = moved[number..].iter().take_while(|m| KeyHash(m.entry.hash).shard() == first.shard());
            let count = of_shard.take(REPOINT_BATCH).count();
            // Writers wait for no more than what is in the caches.
            let ahead = engine.index.read(first)?;
            moved[number..].iter().take(count).for_each(|m| ahead.prefetch(KeyHash(m.entry.hash)));
            drop(ahead);
            let _writers_wait = engine.appender()?;
            let mut shard = engine.index.write(first)?;
            for Live { entry, from } in &moved[number..number + count] {
                if !entry.tombstone() {
                    let hash = KeyHash(entry.hash);
                    shard.reserve(hash)?;
                    if !shard.replace(hash, *from, Position::new(slot, entry.offset(), entry.len)) {
                        segment.add_dead(entry.len);
                    }
                }
                number += 1;
                self.stage = Stage::Repoint(number, slot);
            }
        }
        if number == moved.len() {
            self.stage = Stage::Commit;
        }
        Ok(Progress::More)
    }

    fn commit(&mut self, engine: &Engine) -> Result<Progress> {
        let inputs: Vec<_> = self.inputs().cloned().collect();
        engine.write_manifest(&inputs)?;
        engine.index.remove_segments(&inputs)?;
        inputs.iter().for_each(|segment| segment.set_state(State::Retired));
        Ok(Progress::Done)
    }

    /// Bytes of the inputs that have been read.
    pub(crate) fn read_len(&self) -> u64 {
        let whole = |inputs: &[Input]| inputs.iter().map(|input| input.segment.len()).sum::<u64>();
        match self.stage {
            Stage::LookUp(number) => whole(&self.inputs[..number.min(self.inputs.len())]),
            Stage::Copy(number, copied) => {
                whole(&self.inputs[..number]) + self.found.live.get(copied).map_or(0, |live| live.entry.offset())
            }
            _ => whole(&self.inputs),
        }
    }

    /// Bytes that the output has taken.
    pub(crate) fn output_len(&self) -> u64 {
        self.output.as_ref().map_or(0, |output| output.written)
    }

    /// As `output_len`, as long as the output is not a segment of the log.
    pub(crate) fn unpublished_len(&self) -> u64 {
        self.output.as_ref().filter(|output| output.segment.is_none()).map_or(0, |output| output.written)
    }
}

/// Asks the index about records of `budget` bytes. False at the end.
fn look_up_some(
    engine: &Engine,
    listing: &mut Listing,
    input: (usize, u32, &Arc<Segment>),
    found: &mut Found,
    budget: u64,
) -> Result<bool> {
    let mut done = 0u64;
    while done < budget {
        match listing.look_up(engine, input, found)? {
            0 => return Ok(false),
            len => done = done.saturating_add(len),
        }
    }
    Ok(true)
}
