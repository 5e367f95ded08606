use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::thread::{self, scope};
use std::time::Duration;

use super::claim::Claim;
use crate::log::record::{DataFileEntry, record_len};
use crate::storage::sim::{PageMode, SimStorage};
use crate::{Options, Progress, Store};

fn open(disk: &SimStorage) -> Store {
    let options = Options { background: false, ..Options::default() };
    Store::open_on(Arc::new(disk.handle()), &options).unwrap()
}

/// A place for a record of this key and value that is being filled.
fn claim<'a>(store: &'a Store, key: &[u8], value: &[u8]) -> Claim<'a> {
    let (engine, len) = (&store.engine, record_len(key.len(), Some(value.len())));
    let mut appender = engine.appender_alone().unwrap();
    if !appender.has_room(len, false) {
        appender.prepare(len, false, &engine.index).unwrap();
    }
    let shard = engine.index.write(engine.hash(key)).unwrap();
    let claim = appender.claim(len, shard).unwrap();
    claim.fill(&DataFileEntry { timestamp: claim.place.timestamp, key, value: Some(value) }).unwrap();
    claim
}

/// Whether `work` waits for what `then` does.
pub(crate) fn waits(work: impl FnOnce() + Send, then: impl FnOnce()) -> bool {
    let looked = |done: &AtomicBool| {
        thread::sleep(Duration::from_millis(20));
        done.load(Acquire)
    };
    !done_before(work, looked, then)
}

/// Whether `work` does not wait for what `then` does.
pub(crate) fn goes_on(work: impl FnOnce() + Send, then: impl FnOnce()) -> bool {
    done_before(work, |done| eventually(|| done.load(Acquire)), then)
}

fn done_before(work: impl FnOnce() + Send, look: impl FnOnce(&AtomicBool) -> bool, then: impl FnOnce()) -> bool {
    let done = AtomicBool::new(false);
    scope(|threads| {
        threads.spawn(|| {
            work();
            done.store(true, Release);
        });
        let before = look(&done);
        then();
        before
    })
}

/// Whether it comes to this, within a time that is long enough on any machine.
pub(crate) fn eventually(done: impl Fn() -> bool) -> bool {
    (0..10_000).any(|_| {
        thread::sleep(Duration::from_millis(1));
        done()
    })
}

#[test]
fn nobody_has_the_log_to_himself_while_a_place_is_open() {
    let store = open(&SimStorage::new(2, PageMode::Page));
    let open = claim(&store, b"key", b"value");
    assert!(waits(|| drop(store.engine.appender().unwrap()), || drop(open)));
}

#[test]
fn what_each_write_changes_is_on_the_line_of_the_append_lock() {
    let store = open(&SimStorage::new(2, PageMode::Page));
    store.set(b"key", b"value").unwrap();
    let lock = &raw const store.engine.appender as usize;
    let mut appender = store.engine.appender().unwrap();
    let changed = [&raw const appender.last_timestamp as usize, &raw const appender.appended as usize];
    let end = &raw const appender.active.as_mut().unwrap().end as usize;
    changed.into_iter().chain([end]).for_each(|place| assert_eq!(place / 64, lock / 64));
}

#[test]
fn pages_are_made_before_writers_come_to_them() {
    let store = Store::open_on(Arc::new(SimStorage::new(2, PageMode::Page)), &Options::default()).unwrap();
    (0..4000u64).for_each(|n| store.set(&n.to_le_bytes(), &[1; 1000]).unwrap());
    let many_at_hand = || store.engine.appender().unwrap().has_room(500 << 10, false);
    assert!(eventually(many_at_hand));
}

#[test]
fn pages_are_not_made_where_something_is_written() {
    let options = Options { segment_size: 4 << 20, compact_threshold: u64::MAX, ..Options::default() };
    let store = Store::open_on(Arc::new(SimStorage::new(2, PageMode::Page)), &options).unwrap();
    let value = |n: u32| vec![n as u8; if n.is_multiple_of(10) { 50_000 } else { 500 + n as usize }];
    const N: u32 = 2000;
    (0..N).for_each(|n| store.set(&n.to_le_bytes(), &value(n)).unwrap());
    (0..N).for_each(|n| assert!(store.get(&n.to_le_bytes()).is_ok_and(|found| found == Some(value(n))), "{n}"));
    store.verify(&mut Progress::new(&mut |_, _| true)).unwrap().verdict().unwrap();
}

