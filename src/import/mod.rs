//! Import of a log of the reference engine.
//!
//! ```text
//! log    = [header] record*
//! header = magic "KVS1", u64 LE threshold                     (12 bytes; older logs have none)
//! record = u64 LE length of the entry, entry                   no checksum
//! entry  = DataFileEntry, serialized as here; the timestamp in milliseconds
//! ```
//!
//! The timestamps are not taken over: order is that of the file.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use wincode::SchemaRead;

use crate::batch::Batch;
use crate::engine::Store;
use crate::error::{Code, Error, Result};
use crate::progress::Progress;
use crate::report::Report;
use crate::storage::File;
use crate::storage::real::open_file;
use crate::window::{WINDOW_LEN, Window};
use crate::{MAX_KEY_LEN, MAX_VALUE_LEN};

const MAGIC: &[u8] = b"KVS1";
const HEADER_LEN: u64 = 12;
const PREFIX_LEN: u64 = 8;
/// Timestamp, key length, option tag.
const MIN_ENTRY_LEN: u64 = 8 + 8 + 1;
/// The most that an entry can have that a store takes.
const MAX_ENTRY_LEN: u64 = MIN_ENTRY_LEN + 8 + MAX_KEY_LEN as u64 + MAX_VALUE_LEN;
/// Larger values are stored by themselves, which spares a copy.
const LARGE_VALUE: usize = 64 << 10;

impl Store {
    /// Stores everything that a log of the reference engine holds, in its order. A torn last record is a problem in
    /// the report; garbage ends the import, and then the report's [`Report::verdict`] is an error.
    pub fn import(&self, path: &Path, progress: &mut Progress<'_>) -> Result<Report> {
        self.check_writable()?;
        let name = path.to_string_lossy();
        let file = open_file(path).map_err(|e| Error::os(format_args!("open {name}"), &e))?;
        self.import_from(&name, &file, progress)
    }

    /// As [`Store::import`], from a file that is open.
    pub(crate) fn import_from(&self, name: &str, file: &Arc<dyn File>, progress: &mut Progress<'_>) -> Result<Report> {
        let mut reader = Reader::open(name, file)?;
        progress.start(reader.end)?;
        let mut told = 0;
        let mut import = Import { store: self, batch: Batch::new(), report: Report::default() };
        loop {
            let at = reader.at;
            match reader.next()? {
                Next::Entry(entry) => import.take(&entry)?,
                Next::End => break,
                Next::Torn => {
                    import.report.totals.torn_bytes = reader.end - at;
                    import.report.problem(name, at, "the last record is torn");
                    break;
                }
                Next::Garbage(what) => {
                    import.report.damage(name, at, reader.end - at, what);
                    import.report.fail(Error::corrupt(name, at, what));
                    break;
                }
            }
            import.report.totals.bytes = reader.at;
            if reader.at - told >= WINDOW_LEN {
                import.write_out()?;
                told = reader.at;
                progress.reach(told)?;
            }
        }
        import.write_out()?;
        if import.report.verdict().is_ok() {
            progress.finish();
        }
        Ok(import.report)
    }
}

/// An import under way.
struct Import<'a> {
    store: &'a Store,
    /// What is to be stored next.
    batch: Batch,
    report: Report,
}

impl Import<'_> {
    fn take(&mut self, entry: &Entry<'_>) -> Result<()> {
        self.report.totals.records += 1;
        self.report.totals.tombstones += entry.value.is_none() as u64;
        match entry.value {
            Some(value) if value.len() > LARGE_VALUE => {
                self.write_out()?;
                self.store.set(entry.key, value)?;
                self.report.totals.written_records += 1;
                Ok(())
            }
            Some(value) => self.batch.set(entry.key, value),
            None => self.batch.del(entry.key),
        }
    }

    fn write_out(&mut self) -> Result<()> {
        self.store.write(&self.batch)?;
        self.report.totals.written_records += self.batch.len() as u64;
        self.batch.clear();
        Ok(())
    }
}

/// An entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, SchemaRead)]
struct Entry<'a> {
    timestamp: i64,
    key: &'a [u8],
    value: Option<&'a [u8]>,
}

