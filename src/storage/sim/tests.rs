//! The rules of the model, one by one: what may be lost is lost for some seed, what may not never is.

use std::collections::BTreeSet;

use super::file::tests::{load, store};
use super::*;
use crate::storage::{read_exact_at, write_all_at};

type Run = fn(&SimStorage) -> io::Result<()>;
type FileRun = fn(&SimStorage, &dyn File) -> io::Result<()>;

const SEEDS: u64 = 400;

fn sim(seed: u64) -> SimStorage {
    SimStorage::new(seed, PageMode::Page)
}

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.err().expect("an error").kind()
}

fn write(sim: &SimStorage, name: &str, offset: u64, bytes: &[u8]) {
    write_all_at(&*sim.open(name, true).unwrap(), bytes, offset).unwrap();
}

/// What `name` can be after a power cut that follows `run`.
fn after_power_cut(mode: PageMode, name: &str, run: impl Fn(&SimStorage)) -> BTreeSet<Option<Vec<u8>>> {
    let outcome = |seed| {
        let sim = SimStorage::new(seed, mode);
        run(&sim);
        sim.crash_now(Crash::Power);
        let after = sim.reboot();
        assert_eq!(after.read_file(name), sim.read_file(name));
        after.read_file(name)
    };
    (0..SEEDS).map(outcome).collect()
}

fn some(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(bytes.to_vec())
}

// Contents.

#[test]
fn what_is_synced_survives() {
    for mode in [PageMode::Page, PageMode::Sector] {
        let seen = after_power_cut(mode, "f", |sim| {
            let f = sim.create("f").unwrap();
            f.allocate(10_000).unwrap();
            write(sim, "f", 5000, b"hello");
            f.set_len(5005).unwrap();
            f.sync().unwrap();
            sim.sync_dir().unwrap();
        });
        let mut want = vec![0; 5000];
        want.extend(b"hello");
        assert_eq!(seen, BTreeSet::from([Some(want)]));
    }
}

#[test]
fn an_unsynced_page_is_old_or_new_or_in_between() {
    let seen = after_power_cut(PageMode::Page, "f", |sim| {
        sim.put_file("f", b"aaaa");
        write(sim, "f", 0, b"bbbb");
        write(sim, "f", 0, b"cccc");
    });
    for version in [b"aaaa", b"bbbb", b"cccc"] {
        assert!(seen.contains(&some(version)));
    }
    assert!(seen.iter().flatten().all(|bytes| !(bytes.contains(&b'a') && bytes.contains(&b'c'))));
    assert!(seen.iter().flatten().any(|bytes| bytes.contains(&b'a') && bytes.contains(&b'b')), "torn write-back");
}

#[test]
fn unsynced_pages_are_independent() {
    let seen = after_power_cut(PageMode::Page, "f", |sim| {
        sim.put_file("f", &[0; 8192]);
        write(sim, "f", 4095, b"xy");
    });
    let ends: BTreeSet<_> = seen.iter().flatten().map(|bytes| (bytes[4095], bytes[4096])).collect();
    assert_eq!(ends, BTreeSet::from([(0, 0), (0, b'y'), (b'x', 0), (b'x', b'y')]));
}

#[test]
fn sectors_of_a_page_are_independent_only_in_sector_mode() {
    for mode in [PageMode::Page, PageMode::Sector] {
        let seen = after_power_cut(mode, "f", |sim| {
            sim.put_file("f", &[0; 4096]);
            write(sim, "f", 0, b"x");
            write(sim, "f", 512, b"y");
        });
        let later_alone = seen.iter().flatten().any(|bytes| bytes[0] == 0 && bytes[512] == b'y');
        assert_eq!(later_alone, mode == PageMode::Sector);
    }
}

#[test]
fn a_file_never_synced_has_any_length_and_any_pages() {
    let seen = after_power_cut(PageMode::Page, "f", |sim| {
        sim.create("f").unwrap();
        sim.sync_dir().unwrap();
        write(sim, "f", 0, &[7; 9000]);
    });
    let lengths: BTreeSet<_> = seen.iter().flatten().map(Vec::len).collect();
    assert_eq!(lengths, BTreeSet::from([0, 4096, 8192, 9000]));
    assert!(seen.contains(&Some(vec![0; 9000])));
    assert!(seen.contains(&Some(vec![7; 9000])));
    assert!(seen.iter().flatten().any(|bytes| bytes.len() == 9000 && bytes[0] == 0 && bytes[8999] == 7));
}

