//! What a store tells about itself.

/// Counters of an open store. All sizes are bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Keys stored.
    pub keys: u64,
    /// Records that a reader can reach, and the tombstones that are still needed.
    pub live_bytes: u64,
    /// Everything else in the log: what compaction can give back.
    pub dead_bytes: u64,
    /// The part of `live_bytes` that is tombstones.
    pub tombstone_bytes: u64,
    /// Bytes of all segments, preallocated space apart.
    pub log_bytes: u64,
    /// Segments that make up the log.
    pub segments: u64,
    /// Memory that the index takes.
    pub index_bytes: u64,
    /// Retired segments that a reader or a snapshot still holds on disk.
    pub pinned_bytes: u64,
    /// Snapshots open.
    pub snapshots: u64,
    /// Iterators that are alive.
    pub iterators: u64,
    /// Segments that compaction leaves alone because a record in them is unreadable.
    pub quarantined_segments: u64,
    /// Compactions finished since open.
    pub compactions: u64,
    /// Bytes that compaction wrote since open.
    pub compacted_bytes: u64,
    /// Syncs of log files since open.
    pub syncs: u64,
    /// Whether appends go through a mapping, rather than system calls.
    pub mapped: bool,
}

/// What opening found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryInfo {
    /// The database had been closed properly, or is new.
    pub clean: bool,
    /// Records read because no hint covered them.
    pub scanned_records: u64,
    /// Bytes scanned because no hint covered them.
    pub scanned_bytes: u64,
    /// Bytes of an incomplete tail that were cut away (read-only: passed over). None of them was synced.
    pub torn_bytes: u64,
    /// Whole segments behind the tear that were removed (read-only: passed over).
    pub removed_segments: u64,
    /// Records known to be synced that can no longer be read.
    pub damaged_records: u64,
    /// Files left over by an interrupted compaction or rotation and removed.
    pub orphan_files: u64,
    /// Hints that were missing or did not match their segment.
    pub rejected_hints: u64,
}
