//! A regular file: reads and writes at offsets, preallocation, and syncs.

use super::*;

/// One open regular file.
pub(super) struct RealFile {
    file: fs::File,
    /// The writable maps of this file: here a sync of the file does not cover them.
    #[cfg(target_vendor = "apple")]
    maps: Mutex<Vec<Weak<Mapping>>>,
}

impl RealFile {
    pub(super) fn new(file: fs::File) -> RealFile {
        RealFile {
            file,
            #[cfg(target_vendor = "apple")]
            maps: Mutex::new(Vec::new()),
        }
    }
}

/// Refuses a write or an extension that ends at `end` if that is over the process's file size limit. The kernel would
/// answer with SIGXFSZ, which kills the host; for writes even where the file is already longer. Asked each time: the
/// host may lower its limit whenever it likes.
fn admit(end: u64) -> io::Result<()> {
    if end > file_size_limit() { Err(io::Error::from_raw_os_error(libc::EFBIG)) } else { Ok(()) }
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        retry(|| self.file.read_at(buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let buf = &buf[..buf.len().min(WRITE_BYTES_MAX)];
        admit(offset.saturating_add(buf.len() as u64))?;
        retry(|| self.file.write_at(buf, offset))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // Only growing can meet the limit: to cut a file that is over it is allowed.
        if len > self.len()? {
            admit(len)?;
        }
        retry(|| self.file.set_len(len))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let old = self.len()?;
        if len > old {
            admit(len)?;
        }
        let result = os::allocate(&self.file, old, len);
        // ext4 moves the end of the file along while it allocates, so a full disk may leave it half way.
        if result.is_err() && len > old {
            let _ = retry(|| self.file.set_len(old));
        }
        result
    }

    fn sync(&self) -> io::Result<()> {
        #[cfg(target_vendor = "apple")]
        {
            let mut maps = guard(&self.maps);
            maps.retain(|map| map.strong_count() > 0);
            let live: Vec<_> = maps.iter().filter_map(Weak::upgrade).collect();
            drop(maps);
            live.iter().try_for_each(|map| map.sync())?;
        }
        os::sync_data(&self.file)
    }

    fn start_sync(&self, offset: u64, len: u64) -> io::Result<()> {
        os::start_sync(&self.file, offset, len)
    }

    fn map(&self, len: usize, write: bool) -> io::Result<Map> {
        let mapping = Arc::new(Mapping::new(&self.file, len, write)?);
        #[cfg(target_vendor = "apple")]
        if write {
            guard(&self.maps).push(Arc::downgrade(&mapping));
        }
        // SAFETY: the mapping is `len` bytes long and goes away only when `mapping`, its owner, is dropped;
        // `seal` takes bytes away only behind what remains inside the file.
        Ok(unsafe { Map::new(mapping.base, len, false, Box::new(mapping)) })
    }
}