#[test]
fn an_unsynced_cut_happened_or_not() {
    let seen = after_power_cut(PageMode::Page, "f", |sim| {
        sim.put_file("f", &[1; 6000]);
        sim.open("f", true).unwrap().set_len(10).unwrap();
    });
    assert!(seen.contains(&some(&[1; 10])));
    assert!(seen.contains(&some(&[1; 6000])));

    let seen = after_power_cut(PageMode::Page, "f", |sim| {
        sim.put_file("f", &[1; 6000]);
        let f = sim.open("f", true).unwrap();
        f.set_len(10).unwrap();
        f.set_len(6000).unwrap();
        assert_eq!(sim.read_file("f").unwrap()[10..], [0; 5990]);
    });
    let mut cut = vec![1; 10];
    cut.resize(6000, 0);
    assert!(seen.contains(&Some(cut)));
    assert!(seen.contains(&some(&[1; 6000])));
}

#[test]
fn a_synced_cut_stays_cut() {
    let seen = after_power_cut(PageMode::Page, "f", |sim| {
        sim.put_file("f", &[1; 6000]);
        let f = sim.open("f", true).unwrap();
        f.set_len(10).unwrap();
        f.sync().unwrap();
        f.set_len(6000).unwrap();
        f.sync().unwrap();
    });
    let mut cut = vec![1; 10];
    cut.resize(6000, 0);
    assert_eq!(seen, BTreeSet::from([Some(cut)]));
}

#[test]
fn all_lost_and_all_kept_can_be_chosen() {
    for (fate, want) in [(Unsynced::Lost, None), (Unsynced::Kept, some(b"new"))] {
        let seen = after_power_cut(PageMode::Sector, "f", |sim| {
            sim.set_unsynced(fate);
            sim.create("f").unwrap();
            write(sim, "f", 0, b"new");
        });
        assert_eq!(seen, BTreeSet::from([want]));
    }
}

#[test]
fn whatever_was_done_a_full_sync_keeps_all_of_it() {
    for seed in 0..SEEDS {
        let mode = if seed % 2 == 0 { PageMode::Page } else { PageMode::Sector };
        let sim = SimStorage::new(seed, mode);
        let f = sim.create("f").unwrap();
        let map = f.map(40_000, true).unwrap();
        let mut model: Vec<u8> = Vec::new();
        let mut rng = Rng(seed ^ 0x5555);
        for step in 0..60 {
            let (at, n) = (rng.below(20_000), 1 + rng.below(9000));
            let bytes = vec![step + 1; n];
            match rng.below(6) {
                0 => {
                    f.set_len(at as u64).unwrap();
                    model.resize(at, 0);
                }
                1 => {
                    f.allocate(at as u64).unwrap();
                    model.resize(model.len().max(at), 0);
                }
                2 => f.sync().unwrap(),
                3 => {
                    write_all_at(&*f, &bytes, at as u64).unwrap();
                    model.resize(model.len().max(at + n), 0);
                    model[at..at + n].copy_from_slice(&bytes);
                }
                _ => {
                    let n = n.min(model.len().saturating_sub(at));
                    f.allocate(model.len() as u64).unwrap();
                    store(&map, at, &bytes[..n]);
                    if n > 0 {
                        model[at..at + n].copy_from_slice(&bytes[..n]);
                    }
                }
            }
            assert_eq!(sim.read_file("f").as_ref(), Some(&model));
            assert_eq!(load(&map, 0, model.len()), model);
        }
        let (cut, synced) = (sim.deep_copy(), sim.deep_copy());
        cut.crash_now(Crash::Power);
        let cut = cut.reboot();
        let kept = cut.files().iter().map(|name| cut.read_file(name)).collect::<Vec<_>>();
        cut.crash_now(Crash::Power);
        let again = cut.files().iter().map(|name| cut.read_file(name)).collect::<Vec<_>>();
        assert_eq!(kept, again, "what a power cut left is durable");
        synced.open("f", true).unwrap().sync().unwrap();
        synced.sync_dir().unwrap();
        synced.crash_now(Crash::Power);
        assert_eq!(synced.reboot().read_file("f"), Some(model));
        assert_eq!(sim.violation(), None);
    }
}

