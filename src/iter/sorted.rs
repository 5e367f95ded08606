//! Live records in the order of their keys.

use super::log_order::LogOrder;
use super::{Item, IterOptions, Place, Source};
use crate::error::{Error, Result};

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
    slot: u32,
    offset: u64,
    len: u64,
}

impl Sorted {
    pub(super) fn new(source: &mut Source, options: &IterOptions) -> Result<Sorted> {
        let (mut entries, mut keys) = (Vec::new(), Vec::new());
        let no_memory = |_| Error::no_memory("sorting the keys");
        let mut order = LogOrder::new(&source.view);
        while let Some(place) = order.next(source)? {
            let (key, _) = source.record(place)?;
            if !options.wants(key) {
                continue;
            }
            entries.try_reserve(1).map_err(no_memory)?;
            keys.try_reserve(key.len()).map_err(no_memory)?;
            let Place { slot, offset, len } = place;
            let (key_at, key_len) = (keys.len() as u64, key.len() as u32);
            entries.push(Entry { head: head(key), key_at, key_len, slot, offset, len });
            keys.extend_from_slice(key);
        }
        let key = |e: &Entry| &keys[e.key_at as usize..e.key_at as usize + e.key_len as usize];
        entries.sort_unstable_by(|a, b| a.head.cmp(&b.head).then_with(|| key(a).cmp(key(b))));
        source.window.at_random = true;
        Ok(Sorted { entries, next: 0 })
    }

    pub(super) fn next(&mut self, source: &mut Source) -> Result<Option<Item>> {
        if let Some(ahead) = self.entries.get(self.next + LOOK_AHEAD) {
            source.segment(ahead.slot)?.prefetch(ahead.offset);
        }
        let Some(entry) = self.entries.get(self.next) else { return Ok(None) };
        self.next += 1;
        let place = Place { slot: entry.slot, offset: entry.offset, len: entry.len };
        // Between sorting and now the disk may have rotted.
        let (key, value) = source.record(place)?;
        Ok(Some(Item { place, key_len: key.len(), value_len: value.len() }))
    }
}

fn head(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let len = key.len().min(8);
    head[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(head)
}