/// What is at some place of the log.
enum Next<'a> {
    Entry(Entry<'a>),
    End,
    /// The beginning of a record, up to the end of the file.
    Torn,
    Garbage(&'static str),
}

/// Reads such a log.
struct Reader {
    window: Window,
    at: u64,
    end: u64,
}

impl Reader {
    /// A reader at the first record. What does not begin with a record, or the beginning of one, is no log.
    fn open(name: &str, file: &Arc<dyn File>) -> Result<Reader> {
        let window = Window::new(name, Arc::clone(file))?;
        let end = window.end();
        let mut reader = Reader { window, at: 0, end };
        let no_log = || Error::new(Code::Format, format!("{name} is not a log of the reference engine"));
        let magic = reader.window.peek(0, MAGIC.len() as u64)? == MAGIC;
        let begins = !matches!(reader.next()?, Next::Garbage(_));
        // The magic could be the length of a record of 800 MB.
        let headed = magic && !(begins && reader.at > 0);
        if headed && end < HEADER_LEN || !headed && !begins || !magic && end > 0 && reader.zeros_from(0)? {
            return Err(no_log());
        }
        reader.at = if headed { HEADER_LEN } else { 0 };
        Ok(reader)
    }

    /// The next record. Behind anything else there is nothing more to read.
    fn next(&mut self) -> Result<Next<'_>> {
        let (at, left) = (self.at, self.end.saturating_sub(self.at));
        if left == 0 {
            return Ok(Next::End);
        }
        // As appending leaves it when power fails: the length of the file was on disk, the bytes were not.
        if self.window.peek(at, PREFIX_LEN.min(left))?.iter().all(|&byte| byte == 0) {
            let torn = self.zeros_from(at)?;
            return Ok(if torn { Next::Torn } else { Next::Garbage("a record of no length") });
        }
        let mut prefix = [0; PREFIX_LEN as usize];
        let known = self.window.peek(at, PREFIX_LEN.min(left))?;
        prefix[..known.len()].copy_from_slice(known);
        let len = u64::from_le_bytes(prefix);
        if len > MAX_ENTRY_LEN || left >= PREFIX_LEN && len < MIN_ENTRY_LEN {
            return Ok(Next::Garbage("a length that no record has"));
        }
        if left < PREFIX_LEN {
            return Ok(Next::Torn);
        }
        if len > left - PREFIX_LEN {
            let torn = self.may_be_torn(at + PREFIX_LEN, len)?;
            return Ok(if torn {
                Next::Torn
            } else {
                Next::Garbage("a record that reaches beyond the end of the file")
            });
        }
        self.at += PREFIX_LEN + len;
        let entry = wincode::deserialize_exact(self.window.peek(at + PREFIX_LEN, len)?);
        Ok(entry.map_or(Next::Garbage("a record that cannot be decoded"), Next::Entry))
    }

    /// Whether what is left of the file can be the beginning of an entry of `len` bytes.
    fn may_be_torn(&mut self, at: u64, len: u64) -> Result<bool> {
        let left = self.end - at;
        let mut number = |offset: u64| -> Result<Option<u64>> {
            let bytes =
                if offset + 8 <= left { self.window.peek(at + offset, 8)?.first_chunk().copied() } else { None };
            Ok(bytes.map(u64::from_le_bytes))
        };
        let Some(key_len) = number(8)? else { return Ok(true) };
        if key_len > len - MIN_ENTRY_LEN {
            return Ok(false);
        }
        let tag_at = MIN_ENTRY_LEN - 1 + key_len;
        let value_len = number(tag_at + 1)?;
        if tag_at >= left {
            return Ok(true);
        }
        Ok(match self.window.peek(at + tag_at, 1)? {
            [0] => len == tag_at + 1,
            [1] => value_len.is_none_or(|value_len| len.checked_sub(tag_at + 9) == Some(value_len)),
            _ => false,
        })
    }

    /// Whether there is nothing but zeros from here on.
    fn zeros_from(&mut self, mut at: u64) -> Result<bool> {
        while at < self.end {
            let piece = self.window.peek(at, (self.end - at).min(WINDOW_LEN))?;
            if piece.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            at += piece.len() as u64;
        }
        Ok(true)
    }
}
