//! Ways to break a promise that were found once, each as short as it could be made.

use std::sync::Arc;

use crate::log::record::{DataFileEntry, encode_record, record_len};
use crate::storage::Storage;
use crate::storage::sim::{Calls, Crash, FaultPlan, PageMode, SimStorage, Unsynced};
use crate::{Code, IoPath, Options, Store};

fn options() -> Options {
    Options { segment_size: 4 << 10, compact_threshold: 1 << 20, background: false, ..Options::default() }
}

fn open(sim: &SimStorage) -> Store {
    Store::open_on(Arc::new(sim.clone()), &options()).unwrap()
}

fn power_cut(sim: &SimStorage, fate: Unsynced) -> SimStorage {
    let cut = sim.deep_copy();
    cut.set_unsynced(fate);
    cut.crash_now(Crash::Power);
    cut.reboot()
}

/// The mark of a sync does not always fit into the blocks at hand. Then nothing has been appended since the sync, but
/// MANIFEST still has to learn how long the segment is.
#[test]
fn closing_records_the_length_where_a_sync_left_no_mark() {
    let sim = SimStorage::new(1, PageMode::Page);
    let store = open(&sim);
    store.set(b"a", b"1").unwrap();
    store.close().unwrap();
    let store = open(&sim);
    // Exactly as much as the segment can take, so that there is no room for a mark.
    let len = sim.read_file("0000000001.log").unwrap().len();
    let overhead = 8 + 8 + 8 + 1 + 1 + 8 + 4;
    store.set(b"b", &vec![7; (4 << 10) - len - overhead]).unwrap();
    store.sync().unwrap();
    store.close().unwrap();
    let store = open(&sim);
    let info = store.recovery_info();
    assert!(info.clean && info.scanned_records == 0, "{info:?}");
    store.close().unwrap();
    // What has been closed is known to be synced: damage there is never taken for a tear.
    let rotten = sim.deep_copy();
    rotten.corrupt("0000000001.log", 4000, 1);
    let store = open(&rotten);
    assert_eq!(store.get(b"b").map_err(|e| e.code()), Err(Code::Corrupt));
}

/// A hint covers the last segment as it was when the store was closed. What is appended to it later needs another one, also
/// if a compaction has told MANIFEST of that already.
#[test]
fn closing_makes_a_hint_of_what_manifest_knows_already() {
    let sim = SimStorage::new(1, PageMode::Page);
    let options = Options { compact_threshold: 1, garbage_percent: 1, ..options() };
    let open = || Store::open_on(Arc::new(sim.clone()), &options).unwrap();
    let store = open();
    store.set(b"x", &[1; 3000]).unwrap();
    store.set(b"y", &[2; 3000]).unwrap();
    store.close().unwrap();
    let store = open();
    // The first segment becomes garbage, and the second one full, so that there is no room for a mark either.
    let len = sim.read_file("0000000002.log").unwrap().len();
    store.set(b"x", &vec![3; (4 << 10) - len - record_len(1, Some(0)) as usize]).unwrap();
    while store.maintain(u64::MAX).unwrap() {}
    assert!(sim.read_file("0000000001.log").is_none());
    store.close().unwrap();
    let store = open();
    let info = store.recovery_info();
    assert!(info.clean && info.scanned_records == 0, "{info:?}");
}

/// Hints are not synced. Those that a power cut takes are made again before the store is closed, which it may never be.
#[test]
fn hints_that_are_missing_are_made_in_the_background() {
    let sim = SimStorage::new(1, PageMode::Page);
    let store = open(&sim);
    (0..100u8).for_each(|n| store.set(&[n], &[n; 300]).unwrap());
    store.close().unwrap();
    let hints = || sim.list().unwrap().into_iter().filter(|name| name.ends_with(".hint")).collect::<Vec<_>>();
    let made = hints();
    assert!(made.len() > 5, "{made:?}");
    // The last one is of the active segment.
    made[..made.len() - 1].iter().for_each(|name| sim.remove(name).unwrap());
    let store = open(&sim);
    assert!(store.recovery_info().scanned_records > 50);
    while store.maintain(1 << 20).unwrap() {}
    assert_eq!(hints(), made);
    assert_eq!(open(&sim.deep_copy()).recovery_info().scanned_records, 0);
    store.close().unwrap();
}

