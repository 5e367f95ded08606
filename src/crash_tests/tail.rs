//! The end of the log, as a crash may leave it: what was not synced may be torn anywhere, and then it is cut; what sync
//! marks prove to have been synced is damaged, not torn. Each time the store writes on and is opened again.

use std::sync::Arc;

use crate::log::header::HEADER_LEN;
use crate::model_tests::Rng;
use crate::storage::sim::{PageMode, SimStorage};
use crate::{Code, IoPath, Options, Store};

const LOG: &str = "0000000001.log";
/// So many records in the log.
const RECORDS: u8 = 8;

fn options(number: usize) -> Options {
    let io = if number.is_multiple_of(2) { IoPath::Auto } else { IoPath::Syscall };
    Options { segment_size: 4 << 10, compact_threshold: 1 << 20, background: false, io, ..Options::default() }
}

fn open(sim: &SimStorage, number: usize) -> Store {
    Store::open_on(Arc::new(sim.clone()), &options(number)).unwrap_or_else(|e| panic!("{number}: {e}"))
}

fn key(n: u8) -> Vec<u8> {
    vec![b'a' + n; 1 + n as usize % 3]
}

fn value(n: u8) -> Vec<u8> {
    vec![n; 10 + n as usize]
}

/// A log of one segment after the death of the process.
struct Killed {
    sim: SimStorage,
    /// Its bytes without the zeros behind them.
    log: Vec<u8>,
    /// Where each record ends, or a mark that follows it.
    ends: Vec<usize>,
    /// So many records were synced.
    synced: u8,
}

impl Killed {
    /// Syncs after each of the records of these numbers.
    fn new(syncs: &[u8]) -> Killed {
        let sim = SimStorage::new(1, PageMode::Page);
        let store = open(&sim, 0);
        let mut ends = Vec::new();
        for n in 0..RECORDS {
            store.set(&key(n), &value(n)).unwrap();
            if syncs.contains(&n) {
                store.sync().unwrap();
            }
            ends.push(store.stats().log_bytes as usize);
        }
        let mut log = sim.read_file(LOG).unwrap();
        log.truncate(*ends.last().unwrap());
        let killed = sim.reboot();
        drop(store);
        Killed { sim: killed, log, ends, synced: syncs.iter().max().map_or(0, |n| n + 1) }
    }

    /// The disk with another log.
    fn with(&self, log: &[u8]) -> SimStorage {
        let sim = self.sim.deep_copy();
        sim.put_file(LOG, log);
        sim
    }

    /// Where what was synced ends, its mark included.
    fn synced_end(&self) -> usize {
        self.synced.checked_sub(1).map_or(HEADER_LEN, |last| self.ends[last as usize])
    }
}

/// The first `count` records are there, and no others.
fn check(store: &Store, count: u8, what: &str) {
    for n in 0..RECORDS {
        let expected = (n < count).then(|| value(n));
        assert_eq!(store.get(&key(n)).unwrap(), expected, "{what}: record {n} of {count}");
    }
}

/// Opens what a crash has left, writes on, and opens again: first after another death, then after closing.
fn recover_and_go_on(sim: &SimStorage, count: u8, number: usize, what: &str) {
    let store = open(sim, number);
    check(&store, count, what);
    let info = store.recovery_info();
    assert_eq!((info.damaged_records, info.scanned_records), (0, count as u64), "{what}: {info:?}");
    store.set(b"new", &[7; 33]).unwrap();
    check(&store, count, what);
    let sim = sim.reboot();
    drop(store);
    let store = open(&sim, number);
    check(&store, count, what);
    assert_eq!(store.get(b"new").unwrap().as_deref(), Some(&[7; 33][..]), "{what}: written after the crash");
    let info = store.recovery_info();
    assert_eq!((info.torn_bytes, info.damaged_records), (0, 0), "{what}: opened again: {info:?}");
    store.close().unwrap();
    let store = open(&sim, number);
    check(&store, count, what);
    assert_eq!(store.stats().keys, count as u64 + 1, "{what}");
    assert!(store.recovery_info().clean, "{what}: {:?}", store.recovery_info());
    assert_eq!(sim.violation(), None);
}

#[test]
fn a_log_torn_at_any_byte_is_cut_to_whole_records_and_goes_on() {
    for killed in [Killed::new(&[]), Killed::new(&[2])] {
        for len in killed.synced_end()..=killed.log.len() {
            let count = killed.ends.iter().filter(|end| **end <= len).count() as u8;
            recover_and_go_on(&killed.with(&killed.log[..len]), count, len, &format!("cut at {len}"));
        }
    }
}

