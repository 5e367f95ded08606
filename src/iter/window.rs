//! The bytes of segments for somebody who reads them from front to back.

use crate::error::{Error, Result};
use crate::log::segment::{Segment, SegmentIo};

/// So much is read at once by system calls.
const WINDOW_LEN: u64 = 256 << 10;

/// A piece of a segment that is read by system calls. Mapped ones need none.
#[derive(Default)]
pub(super) struct Window {
    bytes: Vec<u8>,
    /// Which segment the bytes are of, and where they begin.
    segment: u64,
    at: u64,
    /// What comes next is anywhere: no more is read than was asked for.
    pub(super) at_random: bool,
}

/// Bytes of a segment that are at hand.
pub(super) struct Piece<'a> {
    bytes: &'a [u8],
    at: u64,
}

impl<'a> Piece<'a> {
    /// The bytes from `offset` on for `len`, if the piece has them.
    #[inline]
    pub(super) fn get(&self, offset: u64, len: u64) -> Option<&'a [u8]> {
        let start = offset.checked_sub(self.at).and_then(|start| usize::try_from(start).ok())?;
        self.bytes.get(start..)?.get(..usize::try_from(len).ok()?)
    }
}

impl Window {
    /// The bytes from `offset` on for `len`; `None` where the segment does not reach that far.
    #[inline]
    pub(super) fn bytes<'a>(&'a mut self, segment: &'a Segment, offset: u64, len: u64) -> Result<Option<&'a [u8]>> {
        if let SegmentIo::Mapped(_) = segment.io() {
            return Ok(segment.mapped(offset, len));
        }
        Ok(self.read(segment, offset, len)?.get(offset, len))
    }

    /// All that is at hand together with these bytes, and nothing where the segment does not reach that far.
    pub(super) fn piece<'a>(&'a mut self, segment: &'a Segment, offset: u64, len: u64) -> Result<Piece<'a>> {
        if let SegmentIo::Mapped(_) = segment.io() {
            return Ok(Piece { bytes: segment.mapped_from(0).unwrap_or_default(), at: 0 });
        }
        self.read(segment, offset, len)
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.bytes.len()
    }

    fn read(&mut self, segment: &Segment, offset: u64, len: u64) -> Result<Piece<'_>> {
        let Some(available) = segment.len().checked_sub(offset).filter(|&available| available >= len) else {
            return Ok(Piece { bytes: &[], at: offset });
        };
        let inside = offset.checked_sub(self.at).is_some_and(|skip| skip + len <= self.bytes.len() as u64);
        if self.segment != segment.id() || !inside {
            let ahead = if self.at_random { 0 } else { WINDOW_LEN };
            let fill = len.max(ahead).min(available) as usize;
            self.bytes.clear();
            self.bytes.try_reserve(fill).map_err(|_| Error::no_memory("an iterator"))?;
            self.bytes.resize(fill, 0);
            (self.segment, self.at) = (segment.id(), offset);
            let mut read = segment.read_exact(&mut self.bytes, offset);
            if read.is_err() && fill as u64 > len {
                // What cannot be read may lie behind what is wanted.
                self.bytes.truncate(len as usize);
                read = segment.read_exact(&mut self.bytes, offset);
            }
            read.inspect_err(|_| self.segment = 0)?;
        }
        Ok(Piece { bytes: &self.bytes, at: self.at })
    }
}
