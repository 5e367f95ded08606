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

/// Fewer bytes are unlinked at once.
const ASIDE: u64 = 1 << 20;

/// Segments that are no longer part of the database. Behind the maintenance lock.
#[derive(Default)]
pub(crate) struct Retired {
    /// Those that may still be read.
    segments: Vec<Arc<Segment>>,
    /// How many there have been since open.
    count: u64,
    /// The thread that is unlinking some.
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
        if unused.is_empty() {
            return;
        }
        if !engine.options.background || unused.iter().map(|s| s.len()).sum::<u64>() < ASIDE {
            return unlink_all(&*engine.storage, &unused);
        }
        // No more than one, so that compaction cannot outrun the disk.
        self.wait();
        let (storage, unused) = (Arc::clone(&engine.storage), Arc::new(unused));
        let job = (Arc::clone(&storage), Arc::clone(&unused));
        let thread = || std::thread::Builder::new().name("kvstore".into()).spawn(move || unlink_all(&*job.0, &job.1));
        match with_signals_blocked(thread) {
            Ok(thread) => self.unlinking = Some(thread),
            Err(_) => unlink_all(&*storage, &unused),
        }
    }

    /// Returns when the space of what has been collected is free. Whether there was anything to wait for.
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
