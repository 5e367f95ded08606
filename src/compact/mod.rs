//! Compaction: the live records of some segments are moved to a new one, and the old ones are retired.
//!
//! A [`Job`] does it in steps of bounded size, so that it can run in a thread of its own or in slices inside `set`.
//! The order makes it safe against a crash at any point:
//!
//! 1. copy the live records to an output, and the tombstones that still hide an older record somewhere;
//! 2. sync the output, and the log: what made the dropped records stale must not be lost after they are;
//! 3. point the index at the copies, wherever it still points at what was copied;
//! 4. replace MANIFEST: the output is in, the inputs are out;
//! 5. unlink the inputs once nobody reads them any more.

mod choose;
mod everything;
mod output;
mod tombstones;

use std::sync::Arc;

use crate::engine::{Engine, hash_key};
use crate::error::{Code, Error, Result};
use crate::index::{KeyHash, Position};
use crate::log::header::HEADER_LEN;
use crate::log::hint::{self, HintEntry};
use crate::log::scan::{Item, Scanner};
use crate::log::segment::{Segment, State, file_name};
pub(crate) use choose::{Goal, choose};
use output::Output;
use tombstones::Tombstone;

/// So many records are read ahead of looking them up in the index: the cache misses of that then overlap.
const LOOK_AHEAD: usize = 32;
/// A segment that so often could not be read is left alone.
const MOST_FAILURES: u8 = 3;
/// So many entries are pointed at their new place under one hold of the append lock.
const REPOINT_BATCH: usize = 32;

/// A compaction under way.
pub(crate) struct Job {
    inputs: Vec<Input>,
    stage: Stage,
    output: Option<Output>,
    /// The tombstones of the inputs that nothing newer has made useless.
    tombstones: Vec<Tombstone>,
}

