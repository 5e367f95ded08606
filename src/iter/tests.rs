use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::*;
use crate::model_tests::Rng;
use crate::{Batch, IoPath, Options};

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

fn options(io: IoPath) -> Options {
    Options { io, segment_size: 8 << 10, compact_threshold: 1 << 10, background: false, ..Options::default() }
}

fn each_path(test: impl Fn(&Store, &Path)) {
    for io in [IoPath::Auto, IoPath::Syscall] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        test(&Store::open(&path, &options(io)).unwrap(), &path);
    }
}

fn all(mut iter: Iter) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some((key, value)) = iter.next().unwrap() {
        found.push((key.to_vec(), value.to_vec()));
    }
    assert!(iter.next().unwrap().is_none(), "the end stays the end");
    found
}

/// Some keys share a prefix, some are empty or long, and values reach beyond a window.
fn random_work(store: &Store, content: &mut Content, rng: &mut Rng, steps: u64) {
    for _ in 0..steps {
        let key = format!("{}{}", ["", "a", "b/", "b/c"][rng.below(4) as usize], rng.below(60)).into_bytes();
        let len = if rng.below(100) == 0 { 300_000 } else { rng.below(300) };
        let value = vec![rng.next() as u8; len as usize];
        match rng.below(10) {
            0..=2 => {
                assert_eq!(store.del(&key).unwrap(), content.remove(&key).is_some());
            }
            3 => {
                let mut batch = Batch::new();
                batch.set(&key, &value).unwrap();
                batch.set(b"", &value[..value.len() / 2]).unwrap();
                batch.del(b"a1").unwrap();
                assert!(store.write(&batch).unwrap());
                content.insert(Vec::new(), value[..value.len() / 2].to_vec());
                content.insert(key, value);
                content.remove(&b"a1"[..]);
            }
            _ => {
                store.set(&key, &value).unwrap();
                content.insert(key, value);
            }
        }
    }
}

fn check(make: impl Fn(IterOptions) -> Iter, content: &Content) {
    let expected: Vec<_> = content.clone().into_iter().collect();
    let sorted = IterOptions { sorted: true, ..IterOptions::default() };
    assert_eq!(all(make(sorted.clone())), expected);
    let mut unordered = all(make(IterOptions::default()));
    unordered.sort();
    assert_eq!(unordered, expected);
    let keys = all(make(IterOptions { keys_only: true, ..sorted.clone() }));
    assert!(keys.iter().all(|(_, value)| value.is_empty()) && keys.iter().map(|(key, _)| key).eq(content.keys()));
    for (prefix, start, end) in [("b/", "", ""), ("", "a", "b/"), ("b", "b/3", "b/c2"), ("zzz", "", ""), ("", "b", "a")]
    {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let wanted = IterOptions { prefix: bytes(prefix), start: bytes(start), end: bytes(end), ..sorted.clone() };
        let inside = |key: &[u8]| {
            key.starts_with(prefix.as_bytes()) && key >= start.as_bytes() && (end.is_empty() || key < end.as_bytes())
        };
        let expected: Vec<_> = expected.iter().filter(|(key, _)| inside(key)).cloned().collect();
        let mut unordered = all(make(IterOptions { sorted: false, ..wanted.clone() }));
        unordered.sort();
        assert_eq!((all(make(wanted)), unordered), (expected.clone(), expected), "{prefix} {start} {end}");
    }
}

#[test]
fn each_key_is_shown_once_with_the_value_of_the_moment() {
    each_path(|store, _| {
        let (mut content, mut rng) = (Content::new(), Rng(5));
        check(|options| store.iter(options).unwrap(), &content);
        for round in 0..6 {
            random_work(store, &mut content, &mut rng, 120);
            check(|options| store.iter(options).unwrap(), &content);
            let snapshot = store.snapshot().unwrap();
            let (begun, then) = (store.iter(IterOptions::default()).unwrap(), content.clone());
            random_work(store, &mut content, &mut rng, 120);
            if round % 2 == 0 {
                store.compact().unwrap();
            }
            check(|options| snapshot.iter(options).unwrap(), &then);
            let mut found = all(begun);
            found.sort();
            assert_eq!(found, then.clone().into_iter().collect::<Vec<_>>());
            for key in content.keys().chain(then.keys()) {
                assert_eq!(snapshot.get(key).unwrap(), then.get(key).map(|value| &value[..]));
            }
            let keys: Vec<&[u8]> = content.keys().chain(then.keys()).map(|key| &key[..]).collect();
            let mut values = Vec::new();
            let places = store.get_many(&keys, &mut values).unwrap();
            for (key, place) in keys.iter().zip(places) {
                assert_eq!(place.map(|place| &values[place]), content.get(*key).map(|value| &value[..]));
            }
        }
        assert!(store.check_unused().is_ok());
    });
}

