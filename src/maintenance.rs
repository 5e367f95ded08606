//! The work that nobody waits for: syncing and sealing segments, compacting them, and unlinking what is retired. Done by a
//! thread of the store, or in slices by the writers, or by the host through `kv_maintain`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::brake::{BACKLOG, Brake};
use crate::compact::{Goal, Job, Progress, choose};
use crate::engine::{Engine, lock};
use crate::error::{Code, Error, Result};
use crate::options::SyncLevel;
use crate::retired::Retired;
use crate::write::Written;

/// What a step of the thread moves at most.
pub(crate) const SLICE: u64 = 1 << 20;
/// What a slice inside a write moves at least.
const LEAST_SLICE: u64 = 4 << 10;
/// So much new garbage is worth a look at what there is to do.
const LOOK_EVERY: u64 = 32 << 10;
/// After so much new garbage writers look whether the log has outgrown its limit.
const BRAKE_EVERY: u64 = 1 << 20;
/// How long the thread rests between two turns unless the log grows too fast: so syncs are coalesced.
const REST: Duration = Duration::from_millis(50);
/// So long after the last news of garbage, compaction no longer waits for more of it.
const CALM: Duration = Duration::from_millis(900);
/// How long it waits after a failure before it tries again.
const RETRY: Duration = Duration::from_millis(500);

/// The part of a store that looks after its files.
#[derive(Default)]
pub(crate) struct Maintenance {
    maintainer: Mutex<Maintainer>,
    /// Set to have the thread look for work.
    wanted: Mutex<bool>,
    wake: Condvar,
    /// Set once. Changes under the lock of `wanted`, so that the thread cannot miss it.
    stop: AtomicBool,
    pub brake: Brake,
    /// How many callers want the background thread to stand back.
    demands: AtomicU32,
    garbage: Garbage,
    pub pinned_bytes: AtomicU64,
    /// What compaction has written to an output that is not a segment of the log yet.
    pub output_bytes: AtomicU64,
    pub compactions: AtomicU64,
    pub compacted_bytes: AtomicU64,
}

/// Bytes of records that later ones have made garbage since open. Apart from what all writers read.
#[derive(Default)]
#[repr(align(64))]
struct Garbage {
    made: AtomicU64,
    /// So many of them a writer has noticed.
    noticed: AtomicU64,
}

/// What is under way. Behind the maintenance lock.
#[derive(Default)]
pub(crate) struct Maintainer {
    job: Option<Job>,
    pub(crate) retired: Retired,
    last_sync: Option<Instant>,
    /// The last slice that a writer did left more to do.
    unfinished: bool,
}

impl Maintenance {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Maintainer> {
        lock(&self.maintainer)
    }

