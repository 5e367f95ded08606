//! Reading: one probe of the index, one access to the log.

use std::mem::MaybeUninit;
use std::sync::{Arc, RwLockReadGuard};

use crate::MAX_KEY_LEN;
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::index::{KeyHash, Overwrite, Position, Segments, Shard, hidden};
use crate::log::record::{self, CRC_LEN, Head, Kind, PREFIX_LEN, Prefix};
use crate::log::segment::{Segment, SegmentIo};

/// Where a value goes that was found.
pub trait ValueBuf {
    /// Memory for a value of `len` bytes. Called once for a key that is found, never for one that is not;
    /// if the call that reads fails after this, what was stored is not a value.
    fn reserve(&mut self, len: usize) -> Result<&mut [MaybeUninit<u8>]>;
}

impl ValueBuf for Vec<u8> {
    fn reserve(&mut self, len: usize) -> Result<&mut [MaybeUninit<u8>]> {
        self.clear();
        self.try_reserve_exact(len).map_err(|_| Error::no_memory("a value"))?;
        self.resize(len, 0);
        let bytes = self.as_mut_slice();
        // SAFETY: initialized bytes are fine as maybe-uninitialized ones, and the memory stays a `Vec<u8>` of
        // initialized bytes: what is stored through the slice is bytes too.
        Ok(unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), len) })
    }
}

/// Nearly all values up to this are copied while the shard is locked; for larger ones the segment is held instead, so that
/// a page fault or a long copy stalls no writer.
const COPY_UNDER_LOCK: usize = 4 << 10;

/// All of a record up to this the processor asks for by itself while it waits for its first bytes.
const SHORT: u64 = 512;

/// In syscall mode a record up to this is read at once. It is as much as the head of a record can take.
const READ_AT_ONCE: u64 = Head::max_len(MAX_KEY_LEN) as u64;

/// What a record turns out to be for somebody who looks for a key.
pub(crate) enum Verdict<'a> {
    /// The key's record. Its checksum has not been verified.
    Match(Head<'a>),
    /// A record of another key that has the same bits in the index.
    Other,
    /// Unreadable, so it may well be the key's.
    Damaged,
}

/// An index entry that was found to be a key's.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub position: Position,
    /// The record's length; 0 if it is damaged.
    pub len: u64,
    /// It is no entry as long as one that replaced it on trust is.
    pub hidden: bool,
}

/// What was found to be a key's entry, and the version of its shard then.
pub(crate) type Located = (u64, Option<Entry>);

impl Engine {
    /// Finds the key's value and has it stored to where `out` says. `None` if the key is not stored.
    #[inline]
    pub(crate) fn get_with<B: ValueBuf>(&self, key: &[u8], out: &mut B) -> Result<Option<usize>> {
        let hash = self.hash(key);
        let shard = self.index.read(hash)?;
        let Some(position) = shard.candidates(hash).next() else { return Ok(None) };
        let segment = shard.segment(position)?;
        if position.len_bound() > SHORT {
            segment.prefetch(position.offset(), position.len_bound());
        }
        let frame = segment.mapped_record(position.offset()).unwrap_or_default();
        match record::parts(frame) {
            Some((found, value)) if found == key && value.len() <= COPY_UNDER_LOCK => {
                self.deliver(segment, position.offset(), frame, value, out).map(Some)
            }
            _ => self.get_carefully(shard, key, hash, out),
        }
    }

    /// As `get_with`, of a key whose value is large, or read by calls, or damaged, or not in the first place where it may be.
    #[cold]
    fn get_carefully<B: ValueBuf>(
        &self,
        shard: RwLockReadGuard<'_, Shard>,
        key: &[u8],
        hash: KeyHash,
        out: &mut B,
    ) -> Result<Option<usize>> {
        for position in shard.candidates(hash) {
            if matches!(shard.segment(position)?.io(), SegmentIo::Calls(_)) {
                let candidates = pin_candidates(&shard, hash)?;
                drop(shard);
                return self.get_by_calls(key, hash, &candidates, out);
            }
        }
        let Some(Entry { position, len, .. }) = self.find(&shard, key, hash)? else { return Ok(None) };
        let (segment, offset) = (Arc::clone(shard.segment(position)?), position.offset());
        drop(shard);
        let frame = segment.mapped(offset, len).unwrap_or_default();
        let (_, value) = record::parts(frame).ok_or_else(|| unreadable(&segment, offset))?;
        self.deliver(&segment, offset, frame, value, out).map(Some)
    }