/// The rename that made the inputs of a compaction superfluous is durable only once the directory is synced. Whoever
/// finds them after a kill must not unlink them before.
#[test]
fn a_recovery_removes_nothing_that_a_power_cut_could_bring_back_into_manifest() {
    let work = |sim: &SimStorage| {
        let store = Store::open_on(Arc::new(sim.clone()), &options())?;
        store.set(b"a", b"1")?;
        store.set(b"a", b"2")?;
        store.compact()?;
        store.close()
    };
    let traced = SimStorage::new(1, PageMode::Page);
    traced.start_trace();
    work(&traced).unwrap();
    let mut tried = 0;
    for op in (0..traced.op_count()).filter(|&op| traced.trace()[op as usize] == "sync_dir") {
        let sim = SimStorage::new(1, PageMode::Page);
        sim.crash_at(op, Crash::Kill);
        let _ = work(&sim);
        let killed = sim.reboot();
        let recovered = killed.deep_copy();
        let Ok(store) = Store::open_on(Arc::new(recovered.clone()), &options()) else {
            continue;
        };
        // All changes of the directory are independent of each other.
        for seed in 0..40 {
            recovered.reseed(seed);
            let cut = power_cut(&recovered, Unsynced::Mixed);
            let opened = Store::open_on(Arc::new(cut.clone()), &options());
            let opened = opened.unwrap_or_else(|e| panic!("killed at operation {op}, power cut {seed}: {e}"));
            tried += 1;
            drop(opened);
        }
        drop(store);
    }
    assert!(tried > 0);
}

/// After a failed sync the kernel may take pages for written that are not. The next to open the database reads them from
/// the page cache; what it syncs, it must have written again.
#[test]
fn a_sync_after_a_failed_sync_and_opening_again_covers_what_was_read() {
    for io in [IoPath::Auto, IoPath::Syscall] {
        for seed in 0..20 {
            let sim = SimStorage::new(seed, PageMode::Page);
            let options = Options { io, ..options() };
            let store = Store::open_on(Arc::new(sim.clone()), &options).unwrap();
            store.set(b"a", b"1").unwrap();
            sim.fail(FaultPlan { at: 0, errno: libc::EIO, persistent: false, calls: Calls::SYNC });
            assert_eq!(store.sync().unwrap_err().code(), Code::Poisoned);
            assert_eq!(store.close().unwrap_err().code(), Code::Poisoned);
            let store = Store::open_on(Arc::new(sim.clone()), &options).unwrap();
            let found = store.get(b"a").unwrap();
            store.sync().unwrap();
            let store = Store::open_on(Arc::new(power_cut(&sim, Unsynced::Lost)), &options).unwrap();
            assert_eq!(store.get(b"a").unwrap(), found, "seed {seed}, {io:?}");
        }
    }
}

/// An error that is over by now says nothing about the data.
#[test]
fn a_read_that_failed_once_does_not_keep_a_segment_from_compaction() {
    for errno in [libc::EIO, libc::EINTR, libc::ENOMEM, libc::EMFILE] {
        for later in 0..120 {
            let sim = SimStorage::new(1, PageMode::Page);
            let store = open(&sim);
            store.set(b"b", b"1").unwrap();
            (0..9).for_each(|n| store.set(b"a", &[n; 300]).unwrap());
            sim.fail(FaultPlan { at: sim.call_count() + later, errno, persistent: false, calls: Calls::READ });
            let _ = store.compact();
            sim.heal();
            store.compact().unwrap_or_else(|e| panic!("errno {errno}, a read {later} calls later: {e}"));
            assert_eq!((store.stats().quarantined_segments, store.stats().dead_bytes), (0, 0));
        }
    }
}

