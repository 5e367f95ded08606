//! What Linux does its own way.

use super::*;

/// A clock of a few milliseconds' resolution, read without entering the kernel: order is not its job.
pub(super) const CLOCK: libc::clockid_t = libc::CLOCK_REALTIME_COARSE;

/// `MADV_POPULATE_READ` and `MADV_POPULATE_WRITE`, since Linux 5.14.
const POPULATE_READ: c_int = 22;
const POPULATE_WRITE: c_int = 23;

/// The file systems on which a store to an allocated page was found never to meet a full disk.
pub(super) fn reserves_blocks(dir: &fs::File) -> bool {
    // SAFETY: all zeros is a value of this plain C struct.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor and a writable struct that outlive the call.
    if retry(|| check(unsafe { libc::fstatfs(dir.as_raw_fd(), &mut stat) })).is_err() {
        return false;
    }
    // ext2, 3 and 4 share one number; where they cannot allocate, `allocate` says so.
    const EXT: u64 = 0xef53;
    const XFS: u64 = 0x5846_5342;
    const TMPFS: u64 = 0x0102_1994;
    matches!(stat.f_type as u64, EXT | XFS | TMPFS)
}

/// Not `posix_fallocate`: where the file system cannot, that writes to every block.
pub(super) fn allocate(file: &fs::File, _old: u64, len: u64) -> io::Result<()> {
    let len = libc::off_t::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
    if len == 0 {
        return Ok(());
    }
    // SAFETY: plain system call on an open descriptor.
    let result = retry(|| check(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) }));
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
            Err(io::ErrorKind::Unsupported.into())
        }
        result => result.map(drop),
    }
}

/// Covers what was stored through maps, too: the kernel notes dirty pages by file.
pub(super) fn sync_data(file: &fs::File) -> io::Result<()> {
    retry(|| file.sync_data())
}

/// Only what finds no blocks fails here, or what cannot be done at all; errors of the disk are kept by the kernel for the next
/// sync. A length of 0 would mean all that follows.
pub(super) fn start_sync(file: &fs::File, offset: u64, len: u64) -> io::Result<()> {
    let (Ok(offset), Ok(len)) = (libc::off64_t::try_from(offset), libc::off64_t::try_from(len)) else { return Ok(()) };
    if len == 0 {
        return Ok(());
    }
    // SAFETY: plain system call on an open descriptor.
    let started = check(unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) });
    match started {
        Err(e) if !matches!(e.raw_os_error(), Some(libc::EIO | libc::ENOSPC | libc::EDQUOT)) => Ok(()),
        started => started.map(drop),
    }
}

pub(super) fn sync_dir(dir: &fs::File) -> io::Result<()> {
    nothing_to_sync(retry(|| dir.sync_all()))
}

pub(super) fn populate(mapping: &Mapping, offset: usize, len: usize) {
    mapping.advise(offset, len, POPULATE_WRITE);
}

pub(super) fn populate_to_read(mapping: &Mapping, offset: usize, len: usize) {
    mapping.advise(offset, len, POPULATE_READ);
}

/// Takes all pages out of the page table. A sync takes the right to store to it away from each page that has been
/// stored to, and for each it interrupts all processors; from pages that are not there it need not be taken. What is
/// read later comes back from the page cache.
pub(super) fn forget_pages(mapping: &Mapping, offset: usize, len: usize) {
    mapping.advise(offset, len, libc::MADV_DONTNEED);
}

pub(super) fn clear_errno() {
    // SAFETY: errno of this thread, always valid.
    unsafe { *libc::__errno_location() = 0 };
}