    /// Whether the key is stored.
    pub(crate) fn exists(&self, key: &[u8]) -> Result<bool> {
        match self.locate(key, self.hash(key))?.1 {
            None => Ok(false),
            Some(entry) if entry.len > 0 => Ok(true),
            Some(entry) => {
                let shard = self.index.read(self.hash(key))?;
                Err(unreadable(shard.segment(entry.position)?, entry.position.offset()))
            }
        }
    }

    /// The key's index entry, and the version of the shard at which that was so.
    pub(crate) fn locate(&self, key: &[u8], hash: KeyHash) -> Result<Located> {
        self.locate_in(self.index.read(hash)?, key, hash)
    }

    /// As `locate`, after having proven what is on trust where the key is.
    pub(crate) fn locate_proven(&self, key: &[u8], hash: KeyHash) -> Result<Located> {
        let mut shard = self.index.read(hash)?;
        if !shard.trust().overwrites().is_empty() {
            drop(shard);
            self.prove(&mut *self.index.write(hash)?)?;
            shard = self.index.read(hash)?;
        }
        self.locate_in(shard, key, hash)
    }

    #[inline]
    fn locate_in(&self, shard: RwLockReadGuard<'_, Shard>, key: &[u8], hash: KeyHash) -> Result<Located> {
        let version = shard.version();
        if self.factory.mapped {
            return Ok((version, self.find(&shard, key, hash)?));
        }
        let candidates = pin_candidates(&shard, hash)?;
        drop(shard);
        let pinned = candidates.iter().map(|(position, segment)| Ok((*position, segment)));
        Ok((version, self.find_among(pinned, key, hash)?))
    }

    /// The key's index entry in a shard that is locked.
    pub(crate) fn find(&self, shard: &Shard, key: &[u8], hash: KeyHash) -> Result<Option<Entry>> {
        let mut other = false;
        let candidates = shard.candidates(hash).inspect(|_| other = true);
        let found = self.find_among(candidates.map(|position| Ok((position, shard.segment(position)?))), key, hash)?;
        if found.is_some() || !other {
            return Ok(found);
        }
        self.find_hidden(shard.trust().overwrites(), shard.segments(), key, hash)
    }

    /// As `find`, of a key for which the index has the record of another, among what was on trust then.
    #[cold]
    pub(crate) fn find_hidden(
        &self,
        overwrites: &[Overwrite],
        segments: &Segments,
        key: &[u8],
        hash: KeyHash,
    ) -> Result<Option<Entry>> {
        for position in hidden(overwrites, hash) {
            let place = Ok((position, segments.get(position.slot())?));
            if let Some(entry) = self.find_among(std::iter::once(place), key, hash)? {
                // One that is damaged is given up as soon as it is to be proven, and with it what it may have replaced.
                return Ok((entry.len > 0).then_some(Entry { hidden: true, ..entry }));
            }
        }
        Ok(None)
    }

    /// Which of the candidates is the key's entry; one of length 0 if the record that may be the key's is damaged.
    #[inline]
    pub(crate) fn find_among<'a>(
        &self,
        candidates: impl Iterator<Item = Result<(Position, &'a Arc<Segment>)>>,
        key: &[u8],
        hash: KeyHash,
    ) -> Result<Option<Entry>> {
        let mut damaged = None;
        let mut buffer = Vec::new();
        for candidate in candidates {
            let (position, segment) = candidate?;
            let (bytes, frame_len) = match segment.mapped_record(position.offset()) {
                Some(frame) => (frame, frame.len() as u64),
                None => match read_head(segment, position, &mut buffer) {
                    Ok(frame_len) => (&buffer[..], frame_len),
                    Err(e) if e.code() == Code::Corrupt => (&[][..], 0),
                    Err(e) => return Err(e),
                },
            };
            match self.judge(bytes, frame_len, key, hash) {
                Verdict::Other => {}
                Verdict::Damaged => damaged = Some(Entry { position, len: 0, hidden: false }),
                Verdict::Match(_) => {
                    return Ok(Some(Entry { position, len: frame_len, hidden: false }));
                }
            }
        }
        Ok(damaged)
    }

