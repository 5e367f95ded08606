//! Writing: stamp, append, point the index at it. One writer at a time, so that log and index agree on the order.

use std::sync::atomic::Ordering::Relaxed;

use crate::append::Appender;
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::index::{KeyHash, Position, Shard};
use crate::log::record::{DataFileEntry, record_len};
use crate::options::SyncLevel;
use crate::read::Entry;
use crate::sync::poisoned;
use crate::{MAX_KEY_LEN, MAX_VALUE_LEN};

/// Records up to this are copied to the log while the shard is locked: locking it twice would cost more.
const COPY_UNDER_LOCK: u64 = 4 << 10;

/// After so many new keys in a row the next one is expected to be new, too.
const EXPECT_FRESH: u32 = 8;

/// What must be so for a write to happen.
#[derive(Clone, Copy)]
pub(crate) enum Condition<'a> {
    None,
    /// The key is not stored.
    Absent,
    /// The key has this value.
    Value(&'a [u8]),
}

/// What has become of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was done; whether the key was stored before.
    Done { existed: bool },
    /// There was nothing to delete.
    Nothing,
    /// The condition did not hold.
    Conflict,
}

/// A change of one entry of the index: to nothing, from nothing, or from one position to another.
pub(crate) struct Change {
    pub old: Option<Position>,
    pub new: Option<Position>,
}

impl Change {
    /// After [`Shard::reserve`].
    #[inline]
    pub(crate) fn apply(&self, shard: &mut Shard, hash: KeyHash) {
        match (self.old, self.new) {
            (None, Some(new)) => shard.insert(hash, new),
            (Some(old), Some(new)) => drop(shard.replace(hash, old, new)),
            (Some(old), None) => drop(shard.remove(hash, old)),
            (None, None) => {}
        }
    }

    pub(crate) fn reversed(&self) -> Change {
        Change { old: self.new, new: self.old }
    }
}

/// How far a write has brought the log, and what it leaves to do.
pub(crate) struct Written {
    /// How far the log has been written.
    pub appended: u64,
    /// Garbage made since open.
    pub garbage_before: u64,
    pub garbage: u64,
    /// Segments waiting to be synced and sealed.
    pub backlog_before: usize,
    pub backlog: usize,
}

impl Written {
    /// What has happened since there was so much garbage and such a backlog.
    pub(crate) fn since((garbage_before, backlog_before): (u64, usize), appender: &Appender) -> Written {
        let (appended, garbage, backlog) = (appender.appended, appender.garbage, appender.backlog());
        Written { appended, garbage_before, garbage, backlog_before, backlog }
    }
}

impl Engine {
    /// Stores a value under a key.
    pub(crate) fn set(&self, key: &[u8], value: &[u8]) -> Result<()> {
        if key.len() > MAX_KEY_LEN || value.len() as u64 > MAX_VALUE_LEN {
            return Err(too_large(key.len(), value.len()));
        }
        self.write(key, Some(value), Condition::None).map(drop)
    }

    /// Stores a value if the condition holds. Returns whether it did.
    pub(crate) fn set_if(&self, key: &[u8], value: &[u8], condition: Condition<'_>) -> Result<bool> {
        if key.len() > MAX_KEY_LEN || value.len() as u64 > MAX_VALUE_LEN {
            return Err(too_large(key.len(), value.len()));
        }
        Ok(self.write(key, Some(value), condition)? != Outcome::Conflict)
    }

    /// Removes a key. False if it was not there; then nothing is written.
    pub(crate) fn del(&self, key: &[u8]) -> Result<bool> {
        if key.len() > MAX_KEY_LEN {
            return Err(too_large(key.len(), 0));
        }
        Ok(self.write(key, None, Condition::None)? == Outcome::Done { existed: true })
    }

    /// An error if this handle takes no writes.
    #[inline]
    pub(crate) fn check_takes_writes(&self) -> Result<()> {
        if self.options.read_only {
            return Err(Error::new(Code::ReadOnly, "the store was opened for reading only"));
        }
        if self.commit.poisoned() {
            return Err(poisoned());
        }
        Ok(())
    }

    /// Appends a record, or a tombstone if there is something to delete.
    fn write(&self, key: &[u8], value: Option<&[u8]>, condition: Condition<'_>) -> Result<Outcome> {
        self.check_takes_writes()?;
        let hash = self.hash(key);
        if let Some(value) = value
            && matches!(condition, Condition::None)
            && self.expects_fresh()
            && let Some((outcome, written)) = self.write_fresh(key, value, hash)?
        {
            return self.after_write(outcome, &written);
        }
        // Most of the work, and any waiting for a cold page, before the lock that all writers share.
        let found = self.locate(key, hash)?;
        if value.is_none() && found.1.is_none() {
            return Ok(Outcome::Nothing);
        }
        self.maintenance.slow_down(self, record_len(key.len(), value.map(<[u8]>::len)));
        let (outcome, written) = match self.append_and_index(key, value, hash, found, condition) {
            Err(e) if e.code() == Code::NoSpace && self.make_room(value.is_none()) => {
                self.append_and_index(key, value, hash, self.locate(key, hash)?, condition)?
            }
            other => other?,
        };
        self.after_write(outcome, &written)
    }

    #[inline]
    fn after_write(&self, outcome: Outcome, written: &Written) -> Result<Outcome> {
        if matches!(outcome, Outcome::Done { .. }) {
            if self.options.sync == SyncLevel::Always {
                self.sync_to(written.appended)?;
            }
            self.maintenance.after_write(self, written);
        }
        Ok(outcome)
    }

