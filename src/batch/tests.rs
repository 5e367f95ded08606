use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::log::record::{BATCH_OVERHEAD, DataFileEntry};
use crate::proof::tests::colliding_keys;
use crate::storage::sim::{Calls, FaultPlan, PageMode, SimStorage};
use crate::{IoPath, Options, Store};

fn each_path(test: impl Fn(&dyn Fn() -> Store)) {
    for io in [IoPath::Auto, IoPath::Syscall] {
        let disk = SimStorage::new(1, PageMode::Page);
        let options = Options { io, background: false, ..Options::default() };
        test(&|| Store::open_on(Arc::new(disk.handle()), &options).unwrap());
        assert_eq!(disk.violation(), None);
    }
}

#[test]
fn the_last_change_of_a_key_wins_and_all_survive_reopening() {
    each_path(|open| {
        let store = open();
        store.set(b"gone", b"1").unwrap();
        let mut batch = Batch::new();
        batch.set(b"a", b"first").unwrap();
        batch.del(b"gone").unwrap();
        batch.set(b"b", b"").unwrap();
        batch.del(b"never there").unwrap();
        batch.set(b"a", b"last").unwrap();
        batch.set(b"c", b"x").unwrap();
        batch.del(b"c").unwrap();
        assert_eq!(batch.len(), 7);
        assert!(store.write(&batch).unwrap());
        let check = |store: &Store| {
            assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"last"[..]));
            assert_eq!(store.get(b"b").unwrap().as_deref(), Some(&b""[..]));
            assert!(!store.exists(b"gone").unwrap() && !store.exists(b"c").unwrap());
            assert_eq!(store.stats().keys, 2);
        };
        check(&store);
        store.close().unwrap();
        let store = open();
        check(&store);
        batch.clear();
        assert!(batch.is_empty() && store.write(&batch).unwrap());
        store.compact().unwrap();
        check(&store);
    });
}

#[test]
fn a_condition_that_does_not_hold_keeps_everything_as_it_was() {
    each_path(|open| {
        let store = open();
        store.set(b"balance", b"10").unwrap();
        let mut batch = Batch::new();
        batch.require(b"balance", b"11").unwrap();
        batch.set(b"balance", b"12").unwrap();
        batch.set(b"other", b"x").unwrap();
        let before = store.stats().log_bytes;
        assert!(!store.write(&batch).unwrap());
        assert_eq!((store.stats().keys, store.stats().log_bytes), (1, before));
        batch.clear();
        batch.require(b"balance", b"10").unwrap();
        batch.require_absent(b"other").unwrap();
        batch.set(b"other", b"x").unwrap();
        batch.del(b"balance").unwrap();
        assert!(store.write(&batch).unwrap());
        assert!(!store.write(&batch).unwrap());
        assert_eq!(store.get(b"other").unwrap().as_deref(), Some(&b"x"[..]));
        assert!(!store.exists(b"balance").unwrap());
        assert!(store.set_if_absent(b"k", b"1").unwrap() && !store.set_if_absent(b"k", b"2").unwrap());
        assert!(store.replace_if(b"k", b"1", b"3").unwrap() && !store.replace_if(b"k", b"1", b"4").unwrap());
        assert!(!store.replace_if(b"absent", b"", b"4").unwrap());
        assert_eq!(store.get(b"k").unwrap().as_deref(), Some(&b"3"[..]));
    });
}

