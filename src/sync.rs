//! Making the log durable, once for everybody who waits: group commit.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::append::OpenSegment;
use crate::engine::Engine;
use crate::error::{Code, Error, Result};

/// The log is sent to the disk in pieces of this.
const SEND_PIECE: u64 = 1 << 20;
/// Whoever syncs waits for the next writer for one in so many parts of the time that the last sync took.
const GATHER_PART: u32 = 4;
/// A sync that took longer than this counts as one that took so long: other writers are at hand sooner, or busy elsewhere.
const LONG_SYNC: Duration = Duration::from_millis(4);
/// After a wait in which too few came, so many syncs wait for nobody.
const HASTY_SYNCS: u32 = 8;

/// Who has synced how much of the log.
#[derive(Default)]
pub(crate) struct GroupCommit {
    state: Mutex<Progress>,
    changed: Condvar,
    /// Writers that have come for the next sync. Changes under the lock of `state`, but for being taken. One that comes just
    /// before the log is looked at is served by the sync that begins, and counted for the next: that one waits for one less.
    arrived: AtomicUsize,
    /// A sync failed: what reached the disk is unknown.
    poisoned: AtomicBool,
    pub syncs: AtomicU64,
}

#[derive(Default)]
struct Progress {
    /// Everything appended before this, as `Appender::appended` counts, has been synced.
    synced: u64,
    /// A thread is syncing. The others wait for it.
    busy: bool,
    habit: Habit,
}

/// How writers have come lately.
#[derive(Clone, Copy, Default)]
struct Habit {
    /// For how many the last sync was, and how many came while it ran: all of them may want the next one.
    writers: usize,
    /// How long the last sync took, `LONG_SYNC` at most.
    took: Duration,
    /// So many syncs are not to wait for anybody.
    hasty: u32,
}

impl GroupCommit {
    /// An error if a sync has failed since open.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.poisoned.load(Relaxed) { Err(poisoned()) } else { Ok(()) }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the writers of the last sync, as long as one after the other comes back: a sync takes so much longer than
    /// a write that it pays to have all of them in one. Else they would go on in two groups that wait for each other. Returns
    /// for how many the sync is. (As the commit delay of PostgreSQL, but by what is seen, not by settings.)
    fn gather(&self, habit: &mut Habit) -> usize {
        let mut arrived = self.arrived.load(Relaxed);
        if habit.hasty > 0 {
            habit.hasty -= 1;
        } else if arrived < habit.writers {
            let (before, patience) = (arrived, habit.took / GATHER_PART);
            let start = Instant::now();
            let mut last = start;
            while arrived < habit.writers && last.elapsed() < patience && start.elapsed() < habit.took {
                std::thread::yield_now();
                let now = self.arrived.load(Relaxed);
                if std::mem::replace(&mut arrived, now) != now {
                    last = Instant::now();
                }
            }
            // Writers who have something else to do between two writes are not worth waiting for.
            let (came, missed) = (arrived - before, habit.writers.saturating_sub(arrived));
            habit.hasty = if came >= missed * 3 { 0 } else { HASTY_SYNCS };
        }
        self.arrived.swap(0, Relaxed)
    }
}

/// The time in which a thread syncs for all.
struct Turn<'a>(&'a GroupCommit);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().busy = false;
        self.0.changed.notify_all();
    }
}

/// The error of every write after a failed sync.
#[cold]
fn poisoned() -> Error {
    Error::new(Code::Poisoned, "an earlier sync failed, so the store takes no more writes until it is reopened")
}

impl Engine {
    /// Notes that a sync failed. After this the kernel may have dropped dirty pages, so a later sync
    /// that succeeds would prove nothing.
    #[cold]
    pub(crate) fn poison(&self, doing: impl std::fmt::Display, error: &std::io::Error) -> Error {
        self.commit.poisoned.store(true, Relaxed);
        Error::new(Code::Poisoned, format!("{doing}: {error}; the store takes no more writes until it is reopened"))
    }

    /// Makes everything appended so far durable.
    pub(crate) fn sync_log(&self) -> Result<()> {
        let appended = self.appender()?.appended;
        self.sync_to(appended)
    }

    /// Returns once everything appended before `target` is durable.
    pub(crate) fn sync_to(&self, target: u64) -> Result<()> {
        self.commit(true, |progress| Ok(progress.synced >= target))
    }

    /// Makes the log segments durable that take no more appends, and leaves the active one alone.
    pub(crate) fn sync_rotated(&self) -> Result<()> {
        self.commit(false, |_| Ok(self.appender()?.rotated.is_empty()))
    }

    /// Has the disk begin to write what compaction will have to sync.
    pub(crate) fn start_sync(&self) -> Result<()> {
        let Some(open) = self.appender()?.active().cloned() else { return Ok(()) };
        let segment = &open.segment;
        let (start, end) = (segment.sent(), segment.len() - segment.len() % SEND_PIECE);
        if end > start {
            segment.expect_sync(end);
            let started = open.file.start_sync(start, end - start);
            started.map_err(|e| self.poison(format_args!("sync {}", segment.name()), &e))?;
            segment.set_sent(end);
        }
        Ok(())
    }

