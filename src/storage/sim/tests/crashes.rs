//! What a crash interrupts, and that it can be repeated.

use super::*;

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