// Names.

#[test]
fn a_file_sync_keeps_no_name_and_a_directory_sync_no_content() {
    let seen = after_power_cut(PageMode::Page, "f", |sim| {
        let f = sim.create("f").unwrap();
        write(sim, "f", 0, b"x");
        f.sync().unwrap();
    });
    assert_eq!(seen, BTreeSet::from([None, some(b"x")]));

    let seen = after_power_cut(PageMode::Page, "f", |sim| {
        sim.create("f").unwrap();
        write(sim, "f", 0, b"x");
        sim.sync_dir().unwrap();
    });
    assert_eq!(seen, BTreeSet::from([some(b""), some(b"\0"), some(b"x")]));
}

#[test]
fn unsynced_names_are_independent() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let sim = sim(seed);
        sim.put_file("old", b"");
        sim.create("a").unwrap();
        sim.create("b").unwrap();
        sim.remove("old").unwrap();
        assert_eq!(sim.files(), ["a", "b"]);
        sim.crash_now(Crash::Power);
        seen.insert(sim.files());
    }
    assert_eq!(seen.len(), 8);
}

#[test]
fn a_rename_replaces_atomically_but_may_leave_the_old_name_or_lose_the_content() {
    let replace = |sim: &SimStorage, sync: bool| {
        sim.put_file("m", b"old");
        let temp = sim.create("t").unwrap();
        write(sim, "t", 0, b"new");
        if sync {
            temp.sync().unwrap();
        }
        sim.rename("t", "m").unwrap();
        assert_eq!(sim.files(), ["m"]);
        assert_eq!(sim.read_file("m"), some(b"new"));
    };
    let seen = after_power_cut(PageMode::Page, "m", |sim| replace(sim, true));
    assert_eq!(seen, BTreeSet::from([some(b"old"), some(b"new")]));
    let seen = after_power_cut(PageMode::Page, "t", |sim| replace(sim, true));
    assert_eq!(seen, BTreeSet::from([None, some(b"new")]));
    let seen = after_power_cut(PageMode::Page, "m", |sim| replace(sim, false));
    assert!(seen.contains(&some(b"")));
    assert!(!seen.contains(&None));
    let seen = after_power_cut(PageMode::Page, "m", |sim| {
        replace(sim, true);
        sim.sync_dir().unwrap();
    });
    assert_eq!(seen, BTreeSet::from([some(b"new")]));
}

#[test]
fn a_removed_file_may_come_back_until_the_directory_is_synced() {
    let seen = after_power_cut(PageMode::Page, "f", |sim| {
        sim.put_file("f", b"x");
        sim.remove("f").unwrap();
    });
    assert_eq!(seen, BTreeSet::from([None, some(b"x")]));
    let seen = after_power_cut(PageMode::Page, "f", |sim| {
        sim.put_file("f", b"x");
        sim.remove("f").unwrap();
        sim.sync_dir().unwrap();
    });
    assert_eq!(seen, BTreeSet::from([None]));
}

// Crashes.

#[test]
fn a_kill_keeps_the_page_cache_and_a_later_power_cut_can_still_take_it() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let sim = sim(seed);
        sim.create("f").unwrap();
        write(&sim, "f", 0, b"x");
        sim.crash_now(Crash::Kill);
        let after = sim.reboot();
        assert_eq!(after.read_file("f"), some(b"x"));
        let again = after.reboot();
        assert_eq!(again.read_file("f"), some(b"x"));
        again.crash_now(Crash::Power);
        seen.insert(again.reboot().read_file("f"));
    }
    assert_eq!(seen, BTreeSet::from([None, some(b""), some(b"\0"), some(b"x")]));
}

