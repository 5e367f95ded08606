//! Reading many keys at once: the same as one by one, but the waiting for memory overlaps, and all values are of one
//! moment.

use std::ops::Range;
use std::sync::Arc;

use crate::engine::{Engine, Store};
use crate::error::{Error, Result};
use crate::index::{KeyHash, Position, Segments};
use crate::log::segment::Segment;
use crate::read::{ValueBuf, unreadable};
use crate::snapshot::read_record;

/// So many keys are looked up in the index, and so many records asked for, ahead of need.
const LOOK_AHEAD: usize = 16;

/// A key on its way to its value.
struct Lookup<'a> {
    hash: KeyHash,
    key: &'a [u8],
    number: usize,
    /// The index entries that may be the key's, by their places among those of all keys.
    candidates: Range<usize>,
}

/// An index entry, and by its place among the tables of segments the one that it goes with.
#[derive(Clone, Copy)]
struct Candidate {
    position: Position,
    table: usize,
}

/// What the index said at one moment. The tables keep the segments readable.
struct Found<'a> {
    lookups: Vec<Lookup<'a>>,
    candidates: Vec<Candidate>,
    tables: Vec<Arc<Segments>>,
}

/// Where a value is: in a mapped segment, or in a record that has been read.
enum Value<'a> {
    Mapped(&'a [u8]),
    Read(Vec<u8>, Range<usize>),
}

impl Store {
    /// The values of many keys as they were at one moment. All are stored one behind the other to where `out` says; for
    /// each key, in the order given, the result tells where its value is, if it was stored.
    pub fn get_many<B: ValueBuf>(&self, keys: &[&[u8]], out: &mut B) -> Result<Vec<Option<Range<usize>>>> {
        self.check_process()?;
        let found = self.engine.look_up(keys)?;
        let values = self.engine.read_found(&found)?;
        deliver(values, keys.len(), out)
    }
}

impl Engine {
    /// Looks all keys up while all their shards are locked. The log is not touched meanwhile.
    fn look_up<'a>(&self, keys: &[&'a [u8]]) -> Result<Found<'a>> {
        let no_memory = |_| Error::no_memory("the look-up of many keys");
        let (mut lookups, mut candidates, mut tables) = (Vec::new(), Vec::new(), Vec::<Arc<Segments>>::new());
        lookups.try_reserve_exact(keys.len()).map_err(no_memory)?;
        let numbered = keys.iter().enumerate();
        lookups.extend(numbered.map(|(number, key)| Lookup { hash: self.hash(key), key, number, candidates: 0..0 }));
        lookups.sort_unstable_by_key(|lookup| lookup.hash);
        candidates.try_reserve_exact(keys.len()).map_err(no_memory)?;
        let shards = self.index.read_all(lookups.iter().map(|lookup| lookup.hash))?;
        let (mut at, mut ahead) = (0, (0, 0));
        for next in 0..lookups.len() {
            while ahead.0 < lookups.len().min(next + LOOK_AHEAD) {
                let hash = lookups[ahead.0].hash;
                while !shards[ahead.1].holds(hash) {
                    ahead.1 += 1;
                }
                shards[ahead.1].prefetch(hash);
                ahead.0 += 1;
            }
            let lookup = &mut lookups[next];
            while !shards[at].holds(lookup.hash) {
                at += 1;
            }
            if !tables.last().is_some_and(|table| Arc::ptr_eq(table, shards[at].segments())) {
                tables.try_reserve(1).map_err(no_memory)?;
                tables.push(Arc::clone(shards[at].segments()));
            }
            let (first, table) = (candidates.len(), tables.len() - 1);
            for position in shards[at].candidates(lookup.hash) {
                candidates.try_reserve(1).map_err(no_memory)?;
                candidates.push(Candidate { position, table });
            }
            lookup.candidates = first..candidates.len();
        }
        Ok(Found { lookups, candidates, tables })
    }

    /// The values of the keys, in the order in which they were looked up.
    fn read_found<'a>(&self, found: &'a Found<'_>) -> Result<Vec<(usize, Value<'a>)>> {
        let mut values = Vec::new();
        values.try_reserve_exact(found.lookups.len()).map_err(|_| Error::no_memory("many values"))?;
        let mut ahead = 0;
        for lookup in &found.lookups {
            while ahead < found.candidates.len().min(lookup.candidates.start + LOOK_AHEAD) {
                let (segment, position) = found.place(ahead)?;
                segment.prefetch(position.offset());
                ahead += 1;
            }
            let candidates = lookup
                .candidates
                .clone()
                .map(|candidate| found.place(candidate).map(|(segment, position)| (position, segment)));
            let Some(entry) = self.find_among(candidates, lookup.key, lookup.hash)? else { continue };
            let place = lookup.candidates.clone().map(|candidate| found.place(candidate));
            let place = place.flatten().find(|(_, position)| *position == entry.position);
            let Some((segment, position)) = place else { continue };
            if entry.len == 0 {
                return Err(unreadable(segment, position.offset()));
            }
            values.push((lookup.number, self.value_at(segment, position)?));
        }
        Ok(values)
    }

    fn value_at<'a>(&self, segment: &'a Segment, position: Position) -> Result<Value<'a>> {
        if let Some(frame) = segment.mapped_record(position.offset()) {
            return Ok(Value::Mapped(self.open_record(segment, position.offset(), frame)?.1));
        }
        let mut frame = Vec::new();
        read_record(segment, position, &mut frame)?;
        let value_len = self.open_record(segment, position.offset(), &frame)?.1.len();
        let end = frame.len() - crate::log::record::CRC_LEN;
        Ok(Value::Read(frame, end - value_len..end))
    }
}

impl Found<'_> {
    #[inline]
    fn place(&self, candidate: usize) -> Result<(&Arc<Segment>, Position)> {
        let Candidate { position, table } = self.candidates[candidate];
        Ok((self.tables[table].get(position.slot())?, position))
    }
}

impl Value<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Value::Mapped(bytes) => bytes,
            Value::Read(frame, value) => &frame[value.clone()],
        }
    }
}

/// Copies the values one behind the other.
fn deliver<B: ValueBuf>(
    values: Vec<(usize, Value<'_>)>,
    keys: usize,
    out: &mut B,
) -> Result<Vec<Option<Range<usize>>>> {
    let mut ranges = Vec::new();
    ranges.try_reserve_exact(keys).map_err(|_| Error::no_memory("many values"))?;
    ranges.resize(keys, None);
    let target = out.reserve(values.iter().map(|(_, value)| value.bytes().len()).sum())?;
    let mut at = 0;
    for (number, value) in &values {
        let bytes = value.bytes();
        let range = at..at + bytes.len();
        for (to, from) in target[range.clone()].iter_mut().zip(bytes) {
            to.write(*from);
        }
        at = range.end;
        ranges[*number] = Some(range);
    }
    Ok(ranges)
}
