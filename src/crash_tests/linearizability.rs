//! Whatever threads do at the same time, and whatever is compacted meanwhile, each key behaves as if one thing had
//! happened after the other, each between its call and its return.
//!
//! The checker searches for such an order, as Wing and Gong described ("Testing and verifying concurrent objects",
//! 1993), and remembers where it has been in vain. Keys are independent of each other, so each is checked alone.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};

use crate::model_tests::Rng;
use crate::{Batch, IoPath, Options, Store, SyncLevel};

const THREADS: usize = 4;
const KEYS: u64 = 3;
const ROUNDS: u64 = 6;
/// Operations of a thread in a round.
const OPERATIONS: u64 = 250;

/// What was done, and what it told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Set(u64),
    /// Whether the key was there.
    Del(bool),
    Get(Option<u64>),
}

#[derive(Clone, Copy, Debug)]
struct Operation {
    key: u64,
    event: Event,
    called: u64,
    returned: u64,
}

/// Whether there is an order of the operations, which are given by thread, that a single value could have seen. The value
/// at the beginning is given.
fn linearizable(threads: &[Vec<Operation>], first: Option<u64>) -> bool {
    let start = (vec![0; threads.len()], first);
    let mut seen = HashSet::from([start.clone()]);
    let mut open = vec![start];
    while let Some((done, value)) = open.pop() {
        let next = || threads.iter().zip(&done).enumerate().filter_map(|(t, (ops, &n))| Some((t, ops.get(n)?)));
        // Nothing can come after something that was called only when it had returned.
        let Some(first_return) = next().map(|(_, op)| op.returned).min() else {
            return true;
        };
        for (thread, op) in next().filter(|(_, op)| op.called < first_return) {
            let after = match op.event {
                Event::Set(new) => Some(new),
                Event::Del(existed) if existed == value.is_some() => None,
                Event::Get(found) if found == value => value,
                _ => continue,
            };
            let mut state = (done.clone(), after);
            state.0[thread] += 1;
            if seen.insert(state.clone()) {
                open.push(state);
            }
        }
    }
    false
}

fn key(n: u64) -> Vec<u8> {
    vec![b'k'; 1 + n as usize * 20]
}

/// No two values are the same. Some are large enough to be copied without the shard's lock.
fn value(serial: u64) -> Vec<u8> {
    let len = [8, 100, 700, 6000][(serial % 7 % 4) as usize];
    serial.to_le_bytes().into_iter().cycle().take(len).collect()
}

fn serial(value: &[u8]) -> u64 {
    let serial = u64::from_le_bytes(value[..8].try_into().unwrap());
    assert!(value == self::value(serial), "a value that nobody has written: {} bytes of {serial}", value.len());
    serial
}

fn event(store: &Store, rng: &mut Rng, key: &[u8], serial_to_set: u64) -> Event {
    match rng.below(10) {
        0..=1 => {
            store.set(key, &value(serial_to_set)).unwrap();
            Event::Set(serial_to_set)
        }
        2..=3 => {
            let mut batch = Batch::new();
            batch.set(key, b"a later change of the same key wins").unwrap();
            batch.set(&serial_to_set.to_le_bytes(), b"a key of its own").unwrap();
            batch.set(key, &value(serial_to_set)).unwrap();
            assert!(store.write(&batch).unwrap());
            Event::Set(serial_to_set)
        }
        4..=5 => Event::Del(store.del(key).unwrap()),
        _ => Event::Get(store.get(key).unwrap().map(|value| serial(&value))),
    }
}