struct Input {
    segment: Arc<Segment>,
    slot: u32,
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
    /// Copying the live records of the input of this number.
    Copy(usize),
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
            inputs.push(Input { segment, slot, scanner: None });
        }
        Ok(Job { inputs, stage: Stage::Copy(0), output: None, tombstones: Vec::new() })
    }

    /// Does about `budget` bytes of work. After an error the job is to be abandoned, unless it must finish: then the
    /// step is to be tried again.
    pub(crate) fn step(&mut self, engine: &Engine, budget: u64) -> Result<Progress> {
        match self.stage {
            Stage::Copy(number) => self.copy(engine, number, budget),
            Stage::Weigh => {
                let inputs: Vec<_> = self.inputs().cloned().collect();
                tombstones::weigh(engine, &inputs, &mut self.tombstones);
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
        if let Some(output) = self.output {
            // Should this fail, the next open removes it: MANIFEST does not list it.
            let _ = engine.storage.remove(&file_name(output.header.id));
            let _ = engine.storage.remove(&hint::name(output.header.id));
        }
    }

    fn copy(&mut self, engine: &Engine, number: usize, budget: u64) -> Result<Progress> {
        let Some(input) = self.inputs.get_mut(number) else {
            self.stage = Stage::Weigh;
            return Ok(Progress::More);
        };
        if input.segment.dead() + HEADER_LEN as u64 >= input.segment.len() && input.segment.tombstones() == 0 {
            self.stage = Stage::Copy(number + 1);
            return Ok(Progress::More);
        }
        let (mut done, mut ahead) = (0, Vec::with_capacity(LOOK_AHEAD));
        while done < budget {
            let read = input.scanner(engine).and_then(|scanner| look_ahead(engine, scanner, &mut ahead));
            let ended = match read {
                Ok(ended) => ended,
                // It may work the next time, but is not to be tried for ever.
                Err(e) if e.code() == Code::Io && input.segment.note_failure() >= MOST_FAILURES => true,
                Err(e) => return Err(e),
            };
            for entry in ahead.drain(..) {
                done += entry.len;
                let from = Position::new(input.slot, entry.offset, entry.len);
                if entry.tombstone {
                    self.tombstones.try_reserve(1).map_err(|_| Error::no_memory("compaction"))?;
                    self.tombstones.push(Tombstone { entry, input: number, needed: false });
                } else if is_at(engine, KeyHash(entry.hash), from)? {
                    Output::of(&mut self.output, engine)?.take(input.scanner(engine)?, from, entry)?;
                }
            }
            if ended {
                let whole = input.scanner.take().is_some_and(|scanner| scanner.at() == input.segment.len());
                if !whole {
                    input.segment.quarantine();
                    return Ok(Progress::Quarantined);
                }
                self.stage = Stage::Copy(number + 1);
                return Ok(Progress::More);
            }
        }
        Ok(Progress::More)
    }

    fn copy_tombstone(&mut self, engine: &Engine, mut number: usize, budget: u64) -> Result<Progress> {
        let mut done = 0;
        while done < budget {
            let Some(t) = self.tombstones.get(number) else {
                self.stage = Stage::Sync;
                return Ok(Progress::More);
            };
            if let Some(before) = t.input.checked_sub(1) {
                self.inputs[..=before].iter_mut().for_each(|input| input.scanner = None);
            }
            let input = &mut self.inputs[t.input];
            let from = Position::new(input.slot, t.entry.offset, t.entry.len);
            Output::of(&mut self.output, engine)?.take(input.scanner(engine)?, from, t.entry)?;
            done += t.entry.len;
            number += 1;
            self.stage = Stage::CopyTombstones(number);
        }
        Ok(Progress::More)
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
        let Some(Output { entries, from, segment: Some(segment), .. }) = &self.output else {
            return Err(Error::new(Code::Internal, "an output without a segment"));
        };
        let stop = number + (budget / 64).max(REPOINT_BATCH as u64) as usize;
        while number < stop.min(entries.len()) {
            entries[number..].iter().take(REPOINT_BATCH).for_each(|e| engine.index.prefetch(KeyHash(e.hash)));
            let _writers_wait = engine.appender()?;
            for _ in 0..REPOINT_BATCH.min(entries.len() - number) {
                let entry = &entries[number];
                if !entry.tombstone {
                    let to = Position::new(slot, entry.offset, entry.len);
                    let mut shard = engine.index.write(KeyHash(entry.hash))?;
                    shard.reserve(KeyHash(entry.hash))?;
                    if !shard.replace(KeyHash(entry.hash), from[number], to) {
                        segment.add_dead(entry.len);
                    }
                }
                number += 1;
                self.stage = Stage::Repoint(number, slot);
            }
        }
        if number == entries.len() {
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
            Stage::Copy(number) => {
                let (before, rest) = self.inputs.split_at(number);
                let current = rest.first().and_then(|input| input.scanner.as_ref()).map_or(0, Scanner::at);
                whole(before) + current
            }
            _ => whole(&self.inputs),
        }
    }

    /// Bytes that the output has taken.
    pub(crate) fn output_len(&self) -> u64 {
        self.output.as_ref().map_or(0, |output| output.written)
    }
}

/// Whether the index has an entry at exactly this position.
fn is_at(engine: &Engine, hash: KeyHash, position: Position) -> Result<bool> {
    Ok(engine.index.read(hash)?.candidates(hash).any(|candidate| candidate == position))
}

/// Reads some records: sets, which are soon looked up in the index, and tombstones that no newer record of their key has
/// made useless. True at the end, or where no record can be read.
fn look_ahead(engine: &Engine, scanner: &mut Scanner, ahead: &mut Vec<HintEntry>) -> Result<bool> {
    for _ in 0..LOOK_AHEAD {
        match scanner.next()? {
            Item::Record { offset, len, head } => {
                let (timestamp, tombstone) = (head.timestamp, head.value_len.is_none());
                let hash = hash_key(engine.hash_seed, head.key);
                if !tombstone {
                    engine.index.prefetch(hash);
                } else if engine.locate(head.key, hash)?.1.is_some_and(|newer| newer.len > 0) {
                    continue;
                }
                ahead.push(HintEntry { hash: hash.0, offset, len, timestamp, tombstone });
            }
            Item::Mark(_) => {}
            Item::End | Item::Bad(_) => return Ok(true),
        }
    }
    Ok(false)
}
