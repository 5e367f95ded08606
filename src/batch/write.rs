//! Writing a batch: what is to change is planned and looked up, appended as one frame, and then shown all at once.

use std::ops::{Deref, DerefMut};

use super::{Batch, Kind, Operation};
use crate::append::Appender;
use crate::engine::{Engine, Store};
use crate::error::{Code, Error, Result};
use crate::index::{KeyHash, Position, Shard, shards_in_order, sort_hashes};
use crate::log::record::{BATCH_OVERHEAD, DataFileEntry, key_end};
use crate::options::SyncLevel;
use crate::read::Entry;
use crate::write::{Change, Written};

/// The version of no shard.
const UNKNOWN: u64 = u64::MAX;
/// So many keys are looked up together, with the waiting for memory overlapped.
const BLOCK: usize = 256;
/// So many changes of the index are prepared ahead of need.
const LOOK_AHEAD: usize = 16;

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
        if !batch.only_deletes() {
            self.slow_down(batch.log_bytes);
        }
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
        if !self.fresh.lasts() || batch.operations.iter().any(|operation| operation.kind != Kind::Set) {
            return Ok(None);
        }
        let mut appender = self.appender()?;
        let backlog = appender.backlog();
        match self.append_changes(&mut appender, batch, targets, false) {
            Ok(true) => Ok(Some(Written::since(backlog, &appender))),
            Ok(false) => Ok(None),
            Err(e) if e.code() == Code::NoSpace => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes a batch after looking its keys up. `None` if a condition does not hold.
    fn append_located(&self, batch: &Batch, targets: &mut [Target]) -> Result<Option<Written>> {
        let only_deletes = batch.only_deletes();
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
            if self.ask_index(batch, block)? {
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
    fn ask_index(&self, batch: &Batch, targets: &mut [Target]) -> Result<bool> {
        let shards = self.index.read_all(targets.iter().map(|target| target.hash))?;
        let mut shard_of = shards_in_order(&shards);
        targets.iter().for_each(|target| shard_of(target.hash).prefetch(target.hash));
        let (mut shard_of, mut all_new) = (shards_in_order(&shards), true);
        for target in targets {
            let shard = shard_of(target.hash);
            target.version = shard.version();
            for position in shard.candidates(target.hash) {
                shard.segment(position)?.prefetch(position.offset(), key_end(target.key(batch).len()));
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
        let backlog = appender.backlog();
        self.prove_for(targets)?;
        self.locate_again(batch, targets)?;
        if !self.append_changes(&mut appender, batch, targets, only_deletes)? {
            return Err(Error::new(Code::Internal, "a key of a batch was stored meanwhile"));
        }
        Ok(Some(Written::since(backlog, &appender)))
    }

    /// Appends those changes that change something. False, and nothing has changed, if a key that was not looked up may
    /// not be new. Under the append lock.
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
        self.fresh.note(done && targets.iter().all(|target| target.old.is_none()));
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

    /// Proves what is on trust where a batch changes anything. None of these shards changes until the append lock is free.
    fn prove_for(&self, targets: &[Target]) -> Result<()> {
        for run in targets.chunk_by(same_shard) {
            self.prove_if(run[0].hash, |trust| !trust.overwrites().is_empty())?;
        }
        Ok(())
    }

    /// Looks those keys up once more whose shard has changed since, or whose record was hidden. Under the append lock.
    fn locate_again(&self, batch: &Batch, targets: &mut [Target]) -> Result<()> {
        for run in targets.chunk_by_mut(same_shard) {
            let version = self.index.read(run[0].hash)?.version();
            for target in run {
                target.new = None;
                if target.version != version || target.old.is_some_and(|old| old.hidden) {
                    (target.version, target.old) = self.locate(target.key(batch), target.hash)?;
                }
            }
        }
        Ok(())
    }

    /// Appends the frame, has the index point at its records, and only then lets readers see either. False, and nothing has
    /// changed, if a key that was not looked up may not be new.
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
        let changed = locked.and_then(|mut shards| Ok(self.change_all(&mut shards, targets, batch)?.then_some(shards)));
        if !matches!(changed, Ok(Some(_))) {
            appender.retract_frame();
        }
        let Some(shards) = changed? else { return Ok(false) };
        appender.publish_batch(len, first, last);
        self.maintenance.note_garbage(count_garbage(appender, &shards, targets, batch)?);
        Ok(true)
    }

    /// Has the index point at the new records. If that fails, or a key that was not looked up may not be new, it is as it was.
    fn change_all(
        &self,
        shards: &mut [impl DerefMut<Target = Shard>],
        targets: &[Target],
        batch: &Batch,
    ) -> Result<bool> {
        let (mut at, mut ahead) = (0, 0);
        for (number, target) in targets.iter().enumerate() {
            if let Some(later) = targets.get(number + LOOK_AHEAD) {
                while !shards[ahead].holds(later.hash) {
                    ahead += 1;
                }
                shards[ahead].prefetch(later.hash);
            }
            while !shards[at].holds(target.hash) {
                at += 1;
            }
            let shard = &mut *shards[at];
            let as_expected = match target.version {
                UNKNOWN => self.is_new(shard, &targets[..number], target, batch),
                _ => Ok(true),
            };
            let ready = match as_expected {
                Ok(true) => shard.reserve(target.hash).map(|()| true),
                other => other,
            };
            if !matches!(ready, Ok(true)) {
                undo_all(shards, &targets[..number], batch);
                return ready;
            }
            target.change(batch).apply(shard, target.hash);
        }
        Ok(true)
    }

    /// Whether the key is known not to be stored. The entries of `earlier` targets, all of them sets of new keys, are in the index
    /// already.
    fn is_new(&self, shard: &mut Shard, earlier: &[Target], target: &Target, batch: &Batch) -> Result<bool> {
        let found = shard.candidates(target.hash).count();
        // Those of other keys of this batch, whose records nobody can read yet.
        let own = earlier.iter().rev().take_while(|earlier| earlier.hash.same_entry(target.hash)).count();
        if found == own {
            return Ok(true);
        }
        if own > 0 {
            return Ok(false);
        }
        // Another key may look like this one. With all that is locked now, the disk is not to be waited for.
        for position in shard.candidates(target.hash) {
            if !self.at_hand(shard.segment(position)?) {
                return Ok(false);
            }
        }
        self.prove(shard)?;
        Ok(self.find(shard, target.key(batch), target.hash)?.is_none())
    }
}

/// Bytes of a batch frame before its first record.
const BATCH_PREFIX: u64 = crate::log::record::PREFIX_LEN as u64;

/// Counts what a batch that has been written makes garbage, and its tombstones. Returns how much that was.
fn count_garbage(
    appender: &Appender,
    shards: &[impl Deref<Target = Shard>],
    targets: &[Target],
    batch: &Batch,
) -> Result<u64> {
    let mut garbage = 0;
    let mut shard_of = shards_in_order(shards);
    for target in targets {
        let shard = shard_of(target.hash);
        if let Some(old) = target.old {
            shard.segment(old.position)?.add_dead(old.len);
            garbage += old.len;
        }
    }
    if let Some(segment) = appender.active().map(|active| &active.segment) {
        segment.add_dead(BATCH_OVERHEAD);
        let written = targets.iter().filter(|target| target.new.is_some());
        let operations = written.map(|target| &batch.operations[target.operation as usize]);
        let tombstones = operations.filter(|operation| operation.kind == Kind::Del);
        segment.add_tombstone(tombstones.map(Operation::record_len).sum());
    }
    Ok(garbage)
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
