//! Views of the store at one point in time: a snapshot shares the index with the store until that changes, and keeps the
//! segments that it can see.

use std::sync::atomic::{AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex};

use crate::MAX_KEY_LEN;
use crate::engine::{Engine, Store, lock};
use crate::error::{Code, Error, Result};
use crate::index::{Position, View};
use crate::log::record::{self, CRC_LEN, PREFIX_LEN, Prefix};
use crate::log::segment::Segment;
use crate::read::unreadable;

/// Counts the objects made from a store that are still alive.
#[derive(Default)]
pub(crate) struct Uses {
    pub snapshots: AtomicU64,
    pub iterators: AtomicU64,
}

impl Uses {
    pub(crate) fn any(&self) -> bool {
        self.snapshots.load(Acquire) + self.iterators.load(Acquire) > 0
    }
}

/// The store as it was when the snapshot was taken. May be used from any number of threads at once.
pub struct Snapshot {
    pub(crate) engine: Arc<Engine>,
    pub(crate) view: View,
    /// Values that had to be read by system calls: what has been given out stays valid.
    /// As vectors: moving a box would end what was borrowed from it, and shrinking to one may take memory.
    values: Mutex<Vec<Vec<u8>>>,
}

impl Store {
    /// Takes a snapshot. That takes the same short time however many keys there are.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.check_process()?;
        let view = self.engine.view()?;
        self.engine.uses.snapshots.fetch_add(1, AcqRel);
        Ok(Snapshot { engine: Arc::clone(&self.engine), view, values: Mutex::default() })
    }
}

impl Snapshot {
    /// A key's value at the time of the snapshot, if it was stored. No copy where the log is mapped.
    pub fn get(&self, key: &[u8]) -> Result<Option<&[u8]>> {
        self.engine.check_process()?;
        if key.len() > MAX_KEY_LEN {
            return Err(Error::new(Code::TooLarge, format!("a key of {} bytes: at most {MAX_KEY_LEN}", key.len())));
        }
        let Some(position) = self.engine.find_in(&self.view, key)? else { return Ok(None) };
        let segment = self.view.segment(position)?;
        if let Some(frame) = segment.mapped_record(position.offset()) {
            let value = self.engine.open_record(segment, position.offset(), frame)?.1;
            return Ok(Some(value));
        }
        let mut frame = Vec::new();
        read_record(segment, position, &mut frame)?;
        let len = self.engine.open_record(segment, position.offset(), &frame)?.1.len();
        let start = frame.len() - CRC_LEN - len;
        let mut values = lock(&self.values);
        values.try_reserve(1).map_err(|_| Error::no_memory("a value of a snapshot"))?;
        let value: *const [u8] = &frame[start..start + len];
        values.push(frame);
        // SAFETY: the vector is never changed and lives until the snapshot is dropped; moving it does not move its
        // bytes.
        Ok(Some(unsafe { &*value }))
    }

    /// How many keys there are.
    pub fn keys(&self) -> u64 {
        self.view.keys()
    }

    /// Whether this process is the one that took the snapshot.
    pub fn check_process(&self) -> Result<()> {
        self.engine.check_process()
    }

    /// Whether the snapshot was taken from this store.
    pub fn is_of(&self, store: &Store) -> bool {
        Arc::ptr_eq(&self.engine, &store.engine)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.engine.uses.snapshots.fetch_sub(1, AcqRel);
    }
}

impl Engine {
    /// The store at this moment.
    pub(crate) fn view(&self) -> Result<View> {
        let _writers_wait = self.appender()?;
        self.prove_all()?;
        self.index.view()
    }

    /// Where the record of a key is in a view. An error if that cannot be told for damage.
    fn find_in(&self, view: &View, key: &[u8]) -> Result<Option<Position>> {
        let hash = self.hash(key);
        let candidates = view.candidates(hash).map(|position| Ok((position, view.segment(position)?)));
        match self.find_among(candidates, key, hash)? {
            Some(entry) if entry.len == 0 => Err(unreadable(view.segment(entry.position)?, entry.position.offset())),
            found => Ok(found.map(|entry| entry.position)),
        }
    }

    /// Verifies a whole record of a value and takes it apart.
    #[inline]
    pub(crate) fn open_record<'a>(
        &self,
        segment: &Segment,
        offset: u64,
        frame: &'a [u8],
    ) -> Result<(&'a [u8], &'a [u8])> {
        self.verified(frame).ok_or_else(|| unreadable(segment, offset))
    }

    /// The key and the value of a whole record of a value, unless it is damaged.
    #[inline]
    pub(crate) fn verified<'a>(&self, frame: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        if self.options.verify_reads && !record::crc_matches(frame) { None } else { record::parts(frame) }
    }
}

/// Reads a whole record by system calls: one, as the index knows about how long it is.
pub(crate) fn read_record(segment: &Segment, position: Position, frame: &mut Vec<u8>) -> Result<()> {
    let damaged = || unreadable(segment, position.offset());
    let available = segment.len().checked_sub(position.offset()).ok_or_else(damaged)?;
    let bound = position.len_bound().min(available) as usize;
    frame.clear();
    frame.try_reserve_exact(bound).map_err(|_| Error::no_memory("a record"))?;
    frame.resize(bound, 0);
    segment.read_exact(frame, position.offset())?;
    let prefix = frame.first_chunk::<PREFIX_LEN>().and_then(|bytes| Prefix::parse(*bytes)).ok_or_else(damaged)?;
    if prefix.frame_len > bound as u64 {
        return Err(damaged());
    }
    frame.truncate(prefix.frame_len as usize);
    Ok(())
}
