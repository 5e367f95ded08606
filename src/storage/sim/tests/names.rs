//! What becomes of names, and of files with several.

use super::*;

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
