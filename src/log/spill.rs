//! Sorting the entries of a hint without having all of them in memory: those of a full segment of small records would take
//! more of it than a small index. They are distributed by the first bits of their hashes, and what does not fit into a buffer
//! waits in a file.

use std::io;
use std::sync::Arc;

use super::hint::{self, ENTRY_LEN, HintEntry, HintWriter};
use crate::storage::{File, Storage, create_anew, read_exact_at, write_all_at};
use crate::transient::reserve_apart;

const PARTS: usize = 1 << PART_BITS;
const PART_BITS: u32 = 3;
/// Bytes of a part that wait in memory. In tests as few as can be, so that all but the last come to the file.
const BUFFER_LEN: usize = if cfg!(test) { ENTRY_LEN } else { 16 << 10 };

/// Entries on their way into a hint, where there is no other hint that is worth anything: the file takes its name.
pub(crate) struct Spill<'a> {
    storage: &'a dyn Storage,
    /// The id and the identity of the segment.
    names: (u64, u64),
    /// It has the name of the hint, and loses it as soon as it is there: nothing is left after a crash but an empty hint, which
    /// is as good as none.
    file: Option<Arc<dyn File>>,
    end: u64,
    parts: [Part; PARTS],
    failure: Option<io::Error>,
}

#[derive(Default)]
struct Part {
    buffer: Vec<u8>,
    /// Where in the file the full buffers are that came before, and their checksums.
    blocks: Vec<(u64, u32)>,
}

impl Part {
    fn len(&self) -> usize {
        self.blocks.len() * BUFFER_LEN + self.buffer.len()
    }
}

impl<'a> Spill<'a> {
    /// Nothing yet, for the hint of the segment with this id and identity.
    pub(crate) fn new(storage: &'a dyn Storage, names: (u64, u64)) -> Spill<'a> {
        Spill { storage, names, file: None, end: 0, parts: Default::default(), failure: None }
    }

    /// How many entries there are.
    fn count(&self) -> u64 {
        self.parts.iter().map(|part| (part.len() / ENTRY_LEN) as u64).sum()
    }

    /// Should it fail, `write_hint` tells.
    pub(crate) fn push(&mut self, entry: HintEntry) {
        if self.failure.is_none() {
            self.failure = self.try_push(entry).err();
        }
    }

    fn try_push(&mut self, entry: HintEntry) -> io::Result<()> {
        let part = &mut self.parts[(entry.hash >> (u64::BITS - PART_BITS)) as usize];
        if part.buffer.len() == BUFFER_LEN {
            part.blocks.try_reserve(1)?;
            let file = nameless(&mut self.file, self.storage, &hint::name(self.names.0))?;
            write_all_at(file, &part.buffer, self.end)?;
            part.blocks.push((self.end, crc32c::crc32c(&part.buffer)));
            part.buffer.clear();
            self.end += BUFFER_LEN as u64;
        }
        part.buffer.try_reserve(ENTRY_LEN)?;
        part.buffer.extend(entry.encode());
        Ok(())
    }

    /// Writes the hint of the first `covered` bytes of the segment.
    pub(crate) fn write_hint(&mut self, covered: u64, seed: [u64; 2]) -> io::Result<()> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let mut hint = HintWriter::create(self.storage, self.names, covered, seed, self.count())?;
        let (mut entries, mut block) = (Vec::new(), Vec::new());
        block.try_reserve_exact(BUFFER_LEN)?;
        block.resize(BUFFER_LEN, 0);
        reserve_apart(&mut entries, self.end);
        for part in &self.parts {
            entries.clear();
            entries.try_reserve(part.len() / ENTRY_LEN)?;
            let mut take = |bytes: &[u8]| entries.extend(bytes.as_chunks().0.iter().map(HintEntry::decode));
            for &(at, crc) in &part.blocks {
                let file = self.file.as_deref().ok_or(io::ErrorKind::NotFound)?;
                read_exact_at(file, &mut block, at)?;
                if crc32c::crc32c(&block) != crc {
                    // The system could not bring it to the disk, say.
                    return Err(io::ErrorKind::InvalidData.into());
                }
                take(&block);
            }
            take(&part.buffer);
            hint::sort(&mut entries);
            entries.iter().try_for_each(|entry| hint.push(entry))?;
        }
        hint.finish()
    }
}

/// The file, which is made when it is needed first.
fn nameless<'f>(file: &'f mut Option<Arc<dyn File>>, storage: &dyn Storage, name: &str) -> io::Result<&'f dyn File> {
    if file.is_none() {
        let made = create_anew(storage, name)?;
        storage.remove(name)?;
        *file = Some(made);
    }
    file.as_deref().ok_or(io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::hint::HintReader;
    use crate::storage::sim::{PageMode, SimStorage};

    #[test]
    fn entries_come_out_in_order_and_no_other_file_is_left() {
        let disk = SimStorage::new(1, PageMode::Page);
        for count in [0, 1, 8 * PARTS as u64, 5000] {
            let random =
                |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            // Some hashes are there twice, and one part gets more than its share.
            let entry = |n: u64| {
                let hash = if n.is_multiple_of(7) { n } else { random(n / 2) };
                HintEntry::new(hash, 64 + n, 50 + n, n as i64, n.is_multiple_of(3))
            };
            let mut spill = Spill::new(&disk, (7, 8));
            (0..count).for_each(|n| spill.push(entry(n)));
            assert!(count < 5000 || spill.end > 4000 * ENTRY_LEN as u64);
            assert!(disk.files().is_empty());
            spill.write_hint(9, [1, 2]).unwrap();
            let mut expected: Vec<_> = (0..count).map(entry).collect();
            expected.sort_by_key(|entry| (entry.hash, entry.timestamp));
            let storage: Arc<dyn Storage> = Arc::new(disk.handle());
            let mut hint = HintReader::open(&storage, (7, 8), [1, 2]).unwrap();
            assert_eq!((hint.covered(), hint.unread()), (9, count));
            for entry in expected {
                assert_eq!(hint.peek().unwrap(), Some(entry));
                hint.advance();
            }
            assert!(hint.finish().unwrap());
            Storage::remove(&disk, &hint::name(7)).unwrap();
        }
    }
}
