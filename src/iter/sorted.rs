//! Live records in the order of their keys.

use super::log_order::LogOrder;
use super::run::Run;
use super::{IterOptions, Place, Source};
use crate::error::{Error, Result};
use crate::read::unreadable;

/// So many records are asked for ahead: in this order they are anywhere in the log.
const LOOK_AHEAD: usize = 8;

/// The records that are wanted, sorted.
pub(super) struct Sorted {
    entries: Vec<Entry>,
    next: usize,
}

struct Entry {
    /// The key's first bytes as a number that compares as they do.
    head: u64,
    /// Where in the store of keys the key is.
    key_at: u64,
    key_len: u32,
    place: Place,
}

impl Sorted {
    pub(super) fn new(source: &mut Source, options: &IterOptions) -> Result<Sorted> {
        let (mut entries, mut keys) = (Vec::new(), Vec::new());
        let no_memory = |_| Error::no_memory("sorting the keys");
        let (mut order, mut run) = (LogOrder::new(&source.view), Run::default());
        loop {
            run.clear()?;
            if !order.fill(source, options, &mut run)? {
                break;
            }
            while let Some(item) = run.next() {
                let (place, (key, _)) = (item.place, item.shown());
                entries.try_reserve(1).map_err(no_memory)?;
                keys.try_reserve(key.len()).map_err(no_memory)?;
                let (key_at, key_len) = (keys.len() as u64, key.len() as u32);
                entries.push(Entry { head: head(key), key_at, key_len, place });
                keys.extend_from_slice(key);
            }
        }
        let key = |e: &Entry| &keys[e.key_at as usize..e.key_at as usize + e.key_len as usize];
        entries.sort_unstable_by(|a, b| a.head.cmp(&b.head).then_with(|| key(a).cmp(key(b))));
        source.window.at_random = true;
        Ok(Sorted { entries, next: 0 })
    }

    /// Adds the next record to an empty run, if there is one.
    pub(super) fn fill(&mut self, source: &mut Source, options: &IterOptions, run: &mut Run) -> Result<()> {
        let segments = source.view.segments();
        if let Some(Entry { place, .. }) = self.entries.get(self.next + LOOK_AHEAD) {
            segments.get(place.slot)?.prefetch(place.offset, place.len);
        }
        let Some(&Entry { place, .. }) = self.entries.get(self.next) else { return Ok(()) };
        self.next += 1;
        let segment = segments.get(place.slot)?;
        let frame = source.window.bytes(segment, place.offset, place.len)?;
        let frame = frame.ok_or_else(|| unreadable(segment, place.offset))?;
        // Between sorting and now the disk may have rotted.
        let (key, value) = source.engine.open_record(segment, place.offset, frame)?;
        // SAFETY: the segment is held by the view, and the window is read into when the run has been cleared.
        unsafe { run.push(place, key, if options.keys_only { &[] } else { value }) };
        Ok(())
    }
}

fn head(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let len = key.len().min(8);
    head[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(head)
}
