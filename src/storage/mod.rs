//! The door to the operating system: the only module that touches files, maps, locks and clocks.
//!
//! The engine sees two small traits, [`Storage`] (one database directory) and [`File`], and a [`Map`].
//! `real` implements them over the OS; `sim` implements them in memory for the crash tests, which is
//! why nothing above this module may reach for `std::fs`.
//!
//! Contract of every implementation: a call interrupted by a signal is retried inside; an error leaves
//! the file as it was before the call or, for writes, with any prefix of the bytes written.

mod map;
pub(crate) mod real;
#[cfg(any(test, fuzzing))]
#[cfg_attr(fuzzing, allow(dead_code, unused_imports))]
pub(crate) mod sim;

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

pub(crate) use map::{Map, MapOwner};

/// One database directory. Names are plain file names inside it.
pub(crate) trait Storage: Any + Send + Sync {
    /// The names of all files in the directory, in no particular order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates a file for reading and writing; `AlreadyExists` if there is one.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file, for reading or for both.
    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn File>>;
    /// Renames a file over whatever has the new name, atomically. Durable after `sync_dir`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives a file of another directory the same name in this one too: from then on both are one file. An error where
    /// that cannot be, as between file systems. Durable after `sync_dir`.
    fn link_from(&self, source: &Arc<dyn Storage>, name: &str) -> io::Result<()>;
    /// Unlinks a file. Durable after `sync_dir`.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, links, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Takes the database lock, shared or exclusive, without waiting; `WouldBlock` if another handle,
    /// in this process or another, holds it in a way that conflicts. With `shared` nothing is written:
    /// where there is no lock file to lock, it succeeds without one.
    fn lock(&self, shared: bool) -> io::Result<()>;
    /// Releases the lock, also when a forked child still holds the descriptor.
    fn unlock(&self);
    /// Whether `allocate` really reserves blocks here, so that a store to a map cannot meet a full disk.
    fn reserves_blocks(&self) -> bool;
    /// The wall clock, nanoseconds since 1970. May be coarse, may go back.
    fn clock(&self) -> i64;
    /// Bytes of memory that the machine has; 0 if that is unknown.
    fn memory(&self) -> u64;
    /// Eight random bytes of the system, fit to seed a hash that must resist hostile keys.
    fn random(&self) -> io::Result<u64>;
}

/// One open file. Dropping it closes the descriptor, never the maps made from it.
pub(crate) trait File: Send + Sync {
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reads up to `buf.len()` bytes; fewer only at end of file or by a short read; 0 is end of file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes up to `buf.len()` bytes, extending the file where needed; may write fewer.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;
    /// Truncates, or extends with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves blocks for the first `len` bytes and extends the file to at least that, with zeros.
    /// `StorageFull`, `QuotaExceeded` or `FileTooLarge` where there is no room; the file is unchanged then.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Makes all bytes written so far, through the file or through a map of it, and the length durable.
    fn sync(&self) -> io::Result<()>;
    /// Has the bytes at `offset..offset + len` begin their way to the disk, so that a later `sync` takes less. It does not wait.
    /// After an error a `sync` that succeeds proves nothing, as after one that fails.
    fn start_sync(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
    /// Maps the first `len` bytes, shared. `len` may exceed the file's length: that reserves addresses,
    /// and bytes become accessible when the file grows to hold them.
    fn map(&self, len: usize, write: bool) -> io::Result<Map>;
}

/// Reads exactly `buf.len()` bytes; `UnexpectedEof` if the file ends before.
pub(crate) fn read_exact_at(file: &dyn File, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        let n = file.read_at(buf, offset)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buf = &mut buf[n..];
        offset += n as u64;
    }
    Ok(())
}

/// Writes all of `buf`. After an error a prefix may have been written.
pub(crate) fn write_all_at(file: &dyn File, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        let n = file.write_at(buf, offset)?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        buf = &buf[n..];
        offset += n as u64;
    }
    Ok(())
}

/// What is written at once, from a multiple of this on and as long as this, becomes one large page of the page cache, where there
/// are such. In large pages records are found faster, as more of the processor's page table is in its caches. In pages of 2 MiB they
/// would be found faster still; but so much in one piece is what a virtual machine gives back to its host, and to get it again takes
/// far longer than to use what is at hand.
pub(crate) const LARGE_PAGE: u64 = 512 << 10;

/// Writes so many zeros, in pieces.
pub(crate) fn write_zeros_at(file: &dyn File, offset: u64, len: u64) -> io::Result<()> {
    /// Atomic only in order not to be constant: constants take room in the library.
    static ZEROS: [AtomicU8; LARGE_PAGE as usize] = [const { AtomicU8::new(0) }; LARGE_PAGE as usize];
    // SAFETY: an `AtomicU8` is laid out as a `u8`, and nobody ever stores to these.
    let zeros = unsafe { std::slice::from_raw_parts(ZEROS.as_ptr().cast::<u8>(), ZEROS.len()) };
    let (mut at, end) = (offset, offset + len);
    while at < end {
        let piece = (LARGE_PAGE - at % LARGE_PAGE).min(end - at);
        write_all_at(file, &zeros[..piece as usize], at)?;
        at += piece;
    }
    Ok(())
}

/// Creates a file in place of one that may have the name.
pub(crate) fn create_anew(storage: &dyn Storage, name: &str) -> io::Result<Arc<dyn File>> {
    match storage.create(name) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            storage.remove(name)?;
            storage.create(name)
        }
        other => other,
    }
}
