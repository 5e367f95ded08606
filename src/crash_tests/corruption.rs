//! Damage to files that had been sound: each bit flipped, each length cut, zeros, files gone, files of an earlier time.
//! A database that was closed gives an error or the right answer, one that a crash left an error or a prefix.

use super::history::{Content, History, Write, show};
use crate::storage::Storage;
use crate::storage::sim::{PageMode, SimStorage};
use crate::{Batch, Code, IoPath, Options, Store};
use std::sync::Arc;

const KEYS: [&[u8]; 9] = [b"", b"a", b"b", b"key 3", b"another key", b"k5", b"k6", b"seven", b"key number eight"];
const NEW: &[u8] = b"written after the damage";

fn open(sim: &SimStorage, io: IoPath) -> crate::Result<Store> {
    let options =
        Options { segment_size: 4 << 10, compact_threshold: 1 << 20, background: false, io, ..<_>::default() };
    Store::open_on(Arc::new(sim.clone()), &options)
}

/// A value that no other write has.
fn value(serial: u8) -> Arc<[u8]> {
    (0..12 + serial % 7).map(|i| i ^ serial.wrapping_mul(29)).collect()
}

/// Work on a database, and what it has done.
struct Work {
    sim: SimStorage,
    store: Store,
    history: History,
    serial: u8,
}

impl Work {
    fn new() -> Work {
        let sim = SimStorage::new(1, PageMode::Page);
        let store = open(&sim, IoPath::Auto).unwrap();
        Work { sim, store, history: History::default(), serial: 0 }
    }

    fn set(&mut self, key: usize) {
        self.serial += 1;
        let value = value(self.serial);
        self.store.set(KEYS[key], &value).unwrap();
        self.history.acknowledged(Write::of(KEYS[key].to_vec(), Some(value)));
    }

    fn del(&mut self, key: usize) {
        assert!(self.store.del(KEYS[key]).unwrap());
        self.history.acknowledged(Write::of(KEYS[key].to_vec(), None));
    }

    fn batch(&mut self, keys: &[usize]) {
        let (mut batch, mut write) = (Batch::new(), Write(Vec::new()));
        for key in keys {
            self.serial += 1;
            let value = value(self.serial);
            batch.set(KEYS[*key], &value).unwrap();
            write.0.extend(Write::of(KEYS[*key].to_vec(), Some(value)).0);
        }
        assert!(self.store.write(&batch).unwrap());
        self.history.acknowledged(write);
    }

    fn sync(&mut self) {
        self.store.sync().unwrap();
        self.history.all_synced();
    }

    fn rotate(&mut self) {
        self.store.engine.appender().unwrap().rotate().unwrap();
    }

    /// Closes and opens. Returns the files between, and what they hold.
    fn reopen(&mut self) -> (SimStorage, Content) {
        let copy = self.sim.deep_copy();
        let store = std::mem::replace(&mut self.store, open(&copy, IoPath::Auto).unwrap());
        store.close().unwrap();
        let closed = self.sim.deep_copy();
        self.store = open(&self.sim, IoPath::Auto).unwrap();
        (closed, self.history.content().clone())
    }
}

/// A database as it was when it was closed, each time: outputs of compaction, sealed logs, tombstones and batches.
fn closed() -> Vec<(SimStorage, Content)> {
    let mut work = Work::new();
    let mut closings = Vec::new();
    (0..6).for_each(|n| work.set(n));
    closings.push(work.reopen());
    work.set(1);
    work.batch(&[2, 6, 0]);
    work.del(3);
    closings.push(work.reopen());
    work.store.compact().unwrap();
    closings.push(work.reopen());
    work.set(2);
    work.del(5);
    work.set(7);
    work.rotate();
    assert!(!work.store.maintain(1 << 20).unwrap());
    work.batch(&[7, 8]);
    work.set(3);
    work.sync();
    work.del(0);
    closings.push(work.reopen());
    closings
}

/// A database as the death of its process left it, at several moments; and its files some time before.
fn killed() -> Vec<(SimStorage, SimStorage, History)> {
    let mut all = Vec::new();
    for (case, sync_first) in [(0, false), (1, true), (2, false), (3, true)] {
        let mut work = Work::new();
        (0..3).for_each(|n| work.set(n));
        if case >= 2 {
            // A sealed segment before.
            work.rotate();
            assert!(!work.store.maintain(1 << 20).unwrap());
        }
        let engine = Arc::clone(&work.store.engine);
        let nobody_seals = engine.maintenance.lock();
        work.batch(&[3, 1, 4]);
        let before = work.sim.deep_copy();
        work.del(2);
        if sync_first {
            work.sync();
        }
        work.set(5);
        work.rotate();
        work.set(1);
        work.batch(&[6, 0]);
        if sync_first {
            work.sync();
        }
        work.set(3);
        work.del(4);
        drop(nobody_seals);
        let mut after = work.sim.reboot();
        // Holds nothing, and a megabyte of it.
        let _ = Storage::remove(&after, "RESERVE");
        for name in after.files().into_iter().filter(|name| name.ends_with(".log")) {
            // What was reserved ahead makes no difference but takes time.
            let mut log = after.read_file(&name).unwrap();
            log.truncate(log.iter().rposition(|byte| *byte != 0).unwrap() + 40);
            after.put_file(&name, &log);
        }
        std::mem::swap(&mut work.sim, &mut after);
        all.push((work.sim, before, work.history));
    }
    all
}

