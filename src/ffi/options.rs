//! Options: what can be chosen when a database is opened.

use super::error::kv_status;
use super::guard::{guard, invalid, object_mut, preserve_errno, try_box};
use crate::error::Result;
use crate::options::{IoPath, Options, SyncLevel};

/// The choices for one or more calls of kv_open(), all at their defaults at first.
///
/// Made by kv_options_new(), given back with kv_options_free(). Not kept by kv_open(), so it may be
/// changed, used again or freed right after. Must not be changed by one thread while another uses
/// it.
pub struct kv_options(pub(super) Options);

/// The options of kv_options_set(), with the values that each takes. The numbers are stable for
/// ever.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum kv_option {
    /// Bytes of log below which automatic compaction does nothing. Default 1048576 (1 MiB).
    KV_OPT_COMPACT_THRESHOLD = 1,
    /// How many percent of a segment must be garbage before automatic compaction rewrites it, 1 to 100.
    /// Default 50.
    KV_OPT_GARBAGE_RATIO = 2,
    /// Bytes that a log file grows to before the next one is begun, 4096 (4 KiB) to 4294967296 (4 GiB);
    /// a larger record still fits. Default 67108864 (64 MiB).
    KV_OPT_SEGMENT_SIZE = 3,
    /// When an acknowledged write is safe, and from what: a value of kv_sync_level. Default KV_SYNC_OS.
    KV_OPT_SYNC = 4,
    /// Milliseconds between two syncs under KV_SYNC_INTERVAL, at least 1. Default 1000.
    KV_OPT_SYNC_INTERVAL_MS = 5,
    /// How log files are read and written: a value of kv_io_path. Default KV_IO_AUTO.
    KV_OPT_IO = 6,
    /// 1: a thread of the library's own compacts and syncs, and one gets the next part of the log ready
    /// for writers; another helps while large files are deleted, and up to three while kv_open() opens a
    /// large database. 0: there is no thread; kv_set() and the other writing functions do small slices of
    /// that work, and kv_maintain() does it when the program has time. Default 1.
    KV_OPT_BACKGROUND = 7,
    /// 1: create the database if there is none. 0: that is KV_ERR_NOT_A_DATABASE. Default 1.
    KV_OPT_CREATE_IF_MISSING = 8,
    /// 1: an existing database is KV_ERR_EXISTS. Default 0.
    KV_OPT_ERROR_IF_EXISTS = 9,
    /// 1: open for reading only. Nothing at all is written to the directory, and other readers may have
    /// the database open at the same time, but no writer. Never creates a database; cannot be combined
    /// with KV_OPT_ERROR_IF_EXISTS. Default 0.
    KV_OPT_READ_ONLY = 10,
    /// 1: verify the checksum of every record that is read, and report damage as KV_ERR_CORRUPT. 0:
    /// trust the disk. Default 1.
    KV_OPT_VERIFY_READS = 11,
}

/// The values of KV_OPT_SYNC.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum kv_sync_level {
    /// An acknowledged write survives the death of the process. It survives power loss once the
    /// operating system has written it back, or after kv_sync().
    KV_SYNC_OS = 0,
    /// As KV_SYNC_OS, and everything is synced every KV_OPT_SYNC_INTERVAL_MS.
    KV_SYNC_INTERVAL = 1,
    /// An acknowledged write survives power loss. Threads that write at the same time share one sync.
    KV_SYNC_ALWAYS = 2,
}

/// The values of KV_OPT_IO.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum kv_io_path {
    /// Map log files into memory where the file system is known to be fit for it, use system calls
    /// elsewhere. A disk that fails to read a mapped page, or somebody else who truncates the file,
    /// raises SIGBUS.
    KV_IO_AUTO = 0,
    /// System calls only: a failing disk is an error code. Slower.
    KV_IO_SYSCALL = 1,
}

/// New options, all at their defaults. To be freed with kv_options_free(). NULL if memory is
/// exhausted. May be called from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn kv_options_new() -> *mut kv_options {
    preserve_errno(|| try_box(kv_options(Options::default()), "options").map_or(std::ptr::null_mut(), Box::into_raw))
}

