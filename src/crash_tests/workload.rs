//! Random work on a store, repeatable from a seed, and the store that does it on a simulated disk.

use std::sync::Arc;

use super::history::{Change, Content, History, Write, show};
use crate::model_tests::Rng;
use crate::storage::Storage;
use crate::storage::sim::{PageMode, SimStorage};
use crate::{Batch, IoPath, Options, Store, SyncLevel};

/// There are no keys but these.
pub(super) const KEYS: u64 = 30;
/// Most writes are to few keys, so that they make garbage of others.
pub(super) const HOT: u64 = 10;

/// The empty key is one, and none is a prefix of fixed length.
pub(super) fn key(number: u64) -> Vec<u8> {
    if number == 0 { Vec::new() } else { format!("{number:0width$}", width = (number * 3) as usize).into_bytes() }
}

/// A value that no other write has, unless it is too short for that.
pub(super) fn value(serial: u64, len: u64) -> Arc<[u8]> {
    let mut bytes: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(37) ^ serial as u8).collect();
    let n = bytes.len().min(8);
    bytes[..n].copy_from_slice(&serial.to_le_bytes()[..n]);
    bytes.into()
}

/// Which write a value is of.
pub(super) fn serial_of(value: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let n = value.len().min(8);
    bytes[..n].copy_from_slice(&value[..n]);
    u64::from_le_bytes(bytes)
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Set(u64, u64),
    Del(u64),
    /// The key, the length of the value, and whether its condition is to hold.
    SetIf(u64, u64, bool),
    /// Keys with the lengths of their values, no length to delete; and the keys of its conditions, of which all are to
    /// hold or the last is not to.
    Batch(Vec<(u64, Option<u64>)>, Vec<u64>, bool),
    Sync,
    Compact,
    Maintain(u64),
    Reopen,
    /// The clock is set to this.
    Clock(i64),
    Check,
}

fn value_len(rng: &mut Rng) -> u64 {
    match rng.below(40) {
        0 => 0,
        1 => 4000 + rng.below(3000),
        2..=9 => 300 + rng.below(1200),
        _ => rng.below(200),
    }
}

/// Random steps.
pub(super) fn steps(rng: &mut Rng, count: u64) -> Vec<Step> {
    let key = |rng: &mut Rng| {
        let keys = if rng.below(10) == 0 { KEYS } else { HOT };
        rng.below(keys)
    };
    let batch = |rng: &mut Rng| {
        let changes = [rng.below(4), rng.below(20)][rng.below(2) as usize];
        let change = |rng: &mut Rng| (key(rng), (rng.below(4) > 0).then(|| value_len(rng)));
        let changes = (0..changes).map(|_| change(rng)).collect();
        let conditions: Vec<_> = (0..rng.below(6).saturating_sub(3)).map(|_| key(rng)).collect();
        let hold = conditions.is_empty() || rng.below(4) > 0;
        Step::Batch(changes, conditions, hold)
    };
    let step = |rng: &mut Rng| match rng.below(100) {
        0..=37 => Step::Set(key(rng), value_len(rng)),
        38..=41 => Step::SetIf(key(rng), value_len(rng), rng.below(4) > 0),
        42..=53 => batch(rng),
        54..=71 => Step::Del(key(rng)),
        72..=77 => Step::Sync,
        78..=84 => Step::Maintain(1 + rng.below(4000)),
        85..=88 => Step::Compact,
        89..=93 => Step::Reopen,
        94..=96 => Step::Clock(1_700_000_000_000_000_000 - rng.below(1 << 60) as i64),
        _ => Step::Check,
    };
    (0..count).map(|_| step(rng)).collect()
}

/// Writes to all keys, so that there are segments that stay as they are: mostly of live records.
pub(super) fn fill(rng: &mut Rng) -> Vec<Step> {
    (0..KEYS).rev().map(|number| Step::Set(number, 150 + rng.below(250))).collect()
}

/// What a workload runs with.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub options: Options,
    pub mode: PageMode,
    pub reserves_blocks: bool,
}