#[test]
fn a_write_in_flight_is_torn_at_any_byte_and_a_store_anyhow() {
    let (mut writes, mut stores) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..SEEDS {
        for mapped in [false, true] {
            let sim = sim(seed);
            sim.put_file("f", b"aaaa");
            let f = sim.open("f", true).unwrap();
            let map = f.map(4, true).unwrap();
            sim.crash_at(0, Crash::Kill);
            if mapped {
                store(&map, 0, b"bbbb");
            } else {
                assert!(f.write_at(b"bbbb", 0).is_err());
            }
            assert!(sim.crashed());
            assert_eq!(sim.in_flight().unwrap(), if mapped { "store f 0+4" } else { "write f 0+4" });
            let seen = if mapped { &mut stores } else { &mut writes };
            seen.insert(sim.reboot().read_file("f").unwrap());
        }
    }
    let prefixes = [b"aaaa", b"baaa", b"bbaa", b"bbba", b"bbbb"].map(|bytes| bytes.to_vec());
    assert_eq!(writes, BTreeSet::from(prefixes.clone()));
    assert!(prefixes.iter().all(|prefix| stores.contains(prefix)));
    assert!(stores.contains(&b"aabb"[..]) && stores.contains(&b"baab"[..]) && stores.contains(&b"abba"[..]));
}

#[test]
fn an_operation_in_flight_happened_or_not() {
    let runs: [(&str, Run); 7] = [
        ("create g", |sim| sim.create("g").map(drop)),
        ("rename f to h", |sim| sim.rename("f", "h")),
        ("remove f", |sim| sim.remove("f")),
        ("set_len f 4 to 1", |sim| sim.open("f", true)?.set_len(1)),
        ("allocate f 4 to 9000", |sim| sim.open("f", true)?.allocate(9000)),
        ("sync f", |sim| sim.open("f", true)?.sync()),
        ("sync_dir", |sim| sim.sync_dir()),
    ];
    for (what, run) in runs {
        let outcomes = |kind| {
            let outcome = |seed| {
                let sim = sim(seed);
                sim.put_file("f", b"abcd");
                if what.starts_with("sync") {
                    write(&sim, "f", 0, b"A");
                    sim.create("x").unwrap();
                }
                sim.crash_at(sim.op_count(), kind);
                assert!(run(&sim).is_err());
                assert_eq!(sim.in_flight().unwrap(), what);
                let after = sim.reboot();
                after.files().iter().map(|name| (name.clone(), after.read_file(name))).collect::<Vec<_>>()
            };
            (0..SEEDS).map(outcome).collect::<BTreeSet<_>>()
        };
        let killed = outcomes(Crash::Kill);
        assert_eq!(killed.len() > 1, !what.starts_with("sync"), "{what}: {killed:?}");
        assert!(outcomes(Crash::Power).len() > 1, "{what}");
    }
}

#[test]
fn after_a_crash_every_call_fails_and_nothing_changes() {
    let sim = sim(1);
    sim.put_file("f", &[0; 100]);
    let f = sim.open("f", true).unwrap();
    let map = f.map(100, true).unwrap();
    sim.lock(false).unwrap();
    sim.crash_now(Crash::Kill);
    assert_eq!(f.write_at(b"x", 0).unwrap_err().to_string(), "crashed");
    let mut buf = [0; 1];
    let failed = [
        f.len().is_err(),
        f.read_at(&mut buf, 0).is_err(),
        f.set_len(1).is_err(),
        f.allocate(200).is_err(),
        f.sync().is_err(),
        f.map(1, false).is_err(),
        sim.list().is_err(),
        sim.create("g").is_err(),
        sim.open("f", false).is_err(),
        sim.rename("f", "g").is_err(),
        sim.remove("f").is_err(),
        sim.sync_dir().is_err(),
        sim.handle().lock(true).is_err(),
        sim.random().is_err(),
    ];
    assert_eq!(failed, [true; 14]);
    store(&map, 0, b"x");
    sim.crash_now(Crash::Power);
    assert_eq!(sim.read_file("f"), some(&[0; 100]));
    sim.unlock();
    sim.clock();
    let after = sim.reboot();
    assert_eq!(after.files(), ["LOCK", "f"]);
    after.lock(false).unwrap();
}

