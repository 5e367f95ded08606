//! Salvage gets everything out whose bytes are intact, and of each key the newest.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{closed, contents, key, open, options, quietly, work};
use crate::log::header::HEADER_LEN;
use crate::log::record::{CRC_LEN, Head};
use crate::model_tests::Rng;
use crate::salvage::salvage_with;
use crate::storage::Storage;
use crate::storage::sim::{Crash, PageMode, SimStorage};
use crate::survey::{Extent, Found, survey};
use crate::{Batch, Code, Options, Progress, Report, Result, Store};

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// A record as it is on disk.
struct Stored {
    file: String,
    frame: Vec<u8>,
    timestamp: i64,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

/// All records of a sound database.
fn records(sim: &SimStorage) -> Vec<Stored> {
    let mut records = Vec::new();
    for (name, bytes) in contents(sim).into_iter().filter(|(name, _)| name.ends_with(".log")) {
        let (file, end) = (sim.open(&name, false).unwrap(), bytes.len() as u64);
        survey(&name, &file, Extent { end, data_end: 0 }, &mut |found| {
            let Found::Record { offset, len, head, .. } = found else { panic!("{name} is sound") };
            let frame = bytes[offset as usize..(offset + len) as usize].to_vec();
            let value = head.value_len.map(|_| frame[head.value_at()..frame.len() - CRC_LEN].to_vec());
            let (timestamp, key) = (head.timestamp, head.key.to_vec());
            records.push(Stored { file: name.clone(), frame, timestamp, key, value });
            Ok(true)
        })
        .unwrap();
    }
    records
}

/// What must be there after damage: of each key the newest of the records that are still somewhere.
fn expected(records: &[Stored], damaged: &SimStorage) -> Content {
    let mut newest: BTreeMap<&[u8], &Stored> = BTreeMap::new();
    for record in records {
        let bytes = damaged.read_file(&record.file).unwrap_or_default();
        let frames = bytes.get(HEADER_LEN..).unwrap_or_default();
        if frames.windows(record.frame.len()).any(|window| window == record.frame)
            && newest.get(&record.key[..]).is_none_or(|known| known.timestamp < record.timestamp)
        {
            newest.insert(&record.key, record);
        }
    }
    newest.into_iter().filter_map(|(key, record)| Some((key.to_vec(), record.value.clone()?))).collect()
}

fn content(store: &Store) -> Content {
    (0..20).map(key).filter_map(|key| Some((key.clone(), store.get(&key).unwrap()?))).collect()
}

/// Salvages to a new disk, and opens what is there then.
fn salvage(sim: &SimStorage) -> Result<(Report, Content)> {
    let source: Arc<dyn Storage> = Arc::new(sim.handle());
    let target = SimStorage::new(1, PageMode::Page);
    let options = Options { exclusive: true, background: false, ..Options::default() };
    let before = contents(sim);
    let report = quietly(|progress| salvage_with(&source, || open(&target, &options), progress))?;
    assert_eq!(contents(sim), before, "the source is left alone");
    target.crash_now(Crash::Power);
    let target = target.reboot();
    assert_eq!(super::verify(&target)?.problems, []);
    let store = open(&target, &Options { background: false, ..Options::default() })?;
    assert!(store.recovery_info().clean);
    let content = content(&store);
    assert_eq!(store.stats().keys, content.len() as u64);
    assert_eq!(report.totals.written_records, content.len() as u64);
    Ok((report, content))
}

#[test]
fn a_sound_database_is_copied_whole() {
    for seed in 0..20 {
        let sim = closed(seed, 120);
        let (report, found) = salvage(&sim).unwrap();
        assert_eq!(report.problems, [], "seed {seed}");
        let store = open(&sim, &Options { read_only: true, ..Options::default() }).unwrap();
        assert_eq!(found, content(&store), "seed {seed}");
    }
}

fn damage(sim: &SimStorage, rng: &mut Rng) -> String {
    let names: Vec<_> = sim.files().into_iter().filter(|name| name != "LOCK").collect();
    let name = &names[rng.below(names.len() as u64) as usize];
    let mut bytes = sim.read_file(name).unwrap();
    let at = rng.below(bytes.len() as u64 + 1) as usize;
    let to = (at + 1 + rng.below(300) as usize).min(bytes.len());
    let kind = rng.below(7);
    match kind {
        0 | 1 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
        2 if at < to => bytes[at..to].fill(0),
        3 if at < to => bytes[at..to].iter_mut().for_each(|byte| *byte = rng.next() as u8),
        4 => bytes.truncate(at),
        5 if at > HEADER_LEN && at < to => drop(bytes.drain(at..to)),
        6 if rng.below(3) == 0 => {
            sim.remove(name).unwrap();
            return format!("{name} removed");
        }
        _ => {
            let junk: Vec<u8> = (0..1 + rng.below(50)).map(|_| rng.next() as u8).collect();
            let at = at.max(HEADER_LEN.min(bytes.len()));
            bytes.splice(at..at, junk);
        }
    }
    sim.put_file(name, &bytes);
    format!("{name}: {kind} at {at}..{to}")
}

#[test]
fn what_is_intact_is_got_out_whatever_is_damaged() {
    for sample in 0..8 {
        let sound = closed(sample, 100);
        let records = records(&sound);
        for seed in 0..60 {
            let (mut rng, sim) = (Rng(sample << 32 | seed), sound.deep_copy());
            let done: Vec<_> = (0..1 + rng.below(6)).map(|_| damage(&sim, &mut rng)).collect();
            match salvage(&sim) {
                Ok((report, found)) => {
                    assert_eq!(found, expected(&records, &sim), "{sample}, {seed}: {done:?}: {report:?}");
                }
                // When even the last file is gone that tells what this was.
                Err(e) => assert_eq!(e.code(), Code::NotADatabase, "{sample}, {seed}: {done:?}: {e}"),
            }
        }
    }
}

#[test]
fn all_files_but_the_log_may_be_gone() {
    let sim = closed(11, 100);
    let records = records(&sim);
    for name in sim.files() {
        if !name.ends_with(".log") {
            sim.remove(&name).unwrap();
        }
    }
    let logs = sim.files();
    for name in &logs {
        (0..HEADER_LEN).for_each(|at| sim.corrupt(name, at, 0x5a));
    }
    let (report, found) = salvage(&sim).unwrap();
    assert_eq!(found, expected(&records, &sim));
    assert!(report.problems.iter().any(|p| p.file == "MANIFEST"));
    for name in &logs {
        assert!(report.problems.iter().any(|p| p.file == *name && p.offset == 0), "{report:?}");
    }
    assert_eq!(report.totals.lost_bytes, 0);
}

#[test]
fn after_a_crash_nothing_is_missing_that_opening_would_find() {
    for seed in 0..60 {
        let (sim, mut rng) = (SimStorage::new(seed, PageMode::Page), Rng(seed));
        let store = open(&sim, &options(&mut rng)).unwrap();
        work(&store, &mut rng, 120).unwrap();
        sim.crash_now(Crash::Kill);
        let sim = sim.reboot();
        let (report, found) = salvage(&sim).unwrap();
        assert_eq!(report.problems, [], "seed {seed}");
        let store = open(&sim, &Options { read_only: true, ..Options::default() }).unwrap();
        assert_eq!(found, content(&store), "seed {seed}");
    }
}

/// A value that holds a record, as the backup of a database does. If the record around it is damaged, what is inside is
/// not to be taken for a record.
#[test]
fn a_record_inside_a_damaged_value_is_not_believed() {
    let sim = SimStorage::new(1, PageMode::Page);
    let store = open(&sim, &Options { background: false, ..Options::default() }).unwrap();
    store.set(b"key", b"first").unwrap();
    let log = sim.files().into_iter().find(|name| name.ends_with(".log")).unwrap();
    let frames = sim.read_file(&log).unwrap()[HEADER_LEN..].to_vec();
    let len = 12 + u64::from_le_bytes(*frames.first_chunk().unwrap()) as usize;
    store.set(b"key", b"second").unwrap();
    let at = sim.read_file(&log).unwrap().iter().rposition(|&byte| byte != 0).unwrap() + 1;
    store.set(b"backup", &frames[..len]).unwrap();
    store.del(b"key").unwrap();
    store.close().unwrap();
    // Prefix and head are gone: nothing tells how long the record was.
    (at..at + 30).for_each(|at| sim.corrupt(&log, at, 0xff));
    let (report, found) = salvage(&sim).unwrap();
    assert_eq!(found, Content::new());
    assert!(report.totals.lost_bytes >= len as u64, "{report:?}");
    assert!(Head::parse(&frames[..len], len as u64).is_some());
}

#[test]
fn it_can_be_cancelled_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let store = Store::open(&old, &Options::default()).unwrap();
    for n in 0..300_u32 {
        store.set(&n.to_le_bytes(), &[n as u8; 10_000]).unwrap();
    }
    assert_eq!(quietly(|progress| crate::salvage(&old, &new, progress)).unwrap_err().code(), Code::Locked);
    store.close().unwrap();
    let mut calls = 0;
    for stop_at in 1.. {
        calls = 0;
        let mut report = |_, _| {
            calls += 1;
            calls < stop_at
        };
        match crate::salvage(&old, &new, &mut Progress::new(&mut report)) {
            Ok(_) => break,
            Err(e) => assert_eq!(e.code(), Code::Cancelled),
        }
        assert!(!new.exists(), "cancelled at call {stop_at}");
    }
    assert!(calls > 5, "{calls}");
    assert_eq!(quietly(|progress| crate::salvage(&old, &new, progress)).unwrap_err().code(), Code::Exists);
    let inside = old.join("inside");
    assert_eq!(quietly(|progress| crate::salvage(&old, &inside, progress)).unwrap_err().code(), Code::Invalid);
    assert_eq!(Store::open(&new, &Options::default()).unwrap().stats().keys, 300);
}

