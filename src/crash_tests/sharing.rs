//! What a checkpoint shares with the store and with an older checkpoint, and what it refuses.

use super::checkpoint::{arc, checkpoint, small_segments};
use crate::storage::Storage;
use crate::storage::sim::{Crash, PageMode, SimStorage, Unsynced};
use crate::{Code, Options, Progress, Store};

/// The names that are files of both directories.
fn shared(sim: &SimStorage, a: &str, b: &str) -> Vec<String> {
    let (a, b) = (sim.directory(a), sim.directory(b));
    let same = |name: &String| a.file_id(name).is_some() && a.file_id(name) == b.file_id(name);
    a.files().into_iter().filter(same).collect()
}

#[test]
fn what_is_sealed_is_shared_and_nothing_else() {
    let sim = SimStorage::new(1, PageMode::Page);
    let store = Store::open_on(arc(sim.clone()), &small_segments()).unwrap();
    let write = |n: u64| (0..n).for_each(|i| store.set(&i.to_le_bytes(), &[7; 500]).unwrap());
    write(30);
    checkpoint(&store, &sim, "a", None).unwrap();
    let logs = |sim: &SimStorage| sim.files().into_iter().filter(|name| name.ends_with(".log")).collect::<Vec<_>>();
    let a = sim.directory("a");
    let in_source = logs(&sim);
    assert_eq!(logs(&a), in_source);
    for name in &in_source {
        let is_last = Some(name) == in_source.last();
        assert_eq!(sim.file_id(name) == a.file_id(name), !is_last, "{name}");
        assert!(a.files().contains(&name.replace("log", "hint")));
    }
    // On another file system all is copied, but for what the base has.
    checkpoint(&store, &sim, "far:a", None).unwrap();
    write(20);
    checkpoint(&store, &sim, "far:b", Some("far:a")).unwrap();
    checkpoint(&store, &sim, "far:c", Some("a")).unwrap();
    let mut expected: Vec<_> = in_source[..in_source.len() - 1].to_vec();
    expected.extend(expected.clone().iter().map(|name| name.replace("log", "hint")));
    expected.sort();
    assert_eq!(shared(&sim, "far:a", "far:b"), expected);
    assert_eq!(shared(&sim, "far:b", "far:c"), Vec::<String>::new());
    // What the base has lost is copied again.
    let cut = sim.directory("far:c");
    let whole = cut.read_file(&in_source[0]).unwrap();
    cut.put_file(&in_source[0], &whole[..whole.len() - 1]);
    cut.put_file(&in_source[1], &vec![0; cut.read_file(&in_source[1]).unwrap().len()]);
    checkpoint(&store, &sim, "far:d", Some("far:c")).unwrap();
    let from_c = shared(&sim, "far:c", "far:d");
    assert!(!from_c.contains(&in_source[0]) && !from_c.contains(&in_source[1]) && from_c.contains(&in_source[2]));
    for dir in ["a", "far:a", "far:b", "far:d"] {
        let copy = Store::open_on(arc(sim.directory(dir)), &small_segments()).unwrap();
        assert_eq!(copy.stats().keys, 30);
        assert!(copy.recovery_info().rejected_hints == 0 && copy.recovery_info().scanned_bytes == 0);
        copy.close().unwrap();
    }
    store.close().unwrap();
}

