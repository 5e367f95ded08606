//! Reading many keys at once: the same as one by one, but the waiting for memory overlaps, and all values are of one
//! moment.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::engine::{Engine, Store};
use crate::error::{Code, Error, Result};
use crate::index::{KeyHash, Overwrite, Position, Segments, shards_in_order, sort_hashes};
use crate::log::record::CRC_LEN;
use crate::log::segment::Segment;
use crate::read::{ValueBuf, unreadable};
use crate::snapshot::read_record;

/// So many places are asked for in a row before the first of them is used. Asking in a row matters: the processor walks
/// the page tables for as many of them at once as fit between those instructions that it has not finished.
const BLOCK: usize = 64;

/// An index entry that may be a key's.
#[derive(Clone, Copy)]
struct Candidate {
    hash: KeyHash,
    position: Position,
    /// The number of the key.
    key: u32,
    /// Which of the tables of segments the position goes with.
    table: u32,
}

/// What the index said at one moment. The tables keep the segments readable.
struct Found {
    /// Those of one key stand together.
    candidates: Vec<Candidate>,
    tables: Vec<Arc<Segments>>,
    /// What had been overwritten on trust.
    overwrites: Vec<Overwrite>,
}

impl Store {
    /// The values of many keys as they were at one moment. All are stored one behind the other to where `out` says; for
    /// each key, in the order given, the result tells where its value is, if it was stored.
    pub fn get_many<B: ValueBuf>(&self, keys: &[&[u8]], out: &mut B) -> Result<Vec<Option<Range<usize>>>> {
        self.check_process()?;
        let found = self.engine.look_up(keys)?;
        let values = self.engine.read_found(&found, keys)?;
        deliver(values, keys.len(), out)
    }
}

impl Engine {
    /// Looks all keys up while all their shards are locked. The log is not touched meanwhile.
    fn look_up(&self, keys: &[&[u8]]) -> Result<Found> {
        let no_memory = |_| Error::no_memory("the look-up of many keys");
        if u32::try_from(keys.len()).is_err() {
            return Err(Error::new(Code::Invalid, format!("{} keys are too many at once", keys.len())));
        }
        let (mut hashes, mut candidates, mut tables) = (Vec::new(), Vec::new(), Vec::<Arc<Segments>>::new());
        hashes.try_reserve_exact(keys.len()).map_err(no_memory)?;
        hashes.extend(keys.iter().map(|key| self.hash(key)).zip(0..));
        sort_hashes(&mut hashes)?;
        candidates.try_reserve_exact(keys.len()).map_err(no_memory)?;
        let shards = self.index.read_all(hashes.iter().map(|(hash, _)| *hash))?;
        let (mut shard_of, mut shard_ahead) = (shards_in_order(&shards), shards_in_order(&shards));
        for block in hashes.chunks(BLOCK) {
            block.iter().for_each(|&(hash, _)| shard_ahead(hash).prefetch(hash));
            for &(hash, key) in block {
                let shard = shard_of(hash);
                if !tables.last().is_some_and(|table| Arc::ptr_eq(table, shard.segments())) {
                    tables.try_reserve(1).map_err(no_memory)?;
                    tables.push(Arc::clone(shard.segments()));
                }
                let table = tables.len() as u32 - 1;
                for position in shard.candidates(hash) {
                    candidates.try_reserve(1).map_err(no_memory)?;
                    candidates.push(Candidate { hash, position, key, table });
                }
            }
        }
        let mut overwrites = Vec::new();
        for shard in &shards {
            let on_trust = shard.trust().overwrites();
            overwrites.try_reserve(on_trust.len()).map_err(no_memory)?;
            overwrites.extend_from_slice(on_trust);
        }
        Ok(Found { candidates, tables, overwrites })
    }

    /// The values of the keys with their numbers, in the order in which they were looked up.
    fn read_found<'a>(&self, found: &'a Found, keys: &[&[u8]]) -> Result<Vec<(u32, Cow<'a, [u8]>)>> {
        let mut values = Vec::new();
        values.try_reserve_exact(found.candidates.len()).map_err(|_| Error::no_memory("many values"))?;
        let (mut done, mut asked) = (0, 0);
        for candidates in found.candidates.chunk_by(|a, b| a.key == b.key) {
            done += candidates.len();
            if done > asked {
                asked = found.candidates.len().min(done + BLOCK);
                found.ask_for_records(&found.candidates[done - candidates.len()..asked])?;
            }
            let Candidate { hash, key: number, table, .. } = candidates[0];
            let (key, table) = (keys[number as usize], &found.tables[table as usize]);
            let place = |position: Position| Ok((position, table.get(position.slot())?));
            let mut entry = self.find_among(candidates.iter().map(|c| place(c.position)), key, hash)?;
            if entry.is_none() {
                entry = self.find_hidden(&found.overwrites, table, key, hash)?;
            }
            let Some(entry) = entry else { continue };
            let segment = table.get(entry.position.slot())?;
            if entry.len == 0 {
                return Err(unreadable(segment, entry.position.offset()));
            }
            values.push((number, self.value_at(segment, entry.position)?));
        }
        Ok(values)
    }

    fn value_at<'a>(&self, segment: &'a Segment, position: Position) -> Result<Cow<'a, [u8]>> {
        if let Some(frame) = segment.mapped_record(position.offset()) {
            return Ok(Cow::Borrowed(self.open_record(segment, position.offset(), frame)?.1));
        }
        let mut frame = Vec::new();
        read_record(segment, position, &mut frame)?;
        let value_len = self.open_record(segment, position.offset(), &frame)?.1.len();
        frame.truncate(frame.len() - CRC_LEN);
        frame.drain(..frame.len() - value_len);
        Ok(Cow::Owned(frame))
    }
}

impl Found {
    #[inline]
    fn segment(&self, candidate: &Candidate) -> Result<&Arc<Segment>> {
        self.tables[candidate.table as usize].get(candidate.position.slot())
    }

    fn ask_for_records(&self, candidates: &[Candidate]) -> Result<()> {
        candidates.iter().try_for_each(|candidate| {
            self.segment(candidate)?.prefetch(candidate.position.offset(), candidate.position.len_bound());
            Ok(())
        })
    }
}

/// Copies the values one behind the other.
fn deliver<B: ValueBuf>(
    values: Vec<(u32, Cow<'_, [u8]>)>,
    keys: usize,
    out: &mut B,
) -> Result<Vec<Option<Range<usize>>>> {
    let mut ranges = Vec::new();
    ranges.try_reserve_exact(keys).map_err(|_| Error::no_memory("many values"))?;
    ranges.resize(keys, None);
    let target = out.reserve(values.iter().map(|(_, value)| value.len()).sum())?;
    let mut at = 0;
    for (number, value) in &values {
        let range = at..at + value.len();
        for (to, from) in target[range.clone()].iter_mut().zip(value.iter()) {
            to.write(*from);
        }
        at = range.end;
        ranges[*number as usize] = Some(range);
    }
    Ok(ranges)
}
