//! Writing: stamp, append, point the index at it. Nearly every write of a small record is done [`at_once`]; what that leaves is done
//! here, under the append lock.

mod at_once;

use crate::append::Appender;
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::index::{KeyHash, Position, Shard};
use crate::log::record::{DataFileEntry, record_len};
use crate::options::SyncLevel;
use crate::read::{Entry, Located};
use crate::{MAX_KEY_LEN, MAX_VALUE_LEN};

/// Records up to this are copied to the log while the shard is locked: locking it twice would cost more.
const COPY_UNDER_LOCK: u64 = 4 << 10;

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
    Done,
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
        let changed = match (self.old, self.new) {
            (None, Some(new)) => {
                shard.insert(hash, new);
                true
            }
            (Some(old), Some(new)) => shard.replace(hash, old, new),
            (Some(old), None) => shard.remove(hash, old),
            (None, None) => true,
        };
        debug_assert!(changed, "what is to be replaced is an entry");
    }

    pub(crate) fn reversed(&self) -> Change {
        Change { old: self.new, new: self.old }
    }
}

/// How far a write has brought the log, and what it leaves to do.
pub(crate) struct Written {
    /// How far the log has been written.
    pub appended: u64,
    /// Segments waiting to be synced and sealed.
    pub backlog_before: usize,
    pub backlog: usize,
}

impl Written {
    /// What has happened since there was such a backlog.
    pub(crate) fn since(backlog_before: usize, appender: &Appender) -> Written {
        Written { appended: appender.appended, backlog_before, backlog: appender.backlog() }
    }
}

impl Engine {
    /// Stores a value under a key.
    pub(crate) fn set(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.check_write(key, value)?;
        let hash = self.hash(key);
        match self.set_at_once(key, value, hash)? {
            Some(written) => self.maintenance.after_write(self, &written),
            None => drop(self.write_carefully(key, Some(value), hash, None, Condition::None)?),
        }
        Ok(())
    }

    /// Stores a value if the condition holds. Returns whether it did.
    pub(crate) fn set_if(&self, key: &[u8], value: &[u8], condition: Condition<'_>) -> Result<bool> {
        self.check_write(key, value)?;
        Ok(self.write_carefully(key, Some(value), self.hash(key), None, condition)? != Outcome::Conflict)
    }

    /// Removes a key. False if it was not there; then nothing is written.
    pub(crate) fn del(&self, key: &[u8]) -> Result<bool> {
        self.check_write(key, &[])?;
        let hash = self.hash(key);
        let found = self.locate_proven(key, hash)?;
        if found.1.is_none() {
            return Ok(false);
        }
        match self.delete_at_once(key, hash, found)? {
            Some(written) => self.maintenance.after_write(self, &written),
            None => return Ok(self.write_carefully(key, None, hash, Some(found), Condition::None)? == Outcome::Done),
        }
        Ok(true)
    }

    /// An error if this is too large, or if this handle takes no writes.
    #[inline]
    fn check_write(&self, key: &[u8], value: &[u8]) -> Result<()> {
        if key.len() > MAX_KEY_LEN || value.len() as u64 > MAX_VALUE_LEN {
            return Err(too_large(key.len(), value.len()));
        }
        self.check_takes_writes()
    }

    /// An error if this handle takes no writes.
    #[inline]
    pub(crate) fn check_takes_writes(&self) -> Result<()> {
        if self.options.read_only {
            return Err(Error::new(Code::ReadOnly, "the store was opened for reading only"));
        }
        self.commit.check()
    }

    /// Writes a record, or a tombstone if there is something to delete, with nobody else writing meanwhile: where a write cannot be
    /// done at once. `found` is what the key's entry was, if that is known.
    fn write_carefully(
        &self,
        key: &[u8],
        value: Option<&[u8]>,
        hash: KeyHash,
        found: Option<Located>,
        condition: Condition<'_>,
    ) -> Result<Outcome> {
        // Most of the work, and any waiting for a cold page, before the lock that all writers share.
        let found = found.map_or_else(|| self.locate(key, hash), Ok)?;
        if let Some(value) = value {
            self.slow_down(record_len(key.len(), Some(value.len())));
        }
        let (outcome, written) = match self.append_and_index(key, value, hash, found, condition) {
            Err(e) if e.code() == Code::NoSpace && self.make_room(value.is_none()) => {
                self.append_and_index(key, value, hash, self.locate(key, hash)?, condition)?
            }
            other => other?,
        };
        if outcome == Outcome::Done && self.options.sync == SyncLevel::Always {
            self.sync_to(written.appended)?;
        }
        self.maintenance.after_write(self, &written);
        Ok(outcome)
    }

    /// What was found, if that is still true, or else what there is now.
    fn find_again(&self, shard: &Shard, key: &[u8], hash: KeyHash, (version, found): Located) -> Result<Option<Entry>> {
        match found {
            Some(entry) if entry.hidden => self.find(shard, key, hash),
            found if shard.version() == version => Ok(found),
            _ => self.find(shard, key, hash),
        }
    }

    /// Writes under the append lock.
    fn append_and_index(
        &self,
        key: &[u8],
        value: Option<&[u8]>,
        hash: KeyHash,
        found: Located,
        condition: Condition<'_>,
    ) -> Result<(Outcome, Written)> {
        let mut appender = self.appender()?;
        let backlog = appender.backlog();
        let holds = match condition {
            Condition::None => true,
            Condition::Absent => !self.exists(key)?,
            Condition::Value(expected) => self.has_value(key, hash, expected)?,
        };
        let outcome = match holds {
            true => self.write_locked(&mut appender, key, value, hash, found)?,
            false => Outcome::Conflict,
        };
        Ok((outcome, Written::since(backlog, &appender)))
    }

