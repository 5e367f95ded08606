//! Checkpoints: equal to the store at one moment, whatever is interrupted or fails; and independent of it ever after,
//! though they share files.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::history::{Content, History, Write};
use super::workload::{Ended, Session, Setting, Step, fill, steps, wrong};
use crate::checkpoint::Base;
use crate::log::manifest;
use crate::model_tests::Rng;
use crate::storage::Storage;
use crate::storage::sim::{Calls, Crash, FaultPlan, SimStorage, Unsynced};
use crate::{Code, IoPath, Options, Progress, Store, SyncLevel};

/// A checkpoint that was made, or was being made.
#[derive(Clone)]
struct Made {
    dir: &'static str,
    /// What it is to hold.
    content: Content,
    /// It was acknowledged.
    finished: bool,
}

pub(super) fn arc(sim: SimStorage) -> Arc<dyn Storage> {
    Arc::new(sim)
}

/// Makes a checkpoint, as `Store::checkpoint_with` does in a directory that it has made.
pub(super) fn checkpoint(store: &Store, sim: &SimStorage, dir: &str, base: Option<&str>) -> crate::Result<()> {
    let base = base.map(|base| Base::read(arc(sim.directory(base)))).transpose()?;
    store.engine.checkpoint(&sim.directory(dir), base.as_ref(), &mut Progress::new(&mut |_, _| true))
}

/// All of a directory but the lock file.
fn files(sim: &SimStorage) -> BTreeMap<String, Vec<u8>> {
    let names = sim.files().into_iter().filter(|name| name != "LOCK");
    names.map(|name| (name.clone(), sim.read_file(&name).unwrap())).collect()
}

/// A session on a directory that holds this content, durably.
fn session_on(sim: &SimStorage, options: &Options, content: &Content) -> Session {
    let mut history = History::default();
    for (key, value) in content {
        history.acknowledged(Write::of(key.clone(), Some(Arc::clone(value))));
    }
    history.all_synced();
    Session::new(sim, options, history)
}

struct Case {
    seed: u64,
    setting: Setting,
    /// Where the checkpoints go: on another file system, or not.
    dirs: [&'static str; 2],
    /// Before the first checkpoint, between the two, and after the second.
    work: [Vec<Step>; 3],
}

/// A run of a case.
struct Run {
    session: Session,
    made: Vec<Made>,
    /// The numbers of operations and of calls when a checkpoint began, and when it ended.
    marks: Vec<[(u64, u64); 2]>,
}

impl Case {
    fn new(seed: u64) -> Case {
        let mut rng = Rng(seed);
        rng.next();
        let setting = Setting::random(&mut rng);
        let dirs = if rng.below(2) == 0 { ["a", "b"] } else { ["far:a", "far:b"] };
        let mut first = if rng.below(2) == 0 { fill(&mut rng) } else { Vec::new() };
        first.extend(steps(&mut rng, 25));
        let work = [first, steps(&mut rng, 12), steps(&mut rng, 6)];
        Case { seed, setting, dirs, work }
    }

    /// Runs it from the beginning, on a disk that may be set to crash.
    fn run(&self, prepare: impl FnOnce(&SimStorage)) -> Result<Run, String> {
        let sim = self.setting.disk(self.seed);
        prepare(&sim);
        let session = Session::new(&sim, &self.setting.options, History::default());
        let mut run = Run { session, made: Vec::new(), marks: Vec::new() };
        run.go(self)?;
        sim.violation().map_or(Ok(run), Err)
    }
}

impl Run {
    fn go(&mut self, case: &Case) -> Result<(), String> {
        if self.session.open()? == Ended::Crashed {
            return Ok(());
        }
        for (i, work) in case.work.iter().enumerate() {
            if self.session.run(work)? == Ended::Crashed {
                return Ok(());
            }
            if let Some(dir) = case.dirs.get(i) {
                let base = (i > 0).then_some(case.dirs[0]);
                if self.checkpoint(dir, base).map_err(wrong(format_args!("checkpoint {i}")))? == Ended::Crashed {
                    return Ok(());
                }
            }
        }
        self.session.close().map(drop)
    }