impl Setting {
    pub(super) fn random(rng: &mut Rng) -> Setting {
        let mut pick = |choices: &[u64]| choices[rng.below(choices.len() as u64) as usize];
        let options = Options {
            segment_size: pick(&[4 << 10, 4 << 10, 8 << 10, 16 << 10]),
            compact_threshold: pick(&[1, 2 << 10, 8 << 10, 1 << 20]),
            garbage_percent: pick(&[1, 50, 50, 100]) as u32,
            sync: [SyncLevel::Os, SyncLevel::Os, SyncLevel::Interval, SyncLevel::Always][pick(&[0, 1, 2, 3]) as usize],
            // One sync at the first occasion, and then none: what a run does must not depend on how long it takes.
            sync_interval_ms: 1 << 40,
            io: if pick(&[0, 1, 2]) == 0 { IoPath::Syscall } else { IoPath::Auto },
            background: false,
            ..Options::default()
        };
        let mode = if pick(&[0, 1]) == 0 { PageMode::Page } else { PageMode::Sector };
        Setting { options, mode, reserves_blocks: pick(&[0, 1, 2, 3]) != 0 }
    }

    pub(super) fn disk(&self, seed: u64) -> SimStorage {
        let sim = SimStorage::new(seed, self.mode);
        sim.set_reserves_blocks(self.reserves_blocks);
        sim
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Well,
    /// The disk has crashed meanwhile: whatever the store said, nobody heard it.
    Crashed,
}

/// A store on a simulated disk, and what it should hold. Errors are what should not be.
pub(super) struct Session {
    pub sim: SimStorage,
    pub options: Options,
    pub history: History,
    pub store: Option<Store>,
    serial: u64,
}

/// As text, with what was being done.
pub(super) fn wrong<E: std::fmt::Display>(doing: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    move |e| format!("{doing}: {e}")
}

impl Session {
    pub(super) fn new(sim: &SimStorage, options: &Options, history: History) -> Session {
        // A later life must not repeat the values of an earlier one.
        let serial = (history.len() as u64 + 1) << 16;
        Session { sim: sim.clone(), options: options.clone(), history, store: None, serial }
    }

    pub(super) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn open(&mut self) -> Result<Ended, String> {
        let storage: Arc<dyn Storage> = Arc::new(self.sim.clone());
        let opened = Store::open_on(storage, &self.options);
        if self.sim.crashed() {
            return Ok(Ended::Crashed);
        }
        self.store = Some(opened.map_err(wrong("open"))?);
        Ok(Ended::Well)
    }

    pub(super) fn store(&self) -> &Store {
        self.store.as_ref().expect("an open store")
    }

    pub(super) fn close(&mut self) -> Result<Ended, String> {
        let closed = self.store.take().expect("an open store").close();
        if self.sim.crashed() {
            return Ok(Ended::Crashed);
        }
        closed.map_err(wrong("close"))?;
        self.history.all_synced();
        Ok(Ended::Well)
    }

    /// Runs steps up to the first that is interrupted.
    pub(super) fn run(&mut self, steps: &[Step]) -> Result<Ended, String> {
        for (i, step) in steps.iter().enumerate() {
            if self.step(step).map_err(wrong(format_args!("step {i}, {step:?}")))? == Ended::Crashed {
                return Ok(Ended::Crashed);
            }
        }
        Ok(Ended::Well)
    }

    pub(super) fn step(&mut self, step: &Step) -> Result<Ended, String> {
        let text = |e: crate::Error| e.to_string();
        match *step {
            Step::Set(n, len) => {
                let value = value(self.next_serial(), len);
                let done = self.store().set(&key(n), &value);
                return self.written(Write::of(key(n), Some(value)), done);
            }
            Step::SetIf(n, len, holds) => {
                let value = value(self.next_serial(), len);
                let done = self.set_if(&key(n), &value, holds);
                return self.written_if(holds, Write::of(key(n), Some(value)), done);
            }
            Step::Batch(ref changes, ref conditions, hold) => {
                let (batch, write) = self.batch(changes, conditions, hold);
                let done = self.store().write(&batch);
                return self.written_if(hold, write, done);
            }
            Step::Del(n) => {
                let there = self.history.content().contains_key(&key(n));
                let done = self.store().del(&key(n));
                if there {
                    return self.written(Write::of(key(n), None), done.map(drop));
                }
                if !self.sim.crashed() && done.map_err(text)? {
                    return Err("deleted what was not there".into());
                }
            }
            Step::Sync => {
                let done = self.store().sync();
                if !self.sim.crashed() {
                    done.map_err(text)?;
                    self.history.all_synced();
                }
            }
            Step::Compact => {
                let done = self.store().compact();
                if !self.sim.crashed() {
                    done.map_err(text)?;
                }
            }
            Step::Maintain(budget) => {
                let done = self.store().maintain(budget);
                if !self.sim.crashed() {
                    done.map_err(text)?;
                }
            }
            Step::Reopen => {
                if self.close()? == Ended::Crashed || self.open()? == Ended::Crashed {
                    return Ok(Ended::Crashed);
                }
                self.check_clean()?;
                self.check()?;
            }
            Step::Clock(time) => self.sim.set_clock(time),
            Step::Check => self.check()?,
        }
        Ok(if self.sim.crashed() { Ended::Crashed } else { Ended::Well })
    }

