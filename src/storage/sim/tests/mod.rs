//! The rules of the model, one by one: what may be lost is lost for some seed, what may not never is.

mod contents;
mod crashes;
mod faults;
mod names;

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