    fn checkpoint(&mut self, dir: &'static str, base: Option<&str>) -> Result<Ended, String> {
        let sim = self.session.sim.clone();
        let begin = (sim.op_count(), sim.call_count());
        self.made.push(Made { dir, content: self.session.history.content().clone(), finished: false });
        let made = checkpoint(self.session.store(), &sim, dir, base);
        if sim.crashed() {
            return Ok(Ended::Crashed);
        }
        made.map_err(|e| e.to_string())?;
        self.marks.push([begin, (sim.op_count(), sim.call_count())]);
        self.made.iter_mut().for_each(|made| made.finished |= made.dir == dir);
        Ok(Ended::Well)
    }
}

/// Opens what is in a directory, and finds the checkpoint there. `None` if it is no database.
fn open_checkpoint(sim: &SimStorage, options: &Options, made: &Made) -> Result<Option<Session>, String> {
    let sim = sim.directory(made.dir);
    let there = files(&sim);
    let mut session = session_on(&sim, options, &made.content);
    if there.is_empty() && !made.finished {
        return Ok(None);
    }
    match Store::open_on(arc(sim.clone()), options) {
        Ok(store) => session.store = Some(store),
        // Once MANIFEST has its name, all is there.
        Err(e)
            if !made.finished
                && !there.contains_key(manifest::NAME)
                && matches!(e.code(), Code::NotADatabase | Code::Corrupt) =>
        {
            return if files(&sim) == there { Ok(None) } else { Err("a refused directory was changed".into()) };
        }
        Err(e) => return Err(format!("checkpoint {}: {e}", made.dir)),
    }
    session.check().map_err(wrong(format_args!("checkpoint {}", made.dir)))?;
    let info = session.store().recovery_info();
    if info.damaged_records + info.torn_bytes + info.removed_segments > 0 || !info.clean {
        return Err(format!("checkpoint {}: {info:?}", made.dir));
    }
    Ok(Some(session))
}

/// Works on one side, and finds the files of the other as they were.
fn work_beside(session: &mut Session, other: &SimStorage, rng: &mut Rng) -> Result<(), String> {
    let before = files(other);
    let count = 3 + rng.below(10);
    session.run(&steps(rng, count))?;
    session.run(&[Step::Set(1, 80), Step::Compact, Step::Reopen])?;
    if files(other) == before { Ok(()) } else { Err("work on one side changed files of the other".into()) }
}

/// Opens both sides after a crash and works on, now here, now there.
fn survive(case: &Case, sim: &SimStorage, run: &Run, least: usize, rng: &mut Rng) -> Result<(), String> {
    let options = &case.setting.options;
    let mut session = Session::new(sim, options, run.session.history.clone());
    session.open().map_err(wrong("the source"))?;
    let found = session.content()?;
    let len = session.history.prefix(&found, least);
    let len = len.ok_or_else(|| format!("the source: {}", session.history.explain(&found, least)))?;
    session.history.keep(len);
    session.check_counters()?;
    for made in &run.made {
        let Some(mut copy) = open_checkpoint(sim, options, made)? else { continue };
        for _ in 0..2 {
            work_beside(&mut session, &copy.sim, rng).map_err(wrong("on the source"))?;
            copy.check()?;
            work_beside(&mut copy, &session.sim, rng).map_err(wrong("on the checkpoint"))?;
            session.check()?;
        }
        copy.close()?;
    }
    session.close()?;
    sim.violation().map_or(Ok(()), Err)
}

fn interrupt(case: &Case, op: u64) -> Result<(), String> {
    let mut run = case.run(|sim| sim.crash_at(op, Crash::Kill))?;
    if !run.session.sim.crashed() {
        return Err("another run of the same work took other operations".into());
    }
    run.session.store = None;
    let mut rng = Rng(case.seed ^ op << 32);
    for fate in [None, Some(Unsynced::Lost), Some(Unsynced::Mixed), Some(Unsynced::Mixed)] {
        let sim = run.session.sim.reboot();
        sim.reseed(rng.next());
        fate.into_iter().for_each(|fate| sim.set_unsynced(fate));
        sim.crash_now(if fate.is_some() { Crash::Power } else { Crash::Kill });
        let history = &run.session.history;
        let least = if fate.is_some() { history.synced() } else { history.len() };
        survive(case, &sim.reboot(), &run, least, &mut rng).map_err(wrong(format_args!("{fate:?}")))?;
    }
    Ok(())
}

#[test]
fn a_crash_during_a_checkpoint_leaves_all_of_it_or_nothing_and_the_source_as_it_was() {
    let mut crashes = 0;
    for case in (1..=10).map(Case::new) {
        let whole = case.run(|_| {}).unwrap_or_else(|what| panic!("seed {}: {what}", case.seed));
        let total = whole.session.sim.op_count();
        let in_checkpoints = whole.marks.iter().flat_map(|[(begin, _), (end, _)]| *begin..*end);
        let after = (whole.marks[1][1].0..total).step_by(20);
        for op in in_checkpoints.chain(after) {
            crashes += 1;
            if let Err(what) = interrupt(&case, op) {
                panic!("seed {}, operation {op}: {what}\n{:?}\n{:?}", case.seed, case.setting, case.work);
            }
        }
    }
    println!("{crashes} crashes");
    assert!(crashes > 300, "only {crashes} crashes");
}

#[test]
fn both_sides_live_on_independently() {
    for seed in 0..30 {
        let case = Case::new(1000 + seed);
        let run = case.run(|_| {}).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        let mut rng = Rng(seed);
        let history = run.session.history.len();
        for _ in 0..3 {
            let sim = run.session.sim.deep_copy();
            survive(&case, &sim, &run, history, &mut rng).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        }
    }
}

pub(super) fn small_segments() -> Options {
    Options { segment_size: 4 << 10, background: false, compact_threshold: 1 << 30, ..Options::default() }
}

/// Work up to a checkpoint in which calls fail; then the faults end.
fn fail_in_checkpoint(
    setting: &Setting,
    work: &[Step],
    far: bool,
    plan: Option<FaultPlan>,
) -> Result<[u64; 2], String> {
    let sim = setting.disk(7);
    let mut session = Session::new(&sim, &setting.options, History::default());
    session.open()?;
    session.run(work)?;
    let dirs = if far { ["far:a", "far:b", "far:c"] } else { ["a", "b", "c"] };
    checkpoint(session.store(), &sim, dirs[0], None).map_err(wrong("the base"))?;
    session.run(&[Step::Set(2, 1500), Step::Set(3, 1500), Step::Set(4, 1500)])?;
    let begin = sim.call_count();
    plan.into_iter().for_each(|plan| sim.fail(FaultPlan { at: begin + plan.at, ..plan }));
    let made = checkpoint(session.store(), &sim, dirs[1], Some(dirs[0]));
    let end = sim.call_count();
    sim.heal();
    let content = session.history.content().clone();
    if let Err(e) = &made {
        if !matches!(e.code(), Code::Io | Code::NoSpace | Code::NoMemory) {
            return Err(format!("{:?} for a fault of the system: {e}", e.code()));
        }
        let left = files(&sim.directory(dirs[1]));
        if plan.is_some_and(|plan| !plan.persistent) && !left.is_empty() {
            return Err(format!("after {e}: left {:?}", left.keys()));
        }
    }
    let made = Made { dir: dirs[1], content: content.clone(), finished: made.is_ok() };
    open_checkpoint(&sim, &setting.options, &made)?.map_or(Ok(Ended::Well), |mut copy| copy.close())?;
    // Another one works, even if a sync of the source was what failed.
    checkpoint(session.store(), &sim, dirs[2], Some(dirs[0])).map_err(wrong("once more"))?;
    let made = Made { dir: dirs[2], content, finished: true };
    open_checkpoint(&sim, &setting.options, &made)?.map_or(Ok(Ended::Well), |mut copy| copy.close())?;
    session.check()?;
    match session.store().set(b"more", b"more") {
        Err(e) if e.code() == Code::Poisoned && plan.is_some() => {}
        other => other.map_err(wrong("a write after all is well again"))?,
    }
    sim.violation().map_or(Ok([begin, end]), Err)
}

#[test]
fn a_fault_during_a_checkpoint_fails_cleanly_or_not_at_all() {
    let (mut tried, mut failures) = (0, Vec::new());
    for (seed, far) in [(1, false), (2, true), (3, true)] {
        let mut setting = Setting::random(&mut Rng(seed));
        let io = if seed == 2 { IoPath::Syscall } else { IoPath::Auto };
        setting.options = Options { io, sync: SyncLevel::Os, ..small_segments() };
        let mut work = fill(&mut Rng(seed));
        work.extend([Step::Sync, Step::Del(3), Step::Set(4, 900)]);
        let [begin, end] = fail_in_checkpoint(&setting, &work, far, None).expect("without faults");
        for at in 0..end - begin {
            for (persistent, errno) in [(false, libc::EIO), (true, libc::ENOSPC)] {
                let plan = FaultPlan { at, errno, persistent, calls: Calls::ALL };
                tried += 1;
                if let Err(what) = fail_in_checkpoint(&setting, &work, far, Some(plan)) {
                    failures.push(format!("{plan:?}, seed {seed}: {what}"));
                }
            }
        }
    }
    println!("{tried} faults tried");
    assert!(tried > 100, "only {tried} faults");
    assert!(failures.is_empty(), "{} of {tried} faults, the first:\n{}", failures.len(), failures[0]);
}