/// The intact records of a damaged batch come back, and what is not intact is reported once.
#[test]
fn a_damaged_batch_comes_back_in_part() {
    let sim = SimStorage::new(1, PageMode::Page);
    let store = open(&sim, &Options { background: false, ..Options::default() }).unwrap();
    store.set(b"before", &[1; 50]).unwrap();
    let from = store.stats().log_bytes as usize;
    let mut batch = Batch::new();
    [b"b1", b"b2", b"b3"].iter().for_each(|key| batch.set(*key, &[2; 50]).unwrap());
    store.write(&batch).unwrap();
    let to = store.stats().log_bytes as usize;
    store.set(b"after", &[3; 50]).unwrap();
    store.close().unwrap();
    let log = sim.files().into_iter().find(|name| name.ends_with(".log")).unwrap();
    let record = (to - from - 12) / 3;
    for (at, lost, problems) in [(from + 8 + record + 40, 1, 2), (to - 1, 0, 1)] {
        sim.corrupt(&log, at, 1);
        let target = SimStorage::new(2, PageMode::Page);
        let source: Arc<dyn Storage> = Arc::new(sim.handle());
        let options = Options { background: false, ..Options::default() };
        let report = quietly(|progress| salvage_with(&source, || open(&target, &options), progress)).unwrap();
        assert_eq!((report.totals.written_records, report.totals.batches), (5 - lost, 0));
        let store = open(&target, &options).unwrap();
        assert_eq!(store.exists(b"b2").unwrap(), lost == 0);
        [&b"before"[..], b"b1", b"b3", b"after"].iter().for_each(|key| assert!(store.exists(key).unwrap()));
        for report in [report, super::verify(&sim).unwrap()] {
            let places: Vec<_> = report.problems.iter().map(|p| p.offset as usize).collect();
            assert_eq!(places, [from, from + 8 + record][..problems], "{report:?}");
        }
        sim.corrupt(&log, at, 1);
    }
}