    /// Judges a record by its first bytes: all of it, or at least as much as the head of a record of this key takes.
    #[inline]
    fn judge<'a>(&self, bytes: &'a [u8], frame_len: u64, key: &[u8], hash: KeyHash) -> Verdict<'a> {
        match Head::parse(bytes, frame_len) {
            Some(head) if head.value_len.is_some() && head.key == key => Verdict::Match(head),
            Some(head) if head.key != key && self.hash(head.key).same_entry(hash) => Verdict::Other,
            // No record, or one whose key is not what the entry was made for: the key itself may be damaged.
            _ => Verdict::Damaged,
        }
    }

    /// Verifies a record and hands its value over. Returns the value's length.
    #[inline]
    fn deliver<B: ValueBuf>(
        &self,
        segment: &Segment,
        offset: u64,
        frame: &[u8],
        value: &[u8],
        out: &mut B,
    ) -> Result<usize> {
        if self.options.verify_reads && !record::crc_matches(frame) {
            return Err(unreadable(segment, offset));
        }
        let target = out.reserve(value.len())?;
        debug_assert_eq!(target.len(), value.len());
        // SAFETY: the target is as long as the value, as the trait demands, and belongs to the caller; bytes are
        // plain data.
        unsafe {
            target.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(value.as_ptr(), value.len().min(target.len()))
        };
        Ok(value.len())
    }

    /// As `get_with`, from segments that are read by system calls. Nothing is locked meanwhile.
    fn get_by_calls<B: ValueBuf>(
        &self,
        key: &[u8],
        hash: KeyHash,
        candidates: &[(Position, Arc<Segment>)],
        out: &mut B,
    ) -> Result<Option<usize>> {
        let mut damaged = None;
        for (position, segment) in candidates {
            let offset = position.offset();
            let mut frame = Vec::new();
            let frame_len = match read_head(segment, *position, &mut frame) {
                Ok(frame_len) => frame_len,
                Err(e) if e.code() == Code::Corrupt => {
                    damaged = Some(e);
                    continue;
                }
                Err(e) => return Err(e),
            };
            let head = match self.judge(&frame, frame_len, key, hash) {
                Verdict::Other => continue,
                Verdict::Damaged => {
                    damaged = Some(unreadable(segment, offset));
                    continue;
                }
                Verdict::Match(head) => head,
            };
            let value = head.value_at()..(frame_len as usize - CRC_LEN);
            if frame.len() as u64 == frame_len {
                return self.deliver(segment, offset, &frame, &frame[value], out).map(Some);
            }
            return self.deliver_large(segment, offset, &frame[..value.start], value.len(), out).map(Some);
        }
        damaged.map_or(Ok(None), Err)
    }

    /// Reads a large value straight to where it goes, and verifies it there.
    fn deliver_large<B: ValueBuf>(
        &self,
        segment: &Segment,
        offset: u64,
        head: &[u8],
        value_len: usize,
        out: &mut B,
    ) -> Result<usize> {
        let target = out.reserve(value_len)?;
        target.fill(MaybeUninit::new(0));
        // SAFETY: every byte of the target has just been initialized.
        let value = unsafe { std::slice::from_raw_parts_mut(target.as_mut_ptr().cast::<u8>(), target.len()) };
        segment.read_exact(value, offset + head.len() as u64)?;
        let mut crc = [0; CRC_LEN];
        segment.read_exact(&mut crc, offset + (head.len() + value_len) as u64)?;
        let actual = crc32c::crc32c_append(crc32c::crc32c(head), value);
        if self.options.verify_reads && actual.to_le_bytes() != crc {
            return Err(unreadable(segment, offset));
        }
        Ok(value_len)
    }
}

/// The index entries of this hash, with their segments held so that they stay readable without the lock.
fn pin_candidates(shard: &Shard, hash: KeyHash) -> Result<Vec<(Position, Arc<Segment>)>> {
    let mut pinned = Vec::new();
    for position in shard.candidates(hash) {
        pinned.try_reserve(1).map_err(|_| Error::no_memory("a look-up"))?;
        pinned.push((position, Arc::clone(shard.segment(position)?)));
    }
    Ok(pinned)
}

/// Reads a record into `buffer`, all of it unless it is large, else its first bytes. Returns its length.
/// That is one read: the index knows about how long the record is.
fn read_head(segment: &Segment, position: Position, buffer: &mut Vec<u8>) -> Result<u64> {
    let offset = position.offset();
    let damaged = || unreadable(segment, offset);
    let available = segment.len().checked_sub(offset).ok_or_else(damaged)?;
    let len = position.len_bound().min(available).min(READ_AT_ONCE);
    buffer.clear();
    buffer.try_reserve(len as usize).map_err(|_| Error::no_memory("a record"))?;
    buffer.resize(len as usize, 0);
    segment.read_exact(buffer, offset)?;
    let prefix = buffer.first_chunk::<PREFIX_LEN>().and_then(|bytes| Prefix::parse(*bytes));
    let prefix = prefix.filter(|p| p.kind == Kind::Record && p.frame_len <= available).ok_or_else(damaged)?;
    buffer.truncate(prefix.frame_len.min(len) as usize);
    Ok(prefix.frame_len)
}

/// The error of reading a damaged record.
#[cold]
pub(crate) fn unreadable(segment: &Segment, offset: u64) -> Error {
    Error::corrupt(segment.name(), offset, "the record is damaged")
}
