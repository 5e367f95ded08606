//! Holding writers back: in small steps and not for long, while the log outgrows what compaction, syncs and the disk can do.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::engine::Engine;
use crate::maintenance::SLICE;

/// The log may exceed its limit by this before writers are slowed, and by one segment, as compaction writes one before the
/// others go.
const SLACK: u64 = 24 << 20;
/// From so many segments on that wait to be synced and sealed, writers are slowed; at twice as many all of them do it, those too
/// who delete.
pub(crate) const BACKLOG: usize = 32;
/// A slow-down of one write goes in steps of this, at most so many for each piece of so many bytes: many changes in one
/// batch must not outgrow compaction either.
const STEP: Duration = Duration::from_millis(1);
const STEPS: u64 = 20;
const PIECE: u64 = 256 << 10;

/// Whether writers are held back.
#[derive(Default)]
pub(crate) struct Brake(AtomicBool);

impl Brake {
    #[inline]
    pub(crate) fn on(&self) -> bool {
        self.0.load(Relaxed)
    }

    pub(crate) fn set(&self, on: bool) {
        self.0.store(on, Relaxed);
    }
}

impl Engine {
    /// Holds the writer of `len` bytes back if need be. Whoever only deletes is not: that gives back more space than it takes.
    #[inline]
    pub(crate) fn slow_down(&self, len: u64) {
        if self.maintenance.brake.on() {
            self.brake_now(len);
        }
    }

    #[cold]
    fn brake_now(&self, len: u64) {
        for _ in 0..STEPS * (1 + len / PIECE) {
            if self.options.background {
                std::thread::sleep(STEP);
            } else if !matches!(self.maintain(SLICE / 4), Ok(true)) {
                return;
            }
            if !self.maintenance.brake.on() {
                return;
            }
        }
    }

    /// How many segments wait to be synced and sealed.
    pub(crate) fn backlog(&self) -> usize {
        self.appender().map_or(0, |appender| appender.backlog())
    }

    /// Whether the log has outgrown what it may take while compaction runs.
    pub(crate) fn log_over_limit(&self) -> bool {
        let (log, live) = self.log_and_live();
        let output = self.maintenance.output_bytes.load(Relaxed);
        log + output > self.log_limit(live).saturating_add(SLACK + self.options.segment_size)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::append::tests::{goes_on, waits};
    use crate::storage::sim::{PageMode, SimStorage};
    use crate::{Batch, Options, Store};

    #[test]
    fn whoever_deletes_is_not_held_back() {
        let options = Options { background: false, ..Options::default() };
        let store = Store::open_on(Arc::new(SimStorage::new(1, PageMode::Page)), &options).unwrap();
        let keys: Vec<_> = (0..8u8).map(|n| [n]).collect();
        keys.iter().for_each(|key| store.set(key, b"value").unwrap());
        let batch = |change: &dyn Fn(&mut Batch, &[u8])| {
            let mut batch = Batch::new();
            keys[4..].iter().for_each(|key| change(&mut batch, key));
            store.write(&batch).unwrap();
        };
        // Without a thread, those who are held back do what there is to do.
        let busy = || {
            store.engine.maintenance.brake.set(true);
            store.engine.maintenance.lock()
        };
        let thread_is_busy = busy();
        assert!(goes_on(|| assert!(store.del(&keys[0]).unwrap()), || drop(thread_is_busy)));
        let thread_is_busy = busy();
        assert!(goes_on(|| batch(&|batch, key| batch.del(key).unwrap()), || drop(thread_is_busy)));
        let thread_is_busy = busy();
        assert!(waits(|| store.set(b"key", b"value").unwrap(), || drop(thread_is_busy)));
        let thread_is_busy = busy();
        assert!(waits(|| batch(&|batch, key| batch.set(key, b"value").unwrap()), || drop(thread_is_busy)));
    }
}
