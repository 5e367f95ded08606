//! The store: open, get, set, delete, sync, compact, close.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use siphasher::sip::SipHasher13;

use crate::append::{AppendLock, Appender, SegmentFactory};
use crate::error::{Code, Error, Result};
use crate::fork::Birthplace;
use crate::index::{Index, KeyHash};
use crate::log::header::HEADER_LEN;
use crate::log::manifest::{self, Manifest, SegmentEntry};
use crate::log::segment::{Segment, State};
use crate::maintenance::{self, Maintenance};
use crate::options::Options;
use crate::progress::Progress;
use crate::read::ValueBuf;
use crate::recovery;
use crate::snapshot::Uses;
use crate::stats::{RecoveryInfo, Stats};
use crate::storage::Storage;
use crate::streak::Streak;
use crate::sync::GroupCommit;
use crate::write::Condition;

/// So often it is looked whether the append lock is free before a thread falls asleep over it: a few microseconds.
const SPINS: u32 = 300;
/// A log up to this fraction of the machine's memory is expected to be in it.
const WARM_FRACTION: u64 = 4;

/// An open store. May be used from any number of threads at once.
pub struct Store {
    pub(crate) engine: Arc<Engine>,
    threads: Vec<JoinHandle<()>>,
}

/// What the parts of a store share.
///
/// Locks are taken in this order: maintenance, commit, append, segment table, shard. Claims of places in the log are waited for
/// under the append lock: whoever has one takes none of these locks but that of the shard, which he has already. Those of pages that
/// are made ahead come after that of the append lock, and no other is taken under them.
pub(crate) struct Engine {
    pub storage: Arc<dyn Storage>,
    pub options: Options,
    pub factory: Arc<SegmentFactory>,
    pub index: Index,
    pub hash_seed: [u64; 2],
    /// Whoever changes an entry of the index holds this lock or has a claim, unless he gives one back that was replaced on trust.
    pub appender: AppendLock,
    /// The last sets stored new keys.
    pub fresh: Streak,
    /// The last sets had no older record to look at: their keys were new, or theirs were replaced on trust.
    pub unread: Streak,
    pub commit: GroupCommit,
    pub maintenance: Maintenance,
    /// Counts the manifests written. Only changes under the maintenance lock.
    pub generation: AtomicU64,
    pub recovery: RecoveryInfo,
    pub uses: Uses,
    birthplace: Birthplace,
    /// The log is mapped, and small beside the machine's memory: what has been written since open can be expected to be
    /// there.
    pub warm: AtomicBool,
    /// Segments from this one on have been written since open.
    pub first_id: u64,
    /// No other segments are left.
    pub young: AtomicBool,
}

impl Store {
    /// Opens the database in the directory `path`, restoring what is there.
    pub fn open(path: &Path, options: &Options) -> Result<Store> {
        options.validate()?;
        let storage = recovery::open_directory(path, options)?;
        Store::open_on(storage, options)
    }

    /// Opens the database that `storage` holds.
    pub(crate) fn open_on(storage: Arc<dyn Storage>, options: &Options) -> Result<Store> {
        options.validate()?;
        recovery::admit(&*storage, options)?;
        recovery::lock(&*storage, options.read_only)?;
        let opened = recovery::open_engine(&storage, options, Birthplace::here());
        let engine = opened.inspect_err(|_| storage.unlock())?;
        // Should a thread not start, this is closed.
        let mut store = Store { engine: Arc::new(engine), threads: Vec::new() };
        store.start_threads()?;
        Ok(store)
    }

    /// Finds a key's value and has it stored to where `out` says. `None` if the key is not stored.
    pub fn get_with<B: ValueBuf>(&self, key: &[u8], out: &mut B) -> Result<Option<usize>> {
        self.check_process()?;
        self.engine.get_with(key, out)
    }