/// The rename that made the first MANIFEST is durable only once the directory is synced. Whoever finds it after a kill
/// must not create a segment before: a log without a MANIFEST is no database.
#[test]
fn a_manifest_that_a_killed_process_left_is_durable_before_the_first_segment() {
    let created = SimStorage::new(1, PageMode::Page);
    created.start_trace();
    drop(open(&created));
    let rename = created.trace().iter().position(|op| op.starts_with("rename")).unwrap() as u64;
    for seed in 0..100 {
        let sim = SimStorage::new(seed, PageMode::Page);
        sim.set_unsynced(Unsynced::Lost);
        sim.crash_at(rename + 1, Crash::Kill);
        let _ = Store::open_on(Arc::new(sim.clone()), &options());
        let killed = sim.reboot();
        killed.set_unsynced(Unsynced::Mixed);
        let store = open(&killed);
        store.set(b"a", b"1").unwrap();
        killed.crash_at(killed.op_count(), Crash::Power);
        let _ = store.sync();
        drop(open(&killed.reboot()));
    }
}

/// An unsealed segment of which nothing is left had been synced when the store was closed: that is no orphan of a crash.
#[test]
fn a_synced_segment_that_was_emptied_is_not_passed_over_in_silence() {
    let sim = SimStorage::new(1, PageMode::Page);
    let store = open(&sim);
    store.set(b"key", b"value").unwrap();
    store.close().unwrap();
    let log = sim.files().into_iter().find(|name| name.ends_with(".log")).unwrap();
    sim.put_file(&log, &[]);
    assert!(open(&sim).recovery_info().damaged_records > 0);
}

/// What made a record garbage may be no more durable than the last sync. It must be before the record goes.
#[test]
fn compaction_drops_nothing_for_the_sake_of_what_a_power_cut_may_take() {
    for write in [|store: &Store| store.set(b"a", b"2"), |store: &Store| store.del(b"a").map(drop)] {
        let sim = SimStorage::new(1, PageMode::Page);
        let eager = Options { compact_threshold: 1, ..options() };
        let store = Store::open_on(Arc::new(sim.clone()), &eager).unwrap();
        store.set(b"a", b"1").unwrap();
        store.engine.appender().unwrap().rotate().unwrap();
        while store.maintain(1 << 20).unwrap() {}
        store.set(b"b", &[1; 500]).unwrap();
        store.sync().unwrap();
        write(&store).unwrap();
        while store.maintain(1 << 20).unwrap() {}
        assert_eq!(store.stats().compactions, 1);
        let found = open(&power_cut(&sim, Unsynced::Lost)).get(b"a").unwrap();
        assert_eq!(found, store.get(b"a").unwrap(), "compaction has synced what it relied on");
    }
}

/// Compaction may drop the newest record of all. What is written after it, at whatever time, must still count as newer
/// than what MANIFEST has seen.
#[test]
fn the_last_timestamp_outlives_its_record() {
    let sim = SimStorage::new(1, PageMode::Page);
    sim.set_clock(1_800_000_000_000_000_000);
    let store = open(&sim);
    store.set(b"a", b"1").unwrap();
    store.del(b"a").unwrap();
    store.compact().unwrap();
    store.close().unwrap();
    sim.set_clock(1_700_000_000_000_000_000);
    let store = open(&sim);
    store.set(b"b", b"2").unwrap();
    let killed = sim.reboot();
    drop(store);
    assert_eq!(open(&killed).get(b"b").unwrap().as_deref(), Some(&b"2"[..]));
}

/// What a failed write has left behind the end of the log may hold, in a value, what looks like a record.
#[test]
fn what_a_failed_write_left_behind_is_not_read_as_records() {
    let entry = DataFileEntry { timestamp: i64::MAX / 2, key: b"forged", value: Some(b"forged") };
    let mut forged = vec![0; record_len(6, Some(6)) as usize];
    encode_record(&entry, &mut forged).unwrap();
    for seed in 0..30 {
        let sim = SimStorage::new(seed, PageMode::Page);
        let by_calls = Options { io: IoPath::Syscall, ..options() };
        let store = Store::open_on(Arc::new(sim.clone()), &by_calls).unwrap();
        store.set(b"first", b"1").unwrap();
        sim.fail(FaultPlan { at: 0, errno: libc::EIO, persistent: false, calls: Calls::WRITE });
        assert_eq!(store.set(b"sixsix", &forged.repeat(9)).unwrap_err().code(), Code::Io);
        // Ends where the value would have begun.
        store.set(b"k", b"v").unwrap();
        let killed = sim.reboot();
        drop(store);
        let store = open(&killed);
        assert_eq!(store.get(b"forged").unwrap(), None, "seed {seed}");
        assert_eq!(store.stats().keys, 2);
    }
}