/// What the keys are found to have, and those that cannot be read.
fn read(store: &Store) -> Result<(Content, Vec<Vec<u8>>), String> {
    let (mut found, mut unreadable) = (Content::new(), Vec::new());
    for key in KEYS {
        let exists = store.exists(key);
        match store.get(key) {
            Ok(value) => {
                if exists.is_ok_and(|exists| exists != value.is_some()) {
                    return Err(format!("{} exists and does not", show(key)));
                }
                value.into_iter().for_each(|value| drop(found.insert(key.to_vec(), value.into())));
            }
            Err(e) if e.code() == Code::Corrupt => unreadable.push(key.to_vec()),
            Err(e) => return Err(format!("get {}: {:?}: {e}", show(key), e.code())),
        }
    }
    Ok((found, unreadable))
}

/// Opens what has been damaged and reads; if it is to be thorough, compacts, writes, and does so again. `fits` judges what
/// can be read.
fn judge(
    sim: &SimStorage,
    io: IoPath,
    thorough: bool,
    fits: impl Fn(&Content, &[Vec<u8>]) -> bool,
) -> Result<(), String> {
    let damage = |e: &crate::Error| matches!(e.code(), Code::Corrupt | Code::Format);
    let mut written = None;
    for round in 0..2 {
        let store = match open(sim, io) {
            Ok(store) => store,
            Err(e) if damage(&e) => return Ok(()),
            Err(e) => return Err(format!("open: {:?}: {e}", e.code())),
        };
        let check = |what: &str| {
            let (mut found, unreadable) = read(&store)?;
            let new = store.get(NEW).map_err(|e| format!("{what}: get what was written since: {e}"))?;
            if new != written {
                return Err(format!("{what}: {new:?} instead of {written:?}"));
            }
            found.remove(NEW);
            if fits(&found, &unreadable) {
                return Ok(());
            }
            let info = store.recovery_info();
            let found: Vec<_> = found.iter().map(|(key, value)| format!("{} {value:?}", show(key))).collect();
            let unreadable: Vec<_> = unreadable.iter().map(|key| show(key)).collect();
            Err(format!("{what} {round}: found {found:?}, unreadable {unreadable:?}, {info:?}"))
        };
        check("opened")?;
        if !thorough {
            break;
        }
        match store.compact() {
            Err(e) if !damage(&e) => return Err(format!("compact: {:?}: {e}", e.code())),
            _ => check("compacted")?,
        }
        store.set(NEW, &[round; 9]).map_err(|e| format!("set: {e}"))?;
        written = Some(vec![round; 9]);
        let check = |what: &str| {
            let (found, unreadable) = read(&store)?;
            if fits(&found, &unreadable) { Ok(()) } else { Err(format!("{what} {round}")) }
        };
        check("written on")?;
        match store.close() {
            Err(e) if !damage(&e) => return Err(format!("close: {:?}: {e}", e.code())),
            _ => {}
        }
    }
    sim.violation().map_or(Ok(()), Err)
}

/// Every file of a database with damage of one kind after the other. `fits` as above.
struct Sweep<'a> {
    sim: &'a SimStorage,
    fits: &'a dyn Fn(&Content, &[Vec<u8>]) -> bool,
    /// One in so many is judged thoroughly.
    thorough: usize,
    /// Where the database says that something is damaged, whatever it holds.
    reported: Vec<String>,
    tried: usize,
    failures: Vec<String>,
}