/// Two histories of one segment that part at a power cut and come to the same length: the older checkpoint has what the
/// store has lost.
#[test]
fn a_tail_that_the_store_has_lost_is_not_shared() {
    let sim = SimStorage::new(1, PageMode::Page);
    let options = Options { background: false, ..Options::default() };
    let store = Store::open_on(arc(sim.clone()), &options).unwrap();
    store.set(b"synced", b"1").unwrap();
    store.sync().unwrap();
    store.set(b"lost", b"a").unwrap();
    checkpoint(&store, &sim, "far:a", None).unwrap();
    std::mem::forget(store);
    sim.set_unsynced(Unsynced::Lost);
    sim.crash_now(Crash::Power);
    let sim = sim.reboot();
    let store = Store::open_on(arc(sim.clone()), &options).unwrap();
    assert!(!store.exists(b"lost").unwrap());
    store.set(b"kept", &[b'b'; 21]).unwrap();
    // Sealed with just as many bytes as the checkpoint has of it.
    store.engine.appender().unwrap().rotate().unwrap();
    store.maintain(1).unwrap();
    checkpoint(&store, &sim, "far:b", Some("far:a")).unwrap();
    let len = |dir| sim.directory(dir).read_file("0000000001.log").unwrap().len();
    assert_eq!(len("far:a"), len("far:b"));
    let copy = Store::open_on(arc(sim.directory("far:b")), &options).unwrap();
    assert!(copy.exists(b"kept").unwrap() && !copy.exists(b"lost").unwrap());
    copy.close().unwrap();
    store.close().unwrap();
}

#[test]
fn damage_at_the_end_of_the_log_is_not_copied_in_silence() {
    let sim = SimStorage::new(1, PageMode::Page);
    let options = Options { background: false, ..Options::default() };
    let store = Store::open_on(arc(sim.clone()), &options).unwrap();
    (0..9u64).for_each(|i| store.set(&i.to_le_bytes(), &[7; 500]).unwrap());
    sim.corrupt("0000000001.log", 700, 1);
    let refused = checkpoint(&store, &sim, "a", None).unwrap_err();
    assert!(refused.code() == Code::Corrupt && refused.message().contains("0000000001.log"), "{refused}");
    assert_eq!(sim.directory("a").files(), Vec::<String>::new());
    // Sealed, it is known to be damaged; and the checkpoint is as damaged as the store.
    store.compact().unwrap();
    checkpoint(&store, &sim, "a", None).unwrap();
    let copy = Store::open_on(arc(sim.directory("a")), &options).unwrap();
    for i in 0..9u64 {
        let code = |store: &Store| store.get(&i.to_le_bytes()).map_err(|e| e.code());
        assert_eq!(code(&copy), code(&store));
        assert_eq!(code(&copy).is_err(), i == 1);
    }
    copy.close().unwrap();
    store.close().unwrap();
}

#[test]
fn a_directory_that_is_not_empty_is_left_alone() {
    let sim = SimStorage::new(1, PageMode::Page);
    let store = Store::open_on(arc(sim.clone()), &small_segments()).unwrap();
    let other = sim.directory("a");
    other.put_file("notes", b"mine");
    assert_eq!(checkpoint(&store, &sim, "a", None).unwrap_err().code(), Code::Exists);
    assert_eq!(other.files(), ["LOCK", "notes"]);
    let taken = sim.directory("b");
    taken.lock(false).unwrap();
    assert_eq!(checkpoint(&store, &sim, "b", None).unwrap_err().code(), Code::Exists);
    assert_eq!(taken.files(), ["LOCK"]);
    store.close().unwrap();
}

#[test]
fn a_cancelled_checkpoint_leaves_nothing() {
    let sim = SimStorage::new(1, PageMode::Page);
    let store = Store::open_on(arc(sim.clone()), &small_segments()).unwrap();
    (0..30u64).for_each(|i| store.set(&i.to_le_bytes(), &[7; 500]).unwrap());
    for stop_at in 1.. {
        let target = sim.directory("a");
        let mut calls = 0;
        let mut report = |_, _| {
            calls += 1;
            calls != stop_at
        };
        let made = store.engine.checkpoint(&target, None, &mut Progress::new(&mut report));
        match made {
            Err(e) => assert_eq!((e.code(), target.files().len()), (Code::Cancelled, 0)),
            Ok(()) => {
                assert!(stop_at > 3 && calls == stop_at, "the last call, when all is done, cannot cancel");
                break;
            }
        }
    }
    store.close().unwrap();
}
