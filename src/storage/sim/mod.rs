//! A simulated disk, on which crashes and faults can be had at every operation: how crash safety is proved.
//!
//! [`SimStorage`] implements [`Storage`] in memory. The disk keeps what programs see (the page cache) apart
//! from what would be there after a power cut. It is as hostile as file systems may be, not as kind as
//! one of them is:
//!
//! - **Contents.** The unit is a page of 4 KiB or a sector of 512 bytes ([`PageMode`]). Of every unit that was
//!   changed since the last sync of its file, a power cut keeps the synced content, the newest, or any
//!   in between, with at times a part of the next change on top: it was being stored when the unit went to
//!   disk. Units are independent of each other.
//! - **Length.** A power cut keeps the synced length or any that the file had since, or a block boundary on the
//!   way while it grew, whatever became of the contents. Inside the length, what was never written is zeros;
//!   beyond it, nothing is left.
//! - **Names.** Each creation, link, rename and removal since the last `sync_dir` happened or did not, whatever became
//!   of the others; a rename may leave the old name in place (then both are the same file). A sync of a
//!   file does not make its name durable, a `sync_dir` does not make contents durable. The directories on the disk are
//!   there from the beginning; each is synced for itself.
//! - **Kill.** The death of the process keeps the page cache. The store or the write in flight may be torn at any
//!   byte: a system call copies in order, the stores to a map come in any order. What was not
//!   synced is still not: a power cut after the restart can take it.
//! - **In flight.** The operation at which a crash happens did not happen, or happened, or happened in part.
//! - **Failed writes** leave any prefix. **Failed syncs** leave each changed page written or not, and clean either
//!   way: later syncs succeed without writing it, unless it is changed again; and after a restart its old
//!   content may be back. Other failed operations change nothing.
//! - **Maps** are separate buffers at fixed addresses, kept alike by [`MapOwner::wrote`]. A store where a real map
//!   would raise a signal (beyond the end of file, to a hole, to sealed pages) is a panic and a [`SimStorage::violation`];
//!   what lies behind the end of file reads as garbage.
//!
//! Everything random comes from the seed, so a run by one thread can be repeated exactly.

mod file;
mod image;
// Statistics over many runs, too slow for an interpreter; the unsafe code has its tests in `file`.
#[cfg(all(test, not(miri)))]
mod tests;

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::ops::BitOr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{File, Storage};
use file::{Buffer, SimFile};
use image::{BLOCK, Image, Partly, Rng, dir_of};
pub(crate) use image::{PageMode, Unsynced};

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process dies; the operating system lives on.
    Kill,
    /// Everything dies.
    Power,
}

/// A set of kinds of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Calls(u32);

impl Calls {
    pub(crate) const LIST: Calls = Calls(1);
    pub(crate) const CREATE: Calls = Calls(1 << 1);
    pub(crate) const OPEN: Calls = Calls(1 << 2);
    pub(crate) const RENAME: Calls = Calls(1 << 3);
    pub(crate) const REMOVE: Calls = Calls(1 << 4);
    pub(crate) const SYNC_DIR: Calls = Calls(1 << 5);
    pub(crate) const LOCK: Calls = Calls(1 << 6);
    pub(crate) const RANDOM: Calls = Calls(1 << 7);
    pub(crate) const LEN: Calls = Calls(1 << 8);
    pub(crate) const READ: Calls = Calls(1 << 9);
    pub(crate) const WRITE: Calls = Calls(1 << 10);
    pub(crate) const SET_LEN: Calls = Calls(1 << 11);
    pub(crate) const ALLOCATE: Calls = Calls(1 << 12);
    pub(crate) const SYNC: Calls = Calls(1 << 13);
    pub(crate) const MAP: Calls = Calls(1 << 14);
    pub(crate) const LINK: Calls = Calls(1 << 15);
    pub(crate) const START_SYNC: Calls = Calls(1 << 16);
    pub(crate) const ALL: Calls = Calls(u32::MAX);
}

impl BitOr for Calls {
    type Output = Calls;

    fn bitor(self, other: Calls) -> Calls {
        Calls(self.0 | other.0)
    }
}

/// Errors to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FaultPlan {
    /// The first call that may fail, in the numbering of [`SimStorage::call_count`].
    pub(crate) at: u64,
    /// The error, such as `libc::EIO`.
    pub(crate) errno: i32,
    /// Whether all fitting calls fail from then on, or only the first.
    pub(crate) persistent: bool,
    /// Which kinds of calls fail.
    pub(crate) calls: Calls,
}

