//! Promise 6: whatever call to the system fails, what the caller gets is an error code, what was acknowledged stays, a
//! write that failed changed nothing, and the store works again when the fault is gone. After a failed sync it takes no
//! more writes until it is opened again.
//!
//! A workload is run once to count its calls, then once more for each of them and several errors.

use super::history::{Change, History, Write};
use super::workload::{Session, Setting, Step, key, read_all, steps, value, wrong};
use crate::model_tests::Rng;
use crate::storage::sim::{Calls, Crash, FaultPlan, SimStorage, Unsynced};
use crate::{Code, IoPath, SyncLevel};

const ERRORS: [i32; 6] = [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EINTR, libc::EMFILE, libc::ENOMEM];

/// A session in which calls to the system may fail.
struct Faulty {
    session: Session,
    /// A sync has failed.
    poisoned: bool,
}

/// Codes that a fault of the system may give.
fn acceptable(code: Code) -> Result<(), String> {
    match code {
        Code::Io | Code::NoSpace | Code::NoMemory | Code::Poisoned | Code::Corrupt => Ok(()),
        other => Err(format!("{other:?} for a fault of the system")),
    }
}

impl Faulty {
    fn new(sim: &SimStorage, setting: &Setting) -> Faulty {
        let session = Session::new(sim, &setting.options, History::default());
        Faulty { session, poisoned: false }
    }

    /// Opens the store, if need be once the fault is gone, and finds all that was acknowledged: nobody has died.
    fn open(&mut self) -> Result<(), String> {
        let sim = self.session.sim.clone();
        let opened = self.session.open();
        if opened.is_err() {
            sim.heal();
            self.session.open().map_err(wrong(format_args!("open after {opened:?}, healed")))?;
        }
        self.poisoned = false;
        self.find(self.session.history.len(), &sim)
    }

    /// Finds a prefix of so many writes at least, and goes on from there.
    fn find(&mut self, least: usize, sim: &SimStorage) -> Result<(), String> {
        let found = read_all(self.session.store()).or_else(|_| {
            sim.heal();
            read_all(self.session.store())
        })?;
        let history = &mut self.session.history;
        let len = history.prefix(&found, least);
        let len = len.ok_or_else(|| format!("not a prefix: {}", history.explain(&found, least)))?;
        history.keep(len);
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let poisoned_before = self.poisoned;
        let session = &mut self.session;
        let done = match *step {
            Step::Reopen => {
                let closed = session.store.take().expect("an open store").close();
                match closed {
                    Ok(()) if self.poisoned => {
                        return Err("a store that a failed sync poisoned closed as if synced".into());
                    }
                    Ok(()) => session.history.all_synced(),
                    Err(e) => acceptable(e.code())?,
                }
                return self.open();
            }
            Step::Clock(_) => Ok(()),
            Step::Check => return self.check(),
            Step::Sync => session.store().sync().inspect(|()| session.history.all_synced()),
            Step::Compact => session.store().compact(),
            Step::Maintain(budget) => session.store().maintain(budget).map(drop),
            Step::Set(n, len) => {
                let value = value(session.next_serial(), len);
                let done = session.store().set(&key(n), &value);
                return self.written(Write::of(key(n), Some(value)), done);
            }
            Step::SetIf(n, len, holds) => {
                let value = value(session.next_serial(), len);
                let done = session.set_if(&key(n), &value, holds);
                return self.written_if(holds, Write::of(key(n), Some(value)), done);
            }
            Step::Batch(ref changes, ref conditions, hold) => {
                let (batch, write) = session.batch(changes, conditions, hold);
                let done = session.store().write(&batch);
                return self.written_if(hold, write, done);
            }
            Step::Del(n) => {
                let there = session.history.content().contains_key(&key(n));
                match session.store().del(&key(n)) {
                    Ok(deleted) if deleted != there => return Err(format!("deleted: {deleted}, there: {there}")),
                    Ok(false) => return Ok(()),
                    done => return self.written(Write::of(key(n), None), done.map(drop)),
                }
            }
        };
        match done {
            Ok(()) if matches!(step, Step::Sync) && poisoned_before => Err("a sync after one that failed".into()),
            Ok(()) => Ok(()),
            Err(e) => {
                self.poisoned |= e.code() == Code::Poisoned;
                acceptable(e.code())
            }
        }
    }

    fn written_if(&mut self, holds: bool, write: Write, done: crate::Result<bool>) -> Result<(), String> {
        match done {
            Ok(false) if !holds => Ok(()),
            Ok(applied) if applied != holds => Err(format!("applied: {applied}, the conditions hold: {holds}")),
            // Making room may have failed to sync, whatever became of the conditions.
            done if holds => self.written(write, done.map(drop)),
            done => self.written(Write(Vec::new()), done.map(drop)),
        }
    }

