//! MANIFEST: which segments make up the database. Replaced as a whole, atomically.
//!
//! Layout: the wincode serialization (fixed-width little-endian integers, u64 counts) of [`Layout`],
//! then its CRC32C as u32 LE. Segments of the log are listed in log order.

use std::sync::Arc;

use wincode::config::Configuration;
use wincode::{SchemaRead, SchemaWrite};

use super::header::Role;
use crate::error::{Code, Error, Result};
use crate::storage::{File, Storage, create_anew, read_exact_at, write_all_at};

/// The manifest's file name.
pub(crate) const NAME: &str = "MANIFEST";
/// Where a new manifest is written before it takes the name.
pub(crate) const TEMP_NAME: &str = "MANIFEST.tmp";

const MAGIC: [u8; 8] = *b"kvmanif\n";
const VERSION: u32 = 1;

/// What the manifest says of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentEntry {
    pub id: u64,
    pub identity: u64,
    pub role: Role,
    /// No byte of it will ever change again.
    pub sealed: bool,
    /// So many of its bytes are known to be synced: all of them if it is sealed.
    pub synced_len: u64,
    /// The least timestamp of its records, `i64::MAX` if there is none.
    pub min_timestamp: i64,
}

/// The manifest's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Counts the replacements.
    pub generation: u64,
    /// The key of the hash that places keys in the index and in hints.
    pub hash_seed: [u64; 2],
    /// No segment with this id or a larger one had been created when the manifest was written, but for
    /// the tail of the log.
    pub next_id: u64,
    /// No record had a larger timestamp when the manifest was written.
    pub last_timestamp: i64,
    pub segments: Vec<SegmentEntry>,
}

#[derive(SchemaRead, SchemaWrite)]
struct Layout {
    magic: [u8; 8],
    version: u32,
    generation: u64,
    hash_seed: [u64; 2],
    next_id: u64,
    last_timestamp: i64,
    segments: Vec<EntryLayout>,
}

#[derive(SchemaRead, SchemaWrite)]
struct EntryLayout {
    id: u64,
    identity: u64,
    role: u8,
    sealed: u8,
    synced_len: u64,
    min_timestamp: i64,
}

impl Manifest {
    /// Reads the manifest; `None` if there is no file of that name.
    pub(crate) fn read(storage: &dyn Storage) -> Result<Option<Manifest>> {
        let os = |e: &std::io::Error| Error::os(format_args!("read {NAME}"), e);
        let file = match storage.open(NAME, false) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| os(&e))?,
        };
        let len = file.len().map_err(|e| os(&e))?;
        let mut bytes = Vec::new();
        let size = usize::try_from(len).map_err(|_| Error::no_memory(NAME))?;
        bytes.try_reserve_exact(size).map_err(|_| Error::no_memory(NAME))?;
        bytes.resize(size, 0);
        read_exact_at(&*file, &mut bytes, 0).map_err(|e| os(&e))?;
        Manifest::decode(&bytes).map(Some)
    }

    /// Writes the manifest under its temporary name, from where it is to be synced, renamed, and its name synced.
    pub(crate) fn write_temp(&self, storage: &dyn Storage) -> std::io::Result<Arc<dyn File>> {
        self.write_as(storage, TEMP_NAME)
    }

    /// Writes the manifest under another name than its own.
    pub(crate) fn write_as(&self, storage: &dyn Storage, name: &str) -> std::io::Result<Arc<dyn File>> {
        let file = create_anew(storage, name)?;
        write_all_at(&*file, &self.encode()?, 0)?;
        Ok(file)
    }

    fn encode(&self) -> std::io::Result<Vec<u8>> {
        let entry = |s: &SegmentEntry| EntryLayout {
            id: s.id,
            identity: s.identity,
            role: (s.role == Role::Output) as u8,
            sealed: s.sealed as u8,
            synced_len: s.synced_len,
            min_timestamp: s.min_timestamp,
        };
        let layout = Layout {
            magic: MAGIC,
            version: VERSION,
            generation: self.generation,
            hash_seed: self.hash_seed,
            next_id: self.next_id,
            last_timestamp: self.last_timestamp,
            segments: self.segments.iter().map(entry).collect(),
        };
        let config = Configuration::default().disable_preallocation_size_limit();
        let mut bytes = wincode::config::serialize(&layout, config).map_err(std::io::Error::other)?;
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_le_bytes());
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Manifest> {
        let damaged = |what: &str| Error::corrupt(NAME, 0, what);
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(|| damaged("too short"))?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(damaged("checksum mismatch"));
        }
        let unknown = || Error::new(Code::Format, format!("{NAME}: a format that this version does not know"));
        if !body.starts_with(&MAGIC) || body.get(8..12) != Some(&VERSION.to_le_bytes()) {
            return Err(unknown());
        }
        let config = Configuration::default().disable_preallocation_size_limit();
        let layout: Layout = wincode::config::deserialize_exact(body, config).map_err(|_| unknown())?;
        let mut segments = Vec::with_capacity(layout.segments.len());
        for s in &layout.segments {
            if s.role > 1 || s.sealed > 1 {
                return Err(unknown());
            }
            segments.push(SegmentEntry {
                id: s.id,
                identity: s.identity,
                role: if s.role == 1 { Role::Output } else { Role::Log },
                sealed: s.sealed == 1,
                synced_len: s.synced_len,
                min_timestamp: s.min_timestamp,
            });
        }
        Ok(Manifest {
            generation: layout.generation,
            hash_seed: layout.hash_seed,
            next_id: layout.next_id,
            last_timestamp: layout.last_timestamp,
            segments,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let entry = |id, role, sealed| SegmentEntry {
            id,
            identity: id * 77,
            role,
            sealed,
            synced_len: 64 + id,
            min_timestamp: -3,
        };
        Manifest {
            generation: 5,
            hash_seed: [1, 2],
            next_id: 10,
            last_timestamp: 1234,
            segments: vec![entry(3, Role::Log, true), entry(9, Role::Output, true), entry(4, Role::Log, false)],
        }
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        assert_eq!(Manifest::decode(&manifest().encode().unwrap()).unwrap(), manifest());
    }

    #[test]
    fn each_flipped_bit_and_each_cut_is_corruption() {
        let good = manifest().encode().unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Manifest::decode(&bad).unwrap_err().code(), Code::Corrupt);
        }
        for len in 0..good.len() {
            assert_eq!(Manifest::decode(&good[..len]).unwrap_err().code(), Code::Corrupt);
        }
    }

    #[test]
    fn an_intact_manifest_of_another_version_is_a_format_error() {
        let mut newer = manifest().encode().unwrap();
        newer[8] = 9;
        let body = newer.len() - 4;
        let crc = crc32c::crc32c(&newer[..body]);
        newer[body..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Manifest::decode(&newer).unwrap_err().code(), Code::Format);
    }
}