    /// A key's value, if it is stored.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut value = Vec::new();
        Ok(self.get_with(key, &mut value)?.map(|_| value))
    }

    /// Whether a key is stored.
    pub fn exists(&self, key: &[u8]) -> Result<bool> {
        self.check_process()?;
        self.engine.exists(key)
    }

    /// Stores a value under a key, in place of any that was there.
    pub fn set(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.check_process()?;
        self.engine.set(key, value)
    }

    /// Stores a value under a key that has none. Returns whether it did.
    pub fn set_if_absent(&self, key: &[u8], value: &[u8]) -> Result<bool> {
        self.check_process()?;
        self.engine.set_if(key, value, Condition::Absent)
    }

    /// Stores a value under a key whose value is `expected`. Returns whether it did.
    pub fn replace_if(&self, key: &[u8], expected: &[u8], value: &[u8]) -> Result<bool> {
        self.check_process()?;
        self.engine.set_if(key, value, Condition::Value(expected))
    }

    /// Removes a key. False if it was not stored; then nothing is written.
    pub fn del(&self, key: &[u8]) -> Result<bool> {
        self.check_process()?;
        self.engine.del(key)
    }

    /// Makes everything acknowledged so far survive power loss.
    pub fn sync(&self) -> Result<()> {
        self.check_writable()?;
        self.engine.sync_log()
    }

    /// Rewrites everything that is garbage by now.
    pub fn compact(&self) -> Result<()> {
        self.compact_with(&mut Progress::new(&mut |_, _| true))
    }

    /// As `compact`, telling how far it has come.
    pub fn compact_with(&self, progress: &mut Progress<'_>) -> Result<()> {
        self.check_writable()?;
        self.engine.compact(progress)
    }

    /// Does up to about `budget` bytes of the work that is due: compaction, syncs at intervals. True if more is due.
    pub fn maintain(&self, budget: u64) -> Result<bool> {
        self.check_writable()?;
        self.engine.maintain(budget)
    }

    /// Counters of this moment.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// What opening found and did.
    pub fn recovery_info(&self) -> &RecoveryInfo {
        &self.engine.recovery
    }

    /// An error in a forked child of the process that opened the store. Takes no lock, makes no system call.
    #[inline]
    pub fn check_process(&self) -> Result<()> {
        self.engine.check_process()
    }

    /// An error while snapshots or iterators of the store are alive.
    pub fn check_unused(&self) -> Result<()> {
        if self.engine.uses.any() {
            return Err(Error::new(Code::Busy, "snapshots or iterators of the store have not been freed"));
        }
        Ok(())
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_process()?;
        if self.engine.options.read_only {
            return Err(Error::new(Code::ReadOnly, "the store was opened for reading only"));
        }
        Ok(())
    }

    /// Syncs everything and closes the store. Snapshots and iterators can still be read from afterwards. It is closed
    /// whatever the result: an error says that what was written last may not be durable.
    pub fn close(mut self) -> Result<()> {
        self.shut_down()
    }

    fn start_threads(&mut self) -> Result<()> {
        let engine = &self.engine;
        if engine.options.background && !engine.options.read_only {
            self.threads.push(maintenance::spawn(engine)?);
        }
        if let Some(maker) = &engine.factory.page_maker {
            self.threads.push(maker.spawn()?);
        }
        Ok(())
    }

    fn shut_down(&mut self) -> Result<()> {
        self.check_process()?;
        self.engine.maintenance.stop();
        if let Some(maker) = &self.engine.factory.page_maker {
            maker.stop();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        let result = if self.engine.options.read_only { Ok(()) } else { self.engine.finish() };
        self.engine.storage.unlock();
        result
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.check_process().is_err() {
            // A child has neither the threads nor the lock. What it inherited belongs to its parent.
            std::mem::forget(std::mem::take(&mut self.threads));
        } else if !self.engine.maintenance.stopped() {
            let _ = self.shut_down();
        }
    }
}