impl Sweep<'_> {
    fn of<'a>(sim: &'a SimStorage, fits: &'a dyn Fn(&Content, &[Vec<u8>]) -> bool) -> Sweep<'a> {
        Sweep { sim, fits, thorough: 7, reported: Vec::new(), tried: 0, failures: Vec::new() }
    }

    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let names = self.sim.files().into_iter().filter(|name| name != "LOCK");
        names.map(|name| (name.clone(), self.sim.read_file(&name).unwrap())).collect()
    }

    fn try_with(&mut self, name: &str, bytes: Option<&[u8]>, what: std::fmt::Arguments<'_>) {
        let sim = self.sim.deep_copy();
        match bytes {
            Some(bytes) => sim.put_file(name, bytes),
            None => Storage::remove(&sim, name).unwrap(),
        }
        let io = if self.tried.is_multiple_of(2) { IoPath::Auto } else { IoPath::Syscall };
        self.tried += 1;
        if let Err(e) = judge(&sim, io, self.tried.is_multiple_of(self.thorough), self.fits) {
            let reported = open(&sim, io).is_ok_and(|store| store.recovery_info().damaged_records > 0);
            let failures = if reported { &mut self.reported } else { &mut self.failures };
            failures.push(format!("{name}, {what}, {io:?}: {e}"));
        }
    }

    fn bits(&mut self, only: &str) {
        for (name, bytes) in self.files().into_iter().filter(|(name, _)| name.ends_with(only)) {
            for bit in 0..bytes.len() * 8 {
                let mut bytes = bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                self.try_with(&name, Some(&bytes), format_args!("byte {}, bit {}", bit / 8, bit % 8));
            }
        }
    }

    fn lengths(&mut self) {
        for (name, bytes) in self.files() {
            for len in 0..bytes.len() {
                self.try_with(&name, Some(&bytes[..len]), format_args!("cut to {len} of {}", bytes.len()));
            }
        }
    }

    fn zeros(&mut self) {
        for (name, bytes) in self.files() {
            for from in 0..bytes.len() {
                for len in [8, 40, bytes.len()] {
                    let mut zeroed = bytes.clone();
                    zeroed[from..bytes.len().min(from + len)].fill(0);
                    self.try_with(&name, Some(&zeroed), format_args!("{len} zeros from {from} on"));
                }
                let mut zeroed = bytes.clone();
                zeroed[..from].fill(0);
                self.try_with(&name, Some(&zeroed), format_args!("zeros before {from}"));
            }
        }
    }

    fn gone_or_replaced(&mut self, others: &[&SimStorage]) {
        self.thorough = 1;
        for (name, _) in self.files() {
            self.try_with(&name, None, format_args!("removed"));
            for (n, other) in others.iter().enumerate() {
                if let Some(bytes) = other.read_file(&name) {
                    self.try_with(&name, Some(&bytes), format_args!("of an earlier time, {n}"));
                }
            }
        }
    }

    fn end(mut self) {
        println!("{} kinds of damage tried", self.tried);
        self.failures.extend(self.reported);
        let shown = self.failures.iter().take(12).cloned().collect::<Vec<_>>().join("\n");
        assert!(self.failures.is_empty(), "{} of {}:\n{shown}", self.failures.len(), self.tried);
    }
}

/// Whether what is found is this content, as far as it can be read.
fn is(content: &Content, found: &Content, unreadable: &[Vec<u8>]) -> bool {
    let readable = |key: &&Vec<u8>| !unreadable.contains(*key);
    content.keys().chain(found.keys()).filter(readable).all(|key| content.get(key) == found.get(key))
}

#[test]
fn each_bit_flipped_in_a_closed_database_gives_an_error_or_the_right_answer() {
    let closings = closed();
    let (sim, content) = closings.last().unwrap();
    let fits = |found: &Content, unreadable: &[Vec<u8>]| unreadable.len() <= 1 && is(content, found, unreadable);
    let mut sweep = Sweep::of(sim, &fits);
    sweep.bits("");
    sweep.end();
}

/// Nothing but the logs themselves can tell then.
#[test]
fn each_bit_flipped_in_a_closed_database_without_hints_gives_an_error_or_the_right_answer() {
    let closings = closed();
    let (sim, content) = closings.last().unwrap();
    for name in sim.files().iter().filter(|name| name.ends_with(".hint")) {
        Storage::remove(sim, name).unwrap();
    }
    let fits = |found: &Content, unreadable: &[Vec<u8>]| is(content, found, unreadable);
    let mut sweep = Sweep::of(sim, &fits);
    sweep.bits(".log");
    sweep.end();
}

#[test]
fn files_of_a_closed_database_cut_or_zeroed_give_an_error_or_the_right_answer() {
    let closings = closed();
    let (sim, content) = closings.last().unwrap();
    let fits = |found: &Content, unreadable: &[Vec<u8>]| is(content, found, unreadable);
    let mut sweep = Sweep::of(sim, &fits);
    sweep.lengths();
    sweep.zeros();
    sweep.end();
}

#[test]
fn files_gone_or_of_an_earlier_time_give_an_error_or_what_really_was() {
    let closings = closed();
    for newest in 1..closings.len() {
        let earlier: Vec<_> = closings[..newest].iter().map(|(sim, _)| sim).collect();
        let fits = |found: &Content, unreadable: &[Vec<u8>]| {
            closings[..=newest].iter().any(|(_, content)| is(content, found, unreadable))
        };
        let mut sweep = Sweep::of(&closings[newest].0, &fits);
        sweep.gone_or_replaced(&earlier);
        sweep.end();
    }
}

#[test]
fn damage_to_what_a_crash_left_gives_an_error_or_a_prefix() {
    for (sim, before, history) in killed() {
        let fits = |found: &Content, unreadable: &[Vec<u8>]| history.prefix_but_for(found, unreadable, 0).is_some();
        let mut sweep = Sweep::of(&sim, &fits);
        sweep.bits("");
        sweep.lengths();
        sweep.gone_or_replaced(&[&before]);
        assert!(sweep.reported.is_empty(), "{:?}", sweep.reported);
        let before = sweep.tried;
        sweep.zeros();
        // Zeros that hit the very bytes of a key make it look like another key. No hint covers these segments yet.
        assert!(sweep.reported.len() * 100 < sweep.tried - before, "{:?}", sweep.reported);
        sweep.reported.clear();
        sweep.end();
    }
}
