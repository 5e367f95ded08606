//! Storage over the operating system: a directory descriptor, plain files, `flock` and `mmap`.
//!
//! Every name is resolved relative to the descriptor of the directory, so that neither a `chdir` of the
//! host nor a rename of the directory makes the store meet other files than the ones it opened.

use std::any::Any;
use std::ffi::{CStr, CString, c_int};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::{self, NonNull};
#[cfg(target_vendor = "apple")]
use std::sync::Weak;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{File, Map, MapOwner, Storage};

/// The file that carries the database lock. Its content is for people.
const LOCK: &CStr = c"LOCK";

/// The most that one system call is asked to write: some kernels refuse or cut counts near 2 GiB.
const WRITE_BYTES_MAX: usize = 1 << 30;

/// One directory of a real file system.
pub(crate) struct RealStorage {
    dir: fs::File,
    /// The descriptor that holds the lock. Dropping it does not unlock: in a forked child, that would
    /// take the lock from the parent.
    lock: Mutex<Option<OwnedFd>>,
}

/// Makes a directory, and its name durable. `AlreadyExists` if there is one.
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    retry(|| fs::create_dir(path))?;
    sync_parent(path).inspect_err(|_| remove_dir(path))
}

/// Removes a directory if nothing is in it.
pub(crate) fn remove_dir(path: &Path) {
    let _ = fs::remove_dir(path);
}

/// Makes the name of an existing directory durable: whoever made it may have died before doing so.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    // Through "..", not by cutting the path: that is the parent also for "a/b/.." and for symbolic links.
    let parent = open_at(&open_dir(path)?, c"..", libc::O_RDONLY | libc::O_DIRECTORY)?;
    os::sync_dir(&parent.into())
}

/// Opens an existing file for reading, wherever it is.
pub(crate) fn open_file(path: &Path) -> io::Result<Arc<dyn File>> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    RealStorage::open(parent)?.open_file(&CString::new(name.as_bytes())?, libc::O_RDONLY)
}

/// Removes a directory and the files in it.
pub(crate) fn remove_with_files(path: &Path) -> io::Result<()> {
    let storage = RealStorage::open(path)?;
    storage.list()?.iter().try_for_each(|name| storage.remove(name))?;
    retry(|| fs::remove_dir(path))
}

impl RealStorage {
    /// Opens an existing directory.
    pub(crate) fn open(path: &Path) -> io::Result<RealStorage> {
        Ok(RealStorage { dir: open_dir(path)?, lock: Mutex::new(None) })
    }

    fn open_file(&self, name: &CStr, flags: c_int) -> io::Result<Arc<dyn File>> {
        let file = fs::File::from(open_at(&self.dir, name, flags)?);
        // A directory, a pipe or a device by the name of a segment is not ours to read.
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Arc::new(RealFile::new(file)))
    }
}

impl Storage for RealStorage {
    fn list(&self) -> io::Result<Vec<String>> {
        // A descriptor of its own: a duplicate would share the read position with other threads.
        let dir = open_at(&self.dir, c".", libc::O_RDONLY | libc::O_DIRECTORY)?;
        let mut entries = Entries::new(dir)?;
        let mut names = Vec::new();
        while let Some(name) = entries.next()? {
            // A name that is not UTF-8 is none of ours, but the directory is not empty either.
            let name = name.to_string_lossy();
            if name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.open_file(&c_name(name)?, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL)
    }

    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn File>> {
        self.open_file(&c_name(name)?, if write { libc::O_RDWR } else { libc::O_RDONLY })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to, dir) = (c_name(from)?, c_name(to)?, self.dir.as_raw_fd());
        // SAFETY: both names are NUL-terminated and outlive the call.
        retry(|| check(unsafe { libc::renameat(dir, from.as_ptr(), dir, to.as_ptr()) }))?;
        Ok(())
    }

    fn link_from(&self, source: &Arc<dyn Storage>, name: &str) -> io::Result<()> {
        let source = (&**source as &dyn Any).downcast_ref::<RealStorage>().ok_or(io::ErrorKind::Unsupported)?;
        let (from, to, name) = (source.dir.as_raw_fd(), self.dir.as_raw_fd(), c_name(name)?);
        // The name may be a symbolic link to a file elsewhere: what is wanted is the file.
        let follow = libc::AT_SYMLINK_FOLLOW;
        // SAFETY: the name is NUL-terminated and outlives the call.
        retry(|| check(unsafe { libc::linkat(from, name.as_ptr(), to, name.as_ptr(), follow) }))?;
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let name = c_name(name)?;
        // SAFETY: the name is NUL-terminated and outlives the call.
        retry(|| check(unsafe { libc::unlinkat(self.dir.as_raw_fd(), name.as_ptr(), 0) }))?;
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        os::sync_dir(&self.dir)
    }

