//! Reading a file from front to back in pieces of any length, through a buffer.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::storage::{File, read_exact_at};

/// So much is read at once.
pub(crate) const WINDOW_LEN: u64 = 1 << 20;

/// A part of a file, in memory.
pub(crate) struct Window {
    name: String,
    file: Arc<dyn File>,
    /// Where the file ends.
    end: u64,
    bytes: Vec<u8>,
    at: u64,
}

impl Window {
    pub(crate) fn new(name: &str, file: Arc<dyn File>) -> Result<Window> {
        let end = file.len().map_err(|e| Error::os(format_args!("read {name}"), &e))?;
        Ok(Window { name: name.to_owned(), file, end, bytes: Vec::new(), at: 0 })
    }

    /// Where the file ended when it was opened.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The `len` bytes at `offset`, or fewer where the file ends before.
    pub(crate) fn peek(&mut self, offset: u64, len: u64) -> Result<&[u8]> {
        let left = self.end.saturating_sub(offset);
        let len = len.min(left);
        if offset < self.at || offset + len > self.at + self.bytes.len() as u64 {
            let fill = len.max(left.min(WINDOW_LEN));
            let no_memory = || Error::no_memory(format_args!("a record of {len} bytes"));
            let fill = usize::try_from(fill).map_err(|_| no_memory())?;
            self.bytes.clear();
            self.bytes.try_reserve(fill).map_err(|_| no_memory())?;
            self.bytes.resize(fill, 0);
            self.at = offset;
            if let Err(e) = read_exact_at(&*self.file, &mut self.bytes, offset) {
                self.bytes.clear();
                return Err(Error::os(format_args!("read {} at offset {offset}", self.name), &e));
            }
        }
        let start = (offset - self.at) as usize;
        Ok(&self.bytes[start..start + len as usize])
    }
}
