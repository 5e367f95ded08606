//! Writing a small record at once: it gets its place in the log and its key's shard together, so that log and index agree on the
//! order, and is copied there while others go on behind it and the lines of the index that it takes are on their way.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{MutexGuard, RwLockWriteGuard};

use super::{COPY_UNDER_LOCK, Written};
use crate::append::{Appender, Claim};
use crate::engine::Engine;
use crate::error::Result;
use crate::index::{KeyHash, Position, Shard, Trust};
use crate::log::record::{DataFileEntry, record_len};
use crate::log::segment::{Segment, SegmentIo};
use crate::options::SyncLevel;
use crate::read::{Entry, Located};

/// What a write replaces.
enum Older {
    Proven(Option<Entry>),
    /// An entry whose record has not been looked at.
    OnTrust(Position),
}

/// What it takes to claim the next place of the log, in which there is room.
struct NextPlace<'a> {
    appender: MutexGuard<'a, Appender>,
    shard: RwLockWriteGuard<'a, Shard>,
    /// Before this write.
    backlog: usize,
}

impl<'a> NextPlace<'a> {
    #[inline(always)]
    fn claim(mut self, len: u64) -> Result<(Claim<'a>, Written)> {
        let claim = self.appender.claim(len, self.shard)?;
        Ok((claim, Written::since(self.backlog, &self.appender)))
    }
}

impl Engine {
    /// Stores a value. `None`, and no record has been written, if it has to be done with more care: if an older record may have to be
    /// waited for, if this one is large or goes to the log by a system call, or if writers are to wait.
    #[inline]
    pub(super) fn set_at_once(&self, key: &[u8], value: &[u8], hash: KeyHash) -> Result<Option<Written>> {
        let len = record_len(key.len(), Some(value.len()));
        if !self.goes_at_once(len) || self.maintenance.brake.on() || !self.ask_for_memory(hash)? {
            return Ok(None);
        }
        let Some(place) = self.next_place(hash, len, false)? else { return Ok(None) };
        let (mut claim, written) = place.claim(len)?;
        let entry = DataFileEntry { timestamp: claim.place.timestamp, key, value: Some(value) };
        claim.fill(&entry)?;
        let (shard, position) = (&mut *claim.shard, claim.place.position);
        let older = self.older(shard, key, hash)?;
        shard.reserve(hash)?;
        match older {
            Older::Proven(old) => self.replace(shard, hash, old, (position, &entry))?,
            Older::OnTrust(old) => {
                let replaced = shard.replace_on_trust(hash, old, position);
                debug_assert!(replaced, "the shard is still locked");
                self.fresh.note(false);
                self.unread.note(true);
            }
        }
        claim.publish()?;
        Ok(Some(written))
    }

    /// Deletes a key that was found. `None`, and no record has been written, if that has to be done with more care: if its tombstone is
    /// large or goes to the log by a system call, or if there is nothing to delete any more.
    #[inline]
    pub(super) fn delete_at_once(&self, key: &[u8], hash: KeyHash, found: Located) -> Result<Option<Written>> {
        let len = record_len(key.len(), None);
        if !self.goes_at_once(len) {
            return Ok(None);
        }
        let Some(mut place) = self.next_place(hash, len, true)? else { return Ok(None) };
        self.prove(&mut place.shard)?;
        let old = self.find_again(&place.shard, key, hash, found)?;
        if old.is_none() {
            return Ok(None);
        }
        // Now: once a tombstone is stored nothing is to fail.
        place.shard.reserve(hash)?;
        let (mut claim, written) = place.claim(len)?;
        let entry = DataFileEntry { timestamp: claim.place.timestamp, key, value: None };
        claim.fill(&entry)?;
        let position = claim.place.position;
        self.replace(&mut claim.shard, hash, old, (position, &entry))?;
        claim.publish()?;
        Ok(Some(written))
    }

    /// Whether a record may be stored through the map, beside others.
    #[inline]
    fn goes_at_once(&self, len: u64) -> bool {
        // Where each record is synced, each goes to the log by a call.
        self.factory.mapped && self.options.sync != SyncLevel::Always && len <= COPY_UNDER_LOCK
    }

    /// `None` if there is no room for a record in what is mapped and can be stored to.
    #[inline(always)]
    fn next_place(&self, hash: KeyHash, len: u64, tombstone: bool) -> Result<Option<NextPlace<'_>>> {
        let mut appender = self.appender_alone()?;
        let backlog = appender.backlog();
        if !appender.has_room(len, tombstone) {
            // The log may go on in another segment.
            appender.settle();
            let stores = appender.stores_to_map() && appender.prepare(len, tombstone, &self.index).is_ok();
            if !stores || !appender.has_room(len, tombstone) {
                return Ok(None);
            }
        }
        Ok(Some(NextPlace { shard: self.index.write(hash)?, appender, backlog }))
    }

    /// Makes room for another overwrite on trust, and asks for the part of the index that a set changes, and for the record that
    /// it may have to look at. Not for that if none is expected: the index would have to be waited for. False if the record may
    /// have to be waited for: then nobody else is to wait meanwhile.
    fn ask_for_memory(&self, hash: KeyHash) -> Result<bool> {
        let warm = self.warm.load(Relaxed);
        let none_to_look_at = self.fresh.lasts() || warm && self.unread.lasts() && self.young.load(Relaxed);
        if !none_to_look_at && !warm {
            return Ok(false);
        }
        let mut shard = self.index.read(hash)?;
        if shard.trust().full() {
            drop(shard);
            self.prove_if(hash, Trust::full)?;
            shard = self.index.read(hash)?;
        }
        shard.prefetch(hash);
        if none_to_look_at {
            return Ok(true);
        }
        for position in shard.candidates(hash) {
            let segment = shard.segment(position)?;
            if segment.id() < self.first_id {
                return Ok(false);
            }
            if !self.trusts(segment, position) {
                segment.prefetch(position.offset(), position.len_bound());
            }
        }
        Ok(true)
    }

    /// What a set is going to replace.
    fn older(&self, shard: &mut Shard, key: &[u8], hash: KeyHash) -> Result<Older> {
        let mut candidates = shard.candidates(hash);
        match (candidates.next(), candidates.next()) {
            (None, _) => return Ok(Older::Proven(None)),
            (Some(old), None) if !shard.trust().full() && self.trusts(shard.segment(old)?, old) => {
                return Ok(Older::OnTrust(old));
            }
            _ => {}
        }
        let mut old = self.find(shard, key, hash)?;
        // A damaged record may not be the key's while that has one that is hidden.
        if old.is_some_and(|old| old.hidden || old.len == 0) {
            self.prove(shard)?;
            old = self.find(shard, key, hash)?;
        }
        Ok(Older::Proven(old))
    }

    /// Whether the entry of a record may be replaced before that has been looked at. Not if it is large, so that there is never
    /// much garbage that has not been counted.
    #[inline]
    fn trusts(&self, segment: &Segment, position: Position) -> bool {
        let small = position.len_bound() <= COPY_UNDER_LOCK;
        self.at_hand(segment) && small && matches!(segment.io(), SegmentIo::Mapped(_)) && !segment.in_compaction()
    }
}
