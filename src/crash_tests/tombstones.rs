//! Promise 4: what was deleted stays deleted, and what hides nothing any more goes. The order of writes decides which of
//! two records is the newer one, whatever the clock says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::log::header::HEADER_LEN;
use crate::log::scan::{Item, Scanner};
use crate::model_tests::Rng;
use crate::storage::Storage;
use crate::storage::sim::{Crash, PageMode, SimStorage, Unsynced};
use crate::{Options, Store};

/// A segment is compacted once half of it is garbage, however small the log is.
fn options() -> Options {
    Options { segment_size: 4 << 10, compact_threshold: 1, background: false, ..Options::default() }
}

fn open(sim: &SimStorage) -> Store {
    Store::open_on(Arc::new(sim.clone()), &options()).unwrap()
}

fn reopened(store: Store, sim: &SimStorage) -> Store {
    store.close().unwrap();
    open(sim)
}

/// The records in the logs, oldest first in each: file, key, and whether it is a tombstone.
fn records(sim: &SimStorage) -> Vec<(String, Vec<u8>, bool)> {
    let sim = sim.deep_copy();
    let mut records = Vec::new();
    for name in sim.files().into_iter().filter(|name| name.ends_with(".log")) {
        let file = sim.open(&name, false).unwrap();
        let end = file.len().unwrap();
        let mut scanner = Scanner::new(&name, file, HEADER_LEN as u64, end).unwrap();
        loop {
            match scanner.next().unwrap() {
                Item::Record { head, .. } => records.push((name.clone(), head.key.to_vec(), head.value_len.is_none())),
                Item::Mark(_) => {}
                Item::End => break,
                Item::Bad(what) => panic!("{name}: {what}"),
            }
        }
    }
    records
}

fn tombstones_of(sim: &SimStorage, key: &[u8]) -> usize {
    records(sim).iter().filter(|(_, k, tombstone)| k == key && *tombstone).count()
}

/// A segment with `key` in it, so full of live records that it is not worth compacting, and sealed.
fn seal_among_live_records(store: &Store, key: &[u8], value: &[u8]) {
    store.set(key, value).unwrap();
    (0..20).for_each(|n| store.set(format!("live {n}").as_bytes(), &[1; 60]).unwrap());
    store.compact().unwrap();
}

/// Garbage enough for the active segment to be sealed and compacted on its own, which is what happens.
fn compact_only_the_newest(store: &Store, sim: &SimStorage) {
    (0..40).for_each(|_| store.set(b"garbage", &[2; 60]).unwrap());
    let first = sim.read_file("0000000001.log");
    let before = store.stats().compactions;
    while store.maintain(1 << 20).unwrap() {}
    assert!(store.stats().compactions > before, "{:?}", store.stats());
    assert_eq!(sim.read_file("0000000001.log"), first, "the old segment was to be left alone");
}

#[test]
fn a_tombstone_is_kept_while_an_older_record_is_elsewhere_and_dropped_when_it_is_not() {
    let sim = SimStorage::new(1, PageMode::Page);
    let store = open(&sim);
    seal_among_live_records(&store, b"old", b"1");
    store.set(b"young", b"2").unwrap();
    assert!(store.del(b"old").unwrap());
    assert!(store.del(b"young").unwrap());
    compact_only_the_newest(&store, &sim);
    assert_eq!(tombstones_of(&sim, b"old"), 1, "it hides a record of the first segment");
    assert_eq!(tombstones_of(&sim, b"young"), 0, "what it hid was compacted with it");
    assert!(store.stats().tombstone_bytes > 0);
    // The same again, with the tombstone in an output by now.
    compact_only_the_newest(&store, &sim);
    assert_eq!(tombstones_of(&sim, b"old"), 1);
    let store = reopened(store, &sim);
    assert_eq!((store.get(b"old").unwrap(), store.get(b"young").unwrap()), (None, None));
    assert_eq!(store.stats().keys, 21);
    // Once the old record is gone, nothing needs the tombstone.
    store.compact().unwrap();
    assert_eq!(records(&sim).iter().filter(|(_, key, _)| key == b"old").count(), 0, "{:?}", records(&sim));
    assert_eq!((store.stats().tombstone_bytes, store.stats().dead_bytes), (0, 0));
    let store = reopened(store, &sim);
    assert_eq!((store.get(b"old").unwrap(), store.stats().keys), (None, 21));
}

#[test]
fn a_deleted_key_stays_away_when_only_the_segment_of_its_tombstone_is_compacted() {
    for crash in [None, Some(Crash::Kill), Some(Crash::Power)] {
        for hinted in [true, false] {
            let sim = SimStorage::new(1, PageMode::Page);
            let store = open(&sim);
            seal_among_live_records(&store, b"k", b"1");
            assert!(store.del(b"k").unwrap());
            if !hinted {
                // Nobody can tell any more what the old segment holds.
                Storage::remove(&sim, "0000000001.hint").unwrap();
            }
            compact_only_the_newest(&store, &sim);
            let sim = match crash {
                None => {
                    store.close().unwrap();
                    sim
                }
                Some(crash) => {
                    let cut = sim.deep_copy();
                    cut.set_unsynced(Unsynced::Lost);
                    cut.crash_now(crash);
                    cut.reboot()
                }
            };
            let store = open(&sim);
            assert_eq!(store.get(b"k").unwrap(), None, "{crash:?}, hinted: {hinted}");
            store.compact().unwrap();
            assert_eq!(reopened(store, &sim).get(b"k").unwrap(), None, "{crash:?}, hinted: {hinted}");
        }
    }
}