#[test]
fn whatever_stands_behind_a_torn_record_is_not_taken_for_one() {
    let killed = Killed::new(&[1]);
    let mut rng = Rng(1);
    for len in killed.synced_end()..killed.log.len() {
        if killed.ends.contains(&len) {
            // Between two records, garbage may begin with anything but a whole frame, which none of the below is.
            assert!(len < killed.log.len());
        }
        let random: Vec<u8> = (0..100).map(|_| rng.next() as u8).collect();
        let zeros_and_more = [&[0; 200][..], &random].concat();
        let old_tail = &killed.log[killed.log.len() - 20..];
        let tails = [&random[..], &[0xff; 64], &[0; 300], &zeros_and_more, old_tail];
        for (i, tail) in tails.iter().enumerate() {
            let torn = [&killed.log[..len], tail].concat();
            // Garbage may happen to be what was there.
            let same = torn.iter().zip(&killed.log).take_while(|(a, b)| a == b).count();
            let count = killed.ends.iter().filter(|end| **end <= same).count() as u8;
            recover_and_go_on(&killed.with(&torn), count, len + i, &format!("cut at {len}, then garbage {i}"));
        }
    }
}

/// The blocks reserved ahead are given back by whoever closes the database next, whether it has written anything or not.
#[test]
fn zeros_that_a_crash_left_behind_the_log_go_when_it_is_closed() {
    for io in 0..2 {
        // Killed with nothing synced, with something, and with all of it synced.
        for syncs in [&[][..], &[2], &[RECORDS - 1]] {
            let killed = Killed::new(syncs);
            assert!(killed.sim.read_file(LOG).unwrap().len() > killed.log.len(), "blocks are reserved ahead");
            open(&killed.sim, io).close().unwrap();
            assert_eq!(killed.sim.read_file(LOG).unwrap(), killed.log, "{syncs:?}");
        }
        // Killed after reserving, before anything was written there.
        let closed = Killed::new(&[]);
        open(&closed.sim, io).close().unwrap();
        closed.sim.put_file(LOG, &[&closed.log[..], &[0; 1000]].concat());
        let store = open(&closed.sim, io);
        check(&store, RECORDS, "zeros behind a closed log");
        store.close().unwrap();
        assert_eq!(closed.sim.read_file(LOG).unwrap(), closed.log);
    }
}

/// A store that finds damage before a sync mark says so: each key reads right or as damaged, none is just gone.
fn damaged_not_cut(killed: &Killed, log: &[u8], number: usize, what: &str) {
    let sim = killed.with(log);
    for round in 0..2 {
        let store = match Store::open_on(Arc::new(sim.clone()), &options(number)) {
            Ok(store) => store,
            Err(e) => return assert_eq!(e.code(), Code::Corrupt, "{what}: {e}"),
        };
        for n in 0..killed.synced {
            match store.get(&key(n)) {
                Ok(found) => assert_eq!(found, Some(value(n)), "{what}: record {n} was synced, round {round}"),
                Err(e) => assert_eq!(e.code(), Code::Corrupt, "{what}: {e}"),
            }
        }
        let info = store.recovery_info();
        let readable = (0..killed.synced).all(|n| store.get(&key(n)).is_ok());
        assert!(readable || info.damaged_records > 0 || round > 0, "{what}: not a word of the damage: {info:?}");
        let _ = store.set(b"new", b"1");
        let _ = store.close();
    }
    assert_eq!(sim.violation(), None);
}

#[test]
fn what_was_synced_before_a_kill_is_never_cut_away_in_silence() {
    for killed in [Killed::new(&[4]), Killed::new(&[1, 5])] {
        // Damage to the last mark itself takes away the proof.
        let last_mark = killed.synced_end() - crate::log::record::MARK_LEN;
        for at in HEADER_LEN..last_mark {
            let mut flipped = killed.log.clone();
            flipped[at] ^= 1 << (at % 8);
            damaged_not_cut(&killed, &flipped, at, &format!("byte {at} flipped"));
        }
    }
}

#[test]
fn zeros_before_a_sync_mark_are_not_taken_for_the_end() {
    let killed = Killed::new(&[1, 4]);
    let last_mark = killed.synced_end() - crate::log::record::MARK_LEN;
    for at in HEADER_LEN..last_mark {
        for len in [8, 40, 200] {
            let mut zeroed = killed.log.clone();
            zeroed[at..(at + len).min(last_mark)].fill(0);
            if zeroed == killed.log {
                // The value of the first record is all zeros.
                continue;
            }
            let sim = killed.with(&zeroed);
            match Store::open_on(Arc::new(sim.clone()), &options(at)) {
                Ok(store) => assert!(store.recovery_info().damaged_records > 0, "{len} zeros at {at}, not a word"),
                Err(e) => assert_eq!(e.code(), Code::Corrupt, "{len} zeros at {at}: {e}"),
            }
        }
    }
}

/// The header of a segment that the manifest does not know yet: without it, the marks in the segment still tell that it
/// had been synced. It must not be taken for what a crash left of a new file, and removed.
#[test]
fn a_segment_with_sync_marks_is_not_removed_for_its_damaged_header() {
    let killed = Killed::new(&[4]);
    for at in 0..HEADER_LEN {
        let mut flipped = killed.log.clone();
        flipped[at] ^= 1 << (at % 8);
        damaged_not_cut(&killed, &flipped, at, &format!("byte {at} of the header flipped"));
    }
    let mut zeroed = killed.log.clone();
    zeroed[..HEADER_LEN].fill(0);
    damaged_not_cut(&killed, &zeroed, 0, "no header");
}