#[test]
fn a_place_that_was_not_used_changes_nothing() {
    for stored in [false, true] {
        let disk = SimStorage::new(3, PageMode::Page);
        let store = open(&disk);
        let value = stored.then(|| b"value".to_vec());
        if stored {
            store.set(b"key", b"value").unwrap();
        }
        let unused = claim(&store, b"key", b"another");
        let other = claim(&store, b"other", b"");
        drop(unused);
        drop(other);
        store.set(b"last", b"of all").unwrap();
        let check = |store: &Store| {
            assert_eq!(store.get(b"key").unwrap(), value);
            assert_eq!(store.get(b"other").unwrap(), None);
            assert_eq!(store.get(b"last").unwrap().unwrap(), b"of all");
            assert_eq!(store.stats().keys, 1 + stored as u64);
            store.verify(&mut Progress::new(&mut |_, _| true)).unwrap().verdict().unwrap();
        };
        check(&store);
        check(&open(&disk.deep_copy().reboot()));
        store.close().unwrap();
        let store = open(&disk);
        check(&store);
        store.compact().unwrap();
        check(&store);
        assert_eq!(store.stats().tombstone_bytes, 0);
        assert_eq!(disk.violation(), None);
    }
}

#[test]
fn a_kill_loses_what_comes_behind_a_place_that_was_not_filled() {
    let disk = SimStorage::new(4, PageMode::Page);
    let store = open(&disk);
    store.set(b"before", b"1").unwrap();
    let (engine, len) = (&store.engine, record_len(1, Some(1)));
    let unfilled = {
        let shard = engine.index.write(engine.hash(b"a")).unwrap();
        engine.appender_alone().unwrap().claim(len, shard).unwrap()
    };
    let filled = claim(&store, b"b", b"2");
    let killed = disk.deep_copy().reboot();
    let reopened = open(&killed);
    assert_eq!((reopened.stats().keys, reopened.exists(b"b").unwrap()), (1, false));
    // Behind a record in the place that was not filled, the one behind that must not come back.
    reopened.set(b"c", b"3").unwrap();
    let again = open(&killed.deep_copy().reboot());
    assert_eq!((again.stats().keys, again.exists(b"b").unwrap()), (2, false));
    drop((unfilled, filled));
    assert_eq!((store.stats().keys, store.get(b"before").unwrap().unwrap()), (1, b"1".to_vec()));
}

#[test]
fn records_of_several_writers_stay_as_they_were_written() {
    const EACH: u64 = 8_000;
    let dir = tempfile::tempdir().unwrap();
    let key = |writer: u64, n: u64| [writer.to_le_bytes(), n.to_le_bytes()].concat();
    let value = |writer: u64, n: u64| vec![(writer * 31 + n) as u8; (n * 7919 % 3000) as usize];
    let options = Options { segment_size: 16 << 20, ..Options::default() };
    let check = |store: &Store| {
        for (writer, n) in (0..4).flat_map(|writer| (0..EACH).map(move |n| (writer, n))) {
            assert!(store.get(&key(writer, n)).unwrap().unwrap() == value(writer, n), "{writer} {n}");
        }
    };
    let store = Store::open(dir.path(), &options).unwrap();
    scope(|threads| {
        for writer in 0..4 {
            let store = &store;
            threads.spawn(move || (0..EACH).for_each(|n| store.set(&key(writer, n), &value(writer, n)).unwrap()));
        }
    });
    check(&store);
    if !store.stats().mapped {
        eprintln!("not mapped here: no places were filled at the same time");
    }
    store.close().unwrap();
    let store = Store::open(dir.path(), &options).unwrap();
    assert_eq!(store.recovery_info().rejected_hints, 0);
    check(&store);
}
