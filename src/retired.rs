//! What compaction has retired: unlinked once nobody reads it any more. The disk may take its time to take the blocks back,
//! so that is done aside, and compaction goes on meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use crate::engine::Engine;
use crate::log::hint;
use crate::log::segment::{Segment, SegmentIo};
use crate::maintenance::with_signals_blocked;
use crate::storage::Storage;

/// Fewer bytes are not worth a thread.
const ASIDE: u64 = 1 << 20;

/// Segments that are no longer part of the database. Behind the maintenance lock.
#[derive(Default)]
pub(crate) struct Retired {
    /// Those that may still be read.
    segments: Vec<Arc<Segment>>,
    /// How many compactions have retired some since open.
    count: u64,
    /// The thread that unlinks some, until somebody has waited for it. A forked child, which has no such thread, never drops
    /// this: the store's own thread, which it does not have either, holds a share of the engine.
    unlinking: Option<JoinHandle<()>>,
}

impl Retired {
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Takes over what a compaction is done with.
    pub(crate) fn add<'a>(&mut self, segments: impl Iterator<Item = &'a Arc<Segment>>) {
        self.segments.extend(segments.cloned());
        self.count += 1;
    }

    /// Unlinks those that nobody reads any more.
    pub(crate) fn collect(&mut self, engine: &Engine) {
        let (unused, used) = std::mem::take(&mut self.segments).into_iter().partition(|s| Arc::strong_count(s) == 1);
        self.segments = used;
        let pinned = self.segments.iter().map(|s| s.len()).sum();
        engine.maintenance.pinned_bytes.store(pinned, Relaxed);
        self.unlink(engine, unused);
    }

    fn unlink(&mut self, engine: &Engine, unused: Vec<Arc<Segment>>) {
        if !engine.options.background || unused.iter().map(|s| s.len()).sum::<u64>() < ASIDE {
            return unlink_all(&*engine.storage, &unused);
        }
        // No more than one, so that compaction cannot outrun the disk.
        self.wait();
        let unused = Arc::new(unused);
        let (storage, segments) = (Arc::clone(&engine.storage), Arc::clone(&unused));
        let run = move || unlink_all(&*storage, &segments);
        match with_signals_blocked(|| std::thread::Builder::new().name("kvstore".into()).spawn(run)) {
            Ok(thread) => self.unlinking = Some(thread),
            Err(_) => unlink_all(&*engine.storage, &unused),
        }
    }

    /// Returns when the space of what has been collected is free. Whether some of it was freed by a thread since the last
    /// call, however long ago.
    pub(crate) fn wait(&mut self) -> bool {
        self.unlinking.take().is_some_and(|thread| thread.join().is_ok())
    }
}

fn unlink_all(storage: &dyn Storage, segments: &[Arc<Segment>]) {
    for segment in segments {
        if let SegmentIo::Calls(cache) = segment.io() {
            cache.forget(segment.name());
        }
        // Should this fail, the next open removes it: MANIFEST does not list it any more.
        let _ = storage.remove(segment.name());
        let _ = storage.remove(&hint::name(segment.id()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Store;
    use crate::options::Options;
    use crate::storage::sim::{PageMode, SimStorage};

    #[test]
    fn a_delete_gets_the_reserve_though_other_space_was_freed_before() {
        let options = Options { background: false, ..Options::default() };
        let store = Store::open_on(Arc::new(SimStorage::new(1, PageMode::Page)), &options).unwrap();
        let engine = &store.engine;
        assert!(engine.factory.reserve.hold(&*engine.storage));
        engine.maintenance.lock().retired.unlinking = Some(std::thread::spawn(|| {}));
        assert!(engine.make_room(true));
        assert!(engine.factory.reserve.lent());
    }
}