    fn written(&mut self, write: Write, done: crate::Result<()>) -> Result<(), String> {
        let always = self.session.options.sync == SyncLevel::Always;
        match done {
            Ok(()) if self.poisoned => return Err("a write after a failed sync".into()),
            Ok(()) => {
                self.session.history.acknowledged(write);
                if always {
                    self.session.history.all_synced();
                }
                return Ok(());
            }
            Err(ref e) => acceptable(e.code()).map_err(|what| format!("{what}: {e}"))?,
        }
        let code = done.err().map(|e| e.code());
        if code == Some(Code::Poisoned) {
            if always && !self.poisoned {
                // Its own sync may be the one that failed: it is written, and nobody knows how durably.
                self.session.history.interrupted(write);
            }
            self.poisoned = true;
            return Ok(());
        }
        // It failed, so it has changed nothing.
        for Change { key, .. } in &write.0 {
            match self.session.store().get(key) {
                Ok(found) if found.as_deref() != self.session.history.content().get(key).map(|v| &**v) => {
                    return Err(format!("a write that failed with {code:?} has changed what is read"));
                }
                Ok(_) => {}
                Err(e) => acceptable(e.code())?,
            }
        }
        Ok(())
    }

    /// Reads give what was acknowledged, or an error while the fault lasts.
    fn check(&mut self) -> Result<(), String> {
        let Ok(found) = read_all(self.session.store()) else { return Ok(()) };
        let history = &self.session.history;
        match history.prefix(&found, history.len()) {
            Some(_) => Ok(()),
            None => Err(format!("wrong content: {}", history.explain(&found, history.len()))),
        }
    }

    /// The fault is gone.
    fn healed(&mut self, rng: &mut Rng) -> Result<(), String> {
        let sim = self.session.sim.clone();
        sim.heal();
        let found = read_all(self.session.store())?;
        let least = self.session.history.len();
        if self.session.history.prefix(&found, least).is_none() {
            return Err(format!("wrong content: {}", self.session.history.explain(&found, least)));
        }
        let written = self.session.store().set(b"0000000000000009", b"more");
        match written.map_err(|e| e.code()) {
            Err(Code::Poisoned) if !self.poisoned => {
                // Maintenance inside of a write hides its failures, this one too.
                self.poisoned = true;
            }
            Err(Code::Poisoned) => {}
            Ok(()) if self.poisoned => return Err("a write after a failed sync".into()),
            other => other.map_err(|code| format!("{code:?} from a write after all is well again"))?,
        }
        if self.poisoned {
            return self.after_a_failed_sync(rng);
        }
        self.session.store().del(b"0000000000000009").map_err(wrong("del"))?;
        self.session.check().map_err(wrong("healed"))?;
        self.session.store().compact().map_err(wrong("compact"))?;
        self.session.check().map_err(wrong("healed and compacted"))?;
        self.session.step(&Step::Sync)?;
        self.power_cut(rng).map_err(wrong("healed and synced"))?;
        // What could not be removed is removed by the next to open it.
        self.session.close()?;
        self.open()?;
        self.session.step(&Step::Reopen).map_err(wrong("healed"))?;
        Ok(())
    }

    /// Reads go on, and opening again leaves a prefix with all that was synced before.
    fn after_a_failed_sync(&mut self, rng: &mut Rng) -> Result<(), String> {
        let refused = [self.session.store().sync(), self.session.store().compact()];
        if refused.iter().any(|r| r.as_ref().map_err(|e| e.code()) != Err(Code::Poisoned)) {
            return Err(format!("after a failed sync: {refused:?}"));
        }
        self.power_cut(rng).map_err(wrong("poisoned"))?;
        let restarted = self.session.sim.deep_copy();
        // As it is found by the next process, which must not take for durable what is not.
        let closed = self.session.store.take().expect("an open store").close();
        if closed.is_ok() {
            return Err("a store that a failed sync poisoned closed as if synced".into());
        }
        for sim in [self.session.sim.clone(), restarted.reboot()] {
            let mut next = Faulty {
                session: Session::new(&sim, &self.session.options, self.session.history.clone()),
                poisoned: false,
            };
            next.session.open().map_err(wrong("after a failed sync"))?;
            // A restart may bring back the old content of pages that were not written.
            next.find(next.session.history.synced(), &sim).map_err(wrong("after a failed sync"))?;
            next.session.run(&[Step::Set(3, 60), Step::Sync, Step::Check])?;
            next.power_cut(rng).map_err(wrong("synced by the process after a failed sync"))?;
        }
        Ok(())
    }