    /// Has the index name the record that was appended, unless it is a tombstone, instead of the one before, and counts that
    /// as garbage.
    fn replace(
        &self,
        shard: &mut Shard,
        hash: KeyHash,
        old: Option<Entry>,
        (position, entry): (Position, &DataFileEntry<'_>),
    ) -> Result<()> {
        if let Some(old) = old {
            shard.segment(old.position)?.add_dead(old.len);
            self.maintenance.note_garbage(old.len);
        }
        if entry.value.is_none() {
            shard.segment(position)?.add_tombstone(record_len(entry.key.len(), None));
        }
        self.fresh.note(old.is_none());
        if entry.value.is_some() {
            self.unread.note(old.is_none());
        }
        Change { old: old.map(|old| old.position), new: entry.value.map(|_| position) }.apply(shard, hash);
        Ok(())
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
        found: Located,
    ) -> Result<Outcome> {
        let len = record_len(key.len(), value.map(<[u8]>::len));
        let entry = DataFileEntry { timestamp: appender.next_timestamp()?, key, value };
        appender.prepare(len, value.is_none(), &self.index)?;
        let mut shard = self.index.write(hash)?;
        // Whoever reads by system calls does not know of what is hidden, what was found may be hidden itself, and while a long
        // record is copied nothing is to be given back.
        self.prove(&mut shard)?;
        let old = self.find_again(&shard, key, hash, found)?;
        if value.is_none() && old.is_none() {
            return Ok(Outcome::Nothing);
        }
        shard.reserve(hash)?;
        let position = if len <= COPY_UNDER_LOCK {
            appender.append(&entry, len)?
        } else {
            // Readers must not wait for a long copy. The entry stays as it is meanwhile: nobody has a claim or gets one, and there
            // is nothing to be proven.
            drop(shard);
            let position = appender.append(&entry, len)?;
            shard = self.index.write(hash)?;
            position
        };
        self.replace(&mut shard, hash, old, (position, &entry))?;
        Ok(Outcome::Done)
    }
}

#[cold]
pub(crate) fn too_large(key_len: usize, value_len: usize) -> Error {
    let what = format!(
        "a key of {key_len} and a value of {value_len} bytes: at most {MAX_KEY_LEN} and {MAX_VALUE_LEN} are possible"
    );
    Error::new(Code::TooLarge, what)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering::Relaxed;

    use crate::proof::tests::colliding_keys;
    use crate::storage::sim::{PageMode, SimStorage};
    use crate::{Options, Store};

    #[test]
    fn keys_with_the_same_bits_in_the_index_are_told_apart() {
        let sim = SimStorage::new(1, PageMode::Page);
        let options = Options { background: false, ..Options::default() };
        let open = || Store::open_on(Arc::new(sim.clone()), &options).unwrap();
        let mut store = open();
        let [a, b] = colliding_keys(&store)[0];
        for round in 0..3u8 {
            let log = store.stats().log_bytes;
            assert!(!store.del(&b).unwrap());
            assert_eq!(store.stats().log_bytes, log);
            store.set(&a, &[round; 10]).unwrap();
            let log = store.stats().log_bytes;
            assert!(!store.del(&b).unwrap() && !store.exists(&b).unwrap());
            assert_eq!(store.stats().log_bytes, log, "nothing was written for what was not there");
            store.set(&b, &[round; 20]).unwrap();
            store.set(&a, &[round; 30]).unwrap();
            assert_eq!(store.stats().keys, 2);
            if round == 1 {
                store.compact().unwrap();
            }
            store.close().unwrap();
            store = open();
            assert_eq!(store.get(&a).unwrap(), Some(vec![round; 30]));
            assert_eq!(store.get(&b).unwrap(), Some(vec![round; 20]));
            assert!(store.del(&a).unwrap());
            assert_eq!(store.get(&b).unwrap(), Some(vec![round; 20]));
            assert!(store.del(&b).unwrap() && !store.del(&a).unwrap());
        }
    }

    #[test]
    fn no_older_record_is_expected_where_each_was_replaced_on_trust() {
        let sim = SimStorage::new(1, PageMode::Page);
        let options = Options { background: false, ..Options::default() };
        let open = || Store::open_on(Arc::new(sim.clone()), &options).unwrap();
        let store = open();
        let expected = |store: &Store| store.engine.unread.lasts() && store.engine.young.load(Relaxed);
        store.engine.warm.store(true, Relaxed);
        (0..20u8).for_each(|n| store.set(&[n % 5], &[n]).unwrap());
        assert!(expected(&store) && !store.engine.fresh.lasts());
        assert!(store.del(&[0]).unwrap());
        assert!(expected(&store), "a delete tells nothing of sets");
        // Too large to be taken on trust.
        store.set(&[1], &[1; 5000]).unwrap();
        (0..20u8).for_each(|n| store.set(&[2 + n % 3], &[n]).unwrap());
        assert!(expected(&store));
        store.set(&[1], b"small").unwrap();
        assert!(!expected(&store));
        assert_eq!(store.get(&[1]).unwrap().unwrap(), b"small");
        store.close().unwrap();
        // Its records may have to be read from the disk.
        let store = open();
        store.engine.warm.store(true, Relaxed);
        (0..20u8).for_each(|n| store.set(&[n], &[n]).unwrap());
        assert!(!expected(&store));
        store.compact().unwrap();
        (0..20u8).for_each(|n| store.set(&[n], &[n]).unwrap());
        assert!(store.engine.young.load(Relaxed));
    }
}