    /// Syncs until it is `done`. One thread syncs for all who wait.
    fn commit(&self, with_active: bool, done: impl Fn(&Progress) -> Result<bool>) -> Result<()> {
        let commit = &self.commit;
        let mut progress = commit.lock();
        let mut counted = !with_active;
        loop {
            commit.check()?;
            if done(&progress)? {
                return Ok(());
            }
            if !std::mem::replace(&mut counted, true) {
                commit.arrived.fetch_add(1, Relaxed);
            }
            if !progress.busy {
                break;
            }
            progress = commit.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        progress.busy = true;
        let mut habit = progress.habit;
        drop(progress);
        // Whatever happens in it, the others are not to wait for ever.
        let _turn = Turn(commit);
        let group = if with_active { commit.gather(&mut habit) } else { 0 };
        let start = Instant::now();
        let synced = self.sync_once(with_active)?;
        // What failed meanwhile may have been a part of this.
        commit.check()?;
        let mut progress = commit.lock();
        if let Some(synced) = synced {
            progress.synced = progress.synced.max(synced);
            habit.took = start.elapsed().min(LONG_SYNC);
            habit.writers = group + commit.arrived.load(Relaxed);
            progress.habit = habit;
        }
        Ok(())
    }

    /// Syncs what the log holds now, oldest first, and trims what is complete. Returns how far that is, if the active segment
    /// was included.
    fn sync_once(&self, with_active: bool) -> Result<Option<u64>> {
        let (rotated, active, appended) = {
            let appender = self.appender()?;
            let active = appender.active().map(|open| (open.clone(), open.segment.len()));
            (appender.rotated.clone(), active, appender.appended)
        };
        let active = active.filter(|(open, end)| with_active && *end > open.segment.synced());
        let sync = |open: &OpenSegment| {
            self.commit.syncs.fetch_add(1, Relaxed);
            open.file.sync().map_err(|e| self.poison(format_args!("sync {}", open.segment.name()), &e))
        };
        for open in &rotated {
            // So that one sync covers the records and the length; should it fail, sealing trims. Not under the append lock:
            // the system may wait for the disk to take the blocks back.
            let _ = open.file.set_len(open.segment.len());
            // They are never stored to again, and it is cheaper to sync what cannot be.
            open.segment.seal_map();
            self.expect_reads(&open.segment);
        }
        rotated.iter().try_for_each(sync)?;
        if let Some((open, end)) = &active {
            open.segment.expect_sync(*end);
            sync(open)?;
        }
        let new_file = rotated.iter().chain(active.iter().map(|(open, _)| open)).any(|o| o.segment.synced() == 0);
        if new_file {
            self.storage.sync_dir().map_err(|e| self.poison("sync the directory", &e))?;
        }
        let mut appender = self.appender()?;
        for open in &rotated {
            open.segment.set_synced(open.segment.len());
        }
        let done = |o: &OpenSegment| rotated.iter().any(|r| Arc::ptr_eq(&r.segment, &o.segment));
        let (now_synced, still_rotated) = std::mem::take(&mut appender.rotated).into_iter().partition(done);
        appender.rotated = still_rotated;
        appender.synced.extend::<Vec<OpenSegment>>(now_synced);
        if let Some((open, end)) = &active {
            open.segment.set_synced(*end);
            appender.append_mark(&open.segment, *end);
        }
        Ok(with_active.then_some(appended))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::SyncLevel;
    use crate::storage::sim::{PageMode, SimStorage};
    use crate::{Options, Store};

    #[test]
    fn a_sync_waits_for_the_writers_of_the_last_one() {
        let commit = GroupCommit::default();
        let mut habit = Habit { writers: 3, took: Duration::from_secs(3600), hasty: 0 };
        commit.arrived.store(1, Relaxed);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for _ in 0..2 {
                    std::thread::sleep(Duration::from_millis(2));
                    commit.arrived.fetch_add(1, Relaxed);
                }
            });
            assert_eq!(commit.gather(&mut habit), 3);
        });
        assert_eq!(habit.hasty, 0);
        assert_eq!(commit.arrived.load(Relaxed), 0);
    }

    #[test]
    fn a_sync_does_not_wait_again_and_again_for_writers_that_do_not_come() {
        let commit = GroupCommit::default();
        let mut habit = Habit { writers: 8, took: Duration::from_millis(4), hasty: 0 };
        commit.arrived.store(2, Relaxed);
        assert_eq!(commit.gather(&mut habit), 2);
        // These would never end if they waited.
        habit.took = Duration::from_secs(3600);
        for _ in 0..HASTY_SYNCS {
            commit.arrived.store(2, Relaxed);
            assert_eq!(commit.gather(&mut habit), 2);
        }
        // Nobody is missing.
        commit.arrived.store(8, Relaxed);
        assert_eq!(commit.gather(&mut habit), 8);
        assert_eq!(habit.hasty, 0);
        // Then it is tried again.
        habit.took = Duration::from_millis(4);
        commit.arrived.store(2, Relaxed);
        assert_eq!(commit.gather(&mut habit), 2);
        assert_eq!(habit.hasty, HASTY_SYNCS);
    }

    #[test]
    fn a_sync_counts_those_whom_it_serves() {
        let options = Options { background: false, sync: SyncLevel::Always, ..Options::default() };
        let store = Store::open_on(Arc::new(SimStorage::new(1, PageMode::Page)), &options).unwrap();
        for n in 0..3u8 {
            store.set(&[n], b"value").unwrap();
            assert_eq!(store.engine.commit.lock().habit.writers, 1);
            assert_eq!(store.engine.commit.arrived.load(Relaxed), 0);
        }
    }

    #[test]
    fn no_manifest_replaces_another_once_a_sync_has_failed() {
        let disk = SimStorage::new(1, PageMode::Page);
        let options = Options { background: false, ..Options::default() };
        let store = Store::open_on(Arc::new(disk.clone()), &options).unwrap();
        store.engine.write_manifest(&[]).unwrap();
        let before = disk.read_file("MANIFEST");
        store.engine.poison("sync in another thread", &std::io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(store.engine.write_manifest(&[]).unwrap_err().code(), Code::Poisoned);
        assert_eq!(disk.read_file("MANIFEST"), before);
    }
}
