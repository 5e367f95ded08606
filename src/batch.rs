//! Batches: several changes as one. In the log a batch is one frame, which a crash leaves whole or not at all; in the
//! index its keys change while all their shards are locked.

use std::ops::{Deref, DerefMut};

use crate::append::Appender;
use crate::engine::{Engine, Store};
use crate::error::{Code, Error, Result};
use crate::index::{KeyHash, Position, Shard, shards_in_order, sort_hashes};
use crate::log::record::{BATCH_OVERHEAD, DataFileEntry, record_len};
use crate::options::SyncLevel;
use crate::read::Entry;
use crate::write::{Change, Written, too_large};
use crate::{MAX_KEY_LEN, MAX_VALUE_LEN};

/// The most bytes of log that a batch of several changes may take.
pub const MAX_BATCH_LEN: u64 = 1 << 30;
/// Operations are numbered in 32 bits. Changes come nowhere near, by their bytes of log; conditions could.
const MAX_OPERATIONS: usize = u32::MAX as usize;
/// The version of no shard.
const UNKNOWN: u64 = u64::MAX;
/// So many keys are looked up together, with the waiting for memory overlapped.
const BLOCK: usize = 256;
/// So many changes of the index are prepared ahead of need.
const LOOK_AHEAD: usize = 16;

/// Changes to be applied together, and conditions under which. Belongs to no store.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    operations: Vec<Operation>,
    changes: usize,
    /// Bytes that the records of the changes take in the log.
    log_bytes: u64,
}

/// The key and the value stand one behind the other among the bytes of the batch.
struct Operation {
    key_at: usize,
    value_len: u32,
    key_len: u32,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Set,
    Del,
    Require,
    RequireAbsent,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds the storing of a value under a key. A later change of the same key wins.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.push(Kind::Set, key, value)
    }

    /// Adds the removal of a key, which need not be there.
    pub fn del(&mut self, key: &[u8]) -> Result<()> {
        self.push(Kind::Del, key, &[])
    }

    /// Makes the batch depend on a key having this value before it.
    pub fn require(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.push(Kind::Require, key, value)
    }

    /// Makes the batch depend on a key not being stored before it.
    pub fn require_absent(&mut self, key: &[u8]) -> Result<()> {
        self.push(Kind::RequireAbsent, key, &[])
    }

    /// The number of changes.
    pub fn len(&self) -> usize {
        self.changes
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// Empties the batch, keeping its memory for the next use.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.operations.clear();
        (self.changes, self.log_bytes) = (0, 0);
    }

    /// Either adds the operation or leaves the batch as it was.
    fn push(&mut self, kind: Kind, key: &[u8], value: &[u8]) -> Result<()> {
        if key.len() > MAX_KEY_LEN || value.len() as u64 > MAX_VALUE_LEN {
            return Err(too_large(key.len(), value.len()));
        }
        let log_bytes = match kind {
            Kind::Set => record_len(key.len(), Some(value.len())),
            Kind::Del => record_len(key.len(), None),
            Kind::Require | Kind::RequireAbsent => 0,
        };
        if self.operations.len() == MAX_OPERATIONS {
            return Err(Error::new(
                Code::TooLarge,
                format!("the batch would take more than {MAX_OPERATIONS} operations"),
            ));
        }
        if self.changes > 0 && log_bytes > 0 && self.log_bytes + log_bytes > MAX_BATCH_LEN {
            let what = format!("the batch would take more than {MAX_BATCH_LEN} bytes of log");
            return Err(Error::new(Code::TooLarge, what));
        }
        let no_memory = |_| Error::no_memory("a batch");
        self.bytes.try_reserve(key.len() + value.len()).map_err(no_memory)?;
        self.operations.try_reserve(1).map_err(no_memory)?;
        let (key_at, key_len, value_len) = (self.bytes.len(), key.len() as u32, value.len() as u32);
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.operations.push(Operation { key_at, value_len, key_len, kind });
        self.changes += matches!(kind, Kind::Set | Kind::Del) as usize;
        self.log_bytes += log_bytes;
        Ok(())
    }

    fn key(&self, operation: &Operation) -> &[u8] {
        &self.bytes[operation.key_at..operation.value_at()]
    }

    /// What a change stores, or a condition expects.
    fn value_bytes(&self, operation: &Operation) -> &[u8] {
        &self.bytes[operation.value_at()..][..operation.value_len as usize]
    }

    /// What a change stores; `None` if it deletes.
    fn value(&self, operation: &Operation) -> Option<&[u8]> {
        (operation.kind != Kind::Del).then(|| self.value_bytes(operation))
    }
}

