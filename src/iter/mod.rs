//! Iteration: every key of one moment, exactly once, whatever writers and compaction do meanwhile.
//!
//! In the order of the log unless keys are wanted in order: reading from front to back is what memory and disks are
//! fastest at.

mod log_order;
mod run;
mod sorted;
mod window;

use std::sync::Arc;
use std::sync::atomic::Ordering::AcqRel;

use crate::engine::{Engine, Store};
use crate::error::{Code, Error, Result};
use crate::index::View;
use crate::snapshot::Snapshot;
use log_order::LogOrder;
use run::{Item, Run};
use sorted::Sorted;
use window::Window;

/// What an iterator shows, and in which order.
#[derive(Clone, Debug, Default)]
pub struct IterOptions {
    /// Values are shown as empty.
    pub keys_only: bool,
    /// In ascending order of the keys' bytes. The first step then reads all of them and sorts their keys, which takes
    /// the memory of those keys and 40 bytes for each.
    pub sorted: bool,
    /// Only keys that begin with this.
    pub prefix: Vec<u8>,
    /// Only keys not less than this.
    pub start: Vec<u8>,
    /// Only keys less than this, unless it is empty.
    pub end: Vec<u8>,
}

impl IterOptions {
    /// Nothing is compared with what is empty: that would be right, but a processor that compares no bytes at the
    /// address of an empty vector, which is not mapped, may take longer than for all the rest of a step.
    #[inline]
    fn wants(&self, key: &[u8]) -> bool {
        (self.prefix.is_empty() || key.starts_with(&self.prefix))
            && (self.start.is_empty() || key >= &self.start[..])
            && (self.end.is_empty() || key < &self.end[..])
    }
}

/// Shows keys and values as they were when it was made. For one thread at a time.
pub struct Iter {
    source: Source,
    options: IterOptions,
    order: Order,
    run: Run,
    /// Once something could not be read, everything that follows would be incomplete.
    failed: Option<Error>,
}

/// What is iterated over, and how it is read.
struct Source {
    engine: Arc<Engine>,
    view: View,
    window: Window,
}

enum Order {
    NotBegun,
    Log(LogOrder),
    Sorted(Sorted),
}

/// Where a record is.
#[derive(Clone, Copy)]
struct Place {
    slot: u32,
    offset: u64,
    len: u64,
}

impl Store {
    /// Iterates over what is stored now.
    pub fn iter(&self, options: IterOptions) -> Result<Iter> {
        self.check_process()?;
        Ok(Iter::new(&self.engine, self.engine.view()?, options))
    }
}

impl Snapshot {
    /// Iterates over what was stored at the time of the snapshot, which need not live on for that.
    pub fn iter(&self, options: IterOptions) -> Result<Iter> {
        self.check_process()?;
        Ok(Iter::new(&self.engine, self.view.try_clone()?, options))
    }
}

impl Iter {
    fn new(engine: &Arc<Engine>, view: View, options: IterOptions) -> Iter {
        engine.uses.iterators.fetch_add(1, AcqRel);
        let source = Source { engine: Arc::clone(engine), view, window: Window::default() };
        Iter { source, options, order: Order::NotBegun, run: Run::default(), failed: None }
    }

    /// What to show, which can be changed up to the first step.
    pub fn options_mut(&mut self) -> Result<&mut IterOptions> {
        self.check_process()?;
        match self.order {
            Order::NotBegun => Ok(&mut self.options),
            _ => Err(Error::new(Code::Invalid, "the iterator has begun: what it shows cannot be changed any more")),
        }
    }

    /// The next key and its value, valid until the next call. `None` after the last one. After an error every further
    /// call returns that error.
    #[allow(clippy::should_implement_trait)] // What it returns borrows from the iterator.
    pub fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.load()?;
        Ok(self.next_at_hand())
    }

    /// As `next`, but stays in front of what it shows.
    pub fn peek(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.load()?;
        Ok(self.run.front().map(Item::shown))
    }

    /// Steps over what `peek` has shown.
    pub fn skip(&mut self) {
        self.run.next();
    }

    /// Has the next item at hand if there is one.
    pub fn load(&mut self) -> Result<()> {
        self.check_process()?;
        if self.run.front().is_some() { Ok(()) } else { self.load_run() }
    }

    /// Whether the next item is at hand: it has been read in the process that opened the store.
    #[inline]
    pub fn at_hand(&self) -> bool {
        self.run.front().is_some() && self.check_process().is_ok()
    }

    /// As `next`, of what is at hand: this cannot fail.
    #[inline]
    pub fn next_at_hand(&mut self) -> Option<(&[u8], &[u8])> {
        self.run.next().map(Item::shown)
    }

    fn load_run(&mut self) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let read = self.fill_run().inspect_err(|error| self.failed = Some(error.clone()));
        // What has been read before the failure comes first.
        if self.run.is_empty() { read } else { Ok(()) }
    }

    /// Whether values are left out.
    pub fn keys_only(&self) -> bool {
        self.options.keys_only
    }

    /// An error in a forked child of the process that opened the store.
    pub fn check_process(&self) -> Result<()> {
        self.source.engine.check_process()
    }

    /// Reads the next records that are wanted. The run stays empty if there are none.
    fn fill_run(&mut self) -> Result<()> {
        let Iter { source, options, order, run, .. } = self;
        // Before anything is read: what is read replaces what the run has shown.
        run.clear()?;
        if let Order::NotBegun = order {
            *order = match options.sorted {
                true => Order::Sorted(Sorted::new(source, options)?),
                false => Order::Log(LogOrder::new(&source.view)),
            };
        }
        match order {
            Order::NotBegun => Ok(()),
            Order::Log(order) => {
                while run.is_empty() && order.fill(source, options, run)? {}
                Ok(())
            }
            Order::Sorted(sorted) => sorted.fill(source, options, run),
        }
    }
}

impl Drop for Iter {
    fn drop(&mut self) {
        self.source.engine.uses.iterators.fetch_sub(1, AcqRel);
    }
}

#[cfg(test)]
mod tests;