#[test]
fn a_frame_that_was_taken_back_does_not_come_back() {
    for (io, mark) in [(IoPath::Auto, false), (IoPath::Auto, true), (IoPath::Syscall, false)] {
        let disk = SimStorage::new(1, PageMode::Page);
        let options = Options { io, background: false, ..Options::default() };
        let open = |disk: &SimStorage| Store::open_on(Arc::new(disk.handle()), &options).unwrap();
        let store = open(&disk);
        store.set(b"before", b"1").unwrap();
        if mark {
            store.sync().unwrap();
        }
        let value = [7; 20];
        let len = record_len(1, Some(value.len()));
        let mut appender = store.engine.appender().unwrap();
        let first = appender.next_timestamp().unwrap();
        appender.prepare(BATCH_OVERHEAD + 3 * len, false, &store.engine.index).unwrap();
        let entries = [b"a", b"b", b"c"].iter().zip(first..);
        let entries = entries.map(|(key, timestamp)| DataFileEntry { timestamp, key: &key[..], value: Some(&value) });
        appender.write_batch_frame(BATCH_OVERHEAD + 3 * len, entries).unwrap();
        appender.retract_frame();
        drop(appender);
        let check = |store: Store, keys: &[&[u8]]| {
            keys.iter().for_each(|key| assert!(store.exists(key).unwrap(), "{io:?} {mark}"));
            assert_eq!(store.stats().keys, keys.len() as u64, "{io:?} {mark}");
        };
        check(open(&disk.deep_copy().reboot()), &[b"before"]);
        // This record ends where the second one of the frame begins. The clock stands still meanwhile.
        disk.set_clock(0);
        store.set(b"later", &[8; 20 + 8 - 4]).unwrap();
        check(open(&disk.deep_copy().reboot()), &[b"before", b"later"]);
        assert_eq!(disk.violation(), None);
    }
}

#[test]
fn keys_taken_for_new_may_be_stored_and_a_long_frame_may_fail() {
    each_path(|open| {
        let store = open();
        let key = |n: u64| n.to_be_bytes();
        let fill = |numbers: std::ops::Range<u64>, value: u8| {
            let mut batch = Batch::new();
            numbers.for_each(|n| batch.set(&key(n), &[value; 100]).unwrap());
            batch
        };
        for n in 0..10 {
            store.set(&key(n), b"old").unwrap();
        }
        assert!(store.engine.fresh.lasts());
        // The stored keys are among many new ones, and the frame is long enough for a system call.
        assert!(store.write(&fill(5..405, 1)).unwrap());
        assert!(!store.engine.fresh.lasts());
        let check = |store: &Store, end: u64| {
            for n in 0..end {
                let expected = if n < 5 { b"old".to_vec() } else { vec![1; 100] };
                assert_eq!(store.get(&key(n)).unwrap(), Some(expected), "{n}");
            }
            let stats = store.stats();
            assert_eq!(stats.keys, end);
            assert_eq!(stats.live_bytes, 5 * record_len(8, Some(3)) + (end - 5) * record_len(8, Some(100)));
        };
        check(&store, 405);
        for n in 0..8 {
            assert!(store.write(&fill(405 + 300 * n..705 + 300 * n, 1)).unwrap());
        }
        assert!(store.engine.fresh.lasts());
        check(&store, 2805);
        assert!(store.write(&fill(2805..3105, 1)).unwrap());
        store.close().unwrap();
        check(&open(), 3105);
    });
}

#[test]
fn new_keys_that_look_alike_take_no_frame_back() {
    for one_is_stored in [true, false] {
        let disk = SimStorage::new(1, PageMode::Page);
        let options = Options { background: false, ..Options::default() };
        let store = Store::open_on(Arc::new(disk.clone()), &options).unwrap();
        store.engine.warm.store(true, Relaxed);
        let [a, b] = colliding_keys(&store)[0];
        let mut batch = Batch::new();
        (0..200u8).for_each(|n| batch.set(&[9, n], &[1; 200]).unwrap());
        batch.set(&b, b"b").unwrap();
        match one_is_stored {
            true => store.set(&a, b"a").unwrap(),
            false => batch.set(&a, b"a").unwrap(),
        }
        (0..8u8).for_each(|n| store.set(&[n], b"").unwrap());
        assert!(store.engine.fresh.lasts());
        // A frame that is taken back is cut off.
        disk.fail(FaultPlan { at: 0, errno: libc::EIO, persistent: true, calls: Calls::SET_LEN });
        assert!(store.write(&batch).unwrap());
        disk.heal();
        let check = |value: &[u8]| {
            assert_eq!(store.get(&a).unwrap().as_deref(), Some(value));
            assert_eq!(store.get(&b).unwrap().as_deref(), Some(&b"b"[..]));
            assert_eq!(store.stats().keys, 210);
        };
        check(b"a");
        // Where both are stored, each is found behind the other, too.
        batch.set(&a, b"newer").unwrap();
        assert!(store.write(&batch).unwrap());
        check(b"newer");
        assert_eq!(disk.violation(), None);
    }
}

