//! The pages of the active segment, which are made before records are stored to them.
//!
//! A thread makes them while the writers go on. That matters most where the memory of a virtual machine comes from its host page by
//! page: there one was measured to take ten microseconds, and storing the thirty records that it holds as long again. Who comes to a
//! page that has not been made makes it himself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, yield_now};

use super::factory::OpenSegment;
use crate::engine::lock;
use crate::error::{Error, Result};
use crate::log::segment::SegmentIo;
use crate::maintenance::with_signals_blocked;
use crate::storage::{LARGE_PAGE, write_zeros_at};

/// The thread makes so much ahead of the writers. A smaller file is not worth its while.
pub(super) const AHEAD: u64 = 2 * LARGE_PAGE;

/// The pages of a segment.
pub(super) struct Pages {
    open: OpenSegment,
    /// Those up to here are at hand, or left to others.
    made: AtomicU64,
    /// The thread is to make those up to here.
    wanted: AtomicU64,
    /// Held while some are made: with zeros, so nobody may have stored anything there, nor do so meanwhile.
    making: Mutex<()>,
    /// Whoever has the append lock waits for that: the thread lets him by between two pieces.
    waiting: AtomicBool,
}

impl Pages {
    /// Those of a segment that ends at `end`.
    pub(super) fn new(open: OpenSegment, end: u64) -> Pages {
        Pages {
            open,
            made: AtomicU64::new(end),
            wanted: AtomicU64::new(0),
            making: Mutex::new(()),
            waiting: AtomicBool::new(false),
        }
    }

    /// Those up to here can be stored to.
    #[inline]
    pub(super) fn made(&self) -> u64 {
        self.made.load(Acquire)
    }

    /// Makes those up to `end`, if the thread has not, and some more, but none from `limit` on.
    pub(super) fn make(&self, end: u64, limit: u64) {
        let making = self.wait();
        let from = self.made();
        if from < end {
            self.make_piece(&making, from, end.next_multiple_of(LARGE_PAGE).min(limit).max(end));
        }
    }

    /// Has none made up to `end`. Before anything is written there by a system call.
    pub(super) fn leave(&self, end: u64) {
        if self.made() < end {
            let _making = self.wait();
            self.made.fetch_max(end, Release);
        }
    }

    /// Has none made any more unless they are asked for anew. The file may be cut off at `end` then.
    pub(super) fn cut(&self, end: u64) {
        self.wanted.store(0, Release);
        let _making = self.wait();
        self.made.store(end, Release);
    }

    /// Waits until none is being made, and keeps it so.
    fn wait(&self) -> MutexGuard<'_, ()> {
        self.waiting.store(true, Relaxed);
        let making = lock(&self.making);
        self.waiting.store(false, Relaxed);
        making
    }

    /// What the thread does.
    fn make_wanted(&self) {
        loop {
            while self.waiting.load(Relaxed) {
                yield_now();
            }
            let making = lock(&self.making);
            let (from, wanted) = (self.made(), self.wanted.load(Acquire));
            if from >= wanted {
                return;
            }
            self.make_piece(&making, from, (from + 1).next_multiple_of(LARGE_PAGE).min(wanted));
        }
    }

    /// Writing makes many pages of the page cache at once: to have them made one by one, as they are first stored to, was measured
    /// to take three times as long. Should writing fail, that is what happens.
    fn make_piece(&self, _making: &MutexGuard<'_, ()>, from: u64, to: u64) {
        let _ = write_zeros_at(&*self.open.file, from, to - from);
        if let SegmentIo::Mapped(map) = self.open.segment.io() {
            map.populate(from as usize, (to - from) as usize);
        }
        self.made.store(to, Release);
    }
}

/// What the thread that makes pages is asked for.
#[derive(Default)]
pub(crate) struct PageMaker {
    state: Mutex<State>,
    asked: Condvar,
}

#[derive(Default)]
struct State {
    /// Those of which some are to be made.
    pages: Option<Arc<Pages>>,
    stopped: bool,
}

impl PageMaker {
    /// Has pages made ahead of `end`, but none from `limit` on. Returns up to where they have been asked for.
    #[cold]
    pub(super) fn ask(&self, pages: &Arc<Pages>, end: u64, limit: u64) -> u64 {
        let wanted = (end + AHEAD).next_multiple_of(LARGE_PAGE).min(limit);
        pages.wanted.store(wanted, Release);
        lock(&self.state).pages = Some(Arc::clone(pages));
        self.asked.notify_one();
        wanted
    }