#[test]
fn writers_and_compaction_change_nothing_for_an_iterator() {
    each_path(|store, _| {
        for n in 0..300u32 {
            store.set(&n.to_be_bytes(), &[n as u8; 100]).unwrap();
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for writer in 0..2u32 {
                let done = &done;
                scope.spawn(move || {
                    let mut rng = Rng(writer as u64);
                    while !done.load(Relaxed) {
                        // Every key moves on by whole batches: what is seen of one batch must be seen of all of it.
                        let (mut batch, value) = (Batch::new(), rng.next().to_le_bytes());
                        for n in 0..300u32 {
                            batch.set(&n.to_be_bytes(), &value).unwrap();
                        }
                        assert!(store.write(&batch).unwrap());
                    }
                });
            }
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    store.compact().unwrap();
                }
            });
            for round in 0..24 {
                let sorted = round % 2 == 0;
                let found = all(store.iter(IterOptions { sorted, ..IterOptions::default() }).unwrap());
                let mut keys: Vec<_> = found.iter().map(|(key, _)| key.clone()).collect();
                keys.sort();
                assert!(keys.iter().eq((0..300u32).map(|n| n.to_be_bytes().to_vec()).collect::<Vec<_>>().iter()));
                let same = |(_, value): &(Vec<u8>, Vec<u8>)| *value == found[0].1 || value.len() == 100;
                assert!(found.iter().all(same) && found.iter().all(|(_, v)| v.len() == found[0].1.len()));
                let many: Vec<_> = (0..300u32).map(u32::to_be_bytes).collect();
                let many: Vec<&[u8]> = many.iter().map(|key| &key[..]).collect();
                let mut values = Vec::new();
                let places = store.get_many(&many, &mut values).unwrap();
                let first = &values[places[0].clone().unwrap()];
                assert!(first.len() == 100 || places.iter().flatten().all(|place| values[place.clone()] == *first));
            }
            done.store(true, Relaxed);
        });
    });
}

fn flip(path: &Path, offset: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path.join("0000000001.log")).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

#[test]
fn damage_ends_an_iteration_with_an_error_that_stays() {
    each_path(|store, path| {
        for key in ["a", "b", "c"] {
            store.set(key.as_bytes(), &[7; 50]).unwrap();
        }
        // In the value of the second record.
        flip(path, 64 + 88 + 60);
        for sorted in [false, true] {
            let mut iter = store.iter(IterOptions { sorted, ..IterOptions::default() }).unwrap();
            let error = loop {
                match iter.next() {
                    Ok(item) => assert_eq!(item.unwrap().0, b"a"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.code(), Code::Corrupt);
            assert!(error.message().contains("0000000001.log") && error.message().contains("152"), "{error}");
            assert_eq!(iter.next().unwrap_err().message(), error.message());
        }
    });
}

#[test]
fn damage_to_what_is_overwritten_hides_nothing() {
    each_path(|store, path| {
        for key in ["x", "a", "b", "x", "c"] {
            store.set(key.as_bytes(), &[7; 50]).unwrap();
        }
        // The length of the first record, so that the frames behind it cannot be followed.
        for bit in 0..2 {
            flip(path, 64 + bit);
            let found = all(store.iter(IterOptions::default()).unwrap());
            assert_eq!(found.iter().map(|(key, _)| &key[..]).collect::<Vec<_>>(), [b"a", b"b", b"x", b"c"]);
        }
    });
}

#[test]
fn what_lies_beyond_a_cut_end_is_an_error_not_nothing() {
    for io in [IoPath::Auto, IoPath::Syscall] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let options = Options { segment_size: 64 << 10, compact_threshold: 1 << 20, ..options(io) };
        let store = Store::open(&path, &options).unwrap();
        // What comes right behind the end is garbage, so that nothing is missed there.
        for (key, len) in [("a", 100), ("gone", 10_000), ("b", 100), ("gone", 0)] {
            store.set(key.as_bytes(), &vec![7; len]).unwrap();
        }
        store.close().unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(path.join("0000000001.log")).unwrap();
        file.set_len(64 + 138).unwrap();
        let store = Store::open(&path, &options).unwrap();
        assert_eq!(store.get(b"b").unwrap_err().code(), Code::Corrupt);
        for sorted in [false, true] {
            let mut iter = store.iter(IterOptions { sorted, ..IterOptions::default() }).unwrap();
            if !sorted {
                assert_eq!(iter.next().unwrap().unwrap().0, b"a");
            }
            assert_eq!(iter.next().unwrap_err().code(), Code::Corrupt);
        }
    }
}

#[test]
fn in_order_no_more_is_read_than_each_item_takes() {
    each_path(|store, _| {
        for n in 0..100u32 {
            store.set(&n.to_be_bytes(), &[7; 100]).unwrap();
        }
        let mut iter = store.iter(IterOptions { sorted: true, ..IterOptions::default() }).unwrap();
        while iter.next().unwrap().is_some() {
            assert!(iter.source.window.held() <= 141);
        }
    });
}