#[test]
fn a_long_frame_that_cannot_be_written_changes_nothing() {
    for io in [IoPath::Auto, IoPath::Syscall] {
        let disk = SimStorage::new(1, PageMode::Page);
        let options = Options { io, background: false, ..Options::default() };
        let open = |disk: &SimStorage| Store::open_on(Arc::new(disk.handle()), &options).unwrap();
        let store = open(&disk);
        for n in 0..10u64 {
            store.set(&n.to_be_bytes(), b"").unwrap();
        }
        let mut batch = Batch::new();
        (10..500u64).for_each(|n| batch.set(&n.to_be_bytes(), &[1; 100]).unwrap());
        let before = store.stats().log_bytes;
        disk.fail(FaultPlan { at: 0, errno: libc::EIO, persistent: true, calls: Calls::WRITE });
        assert_eq!(store.write(&batch).unwrap_err().code(), Code::Io, "{io:?}");
        disk.heal();
        assert_eq!((store.stats().keys, store.stats().log_bytes), (10, before), "{io:?}");
        assert_eq!(open(&disk.deep_copy().reboot()).stats().keys, 10, "{io:?}");
        assert!(store.write(&batch).unwrap());
        assert_eq!(open(&disk.deep_copy().reboot()).stats().keys, 500, "{io:?}");
        assert_eq!(disk.violation(), None);
    }
}

#[test]
fn a_condition_can_be_added_to_a_change_over_the_limit() {
    let mut batch = Batch::new();
    batch.set(b"large", b"").unwrap();
    batch.log_bytes = MAX_BATCH_LEN + 1; // As if it were.
    batch.require(b"a", b"1").unwrap();
    batch.require_absent(b"b").unwrap();
    assert_eq!(batch.del(b"c").unwrap_err().code(), Code::TooLarge);
    assert_eq!((batch.len(), batch.operations.len()), (1, 3));
}

#[test]
fn whether_a_damaged_key_is_absent_cannot_be_told() {
    for io in [IoPath::Auto, IoPath::Syscall] {
        let disk = SimStorage::new(1, PageMode::Page);
        let options = Options { io, background: false, ..Options::default() };
        let store = Store::open_on(Arc::new(disk.handle()), &options).unwrap();
        store.set(b"key", b"value").unwrap();
        disk.corrupt("0000000001.log", 64 + crate::log::record::KEY_AT, 0x10);
        assert_eq!(store.exists(b"key").unwrap_err().code(), Code::Corrupt);
        assert_eq!(store.set_if_absent(b"key", b"").unwrap_err().code(), Code::Corrupt);
        let mut batch = Batch::new();
        batch.require_absent(b"key").unwrap();
        batch.set(b"other", b"").unwrap();
        assert_eq!(store.write(&batch).unwrap_err().code(), Code::Corrupt);
        assert!(!store.exists(b"other").unwrap());
    }
}

#[test]
fn writers_of_batches_do_not_outgrow_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_size: 4 << 20, ..Options::default() };
    let store = Store::open(&dir.path().join("db"), &options).unwrap();
    let mut rng = crate::model_tests::Rng(3);
    let value = vec![7; 16 << 10];
    for _ in 0..100 {
        let mut batch = Batch::new();
        for _ in 0..256 {
            batch.set(&rng.below(2000).to_be_bytes(), &value).unwrap();
        }
        assert!(store.write(&batch).unwrap());
        let stats = store.stats();
        let bound = 2 * stats.live_bytes + (1 << 20) + (32 << 20) + options.segment_size;
        assert!(stats.log_bytes <= bound + batch.log_bytes, "{stats:?}");
    }
}
