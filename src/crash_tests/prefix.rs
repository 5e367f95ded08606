//! Promises 1 to 5: whatever happens at whatever moment, what is found afterwards is a prefix of what was written, with
//! everything in it that was acknowledged as synced; and the store can be worked with as if nothing had been.
//!
//! A random workload is run once to count the operations on the disk, then once for each of them to be interrupted
//! there. What that leaves is looked at several times: as the death of the process leaves it, and as power cuts may
//! leave it. In a share of the cases the recovery is interrupted, too, or the work after it.
//!
//! `KV_CRASH_BUDGET=600` goes on for so many seconds with workloads never tried before. `KV_CRASH_SEED=17` tries one
//! workload, `KV_CRASH_SEED=17:203` interrupts it at one operation only, and tells what was done until then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::history::History;
use super::workload::{Ended, HOT, Session, Setting, Step, fill, steps, wrong};
use crate::model_tests::Rng;
use crate::storage::sim::{Crash, SimStorage, Unsynced};

/// Without a budget, so many crashes are tried.
const CRASHES: u64 = 21_000;
/// Steps of a workload, about.
const STEPS: u64 = 40;
/// Crashes of one store one after the other, at most.
const LIVES: u32 = 4;

/// What has been tried.
#[derive(Default)]
struct Tally {
    workloads: AtomicU64,
    /// Operations at which a workload was interrupted.
    operations: AtomicU64,
    /// Crashes, each with what it left opened and checked.
    crashes: AtomicU64,
    /// Those of them that happened in a recovery.
    in_recovery: AtomicU64,
}

/// One workload, the same whenever it is made from the same seed.
struct Case {
    seed: u64,
    setting: Setting,
    steps: Vec<Step>,
}

impl Case {
    fn new(seed: u64) -> Case {
        let mut rng = Rng(seed);
        rng.next();
        let setting = Setting::random(&mut rng);
        let mut work = if rng.below(3) == 0 { fill(&mut rng) } else { Vec::new() };
        let count = STEPS / 2 + rng.below(STEPS);
        work.extend(steps(&mut rng, count));
        Case { seed, setting, steps: work }
    }

    /// Runs it from the beginning, on a disk that may be set to crash.
    fn run(&self, prepare: impl FnOnce(&SimStorage)) -> Result<Session, String> {
        let sim = self.setting.disk(self.seed);
        prepare(&sim);
        let mut session = Session::new(&sim, &self.setting.options, History::default());
        if session.open()? == Ended::Well && session.run(&self.steps)? == Ended::Well {
            session.close()?;
        }
        no_signal(&sim)?;
        Ok(session)
    }
}

fn no_signal(sim: &SimStorage) -> Result<(), String> {
    sim.violation().map_or(Ok(()), Err)
}

/// Tries all crashes of a workload, or those at one operation.
fn explore(case: &Case, only: Option<u64>, tally: &Tally, stop: &AtomicBool) -> Result<(), String> {
    let total = case.run(|_| {}).map_err(wrong("without any crash"))?.sim.op_count();
    tally.workloads.fetch_add(1, Relaxed);
    for op in 0..total {
        if only.is_some_and(|only| only != op) || stop.load(Relaxed) {
            continue;
        }
        let tried = catch_unwind(AssertUnwindSafe(|| interrupt(case, op, tally)));
        let tried = tried.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(format!("panic: {}", text.unwrap_or_else(|| format!("{:?}", panic.downcast_ref::<&str>()))))
        });
        tried.map_err(|what| {
            let crashed = case.run(|sim| {
                sim.start_trace();
                sim.crash_at(op, Crash::Kill);
            });
            let trace = crashed.map(|session| session.sim.trace()).unwrap_or_default();
            let shown = if only.is_some() { trace.len() } else { trace.len().min(30) };
            let steps = if only.is_some() { format!("\n{:?}", case.steps) } else { String::new() };
            format!(
                "interrupted at operation {op} of {total} (KV_CRASH_SEED={}:{op}): {what}\n{:?}{steps}\n\
                 the last operations: {:#?}",
                case.seed,
                case.setting,
                &trace[trace.len() - shown..]
            )
        })?;
    }
    Ok(())
}

