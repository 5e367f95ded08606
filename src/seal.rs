//! Sealing: a log segment that takes no more appends is trimmed, described by a hint, and listed in MANIFEST.

use std::sync::Arc;

use crate::append::OpenSegment;
use crate::chain::{self, Extent, Order, Scan, ScanRules};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::log::header::Role;
use crate::log::hint::{self, HintEntry};
use crate::log::segment::{Segment, State};
use crate::log::spill::Spill;

impl Engine {
    /// Seals the segments that are complete and synced. Under the maintenance lock, as everything here.
    pub(crate) fn seal_synced(&self) -> Result<()> {
        let waiting = self.appender()?.synced.clone();
        if waiting.is_empty() {
            return Ok(());
        }
        for open in &waiting {
            self.trim(open)?;
            // A hint of what has been damaged since knows more than can be read by now.
            if !open.segment.hinted() && !open.segment.quarantined() {
                self.make_hint(&open.segment);
            }
            open.segment.set_state(State::Sealed);
        }
        self.write_manifest(&[]).inspect_err(|_| {
            waiting.iter().for_each(|open| open.segment.set_state(State::Rotated));
        })?;
        let sealed = |o: &OpenSegment| waiting.iter().any(|w| Arc::ptr_eq(&w.segment, &o.segment));
        self.appender()?.synced.retain(|o| !sealed(o));
        Ok(())
    }

    /// Leaves on disk what the next open needs to find everything as it is, and no more than that. The active
    /// segment is not sealed: the next open goes on appending to it.
    pub(crate) fn seal_everything(&self) -> Result<()> {
        self.commit.check()?;
        self.sync_rotated()?;
        self.seal_synced()?;
        let active = self.appender()?.active().cloned();
        // The length in MANIFEST counts, not what is synced: a sync tells MANIFEST nothing.
        let has_tail = |open: &OpenSegment| open.file.len().is_ok_and(|len| len > open.segment.len());
        let changed = active.filter(|open| open.segment.len() > open.segment.listed() || has_tail(open));
        if let Some(open) = &changed {
            self.trim(open)?;
        }
        let live = self.index.segments();
        live.iter().filter(|s| !s.hinted() && !s.quarantined()).for_each(|s| self.make_hint(s));
        if changed.is_some() { self.write_manifest(&[]) } else { Ok(()) }
    }

    /// Gives back the blocks reserved behind the last frame. All of the segment is synced after this.
    fn trim(&self, open: &OpenSegment) -> Result<()> {
        let (name, len) = (open.segment.name(), open.segment.len());
        if open.segment.synced() == len && open.file.len().is_ok_and(|file_len| file_len == len) {
            return Ok(());
        }
        open.file.set_len(len).map_err(|e| Error::os(format_args!("truncate {name}"), &e))?;
        open.file.sync().map_err(|e| self.poison(format_args!("sync {name}"), &e))?;
        open.segment.set_synced(len);
        Ok(())
    }

    /// Tries to make a hint that a power cut has taken, once for each segment. False if none is missing. Only when nothing
    /// else is due: nobody waits for it, and it takes room on the disk.
    pub(crate) fn make_missing_hint(&self) -> bool {
        let live = self.index.segments();
        let mut without = live.iter().filter(|s| s.state() == State::Sealed && !s.hinted() && !s.quarantined());
        let Some(segment) = without.find(|segment| segment.try_hint()) else { return false };
        self.make_hint(segment);
        true
    }

    /// Makes the segment's hint by reading the segment. It has none, or one that does not cover all of it.
    fn make_hint(&self, segment: &Segment) {
        let mut entries = Spill::new(&*self.storage, (segment.id(), segment.identity()));
        match self.visit_complete(segment, &mut |entry| {
            entries.push(entry);
            Ok(())
        }) {
            Ok(scan) if scan.damaged == 0 => {
                self.note_hint(segment, entries.write_hint(segment.len(), self.hash_seed));
            }
            Ok(_) => segment.quarantine(),
            Err(_) => {}
        }
    }

    /// Reads all records of a segment that takes no more appends, and shows their entries.
    pub(crate) fn visit_complete(
        &self,
        segment: &Segment,
        show: &mut dyn FnMut(HintEntry) -> Result<()>,
    ) -> Result<Scan> {
        let (name, len) = (segment.name(), segment.len());
        let file = self.storage.open(name, false).map_err(|e| Error::os(format_args!("open {name}"), &e))?;
        let order = match segment.role() {
            Role::Log => Order::Log { floor: i64::MIN },
            Role::Output => Order::Output { ceiling: i64::MAX },
        };
        let rules = ScanRules { seed: self.hash_seed, order };
        chain::visit(name, &file, Extent::complete(len), &rules, show)
    }

    /// Notes whether the segment's hint has been written. If not, the next open reads the segment instead.
    pub(crate) fn note_hint(&self, segment: &Segment, written: std::io::Result<()>) {
        segment.set_hinted(written.is_ok());
        if written.is_err() {
            let _ = self.storage.remove(&hint::name(segment.id()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::storage::sim::{PageMode, SimStorage};
    use crate::{Options, Store};

    #[test]
    fn a_hint_outlives_the_sealing_of_a_segment_that_has_rotted() {
        let disk = SimStorage::new(1, PageMode::Page);
        let options = Options { background: false, ..Options::default() };
        let open = || Store::open_on(Arc::new(disk.clone()), &options).unwrap();
        let store = open();
        (0..100u8).for_each(|n| store.set(&[n], &[n; 50]).unwrap());
        store.close().unwrap();
        let mut log = disk.read_file("0000000001.log").unwrap();
        log[3000..3150].fill(0xff);
        disk.put_file("0000000001.log", &log);
        for _ in 0..2 {
            // By the hint, which lists the keys that cannot be read.
            let store = open();
            store.engine.appender().unwrap().rotate().unwrap();
            while store.maintain(1 << 20).unwrap() {}
            let damaged = (0..100u8).filter(|n| store.get(&[*n]).is_err()).count();
            assert!((1..5).contains(&damaged), "{damaged} damaged");
            assert!((0..100u8).all(|n| store.get(&[n]).map_or(true, |value| value == Some(vec![n; 50]))));
            store.close().unwrap();
        }
    }
}