/// Has the threads work for a while. Returns what each has done.
fn work(store: &Store, seed: u64) -> Vec<Vec<Operation>> {
    let (time, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let thread = |number: u64| {
        let mut rng = Rng(seed * 100 + number);
        let mut operations = Vec::new();
        for n in 0..OPERATIONS {
            let key_number = rng.below(KEYS);
            let called = time.fetch_add(1, SeqCst);
            let event = event(store, &mut rng, &key(key_number), (seed * 10 + number) << 32 | n);
            let returned = time.fetch_add(1, SeqCst);
            operations.push(Operation { key: key_number, event, called, returned });
        }
        operations
    };
    std::thread::scope(|scope| {
        let compactor = scope.spawn(|| {
            while !done.load(Relaxed) {
                store.compact().unwrap();
                std::thread::yield_now();
            }
        });
        let workers: Vec<_> = (0..THREADS as u64).map(|number| scope.spawn(move || thread(number))).collect();
        let histories = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        done.store(true, Relaxed);
        compactor.join().unwrap();
        histories
    })
}

fn check(options: &Options, seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut store = Store::open(&path, options).unwrap();
    let mut before = vec![None; KEYS as usize];
    for round in 0..ROUNDS {
        let mut histories = work(&store, seed * 1000 + round);
        // What is found when all is over, before and after opening again, is part of the history.
        let read = |store: &Store| -> Vec<_> {
            (0..KEYS).map(|n| store.get(&key(n)).unwrap().map(|value| serial(&value))).collect()
        };
        let after = read(&store);
        store.close().unwrap();
        store = Store::open(&path, options).unwrap();
        assert_eq!(read(&store), after, "seed {seed}, round {round}: opened again");
        let found = |(key, found): (u64, &Option<u64>)| {
            let called = u64::MAX - 1;
            Operation { key, event: Event::Get(*found), called, returned: u64::MAX }
        };
        histories.push((0..).zip(&after).map(found).collect());
        for number in 0..KEYS {
            let of_key = |ops: &Vec<Operation>| ops.iter().filter(|op| op.key == number).copied().collect();
            let of_key: Vec<Vec<Operation>> = histories.iter().map(of_key).collect();
            let fine = linearizable(&of_key, before[number as usize]);
            assert!(fine, "seed {seed}, round {round}, key {number}, {options:?}\n{of_key:?}");
        }
        before = after;
    }
    store.close().unwrap();
}

#[test]
fn what_threads_do_during_compaction_could_have_been_done_one_by_one() {
    let all = [
        (IoPath::Auto, SyncLevel::Os, 4 << 10),
        (IoPath::Syscall, SyncLevel::Os, 64 << 10),
        (IoPath::Auto, SyncLevel::Interval, 64 << 10),
    ];
    for (seed, (io, sync, segment_size)) in (1..).zip(all) {
        let background =
            Options { compact_threshold: 8 << 10, sync_interval_ms: 5, background: true, ..Options::default() };
        check(&Options { io, sync, segment_size, ..background }, seed);
    }
}

#[test]
fn the_checker_knows_right_from_wrong() {
    let op = |event, called, returned| Operation { key: 0, event, called, returned };
    let set_and_get =
        |found, called| vec![vec![op(Event::Set(1), 0, 3)], vec![op(Event::Get(found), called, called + 1)]];
    // At the same time, either order is fine; one after the other, only one is.
    assert!(linearizable(&set_and_get(None, 1), None));
    assert!(linearizable(&set_and_get(Some(1), 1), None));
    assert!(linearizable(&set_and_get(Some(1), 4), None));
    assert!(!linearizable(&set_and_get(None, 4), None));
    assert!(!linearizable(&set_and_get(Some(2), 1), None));
    // Two readers must agree on the order.
    let writers = [vec![op(Event::Set(1), 0, 9)], vec![op(Event::Set(2), 0, 9)]];
    let reader = |first, second| vec![op(Event::Get(Some(first)), 1, 2), op(Event::Get(Some(second)), 3, 4)];
    let with = |a, b| [&writers[..], &[a, b]].concat();
    assert!(linearizable(&with(reader(1, 2), reader(1, 2)), None));
    assert!(!linearizable(&with(reader(1, 2), reader(2, 1)), None));
    // Only one of two deletions removes it.
    let deletions = |a, b| vec![vec![op(Event::Del(a), 0, 3)], vec![op(Event::Del(b), 1, 2)]];
    assert!(linearizable(&deletions(true, false), Some(1)));
    assert!(!linearizable(&deletions(true, true), Some(1)));
}
