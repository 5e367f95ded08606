//! What macOS and its relatives do their own way; other systems get the plain POSIX part of it.

use super::*;

pub(super) const CLOCK: libc::clockid_t = libc::CLOCK_REALTIME;

/// APFS copies on write: preallocation does not promise that a store finds room.
pub(super) fn reserves_blocks(_dir: &fs::File) -> bool {
    false
}

#[cfg(target_vendor = "apple")]
pub(super) fn allocate(file: &fs::File, old: u64, len: u64) -> io::Result<()> {
    if len <= old {
        return Ok(());
    }
    let more = libc::off_t::try_from(len - old).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut store = libc::fstore_t {
        fst_flags: libc::F_ALLOCATEALL,
        fst_posmode: libc::F_PEOFPOSMODE,
        fst_offset: 0,
        fst_length: more,
        fst_bytesalloc: 0,
    };
    // SAFETY: an open descriptor and a writable struct that outlive the call.
    let result = retry(|| check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_PREALLOCATE, &raw mut store) }));
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTSUP | libc::EOPNOTSUPP | libc::ENOSYS)) => {
            return Err(io::ErrorKind::Unsupported.into());
        }
        result => result?,
    };
    retry(|| file.set_len(len))
}

#[cfg(not(target_vendor = "apple"))]
pub(super) fn allocate(_file: &fs::File, _old: u64, _len: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// `fsync` leaves the data in the drive's cache here.
#[cfg(target_vendor = "apple")]
pub(super) fn sync_data(file: &fs::File) -> io::Result<()> {
    // SAFETY: plain system call on an open descriptor.
    let full = retry(|| check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_FULLFSYNC) }));
    match full {
        // Network and foreign file systems do not know the command.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTSUP | libc::ENOTTY | libc::EINVAL)) => {
            // SAFETY: plain system call on an open descriptor.
            retry(|| check(unsafe { libc::fsync(file.as_raw_fd()) })).map(drop)
        }
        result => result.map(drop),
    }
}

#[cfg(not(target_vendor = "apple"))]
pub(super) fn sync_data(file: &fs::File) -> io::Result<()> {
    retry(|| file.sync_data())
}

pub(super) fn sync_dir(dir: &fs::File) -> io::Result<()> {
    nothing_to_sync(sync_data(dir))
}

pub(super) fn start_sync(_file: &fs::File, _offset: u64, _len: u64) -> io::Result<()> {
    Ok(())
}

/// Only Linux has a way to do this that does not risk a signal.
pub(super) fn populate(_mapping: &Mapping, _offset: usize, _len: usize) {}

pub(super) fn populate_to_read(_mapping: &Mapping, _offset: usize, _len: usize) {}

pub(super) fn forget_pages(_mapping: &Mapping, _offset: usize, _len: usize) {}

pub(super) fn clear_errno() {
    // SAFETY: errno of this thread, always valid.
    unsafe { *libc::__error() = 0 };
}
