//! Loading gives the same index however the work is divided, and finds what is rotten.

use std::collections::BTreeMap;

use super::*;
use crate::engine::hash_key;
use crate::log::header::{HEADER_LEN, Header, LogEnd};
use crate::log::manifest::Manifest;
use crate::log::record::Head;
use crate::log::segment::{FileCache, SegmentIo, State};
use crate::storage::Storage;
use crate::storage::sim::{PageMode, SimStorage};
use crate::{Options, Store};

type Model = BTreeMap<Vec<u8>, bool>;

/// A closed database of several segments with overwrites and tombstones, and which of the keys are stored.
fn closed() -> (SimStorage, Model) {
    let sim = SimStorage::new(3, PageMode::Page);
    let options =
        Options { segment_size: 16 << 10, compact_threshold: 1 << 40, background: false, ..Options::default() };
    let store = Store::open_on(Arc::new(sim.clone()), &options).unwrap();
    let mut model = Model::new();
    for n in 0..3000u32 {
        let key = (n.wrapping_mul(0x9e37_79b9) % 1700).to_string().into_bytes();
        if n % 5 == 4 {
            store.del(&key).unwrap();
        } else {
            store.set(&key, &n.to_le_bytes()).unwrap();
        }
        model.insert(key, n % 5 != 4);
    }
    store.close().unwrap();
    (sim, model)
}

/// The segments that MANIFEST lists, those of `scanned` without their hints.
fn sources(sim: &SimStorage, index: &Index, scanned: impl Fn(u64) -> bool) -> ([u64; 2], Vec<Source>) {
    let storage: Arc<dyn Storage> = Arc::new(sim.clone());
    let manifest = Manifest::read(&*storage).unwrap().unwrap();
    let cache = Arc::new(FileCache::new(Arc::clone(&storage)));
    let source = |entry: &crate::log::manifest::SegmentEntry| {
        let header =
            Header { id: entry.id, identity: entry.identity, role: entry.role, predecessor: LogEnd::default() };
        let segment = Segment::new(header, SegmentIo::Calls(Arc::clone(&cache)), entry.synced_len, State::Sealed);
        let segment = Arc::new(segment);
        let slot = index.add_segment(Arc::clone(&segment)).unwrap();
        let mut hint = HintReader::open(&storage, (entry.id, entry.identity), manifest.hash_seed);
        let mut entries = Vec::new();
        while scanned(entry.id)
            && let Some(entry) = hint.as_mut().and_then(|hint| hint.peek().unwrap())
        {
            entries.push(entry);
            hint.as_mut().unwrap().advance();
        }
        let hint = hint.filter(|_| !scanned(entry.id));
        Source::new(segment, slot, hint, entries)
    };
    (manifest.hash_seed, manifest.segments.iter().map(source).collect())
}

/// What can be told of the segments after loading.
fn counters(sources: &[Source]) -> Vec<(u64, u64, i64)> {
    let of = |s: &Source| (s.segment.dead(), s.segment.tombstones(), s.segment.min_timestamp());
    sources.iter().map(of).collect()
}

#[test]
fn any_number_of_threads_loads_the_same() {
    let (sim, model) = closed();
    let mut expected = None;
    for threads in 1..=5 {
        for modulus in [1, 2, u64::MAX] {
            let index = Index::new().unwrap();
            let (seed, mut sources) = sources(&sim, &index, |id| id % modulus == 0);
            assert!(sources.len() > 5);
            let (last, rotten) = fill_with(&index, seed, &mut sources, threads).unwrap();
            assert_eq!(rotten, []);
            let found = (last, counters(&sources), index.usage());
            assert_eq!(*expected.get_or_insert(found.clone()), found, "{threads} threads");
            assert_eq!(index.usage().0, model.values().filter(|stored| **stored).count() as u64);
            for (key, stored) in &model {
                let hash = hash_key(seed, key);
                let shard = index.read(hash).unwrap();
                let holds_key = |position: crate::index::Position| {
                    let mut bytes = vec![0; 64];
                    let segment = shard.segment(position).unwrap();
                    let left = segment.len() - position.offset();
                    bytes.truncate(left as usize);
                    segment.read_exact(&mut bytes, position.offset()).unwrap();
                    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) + 12;
                    Head::parse(&bytes, len).is_some_and(|head| head.key == key)
                };
                assert_eq!(shard.candidates(hash).filter(|p| holds_key(*p)).count(), *stored as usize);
            }
        }
    }
}

#[test]
fn what_is_rotten_is_found_in_any_piece() {
    let (sim, _) = closed();
    let rotten = |sim: &SimStorage, threads| {
        let index = Index::new().unwrap();
        let (seed, mut sources) = sources(sim, &index, |_| false);
        fill_with(&index, seed, &mut sources, threads).unwrap().1
    };
    let name = hint::name(2);
    let bytes = sim.read_file(&name).unwrap();
    let entries = (bytes.len() - 68) / 32;
    for threads in 1..=4 {
        for at in (HEADER_LEN..bytes.len()).step_by(59) {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            sim.put_file(&name, &bad);
            assert_eq!(rotten(&sim, threads), [1], "byte {at}, {threads} threads");
        }
        // The checksum is right, but the entries are not in order.
        for distance in [entries / 3, entries - 1] {
            let mut bad = bytes.clone();
            for byte in 64..96 {
                bad.swap(byte, byte + distance * 32);
            }
            let (body, crc) = bad.split_last_chunk_mut::<4>().unwrap();
            *crc = crc32c::crc32c(body).to_le_bytes();
            sim.put_file(&name, &bad);
            assert_eq!(rotten(&sim, threads), [1], "{distance} entries apart, {threads} threads");
        }
        sim.put_file(&name, &bytes);
        assert_eq!(rotten(&sim, threads), []);
    }
}
