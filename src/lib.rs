//! kvstore: an embedded, log-structured key-value store on the Bitcask model.
//!
//! Every write is appended to a log; an in-memory hash index maps each key to the position of its newest record, so a
//! read is one index probe and one access to the log. Compaction rewrites segments of the log, keeping only what is live.
//!
//! The modules, each using only those below it:
//!
//! | module | what it is |
//! |---|---|
//! | `ffi` | the C interface: the only place that sees a caller's raw pointers |
//! | [`engine`] | open, get, set, delete, sync, compact, close |
//! | `read`, `many`, `write`, `batch` | what a get and a set do, and several of them together |
//! | `proof`, `streak` | what a set leaves for later, and what it expects |
//! | `snapshot`, `iter` | the store as it was at one moment |
//! | `checkpoint` | a copy of the store as it is at one moment |
//! | `append`, `sync` | the end of the log; making it durable, once for all who wait |
//! | `maintenance`, `compact`, `seal`, `reserve` | the work that nobody waits for |
//! | `recovery`, `chain`, `load` | opening: what a crash left, and the index made from it |
//! | `verify`, `salvage`, `survey` | what is damaged; getting the rest out of it |
//! | `import` | reading the log of another engine |
//! | `window`, `unreadable` | reading files in pieces, and past what the disk cannot read |
//! | `index` | key hash -> position |
//! | `progress`, `report` | telling the caller how far long work has come, and what it found |
//! | `log` | the formats on disk: segment, record, hint, manifest |
//! | `storage` | the door to the operating system |

mod append;
mod batch;
mod brake;
mod buckets;
mod chain;
mod checkpoint;
mod compact;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
pub mod engine;
pub mod error;
mod ffi;
mod fork;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod import;
mod index;
mod iter;
mod load;
mod log;
mod maintenance;
mod many;
#[cfg(test)]
mod model_tests;
pub mod options;
mod prefetch;
pub mod progress;
mod proof;
mod read;
mod recovery;
pub mod report;
mod reserve;
mod retired;
mod salvage;
mod seal;
mod snapshot;
pub mod stats;
mod storage;
mod streak;
mod survey;
mod sync;
mod transient;
mod unreadable;
mod verify;
mod window;
mod write;

pub use batch::{Batch, MAX_BATCH_LEN};
pub use engine::Store;
pub use error::{Code, Error, Result};
pub use iter::{Iter, IterOptions};
pub use options::{IoPath, Options, SyncLevel};
pub use progress::Progress;
pub use read::ValueBuf;
pub use report::Report;
pub use salvage::salvage;
pub use snapshot::Snapshot;
pub use stats::{RecoveryInfo, Stats};
pub use verify::verify;

/// The longest key, in bytes.
pub const MAX_KEY_LEN: usize = 64 << 10;
/// The longest value, in bytes.
pub const MAX_VALUE_LEN: u64 = u32::MAX as u64;