#[test]
fn a_run_can_be_crashed_at_every_operation_and_repeated() {
    let run = |sim: &SimStorage| -> io::Result<()> {
        let f = sim.create("f")?;
        f.allocate(8192)?;
        let map = f.map(65536, true)?;
        store(&map, 0, &[1; 5000]);
        f.sync()?;
        store(&map, 5000, &[2; 100]);
        sim.sync_dir()?;
        sim.rename("f", "g")?;
        f.set_len(5100)?;
        sim.remove("g")
    };
    let whole = sim(9);
    whole.start_trace();
    run(&whole).unwrap();
    assert_eq!(whole.op_count(), 9);
    assert_eq!(whole.trace().len(), 9);
    assert_eq!(whole.trace()[2], "store f 0+5000");
    let mut outcomes = BTreeSet::new();
    for at in 0..whole.op_count() {
        for kind in [Crash::Kill, Crash::Power] {
            let [first, second] = [0, 1].map(|_| {
                let sim = sim(9);
                sim.crash_at(at, kind);
                assert!(run(&sim).is_err());
                assert_eq!(sim.op_count(), at);
                assert_eq!(sim.in_flight().as_ref(), Some(&whole.trace()[at as usize]));
                let after = sim.reboot();
                after.files().iter().map(|name| after.read_file(name)).collect::<Vec<_>>()
            });
            assert_eq!(first, second);
            outcomes.insert(first);
        }
    }
    assert!(outcomes.len() > 5);
}

#[test]
fn other_outcomes_of_the_same_crash_come_by_reseeding() {
    let base = sim(3);
    base.put_file("f", b"a");
    write(&base, "f", 0, b"b");
    let outcome = |seed| {
        let sim = base.deep_copy();
        sim.reseed(seed);
        sim.crash_now(Crash::Power);
        sim.read_file("f").unwrap()
    };
    assert_eq!((0..40).map(outcome).collect::<BTreeSet<_>>().len(), 2);
    write(&base, "f", 0, b"c");
    assert_eq!(base.read_file("f"), some(b"c"));
}

// Faults.

#[test]
fn a_failed_sync_loses_pages_for_good_unless_they_are_written_again() {
    let run = |sim: &SimStorage, again: bool| {
        sim.put_file("f", b"old!");
        let f = sim.open("f", true).unwrap();
        write(sim, "f", 0, b"new");
        sim.fail(FaultPlan { at: 0, errno: libc::EIO, persistent: false, calls: Calls::SYNC });
        assert_eq!(f.sync().unwrap_err().raw_os_error(), Some(libc::EIO));
        assert_eq!(sim.read_file("f"), some(b"new!"));
        if again {
            write(sim, "f", 3, b"?");
        }
        f.sync().unwrap();
    };
    let seen = after_power_cut(PageMode::Page, "f", |sim| run(sim, false));
    assert_eq!(seen, BTreeSet::from([some(b"old!"), some(b"new!")]));
    let seen = after_power_cut(PageMode::Page, "f", |sim| run(sim, true));
    assert_eq!(seen, BTreeSet::from([some(b"new?")]));

    let reread = |seed| {
        let sim = sim(seed);
        run(&sim, false);
        sim.reboot().read_file("f")
    };
    let seen: BTreeSet<_> = (0..SEEDS).map(reread).collect();
    assert_eq!(seen, BTreeSet::from([some(b"old!"), some(b"new!")]), "a lost page can drop out of the cache");
}

#[test]
fn every_kind_of_call_can_fail_and_heals() {
    let each: [(Calls, FileRun); 15] = [
        (Calls::LIST, |sim, _| sim.list().map(drop)),
        (Calls::CREATE, |sim, _| sim.create("g").map(drop)),
        (Calls::OPEN, |sim, _| sim.open("f", false).map(drop)),
        (Calls::RENAME, |sim, _| sim.rename("f", "h")),
        (Calls::REMOVE, |sim, _| sim.remove("f")),
        (Calls::SYNC_DIR, |sim, _| sim.sync_dir()),
        (Calls::LOCK, |sim, _| sim.lock(false)),
        (Calls::RANDOM, |sim, _| sim.random().map(drop)),
        (Calls::LEN, |_, f| f.len().map(drop)),
        (Calls::READ, |_, f| f.read_at(&mut [0; 2], 0).map(drop)),
        (Calls::WRITE, |_, f| f.write_at(b"xyz", 0).map(drop)),
        (Calls::SET_LEN, |_, f| f.set_len(2)),
        (Calls::ALLOCATE, |_, f| f.allocate(5000)),
        (Calls::SYNC, |_, f| f.sync()),
        (Calls::MAP, |_, f| f.map(1, true).map(drop)),
    ];
    for (calls, run) in each {
        let sim = sim(1);
        sim.put_file("f", b"abc");
        let f = sim.open("f", true).unwrap();
        let at = sim.call_count();
        sim.fail(FaultPlan { at: at + 1, errno: libc::ENOMEM, persistent: true, calls: calls | Calls::RANDOM });
        let early = sim.deep_copy();
        early.fail(FaultPlan { at: 1, errno: libc::EMFILE, persistent: false, calls: Calls::ALL });
        let file = early.open("f", true).unwrap();
        assert_eq!(run(&early, &*file).unwrap_err().raw_os_error(), Some(libc::EMFILE));
        let failed = early.op_count() > 0;
        assert_eq!(failed, (Calls::WRITE | Calls::SYNC | Calls::SYNC_DIR).0 & calls.0 != 0, "{calls:?}");
        run(&early, &*file).unwrap();

        // One call is before the plan's time.
        f.len().unwrap();
        for _ in 0..2 {
            assert_eq!(run(&sim, &*f).unwrap_err().raw_os_error(), Some(libc::ENOMEM), "{calls:?}");
        }
        assert!(sim.random().is_err());
        sim.heal();
        run(&sim, &*f).unwrap();
    }
}

