//! What becomes of the bytes and the length of a file.

use super::*;

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