    fn lock(&self, shared: bool) -> io::Result<()> {
        let mut held = guard(&self.lock);
        if held.is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let flags = if shared { libc::O_RDONLY } else { libc::O_RDWR | libc::O_CREAT };
        let fd = match open_at(&self.dir, LOCK, flags) {
            Err(error) if shared && error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let how = if shared { libc::LOCK_SH } else { libc::LOCK_EX };
        // SAFETY: plain system call on a descriptor that `fd` keeps open.
        retry(|| check(unsafe { libc::flock(fd.as_raw_fd(), how | libc::LOCK_NB) }))?;
        *held = Some(if shared { fd } else { note_pid(fd) });
        Ok(())
    }

    fn unlock(&self) {
        if let Some(fd) = guard(&self.lock).take() {
            // Closing alone would not do: a forked child may hold the same open file.
            // SAFETY: plain system call on a descriptor that `fd` keeps open.
            let _ = retry(|| check(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_UN) }));
        }
    }

    fn reserves_blocks(&self) -> bool {
        os::reserves_blocks(&self.dir)
    }

    fn clock(&self) -> i64 {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `now` is writable and outlives the call.
        unsafe { libc::clock_gettime(os::CLOCK, &mut now) };
        now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
    }

    fn memory(&self) -> u64 {
        // SAFETY: plain call of the C library.
        let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
        u64::try_from(pages).map_or(0, |pages| pages.saturating_mul(page_size() as u64))
    }

    fn random(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        // SAFETY: the pointer and the length are those of `bytes`.
        retry(|| check(unsafe { libc::getentropy(bytes.as_mut_ptr().cast(), bytes.len()) }))?;
        Ok(u64::from_ne_bytes(bytes))
    }
}

/// One open regular file.
struct RealFile {
    file: fs::File,
    /// The writable maps of this file: here a sync of the file does not cover them.
    #[cfg(target_vendor = "apple")]
    maps: Mutex<Vec<Weak<Mapping>>>,
}

impl RealFile {
    fn new(file: fs::File) -> RealFile {
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

/// Address space that shows a file.
struct Mapping {
    base: NonNull<u8>,
    /// How much is still mapped. Locked while pages change, so that none of it goes away meanwhile.
    len: Mutex<usize>,
}

// SAFETY: the struct itself never reads or writes the mapped bytes, and the system calls that it makes
// on the addresses may come from any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; `len` is behind a lock.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: &fs::File, len: usize, write: bool) -> io::Result<Mapping> {
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let access = if write { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: without MAP_FIXED the kernel chooses addresses that nothing else uses.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapping = Mapping { base, len: Mutex::new(len) };
        // Not for a map that is appended to: there, without read-ahead the page cache grows by single pages
        // instead of large ones, which was measured to make an append four times as slow.
        if !write {
            mapping.advise(0, len, libc::MADV_RANDOM);
        }
        Ok(mapping)
    }

    /// Gives the kernel a hint about whole pages, which start at `offset`.
    fn advise(&self, offset: usize, len: usize, advice: c_int) {
        // SAFETY: the callers stay inside the mapping, and none of the advice used changes its contents.
        unsafe { libc::madvise(self.base.as_ptr().add(offset).cast(), len, advice) };
    }

    #[cfg(target_vendor = "apple")]
    fn sync(&self) -> io::Result<()> {
        let len = guard(&self.len);
        // SAFETY: the lock keeps these `len` bytes mapped.
        retry(|| check(unsafe { libc::msync(self.base.as_ptr().cast(), *len, libc::MS_SYNC) }))?;
        Ok(())
    }
}

impl MapOwner for Arc<Mapping> {
    fn wrote(&self, _offset: usize, _len: usize) {}

