//! Storage over the operating system: a directory descriptor, plain files, `flock` and `mmap`.
//!
//! Every name is resolved relative to the descriptor of the directory, so that neither a `chdir` of the
//! host nor a rename of the directory makes the store meet other files than the ones it opened.

mod file;
mod mapping;
#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod os;
#[cfg(not(target_os = "linux"))]
#[path = "posix.rs"]
mod os;

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
use file::RealFile;
use mapping::Mapping;

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

#[cfg(test)]
mod tests;
