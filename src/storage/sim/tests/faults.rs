//! Calls that fail, and what they leave.

use super::*;

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
    let each: [(Calls, FileRun); 16] = [
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
        (Calls::START_SYNC, |_, f| f.start_sync(0, 1)),
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
        assert_eq!(
            failed,
            (Calls::WRITE | Calls::SYNC | Calls::SYNC_DIR | Calls::START_SYNC).0 & calls.0 != 0,
            "{calls:?}"
        );
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
