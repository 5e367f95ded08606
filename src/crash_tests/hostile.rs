//! Promise 7, against files made to deceive: nothing in a user's value is taken for a part of the log, no file makes
//! recovery give up or run out of stack.

use std::sync::Arc;
use std::time::Instant;

use super::decoders::{LONGEST, options};
use crate::log::record::{DataFileEntry, MARK_LEN, encode_mark, encode_record, record_len};
use crate::storage::sim::{PageMode, SimStorage};
use crate::{Code, Options, Store};

const LOG: &str = "0000000001.log";

fn record(timestamp: i64, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; record_len(key.len(), Some(value.len())) as usize];
    encode_record(&DataFileEntry { timestamp, key, value: Some(value) }, &mut bytes).unwrap();
    bytes
}

fn mark(offset: u64) -> Vec<u8> {
    let mut bytes = vec![0; MARK_LEN];
    encode_mark(offset, &mut bytes);
    bytes
}

/// A killed store of three records; the second has this value, and the place where it stands in the log. Synced or not.
fn three_records(value: &[u8], synced: bool) -> (SimStorage, std::ops::Range<usize>) {
    let sim = SimStorage::new(1, PageMode::Page);
    let big = Options { segment_size: 1 << 20, ..options() };
    let store = Store::open_on(Arc::new(sim.clone()), &big).unwrap();
    store.set(b"before", b"1").unwrap();
    let from = store.stats().log_bytes as usize;
    store.set(b"victim", value).unwrap();
    let to = store.stats().log_bytes as usize;
    store.set(b"after", b"3").unwrap();
    if synced {
        store.sync().unwrap();
    }
    let killed = sim.reboot();
    drop(store);
    (killed, from..to)
}

fn reopen(sim: &SimStorage) -> Store {
    Store::open_on(Arc::new(sim.clone()), &Options { segment_size: 1 << 20, ..options() }).unwrap()
}

#[test]
fn frames_in_a_damaged_value_are_not_taken_for_records() {
    let forged = |key: &[u8]| record(i64::MAX / 2, key, b"forged");
    let value = [vec![1; 50], forged(b"before"), forged(b"after"), forged(b"never"), mark(70), vec![2; 50]].concat();
    for synced in [false, true] {
        let (sim, place) = three_records(&value, synced);
        // The prefix, the head and the first bytes of the value: all that it takes to lose the boundaries.
        for at in place.start..place.start + 40 {
            for bit in [0, 3, 6] {
                let sim = sim.deep_copy();
                sim.corrupt(LOG, at, 1 << bit);
                let store = reopen(&sim);
                for key in [&b"before"[..], b"after", b"never", b"victim"] {
                    if let Ok(Some(found)) = store.get(key) {
                        assert_ne!(found, b"forged", "byte {at} bit {bit}, {key:?}, synced: {synced}");
                    }
                }
                assert_eq!(store.get(b"before").unwrap().as_deref(), Some(&b"1"[..]), "byte {at} bit {bit}");
            }
        }
    }
}

/// What was never synced is torn, whatever a value claims.
#[test]
fn marks_in_a_value_do_not_prove_a_sync() {
    for offset in [0, 1, 63, 1 << 20, 1 << 40, u64::MAX] {
        let (sim, place) = three_records(&[vec![1; 50], mark(offset), vec![2; 50]].concat(), false);
        sim.corrupt(LOG, place.start + 20, 1);
        let store = reopen(&sim);
        let found = [&b"before"[..], b"victim", b"after"].map(|key| store.get(key).unwrap());
        assert_eq!(found, [Some(b"1".to_vec()), None, None], "mark of {offset}");
        let info = store.recovery_info();
        assert!(info.damaged_records == 0 && info.torn_bytes > 0, "mark of {offset}: {info:?}");
    }
}

#[test]
fn a_damaged_value_full_of_plausible_prefixes_hides_nothing_behind_it() {
    let patterns: [&[u8]; 3] = [&[0, 0x40, 0, 0, 0, 0, 0, 0], &[0xff, 0x0f, 0, 0, 0, 0, 0, 0], &[0, 0, 1, 0, 0, 0, 0]];
    for pattern in patterns {
        let value: Vec<u8> = pattern.iter().copied().cycle().take(200_000).collect();
        let (sim, place) = three_records(&value, true);
        let begin = Instant::now();
        sim.corrupt(LOG, place.start + 1, 0x10);
        let store = reopen(&sim);
        assert_eq!(store.get(b"before").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(store.get(b"after").unwrap().as_deref(), Some(&b"3"[..]), "{pattern:?}");
        assert_eq!(store.get(b"victim").unwrap_err().code(), Code::Corrupt, "{pattern:?}");
        assert!(begin.elapsed() < LONGEST);
    }
}

#[test]
fn a_hundred_thousand_empty_batches_are_read_one_by_one() {
    let (sim, _) = three_records(b"2", false);
    let mut log = sim.read_file(LOG).unwrap();
    log.truncate(log.iter().rposition(|byte| *byte != 0).unwrap() + 1);
    let prefix = (1u64 << 63).to_le_bytes();
    let batch = [&prefix[..], &crc32c::crc32c(&prefix).to_le_bytes()].concat();
    (0..100_000).for_each(|_| log.extend(&batch));
    log.extend(record(i64::MAX / 2, b"last", b"4"));
    sim.put_file(LOG, &log);
    let store = reopen(&sim);
    assert_eq!(store.get(b"last").unwrap().as_deref(), Some(&b"4"[..]));
    assert_eq!(store.stats().keys, 4);
}