    /// Appends the record of a key that is expected to be new: then there is nothing in the log to be compared before the
    /// lock, and the record is written while the index entry's line is on its way. `None`, and nothing has changed, if it
    /// has to be done with more care.
    fn write_fresh(&self, key: &[u8], value: &[u8], hash: KeyHash) -> Result<Option<(Outcome, Written)>> {
        let len = record_len(key.len(), Some(value.len()));
        if len > COPY_UNDER_LOCK {
            return Ok(None);
        }
        self.maintenance.slow_down(self, len);
        let mut appender = self.appender()?;
        let before = (appender.garbage, appender.backlog());
        let entry = DataFileEntry { timestamp: appender.next_timestamp()?, key, value: Some(value) };
        if appender.prepare(len, false, &self.index).is_err() {
            return Ok(None);
        }
        let mut shard = self.index.write(hash)?;
        shard.prefetch_to_change(hash);
        if !appender.stage(&entry, len)? {
            return Ok(None);
        }
        let old = self.find(&shard, key, hash).and_then(|old| shard.reserve(hash).map(|()| old));
        let old = old.inspect_err(|_| appender.retract_frame())?;
        let position = appender.publish(entry.timestamp, len)?;
        self.replace(&mut appender, &mut shard, hash, old, Some(position))?;
        let outcome = Outcome::Done { existed: old.is_some() };
        Ok(Some((outcome, Written::since(before, &appender))))
    }

    /// Writes under the append lock.
    fn append_and_index(
        &self,
        key: &[u8],
        value: Option<&[u8]>,
        hash: KeyHash,
        found: (u64, Option<Entry>),
        condition: Condition<'_>,
    ) -> Result<(Outcome, Written)> {
        let mut appender = self.appender()?;
        let before = (appender.garbage, appender.backlog());
        let holds = match condition {
            Condition::None => true,
            Condition::Absent => !self.exists(key)?,
            Condition::Value(expected) => self.has_value(key, hash, expected)?,
        };
        let outcome = match holds {
            true => self.write_locked(&mut appender, key, value, hash, found)?,
            false => Outcome::Conflict,
        };
        Ok((outcome, Written::since(before, &appender)))
    }

    /// Has the index name the record that was appended, if any, instead of the one before, and counts that as garbage.
    fn replace(
        &self,
        appender: &mut Appender,
        shard: &mut Shard,
        hash: KeyHash,
        old: Option<Entry>,
        new: Option<Position>,
    ) -> Result<()> {
        if let Some(old) = old {
            shard.segment(old.position)?.add_dead(old.len);
            appender.garbage += old.len;
        }
        self.note_fresh(old.is_none());
        Change { old: old.map(|old| old.position), new }.apply(shard, hash);
        Ok(())
    }

    /// Whether the next key is expected to be new.
    #[inline]
    pub(crate) fn expects_fresh(&self) -> bool {
        self.fresh.load(Relaxed) >= EXPECT_FRESH
    }

    /// Counts the new keys in a row, or batches of such. Under the append lock.
    #[inline]
    pub(crate) fn note_fresh(&self, fresh: bool) {
        let count = self.fresh.load(Relaxed);
        let next = if fresh { (count + 1).min(EXPECT_FRESH) } else { 0 };
        if next != count {
            self.fresh.store(next, Relaxed);
        }
    }

    /// Whether the key is stored with this value.
    pub(crate) fn has_value(&self, key: &[u8], hash: KeyHash, expected: &[u8]) -> Result<bool> {
        let Some(entry) = self.locate(key, hash)?.1 else { return Ok(false) };
        // A different length can be told without reading the value. A damaged record has none, and is an error.
        if entry.len > 0 && entry.len != record_len(key.len(), Some(expected.len())) {
            return Ok(false);
        }
        let mut value = Vec::new();
        Ok(self.get_with(key, &mut value)?.is_some() && value == expected)
    }

    /// Under the append lock. Nothing has changed unless it succeeds.
    fn write_locked(
        &self,
        appender: &mut Appender,
        key: &[u8],
        value: Option<&[u8]>,
        hash: KeyHash,
        (version, found): (u64, Option<Entry>),
    ) -> Result<Outcome> {
        let len = record_len(key.len(), value.map(<[u8]>::len));
        let entry = DataFileEntry { timestamp: appender.next_timestamp()?, key, value };
        appender.prepare(len, value.is_none(), &self.index)?;
        let mut shard = self.index.write(hash)?;
        let old = if shard.version() == version { found } else { self.find(&shard, key, hash)? };
        if value.is_none() && old.is_none() {
            return Ok(Outcome::Nothing);
        }
        shard.reserve(hash)?;
        let position = if len <= COPY_UNDER_LOCK {
            appender.append(&entry, len)?
        } else {
            // Readers must not wait for a long copy. The entry stays as it is meanwhile: whoever changes
            // the index holds the append lock.
            drop(shard);
            let position = appender.append(&entry, len)?;
            shard = self.index.write(hash)?;
            position
        };
        self.replace(appender, &mut shard, hash, old, value.map(|_| position))?;
        if value.is_none() {
            shard.segment(position)?.add_tombstone(len);
        }
        Ok(Outcome::Done { existed: old.is_some() })
    }
}

#[cold]
pub(crate) fn too_large(key_len: usize, value_len: usize) -> Error {
    let what = format!(
        "a key of {key_len} and a value of {value_len} bytes: at most {MAX_KEY_LEN} and {MAX_VALUE_LEN} are possible"
    );
    Error::new(Code::TooLarge, what)
}