impl Operation {
    #[inline]
    fn value_at(&self) -> usize {
        self.key_at + self.key_len as usize
    }

    /// Bytes that the record of a change takes in the log.
    #[inline]
    fn record_len(&self) -> u64 {
        let value_len = (self.kind != Kind::Del).then_some(self.value_len as usize);
        record_len(self.key_len as usize, value_len)
    }
}

/// A change of a batch on its way into the log. No two are of the same key.
struct Target {
    hash: KeyHash,
    operation: u32,
    /// The version of the shard for which `old` is known.
    version: u64,
    old: Option<Entry>,
    /// Where the record will be. `None`: there is nothing to delete.
    new: Option<Position>,
}

impl Store {
    /// Applies a batch, all of it or, if one of its conditions does not hold, nothing. Returns whether it was applied.
    pub fn write(&self, batch: &Batch) -> Result<bool> {
        self.check_process()?;
        self.engine.write_batch(batch)
    }
}

impl Engine {
    fn write_batch(&self, batch: &Batch) -> Result<bool> {
        self.check_takes_writes()?;
        let mut targets = self.plan(batch)?;
        self.maintenance.slow_down(self, batch.log_bytes);
        let written = match self.append_new(batch, &mut targets)? {
            None => self.append_located(batch, &mut targets)?,
            written => written,
        };
        let Some(written) = written else { return Ok(false) };
        if self.options.sync == SyncLevel::Always {
            self.sync_to(written.appended)?;
        }
        self.maintenance.after_write(self, &written);
        Ok(true)
    }

    /// The last change of each key, in the order of their hashes.
    fn plan(&self, batch: &Batch) -> Result<Vec<Target>> {
        let no_memory = |_| Error::no_memory("a batch");
        let (mut order, mut targets) = (Vec::new(), Vec::<Target>::new());
        order.try_reserve_exact(batch.changes).map_err(no_memory)?;
        targets.try_reserve_exact(batch.changes).map_err(no_memory)?;
        for (number, operation) in (0..).zip(&batch.operations) {
            if matches!(operation.kind, Kind::Set | Kind::Del) {
                order.push((self.hash(batch.key(operation)), number));
            }
        }
        sort_hashes(&mut order)?;
        let key = |number: u32| batch.key(&batch.operations[number as usize]);
        // Keys of one hash stand together, the changes of each in their order.
        for (hash, operation) in order {
            let mut same_hash = targets.iter_mut().rev().take_while(|t| t.hash == hash);
            match same_hash.find(|t| key(t.operation) == key(operation)) {
                Some(earlier) => earlier.operation = operation,
                None => targets.push(Target { hash, operation, version: UNKNOWN, old: None, new: None }),
            }
        }
        Ok(targets)
    }

