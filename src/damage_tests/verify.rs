//! Verification finds nothing where nothing is damaged, and all damage else. It writes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::{closed, contents, open, options, quietly, verify, work};
use crate::log::header::HEADER_LEN;
use crate::log::hint;
use crate::model_tests::Rng;
use crate::storage::Storage;
use crate::storage::sim::{Crash, PageMode, SimStorage};
use crate::verify::verify_on;
use crate::{Code, Options, Progress, Report, Store};

fn assert_clean(report: &Report, what: &str) {
    assert_eq!(report.problems, [], "{what}: {:?}", report.totals);
    report.verdict().unwrap();
}

#[test]
fn nothing_is_found_in_a_sound_database_and_nothing_is_written() {
    for seed in 0..60 {
        let sim = closed(seed, 150);
        let (before, operations) = (contents(&sim), sim.op_count());
        let report = verify(&sim).unwrap();
        assert_clean(&report, &format!("seed {seed}"));
        assert_eq!(contents(&sim), before);
        assert_eq!(sim.op_count(), operations, "verification changes nothing");
        let store = open(&sim, &Options { background: false, ..Options::default() }).unwrap();
        let (stats, totals) = (store.stats(), &report.totals);
        assert_eq!((totals.segments, totals.bytes), (stats.segments, stats.log_bytes), "seed {seed}");
        assert!(totals.records >= stats.keys + totals.tombstones);
        assert_eq!((totals.torn_bytes, totals.unusable_hints, totals.orphan_files), (0, 0, 0), "seed {seed}");
        assert_clean(&quietly(|progress| store.verify(progress)).unwrap(), &format!("seed {seed}, open"));
    }
}

#[test]
fn what_a_crash_leaves_is_no_damage() {
    for seed in 0..200 {
        let mut rng = Rng(seed);
        let mode = if rng.below(2) == 0 { PageMode::Page } else { PageMode::Sector };
        let mut sim = SimStorage::new(seed, mode);
        for round in 0..3 {
            let kind = if rng.below(2) == 0 { Crash::Kill } else { Crash::Power };
            sim.crash_at(rng.below(250), kind);
            if let Ok(store) = open(&sim, &options(&mut rng)) {
                let _ = work(&store, &mut rng, 100);
                sim.crash_now(kind);
            }
            sim = sim.reboot();
            let before = contents(&sim);
            match verify(&sim) {
                Ok(report) => assert_clean(&report, &format!("seed {seed}, round {round}, {:?}", sim.files())),
                Err(e) => assert_eq!((e.code(), before.len() < 3), (Code::NotADatabase, true), "seed {seed}: {e}"),
            }
            assert_eq!(contents(&sim), before);
        }
    }
}

#[test]
fn an_open_store_can_be_verified_while_it_is_written_to() {
    for seed in 0..30 {
        let (sim, mut rng) = (SimStorage::new(seed, PageMode::Page), Rng(seed));
        let store = open(&sim, &options(&mut rng)).unwrap();
        for _ in 0..20 {
            work(&store, &mut rng, 30).unwrap();
            let report = quietly(|progress| store.verify(progress)).unwrap();
            assert_clean(&report, &format!("seed {seed}"));
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_size: 32 << 10, compact_threshold: 1, ..Options::default() };
    let store = Store::open(&dir.path().join("db"), &options).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut rng = Rng(1);
            for _ in 0..20 {
                work(&store, &mut rng, 100).unwrap();
            }
            done.store(true, Relaxed);
        });
        while !done.load(Relaxed) {
            assert_clean(&quietly(|progress| store.verify(progress)).unwrap(), "threads");
        }
    });
}

/// Flips each bit of each file. LOCK holds nothing, and a hint that opening ignores is counted, not a problem.
#[test]
fn each_flipped_bit_is_found() {
    let interesting = |seed: &u64| {
        let sound = verify(&closed(*seed, 12)).unwrap();
        assert_clean(&sound, "before");
        let totals = sound.totals;
        totals.segments > 1 && totals.batches > 0 && totals.tombstones > 0 && totals.bytes < 8000
    };
    for seed in (0..).filter(interesting).take(2) {
        let sim = closed(seed, 12);
        let mut flipped = 0;
        for (name, bytes) in contents(&sim) {
            for bit in 0..if name == "LOCK" { 0 } else { bytes.len() * 8 } {
                // All of the small structures, one of each byte of the values.
                if bit > 600 && bit % 8 != bit / 8 % 8 {
                    continue;
                }
                sim.corrupt(&name, bit / 8, 1 << (bit % 8));
                let report = verify(&sim).unwrap();
                let found = match name.ends_with(".hint") {
                    true => report.totals.unusable_hints == 1 && report.problems.is_empty(),
                    false => {
                        report.problems.iter().any(|p| p.file == name)
                            && report.problems.iter().all(|p| p.file == name)
                            && report.verdict().unwrap_err().code() == Code::Corrupt
                    }
                };
                assert!(found, "seed {seed}: {name}: bit {bit}: {report:?}");
                sim.corrupt(&name, bit / 8, 1 << (bit % 8));
                flipped += 1;
            }
        }
        assert!(flipped > 2000, "{flipped}");
    }
}

