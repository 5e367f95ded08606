//! Replays what the fuzzers found to be worth keeping, as it is and with random changes. `make fuzz` looks for more.
//!
//! With `KV_FUZZ_SEEDS=dir` the inputs that fuzzing starts with are written there: small databases of every kind.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::decoders::{LONGEST, mutate};
use crate::fuzzing::TARGETS;
use crate::model_tests::Rng;
use crate::storage::sim::{PageMode, SimStorage};
use crate::{Batch, Options, Store};

/// So many changed copies of each input are tried.
const CHANGED: usize = 200;

/// The inputs of a target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fuzzing/corpus").join(target);
    let entries = std::fs::read_dir(dir).expect("a corpus");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("an input")).collect()
}

#[test]
fn what_the_fuzzers_kept_breaks_nothing() {
    for (name, target) in TARGETS {
        let inputs = corpus(name);
        assert!(inputs.len() > 3, "{name}: {} inputs", inputs.len());
        for (number, input) in inputs.iter().enumerate() {
            let mut rng = Rng(number as u64);
            for round in 0..=CHANGED {
                let mut input = input.clone();
                if round > 0 {
                    mutate(&mut input, &mut rng);
                }
                let begin = Instant::now();
                target(&input);
                assert!(begin.elapsed() < LONGEST, "{name}: input {number}, round {round}");
            }
        }
    }
}

/// A small database: killed at the end, or closed, with or without a compaction.
fn small(seed: u64) -> SimStorage {
    let sim = SimStorage::new(seed, PageMode::Page);
    let options = Options { segment_size: 4 << 10, background: false, ..Options::default() };
    let store = Store::open_on(Arc::new(sim.clone()), &options).unwrap();
    (0..3).for_each(|n| store.set(format!("key {n}").as_bytes(), &[n; 5]).unwrap());
    store.del(b"key 1").unwrap();
    if seed & 1 != 0 {
        store.compact().unwrap();
    }
    let mut batch = Batch::new();
    batch.set(b"key 3", b"x").unwrap();
    batch.del(b"key 0").unwrap();
    store.write(&batch).unwrap();
    if seed & 2 != 0 {
        store.sync().unwrap();
    }
    store.set(b"key 4", b"").unwrap();
    if seed & 4 != 0 {
        store.close().unwrap();
    }
    sim
}

#[test]
fn fuzzing_starts_with_sound_databases() {
    let dir = std::env::var_os("KV_FUZZ_SEEDS");
    let keep = |target: &str, name: String, bytes: &[u8]| {
        let (_, run) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
        run(bytes);
        if let Some(dir) = &dir {
            let dir = Path::new(dir).join(target);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(name), bytes).unwrap();
        }
    };
    for seed in 0..8 {
        let sim = small(seed);
        let mut whole = vec![seed as u8 & 1];
        for (number, name) in crate::fuzzing::NAMES.iter().enumerate() {
            let Some(mut bytes) = sim.read_file(name) else { continue };
            bytes.truncate(bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1));
            whole.extend([number as u8 | crate::fuzzing::FIX]);
            whole.extend((bytes.len() as u16).to_le_bytes());
            whole.extend(&bytes);
            let target = ["manifest", "records", "records", "records", "hint", "hint", "hint", "manifest"][number];
            let content = if target == "records" { &bytes[64.min(bytes.len())..] } else { &bytes };
            keep(target, format!("{seed}-{number}"), &[&[1], content].concat());
        }
        keep("open", seed.to_string(), &whole);
    }
}