    /// Stores a value on a condition that holds or does not.
    pub(super) fn set_if(&self, key: &[u8], value: &[u8], holds: bool) -> crate::Result<bool> {
        match self.history.content().get(key) {
            Some(now) if holds => self.store().replace_if(key, now, value),
            None if holds => self.store().set_if_absent(key, value),
            Some(_) => self.store().set_if_absent(key, value),
            None => self.store().replace_if(key, b"", value),
        }
    }

    /// A batch, and what it changes.
    pub(super) fn batch(&mut self, changes: &[(u64, Option<u64>)], conditions: &[u64], hold: bool) -> (Batch, Write) {
        let mut batch = Batch::new();
        for (i, n) in conditions.iter().enumerate() {
            let holds = hold || i + 1 < conditions.len();
            let added = match self.history.content().get(&key(*n)) {
                Some(now) if holds => batch.require(&key(*n), now),
                Some(now) => batch.require(&key(*n), &[now, &b"x"[..]].concat()),
                None if holds => batch.require_absent(&key(*n)),
                None => batch.require(&key(*n), b""),
            };
            added.expect("a condition");
        }
        let mut write = Write(Vec::new());
        for (n, len) in changes {
            let value = len.map(|len| value(self.next_serial(), len));
            let added = match &value {
                Some(value) => batch.set(&key(*n), value),
                None => batch.del(&key(*n)),
            };
            added.expect("a change");
            write.0.push(Change { key: key(*n), value });
        }
        (batch, write)
    }

    fn written_if(&mut self, holds: bool, write: Write, done: crate::Result<bool>) -> Result<Ended, String> {
        match done {
            _ if holds => self.written(write, done.map(drop)),
            _ if self.sim.crashed() => Ok(Ended::Crashed),
            Ok(false) => Ok(Ended::Well),
            other => Err(format!("{other:?} though a condition did not hold")),
        }
    }

    fn written(&mut self, write: Write, done: crate::Result<()>) -> Result<Ended, String> {
        if self.sim.crashed() {
            self.history.interrupted(write);
            return Ok(Ended::Crashed);
        }
        done.map_err(|e| e.to_string())?;
        self.history.acknowledged(write);
        if self.options.sync == SyncLevel::Always {
            self.history.all_synced();
        }
        Ok(Ended::Well)
    }

    /// What the store holds.
    pub(super) fn content(&self) -> Result<Content, String> {
        read_all(self.store())
    }

    /// The store holds what it should, and counts it right.
    pub(super) fn check(&self) -> Result<(), String> {
        let found = self.content()?;
        if found != *self.history.content() {
            return Err(format!("wrong content\n{}", self.history.explain(&found, self.history.len())));
        }
        self.check_counters()
    }

    pub(super) fn check_counters(&self) -> Result<(), String> {
        let (stats, keys) = (self.store().stats(), self.history.content().len() as u64);
        if stats.keys != keys || stats.quarantined_segments > 0 {
            return Err(format!("{keys} keys, and nothing damaged, but {stats:?}"));
        }
        Ok(())
    }

    /// The store was opened after it had been closed, and found that nothing was to be done.
    pub(super) fn check_clean(&self) -> Result<(), String> {
        let info = self.store().recovery_info();
        let quiet = info.torn_bytes + info.removed_segments + info.damaged_records + info.orphan_files == 0;
        if !info.clean || !quiet || info.scanned_records > 0 || info.rejected_hints > 0 {
            return Err(format!("opened after a proper close: {info:?}"));
        }
        let logs = self.sim.files().iter().filter(|name| name.ends_with(".log")).count() as u64;
        if logs != self.store().stats().segments {
            return Err(format!("{} segments, but there is {:?}", self.store().stats().segments, self.sim.files()));
        }
        Ok(())
    }
}

/// What a store holds of all the keys there may be.
pub(super) fn read_all(store: &Store) -> Result<Content, String> {
    let mut content = Content::new();
    for key in (0..KEYS).map(key) {
        if let Some(value) = store.get(&key).map_err(wrong(format_args!("get {}", show(&key))))? {
            content.insert(key, value.into());
        }
    }
    Ok(content)
}