/// A tombstone that a later write has made stale may go. That write's own tombstone must then hide the oldest record.
#[test]
fn a_key_deleted_twice_stays_away_whatever_is_compacted() {
    let sim = SimStorage::new(1, PageMode::Page);
    let mut store = open(&sim);
    seal_among_live_records(&store, b"k", b"1");
    for round in 0..3 {
        assert!(round == 0 || store.get(b"k").unwrap().is_none());
        store.del(b"k").unwrap();
        compact_only_the_newest(&store, &sim);
        store.set(b"k", b"2").unwrap();
        compact_only_the_newest(&store, &sim);
        assert_eq!(store.get(b"k").unwrap().as_deref(), Some(&b"2"[..]));
        assert!(store.del(b"k").unwrap());
        compact_only_the_newest(&store, &sim);
        store = reopened(store, &sim);
        assert_eq!(store.get(b"k").unwrap(), None, "round {round}");
    }
}

#[test]
fn the_newest_write_wins_however_far_the_clock_goes_back() {
    for compacted in [false, true] {
        let sim = SimStorage::new(1, PageMode::Page);
        let mut store = open(&sim);
        let mut clock = 1_800_000_000_000_000_000;
        for round in 0..6u8 {
            store.set(b"set last", &[round]).unwrap();
            store.set(b"deleted last", &[round]).unwrap();
            // A year back between any two writes; once before 1970.
            clock -= if round == 4 { 1 << 61 } else { 31_536_000_000_000_000 };
            sim.set_clock(clock);
            store.set(b"set last", &[round, 1]).unwrap();
            assert!(store.del(b"deleted last").unwrap());
            if compacted {
                // The newest timestamp may well be of a record that goes.
                store.set(b"newest", b"").unwrap();
                assert!(store.del(b"newest").unwrap());
                store.compact().unwrap();
            }
            store = if round % 2 == 0 { reopened(store, &sim) } else { store };
            assert_eq!(store.get(b"set last").unwrap().as_deref(), Some(&[round, 1][..]));
            assert_eq!(store.get(b"deleted last").unwrap(), None, "round {round}, compacted: {compacted}");
        }
    }
}

/// A hint of an earlier life of the data must not count what has been deleted since.
#[test]
fn all_that_was_deleted_after_a_compaction_is_gone_after_the_next() {
    let sim = SimStorage::new(1, PageMode::Page);
    let store = open(&sim);
    let keys: Vec<_> = (0..150).map(|n| format!("key {n}").into_bytes()).collect();
    keys.iter().for_each(|key| store.set(key, &[3; 50]).unwrap());
    store.compact().unwrap();
    let store = reopened(store, &sim);
    assert_eq!(store.stats().keys, 150);
    keys.iter().for_each(|key| assert!(store.del(key).unwrap()));
    store.compact().unwrap();
    let store = reopened(store, &sim);
    let stats = store.stats();
    assert_eq!((stats.keys, stats.live_bytes, stats.tombstone_bytes), (0, 0, 0), "{stats:?}");
    assert!(keys.iter().all(|key| !store.exists(key).unwrap()));
    assert_eq!(records(&sim), []);
}

#[test]
fn partial_compactions_in_any_order_leave_what_a_map_would_hold() {
    for seed in 0..40 {
        let sim = SimStorage::new(seed, PageMode::Page);
        let mut rng = Rng(seed);
        let mut model = BTreeMap::new();
        let mut store = open(&sim);
        for step in 0..300u32 {
            let key = vec![rng.below(6) as u8];
            match rng.below(20) {
                0..=7 => {
                    store.set(&key, &step.to_le_bytes().repeat(1 + rng.below(40) as usize)).unwrap();
                    model.insert(key, step);
                }
                8..=13 => assert_eq!(store.del(&key).unwrap(), model.remove(&key).is_some()),
                14..=17 => drop(store.maintain(1 + rng.below(500))),
                18 => store = reopened(store, &sim),
                _ => store.set(b"other", &[4; 600]).unwrap(),
            }
            let key = vec![rng.below(6) as u8];
            let found = store.get(&key).unwrap().map(|v| u32::from_le_bytes(v[..4].try_into().unwrap()));
            assert_eq!(found, model.get(&key).copied(), "seed {seed}, step {step}, key {key:?}");
        }
        store.compact().unwrap();
        let store = reopened(store, &sim);
        assert_eq!(store.stats().keys - store.exists(b"other").unwrap() as u64, model.len() as u64, "seed {seed}");
    }
}

/// The copy that compaction makes of a record goes to a younger file than the tombstone that is written meanwhile.
#[test]
fn a_key_deleted_while_it_is_compacted_stays_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let keys: Vec<_> = (0..200).map(|n| format!("key {n}").into_bytes()).collect();
    for round in 0..8u8 {
        let store = Store::open(&path, &Options { background: true, ..options() }).unwrap();
        keys.iter().for_each(|key| store.set(key, &[round; 100]).unwrap());
        keys.iter().step_by(2).for_each(|key| store.set(key, &[round; 90]).unwrap());
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    store.compact().unwrap();
                }
            });
            for key in keys.iter().filter(|key| key.len() % 2 == round as usize % 2) {
                assert!(store.del(key).unwrap());
            }
            done.store(true, Relaxed);
        });
        store.close().unwrap();
        let store = Store::open(&path, &options()).unwrap();
        for key in &keys {
            assert_eq!(store.exists(key).unwrap(), key.len() % 2 != round as usize % 2, "round {round}");
        }
        store.close().unwrap();
    }
}