/// Interrupts a workload at one operation, and looks at what that may leave.
fn interrupt(case: &Case, op: u64, tally: &Tally) -> Result<(), String> {
    let mut session = case.run(|sim| sim.crash_at(op, Crash::Kill))?;
    if !session.sim.crashed() {
        return Err("another run of the same workload took other operations".into());
    }
    tally.operations.fetch_add(1, Relaxed);
    session.store = None;
    let mut rng = Rng(case.seed ^ op << 32);
    for outcome in 0..3 {
        let killed = session.sim.reboot();
        let crash = if outcome == 0 { Crash::Kill } else { Crash::Power };
        // A kind of the directed and a kind of the wild.
        let fate = if outcome == 2 { Unsynced::Mixed } else { [Unsynced::Lost, Unsynced::Kept][rng.below(2) as usize] };
        let found = after(&killed, crash, fate, &mut rng);
        let history = session.history.clone();
        let least = if crash == Crash::Kill { history.len() } else { history.synced() };
        let survivor = Survivor { case, sim: found, history, least, crash };
        survivor.survive(&mut rng, LIVES, tally).map_err(wrong(format_args!("{crash:?}, {fate:?}")))?;
    }
    Ok(())
}

/// What is found where the process has died, if it is only that or if power has failed as well.
fn after(killed: &SimStorage, crash: Crash, fate: Unsynced, rng: &mut Rng) -> SimStorage {
    killed.reseed(rng.next());
    killed.set_unsynced(fate);
    killed.crash_now(crash);
    killed.reboot()
}

/// A disk after a crash, and what had been written to it.
struct Survivor<'a> {
    case: &'a Case,
    sim: SimStorage,
    history: History,
    /// So many of the writes must be there.
    least: usize,
    crash: Crash,
}

impl Survivor<'_> {
    fn survive(self, rng: &mut Rng, lives: u32, tally: &Tally) -> Result<(), String> {
        tally.crashes.fetch_add(1, Relaxed);
        if lives > 0 && rng.below(4) == 0 {
            self.crash_in_recovery(rng, lives - 1, tally)?;
        }
        let mut session = self.recover()?;
        if lives > 0 && rng.below(4) == 0 {
            drop(session);
            return self.crash_later(rng, lives - 1, tally);
        }
        let more = steps(rng, 4);
        session.run(&more)?;
        session.run(&[Step::Set(rng.below(HOT), 50), Step::Del(rng.below(HOT)), Step::Check])?;
        session.step(&Step::Reopen).map_err(wrong("opened once more"))?;
        session.close()?;
        no_signal(&session.sim)
    }

    /// Opens what is left, and checks it.
    fn recover(&self) -> Result<Session, String> {
        let sim = self.sim.deep_copy();
        let mut session = Session::new(&sim, &self.case.setting.options, self.history.clone());
        session.open()?;
        let (found, least) = (session.content()?, self.least);
        let Some(len) = session.history.prefix(&found, least) else {
            let info = session.store().recovery_info();
            return Err(format!("not a prefix: {}\n{info:?}", session.history.explain(&found, least)));
        };
        session.history.keep(len);
        if self.crash == Crash::Power {
            // What has survived a power cut is on the disk: the next one must not take it.
            session.history.all_synced();
        }
        session.check_counters()?;
        let info = session.store().recovery_info();
        if info.damaged_records > 0 || (info.clean && (info.torn_bytes > 0 || info.removed_segments > 0)) {
            return Err(format!("nothing is damaged, but {info:?}"));
        }
        Ok(session)
    }

    /// Interrupts the recovery at one of its operations.
    fn crash_in_recovery(&self, rng: &mut Rng, lives: u32, tally: &Tally) -> Result<(), String> {
        let open = |sim: &SimStorage| {
            let mut session = Session::new(sim, &self.case.setting.options, self.history.clone());
            session.open()
        };
        let whole = self.sim.deep_copy();
        open(&whole)?;
        let open_ops = whole.op_count();
        if open_ops == 0 {
            return Ok(());
        }
        let sim = self.sim.deep_copy();
        let op = rng.below(open_ops);
        sim.reseed(rng.next());
        sim.crash_at(op, Crash::Kill);
        let _ = open(&sim)?;
        tally.in_recovery.fetch_add(1, Relaxed);
        let what = format!("recovery interrupted at operation {op} of {open_ops}, {:?}", sim.in_flight());
        self.crash_again(&sim.reboot(), self.history.clone(), self.least, rng, lives, tally).map_err(wrong(what))
    }

    /// Works on after the recovery, up to another crash.
    fn crash_later(&self, rng: &mut Rng, lives: u32, tally: &Tally) -> Result<(), String> {
        let count = 2 + rng.below(8);
        let steps = steps(rng, count);
        let mut whole = self.recover()?;
        let before = whole.sim.op_count();
        whole.run(&steps).map_err(wrong("working on"))?;
        let total = whole.sim.op_count();
        if total == before {
            return Ok(());
        }
        let mut session = self.recover()?;
        session.sim.crash_at(before + rng.below(total - before), Crash::Kill);
        session.run(&steps)?;
        session.store = None;
        no_signal(&session.sim)?;
        let what = format!("then {steps:?}, interrupted at {:?}", session.sim.in_flight());
        let (killed, history) = (session.sim.reboot(), session.history);
        let acknowledged = history.len();
        self.crash_again(&killed, history, acknowledged, rng, lives, tally).map_err(wrong(what))
    }

    /// The next crash, of either kind. The death of the process alone leaves at least so many writes.
    fn crash_again(
        &self,
        killed: &SimStorage,
        history: History,
        least: usize,
        rng: &mut Rng,
        lives: u32,
        tally: &Tally,
    ) -> Result<(), String> {
        let crash = [Crash::Kill, Crash::Power][rng.below(2) as usize];
        let fate = [Unsynced::Lost, Unsynced::Kept, Unsynced::Mixed, Unsynced::Mixed][rng.below(4) as usize];
        let sim = after(killed, crash, fate, rng);
        let least = if crash == Crash::Kill { least } else { history.synced() };
        let next = Survivor { case: self.case, sim, history, least, crash };
        next.survive(rng, lives, tally).map_err(wrong(format_args!("again {crash:?}, {fate:?}")))
    }
}