    fn seal(&self, len: usize) {
        let mut mapped = guard(&self.len);
        let keep = len.next_multiple_of(page_size());
        // First unmap, then protect: then the protection is that of the whole mapping and splits nothing,
        // so it does not count against the kernel's limit of mappings.
        if keep < *mapped {
            // SAFETY: whole pages at the end of our own mapping; that nobody uses bytes behind `len`, which
            // are outside the file, is the contract of `Map`.
            if unsafe { libc::munmap(self.base.as_ptr().add(keep).cast(), *mapped - keep) } == 0 {
                *mapped = keep;
            }
        }
        let protect = keep.min(*mapped);
        if protect > 0 {
            os::forget_pages(self, 0, protect);
            // SAFETY: pages of our own mapping; a store to sealed bytes is a bug that this turns into a fault.
            unsafe { libc::mprotect(self.base.as_ptr().cast(), protect, libc::PROT_READ) };
            // From here on the bytes are only read, at random; should they leave the cache, a page at a time
            // is to come back.
            self.advise(0, protect, libc::MADV_RANDOM);
        }
    }

    fn populate(&self, offset: usize, len: usize) {
        let mapped = guard(&self.len);
        let end = offset.saturating_add(len).min(*mapped);
        let start = offset - offset % page_size();
        if start < end {
            os::populate(self, start, end - start);
        }
    }

    fn expect_sync(&self, offset: usize, len: usize) {
        let mapped = guard(&self.len);
        let start = offset.next_multiple_of(page_size());
        let end = offset.saturating_add(len).min(*mapped) / page_size() * page_size();
        if start < end {
            os::forget_pages(self, start, end - start);
        }
    }

    fn expect_reads(&self, len: usize) {
        let mapped = guard(&self.len);
        // A fault brings the pages around along, 16 of them as Linux is set up: to ask for one of each 16 takes half the
        // time of asking for all.
        let around = 16 * page_size();
        (0..len.min(*mapped)).step_by(around).for_each(|offset| os::populate_to_read(self, offset, page_size()));
    }

    fn read_ahead(&self, offset: usize, len: usize) {
        let mapped = guard(&self.len);
        let end = offset.saturating_add(len).min(*mapped);
        let start = offset - offset % page_size();
        if start < end {
            self.advise(start, end - start, libc::MADV_WILLNEED);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let len = *guard(&self.len);
        if len > 0 {
            // SAFETY: our own mapping; the `Map` that lent out its bytes is gone with its owner.
            unsafe { libc::munmap(self.base.as_ptr().cast(), len) };
        }
    }
}

/// The names in a directory, one by one.
struct Entries(NonNull<libc::DIR>);

impl Entries {
    fn new(dir: OwnedFd) -> io::Result<Entries> {
        // SAFETY: an open descriptor; the stream owns it from here on if the call succeeds.
        let stream = NonNull::new(unsafe { libc::fdopendir(dir.as_raw_fd()) }).ok_or_else(io::Error::last_os_error)?;
        let _ = dir.into_raw_fd();
        Ok(Entries(stream))
    }

    /// The next name, valid until the next call.
    fn next(&mut self) -> io::Result<Option<&CStr>> {
        // Only errno tells the end from a failure.
        os::clear_errno();
        // SAFETY: the stream is open, and `&mut self` keeps other threads away from it.
        let entry = unsafe { libc::readdir(self.0.as_ptr()) };
        if entry.is_null() {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(0) { Ok(None) } else { Err(error) };
        }
        // SAFETY: the entry stays valid until the next `readdir` of this stream, which needs `&mut self`; its
        // name is NUL-terminated. No reference to the whole entry: it may be shorter than its type.
        Ok(Some(unsafe { CStr::from_ptr((&raw const (*entry).d_name).cast()) }))
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        // SAFETY: the stream is open and not used again.
        unsafe { libc::closedir(self.0.as_ptr()) };
    }
}

/// Says in the lock file who holds the lock, for people. Nothing reads it, so failure does not matter.
fn note_pid(fd: OwnedFd) -> OwnedFd {
    let file = fs::File::from(fd);
    let pid = format!("{}\n", std::process::id());
    if file.set_len(0).is_ok() && file_size_limit() >= pid.len() as u64 {
        let _ = file.write_at(pid.as_bytes(), 0);
    }
    file.into()
}

fn open_dir(path: &Path) -> io::Result<fs::File> {
    retry(|| fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path))
}

fn open_at(dir: &fs::File, name: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    // O_NONBLOCK: a pipe by that name must not make us wait for its other end. Files ignore it.
    let flags = flags | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: the name is NUL-terminated and outlives the call; the mode is given as the C prototype wants it.
    let fd = retry(|| check(unsafe { libc::openat(dir.as_raw_fd(), name.as_ptr(), flags, 0o644 as libc::c_uint) }))?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn c_name(name: &str) -> io::Result<CString> {
    Ok(CString::new(name)?)
}

/// The size that a file of this process may have.
fn file_size_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable and outlives the call.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) } == 0;
    if known && limit.rlim_cur != libc::RLIM_INFINITY { limit.rlim_cur } else { u64::MAX }
}