/// Should the disk fail when output is sent to it early, only that call may tell: the output must not replace its inputs.
#[test]
fn output_that_could_not_be_sent_to_the_disk_is_given_up() {
    let value = |n: u32| vec![n as u8; 2000];
    for seed in 0..5 {
        let sim = SimStorage::new(seed, PageMode::Page);
        let large = Options { segment_size: 2 << 20, ..options() };
        let store = Store::open_on(Arc::new(sim.clone()), &large).unwrap();
        for n in (0..300u32).chain(0..100) {
            store.set(&n.to_le_bytes(), &value(n)).unwrap();
        }
        sim.fail(FaultPlan { at: 0, errno: libc::EIO, persistent: false, calls: Calls::START_SYNC });
        assert_eq!(store.compact().unwrap_err().code(), Code::Io, "seed {seed}");
        store.compact().unwrap();
        let crashed = power_cut(&sim, Unsynced::Lost);
        drop(store);
        let store = open(&crashed);
        for n in 0..300u32 {
            assert_eq!(store.get(&n.to_le_bytes()).unwrap(), Some(value(n)), "seed {seed}");
        }
    }
}

/// Compaction trusts a hint to name all live records of a segment, but only once it has found its checksum right.
#[test]
fn compaction_loses_nothing_to_a_hint_that_rots_while_the_store_is_open() {
    let (mut hinted, mut at) = (true, 0);
    while hinted {
        let sim = SimStorage::new(1, PageMode::Page);
        let store = open(&sim);
        (0..8).for_each(|n| store.set(&[n], &[n; 90]).unwrap());
        store.set(b"deleted", b"").unwrap();
        store.compact().unwrap();
        store.set(&[0], b"new").unwrap();
        assert!(store.del(b"deleted").unwrap());
        let hint = sim.files().into_iter().find(|name| name.ends_with(".hint")).unwrap();
        hinted = at < sim.read_file(&hint).unwrap().len();
        if hinted {
            sim.corrupt(&hint, at, 0x41);
        }
        at += 1;
        store.compact().unwrap();
        store.close().unwrap();
        let store = open(&sim);
        assert_eq!(store.get(&[0]).unwrap().as_deref(), Some(&b"new"[..]), "byte {at}");
        (1..8).for_each(|n| assert_eq!(store.get(&[n]).unwrap().as_deref(), Some(&[n; 90][..]), "byte {at}"));
        assert_eq!(store.get(b"deleted").unwrap(), None, "byte {at}");
    }
    assert!(at > 200, "the hint has only {at} bytes");
}

/// To know whether a tombstone is needed, compaction may have to read a newer record, of a segment that is none of its inputs.
/// If that cannot be read, another look at the input does not help: it once went on for ever.
#[test]
fn compaction_ends_when_a_newer_record_of_a_deleted_key_cannot_be_read() {
    let sim = SimStorage::new(1, PageMode::Page);
    let open = || Store::open_on(Arc::new(sim.clone()), &Options { io: IoPath::Syscall, ..options() }).unwrap();
    let store = open();
    let pad = |names: std::ops::Range<u8>| names.for_each(|n| store.set(&[n], &[n; 600]).unwrap());
    store.set(b"key", b"old").unwrap();
    assert!(store.del(b"key").unwrap());
    pad(0..7);
    store.set(b"key", b"new").unwrap();
    pad(7..250);
    store.close().unwrap();
    let store = open();
    // After this no descriptor of the second segment is left.
    (20..250).for_each(|n| assert!(store.get(&[n]).unwrap().is_some()));
    Storage::remove(&sim, "0000000002.log").unwrap();
    assert_eq!(store.compact().unwrap_err().code(), Code::Io);
    assert_eq!(store.get(&[0]).unwrap().as_deref(), Some(&[0; 600][..]));
}
