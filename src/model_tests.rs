//! Long random sequences of operations, compared with a plain map after every reopen and now and then between.

use std::collections::HashMap;
use std::path::Path;

use crate::{IoPath, Options, Store, SyncLevel};

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

fn run(path: &Path, options: &Options, seed: u64, steps: u64) {
    const KEYS: u64 = 200;
    let mut rng = Rng(seed);
    let mut model = HashMap::new();
    let mut store = Store::open(path, options).unwrap();
    for step in 0..steps {
        let key = key(rng.below(KEYS));
        match rng.below(1000) {
            0..=599 => {
                let len = match rng.below(50) {
                    0 => rng.below(20_000),
                    1 => 0,
                    _ => rng.below(300),
                };
                let value: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(step as u8 | 1)).collect();
                store.set(&key, &value).unwrap();
                model.insert(key, value);
            }
            600..=899 => assert_eq!(store.del(&key).unwrap(), model.remove(&key).is_some()),
            900..=979 => assert_eq!(store.get(&key).unwrap().as_ref(), model.get(&key)),
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
                store = Store::open(path, options).unwrap();
                assert!(store.recovery_info().clean, "{:?}", store.recovery_info());
                check(&store, &model, KEYS);
            }
            _ => check(&store, &model, KEYS),
        }
    }
    store.close().unwrap();
}

#[test]
fn behaves_like_a_map() {
    for (seed, io) in [(1, IoPath::Auto), (2, IoPath::Syscall), (3, IoPath::Auto), (4, IoPath::Syscall)] {
        for segment_size in [4 << 10, 64 << 10, 1 << 20] {
            let options = Options {
                io,
                segment_size,
                compact_threshold: 16 << 10,
                background: seed > 2,
                sync: if seed == 2 { SyncLevel::Interval } else { SyncLevel::Os },
                sync_interval_ms: 1,
                ..Options::default()
            };
            let dir = tempfile::tempdir().unwrap();
            run(&dir.path().join("db"), &options, seed + segment_size, 3000);
        }
    }
}