/// One user of a simulated disk. Clones are the same user; see [`SimStorage::handle`].
#[derive(Clone)]
pub(crate) struct SimStorage {
    user: Arc<User>,
}

/// Who may hold the lock, and lets go of it when dropped, as a process does whose descriptors are closed.
struct User {
    disk: Shared,
    id: u64,
    /// What the names of its files begin with on the disk: nothing, or a directory and a slash.
    dir: String,
}

/// The lock of one directory.
#[derive(Default)]
struct Locks {
    exclusive: Option<u64>,
    shared: Vec<u64>,
}

type Shared = Arc<Mutex<Disk>>;

struct Disk {
    image: Image,
    /// What is open, by inode.
    live: BTreeMap<u64, Live>,
    rng: Rng,
    /// What `Storage::random` gives; apart, so that it does not change with faults and crashes.
    entropy: Rng,
    clock: i64,
    ops: u64,
    calls: u64,
    crash_at: Option<(u64, Crash)>,
    crashed: bool,
    in_flight: Option<String>,
    trace: Option<Vec<String>>,
    violations: Vec<String>,
    faults: Vec<FaultPlan>,
    short_io: bool,
    capacity: Option<usize>,
    reserves_blocks: bool,
    unsynced: Unsynced,
    users: u64,
    /// By directory.
    locks: BTreeMap<String, Locks>,
}

#[derive(Default)]
struct Live {
    /// The number of files and maps.
    open: usize,
    buffers: Vec<Weak<Buffer>>,
}

fn guard(disk: &Shared) -> MutexGuard<'_, Disk> {
    // A violation panics with the lock held, on purpose; the state is whole all the same.
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

fn file_system(name: &str) -> &str {
    name.split_once(':').map_or("", |(file_system, _)| file_system)
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Disk {
    /// Starts a call that may fail.
    fn enter(&mut self, call: Calls) -> io::Result<()> {
        self.alive()?;
        self.fault(call).map_or(Ok(()), Err)
    }

    fn alive(&self) -> io::Result<()> {
        if self.crashed { Err(io::Error::other("crashed")) } else { Ok(()) }
    }

    /// Counts a call and says whether it is to fail.
    fn fault(&mut self, call: Calls) -> Option<io::Error> {
        let index = self.calls;
        self.calls += 1;
        let due = self.faults.iter().position(|plan| plan.at <= index && plan.calls.0 & call.0 != 0)?;
        let plan = self.faults[due];
        if !plan.persistent {
            self.faults.remove(due);
        }
        Some(errno(plan.errno))
    }

    /// Carries out an operation that changes something, or crashes at it.
    fn op<T>(
        &mut self,
        what: impl FnOnce(&Image) -> String,
        change: impl FnOnce(&mut Image, Partly) -> T,
    ) -> io::Result<T> {
        self.alive()?;
        let crash = self.crash_at.filter(|(at, _)| *at <= self.ops);
        if crash.is_some() || self.trace.is_some() {
            let what = what(&self.image);
            self.in_flight = crash.map(|_| what.clone());
            self.trace.iter_mut().for_each(|trace| trace.push(what.clone()));
        }
        let Some((_, kind)) = crash else {
            self.ops += 1;
            return Ok(change(&mut self.image, None));
        };
        let outcome = self.rng.below(3);
        if outcome > 0 {
            let partly = (outcome == 2).then_some(&mut self.rng);
            change(&mut self.image, partly);
        }
        self.crash(kind);
        Err(io::Error::other("crashed"))
    }

    fn crash(&mut self, kind: Crash) {
        if !self.crashed && kind == Crash::Power {
            self.image.power_cut(&mut self.rng, self.unsynced);
        }
        self.crashed = true;
    }

    fn used(&self) -> usize {
        let open = |id| self.live.get(&id).is_some_and(|live| live.open > 0);
        let named = |id| self.image.names().values().any(|named| *named == id);
        self.image.inodes().filter(|(id, _)| open(*id) || named(*id)).map(|(_, inode)| inode.reserved).sum()
    }

    fn room(&self) -> usize {
        self.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(self.used()))
    }

    /// Whether a file may come to occupy `len` bytes.
    fn check_room(&self, inode: u64, len: usize) -> io::Result<()> {
        let more = len.next_multiple_of(BLOCK).saturating_sub(self.image.inode(inode).reserved);
        if more > 0 && more > self.room() { Err(errno(libc::ENOSPC)) } else { Ok(()) }
    }

    fn opened(&mut self, inode: u64) -> &mut Live {
        let live = self.live.entry(inode).or_default();
        live.open += 1;
        live
    }

    fn closed(&mut self, inode: u64) {
        if let Some(live) = self.live.get_mut(&inode) {
            live.open -= 1;
            if live.open == 0 {
                self.live.remove(&inode);
            }
        }
    }

    fn buffers(&self, inode: u64) -> impl Iterator<Item = Arc<Buffer>> {
        self.live.get(&inode).into_iter().flat_map(|live| live.buffers.iter().filter_map(Weak::upgrade))
    }

    fn violate(&mut self, what: String) -> ! {
        self.violations.push(what.clone());
        panic!("{what}");
    }

    fn new(image: Image, rng: Rng, entropy: Rng) -> Disk {
        Disk {
            image,
            live: BTreeMap::new(),
            rng,
            entropy,
            clock: 1_700_000_000_000_000_000,
            ops: 0,
            calls: 0,
            crash_at: None,
            crashed: false,
            in_flight: None,
            trace: None,
            violations: Vec::new(),
            faults: Vec::new(),
            short_io: false,
            capacity: None,
            reserves_blocks: true,
            unsynced: Unsynced::Mixed,
            users: 0,
            locks: BTreeMap::new(),
        }
    }

    /// A disk that holds the same, used by nobody.
    fn copy(&self) -> Disk {
        Disk {
            clock: self.clock,
            trace: self.trace.as_ref().map(|_| Vec::new()),
            capacity: self.capacity,
            reserves_blocks: self.reserves_blocks,
            unsynced: self.unsynced,
            ..Disk::new(self.image.clone(), self.rng.clone(), self.entropy.clone())
        }
    }
}