fn page_size() -> usize {
    // SAFETY: no arguments but a constant; the page size is always known.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is never half changed, so a panic of another thread is no reason to stop.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The result of a system call that says -1 for failure.
fn check(result: c_int) -> io::Result<c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Repeats a call for as long as signals interrupt it.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// `EINVAL` is how file systems say that they have nothing to sync in a directory.
fn nothing_to_sync(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        result => result,
    }
}

/// What Linux does its own way.
#[cfg(target_os = "linux")]
mod os {
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
}

/// What macOS and its relatives do their own way; other systems get the plain POSIX part of it.
#[cfg(not(target_os = "linux"))]
mod os {
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

    /// Only Linux has a way to do this that does not risk a signal.
    pub(super) fn populate(_mapping: &Mapping, _offset: usize, _len: usize) {}

    pub(super) fn populate_to_read(_mapping: &Mapping, _offset: usize, _len: usize) {}

    pub(super) fn forget_pages(_mapping: &Mapping, _offset: usize, _len: usize) {}

    pub(super) fn clear_errno() {
        // SAFETY: errno of this thread, always valid.
        unsafe { *libc::__error() = 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{read_exact_at, write_all_at};

    fn storage() -> (tempfile::TempDir, RealStorage) {
        let dir = tempfile::tempdir().unwrap();
        let storage = RealStorage::open(dir.path()).unwrap();
        (dir, storage)
    }

    fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
        result.err().expect("an error").kind()
    }

    #[test]
    fn files_are_created_listed_renamed_and_removed() {
        let (_dir, s) = storage();
        assert_eq!(s.list().unwrap(), Vec::<String>::new());
        s.create("a").unwrap();
        assert_eq!(kind(s.create("a")), io::ErrorKind::AlreadyExists);
        s.create("b").unwrap();
        s.rename("a", "c").unwrap();
        s.sync_dir().unwrap();
        let mut names = s.list().unwrap();
        names.sort();
        assert_eq!(names, ["b", "c"]);
        assert_eq!(kind(s.open("a", false)), io::ErrorKind::NotFound);
        s.rename("b", "c").unwrap();
        s.remove("c").unwrap();
        assert_eq!(kind(s.remove("c")), io::ErrorKind::NotFound);
        assert_eq!(s.list().unwrap(), Vec::<String>::new());
        assert_eq!(kind(s.create("a\0b")), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_linked_file_is_one_file_with_two_names() {
        let ((_a, a), (_b, b)) = (storage(), storage());
        let a: Arc<dyn Storage> = Arc::new(a);
        write_all_at(&*a.create("f").unwrap(), b"one", 0).unwrap();
        b.link_from(&a, "f").unwrap();
        assert_eq!(kind(b.link_from(&a, "f")), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(b.link_from(&a, "g")), io::ErrorKind::NotFound);
        b.sync_dir().unwrap();
        a.remove("f").unwrap();
        let mut bytes = [0; 3];
        read_exact_at(&*b.open("f", false).unwrap(), &mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"one");
    }

    #[test]
    fn bytes_written_are_read_and_synced() {
        let (_dir, s) = storage();
        let f = s.create("f").unwrap();
        write_all_at(&*f, b"hello", 3).unwrap();
        assert_eq!(f.len().unwrap(), 8);
        let mut buf = [9; 8];
        read_exact_at(&*s.open("f", false).unwrap(), &mut buf, 0).unwrap();
        assert_eq!(&buf, b"\0\0\0hello");
        assert_eq!(f.read_at(&mut buf, 8).unwrap(), 0);
        assert_eq!(kind(read_exact_at(&*f, &mut buf, 1)), io::ErrorKind::UnexpectedEof);
        f.set_len(4).unwrap();
        f.set_len(6).unwrap();
        assert_eq!(f.read_at(&mut buf, 0).unwrap(), 6);
        assert_eq!(&buf[..6], b"\0\0\0h\0\0");
        f.sync().unwrap();
    }

    #[test]
    fn a_file_opened_for_reading_takes_no_writes() {
        let (_dir, s) = storage();
        s.create("f").unwrap().set_len(1).unwrap();
        let f = s.open("f", false).unwrap();
        assert!(f.write_at(b"x", 0).is_err());
        assert!(f.map(1, true).is_err());
    }

    #[test]
    fn what_is_not_a_regular_file_is_an_error_and_does_not_block() {
        let (dir, s) = storage();
        fs::create_dir(dir.path().join("d")).unwrap();
        let fifo = CString::new(dir.path().join("p").to_str().unwrap()).unwrap();
        // SAFETY: the path is NUL-terminated and outlives the call.
        assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
        assert_eq!(kind(s.open("d", false)), io::ErrorKind::InvalidInput);
        assert_eq!(kind(s.open("p", false)), io::ErrorKind::InvalidInput);
        assert!(RealStorage::open(&dir.path().join("p")).is_err());
    }

    #[test]
    fn a_renamed_directory_stays_ours() {
        let outer = tempfile::tempdir().unwrap();
        create_dir(&outer.path().join("a")).unwrap();
        assert_eq!(kind(create_dir(&outer.path().join("a"))), io::ErrorKind::AlreadyExists);
        sync_parent(&outer.path().join("a")).unwrap();
        let s = RealStorage::open(&outer.path().join("a")).unwrap();
        fs::rename(outer.path().join("a"), outer.path().join("b")).unwrap();
        s.create("f").unwrap();
        assert!(outer.path().join("b/f").exists());
        assert_eq!(s.list().unwrap(), ["f"]);
    }

    #[test]
    fn locks_conflict_between_handles_and_not_within_readers() {
        let (dir, a) = storage();
        let b = RealStorage::open(dir.path()).unwrap();
        a.lock(true).unwrap();
        assert_eq!(a.list().unwrap(), Vec::<String>::new(), "a reader must not write");
        a.unlock();

        a.lock(false).unwrap();
        let note = fs::read_to_string(dir.path().join("LOCK")).unwrap();
        assert_eq!(note.trim(), std::process::id().to_string());
        for shared in [false, true] {
            assert_eq!(kind(a.lock(shared)), io::ErrorKind::WouldBlock);
            assert_eq!(kind(b.lock(shared)), io::ErrorKind::WouldBlock);
        }
        a.unlock();
        a.lock(true).unwrap();
        b.lock(true).unwrap();
        b.unlock();
        assert_eq!(kind(b.lock(false)), io::ErrorKind::WouldBlock);
        a.unlock();
        b.lock(false).unwrap();
    }

    #[test]
    fn a_leftover_lock_file_blocks_nobody_and_unlock_beats_a_duplicate() {
        let (dir, a) = storage();
        fs::write(dir.path().join("LOCK"), "99999999 some long garbage").unwrap();
        a.lock(false).unwrap();
        // What a forked child keeps.
        let kept = guard(&a.lock).as_ref().unwrap().try_clone().unwrap();
        a.unlock();
        a.unlock();
        RealStorage::open(dir.path()).unwrap().lock(false).unwrap();
        drop(kept);
    }

    #[test]
    fn allocation_extends_with_zeros_and_never_shrinks() {
        let (_dir, s) = storage();
        let f = s.create("f").unwrap();
        write_all_at(&*f, b"x", 0).unwrap();
        match f.allocate(100_000) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => assert!(!s.reserves_blocks()),
            result => {
                result.unwrap();
                assert_eq!(f.len().unwrap(), 100_000);
                f.allocate(10).unwrap();
                f.allocate(0).unwrap();
                assert_eq!(f.len().unwrap(), 100_000);
                let mut tail = [1; 2];
                read_exact_at(&*f, &mut tail, 99_998).unwrap();
                assert_eq!(tail, [0, 0]);
                assert_eq!(kind(f.allocate(u64::MAX)), io::ErrorKind::FileTooLarge);
                assert_eq!(f.len().unwrap(), 100_000);
            }
        }
    }

    #[test]
    fn maps_grow_with_the_file_and_share_its_bytes() {
        let (_dir, s) = storage();
        let f = s.create("f").unwrap();
        let page = page_size();
        assert_eq!(kind(f.map(0, false)), io::ErrorKind::InvalidInput);
        let map = f.map(64 * page, true).unwrap();
        assert_eq!(map.len(), 64 * page);
        f.set_len(2 * page as u64).unwrap();
        map.populate(1, page);
        map.populate(60 * page, 100 * page);
        // SAFETY: inside the file, and nobody else touches the map.
        unsafe { map.write(page - 1, 3, |bytes| bytes.copy_from_slice(b"abc")).unwrap() };
        f.sync().unwrap();
        let mut buf = [0; 3];
        read_exact_at(&*f, &mut buf, page as u64 - 1).unwrap();
        assert_eq!(&buf, b"abc");
        f.set_len(5 * page as u64).unwrap();
        write_all_at(&*f, b"z", 4 * page as u64).unwrap();
        drop(f);
        // SAFETY: inside the file, and nobody stores.
        unsafe { assert_eq!(map.bytes(4 * page, 2).unwrap(), b"z\0") };
    }

    #[test]
    fn a_sealed_map_reads_on_and_gives_back_its_tail() {
        let (_dir, s) = storage();
        let f = s.create("f").unwrap();
        let page = page_size();
        f.set_len(3 * page as u64).unwrap();
        let map = f.map(1 << 30, true).unwrap();
        write_all_at(&*f, b"end", page as u64).unwrap();
        map.seal(page + 3);
        f.set_len(page as u64 + 3).unwrap();
        map.populate(0, 1 << 30);
        map.seal(page + 3);
        map.expect_reads(page + 3);
        map.expect_reads(1 << 30);
        // SAFETY: inside the file, and nobody stores.
        unsafe { assert_eq!(map.bytes(page, 3).unwrap(), b"end") };
        drop(map);
        let map = f.map(page, false).unwrap();
        map.seal(0);
        drop(map);
    }

    #[test]
    fn clock_and_random_work() {
        let (_dir, s) = storage();
        assert!(s.clock() > 1_600_000_000_000_000_000);
        assert_ne!(s.random().unwrap(), s.random().unwrap());
    }

    #[test]
    fn descriptors_are_not_inherited() {
        let (_dir, s) = storage();
        s.lock(false).unwrap();
        // SAFETY: plain system calls on descriptors that are open.
        let flags = |fd: c_int| unsafe { libc::fcntl(fd, libc::F_GETFD) };
        assert_eq!(flags(s.dir.as_raw_fd()), libc::FD_CLOEXEC);
        assert_eq!(flags(guard(&s.lock).as_ref().unwrap().as_raw_fd()), libc::FD_CLOEXEC);
        let f = open_at(&s.dir, c"f", libc::O_RDWR | libc::O_CREAT).unwrap();
        assert_eq!(flags(f.as_raw_fd()), libc::FD_CLOEXEC);
    }

    /// The limit holds for a whole process and exceeding it kills, so this runs itself in a process of its own.
    #[test]
    fn the_file_size_limit_is_an_error_not_a_signal() {
        const CHILD: &str = "KVSTORE_TEST_FILE_SIZE_LIMIT";
        if std::env::var_os(CHILD).is_none() {
            let name = format!("{}::the_file_size_limit_is_an_error_not_a_signal", module_path!());
            let name = name.split_once("::").unwrap().1;
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            let output = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
            assert!(output.status.success(), "{output:?}");
            assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
            return;
        }
        let set = |bytes| {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: `limit` is writable and outlives the calls.
            unsafe {
                assert_eq!(libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit), 0);
                limit.rlim_cur = bytes;
                assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
            }
        };
        let (dir, s) = storage();
        let long = s.create("long").unwrap();
        long.set_len(8192).unwrap();
        drop(long);
        set(4096);
        let f = s.create("f").unwrap();
        assert_eq!(kind(f.allocate(4097)), io::ErrorKind::FileTooLarge);
        assert_eq!(kind(f.set_len(4097)), io::ErrorKind::FileTooLarge);
        assert_eq!(kind(f.write_at(b"xy", 4095)), io::ErrorKind::FileTooLarge);
        assert_eq!(f.len().unwrap(), 0);
        write_all_at(&*f, b"x", 4095).unwrap();
        // A file that is longer than the limit from before may be cut, but not written behind the limit.
        let long = s.open("long", true).unwrap();
        assert_eq!(kind(long.write_at(b"x", 5000)), io::ErrorKind::FileTooLarge);
        long.set_len(6000).unwrap();
        write_all_at(&*long, b"x", 4000).unwrap();
        set(0);
        s.lock(false).unwrap();
        assert_eq!(fs::read(dir.path().join("LOCK")).unwrap(), b"");
        set(libc::RLIM_INFINITY);
    }
}
