//! Long random sequences of operations, compared with a plain map after every reopen and now and then between.

use std::collections::HashMap;

use crate::storage::sim::{PageMode, SimStorage};
use crate::{Batch, IoPath, Options, Store, SyncLevel};

/// A small deterministic generator (SplitMix64).
pub(crate) struct Rng(pub u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn check(store: &Store, model: &HashMap<Vec<u8>, Vec<u8>>, keys: u64) {
    assert_eq!(store.stats().keys, model.len() as u64);
    for n in 0..keys {
        let key = key(n);
        assert_eq!(store.get(&key).unwrap().as_ref(), model.get(&key), "key {n}");
        assert_eq!(store.exists(&key).unwrap(), model.contains_key(&key));
    }
}

fn key(n: u64) -> Vec<u8> {
    if n == 0 { Vec::new() } else { format!("{n:0width$}", width = (n % 40) as usize).into_bytes() }
}

fn value(rng: &mut Rng, step: u64) -> Vec<u8> {
    let len = match rng.below(50) {
        0 => rng.below(20_000),
        1 => 0,
        _ => rng.below(300),
    };
    (0..len).map(|i| (i as u8).wrapping_mul(step as u8 | 1)).collect()
}

/// A batch whose conditions hold, and what it leaves.
fn batch(rng: &mut Rng, keys: u64, step: u64, model: &HashMap<Vec<u8>, Vec<u8>>) -> (Batch, HashMap<Vec<u8>, Vec<u8>>) {
    let (mut batch, mut changed) = (Batch::new(), model.clone());
    for _ in 0..rng.below(12) {
        let key = key(rng.below(keys));
        match rng.below(10) {
            0 => match model.get(&key) {
                Some(value) => batch.require(&key, value).unwrap(),
                None => batch.require_absent(&key).unwrap(),
            },
            1..=3 => {
                batch.del(&key).unwrap();
                changed.remove(&key);
            }
            _ => {
                let value = value(rng, step);
                batch.set(&key, &value).unwrap();
                changed.insert(key, value);
            }
        }
    }
    (batch, changed)
}

/// `open` opens the database, `disturb` is called now and then with a random number.
fn run(open: impl Fn() -> Store, disturb: impl Fn(u64), options: &Options, seed: u64, steps: u64) {
    const KEYS: u64 = 200;
    let mut rng = Rng(seed);
    let mut model = HashMap::new();
    let mut store = open();
    for step in 0..steps {
        let key = key(rng.below(KEYS));
        match rng.below(1000) {
            0..=499 => {
                let value = value(&mut rng, step);
                store.set(&key, &value).unwrap();
                model.insert(key, value);
            }
            500..=549 => {
                let (batch, changed) = batch(&mut rng, KEYS, step, &model);
                assert!(store.write(&batch).unwrap());
                model = changed;
            }
            550..=599 => {
                let (mut batch, _) = batch(&mut rng, KEYS, step, &model);
                let value = model.get(&key).map_or(b"x".to_vec(), |value| [value, &b"x"[..]].concat());
                batch.require(&key, &value).unwrap();
                assert!(!store.write(&batch).unwrap());
            }
            600..=899 => assert_eq!(store.del(&key).unwrap(), model.remove(&key).is_some()),
            900..=974 => assert_eq!(store.get(&key).unwrap().as_ref(), model.get(&key)),
            975..=979 => disturb(rng.next()),
            980..=984 => store.sync().unwrap(),
            985..=989 => drop(store.maintain(1 + rng.below(5000)).unwrap()),
            990..=992 => {
                store.compact().unwrap();
                let stats = store.stats();
                if !options.background {
                    assert_eq!((stats.dead_bytes, stats.tombstone_bytes), (0, 0), "step {step}: {stats:?}");
                }
                check(&store, &model, KEYS);
            }
            993..=996 => {
                store.close().unwrap();
                store = open();
                assert!(store.recovery_info().clean, "{:?}", store.recovery_info());
                check(&store, &model, KEYS);
            }
            _ => check(&store, &model, KEYS),
        }
    }
    store.close().unwrap();
    check(&open(), &model, KEYS);
}

fn options(io: IoPath, segment_size: u64, background: bool) -> Options {
    Options { io, segment_size, compact_threshold: 16 << 10, background, sync_interval_ms: 1, ..Options::default() }
}

#[test]
fn behaves_like_a_map_whatever_the_clock_does() {
    for seed in 0..12 {
        let io = if seed % 2 == 0 { IoPath::Auto } else { IoPath::Syscall };
        let sync = [SyncLevel::Os, SyncLevel::Interval, SyncLevel::Always][seed as usize % 3];
        let options = Options { sync, ..options(io, 4096 << (seed % 3 * 4), seed % 4 == 3) };
        let disk = SimStorage::new(seed, PageMode::Page);
        let open = || Store::open_on(std::sync::Arc::new(disk.handle()), &options).unwrap();
        // Mostly back, never as far ahead as the end of time.
        run(open, |random| disk.set_clock((random >> 4) as i64), &options, seed, 3000);
        assert_eq!(disk.violation(), None);
    }
}

#[test]
fn behaves_like_a_map_on_a_real_disk() {
    for (seed, io) in [(1, IoPath::Auto), (2, IoPath::Syscall)] {
        for background in [false, true] {
            let options = options(io, 64 << 10, background);
            let dir = tempfile::tempdir().unwrap();
            run(|| Store::open(&dir.path().join("db"), &options).unwrap(), |_| {}, &options, seed, 1500);
        }
    }
}