/// Sets one option, which is a value of kv_option. On an error the options stay as they were.
///
/// @return
/// - KV_OK
/// - KV_ERR_INVALID: `options` is NULL, there is no such option, or it does not take such a value.
/// - KV_ERR_INTERNAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_options_set(options: *mut kv_options, option: i32, value: u64) -> i32 {
    guard(|| {
        // SAFETY: NULL or made by kv_options_new, and not used by another thread, says the header.
        let options = unsafe { object_mut(options, "options") }?;
        // On its own first, among defaults that go with everything: this checks the value, kv_open the combination.
        let mut alone = Options::default();
        apply(&mut alone, option, value)?;
        alone.validate()?;
        apply(&mut options.0, option, value)?;
        Ok(kv_status::KV_OK)
    })
}

/// Frees options. NULL is fine. They must not be used afterwards; stores opened with them are not
/// affected.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_options_free(options: *mut kv_options) {
    if !options.is_null() {
        // SAFETY: made by kv_options_new out of a Box, and not used afterwards, says the header.
        preserve_errno(|| drop(unsafe { Box::from_raw(options) }));
    }
}

/// Sets what C names by a number.
fn apply(options: &mut Options, option: i32, value: u64) -> Result<()> {
    use kv_option::*;
    const ALL: [kv_option; 11] = [
        KV_OPT_COMPACT_THRESHOLD,
        KV_OPT_GARBAGE_RATIO,
        KV_OPT_SEGMENT_SIZE,
        KV_OPT_SYNC,
        KV_OPT_SYNC_INTERVAL_MS,
        KV_OPT_IO,
        KV_OPT_BACKGROUND,
        KV_OPT_CREATE_IF_MISSING,
        KV_OPT_ERROR_IF_EXISTS,
        KV_OPT_READ_ONLY,
        KV_OPT_VERIFY_READS,
    ];
    let Some(option) = ALL.into_iter().find(|known| *known as i32 == option) else {
        return Err(invalid(format!("there is no option {option}")));
    };
    let out_of_range = || invalid(format!("{option:?} does not take the value {value}"));
    let flag = || match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(out_of_range()),
    };
    match option {
        KV_OPT_COMPACT_THRESHOLD => options.compact_threshold = value,
        KV_OPT_GARBAGE_RATIO => options.garbage_percent = value.try_into().map_err(|_| out_of_range())?,
        KV_OPT_SEGMENT_SIZE => options.segment_size = value,
        KV_OPT_SYNC => options.sync = sync_level(value).ok_or_else(out_of_range)?,
        KV_OPT_SYNC_INTERVAL_MS => options.sync_interval_ms = value,
        KV_OPT_IO => options.io = io_path(value).ok_or_else(out_of_range)?,
        KV_OPT_BACKGROUND => options.background = flag()?,
        KV_OPT_CREATE_IF_MISSING => options.create = flag()?,
        KV_OPT_ERROR_IF_EXISTS => options.exclusive = flag()?,
        KV_OPT_READ_ONLY => options.read_only = flag()?,
        KV_OPT_VERIFY_READS => options.verify_reads = flag()?,
    }
    Ok(())
}

fn sync_level(value: u64) -> Option<SyncLevel> {
    use kv_sync_level::*;
    let known =
        [(KV_SYNC_OS, SyncLevel::Os), (KV_SYNC_INTERVAL, SyncLevel::Interval), (KV_SYNC_ALWAYS, SyncLevel::Always)];
    known.into_iter().find(|(number, _)| *number as u64 == value).map(|(_, level)| level)
}

fn io_path(value: u64) -> Option<IoPath> {
    use kv_io_path::*;
    let known = [(KV_IO_AUTO, IoPath::Auto), (KV_IO_SYSCALL, IoPath::Syscall)];
    known.into_iter().find(|(number, _)| *number as u64 == value).map(|(_, path)| path)
}
