//! Promise 7: whatever bytes are in the files, opening them and reading gives values or errors. No panic, no endless work.
//!
//! Real files are mutated, half of the time with their checksums put right again, so that the fields behind them are
//! reached. `KV_FUZZ_BUDGET=600` goes on for so many seconds with seeds never tried before, `KV_FUZZ_SEED=17` tries one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::fuzzing::{decode, exercise, fix};
use crate::model_tests::Rng;
use crate::storage::sim::{PageMode, SimStorage};
use crate::{IoPath, Options, Store};

/// More than any case takes, however busy the machine is.
pub(super) const LONGEST: Duration = Duration::from_secs(20);
const CASES: u64 = 2500;

pub(super) fn options() -> Options {
    Options { segment_size: 4 << 10, compact_threshold: 1 << 20, background: false, ..Options::default() }
}

pub(super) fn key(n: u64) -> Vec<u8> {
    format!("key {n}").into_bytes()
}

/// A database of several segments; killed, with marks in the log, or closed.
pub(super) fn sample(seed: u64, closed: bool) -> SimStorage {
    let sim = SimStorage::new(seed, PageMode::Page);
    let store = Store::open_on(Arc::new(sim.clone()), &options()).unwrap();
    let mut rng = Rng(seed);
    for n in 0..30 {
        store.set(&key(rng.below(12)), &vec![n as u8; rng.below(400) as usize]).unwrap();
        match n {
            9 => store.compact().unwrap(),
            17 | 26 => store.sync().unwrap(),
            _ => drop(store.del(&key(rng.below(12))).unwrap()),
        }
    }
    if closed {
        store.close().unwrap()
    } else {
        return sim.reboot();
    }
    sim
}

/// A number that somebody may have forgotten to think of.
fn awkward(rng: &mut Rng) -> u64 {
    let powers = [0, 7, 8, 16, 31, 32, 47, 48, 61, 62, 63];
    let power = 1u64 << powers[rng.below(powers.len() as u64) as usize];
    [power, power - 1, power + 1, u64::MAX, u64::MAX - power, rng.next()][rng.below(6) as usize]
}

pub(super) fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..1 + rng.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.below(bytes.len() as u64) as usize;
        // Most fields lie at the beginning, and many are eight bytes from each other.
        let at = if rng.below(2) == 0 { at % 128 % bytes.len() } else { at };
        let at = if rng.below(2) == 0 { at / 8 * 8 } else { at };
        let to = bytes.len().min(at + 1 + rng.below(200) as usize);
        match rng.below(8) {
            0 | 1 => bytes[at] ^= 1 << rng.below(8),
            2 | 3 => {
                let number = awkward(rng).to_le_bytes();
                let len = number.len().min(bytes.len() - at);
                bytes[at..at + len].copy_from_slice(&number[..len]);
            }
            4 => bytes.truncate(at),
            5 => drop(bytes.drain(at..to)),
            6 => {
                let piece = bytes[at..to].to_vec();
                let at = rng.below(bytes.len() as u64) as usize;
                drop(bytes.splice(at..at, piece));
            }
            _ => bytes[at..to].iter_mut().for_each(|byte| *byte = rng.next() as u8),
        }
    }
}

fn try_seed(seed: u64, samples: &[SimStorage]) -> Result<(), String> {
    let (mut rng, begin) = (Rng(seed), Instant::now());
    rng.next();
    let sim = samples[rng.below(samples.len() as u64) as usize].deep_copy();
    let names: Vec<_> = sim.files().into_iter().filter(|name| name != "LOCK").collect();
    for _ in 0..1 + rng.below(2) {
        let name = &names[rng.below(names.len() as u64) as usize];
        let source = if rng.below(10) == 0 { &names[rng.below(names.len() as u64) as usize] } else { name };
        let mut bytes = sim.read_file(source).unwrap();
        mutate(&mut bytes, &mut rng);
        if rng.below(2) == 0 {
            fix(name, &mut bytes, || rng.below(8) > 0);
        }
        sim.put_file(name, &bytes);
    }
    let io = if rng.below(2) == 0 { IoPath::Auto } else { IoPath::Syscall };
    let options = Options { io, read_only: rng.below(4) == 0, ..options() };
    let tried = catch_unwind(AssertUnwindSafe(|| {
        decode(&sim);
        exercise(&sim, &options)
    }));
    tried.unwrap_or_else(|_| Err("panic".into()))?;
    sim.violation().map_or(Ok(()), Err)?;
    let took = begin.elapsed();
    if took < LONGEST { Ok(()) } else { Err(format!("took {took:?}")) }
}

#[test]
fn mutated_files_give_values_or_errors() {
    let samples: Vec<_> = (0..4).map(|n| sample(n / 2 + 1, n % 2 == 0)).collect();
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (begin, budget) = (Instant::now(), number("KV_FUZZ_BUDGET").map(Duration::from_secs));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    let seeds: Box<dyn Iterator<Item = u64>> = match (number("KV_FUZZ_SEED"), budget) {
        (Some(seed), _) => Box::new(std::iter::once(seed)),
        (None, Some(budget)) => Box::new((now..).take_while(move |_| begin.elapsed() < budget)),
        (None, None) => Box::new(1..=CASES),
    };
    let (mut tried, mut failures) = (0, Vec::new());
    for seed in seeds {
        tried += 1;
        failures.extend(try_seed(seed, &samples).err().map(|what| format!("KV_FUZZ_SEED={seed}: {what}")));
    }
    let shown = failures.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
    println!("{tried} seeds tried, from {} on", if budget.is_some() { now } else { 1 });
    assert!(failures.is_empty(), "{} of {tried} seeds:\n{shown}", failures.len());
}