    /// Power fails now; the handle that is open does not notice.
    fn power_cut(&self, rng: &mut Rng) -> Result<(), String> {
        for fate in [Unsynced::Lost, Unsynced::Mixed] {
            let cut = self.session.sim.deep_copy();
            cut.reseed(rng.next());
            cut.set_unsynced(fate);
            cut.crash_now(Crash::Power);
            let sim = cut.reboot();
            let session = Session::new(&sim, &self.session.options, self.session.history.clone());
            let mut after = Faulty { session, poisoned: false };
            after.session.open().map_err(wrong(format_args!("power cut, {fate:?}")))?;
            let least = after.session.history.synced();
            after.find(least, &sim).map_err(wrong(format_args!("power cut, {fate:?}")))?;
            if after.session.store().recovery_info().damaged_records > 0 {
                return Err(format!("nothing is damaged, but {:?}", after.session.store().recovery_info()));
            }
        }
        Ok(())
    }
}

fn settings() -> Vec<(Setting, u64)> {
    let all = [
        (IoPath::Auto, SyncLevel::Os, true),
        (IoPath::Syscall, SyncLevel::Os, true),
        (IoPath::Auto, SyncLevel::Always, true),
        (IoPath::Auto, SyncLevel::Interval, false),
    ];
    let setting = |(seed, (io, sync, reserves)): (u64, (IoPath, SyncLevel, bool))| {
        let mut setting = Setting::random(&mut Rng(seed));
        setting.options = crate::Options {
            io,
            sync,
            segment_size: 4 << 10,
            compact_threshold: 2 << 10,
            garbage_percent: 50,
            ..setting.options
        };
        setting.reserves_blocks = reserves;
        (setting, seed)
    };
    (1..).zip(all).map(setting).collect()
}

fn run(setting: &Setting, steps: &[Step], plan: Option<FaultPlan>, seed: u64) -> Result<u64, String> {
    let sim = setting.disk(seed);
    plan.into_iter().for_each(|plan| sim.fail(plan));
    let mut faulty = Faulty::new(&sim, setting);
    faulty.open()?;
    for (i, step) in steps.iter().enumerate() {
        faulty.step(step).map_err(wrong(format_args!("step {i}, {step:?}")))?;
    }
    let calls = sim.call_count();
    faulty.healed(&mut Rng(seed ^ calls))?;
    sim.violation().map_or(Ok(calls), Err)
}

/// Work with a bit of everything in it.
fn work(seed: u64) -> Vec<Step> {
    let mut steps = steps(&mut Rng(seed), 24);
    steps.splice(8..8, [Step::Set(1, 1500), Step::Set(2, 1500), Step::Sync, Step::Set(1, 1500), Step::Compact]);
    steps.splice(20..20, [Step::Reopen, Step::Set(1, 1500), Step::Set(3, 900), Step::Maintain(1 << 20)]);
    steps
}

fn fail_each_call(calls: Calls, persistent: bool, errors_a_call: usize) {
    let mut tried = 0;
    let mut failures = Vec::new();
    for (setting, seed) in settings() {
        let steps = work(seed);
        let total = run(&setting, &steps, None, seed).expect("without faults");
        for at in 0..total {
            for n in 0..errors_a_call {
                let errno = ERRORS[(at as usize + n) % ERRORS.len()];
                let plan = FaultPlan { at, errno, persistent, calls };
                tried += 1;
                if let Err(what) = run(&setting, &steps, Some(plan), seed) {
                    failures.push(format!("{plan:?}, seed {seed}, {setting:?}: {what}\n{steps:?}"));
                }
            }
        }
    }
    println!("{tried} faults tried");
    assert!(failures.is_empty(), "{} of {tried} faults, the first:\n{}", failures.len(), failures[0]);
}

#[test]
fn a_call_that_fails_once_loses_nothing() {
    fail_each_call(Calls::ALL, false, 2);
}

#[test]
fn calls_that_fail_from_some_time_on_lose_nothing() {
    fail_each_call(Calls::ALL, true, 1);
}

#[test]
fn syncs_that_fail_poison_the_store_and_lose_nothing_that_was_synced() {
    fail_each_call(Calls::SYNC | Calls::SYNC_DIR, false, 1);
}

#[test]
fn short_reads_and_writes_are_no_errors() {
    for (setting, seed) in settings() {
        for round in 0..5 {
            let sim = setting.disk(seed);
            sim.set_short_io(true);
            let mut session = Session::new(&sim, &setting.options, History::default());
            session.open().unwrap();
            session.run(&steps(&mut Rng(seed * 100 + round), 150)).unwrap();
            session.step(&Step::Reopen).unwrap();
        }
    }
}