impl Engine {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        options: &Options,
        factory: Arc<SegmentFactory>,
        index: Index,
        manifest: &Manifest,
        appender: Appender,
        recovery: RecoveryInfo,
        birthplace: Birthplace,
    ) -> Engine {
        let first_id = factory.next_id.load(Relaxed);
        let engine = Engine {
            storage: Arc::clone(&factory.storage),
            options: options.clone(),
            factory,
            index,
            hash_seed: manifest.hash_seed,
            appender: AppendLock::new(appender),
            fresh: Streak::default(),
            unread: Streak::default(),
            commit: GroupCommit::default(),
            maintenance: Maintenance::default(),
            generation: AtomicU64::new(manifest.generation),
            recovery,
            uses: Uses::default(),
            birthplace,
            warm: AtomicBool::new(false),
            first_id,
            young: AtomicBool::new(false),
        };
        engine.note_log(engine.index.segments().iter());
        engine
    }

    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        self.birthplace.check()
    }

    /// Where a key belongs in the index. Keyed, so that nobody can choose keys that collide.
    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        hash_key(self.hash_seed, key)
    }

    /// Takes the append lock, and waits for those who fill places: while it is held, the log ends where the index does, and no
    /// key's newest record becomes another.
    pub(crate) fn appender(&self) -> Result<MutexGuard<'_, Appender>> {
        let appender = self.appender_alone()?;
        appender.settle();
        Ok(appender)
    }

    /// Takes the append lock while places may be being filled.
    pub(crate) fn appender_alone(&self) -> Result<MutexGuard<'_, Appender>> {
        // Nearly always it is held for less time than it takes to fall asleep and to be woken.
        for _ in 0..SPINS {
            if let Ok(appender) = self.appender.try_lock() {
                return Ok(appender);
            }
            std::hint::spin_loop();
        }
        self.appender.lock().map_err(|_| {
            Error::new(Code::Internal, "the store takes no more writes after an internal error; reopen it")
        })
    }

    /// Makes a manifest of the live segments but for `without`, durable. A sync that fails poisons the store.
    pub(crate) fn write_manifest(&self, without: &[Arc<Segment>]) -> Result<()> {
        let mut staying: Vec<_>;
        let manifest = {
            // No segment is added meanwhile: each is either listed, or its id is not below `next_id`.
            let appender = self.appender()?;
            staying = self.index.segments().iter().cloned().collect();
            staying.retain(|s| !without.iter().any(|w| Arc::ptr_eq(w, s)));
            staying.sort_by_key(|s| s.id());
            Manifest {
                generation: self.generation.load(Relaxed) + 1,
                hash_seed: self.hash_seed,
                next_id: self.factory.next_id.load(Relaxed),
                last_timestamp: appender.last_timestamp,
                segments: staying.iter().map(manifest_entry).collect(),
            }
        };
        let replace = |e: std::io::Error| Error::os("replace MANIFEST", &e);
        let sync_dir = || self.storage.sync_dir().map_err(|e| self.poison("sync the directory", &e));
        sync_dir()?;
        let file = manifest.write_temp(&*self.storage).map_err(replace)?;
        file.sync().map_err(|e| self.poison("sync MANIFEST", &e))?;
        // The sync of another thread may have failed meanwhile, and what it was told is told only once.
        self.commit.check()?;
        self.storage.rename(manifest::TEMP_NAME, manifest::NAME).map_err(replace)?;
        sync_dir()?;
        self.commit.check()?;
        self.generation.store(manifest.generation, Relaxed);
        staying.iter().zip(&manifest.segments).for_each(|(segment, entry)| segment.set_listed(entry.synced_len));
        self.note_log(staying.iter());
        Ok(())
    }

    /// Whether the records of a segment are expected to be in memory.
    #[inline]
    pub(crate) fn at_hand(&self, segment: &Segment) -> bool {
        segment.id() >= self.first_id && self.warm.load(Relaxed)
    }

    /// Has a segment ready for readers that has just been written, if it can be expected to stay in memory.
    pub(crate) fn expect_reads(&self, segment: &Segment) {
        if self.warm.load(Relaxed) {
            segment.expect_reads();
        }
    }

    /// Notes whether the log is so small that it can be expected to be in memory, and whether it is all new.
    fn note_log<'a>(&self, mut segments: impl Iterator<Item = &'a Arc<Segment>>) {
        self.young.store(segments.all(|segment| segment.id() >= self.first_id), Relaxed);
        let small = self.log_and_live().0 < self.storage.memory() / WARM_FRACTION;
        self.warm.store(small && self.factory.mapped, Relaxed);
    }

    /// The last work of an open store: everything synced, trimmed, and described by hints and MANIFEST.
    fn finish(&self) -> Result<()> {
        let mut maintainer = self.maintenance.lock();
        maintainer.abandon(self);
        maintainer.retired.wait();
        let reserve = &self.factory.reserve;
        if reserve.was_needed() {
            // It matters more than hints do.
            reserve.hold(&*self.storage);
        }
        let mut finished = self.seal_everything();
        if finished.as_ref().is_err_and(|e| e.code() == Code::NoSpace) && reserve.lend(&*self.storage) {
            finished = self.seal_everything();
        }
        maintainer.retired.collect(self);
        maintainer.retired.wait();
        self.factory.reserve.close(&*self.storage);
        finished
    }

    pub(crate) fn stats(&self) -> Stats {
        // Should that fail, some garbage is not counted yet.
        let _ = self.prove_all();
        let (keys, index_bytes) = self.index.usage();
        let mut stats = Stats { keys, index_bytes, mapped: self.factory.mapped, ..Stats::default() };
        for segment in self.index.segments().iter() {
            let frames = segment.len().saturating_sub(HEADER_LEN as u64);
            stats.segments += 1;
            stats.log_bytes += segment.len();
            stats.dead_bytes += segment.dead().min(frames);
            stats.live_bytes += frames.saturating_sub(segment.dead());
            stats.tombstone_bytes += segment.tombstones();
            stats.quarantined_segments += segment.quarantined() as u64;
        }
        stats.snapshots = self.uses.snapshots.load(Relaxed);
        stats.iterators = self.uses.iterators.load(Relaxed);
        stats.pinned_bytes = self.maintenance.pinned_bytes.load(Relaxed);
        stats.compactions = self.maintenance.compactions.load(Relaxed);
        stats.compacted_bytes = self.maintenance.compacted_bytes.load(Relaxed);
        stats.syncs = self.commit.syncs.load(Relaxed);
        stats
    }
}

/// What MANIFEST is to say of a segment.
pub(crate) fn manifest_entry(segment: &Arc<Segment>) -> SegmentEntry {
    SegmentEntry {
        id: segment.id(),
        identity: segment.identity(),
        role: segment.role(),
        sealed: segment.state() == State::Sealed,
        synced_len: segment.synced(),
        min_timestamp: segment.min_timestamp(),
    }
}

/// SipHash-1-3 of a key (Aumasson and Bernstein, "SipHash: a fast short-input PRF").
#[inline]
pub(crate) fn hash_key(seed: [u64; 2], key: &[u8]) -> KeyHash {
    KeyHash(SipHasher13::new_with_keys(seed[0], seed[1]).hash(key))
}

/// Locks what holds no invariant that a panic could have broken.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