    /// Writes a batch whose keys are all expected to be new: then there are no records to be looked at before the lock, and
    /// each part of the index is visited once. `None`, and nothing has changed, if it has to be done with more care.
    fn append_new(&self, batch: &Batch, targets: &mut [Target]) -> Result<Option<Written>> {
        if !self.expects_fresh() || batch.operations.iter().any(|operation| operation.kind != Kind::Set) {
            return Ok(None);
        }
        let mut appender = self.appender()?;
        let before = (appender.garbage, appender.backlog());
        match self.append_changes(&mut appender, batch, targets, false) {
            Ok(true) => Ok(Some(Written::since(before, &appender))),
            Ok(false) => Ok(None),
            Err(e) if e.code() == Code::NoSpace => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes a batch after looking its keys up. `None` if a condition does not hold.
    fn append_located(&self, batch: &Batch, targets: &mut [Target]) -> Result<Option<Written>> {
        let only_deletes = !batch.operations.iter().any(|operation| operation.kind == Kind::Set);
        self.locate_all(batch, targets)?;
        match self.append_batch(batch, targets, only_deletes) {
            Err(e) if e.code() == Code::NoSpace && self.make_room(only_deletes) => {
                self.append_batch(batch, targets, only_deletes)
            }
            other => other,
        }
    }

    /// Looks the keys up before any lock: most of the work, and any waiting for a cold page.
    fn locate_all(&self, batch: &Batch, targets: &mut [Target]) -> Result<()> {
        if !self.factory.mapped {
            for target in targets {
                (target.version, target.old) = self.locate(target.key(batch), target.hash)?;
            }
            return Ok(());
        }
        // In blocks whose part of the index and whose old records the caches hold.
        for block in targets.chunks_mut(BLOCK) {
            if self.ask_index(block)? {
                continue;
            }
            for run in block.chunk_by_mut(same_shard) {
                let shard = self.index.read(run[0].hash)?;
                for target in run.iter_mut().filter(|target| target.version == UNKNOWN) {
                    target.version = shard.version();
                    target.old = self.find(&shard, target.key(batch), target.hash)?;
                }
            }
        }
        Ok(())
    }

    /// Asks the index about keys, and for the records that may be theirs. Keys of which it has no record are new, and done
    /// with. True if all are.
    fn ask_index(&self, targets: &mut [Target]) -> Result<bool> {
        let shards = self.index.read_all(targets.iter().map(|target| target.hash))?;
        let mut shard_of = shards_in_order(&shards);
        targets.iter().for_each(|target| shard_of(target.hash).prefetch(target.hash));
        let (mut shard_of, mut all_new) = (shards_in_order(&shards), true);
        for target in targets {
            let shard = shard_of(target.hash);
            target.version = shard.version();
            for position in shard.candidates(target.hash) {
                shard.segment(position)?.prefetch(position.offset());
                (target.version, all_new) = (UNKNOWN, false);
            }
        }
        Ok(all_new)
    }

    /// Writes under the append lock. Nothing has changed unless it succeeds. `None` if a condition does not hold.
    fn append_batch(&self, batch: &Batch, targets: &mut [Target], only_deletes: bool) -> Result<Option<Written>> {
        let mut appender = self.appender()?;
        if !self.conditions_hold(batch)? {
            return Ok(None);
        }
        let before = (appender.garbage, appender.backlog());
        self.locate_again(batch, targets)?;
        if !self.append_changes(&mut appender, batch, targets, only_deletes)? {
            return Err(Error::new(Code::Internal, "a key of a batch was stored meanwhile"));
        }
        Ok(Some(Written::since(before, &appender)))
    }

    /// Appends those changes that change something. False, and nothing has changed, if a key that was not looked up is not
    /// new. Under the append lock.
    fn append_changes(
        &self,
        appender: &mut Appender,
        batch: &Batch,
        targets: &mut [Target],
        only_deletes: bool,
    ) -> Result<bool> {
        let (mut count, mut len) = (0, BATCH_OVERHEAD);
        for target in targets.iter() {
            let operation = &batch.operations[target.operation as usize];
            if operation.kind == Kind::Set || target.old.is_some() {
                count += 1;
                len += operation.record_len();
            }
        }
        if count == 0 {
            return Ok(true);
        }
        let first = appender.next_timestamp()?;
        let last = first.checked_add(count - 1).filter(|&last| last < i64::MAX);
        let last = last.ok_or_else(|| Error::new(Code::Invalid, "the clock is at the end of time"))?;
        appender.prepare(len, only_deletes, &self.index)?;
        let done = self.append_frame(appender, batch, targets, len, (first, last))?;
        self.note_fresh(done && targets.iter().all(|target| target.old.is_none()));
        Ok(done)
    }

    /// Whether the keys of the conditions are as they must be. Under the append lock, so they stay so.
    fn conditions_hold(&self, batch: &Batch) -> Result<bool> {
        for operation in &batch.operations {
            let key = batch.key(operation);
            let holds = match operation.kind {
                Kind::Set | Kind::Del => true,
                Kind::Require => self.has_value(key, self.hash(key), batch.value_bytes(operation))?,
                Kind::RequireAbsent => !self.exists(key)?,
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Looks those keys up once more whose shard has changed since. Under the append lock.
    fn locate_again(&self, batch: &Batch, targets: &mut [Target]) -> Result<()> {
        for run in targets.chunk_by_mut(same_shard) {
            let version = self.index.read(run[0].hash)?.version();
            for target in run {
                target.new = None;
                if target.version != version {
                    (target.version, target.old) = self.locate(target.key(batch), target.hash)?;
                }
            }
        }
        Ok(())
    }

    /// Appends the frame, has the index point at its records, and only then lets readers see either. False, and nothing has
    /// changed, if a key that was not looked up is not new.
    fn append_frame(
        &self,
        appender: &mut Appender,
        batch: &Batch,
        targets: &mut [Target],
        len: u64,
        (first, last): (i64, i64),
    ) -> Result<bool> {
        let (slot, start) = appender.next_place()?;
        // In the order in which the batch was filled: what belongs together stays together.
        let mut in_order: Vec<Option<u32>> = Vec::new();
        in_order.try_reserve_exact(batch.operations.len()).map_err(|_| Error::no_memory("a batch"))?;
        in_order.resize(batch.operations.len(), None);
        (0..).zip(targets.iter()).for_each(|(at, target)| in_order[target.operation as usize] = Some(at));
        let mut offset = start + BATCH_PREFIX;
        for &at in in_order.iter().flatten() {
            let target = &mut targets[at as usize];
            let operation = &batch.operations[target.operation as usize];
            if operation.kind == Kind::Set || target.old.is_some() {
                let len = operation.record_len();
                target.new = Some(Position::new(slot, offset, len));
                offset += len;
            }
        }
        let written = in_order.iter().flatten().map(|&at| &targets[at as usize]).filter(|t| t.new.is_some());
        let entries = written.zip(first..).map(|(target, timestamp)| {
            let operation = &batch.operations[target.operation as usize];
            DataFileEntry { timestamp, key: batch.key(operation), value: batch.value(operation) }
        });
        appender.write_batch_frame(len, entries)?;
        let locked = self.index.write_all(targets.iter().map(|t| t.hash));
        let changed = locked.and_then(|mut shards| Ok(change_all(&mut shards, targets, batch)?.then_some(shards)));
        if !matches!(changed, Ok(Some(_))) {
            appender.retract_frame();
        }
        let Some(shards) = changed? else { return Ok(false) };
        appender.publish_batch(len, first, last);
        count_garbage(appender, &shards, targets, batch)?;
        Ok(true)
    }
}

/// Bytes of a batch frame before its first record.
const BATCH_PREFIX: u64 = crate::log::record::PREFIX_LEN as u64;

/// Counts what a batch that has been written makes garbage, and its tombstones. Under the append lock.
fn count_garbage(
    appender: &mut Appender,
    shards: &[impl Deref<Target = Shard>],
    targets: &[Target],
    batch: &Batch,
) -> Result<()> {
    let mut shard_of = shards_in_order(shards);
    for target in targets {
        let shard = shard_of(target.hash);
        if let Some(old) = target.old {
            shard.segment(old.position)?.add_dead(old.len);
            appender.garbage += old.len;
        }
    }
    if let Some(segment) = appender.active().map(|active| &active.segment) {
        segment.add_dead(BATCH_OVERHEAD);
        let written = targets.iter().filter(|target| target.new.is_some());
        let operations = written.map(|target| &batch.operations[target.operation as usize]);
        let tombstones = operations.filter(|operation| operation.kind == Kind::Del);
        segment.add_tombstone(tombstones.map(Operation::record_len).sum());
    }
    Ok(())
}

/// Has the index point at the new records. If that fails, or a key that was not looked up may not be new, it is as it was.
fn change_all(shards: &mut [impl DerefMut<Target = Shard>], targets: &[Target], batch: &Batch) -> Result<bool> {
    let (mut at, mut ahead) = (0, 0);
    for (number, target) in targets.iter().enumerate() {
        if let Some(later) = targets.get(number + LOOK_AHEAD) {
            while !shards[ahead].holds(later.hash) {
                ahead += 1;
            }
            shards[ahead].prefetch_to_change(later.hash);
        }
        while !shards[at].holds(target.hash) {
            at += 1;
        }
        let change = target.change(batch);
        let shard = &mut *shards[at];
        let as_expected = target.version != UNKNOWN || shard.candidates(target.hash).next().is_none();
        let ready = if as_expected { shard.reserve(target.hash).map(|()| true) } else { Ok(false) };
        if !matches!(ready, Ok(true)) {
            undo_all(shards, &targets[..number], batch);
            return ready;
        }
        change.apply(shard, target.hash);
    }
    Ok(true)
}

/// Takes the changes back, the last one first. Each finds the room that it had before.
fn undo_all(shards: &mut [impl DerefMut<Target = Shard>], targets: &[Target], batch: &Batch) {
    for target in targets.iter().rev() {
        if let Some(shard) = shards.iter_mut().find(|shard| shard.holds(target.hash)) {
            target.change(batch).reversed().apply(shard, target.hash);
        }
    }
}

fn same_shard(a: &Target, b: &Target) -> bool {
    a.hash.shard() == b.hash.shard()
}

impl Target {
    fn key<'a>(&self, batch: &'a Batch) -> &'a [u8] {
        batch.key(&batch.operations[self.operation as usize])
    }

    fn change(&self, batch: &Batch) -> Change {
        let deletes = batch.operations[self.operation as usize].kind == Kind::Del;
        Change { old: self.old.map(|old| old.position), new: self.new.filter(|_| !deletes) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::sim::{Calls, FaultPlan, PageMode, SimStorage};
    use crate::{IoPath, Options};

    fn each_path(test: impl Fn(&dyn Fn() -> Store)) {
        for io in [IoPath::Auto, IoPath::Syscall] {
            let disk = SimStorage::new(1, PageMode::Page);
            let options = Options { io, background: false, ..Options::default() };
            test(&|| Store::open_on(Arc::new(disk.handle()), &options).unwrap());
            assert_eq!(disk.violation(), None);
        }
    }

    #[test]
    fn the_last_change_of_a_key_wins_and_all_survive_reopening() {
        each_path(|open| {
            let store = open();
            store.set(b"gone", b"1").unwrap();
            let mut batch = Batch::new();
            batch.set(b"a", b"first").unwrap();
            batch.del(b"gone").unwrap();
            batch.set(b"b", b"").unwrap();
            batch.del(b"never there").unwrap();
            batch.set(b"a", b"last").unwrap();
            batch.set(b"c", b"x").unwrap();
            batch.del(b"c").unwrap();
            assert_eq!(batch.len(), 7);
            assert!(store.write(&batch).unwrap());
            let check = |store: &Store| {
                assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"last"[..]));
                assert_eq!(store.get(b"b").unwrap().as_deref(), Some(&b""[..]));
                assert!(!store.exists(b"gone").unwrap() && !store.exists(b"c").unwrap());
                assert_eq!(store.stats().keys, 2);
            };
            check(&store);
            store.close().unwrap();
            let store = open();
            check(&store);
            batch.clear();
            assert!(batch.is_empty() && store.write(&batch).unwrap());
            store.compact().unwrap();
            check(&store);
        });
    }

    #[test]
    fn a_condition_that_does_not_hold_keeps_everything_as_it_was() {
        each_path(|open| {
            let store = open();
            store.set(b"balance", b"10").unwrap();
            let mut batch = Batch::new();
            batch.require(b"balance", b"11").unwrap();
            batch.set(b"balance", b"12").unwrap();
            batch.set(b"other", b"x").unwrap();
            let before = store.stats().log_bytes;
            assert!(!store.write(&batch).unwrap());
            assert_eq!((store.stats().keys, store.stats().log_bytes), (1, before));
            batch.clear();
            batch.require(b"balance", b"10").unwrap();
            batch.require_absent(b"other").unwrap();
            batch.set(b"other", b"x").unwrap();
            batch.del(b"balance").unwrap();
            assert!(store.write(&batch).unwrap());
            assert!(!store.write(&batch).unwrap());
            assert_eq!(store.get(b"other").unwrap().as_deref(), Some(&b"x"[..]));
            assert!(!store.exists(b"balance").unwrap());
            assert!(store.set_if_absent(b"k", b"1").unwrap() && !store.set_if_absent(b"k", b"2").unwrap());
            assert!(store.replace_if(b"k", b"1", b"3").unwrap() && !store.replace_if(b"k", b"1", b"4").unwrap());
            assert!(!store.replace_if(b"absent", b"", b"4").unwrap());
            assert_eq!(store.get(b"k").unwrap().as_deref(), Some(&b"3"[..]));
        });
    }

    #[test]
    fn a_frame_that_was_taken_back_does_not_come_back() {
        for (io, mark) in [(IoPath::Auto, false), (IoPath::Auto, true), (IoPath::Syscall, false)] {
            let disk = SimStorage::new(1, PageMode::Page);
            let options = Options { io, background: false, ..Options::default() };
            let open = |disk: &SimStorage| Store::open_on(Arc::new(disk.handle()), &options).unwrap();
            let store = open(&disk);
            store.set(b"before", b"1").unwrap();
            if mark {
                store.sync().unwrap();
            }
            let value = [7; 20];
            let len = record_len(1, Some(value.len()));
            let mut appender = store.engine.appender().unwrap();
            let first = appender.next_timestamp().unwrap();
            appender.prepare(BATCH_OVERHEAD + 3 * len, false, &store.engine.index).unwrap();
            let entries = [b"a", b"b", b"c"].iter().zip(first..);
            let entries =
                entries.map(|(key, timestamp)| DataFileEntry { timestamp, key: &key[..], value: Some(&value) });
            appender.write_batch_frame(BATCH_OVERHEAD + 3 * len, entries).unwrap();
            appender.retract_frame();
            drop(appender);
            let check = |store: Store, keys: &[&[u8]]| {
                keys.iter().for_each(|key| assert!(store.exists(key).unwrap(), "{io:?} {mark}"));
                assert_eq!(store.stats().keys, keys.len() as u64, "{io:?} {mark}");
            };
            check(open(&disk.deep_copy().reboot()), &[b"before"]);
            // This record ends where the second one of the frame begins. The clock stands still meanwhile.
            disk.set_clock(0);
            store.set(b"later", &[8; 20 + 8 - 4]).unwrap();
            check(open(&disk.deep_copy().reboot()), &[b"before", b"later"]);
            assert_eq!(disk.violation(), None);
        }
    }

    #[test]
    fn keys_taken_for_new_may_be_stored_and_a_long_frame_may_fail() {
        each_path(|open| {
            let store = open();
            let key = |n: u64| n.to_be_bytes();
            let fill = |numbers: std::ops::Range<u64>, value: u8| {
                let mut batch = Batch::new();
                numbers.for_each(|n| batch.set(&key(n), &[value; 100]).unwrap());
                batch
            };
            for n in 0..10 {
                store.set(&key(n), b"old").unwrap();
            }
            assert!(store.engine.expects_fresh());
            // The stored keys are among many new ones, and the frame is long enough for a system call.
            assert!(store.write(&fill(5..405, 1)).unwrap());
            assert!(!store.engine.expects_fresh());
            let check = |store: &Store, end: u64| {
                for n in 0..end {
                    let expected = if n < 5 { b"old".to_vec() } else { vec![1; 100] };
                    assert_eq!(store.get(&key(n)).unwrap(), Some(expected), "{n}");
                }
                let stats = store.stats();
                assert_eq!(stats.keys, end);
                assert_eq!(stats.live_bytes, 5 * record_len(8, Some(3)) + (end - 5) * record_len(8, Some(100)));
            };
            check(&store, 405);
            for n in 0..8 {
                assert!(store.write(&fill(405 + 300 * n..705 + 300 * n, 1)).unwrap());
            }
            assert!(store.engine.expects_fresh());
            check(&store, 2805);
            assert!(store.write(&fill(2805..3105, 1)).unwrap());
            store.close().unwrap();
            check(&open(), 3105);
        });
    }

    #[test]
    fn a_long_frame_that_cannot_be_written_changes_nothing() {
        for io in [IoPath::Auto, IoPath::Syscall] {
            let disk = SimStorage::new(1, PageMode::Page);
            let options = Options { io, background: false, ..Options::default() };
            let open = |disk: &SimStorage| Store::open_on(Arc::new(disk.handle()), &options).unwrap();
            let store = open(&disk);
            for n in 0..10u64 {
                store.set(&n.to_be_bytes(), b"").unwrap();
            }
            let mut batch = Batch::new();
            (10..500u64).for_each(|n| batch.set(&n.to_be_bytes(), &[1; 100]).unwrap());
            let before = store.stats().log_bytes;
            disk.fail(FaultPlan { at: 0, errno: libc::EIO, persistent: true, calls: Calls::WRITE });
            assert_eq!(store.write(&batch).unwrap_err().code(), Code::Io, "{io:?}");
            disk.heal();
            assert_eq!((store.stats().keys, store.stats().log_bytes), (10, before), "{io:?}");
            assert_eq!(open(&disk.deep_copy().reboot()).stats().keys, 10, "{io:?}");
            assert!(store.write(&batch).unwrap());
            assert_eq!(open(&disk.deep_copy().reboot()).stats().keys, 500, "{io:?}");
            assert_eq!(disk.violation(), None);
        }
    }

    #[test]
    fn a_condition_can_be_added_to_a_change_over_the_limit() {
        let mut batch = Batch::new();
        batch.set(b"large", b"").unwrap();
        batch.log_bytes = MAX_BATCH_LEN + 1; // As if it were.
        batch.require(b"a", b"1").unwrap();
        batch.require_absent(b"b").unwrap();
        assert_eq!(batch.del(b"c").unwrap_err().code(), Code::TooLarge);
        assert_eq!((batch.len(), batch.operations.len()), (1, 3));
    }

    #[test]
    fn whether_a_damaged_key_is_absent_cannot_be_told() {
        for io in [IoPath::Auto, IoPath::Syscall] {
            let disk = SimStorage::new(1, PageMode::Page);
            let options = Options { io, background: false, ..Options::default() };
            let store = Store::open_on(Arc::new(disk.handle()), &options).unwrap();
            store.set(b"key", b"value").unwrap();
            disk.corrupt("0000000001.log", 64 + crate::log::record::KEY_AT, 0x10);
            assert_eq!(store.exists(b"key").unwrap_err().code(), Code::Corrupt);
            assert_eq!(store.set_if_absent(b"key", b"").unwrap_err().code(), Code::Corrupt);
            let mut batch = Batch::new();
            batch.require_absent(b"key").unwrap();
            batch.set(b"other", b"").unwrap();
            assert_eq!(store.write(&batch).unwrap_err().code(), Code::Corrupt);
            assert!(!store.exists(b"other").unwrap());
        }
    }

    #[test]
    fn writers_of_batches_do_not_outgrow_compaction() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { segment_size: 4 << 20, ..Options::default() };
        let store = Store::open(&dir.path().join("db"), &options).unwrap();
        let mut rng = crate::model_tests::Rng(3);
        let value = vec![7; 16 << 10];
        for _ in 0..100 {
            let mut batch = Batch::new();
            for _ in 0..256 {
                batch.set(&rng.below(2000).to_be_bytes(), &value).unwrap();
            }
            assert!(store.write(&batch).unwrap());
            let stats = store.stats();
            let bound = 2 * stats.live_bytes + (1 << 20) + (32 << 20) + options.segment_size;
            assert!(stats.log_bytes <= bound + batch.log_bytes, "{stats:?}");
        }
    }
}