impl SimStorage {
    /// An empty disk.
    pub(crate) fn new(seed: u64, mode: PageMode) -> SimStorage {
        SimStorage::of(Disk::new(Image::new(mode), Rng(seed), Rng(!seed)))
    }

    fn of(disk: Disk) -> SimStorage {
        SimStorage::user_of(Arc::new(Mutex::new(disk)), String::new())
    }

    fn user_of(disk: Shared, dir: String) -> SimStorage {
        let mut state = guard(&disk);
        state.users += 1;
        let id = state.users;
        drop(state);
        SimStorage { user: Arc::new(User { disk, id, dir }) }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        guard(&self.user.disk)
    }

    /// Another user of the same disk, as another process or another `open` is: their locks conflict.
    pub(crate) fn handle(&self) -> SimStorage {
        SimStorage::user_of(Arc::clone(&self.user.disk), self.user.dir.clone())
    }

    /// A user of another directory of the same disk. What stands before a colon in its name is the file system: links
    /// do not reach another one.
    pub(crate) fn directory(&self, name: &str) -> SimStorage {
        SimStorage::user_of(Arc::clone(&self.user.disk), format!("{name}/"))
    }

    /// A name as it is on the disk.
    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.user.dir)
    }

    /// The names in the directory.
    fn names(&self, image: &Image) -> Vec<String> {
        let dir = &*self.user.dir;
        image.names().keys().filter(|name| dir_of(name) == dir).map(|name| name[dir.len()..].into()).collect()
    }

    // Crashes.

    /// Crashes at the operation with that number, counted from zero as by [`op_count`](Self::op_count). From then
    /// on every call fails, and the disk stays as the crash left it.
    pub(crate) fn crash_at(&self, op: u64, kind: Crash) {
        self.disk().crash_at = Some((op, kind));
    }

    /// Crashes between operations.
    pub(crate) fn crash_now(&self, kind: Crash) {
        self.disk().crash(kind);
    }

    pub(crate) fn crashed(&self) -> bool {
        self.disk().crashed
    }

    /// The operation at which the crash happened.
    pub(crate) fn in_flight(&self) -> Option<String> {
        self.disk().in_flight.clone()
    }

    /// The disk as found after the crash; without one, the process is killed now. Counters start at zero; crash
    /// and fault plans are forgotten; lock, files and maps are gone; capacity, clock and the like stay. Can be had
    /// any number of times.
    pub(crate) fn reboot(&self) -> SimStorage {
        let mut old = self.disk();
        old.crash(Crash::Kill);
        let mut new = old.copy();
        new.image.settle(&mut new.rng);
        SimStorage::of(new)
    }

    /// A copy of the disk, unsynced state included, to run on independently. Otherwise as [`reboot`](Self::reboot),
    /// but the original runs on, too.
    pub(crate) fn deep_copy(&self) -> SimStorage {
        SimStorage::of(self.disk().copy())
    }

    /// The number of operations so far: calls and stores that changed something.
    pub(crate) fn op_count(&self) -> u64 {
        self.disk().ops
    }

    /// What a power cut will do to what is not synced. `Mixed`, if not set.
    pub(crate) fn set_unsynced(&self, fate: Unsynced) {
        self.disk().unsynced = fate;
    }

    /// Starts the dice for crashes and faults anew: other outcomes of the same run.
    pub(crate) fn reseed(&self, seed: u64) {
        self.disk().rng = Rng(seed);
    }

    // Faults.

    /// Adds a fault to come.
    pub(crate) fn fail(&self, plan: FaultPlan) {
        self.disk().faults.push(plan);
    }

    /// Makes half of the reads and writes short.
    pub(crate) fn set_short_io(&self, short: bool) {
        self.disk().short_io = short;
    }

    /// Ends all faults and short reads and writes.
    pub(crate) fn heal(&self) {
        let mut disk = self.disk();
        disk.faults.clear();
        disk.short_io = false;
    }

    /// The number of calls so far that might have failed.
    pub(crate) fn call_count(&self) -> u64 {
        self.disk().calls
    }

    /// Limits the disk to so many bytes of file contents, in whole blocks.
    pub(crate) fn set_capacity(&self, bytes: Option<usize>) {
        self.disk().capacity = bytes;
    }

    /// The bytes of the blocks in use; files without a name count while they are open or mapped.
    pub(crate) fn used(&self) -> usize {
        self.disk().used()
    }

    /// What `Storage::reserves_blocks` says; if not, `allocate` is `Unsupported`. True, if not set.
    pub(crate) fn set_reserves_blocks(&self, reserves: bool) {
        self.disk().reserves_blocks = reserves;
    }

    /// Sets the clock. Each reading moves it on by a microsecond.
    pub(crate) fn set_clock(&self, nanoseconds: i64) {
        self.disk().clock = nanoseconds;
    }

    // Inspection.

    /// The names of all files, in order.
    pub(crate) fn files(&self) -> Vec<String> {
        self.names(&self.disk().image)
    }

    /// A file's content as programs see it, or as the crash left it.
    pub(crate) fn read_file(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk();
        Some(disk.image.inode(disk.image.lookup(&self.full(name))?).data().to_vec())
    }

    /// What two names of one file have in common.
    pub(crate) fn file_id(&self, name: &str) -> Option<u64> {
        self.disk().image.lookup(&self.full(name))
    }

    /// Puts a file there, durable in name and content, in place of another by that name.
    pub(crate) fn put_file(&self, name: &str, bytes: &[u8]) {
        self.disk().image.put_file(&self.full(name), bytes);
    }

    /// Flips bits of a byte, everywhere: disk, page cache and maps. Panics where there is none.
    pub(crate) fn corrupt(&self, name: &str, offset: usize, xor: u8) {
        let mut disk = self.disk();
        let inode = disk.image.lookup(&self.full(name)).expect("a file to corrupt");
        disk.image.corrupt(inode, offset, xor);
        let byte = disk.image.inode(inode).data()[offset];
        disk.buffers(inode).for_each(|buffer| buffer.copy_in(offset, &[byte]));
    }

    /// Starts to note all operations, for [`trace`](Self::trace).
    pub(crate) fn start_trace(&self) {
        self.disk().trace = Some(Vec::new());
    }

    /// The operations noted so far, the one in flight included.
    pub(crate) fn trace(&self) -> Vec<String> {
        self.disk().trace.clone().unwrap_or_default()
    }

    /// The first thing done that would have raised a signal in reality. Always to be asked at the end of a
    /// run: the panic itself may have been caught.
    pub(crate) fn violation(&self) -> Option<String> {
        self.disk().violations.first().cloned()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        release(self);
    }
}