    /// Ends the thread, once it has finished its step.
    pub(crate) fn stop(&self) {
        let mut wanted = lock(&self.wanted);
        self.stop.store(true, Release);
        *wanted = true;
        self.wake.notify_one();
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Acquire)
    }

    /// Has the background thread leave compaction alone until what is returned is dropped. It would hold the lock nearly
    /// all the time while there is something to compact.
    pub(crate) fn demand(&self) -> Demand<'_> {
        self.demands.fetch_add(1, Relaxed);
        Demand(self)
    }

    /// Has the thread look for work. While it rests, which only the brake ends, telling it once is enough.
    fn wake(&self) {
        if !std::mem::replace(&mut *lock(&self.wanted), true) || self.brake.on() {
            self.wake.notify_one();
        }
    }

    /// Waits until there is work or the time is over. Returns whether there is.
    fn await_work(&self, time: Duration) -> bool {
        let wanted = lock(&self.wanted);
        let waited = self.wake.wait_timeout_while(wanted, time, |wanted| !*wanted);
        std::mem::take(&mut waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Waits until the store is closed, writers are held back, or the time is over.
    fn rest(&self, time: Duration) {
        let wanted = lock(&self.wanted);
        let waited = self.wake.wait_timeout_while(wanted, time, |_| !self.stopped() && !self.brake.on());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Counts garbage. The next write makes it known.
    #[inline]
    pub(crate) fn note_garbage(&self, bytes: u64) {
        self.garbage.made.fetch_add(bytes, Relaxed);
    }

    /// Has the work done that a write leaves to do.
    #[inline]
    pub(crate) fn after_write(&self, engine: &Engine, written: &Written) {
        let look = self.garbage.noticed.load(Relaxed) / LOOK_EVERY != self.garbage.made.load(Relaxed) / LOOK_EVERY;
        if look || written.backlog != written.backlog_before || !engine.options.background {
            self.look_after(engine, written);
        }
    }

    fn look_after(&self, engine: &Engine, written: &Written) {
        let notice = || {
            let garbage = self.garbage.made.load(Relaxed);
            (self.garbage.noticed.fetch_max(garbage, Relaxed).min(garbage), garbage)
        };
        if engine.options.background {
            let (before, garbage) = notice();
            // The thread may be busy with a long sync: the writers notice themselves that it falls behind.
            if before / BRAKE_EVERY != garbage / BRAKE_EVERY && engine.log_over_limit() || written.backlog >= BACKLOG {
                self.brake.set(true);
            }
            self.wake();
            if written.backlog >= 2 * BACKLOG {
                // Each of them has a descriptor open, of which there are not many.
                let _ = self.lock().step(engine, LEAST_SLICE, Goal::Automatic);
            }
            return;
        }
        let Some(mut maintainer) = self.try_lock() else { return };
        let (before, garbage) = notice();
        let look = before / LOOK_EVERY != garbage / LOOK_EVERY;
        let due = look || written.backlog > 0 || engine.options.sync == SyncLevel::Interval;
        if due || maintainer.unfinished {
            // A failure of this work is not one of the write, which has succeeded: it will be tried again.
            let budget = 4 * (garbage - before) + LEAST_SLICE;
            let more = maintainer.step(engine, budget, Goal::Automatic);
            maintainer.unfinished = matches!(more, Ok(true));
        }
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Maintainer>> {
        match self.maintainer.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(e)) => Some(e.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// See [`Maintenance::demand`].
pub(crate) struct Demand<'a>(&'a Maintenance);

impl Drop for Demand<'_> {
    fn drop(&mut self) {
        self.0.demands.fetch_sub(1, Relaxed);
    }
}

/// Starts the store's thread, which takes no signals.
pub(crate) fn spawn(engine: &Arc<Engine>) -> Result<JoinHandle<()>> {
    let engine = Arc::clone(engine);
    let thread = || std::thread::Builder::new().name("kvstore".into()).spawn(move || run(&engine));
    with_signals_blocked(thread).map_err(|e| Error::os("start the background thread", &e))
}

/// A new thread inherits the signal mask of the one that starts it.
pub(crate) fn with_signals_blocked<T>(start: impl FnOnce() -> T) -> T {
    // SAFETY: sigset_t is plain data that sigfillset initializes; the calls only change this thread's mask, and the
    // second gives back what the first found.
    unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        let mut before = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let result = start();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        result
    }
}

fn run(engine: &Engine) {
    let maintenance = &engine.maintenance;
    let tick = match engine.options.sync {
        SyncLevel::Interval => Duration::from_millis(engine.options.sync_interval_ms),
        _ => Duration::from_secs(1),
    };
    let mut time = tick;
    let mut woken = Instant::now();
    while !maintenance.stopped() {
        if maintenance.await_work(time) {
            woken = Instant::now();
        }
        if maintenance.stopped() {
            break;
        }
        let goal = if woken.elapsed() < CALM { Goal::Patient } else { Goal::Automatic };
        let turn = catch_unwind(AssertUnwindSafe(|| background_turn(engine, goal)));
        time = if matches!(turn, Ok(Ok(()))) { tick } else { tick.min(RETRY) };
        if !maintenance.brake.on() {
            maintenance.rest(REST.min(tick));
        }
    }
}

/// Does everything that is due.
fn background_turn(engine: &Engine, goal: Goal) -> Result<()> {
    while !engine.maintenance.stopped() {
        let mut maintainer = engine.maintenance.lock();
        if engine.maintenance.demands.load(Relaxed) > 0 {
            // Whoever demands a compaction does it himself, and wants to see how it goes on.
            return maintainer.sync_and_seal(engine);
        }
        if !maintainer.step(engine, SLICE, goal)? && !engine.make_missing_hint() {
            break;
        }
    }
    Ok(())
}

impl Maintainer {
    /// Does a piece of the work that is due. True if there is more.
    pub(crate) fn step(&mut self, engine: &Engine, budget: u64, goal: Goal) -> Result<bool> {
        let mut result = self.step_without_brake(engine, budget, goal);
        let no_space = |result: &Result<bool>| result.as_ref().is_err_and(|e| e.code() == Code::NoSpace);
        if no_space(&result) && self.retired.wait() {
            result = self.step_without_brake(engine, budget, goal);
        }
        if no_space(&result) && engine.factory.reserve.lend(&*engine.storage) {
            result = self.step_without_brake(engine, budget, goal);
        }
        let output_len = self.job.as_ref().map_or(0, Job::unpublished_len);
        engine.maintenance.output_bytes.store(output_len, Relaxed);
        // While nothing can be won by waiting, nobody is to wait.
        let brake = matches!(result, Ok(true)) && engine.log_over_limit() || engine.backlog() >= BACKLOG;
        engine.maintenance.brake.set(brake);
        self.retired.collect(engine);
        result
    }

    fn step_without_brake(&mut self, engine: &Engine, budget: u64, goal: Goal) -> Result<bool> {
        self.sync_and_seal(engine)?;
        if self.job.is_some() {
            engine.start_sync()?;
            return self.step_job(engine, budget).map(|()| true);
        }
        // So that all garbage is counted.
        engine.prove_all()?;
        let inputs = choose(engine, goal, self.retired.count())?;
        if !inputs.is_empty() {
            self.job = Some(Job::new(engine, inputs)?);
            return Ok(true);
        }
        if !matches!(goal, Goal::Everything(_)) && engine.active_is_mostly_garbage() {
            engine.appender()?.rotate()?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Syncs what is due, and seals the segments that are complete.
    pub(crate) fn sync_and_seal(&mut self, engine: &Engine) -> Result<()> {
        engine.commit.check()?;
        self.sync_at_interval(engine)?;
        if engine.appender()?.backlog() > 0 {
            engine.sync_rotated()?;
            engine.seal_synced()?;
        }
        Ok(())
    }

    fn sync_at_interval(&mut self, engine: &Engine) -> Result<()> {
        let interval = Duration::from_millis(engine.options.sync_interval_ms);
        if engine.options.sync == SyncLevel::Interval && self.last_sync.is_none_or(|last| last.elapsed() >= interval) {
            engine.sync_log()?;
            self.last_sync = Some(Instant::now());
        }
        Ok(())
    }

    fn step_job(&mut self, engine: &Engine, budget: u64) -> Result<()> {
        let Some(job) = &mut self.job else { return Ok(()) };
        match job.step(engine, budget) {
            Ok(Progress::More) => return Ok(()),
            Ok(Progress::Done) => {
                engine.maintenance.compactions.fetch_add(1, Relaxed);
                engine.maintenance.compacted_bytes.fetch_add(job.output_len(), Relaxed);
                self.retired.add(job.inputs());
                self.job = None;
            }
            Ok(Progress::Quarantined) => self.abandon(engine),
            Err(e) => {
                if !job.must_finish() {
                    self.abandon(engine);
                }
                return Err(e);
            }
        }
        Ok(())
    }

    /// Gives up what is under way, unless it has gone so far that it can only be finished.
    pub(crate) fn abandon(&mut self, engine: &Engine) {
        let Some(mut job) = self.job.take() else { return };
        while job.must_finish() {
            match job.step(engine, u64::MAX) {
                Ok(Progress::Done) => {
                    self.retired.add(job.inputs());
                    return;
                }
                Ok(_) => {}
                // The output stays: MANIFEST will list it along with what it was made from.
                Err(_) => return,
            }
        }
        job.abandon(engine);
    }

    /// Gives up what is under way, unless it has gone so far that it can only be finished: then it stays to be.
    pub(crate) fn cancel(&mut self, engine: &Engine) {
        if !self.job.as_ref().is_some_and(Job::must_finish) {
            self.abandon(engine);
        }
    }

    /// Bytes that the compaction under way has read.
    pub(crate) fn job_done(&self) -> u64 {
        self.job.as_ref().map_or(0, Job::read_len)
    }
}

impl Engine {
    /// Whether the active segment should give way early, so that a small database stays small.
    fn active_is_mostly_garbage(&self) -> bool {
        let (log, live) = self.log_and_live();
        let Ok(appender) = self.appender() else { return false };
        let Some(open) = appender.active() else { return false };
        let (dead, len) = (open.segment.dead(), open.segment.len());
        let least = (live / 4).max(self.options.compact_threshold / 2).clamp(1, 16 << 20);
        log > self.options.compact_threshold && dead >= least && dead * 100 >= len * self.options.garbage_percent as u64
    }

    /// On a full disk: does what can be done to make room. True if there is more of it now for the write that waits.
    pub(crate) fn make_room(&self, for_tombstone: bool) -> bool {
        let reserve = &self.factory.reserve;
        reserve.needed();
        let mut maintainer = self.maintenance.lock();
        let before = (maintainer.retired.count(), self.backlog());
        while let Ok(true) = maintainer.step(self, SLICE, Goal::Automatic) {}
        // What waited for its sync has been trimmed. That something was freed may be long ago: a delete gets the reserve first.
        let freed = maintainer.retired.wait() || maintainer.retired.count() > before.0 || self.backlog() < before.1;
        let taken_back = reserve.lent() && reserve.hold(&*self.storage);
        taken_back || for_tombstone && reserve.lend(&*self.storage) || freed
    }

    /// See [`crate::Store::maintain`].
    pub(crate) fn maintain(&self, budget: u64) -> Result<bool> {
        let mut maintainer = self.maintenance.lock();
        Ok(maintainer.step(self, budget.max(1), Goal::Automatic)? || budget >= SLICE && self.make_missing_hint())
    }
}