#[test]
fn files_cut_short_swapped_or_gone_are_found() {
    let sim = closed(5, 60);
    let files: Vec<_> = contents(&sim).into_iter().filter(|(name, _)| name != "LOCK").collect();
    let logs: Vec<_> = files.iter().filter(|(name, _)| name.ends_with(".log")).collect();
    assert!(logs.len() > 2);
    for (name, bytes) in &files {
        let is_hint = name.ends_with(".hint");
        let judge = |what: &str| {
            let report = verify(&sim).unwrap();
            let found = report.problems.iter().any(|p| p.file == *name);
            assert_eq!(found, !is_hint, "{name} {what}: {report:?}");
            assert_eq!(report.totals.unusable_hints > 0, is_hint, "{name} {what}: {report:?}");
            report
        };
        for len in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            sim.put_file(name, &bytes[..len]);
            let report = judge(&format!("cut to {len}"));
            if name.ends_with(".log") {
                assert!(report.totals.lost_bytes >= (bytes.len() - len) as u64, "{report:?}");
            }
        }
        sim.put_file(name, bytes);
        sim.remove(name).unwrap();
        judge("gone");
        sim.put_file(name, bytes);
    }
    let other = &closed(6, 60);
    for (name, bytes) in &logs {
        let foreign = other.read_file(name).unwrap_or_else(|| logs[0].1.clone());
        if foreign != *bytes {
            sim.put_file(name, &foreign);
            let report = verify(&sim).unwrap();
            assert!(report.problems.iter().any(|p| p.file == *name && p.offset == 0), "{report:?}");
        }
        sim.put_file(name, bytes);
    }
    assert_clean(&verify(&sim).unwrap(), "put back");
}

/// A hint whose checksum is right is believed by opening, so what it says is compared with the segment.
#[test]
fn a_hint_that_lies_is_found() {
    let sim = closed(7, 40);
    let close = |bytes: &mut [u8]| {
        let (body, crc) = bytes.split_last_chunk_mut::<4>().unwrap();
        *crc = crc32c::crc32c(body).to_le_bytes();
    };
    let mut tried = 0;
    for (name, bytes) in contents(&sim).into_iter().filter(|(name, _)| name.ends_with(".hint")) {
        let entries = (bytes.len() - 68) / 32;
        for number in 0..entries {
            for field in 0..4 {
                let mut bad = bytes.clone();
                bad[64 + number * 32 + field * 8] ^= 1;
                close(&mut bad);
                sim.put_file(&name, &bad);
                let report = verify(&sim).unwrap();
                let at = hint::offset_of(number as u64);
                assert!(report.problems.iter().any(|p| p.file == name && p.offset == at), "{name}: {report:?}");
                tried += 1;
            }
        }
        if entries > 1 {
            // One entry twice, another left out: each by itself is right.
            let mut bad = bytes.clone();
            bad.copy_within(64..96, 96);
            close(&mut bad);
            sim.put_file(&name, &bad);
            let report = verify(&sim).unwrap();
            assert!(report.problems.iter().any(|p| p.file == name && p.offset == 0), "{report:?}");
        }
        sim.put_file(&name, &bytes);
    }
    assert!(tried > 40, "{tried}");
}

#[test]
fn an_open_store_tells_of_damage() {
    let sim = closed(8, 40);
    let log = sim.files().into_iter().find(|name| name.ends_with(".log")).unwrap();
    let store = open(&sim, &Options { background: false, ..Options::default() }).unwrap();
    sim.corrupt(&log, HEADER_LEN + 30, 4);
    let report = quietly(|progress| store.verify(progress)).unwrap();
    assert_eq!(report.verdict().unwrap_err().code(), Code::Corrupt);
    assert!(report.problems.iter().any(|p| p.file == log && p.offset == HEADER_LEN as u64), "{report:?}");
}

#[test]
fn it_can_be_cancelled_and_respects_the_lock() {
    let sim = closed(9, 40);
    let storage: Arc<dyn Storage> = Arc::new(sim.handle());
    for calls in 0..3 {
        let mut left = calls;
        let mut report = |_, _| {
            left -= 1;
            left >= 0
        };
        let error = verify_on(&storage, &mut Progress::new(&mut report)).unwrap_err();
        assert_eq!(error.code(), Code::Cancelled);
    }
    let store = open(&sim, &Options::default()).unwrap();
    assert_eq!(verify(&sim).unwrap_err().code(), Code::Locked);
    store.close().unwrap();
    let reader = open(&sim, &Options { read_only: true, ..Options::default() }).unwrap();
    assert_clean(&verify(&sim).unwrap(), "beside a reader");
    drop(reader);
    open(&sim, &Options::default()).unwrap();
}

#[test]
fn a_checkpoint_is_sound_and_damage_to_it_is_found() {
    for seed in 0..10 {
        let (sim, mut rng) = (SimStorage::new(seed, PageMode::Page), Rng(seed));
        let store = open(&sim, &options(&mut rng)).unwrap();
        work(&store, &mut rng, 150).unwrap();
        let copy = sim.directory("copy");
        quietly(|progress| store.engine.checkpoint(&copy, None, progress)).unwrap();
        assert_clean(&verify(&copy).unwrap(), &format!("seed {seed}"));
        work(&store, &mut rng, 50).unwrap();
        store.close().unwrap();
        assert_clean(&verify(&copy).unwrap(), &format!("seed {seed}, the store has gone on"));
        let written = open(&copy, &options(&mut rng)).unwrap();
        work(&written, &mut rng, 50).unwrap();
        written.close().unwrap();
        assert_clean(&verify(&copy).unwrap(), &format!("seed {seed}, written to"));
        let log = copy.files().into_iter().find(|name| name.ends_with(".log")).unwrap();
        copy.corrupt(&log, HEADER_LEN + 20, 1);
        assert!(verify(&copy).unwrap().problems.iter().any(|p| p.file == log));
    }
}