/// Tries workload after workload with all processors, until it is enough. Returns what went wrong.
fn explore_all(first: u64, enough: impl Fn(&Tally) -> bool + Sync, tally: &Tally) -> Vec<String> {
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !enough(tally) && !stop.load(Relaxed) {
                    let case = Case::new(next.fetch_add(1, Relaxed));
                    let tried = catch_unwind(AssertUnwindSafe(|| explore(&case, None, tally, &stop)));
                    let tried = tried.unwrap_or_else(|_| Err("panic".into()));
                    if let Err(what) = tried {
                        stop.store(true, Relaxed);
                        failures.lock().unwrap().push(format!("workload KV_CRASH_SEED={}: {what}", case.seed));
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

#[test]
fn a_crash_at_any_operation_leaves_a_prefix_with_all_that_was_synced() {
    let tally = Tally::default();
    let begin = Instant::now();
    let number = |name| std::env::var(name).ok();
    let failures = if let Some(seed) = number("KV_CRASH_SEED") {
        let (seed, op) = seed.split_once(':').map_or((seed.as_str(), None), |(seed, op)| (seed, Some(op)));
        let op = op.map(|op| op.parse().expect("KV_CRASH_SEED is a number, or two with a colon"));
        let case = Case::new(seed.parse().expect("KV_CRASH_SEED is a number, or two with a colon"));
        explore(&case, op, &tally, &AtomicBool::new(false)).err().into_iter().collect()
    } else if let Some(seconds) = number("KV_CRASH_BUDGET") {
        let budget = Duration::from_secs(seconds.parse().expect("KV_CRASH_BUDGET is a number of seconds"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        explore_all(now, |_| begin.elapsed() >= budget, &tally)
    } else {
        explore_all(1, |tally| tally.crashes.load(Relaxed) >= CRASHES, &tally)
    };
    println!(
        "{} crashes at {} operations of {} workloads, {} of them in a recovery, in {:.1?}",
        tally.crashes.load(Relaxed),
        tally.operations.load(Relaxed),
        tally.workloads.load(Relaxed),
        tally.in_recovery.load(Relaxed),
        begin.elapsed()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