#[test]
fn a_failed_write_leaves_any_prefix_and_short_io_is_short() {
    let mut prefixes = BTreeSet::new();
    for seed in 0..SEEDS {
        let sim = sim(seed);
        sim.create("f").unwrap();
        sim.fail(FaultPlan { at: 0, errno: libc::EIO, persistent: false, calls: Calls::WRITE });
        let f = sim.open("f", true).unwrap();
        assert!(f.write_at(b"abc", 0).is_err());
        prefixes.insert(sim.read_file("f").unwrap());
    }
    assert_eq!(prefixes, BTreeSet::from([&b""[..], b"a", b"ab", b"abc"].map(<[u8]>::to_vec)));

    let sim = sim(1);
    let f = sim.create("f").unwrap();
    sim.set_short_io(true);
    let (mut short_writes, mut short_reads) = (0, 0);
    for i in 0..100 {
        short_writes += usize::from(f.write_at(&[i; 50], 0).unwrap() < 50);
        write_all_at(&*f, &[i; 50], 0).unwrap();
        let mut buf = [0; 50];
        let n = f.read_at(&mut buf, 0).unwrap();
        assert!(n > 0 && buf[..n] == vec![i; n]);
        short_reads += usize::from(n < 50);
        read_exact_at(&*f, &mut buf, 0).unwrap();
        assert_eq!(buf, [i; 50]);
    }
    assert!(short_writes > 20 && short_reads > 20);
}

#[test]
fn a_full_disk_is_an_error_that_changes_nothing_and_ends() {
    let sim = sim(1);
    sim.put_file("old", &[1; 4096]);
    sim.set_capacity(Some(3 * 4096));
    let f = sim.create("f").unwrap();
    f.allocate(4097).unwrap();
    assert_eq!(sim.used(), 3 * 4096);
    assert_eq!(kind(f.allocate(8193)), io::ErrorKind::StorageFull);
    assert_eq!(kind(f.set_len(9000)), io::ErrorKind::StorageFull);
    assert_eq!(kind(sim.create("g")), io::ErrorKind::StorageFull);
    assert_eq!(f.len().unwrap(), 4097);
    assert_eq!(f.write_at(&[2; 9000], 0).unwrap(), 8192);
    assert_eq!(kind(f.write_at(b"x", 8192)), io::ErrorKind::StorageFull);
    sim.remove("old").unwrap();
    assert_eq!(f.write_at(b"x", 8192).unwrap(), 1);
    f.set_len(100).unwrap();
    assert_eq!(sim.used(), 4096);
    sim.create("g").unwrap();
}

#[test]
fn a_file_opened_for_reading_takes_no_writes() {
    let sim = sim(1);
    sim.put_file("f", b"abc");
    let f = sim.open("f", false).unwrap();
    assert!(f.write_at(b"x", 0).is_err() && f.set_len(1).is_err() && f.allocate(9).is_err());
    assert!(f.map(1, true).is_err());
    f.sync().unwrap();
    assert_eq!(kind(sim.open("g", false)), io::ErrorKind::NotFound);
    assert_eq!(kind(sim.create("f")), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(sim.rename("g", "h")), io::ErrorKind::NotFound);
    assert_eq!(kind(sim.remove("g")), io::ErrorKind::NotFound);
}

