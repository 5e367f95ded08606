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

    /// Hands the bytes of a frame that `next` has shown to `take`, piece by piece.
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
                self.batches += 1;
                self.at += CRC_LEN as u64;
            }
            let at = self.at;
            let limit = self.batch.map_or(self.end, |(_, end)| end);
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

    /// Goes on after [`Item::Bad`] at the next intact frame that can be found, or at the end. Returns the
    /// length and the key of the damaged record, as far as they can be read: both may be wrong.
    pub(crate) fn skip_bad(&mut self) -> Result<Option<(u64, Vec<u8>)>> {
        let bad = self.at;
        self.batch = None;
        let mut damaged = self.repaired(bad)?;
        let prefix_bytes = self.peek(bad, PREFIX_LEN)?.try_into().unwrap_or([0; PREFIX_LEN]);
        if damaged.is_none()
            && let Some(prefix) = Prefix::parse(prefix_bytes)
            && prefix.kind == Kind::Record
            && prefix.frame_len <= self.end - bad
        {
            let head_len = Head::max_len(MAX_KEY_LEN).min(prefix.frame_len as usize);
            let head = Head::parse(self.peek(bad, head_len)?, prefix.frame_len);
            damaged = head.map(|head| (prefix.frame_len, head.key.to_vec()));
        }
        if damaged.is_none() {
            let left = self.end - bad;
            let head = Head::parse_without_prefix(self.peek(bad, Head::max_len(MAX_KEY_LEN))?);
            damaged = head.filter(|(len, _)| *len <= left).map(|(len, head)| (len, head.key.to_vec()));
        }
        if let Some((len, _)) = damaged {
            let after = bad + len;
            if after == self.end || self.patience > 0 && self.is_frame(after)? {
                self.at = after;
                return Ok(damaged);
            }
        }
        self.at = self.find_frame(bad + 1)?;
        Ok(damaged)
    }

    /// The length and the key that the record at `at` had before one bit of it flipped, if that is what happened and the
    /// bit is one of those that tell. The checksum is right for one such bit only: up to 2^31 bits, all errors of fewer
    /// than four differ (Koopman, "32-bit cyclic redundancy codes for internet applications", 2002).
    fn repaired(&mut self, at: u64) -> Result<Option<(u64, Vec<u8>)>> {
        let mut bytes = self.peek(at, REPAIR_LEN)?.to_vec();
        self.repair_patience = self.repair_patience.saturating_sub(bytes.len() as u64);
        if self.repair_patience == 0 {
            return Ok(None);
        }
        for bit in 0..bytes.len().min(REPAIR_HEAD) * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Some(prefix) = bytes.first_chunk().and_then(|prefix| Prefix::parse(*prefix))
                && let Some(frame) = usize::try_from(prefix.frame_len).ok().and_then(|len| bytes.get(..len))
                && let Some(head) = Head::parse(frame, prefix.frame_len)
            {
                if record::crc_matches(frame) {
                    return Ok(Some((prefix.frame_len, head.key.to_vec())));
                }
                self.repair_patience = self.repair_patience.saturating_sub(prefix.frame_len);
                if self.repair_patience == 0 {
                    return Ok(None);
                }
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
                Item::End => return Ok(synced),
                Item::Bad(_) => {
                    self.skip_bad()?;
                }
            }
        }
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
        if let Some(last) = piece.iter().rposition(|&b| b != 0) {
            data_end = at + last as u64 + 1;
        }
        at += piece.len() as u64;
    }
    Ok(data_end)
}
