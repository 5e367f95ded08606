//! Writing: stamp, append, point the index at it. One writer at a time, so that log and index agree on the order.

use crate::append::Appender;
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::index::KeyHash;
use crate::log::record::{DataFileEntry, record_len};
use crate::options::SyncLevel;
use crate::read::Entry;
use crate::sync::poisoned;
use crate::{MAX_KEY_LEN, MAX_VALUE_LEN};

/// Records up to this are copied to the log while the shard is locked: locking it twice would cost more.
const COPY_UNDER_LOCK: u64 = 4 << 10;

/// What a write has done, and what it leaves to do.
pub(crate) struct Written {
    /// The key was stored before.
    existed: bool,
    /// How far the log has been written.
    appended: u64,
    /// Garbage made since open.
    pub garbage_before: u64,
    pub garbage: u64,
    /// Segments waiting to be synced and sealed.
    pub backlog_before: usize,
    pub backlog: usize,
}

impl Engine {
    /// Stores a value under a key.
    pub(crate) fn set(&self, key: &[u8], value: &[u8]) -> Result<()> {
        if key.len() > MAX_KEY_LEN || value.len() as u64 > MAX_VALUE_LEN {
            return Err(too_large(key.len(), value.len()));
        }
        self.write(key, Some(value)).map(drop)
    }

    /// Removes a key. False if it was not there; then nothing is written.
    pub(crate) fn del(&self, key: &[u8]) -> Result<bool> {
        if key.len() > MAX_KEY_LEN {
            return Err(too_large(key.len(), 0));
        }
        self.write(key, None)
    }

    /// Appends a record, or a tombstone if there is something to delete. Returns whether the key was stored before.
    fn write(&self, key: &[u8], value: Option<&[u8]>) -> Result<bool> {
        if self.options.read_only {
            return Err(Error::new(Code::ReadOnly, "the store was opened for reading only"));
        }
        if self.commit.poisoned() {
            return Err(poisoned());
        }
        let hash = self.hash(key);
        // Most of the work, and any waiting for a cold page, before the lock that all writers share.
        let found = self.locate(key, hash)?;
        if value.is_none() && found.1.is_none() {
            return Ok(false);
        }
        self.maintenance.slow_down(self);
        let written = self.append_and_index(key, value, hash, found);
        let done = match written {
            Err(e) if e.code() == Code::NoSpace && self.make_room(value.is_none()) => {
                self.append_and_index(key, value, hash, self.locate(key, hash)?)?
            }
            other => other?,
        };
        if self.options.sync == SyncLevel::Always {
            self.sync_to(done.appended)?;
        }
        self.maintenance.after_write(self, &done);
        Ok(done.existed)
    }

    /// Writes under the append lock.
    fn append_and_index(
        &self,
        key: &[u8],
        value: Option<&[u8]>,
        hash: KeyHash,
        found: (u64, Option<Entry>),
    ) -> Result<Written> {
        let mut appender = self.appender()?;
        let (garbage_before, backlog_before) = (appender.garbage, appender.backlog());
        let existed = self.write_locked(&mut appender, key, value, hash, found)?.is_some();
        let (appended, garbage, backlog) = (appender.appended, appender.garbage, appender.backlog());
        Ok(Written { existed, appended, garbage_before, garbage, backlog_before, backlog })
    }

    /// Under the append lock. Nothing has changed unless it succeeds. Returns the entry that was replaced.
    fn write_locked(
        &self,
        appender: &mut Appender,
        key: &[u8],
        value: Option<&[u8]>,
        hash: KeyHash,
        (version, found): (u64, Option<Entry>),
    ) -> Result<Option<Entry>> {
        let len = record_len(key.len(), value.map(<[u8]>::len));
        let entry = DataFileEntry { timestamp: appender.next_timestamp()?, key, value };
        appender.prepare(len, value.is_none(), &self.index)?;
        let mut shard = self.index.write(hash)?;
        let old = if shard.version() == version { found } else { self.find(&shard, key, hash)? };
        if value.is_none() && old.is_none() {
            return Ok(None);
        }
        shard.reserve(hash)?;
        let position = if len <= COPY_UNDER_LOCK {
            appender.append(&entry, len)?
        } else {
            // Readers must not wait for a long copy. The entry stays as it is meanwhile: whoever changes
            // the index holds the append lock.
            drop(shard);
            let position = appender.append(&entry, len)?;
            shard = self.index.write(hash)?;
            position
        };
        if let Some(old) = old {
            shard.segment(old.position)?.add_dead(old.len);
            appender.garbage += old.len;
        }
        match (value, old) {
            (Some(_), None) => shard.insert(hash, position),
            (Some(_), Some(old)) => drop(shard.replace(hash, old.position, position)),
            (None, Some(old)) => drop(shard.remove(hash, old.position)),
            (None, None) => {}
        }
        if value.is_none() {
            shard.segment(position)?.add_tombstone(len);
        }
        Ok(old)
    }
}

#[cold]
fn too_large(key_len: usize, value_len: usize) -> Error {
    let what = format!(
        "a key of {key_len} and a value of {value_len} bytes: at most {MAX_KEY_LEN} and {MAX_VALUE_LEN} are possible"
    );
    Error::new(Code::TooLarge, what)
}
