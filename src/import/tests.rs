//! Logs made by hand: whole, torn at every byte, with garbage, and what is no log.

use super::*;
use crate::Options;
use crate::storage::Storage;
use crate::storage::sim::{PageMode, SimStorage};

type Write<'a> = (&'a [u8], Option<&'a [u8]>);

fn record((key, value): Write<'_>) -> Vec<u8> {
    let mut entry = 1_600_000_000_000_i64.to_le_bytes().to_vec();
    entry.extend((key.len() as u64).to_le_bytes());
    entry.extend(key);
    entry.push(value.is_some() as u8);
    if let Some(value) = value {
        entry.extend((value.len() as u64).to_le_bytes());
        entry.extend(value);
    }
    [&(entry.len() as u64).to_le_bytes()[..], &entry].concat()
}

fn log(headed: bool, writes: &[Write<'_>]) -> Vec<u8> {
    let mut log = if headed { b"KVS1\0\0\x10\0\0\0\0\0".to_vec() } else { Vec::new() };
    writes.iter().for_each(|write| log.extend(record(*write)));
    log
}

fn store() -> Store {
    let sim = SimStorage::new(1, PageMode::Page);
    let options = Options { background: false, segment_size: 64 << 10, ..Options::default() };
    Store::open_on(Arc::new(sim), &options).unwrap()
}

fn import(store: &Store, bytes: &[u8]) -> Result<Report> {
    let sim = SimStorage::new(2, PageMode::Page);
    sim.put_file("old.log", bytes);
    let file = sim.open("old.log", false).unwrap();
    store.import_from("old.log", &file, &mut Progress::new(&mut |_, _| true))
}

const WRITES: [Write<'static>; 7] = [
    (b"a", Some(b"1")),
    (b"", Some(b"")),
    (b"b", Some(b"two")),
    (b"a", None),
    (b"never there", None),
    (b"c", Some(&[7; 100])),
    (b"b", Some(b"\0")),
];

/// What the first so many writes come to.
fn check(store: &Store, writes: usize) {
    for (key, _) in WRITES {
        let newest = WRITES[..writes].iter().rev().find(|write| write.0 == key).and_then(|write| write.1);
        assert_eq!(store.get(key).unwrap().as_deref(), newest, "{key:?} after {writes} writes");
    }
}

#[test]
fn everything_is_taken_over_in_order_and_again() {
    for headed in [false, true] {
        let (store, log) = (store(), log(headed, &WRITES));
        for _ in 0..2 {
            let report = import(&store, &log).unwrap();
            report.verdict().unwrap();
            let totals = report.totals;
            assert_eq!((totals.records, totals.tombstones, totals.problems, totals.bytes), (7, 2, 0, log.len() as u64));
            check(&store, WRITES.len());
        }
    }
    import(&store(), b"").unwrap().verdict().unwrap();
    import(&store(), b"KVS1\0\0\0\0\0\0\0\0").unwrap().verdict().unwrap();
}

#[test]
fn a_tail_torn_at_any_byte_is_skipped_and_reported() {
    for headed in [false, true] {
        let whole = log(headed, &WRITES);
        let ends: Vec<_> = (0..=WRITES.len()).map(|n| log(headed, &WRITES[..n]).len()).collect();
        for len in ends[0]..=whole.len() {
            let writes = ends.iter().rposition(|end| *end <= len).unwrap();
            // Cut, or cut and followed by zeros where the length was on disk and the bytes were not.
            for zeros in [0, 1, 9, 5000] {
                if zeros > 0 && (ends[writes] != len || writes == 0 && !headed) {
                    continue;
                }
                let store = store();
                let bytes = [&whole[..len], &vec![0; zeros]].concat();
                let report = import(&store, &bytes).unwrap();
                report.verdict().unwrap();
                let torn = bytes.len() - ends[writes];
                assert_eq!(report.totals.problems, (torn > 0) as u64, "{len}");
                assert_eq!(report.totals.torn_bytes, torn as u64);
                if torn > 0 {
                    assert_eq!(report.problems[0].offset, ends[writes] as u64);
                }
                check(&store, writes);
            }
        }
    }
}

#[test]
fn garbage_in_the_middle_ends_the_import() {
    for headed in [false, true] {
        for writes in 0..WRITES.len() {
            let before = log(headed, &WRITES[..writes]);
            let after = log(false, &WRITES[writes..]);
            let mut bad = Vec::new();
            for (at, flip) in [(0, 0x80), (0, 1), (4, 1), (7, 0x80), (16, 0x10), (20, 1)] {
                let mut bytes = after.clone();
                bytes[at] ^= flip;
                bad.push(bytes);
            }
            bad.push([&[0; 8], &after[..]].concat());
            bad.push([&16_u64.to_le_bytes(), &after[..]].concat());
            for bad in bad {
                let store = store();
                let result = import(&store, &[&before[..], &bad].concat());
                if before.is_empty() {
                    assert_eq!(result.unwrap_err().code(), Code::Format);
                } else {
                    let report = result.unwrap();
                    assert_eq!(report.verdict().unwrap_err().code(), Code::Corrupt, "{writes}: {bad:?}");
                    assert_eq!(report.problems[0].offset, before.len() as u64);
                    assert_eq!(report.problems[0].file, "old.log");
                }
                check(&store, writes);
            }
        }
    }
}

#[test]
fn what_is_no_such_log_is_refused() {
    let others: [&[u8]; 6] =
        [b"#include <stdio.h>\n", b"hello, world", b"KVS1\0\0", &[0; 100], &[0xff; 100], b"kvstore\n\x01\0\0\0"];
    for bytes in others {
        let store = store();
        assert_eq!(import(&store, bytes).unwrap_err().code(), Code::Format, "{bytes:?}");
        assert_eq!(store.stats().keys, 0);
    }
}

#[test]
fn large_values_and_many_records_pass_through_the_window() {
    let (store, mut bytes, mut values) = (store(), log(true, &[]), Vec::new());
    for n in 0..600_u32 {
        let len = if n % 100 == 7 { 1_500_000 } else { n as usize * 17 };
        let value: Vec<u8> = (0..len).map(|i| (i as u32 * 31 + n) as u8).collect();
        bytes.extend(record((&n.to_le_bytes(), Some(&value))));
        values.push(value);
    }
    let report = import(&store, &bytes).unwrap();
    assert_eq!((report.totals.records, report.totals.written_records), (600, 600));
    for (n, value) in values.iter().enumerate() {
        assert!(store.get(&(n as u32).to_le_bytes()).unwrap().as_ref() == Some(value), "{n}");
    }
    let too_long = [log(true, &[]), record((&vec![1; MAX_KEY_LEN + 1], None))].concat();
    assert_eq!(import(&store, &too_long).unwrap_err().code(), Code::TooLarge);
}

#[test]
fn random_damage_is_an_error_or_nothing_and_no_panic() {
    let mut rng = crate::model_tests::Rng(1);
    for _ in 0..1000 {
        let mut bytes = log(rng.below(2) == 0, &WRITES);
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(4) {
                0 => bytes[at] ^= 1 << rng.below(8),
                1 => bytes.truncate(at.max(1)),
                2 => bytes[at] = rng.next() as u8,
                _ => drop(bytes.splice(at..at, rng.next().to_le_bytes())),
            }
        }
        match import(&store(), &bytes) {
            Ok(report) => assert!(report.totals.bytes + report.totals.torn_bytes <= bytes.len() as u64),
            Err(e) => assert!(matches!(e.code(), Code::Format | Code::TooLarge), "{e}"),
        }
    }
}
