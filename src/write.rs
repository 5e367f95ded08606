//! Writing: stamp, append, point the index at it. Log and index agree on the order, as a writer gets his place in the log and the
//! key's shard at once.

use std::sync::atomic::Ordering::Relaxed;

use crate::append::{Appender, Claim};
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::index::{KeyHash, Position, Shard, Trust};
use crate::log::record::{DataFileEntry, record_len};
use crate::log::segment::{Segment, SegmentIo};
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

/// What a write replaces.
enum Older {
    Proven(Option<Entry>),
    /// An entry whose record has not been looked at.
    OnTrust(Position),
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
        self.commit.check()
    }

    /// Appends a record, or a tombstone if there is something to delete.
    fn write(&self, key: &[u8], value: Option<&[u8]>, condition: Condition<'_>) -> Result<Outcome> {
        self.check_takes_writes()?;
        let hash = self.hash(key);
        // Most of the work, and any waiting for a cold page, before the lock that all writers share.
        let mut found = None;
        if value.is_none() {
            found = Some(self.locate_proven(key, hash)?);
        }
        if matches!(found, Some((_, None))) {
            return Ok(Outcome::Nothing);
        }
        if matches!(condition, Condition::None)
            && let Some((outcome, written)) = self.write_at_once(key, value, hash, found)?
        {
            return self.after_write(outcome, &written);
        }
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
        self.after_write(outcome, &written)
    }

    #[inline]
    fn after_write(&self, outcome: Outcome, written: &Written) -> Result<Outcome> {
        if matches!(outcome, Outcome::Done { .. }) && self.options.sync == SyncLevel::Always {
            self.sync_to(written.appended)?;
        }
        self.maintenance.after_write(self, written);
        Ok(outcome)
    }

    /// Writes a record at once: under the append lock it gets its place, and is copied there while others go on behind it and the
    /// lines of the index that it takes are on their way. `None`, and no record has been written, if it has to be done with more
    /// care: if an older one may have to be waited for, if the record is large or goes to the log by system calls, if there is
    /// nothing to delete any more, or if writers are to wait. What is to be deleted has been `found`; of a set nothing has.
    fn write_at_once(
        &self,
        key: &[u8],
        value: Option<&[u8]>,
        hash: KeyHash,
        found: Option<Located>,
    ) -> Result<Option<(Outcome, Written)>> {
        let len = record_len(key.len(), value.map(<[u8]>::len));
        // Where each record is synced, each goes to the log by a call.
        let by_calls = !self.factory.mapped || self.options.sync == SyncLevel::Always;
        let held_back = value.is_some() && self.maintenance.brake.on();
        if by_calls || len > COPY_UNDER_LOCK || held_back {
            return Ok(None);
        }
        if found.is_none() && !self.ask_for_memory(hash)? {
            return Ok(None);
        }
        let Some((mut claim, deleted, written)) = self.claim(key, hash, len, found)? else { return Ok(None) };
        let entry = DataFileEntry { timestamp: claim.place.timestamp, key, value };
        claim.fill(&entry)?;
        let (shard, position) = (&mut *claim.shard, claim.place.position);
        let old = match deleted {
            Some(old) => Older::Proven(Some(old)),
            None => {
                let old = self.older(shard, key, hash)?;
                shard.reserve(hash)?;
                old
            }
        };
        match old {
            Older::Proven(old) => self.replace(shard, hash, old, (position, &entry))?,
            Older::OnTrust(old) => {
                let replaced = shard.replace_on_trust(hash, old, position);
                debug_assert!(replaced, "the shard is still locked");
                self.unread.note(true);
            }
        }
        claim.publish()?;
        let existed = !matches!(old, Older::Proven(None));
        Ok(Some((Outcome::Done { existed }, written)))
    }

    /// Gives away the place of the next record, and with it the entry that this deletes, if that has been found. `None` if there
    /// is no room for it in the map, or nothing to delete any more.
    fn claim(
        &self,
        key: &[u8],
        hash: KeyHash,
        len: u64,
        found: Option<Located>,
    ) -> Result<Option<(Claim<'_>, Option<Entry>, Written)>> {
        let mut appender = self.appender_alone()?;
        let (backlog, tombstone) = (appender.backlog(), found.is_some());
        if !appender.has_room(len, tombstone) {
            // The log may go on in another segment.
            appender.settle();
            let stores = appender.stores_to_map() && appender.prepare(len, tombstone, &self.index).is_ok();
            if !stores || !appender.has_room(len, tombstone) {
                return Ok(None);
            }
        }
        let mut shard = self.index.write(hash)?;
        let mut deleted = None;
        if let Some(found) = found {
            self.prove(&mut shard)?;
            deleted = self.find_again(&shard, key, hash, found)?;
            if deleted.is_none() {
                return Ok(None);
            }
            // Now: once a tombstone is stored nothing is to fail.
            shard.reserve(hash)?;
        }
        let claim = appender.claim(len, shard)?;
        Ok(Some((claim, deleted, Written::since(backlog, &appender))))
    }

    /// What was found, if that is still true, or else what there is now.
    fn find_again(&self, shard: &Shard, key: &[u8], hash: KeyHash, (version, found): Located) -> Result<Option<Entry>> {
        match found {
            Some(entry) if entry.hidden => self.find(shard, key, hash),
            found if shard.version() == version => Ok(found),
            _ => self.find(shard, key, hash),
        }
    }

    /// Makes room for another overwrite on trust, and asks for the part of the index that a set changes, and for the record that
    /// it may have to look at. Not for that if none is expected: the index would have to be waited for. False if the record may
    /// have to be waited for: then nobody else is to wait meanwhile.
    fn ask_for_memory(&self, hash: KeyHash) -> Result<bool> {
        let none_to_look_at = self.unread.lasts();
        if !none_to_look_at && !self.warm.load(Relaxed) {
            return Ok(false);
        }
        let mut shard = self.index.read(hash)?;
        if shard.trust().full() {
            drop(shard);
            self.prove_if(hash, Trust::full)?;
            shard = self.index.read(hash)?;
        }
        shard.prefetch(hash);
        if none_to_look_at {
            return Ok(true);
        }
        for position in shard.candidates(hash) {
            let segment = shard.segment(position)?;
            if segment.id() < self.first_id {
                return Ok(false);
            }
            if !self.trusts(segment, position) {
                segment.prefetch(position.offset(), position.len_bound());
            }
        }
        Ok(true)
    }

    /// What a set is going to replace.
    fn older(&self, shard: &mut Shard, key: &[u8], hash: KeyHash) -> Result<Older> {
        let mut candidates = shard.candidates(hash);
        match (candidates.next(), candidates.next()) {
            (None, _) => return Ok(Older::Proven(None)),
            (Some(old), None) if !shard.trust().full() && self.trusts(shard.segment(old)?, old) => {
                return Ok(Older::OnTrust(old));
            }
            _ => {}
        }
        let mut old = self.find(shard, key, hash)?;
        // A damaged record may not be the key's while that has one that is hidden.
        if old.is_some_and(|old| old.hidden || old.len == 0) {
            self.prove(shard)?;
            old = self.find(shard, key, hash)?;
        }
        Ok(Older::Proven(old))
    }

    /// Whether the entry of a record may be replaced before that has been looked at. Not if it is large, so that there is never
    /// much garbage that has not been counted.
    #[inline]
    fn trusts(&self, segment: &Segment, position: Position) -> bool {
        let small = position.len_bound() <= COPY_UNDER_LOCK;
        self.at_hand(segment) && small && matches!(segment.io(), SegmentIo::Mapped(_)) && !segment.in_compaction()
    }

    /// Whether the records of a segment are expected to be in memory.
    #[inline]
    pub(crate) fn at_hand(&self, segment: &Segment) -> bool {
        segment.id() >= self.first_id && self.warm.load(Relaxed)
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
        store.engine.warm.store(true, Relaxed);
        let expected = |store: &Store| !store.engine.unread.lasts();
        (0..20u8).for_each(|n| store.set(&[n % 5], &[n]).unwrap());
        assert!(!expected(&store));
        assert!(store.del(&[0]).unwrap());
        assert!(!expected(&store), "a delete tells nothing of sets");
        // Too large to be taken on trust.
        store.set(&[1], &[1; 5000]).unwrap();
        (0..20u8).for_each(|n| store.set(&[2 + n % 3], &[n]).unwrap());
        assert!(!expected(&store));
        store.set(&[1], b"small").unwrap();
        assert!(expected(&store));
        assert_eq!(store.get(&[1]).unwrap().unwrap(), b"small");
        store.close().unwrap();
        // Its records may have to be read from the disk.
        let store = open();
        store.engine.warm.store(true, Relaxed);
        (0..5u8).for_each(|n| store.set(&[n], &[n]).unwrap());
        assert!(expected(&store));
        store.compact().unwrap();
        store.engine.warm.store(true, Relaxed);
        (0..20u8).for_each(|n| store.set(&[n % 5], &[n]).unwrap());
        assert!(!expected(&store));
    }
}
