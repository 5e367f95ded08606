//! A file with places that the disk cannot read: for those who want the rest of it all the same.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use crate::engine::lock;
use crate::storage::{File, Map, read_exact_at};

/// What is skipped where the disk reports an error.
const BLOCK: usize = 4096;

/// A file whose unreadable blocks are read as zeros. The first of them is remembered.
pub(crate) struct Patched {
    file: Arc<dyn File>,
    first: Mutex<Option<(u64, io::Error)>>,
    count: AtomicU64,
}

impl Patched {
    pub(crate) fn new(file: Arc<dyn File>) -> Patched {
        Patched { file, first: Mutex::new(None), count: AtomicU64::new(0) }
    }

    /// Where the first unreadable block is, what the system said, and how many such blocks were met.
    pub(crate) fn unreadable(&self) -> Option<(u64, String)> {
        let count = self.count.load(Relaxed);
        lock(&self.first).as_ref().map(|(offset, e)| (*offset, format!("cannot be read ({count} failed reads): {e}")))
    }
}

impl File for Patched {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Ok(n) = self.file.read_at(buf, offset) {
            return Ok(n);
        }
        // Up to the next block, so that only what cannot be read is lost.
        let left = self.file.len()?.saturating_sub(offset).min(buf.len() as u64) as usize;
        let len = left.min(BLOCK - (offset % BLOCK as u64) as usize);
        let block = &mut buf[..len];
        if let Err(e) = read_exact_at(&*self.file, block, offset) {
            block.fill(0);
            self.count.fetch_add(1, Relaxed);
            lock(&self.first).get_or_insert((offset, e));
        }
        Ok(len)
    }

    fn write_at(&self, _buf: &[u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn allocate(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn map(&self, _len: usize, _write: bool) -> io::Result<Map> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
