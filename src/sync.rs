//! Making the log durable, once for everybody who waits: group commit.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::append::OpenSegment;
use crate::engine::Engine;
use crate::error::{Code, Error, Result};

/// The log is sent to the disk in pieces of this.
const SEND_PIECE: u64 = 1 << 20;

/// Who has synced how much of the log.
#[derive(Default)]
pub(crate) struct GroupCommit {
    state: Mutex<Progress>,
    changed: Condvar,
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
}

impl GroupCommit {
    /// Whether a sync has failed since open.
    #[inline]
    pub(crate) fn poisoned(&self) -> bool {
        self.poisoned.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
pub(crate) fn poisoned() -> Error {
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
        let mut progress = self.commit.lock();
        loop {
            if self.commit.poisoned() {
                return Err(poisoned());
            }
            if done(&progress)? {
                return Ok(());
            }
            if !progress.busy {
                break;
            }
            progress = self.commit.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        progress.busy = true;
        drop(progress);
        // Whatever happens in it, the others are not to wait for ever.
        let _turn = Turn(&self.commit);
        let synced = self.sync_once(with_active)?;
        let mut progress = self.commit.lock();
        progress.synced = progress.synced.max(synced.unwrap_or(0));
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