// Directories and links.

#[test]
fn a_link_is_as_durable_as_its_directory() {
    let left = |seed, sync: &[&str]| {
        let sim = super::SimStorage::new(seed, PageMode::Page);
        let copy = sim.directory("copy");
        write_all_at(&*sim.create("f").unwrap(), b"hello", 0).unwrap();
        sim.open("f", true).unwrap().sync().unwrap();
        let source: Arc<dyn Storage> = Arc::new(sim.clone());
        copy.link_from(&source, "f").unwrap();
        assert_eq!(kind(copy.link_from(&source, "f")), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(copy.link_from(&source, "g")), io::ErrorKind::NotFound);
        assert_eq!(kind(sim.directory("far:copy").link_from(&source, "f")), io::ErrorKind::CrossesDevices);
        for dir in sync {
            [&sim, &copy][(*dir == "copy") as usize].sync_dir().unwrap();
        }
        sim.crash_now(Crash::Power);
        let after = sim.reboot();
        (after.read_file("f").is_some(), after.directory("copy").read_file("f"))
    };
    let hello = Some(b"hello".to_vec());
    for (sync, expected) in [
        (&["copy"] as &[&str], vec![(false, hello.clone()), (true, hello.clone())]),
        (&[""], vec![(true, None), (true, hello.clone())]),
        (&["", "copy"], vec![(true, hello.clone())]),
    ] {
        let seen: BTreeSet<_> = (0..100).map(|seed| left(seed, sync)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_linked_file_is_one_file() {
    let (sim, copy) = (sim(1), sim(1).directory("none"));
    assert_eq!(copy.files(), Vec::<String>::new());
    let copy = sim.directory("copy");
    write_all_at(&*sim.create("f").unwrap(), b"old", 0).unwrap();
    let source: Arc<dyn Storage> = Arc::new(sim.clone());
    copy.link_from(&source, "f").unwrap();
    write_all_at(&*copy.open("f", true).unwrap(), b"new", 0).unwrap();
    assert_eq!(sim.read_file("f").unwrap(), b"new");
    sim.remove("f").unwrap();
    assert_eq!((sim.files().len(), copy.files()), (0, vec!["f".to_owned()]));
    copy.rename("f", "g").unwrap();
    assert_eq!(copy.read_file("g").unwrap(), b"new");
    sim.lock(false).unwrap();
    copy.lock(false).unwrap();
    assert_eq!(kind(sim.directory("copy").lock(false)), io::ErrorKind::WouldBlock);
}

// The rest.

#[test]
fn locks_conflict_between_users() {
    let a = sim(1);
    let (b, clone) = (a.handle(), a.clone());
    a.lock(true).unwrap();
    assert_eq!(a.files(), Vec::<String>::new(), "a reader must not write");
    a.lock(false).unwrap();
    for user in [&a, &b, &clone] {
        assert_eq!(kind(user.lock(false)), io::ErrorKind::WouldBlock);
        assert_eq!(kind(user.lock(true)), io::ErrorKind::WouldBlock);
    }
    b.unlock();
    assert_eq!(kind(b.lock(true)), io::ErrorKind::WouldBlock);
    clone.unlock();
    a.lock(true).unwrap();
    b.lock(true).unwrap();
    assert_eq!(kind(a.handle().lock(false)), io::ErrorKind::WouldBlock);
    a.unlock();
    drop(b);
    a.lock(false).unwrap();
    a.reboot().lock(false).unwrap();
}

#[test]
fn clock_random_and_blocks_are_settable() {
    let sim = sim(1);
    sim.set_clock(5000);
    assert_eq!((sim.clock(), sim.clock()), (6000, 7000));
    assert_ne!(sim.random().unwrap(), sim.random().unwrap());
    assert_eq!(super::SimStorage::new(2, PageMode::Page).random().unwrap(), self::sim(2).random().unwrap());
    assert!(sim.reserves_blocks());
    sim.set_reserves_blocks(false);
    assert_eq!(kind(sim.create("f").unwrap().allocate(10)), io::ErrorKind::Unsupported);
}
