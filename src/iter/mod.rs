//! Iteration: every key of one moment, exactly once, whatever writers and compaction do meanwhile.
//!
//! In the order of the log unless keys are wanted in order: reading from front to back is what memory and disks are
//! fastest at.

mod log_order;
mod sorted;
mod window;

use std::sync::Arc;
use std::sync::atomic::Ordering::AcqRel;

use crate::engine::{Engine, Store};
use crate::error::{Code, Error, Result};
use crate::index::View;
use crate::log::record::{CRC_LEN, KEY_AT};
use crate::log::segment::Segment;
use crate::read::unreadable;
use crate::snapshot::Snapshot;
use log_order::LogOrder;
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
    current: Option<Item>,
    /// The current item has not been shown yet.
    pending: bool,
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

/// A record that has been verified.
#[derive(Clone, Copy)]
struct Item {
    place: Place,
    key_len: usize,
    value_len: usize,
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
        Iter { source, options, order: Order::NotBegun, current: None, pending: false, failed: None }
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
        self.pending = false;
        self.show()
    }

    /// As `next`, but stays in front of what it shows.
    pub fn peek(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.load()?;
        self.show()
    }

    /// Steps over what `peek` has shown.
    pub fn skip(&mut self) {
        self.pending = false;
    }

    /// Makes sure that the current item is one that has not been shown.
    fn load(&mut self) -> Result<()> {
        self.check_process()?;
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if !self.pending {
            self.current = self.advance().inspect_err(|e| self.failed = Some(e.clone()))?;
            self.pending = true;
        }
        Ok(())
    }

    /// Whether values are left out.
    pub fn keys_only(&self) -> bool {
        self.options.keys_only
    }

    /// An error in a forked child of the process that opened the store.
    pub fn check_process(&self) -> Result<()> {
        self.source.engine.check_process()
    }

    /// The next record that is wanted.
    fn advance(&mut self) -> Result<Option<Item>> {
        let source = &mut self.source;
        let order = match &mut self.order {
            Order::Sorted(sorted) => return sorted.next(source),
            Order::Log(order) => order,
            Order::NotBegun if self.options.sorted => {
                self.order = Order::Sorted(Sorted::new(source, &self.options)?);
                return self.advance();
            }
            Order::NotBegun => {
                self.order = Order::Log(LogOrder::new(&source.view));
                return self.advance();
            }
        };
        while let Some(place) = order.next(source)? {
            let (key, value) = source.record(place)?;
            if self.options.wants(key) {
                return Ok(Some(Item { place, key_len: key.len(), value_len: value.len() }));
            }
        }
        Ok(None)
    }

    fn show(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        let Some(item) = self.current else { return Ok(None) };
        let (key, value) = self.source.item(item)?;
        Ok(Some((key, if self.options.keys_only { &[] } else { value })))
    }
}

impl Drop for Iter {
    fn drop(&mut self) {
        self.source.engine.uses.iterators.fetch_sub(1, AcqRel);
    }
}

impl Source {
    fn segment(&self, slot: u32) -> Result<&Arc<Segment>> {
        self.view.segments().get(slot)
    }

    /// The key and the value of a record, its checksum verified.
    #[inline]
    fn record(&mut self, place: Place) -> Result<(&[u8], &[u8])> {
        let segment = self.view.segments().get(place.slot)?;
        let frame = self.window.bytes(segment, place.offset, place.len)?;
        self.engine.open_record(segment, place.offset, frame.ok_or_else(|| unreadable(segment, place.offset))?)
    }

    /// The key and the value of a record that has been verified.
    #[inline]
    fn item(&mut self, item: Item) -> Result<(&[u8], &[u8])> {
        let Place { slot, offset, len } = item.place;
        let segment = self.view.segments().get(slot)?;
        let frame = self.window.bytes(segment, offset, len)?;
        let parts = frame.and_then(|frame| {
            let value_at = frame.len() - CRC_LEN - item.value_len;
            Some((frame.get(KEY_AT..KEY_AT + item.key_len)?, &frame[value_at..frame.len() - CRC_LEN]))
        });
        parts.ok_or_else(|| unreadable(segment, offset))
    }
}

#[cfg(test)]
mod tests;
