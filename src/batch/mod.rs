//! Batches: several changes as one. In the log a batch is one frame, which a crash leaves whole or not at all; in the
//! index its keys change while all their shards are locked.

#[cfg(test)]
mod tests;
mod write;

use crate::error::{Code, Error, Result};
use crate::log::record::record_len;
use crate::write::too_large;
use crate::{MAX_KEY_LEN, MAX_VALUE_LEN};

/// The most bytes of log that a batch of several changes may take.
pub const MAX_BATCH_LEN: u64 = 1 << 30;
/// Operations are numbered in 32 bits. Changes come nowhere near, by their bytes of log; conditions could.
const MAX_OPERATIONS: usize = u32::MAX as usize;

/// Changes to be applied together, and conditions under which. Belongs to no store.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    operations: Vec<Operation>,
    changes: usize,
    /// Bytes that the records of the changes take in the log.
    log_bytes: u64,
}

/// The key and the value stand one behind the other among the bytes of the batch.
struct Operation {
    key_at: usize,
    value_len: u32,
    key_len: u32,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Set,
    Del,
    Require,
    RequireAbsent,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds the storing of a value under a key. A later change of the same key wins.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.push(Kind::Set, key, value)
    }

    /// Adds the removal of a key, which need not be there.
    pub fn del(&mut self, key: &[u8]) -> Result<()> {
        self.push(Kind::Del, key, &[])
    }

    /// Makes the batch depend on a key having this value before it.
    pub fn require(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.push(Kind::Require, key, value)
    }

    /// Makes the batch depend on a key not being stored before it.
    pub fn require_absent(&mut self, key: &[u8]) -> Result<()> {
        self.push(Kind::RequireAbsent, key, &[])
    }

    /// The number of changes.
    pub fn len(&self) -> usize {
        self.changes
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// Empties the batch, keeping its memory for the next use.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.operations.clear();
        (self.changes, self.log_bytes) = (0, 0);
    }

    /// Either adds the operation or leaves the batch as it was.
    fn push(&mut self, kind: Kind, key: &[u8], value: &[u8]) -> Result<()> {
        if key.len() > MAX_KEY_LEN || value.len() as u64 > MAX_VALUE_LEN {
            return Err(too_large(key.len(), value.len()));
        }
        let log_bytes = match kind {
            Kind::Set => record_len(key.len(), Some(value.len())),
            Kind::Del => record_len(key.len(), None),
            Kind::Require | Kind::RequireAbsent => 0,
        };
        if self.operations.len() == MAX_OPERATIONS {
            return Err(Error::new(
                Code::TooLarge,
                format!("the batch would take more than {MAX_OPERATIONS} operations"),
            ));
        }
        if self.changes > 0 && log_bytes > 0 && self.log_bytes + log_bytes > MAX_BATCH_LEN {
            let what = format!("the batch would take more than {MAX_BATCH_LEN} bytes of log");
            return Err(Error::new(Code::TooLarge, what));
        }
        let no_memory = |_| Error::no_memory("a batch");
        self.bytes.try_reserve(key.len() + value.len()).map_err(no_memory)?;
        self.operations.try_reserve(1).map_err(no_memory)?;
        let (key_at, key_len, value_len) = (self.bytes.len(), key.len() as u32, value.len() as u32);
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.operations.push(Operation { key_at, value_len, key_len, kind });
        self.changes += matches!(kind, Kind::Set | Kind::Del) as usize;
        self.log_bytes += log_bytes;
        Ok(())
    }

    fn only_deletes(&self) -> bool {
        !self.operations.iter().any(|operation| operation.kind == Kind::Set)
    }

    fn key(&self, operation: &Operation) -> &[u8] {
        &self.bytes[operation.key_at..operation.value_at()]
    }

    /// What a change stores, or a condition expects.
    fn value_bytes(&self, operation: &Operation) -> &[u8] {
        &self.bytes[operation.value_at()..][..operation.value_len as usize]
    }

    /// What a change stores; `None` if it deletes.
    fn value(&self, operation: &Operation) -> Option<&[u8]> {
        (operation.kind != Kind::Del).then(|| self.value_bytes(operation))
    }
}

impl Operation {
    #[inline]
    fn value_at(&self) -> usize {
        self.key_at + self.key_len as usize
    }

    /// Bytes that the record of a change takes in the log.
    #[inline]
    fn record_len(&self) -> u64 {
        let value_len = (self.kind != Kind::Del).then_some(self.value_len as usize);
        record_len(self.key_len as usize, value_len)
    }
}
