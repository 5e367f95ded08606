//! What a caller may choose when opening a store.

use crate::error::{Code, Error, Result};

/// When an acknowledged write is safe, and from what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncLevel {
    /// Survives the death of the process at once, power loss when the system writes it back.
    Os,
    /// As `Os`, plus a sync every `sync_interval_ms`.
    Interval,
    /// Survives power loss once acknowledged. Concurrent writers share one sync.
    Always,
}

/// How log files are read and appended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoPath {
    /// Mapped where the file system is known to reserve blocks, system calls elsewhere.
    Auto,
    /// `pread` and `pwrite` only: a disk error is an error code, never a signal.
    Syscall,
}

/// The choices, with their defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// Automatic compaction leaves a log of fewer bytes alone.
    pub compact_threshold: u64,
    /// A segment is rewritten once at least this share of it is garbage, 1 to 100.
    pub garbage_percent: u32,
    /// A segment is sealed before it grows beyond this, unless one record is larger.
    pub segment_size: u64,
    /// When an acknowledged write is safe.
    pub sync: SyncLevel,
    /// The longest time between two syncs under [`SyncLevel::Interval`], in milliseconds.
    pub sync_interval_ms: u64,
    /// How log files are read and appended to.
    pub io: IoPath,
    /// Whether a thread of the store compacts and syncs; without it, writes do slices of that work.
    pub background: bool,
    /// Create the database if there is none.
    pub create: bool,
    /// Fail if the database exists.
    pub exclusive: bool,
    /// Write nothing at all, share the database with other readers.
    pub read_only: bool,
    /// Verify the checksum of each record read.
    pub verify_reads: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            compact_threshold: 1 << 20,
            garbage_percent: 50,
            segment_size: 64 << 20,
            sync: SyncLevel::Os,
            sync_interval_ms: 1000,
            io: IoPath::Auto,
            background: true,
            create: true,
            exclusive: false,
            read_only: false,
            verify_reads: true,
        }
    }
}

/// The smallest segment size.
pub const MIN_SEGMENT_SIZE: u64 = 4 << 10;
/// The largest segment size.
pub const MAX_SEGMENT_SIZE: u64 = 4 << 30;

impl Options {
    /// Checks that the choices are in range and do not contradict each other.
    pub fn validate(&self) -> Result<()> {
        let complain = |what: &str| Err(Error::new(Code::Invalid, format!("options: {what}")));
        if !(1..=100).contains(&self.garbage_percent) {
            return complain("the garbage ratio must be 1 to 100 percent");
        }
        if !(MIN_SEGMENT_SIZE..=MAX_SEGMENT_SIZE).contains(&self.segment_size) {
            return complain("the segment size must be 4 KiB to 4 GiB");
        }
        if self.sync_interval_ms == 0 {
            return complain("the sync interval must be at least 1 ms");
        }
        if self.read_only && self.exclusive {
            return complain("read-only and error-if-exists exclude each other");
        }
        Ok(())
    }
}