    /// Starts the thread, which takes no signals.
    pub(crate) fn spawn(self: &Arc<PageMaker>) -> Result<JoinHandle<()>> {
        let maker = Arc::clone(self);
        let thread = || std::thread::Builder::new().name("kvstore".into()).spawn(move || maker.run());
        with_signals_blocked(thread).map_err(|e| Error::os("start the thread that makes pages", &e))
    }

    fn run(&self) {
        while let Some(pages) = self.next() {
            let _ = catch_unwind(AssertUnwindSafe(|| pages.make_wanted()));
        }
    }

    fn next(&self) -> Option<Arc<Pages>> {
        let state = lock(&self.state);
        let waited = self.asked.wait_while(state, |state| !state.stopped && state.pages.is_none());
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.pages.take().filter(|_| !state.stopped)
    }

    /// Ends the thread. Nothing is asked for any more.
    pub(crate) fn stop(&self) {
        let mut state = lock(&self.state);
        (state.stopped, state.pages) = (true, None);
        self.asked.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{eventually, waits};
    use super::*;
    use crate::storage::sim::{PageMode, SimStorage};
    use crate::storage::write_all_at;
    use crate::{Options, Store};

    const NAME: &str = "0000000001.log";
    const END: u64 = 4096;

    /// Pages of a file that ends at `END`. The store keeps it there.
    fn pages(disk: &SimStorage) -> (Store, Arc<Pages>) {
        let options = Options { background: false, ..Options::default() };
        let store = Store::open_on(Arc::new(disk.clone()), &options).unwrap();
        store.set(b"key", b"value").unwrap();
        let open = store.engine.appender().unwrap().active().unwrap().clone();
        write_all_at(&*open.file, &[0xff; END as usize], 0).unwrap();
        (store, Arc::new(Pages::new(open, END)))
    }

    #[test]
    fn those_that_are_left_are_not_made() {
        let disk = SimStorage::new(1, PageMode::Page);
        let (_store, pages) = pages(&disk);
        pages.leave(END + 1000);
        write_all_at(&*pages.open.file, &[0xff; 1000], END).unwrap();
        pages.leave(END + 500);
        pages.make(END + 1000, u64::MAX);
        assert_eq!(pages.made(), END + 1000);
        pages.make(END + 1001, LARGE_PAGE - 1);
        assert_eq!(pages.made(), LARGE_PAGE - 1);
        let file = disk.read_file(NAME).unwrap();
        assert!(file[..END as usize + 1000].iter().all(|byte| *byte == 0xff));
        assert!(file[END as usize + 1000..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn none_is_made_meanwhile_or_once_cut() {
        let disk = SimStorage::new(1, PageMode::Page);
        let (_store, pages) = pages(&disk);
        pages.wanted.store(2 * LARGE_PAGE, Relaxed);
        let making = pages.making.lock().unwrap();
        assert!(waits(|| pages.leave(END + 1), || drop(making)));
        let making = pages.making.lock().unwrap();
        assert!(waits(|| pages.cut(END), || drop(making)));
        let len = disk.read_file(NAME).unwrap().len();
        pages.make_wanted();
        assert_eq!((pages.made(), disk.read_file(NAME).unwrap().len()), (END, len));
        pages.wanted.store(2 * LARGE_PAGE + 1, Relaxed);
        pages.make_wanted();
        assert_eq!(pages.made(), 2 * LARGE_PAGE + 1);
    }

    #[test]
    fn the_thread_makes_what_it_is_asked_for_until_it_is_stopped() {
        let (_store, pages) = pages(&SimStorage::new(1, PageMode::Page));
        let maker = Arc::<PageMaker>::default();
        let thread = maker.spawn().unwrap();
        for (end, limit, wanted) in [(END, AHEAD, AHEAD), (AHEAD, 4 * AHEAD, 2 * AHEAD)] {
            assert_eq!(maker.ask(&pages, end, limit), wanted);
            assert!(eventually(|| pages.made() == wanted));
        }
        maker.stop();
        thread.join().unwrap();
        // Nobody else has them now.
        assert_eq!((Arc::strong_count(&maker), Arc::strong_count(&pages)), (1, 1));
    }
}
