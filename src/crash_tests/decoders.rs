//! Promise 7: whatever bytes are in the files, opening them and reading gives values or errors. No panic, no endless work.
//!
//! Real files are mutated, half of the time with their checksums put right again, so that the fields behind them are
//! reached. `KV_FUZZ_BUDGET=600` goes on for so many seconds with seeds never tried before, `KV_FUZZ_SEED=17` tries one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::log::header::{HEADER_LEN, Header};
use crate::log::hint::HintReader;
use crate::log::manifest::Manifest;
use crate::log::scan::{Item, Scanner};
use crate::model_tests::Rng;
use crate::storage::Storage;
use crate::storage::sim::{PageMode, SimStorage};
use crate::{Code, IoPath, Options, Store};

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

fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
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

/// Puts the checksum right behind the first `len` bytes.
fn close_with_crc(bytes: &mut [u8], from: usize, len: usize) {
    if let Some(body) = bytes.get(from..from + len) {
        let crc = crc32c::crc32c(body).to_le_bytes();
        bytes[from + len..].iter_mut().zip(crc).for_each(|(byte, crc)| *byte = crc);
    }
}

fn fix(name: &str, bytes: &mut [u8], rng: &mut Rng) {
    if !name.ends_with(".log") {
        let body = bytes.len().saturating_sub(4);
        return close_with_crc(bytes, 0, body);
    }
    close_with_crc(bytes, 0, HEADER_LEN - 4);
    let mut at = HEADER_LEN;
    while let Some(prefix) = bytes.get(at..at + 8) {
        let payload = u64::from_le_bytes(prefix.try_into().unwrap()) & ((1 << 48) - 1);
        let Some(body) = usize::try_from(payload).ok().map(|len| 8 + len).filter(|len| at + len + 4 <= bytes.len())
        else {
            return;
        };
        if rng.below(8) > 0 {
            close_with_crc(bytes, at, body);
        }
        at += body + 4;
    }
}

/// Opens it and does a bit of everything. Errors are fine, as long as they are those of damaged data.
fn exercise(sim: &SimStorage, options: &Options) -> Result<(), String> {
    let fine = |e: &crate::Error| matches!(e.code(), Code::Corrupt | Code::Format | Code::Io | Code::NoMemory);
    let judge = |what: &str, done: crate::Result<()>| match done {
        Err(e) if !fine(&e) => Err(format!("{what}: {:?}: {e}", e.code())),
        _ => Ok(()),
    };
    let store = match Store::open_on(Arc::new(sim.clone()), options) {
        Ok(store) => store,
        Err(e) => return judge("open", Err(e)),
    };
    for key in (0..13).map(key) {
        judge("get", store.get(&key).map(drop))?;
        judge("exists", store.exists(&key).map(drop))?;
    }
    if !options.read_only {
        judge("set", store.set(&key(1), &[1; 50]))?;
        judge("del", store.del(&key(2)).map(drop))?;
        judge("compact", store.compact())?;
        judge("get", store.get(&key(3)).map(drop))?;
    }
    store.stats();
    judge("close", store.close())
}

/// The decoders by themselves, which opening does not always come to.
fn decode(sim: &SimStorage) {
    let _ = Manifest::read(sim);
    for name in sim.files() {
        let bytes = sim.read_file(&name).unwrap();
        if let Some(head) = bytes.first_chunk::<HEADER_LEN>() {
            let _ = Header::decode(head);
        }
        let Some(Ok(id)) = name.split_once('.').map(|(id, _)| id.parse::<u64>()) else { continue };
        let word = |at: usize| bytes.get(at..at + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap()));
        if name.ends_with(".hint")
            && let Some(mut hint) = HintReader::open(
                &(std::sync::Arc::new(sim.clone()) as std::sync::Arc<dyn crate::storage::Storage>),
                (id, word(16)),
                [word(32), word(40)],
            )
        {
            while let Ok(Some(_)) = hint.peek() {
                hint.advance();
            }
            let _ = hint.finish();
        }
        if name.ends_with(".log") {
            let mut scanner = scanner(sim, &name);
            for _ in 0..=bytes.len() {
                match scanner.next() {
                    Ok(Item::Bad(_)) => drop(scanner.skip_bad().unwrap()),
                    Ok(Item::End) | Err(_) => break,
                    Ok(_) => {}
                }
            }
            let _ = self::scanner(sim, &name).last_mark();
        }
    }
}

fn scanner(sim: &SimStorage, name: &str) -> Scanner {
    let file = sim.open(name, false).unwrap();
    let end = file.len().unwrap();
    Scanner::new(name, file, HEADER_LEN as u64, end).unwrap()
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
            fix(name, &mut bytes, &mut rng);
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
