//! The segment that a compaction writes.

use std::sync::Arc;

use super::listing::Live;
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::log::header::{Header, LogEnd, Role};
use crate::log::hint;
use crate::log::scan::Scanner;
use crate::log::segment::{Segment, State, file_name};
use crate::storage::{File, LARGE_PAGE, write_all_at};
use crate::transient::reserve_apart;

/// Records up to this are gathered to be written together, as many large pages as they fill.
const MOST_GATHERED: u64 = 256 << 10;

/// A segment in the making.
pub(super) struct Output {
    pub header: Header,
    pub file: Arc<dyn File>,
    /// Bytes in the file, and those that are to follow.
    pub written: u64,
    /// Up to here it is on its way to the disk.
    sent: u64,
    buffer: Vec<u8>,
    /// What was copied, as it stands in the output: in that order, and by hash from `publish` on.
    pub moved: Vec<Live>,
    pub segment: Option<Arc<Segment>>,
}

impl Output {
    /// The job's output, made when the first record needs it. That comes from an input of so many bytes.
    pub(super) fn of<'a>(output: &'a mut Option<Output>, engine: &Engine, input_len: u64) -> Result<&'a mut Output> {
        if output.is_none() {
            let header = engine.factory.new_header(Role::Output, LogEnd::default())?;
            let name = file_name(header.id);
            let mut buffer = Vec::new();
            buffer
                .try_reserve_exact((LARGE_PAGE + MOST_GATHERED) as usize)
                .map_err(|_| Error::no_memory("compaction"))?;
            buffer.extend(header.encode()?);
            let file = engine.storage.create(&name).map_err(|e| Error::os(format_args!("create {name}"), &e))?;
            let mut moved = Vec::new();
            reserve_apart(&mut moved, input_len);
            *output = Some(Output { header, file, written: 0, sent: 0, buffer, moved, segment: None });
        }
        output.as_mut().ok_or_else(|| Error::new(Code::Internal, "no output"))
    }

    /// Copies a record that `scanner` has found to be intact. After an error the output is to be given up.
    pub(super) fn take(&mut self, scanner: &mut Scanner, Live { mut entry, from }: Live) -> Result<()> {
        self.moved.try_reserve(1).map_err(|_| Error::no_memory("compaction"))?;
        entry = entry.moved_to(self.end());
        if entry.len <= MOST_GATHERED {
            let buffer = &mut self.buffer;
            let start = buffer.len();
            let copied = scanner.copy_frame(from.offset(), entry.len, |piece| {
                buffer.extend_from_slice(piece);
                Ok(())
            });
            copied.inspect_err(|_| buffer.truncate(start))?;
        } else {
            self.flush()?;
            let mut at = self.written;
            scanner.copy_frame(from.offset(), entry.len, |piece| {
                write_output(&*self.file, &self.header, piece, at)?;
                at += piece.len() as u64;
                Ok(())
            })?;
            self.written = at;
        }
        self.moved.push(Live { entry, from });
        let whole = self.end() - self.end() % LARGE_PAGE;
        if whole > self.written { self.write_to(whole) } else { Ok(()) }
    }

    /// Where the next record goes.
    fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.write_to(self.end())
    }

    /// Writes what has been gathered, up to this offset.
    fn write_to(&mut self, end: u64) -> Result<()> {
        let len = (end - self.written) as usize;
        write_output(&*self.file, &self.header, &self.buffer[..len], self.written)?;
        self.written = end;
        self.buffer.drain(..len);
        // The disk is at work while the next records are copied. No page is to be sent twice.
        let whole = end - end % LARGE_PAGE;
        let started = self.file.start_sync(self.sent, whole - self.sent);
        started.map_err(|e| Error::os(format_args!("write {}", file_name(self.header.id)), &e))?;
        self.sent = whole;
        Ok(())
    }

    /// Makes the finished output a segment that readers can be sent to. Returns its slot.
    pub(super) fn publish(&mut self, engine: &Engine) -> Result<u32> {
        let io = engine.factory.io(&*self.file, self.written, false);
        let segment = Arc::new(Segment::new(self.header, io, self.written, State::Sealed));
        segment.set_synced(self.written);
        engine.expect_reads(&segment);
        for Live { entry, .. } in &self.moved {
            segment.note_timestamp(entry.timestamp);
            if entry.tombstone() {
                segment.add_tombstone(entry.len);
            }
        }
        // In the order of the hashes the index is changed shard by shard, too.
        hint::sort(&mut self.moved);
        let names = (segment.id(), segment.identity());
        let entries = self.moved.iter().map(|moved| &moved.entry);
        engine.note_hint(&segment, hint::write(&*engine.storage, names, self.written, engine.hash_seed, entries));
        self.segment = Some(Arc::clone(&segment));
        engine.index.add_segment(segment)
    }
}

fn write_output(file: &dyn File, header: &Header, bytes: &[u8], at: u64) -> Result<()> {
    write_all_at(file, bytes, at).map_err(|e| Error::os(format_args!("write {}", file_name(header.id)), &e))
}
