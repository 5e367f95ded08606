//! Reading a segment frame by frame, through a window of bounded size.
//!
//! Everything that walks a log goes through here: recovery, compaction and the making of hints. A record
//! larger than the window has its checksum verified piece by piece; only its head is kept.

use std::sync::Arc;

use super::header::HEADER_LEN;
use super::record::{self, CRC_LEN, Head, Kind, MARK_LEN, PREFIX_LEN, Prefix};
use crate::MAX_KEY_LEN;
use crate::error::{Code, Error, Result};
use crate::storage::{File, read_exact_at};

const WINDOW_LEN: usize = 256 << 10;
/// Records up to this are searched for a flipped bit, in the first bytes, which hold all but very long keys.
const REPAIR_LEN: usize = 64 << 10;
const REPAIR_HEAD: usize = 512;

/// A segment is read at most so many times over in vain.
const PATIENCE: u64 = 16;
/// Bytes read for repairs in one scan: enough for four of the longest records, or a thousand of 250 bytes.
const REPAIR_PATIENCE: u64 = 1 << 30;

/// What stands at the scanner's place in the log.
#[derive(Debug, PartialEq)]
pub(crate) enum Item<'a> {
    /// An intact record of `len` bytes at `offset`.
    Record { offset: u64, len: u64, head: Head<'a> },
    /// An intact sync mark: everything before this offset has been synced.
    Mark(u64),
    /// Zeros, or the end of the file.
    End,
    /// Bytes that are no intact frame. The scanner stays in front of them.
    Bad(&'static str),
}

/// What has been damaged where [`Item::Bad`] was found.
#[derive(Debug, PartialEq)]
pub(crate) enum Damage {
    /// One record, of this length and key as far as anybody can tell.
    Record { len: u64, key: Vec<u8> },
    /// A sync mark, or what is around the records of a batch: no record.
    Frame,
    /// Records that nothing can be told of. The scanner goes on at the next intact frame, or is at the end.
    Lost,
}

/// Walks over the frames of one segment.
pub(crate) struct Scanner {
    name: String,
    file: Arc<dyn File>,
    /// Where the next frame is expected.
    at: u64,
    /// Nothing is read beyond this offset.
    end: u64,
    /// Where the batch begins, and where its payload ends, that the next record belongs to.
    batch: Option<(u64, u64)>,
    /// Its own checksum is wrong.
    batch_broken: bool,
    /// Intact batches that were gone through.
    batches: u64,
    /// So many bytes may still be read for checksums that turn out wrong, and so many for repairs: a hostile file is not
    /// worth more.
    patience: u64,
    repair_patience: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl Scanner {
    /// A scanner of the frames between the offsets `start` and `end`; `start` is the start of a frame.
    pub(crate) fn new(name: &str, file: Arc<dyn File>, start: u64, end: u64) -> Result<Scanner> {
        let mut window = Vec::new();
        let len = WINDOW_LEN.min(usize::try_from(end.saturating_sub(start)).unwrap_or(WINDOW_LEN)).max(HEADER_LEN);
        window.try_reserve_exact(len).map_err(|_| Error::no_memory("a scan"))?;
        let patience = end.saturating_sub(start).saturating_mul(PATIENCE);
        Ok(Scanner {
            name: name.to_owned(),
            file,
            at: start,
            end,
            batch: None,
            batch_broken: false,
            batches: 0,
            patience,
            repair_patience: REPAIR_PATIENCE,
            window,
            window_at: 0,
        })
    }

    /// Where the next frame is expected. After [`Item::End`] or [`Item::Bad`]: where that was found.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Where the last complete frame ends: a batch that breaks off counts for nothing.
    pub(crate) fn good_end(&self) -> u64 {
        self.batch.map_or(self.at, |(start, _)| start)
    }

    /// How many intact batches have been gone through.
    pub(crate) fn batches(&self) -> u64 {
        self.batches
    }

    /// Where the batch ends that [`Item::Bad`] is, if it is one.
    pub(crate) fn damaged_batch(&mut self) -> Result<Option<u64>> {
        let at = self.at;
        let prefix = self.peek(at, PREFIX_LEN)?.first_chunk().and_then(|bytes| Prefix::parse(*bytes));
        if self.batch.is_some() || prefix.is_none_or(|prefix| prefix.kind != Kind::Batch) {
            return Ok(None);
        }
        Ok(self.plausible_frame(at)?.map(|len| at + len))
    }

    /// Whether an intact record of this length stands at `offset`.
    pub(crate) fn holds_record(&mut self, offset: u64, len: u64) -> Result<bool> {
        if offset.checked_add(len).is_none_or(|end| end > self.end) {
            return Ok(false);
        }
        let first = self.peek(offset, len.min(WINDOW_LEN as u64) as usize)?.first_chunk();
        if first.and_then(|bytes| Prefix::parse(*bytes)).is_none_or(|prefix| prefix.kind != Kind::Record) {
            return Ok(false);
        }
        match self.record_at_hand(offset, self.end) {
            Some(found) => Ok(found == len),
            None => Ok(self.plausible_frame(offset)? == Some(len) && self.crc_matches(offset, len)?),
        }
    }

    /// Hands the bytes of a frame that was found to be intact to `take`, piece by piece.
    pub(crate) fn copy_frame(
        &mut self,
        offset: u64,
        len: u64,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut done = 0;
        while done < len {
            let piece = self.peek(offset + done, (len - done).min(WINDOW_LEN as u64) as usize)?;
            if piece.is_empty() {
                return Err(Error::corrupt(&self.name, offset, "the file changes while it is read"));
            }
            done += piece.len() as u64;
            take(piece)?;
        }
        Ok(())
    }

    /// The next frame. A frame that is intact but uses what this version does not know is an error.
    pub(crate) fn next(&mut self) -> Result<Item<'_>> {
        let (at, prefix) = loop {
            if self.batch.is_some_and(|(_, end)| end == self.at) {
                self.batch = None;
                self.batches += !self.batch_broken as u64;
                self.at += CRC_LEN as u64;
            }
            let at = self.at;
            let limit = self.batch.map_or(self.end, |(_, end)| end);
            if let Some(len) = self.record_at_hand(at, limit) {
                self.at += len;
                let start = (at - self.window_at) as usize;
                return match Head::parse(&self.window[start..start + len as usize], len) {
                    Some(head) => Ok(Item::Record { offset: at, len, head }),
                    None => Ok(Item::Bad("the window has changed")),
                };
            }
            let prefix_bytes = self.peek(at, PREFIX_LEN)?;
            let Ok(prefix_bytes) = <[u8; PREFIX_LEN]>::try_from(prefix_bytes) else {
                let zeros = prefix_bytes.iter().all(|&b| b == 0);
                return Ok(if zeros { Item::End } else { Item::Bad("less than a frame") });
            };
            if prefix_bytes == [0; PREFIX_LEN] && self.batch.is_none() {
                return Ok(Item::End);
            }
            let Some(prefix) = Prefix::parse(prefix_bytes) else { return Ok(Item::Bad("impossible length")) };
            if prefix.frame_len > limit - at {
                return Ok(Item::Bad("the frame reaches beyond the end"));
            }
            if !self.crc_matches(at, prefix.frame_len)? {
                self.patience = self.patience.saturating_sub(prefix.frame_len);
                return Ok(Item::Bad("checksum mismatch"));
            }
            match prefix.kind {
                Kind::Batch if self.batch.is_some() => return Ok(Item::Bad("a batch in a batch")),
                Kind::Batch => {
                    self.batch = Some((at, at + prefix.frame_len - CRC_LEN as u64));
                    self.batch_broken = false;
                    self.at += PREFIX_LEN as u64;
                }
                _ => break (at, prefix),
            }
        };
        match prefix.kind {
            Kind::Mark => match record::decode_mark(self.peek(at, MARK_LEN)?) {
                Some(offset) if offset >= HEADER_LEN as u64 && offset <= at => {
                    self.at += MARK_LEN as u64;
                    Ok(Item::Mark(offset))
                }
                _ => Ok(Item::Bad("a sync mark for what is not before it")),
            },
            Kind::Record => {
                let head_len = Head::max_len(MAX_KEY_LEN).min(prefix.frame_len as usize);
                if Head::parse(self.peek(at, head_len)?, prefix.frame_len).is_none() {
                    return self.unknown("a record of unknown form");
                }
                self.at += prefix.frame_len;
                match Head::parse(self.peek(at, head_len)?, prefix.frame_len) {
                    Some(head) => Ok(Item::Record { offset: at, len: prefix.frame_len, head }),
                    None => Ok(Item::Bad("the file changes while it is read")),
                }
            }
            Kind::Batch | Kind::Unknown => self.unknown("a frame with unknown flags"),
        }
    }

    /// The length of the record at `at`, if it is intact and all of it is in the window: the short way for nearly all
    /// records.
    fn record_at_hand(&self, at: u64, limit: u64) -> Option<u64> {
        let start = usize::try_from(at.checked_sub(self.window_at)?).ok()?;
        let frame = record::first_record(self.window.get(start..)?)?;
        let len = frame.len() as u64;
        let intact = len <= limit - at && record::crc_matches(frame);
        (intact && Head::parse(frame, len).is_some()).then_some(len)
    }

    /// Goes on after [`Item::Bad`], or after [`Item::End`] where the log cannot end, and says what has been damaged.
    pub(crate) fn skip_bad(&mut self) -> Result<Damage> {
        let bad = self.at;
        if let Some(damage) = self.repaired(bad)? {
            return Ok(damage);
        }
        let prefix = self.peek(bad, PREFIX_LEN)?.first_chunk().and_then(|bytes| Prefix::parse(*bytes));
        let prefix = prefix.filter(|prefix| prefix.frame_len <= self.end - bad);
        if prefix.is_some_and(|prefix| prefix.kind == Kind::Batch)
            && self.batch.is_none()
            && let Some(len) = self.plausible_frame(bad)?
        {
            self.enter_broken_batch(bad, len);
            return Ok(Damage::Frame);
        }
        let limit = self.batch.map_or(self.end, |(_, end)| end);
        if let Some((len, key)) = self.readable_head(bad, prefix)?.filter(|(len, _)| *len <= limit - bad) {
            let after = bad + len;
            // Behind the last record of a batch is the checksum of the batch.
            let next = if self.batch.is_some_and(|(_, end)| end == after) { after + CRC_LEN as u64 } else { after };
            if next == self.end || next < self.end && self.patience > 0 && self.is_frame(next)? {
                self.at = after;
                // A damaged batch may not reach as far as it says, nor only so far.
                self.batch = self.batch.filter(|(_, end)| after <= *end);
                return Ok(Damage::Record { len, key });
            }
        }
        // A damaged batch may not reach as far as it says: what did not fit into it may be intact.
        let from = if self.batch.take().is_some() { bad } else { bad + 1 };
        self.at = self.find_frame(from)?;
        Ok(Damage::Lost)
    }

    /// The length and the key of the record at `at` as its damaged bytes say them, without its prefix if need be. Both may
    /// be wrong.
    fn readable_head(&mut self, at: u64, prefix: Option<Prefix>) -> Result<Option<(u64, Vec<u8>)>> {
        if let Some(prefix) = prefix.filter(|prefix| prefix.kind == Kind::Record) {
            let head_len = Head::max_len(MAX_KEY_LEN).min(prefix.frame_len as usize);
            if let Some(head) = Head::parse(self.peek(at, head_len)?, prefix.frame_len) {
                return Ok(Some((prefix.frame_len, head.key.to_vec())));
            }
        }
        let left = self.end - at;
        let head = Head::parse_without_prefix(self.peek(at, Head::max_len(MAX_KEY_LEN))?);
        Ok(head.filter(|(len, _)| *len <= left).map(|(len, head)| (len, head.key.to_vec())))
    }

    /// Goes on behind the prefix of a damaged batch: the records in it are looked at one by one.
    fn enter_broken_batch(&mut self, at: u64, frame_len: u64) {
        self.batch = Some((at, at + frame_len - CRC_LEN as u64));
        self.batch_broken = true;
        self.at = at + PREFIX_LEN as u64;
    }

    /// Goes on behind a frame of which one bit has flipped, if that is what happened and the bit is one of those that
    /// tell. The checksum is right for one such bit only: up to 2^31 bits, all errors of fewer than four differ
    /// (Koopman, "32-bit cyclic redundancy codes for internet applications", 2002).
    fn repaired(&mut self, at: u64) -> Result<Option<Damage>> {
        let limit = self.batch.map_or(self.end, |(_, end)| end);
        let mut bytes = self.peek(at, REPAIR_LEN.min(limit.saturating_sub(at) as usize))?.to_vec();
        self.repair_patience = self.repair_patience.saturating_sub(bytes.len() as u64);
        for bit in 0..bytes.len().min(REPAIR_HEAD) * 8 {
            if self.repair_patience == 0 {
                return Ok(None);
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Some(prefix) = bytes.first_chunk().and_then(|prefix| Prefix::parse(*prefix))
                && let Some(frame) = usize::try_from(prefix.frame_len).ok().and_then(|len| bytes.get(..len))
            {
                let (len, head) = (prefix.frame_len, Head::parse(frame, prefix.frame_len));
                let possible = match prefix.kind {
                    Kind::Record => head.is_some(),
                    Kind::Mark => true,
                    Kind::Batch => bit < PREFIX_LEN * 8 && self.batch.is_none(),
                    Kind::Unknown => false,
                };
                if possible && record::crc_matches(frame) {
                    let record = head.filter(|_| prefix.kind == Kind::Record);
                    let record = record.map(|head| Damage::Record { len, key: head.key.to_vec() });
                    self.at = at + len;
                    if prefix.kind == Kind::Batch {
                        self.enter_broken_batch(at, len);
                    }
                    return Ok(Some(record.unwrap_or(Damage::Frame)));
                }
                self.repair_patience = self.repair_patience.saturating_sub(if possible { len } else { 0 });
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        Ok(None)
    }

    /// Goes on behind a record that `next` has shown but that cannot be what it seems: at the next intact frame from one
    /// byte further on.
    pub(crate) fn reject(&mut self, offset: u64) -> Result<()> {
        self.batch = None;
        self.at = self.find_frame(offset + 1)?;
        Ok(())
    }

    /// The first offset from `from` on where an intact frame stands, or the end. Gives up, and so
    /// skips the rest, when it has lost its patience.
    fn find_frame(&mut self, from: u64) -> Result<u64> {
        let mut at = from;
        while self.patience > 0 && at + PREFIX_LEN as u64 <= self.end {
            if let Some(len) = self.plausible_frame(at)? {
                if self.crc_matches(at, len)? {
                    return Ok(at);
                }
                self.patience = self.patience.saturating_sub(len);
            }
            at += 1;
        }
        Ok(self.end)
    }

    /// The length of the frame that seems to stand at `at`: a look at its first bytes that rules out nearly all places
    /// where there is none.
    fn plausible_frame(&mut self, at: u64) -> Result<Option<u64>> {
        let prefix_of = |bytes: &[u8]| bytes.first_chunk().and_then(|bytes| Prefix::parse(*bytes));
        let Some(prefix) = prefix_of(self.peek(at, PREFIX_LEN)?) else { return Ok(None) };
        if prefix.frame_len > self.end - at {
            return Ok(None);
        }
        let plausible = match prefix.kind {
            Kind::Unknown => false,
            Kind::Mark => true,
            Kind::Batch => {
                let first = prefix_of(self.peek(at + PREFIX_LEN as u64, PREFIX_LEN)?);
                first.is_some_and(|first| first.kind == Kind::Record && first.frame_len < prefix.frame_len)
            }
            Kind::Record => {
                let head_len = Head::max_len(MAX_KEY_LEN).min(prefix.frame_len as usize);
                Head::parse(self.peek(at, head_len)?, prefix.frame_len).is_some()
            }
        };
        Ok(plausible.then_some(prefix.frame_len))
    }

    /// The highest offset that an intact sync mark behind the scanner's place names. Frame boundaries are
    /// followed where they can be; where they are lost, marks are looked for at every byte.
    pub(crate) fn last_mark(&mut self) -> Result<u64> {
        let mut synced = 0;
        loop {
            match self.next()? {
                Item::Record { .. } => {}
                Item::Mark(offset) => synced = synced.max(offset),
                Item::Bad(_) => drop(self.skip_bad()?),
                // Frames may have been zeroed.
                Item::End => {
                    if !self.skip_zeros()? {
                        return Ok(synced);
                    }
                }
            }
        }
    }

    /// Goes on at the next intact frame behind zeros. False if there are only zeros.
    fn skip_zeros(&mut self) -> Result<bool> {
        let mut at = self.at;
        while at < self.end {
            let piece = self.peek(at, WINDOW_LEN)?;
            if let Some(data) = piece.iter().position(|&byte| byte != 0) {
                // The first bytes of a frame may be zero as well.
                let from = (at + data as u64).saturating_sub(PREFIX_LEN as u64 - 1).max(self.at);
                self.batch = None;
                self.at = self.find_frame(from)?;
                return Ok(true);
            }
            at += piece.len() as u64;
        }
        Ok(false)
    }

    /// Whether an intact frame, or the zeros behind the last one, stands at `at`.
    fn is_frame(&mut self, at: u64) -> Result<bool> {
        let Ok(bytes) = <[u8; PREFIX_LEN]>::try_from(self.peek(at, PREFIX_LEN)?) else {
            return Ok(false);
        };
        if bytes == [0; PREFIX_LEN] {
            return Ok(true);
        }
        match Prefix::parse(bytes) {
            Some(prefix) if prefix.frame_len <= self.end - at => {
                let intact = self.crc_matches(at, prefix.frame_len)?;
                self.patience = self.patience.saturating_sub(if intact { 0 } else { prefix.frame_len });
                Ok(intact)
            }
            _ => Ok(false),
        }
    }

    fn unknown<T>(&self, what: &str) -> Result<T> {
        Err(Error::new(Code::Format, format!("{}: offset {}: {what}: written by a newer version?", self.name, self.at)))
    }

    /// Verifies the checksum of the frame at `at`, which lies within the end.
    fn crc_matches(&mut self, at: u64, frame_len: u64) -> Result<bool> {
        let body_end = at + frame_len - CRC_LEN as u64;
        let (mut crc, mut offset) = (0, at);
        while offset < body_end {
            let len = (body_end - offset).min(WINDOW_LEN as u64) as usize;
            let piece = self.peek(offset, len)?;
            if piece.len() < len {
                return Ok(false);
            }
            crc = crc32c::crc32c_append(crc, piece);
            offset += len as u64;
        }
        Ok(self.peek(body_end, CRC_LEN)? == crc.to_le_bytes())
    }

    /// The `len` bytes at `offset`, at most a window's length; fewer where the end is nearer.
    fn peek(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        let len = len.min(usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX));
        let window_end = self.window_at + self.window.len() as u64;
        if offset < self.window_at || offset + len as u64 > window_end {
            let fill = (self.end - offset.min(self.end)).min(self.window.capacity() as u64) as usize;
            self.window.resize(fill.max(len), 0);
            self.window_at = offset;
            if let Err(e) = read_exact_at(&*self.file, &mut self.window, offset) {
                self.window.clear();
                return Err(Error::os(format_args!("read {} at offset {offset}", self.name), &e));
            }
        }
        let start = (offset - self.window_at) as usize;
        Ok(&self.window[start..start + len])
    }
}

/// Whether all bytes of the file from `from` on are zero; else the offset behind the last that is not.
pub(crate) fn end_of_data(name: &str, file: &dyn File, from: u64) -> Result<u64> {
    let os = |e: &std::io::Error| Error::os(format_args!("read {name}"), e);
    let end = file.len().map_err(|e| os(&e))?;
    let mut buffer = vec![0; WINDOW_LEN];
    let (mut at, mut data_end) = (from, from);
    while at < end {
        let piece = &mut buffer[..(end - at).min(WINDOW_LEN as u64) as usize];
        read_exact_at(file, piece, at).map_err(|e| os(&e))?;
        // Nearly all that is read here is zero, and told so many bytes at once.
        let any = piece.iter().fold(0, |any, byte| any | byte) != 0;
        if any && let Some(last) = piece.iter().rposition(|&b| b != 0) {
            data_end = at + last as u64 + 1;
        }
        at += piece.len() as u64;
    }
    Ok(data_end)
}