fn release(user: &User) {
    let mut disk = guard(&user.disk);
    if let Some(locks) = disk.locks.get_mut(&user.dir) {
        locks.exclusive = locks.exclusive.filter(|holder| *holder != user.id);
        locks.shared.retain(|holder| *holder != user.id);
    }
}

impl Storage for SimStorage {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut disk = self.disk();
        disk.enter(Calls::LIST)?;
        Ok(self.names(&disk.image))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk();
        disk.enter(Calls::CREATE)?;
        let name = &*self.full(name);
        if disk.image.lookup(name).is_some() {
            return Err(errno(libc::EEXIST));
        }
        if disk.room() == 0 {
            return Err(errno(libc::ENOSPC));
        }
        let inode = disk.op(|_| format!("create {name}"), |image, _| image.create(name))?;
        disk.opened(inode);
        Ok(Arc::new(SimFile::new(&self.user.disk, inode, true)))
    }

    fn open(&self, name: &str, write: bool) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk();
        disk.enter(Calls::OPEN)?;
        let inode = disk.image.lookup(&self.full(name)).ok_or_else(|| errno(libc::ENOENT))?;
        disk.opened(inode);
        Ok(Arc::new(SimFile::new(&self.user.disk, inode, write)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.enter(Calls::RENAME)?;
        let (from, to) = (&*self.full(from), &*self.full(to));
        let inode = disk.image.lookup(from).ok_or_else(|| errno(libc::ENOENT))?;
        if disk.image.lookup(to) == Some(inode) {
            // Two names of one file: POSIX wants nothing done.
            return Ok(());
        }
        disk.op(|_| format!("rename {from} to {to}"), |image, _| image.rename(from, to))
    }

    fn link_from(&self, source: &Arc<dyn Storage>, name: &str) -> io::Result<()> {
        let source = (&**source as &dyn Any).downcast_ref::<SimStorage>().ok_or(io::ErrorKind::Unsupported)?;
        let (from, to) = (&*source.full(name), &*self.full(name));
        assert!(Arc::ptr_eq(&source.user.disk, &self.user.disk), "no link reaches another disk");
        let mut disk = self.disk();
        disk.enter(Calls::LINK)?;
        if file_system(from) != file_system(to) {
            return Err(errno(libc::EXDEV));
        }
        let inode = disk.image.lookup(from).ok_or_else(|| errno(libc::ENOENT))?;
        if disk.image.lookup(to).is_some() {
            return Err(errno(libc::EEXIST));
        }
        disk.op(|_| format!("link {from} to {to}"), |image, _| image.link(inode, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.enter(Calls::REMOVE)?;
        let name = &*self.full(name);
        disk.image.lookup(name).ok_or_else(|| errno(libc::ENOENT))?;
        disk.op(|_| format!("remove {name}"), |image, _| image.remove(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.alive()?;
        if let Some(error) = disk.fault(Calls::SYNC_DIR) {
            let mut rng = Rng(disk.rng.next());
            disk.op(|_| "sync_dir, failing".into(), |image, _| image.sync_dir(&self.user.dir, Some(&mut rng)))?;
            return Err(error);
        }
        disk.op(|_| "sync_dir".into(), |image, partly| image.sync_dir(&self.user.dir, partly))?;
        let Disk { image, live, .. } = &mut *disk;
        image.collect(|id| live.contains_key(&id));
        Ok(())
    }

    fn lock(&self, shared: bool) -> io::Result<()> {
        let mut disk = self.disk();
        disk.enter(Calls::LOCK)?;
        let (id, name) = (self.user.id, &*self.full("LOCK"));
        if disk.image.lookup(name).is_none() {
            if shared {
                return Ok(());
            }
            disk.image.create(name);
        }
        let locks = disk.locks.entry(self.user.dir.clone()).or_default();
        let mine = locks.exclusive == Some(id) || locks.shared.contains(&id);
        if mine || locks.exclusive.is_some() || (!shared && !locks.shared.is_empty()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if shared {
            locks.shared.push(id);
        } else {
            locks.exclusive = Some(id);
        }
        Ok(())
    }

    fn unlock(&self) {
        release(&self.user);
    }

    fn reserves_blocks(&self) -> bool {
        self.disk().reserves_blocks
    }

    fn clock(&self) -> i64 {
        let mut disk = self.disk();
        disk.clock = disk.clock.saturating_add(1000);
        disk.clock
    }

    /// Now so much that any log is small beside it, now so little that none is: writes go either way.
    fn memory(&self) -> u64 {
        if self.disk().ops.is_multiple_of(2) { u64::MAX } else { 0 }
    }

    fn random(&self) -> io::Result<u64> {
        let mut disk = self.disk();
        disk.enter(Calls::RANDOM)?;
        Ok(disk.entropy.next())
    }
}
