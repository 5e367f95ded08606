//! Files of the simulated disk, and the memory that stands for their maps.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};

use super::image::{BLOCK, Tear};
use super::{Calls, Disk, Shared, errno, guard};
use crate::storage::{File, Map, MapOwner};

/// What bytes behind the end of file read as in a map. A real map would raise a signal.
const GARBAGE: u8 = 0xdd;

/// No test needs larger files, but a wrong offset makes one.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// The memory of one map. The disk never looks at it but for what `wrote` reports, so it is free of races
/// where the map's own contract is kept.
pub(super) struct Buffer {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: plain memory; who may touch which bytes when is the contract of `Map`, and the copies made here
// are of bytes that a caller of `Map::write` or `File::write_at` has to itself.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    fn new(len: usize) -> io::Result<Buffer> {
        // Not aligned like pages: to get zeros is then free of cost.
        let layout = Layout::from_size_align(len, 16).map_err(|_| errno(libc::ENOMEM))?;
        // SAFETY: the caller checked that `len` is not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        Ok(Buffer { base, layout })
    }

    /// Copies bytes to where they are in the file, as far as the map reaches.
    pub(super) fn copy_in(&self, offset: usize, bytes: &[u8]) {
        if offset < self.layout.size() {
            let n = bytes.len().min(self.layout.size() - offset);
            // SAFETY: inside the buffer; nobody else is at these bytes, which are being written to the file.
            unsafe { self.base.as_ptr().add(offset).copy_from_nonoverlapping(bytes.as_ptr(), n) };
        }
    }

    fn fill(&self, range: Range<usize>, byte: u8) {
        let end = range.end.min(self.layout.size());
        if range.start < end {
            // SAFETY: inside the buffer; these bytes are or were beyond the end of file, so nobody may use them.
            unsafe { self.base.as_ptr().add(range.start).write_bytes(byte, end - range.start) };
        }
    }

    /// Follows a change of the file's length.
    fn resize(&self, old: usize, new: usize) {
        self.fill(old..new, 0);
        // One block is enough to be noticed.
        self.fill(new..old.max(new + BLOCK), GARBAGE);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and the last owner is gone.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

pub(super) struct SimFile {
    disk: Shared,
    inode: u64,
    write: bool,
}

impl SimFile {
    /// The caller counts it as open.
    pub(super) fn new(disk: &Shared, inode: u64, write: bool) -> SimFile {
        SimFile { disk: Arc::clone(disk), inode, write }
    }

    fn enter(&self, call: Calls) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = guard(&self.disk);
        disk.enter(call)?;
        Ok(disk)
    }

    fn file_len(&self, disk: &Disk) -> usize {
        disk.image.inode(self.inode).data().len()
    }

    fn check_writable(&self, end: u64) -> io::Result<()> {
        if !self.write {
            return Err(errno(libc::EBADF));
        }
        if end > FILE_BYTES_MAX { Err(errno(libc::EFBIG)) } else { Ok(()) }
    }

    /// The error of a sync, after which any part of what was not synced is gone.
    fn lose_unsynced(&self, disk: &mut Disk, error: io::Error) -> io::Error {
        let (inode, mut rng) = (self.inode, super::Rng(disk.rng.next()));
        let what = |image: &super::Image| format!("sync {}, failing", image.name_of(inode));
        disk.op(what, |image, _| image.sync_failed(inode, &mut rng)).err().unwrap_or(error)
    }

    fn write(&self, disk: &mut Disk, bytes: &[u8], offset: usize) -> io::Result<()> {
        let inode = self.inode;
        let old = self.file_len(disk);
        disk.op(
            |image| format!("write {} {offset}+{}", image.name_of(inode), bytes.len()),
            |image, partly| image.store(inode, offset, bytes, partly, Tear::Prefix),
        )?;
        let new = self.file_len(disk);
        for buffer in disk.buffers(inode) {
            if new > old {
                buffer.resize(old, new);
            }
            buffer.copy_in(offset, bytes);
        }
        Ok(())
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        let disk = self.enter(Calls::LEN)?;
        Ok(self.file_len(&disk) as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.enter(Calls::READ)?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut n = buf.len().min(self.file_len(&disk).saturating_sub(offset));
        if disk.short_io && n > 1 && disk.rng.coin() {
            n = 1 + disk.rng.below(n);
        }
        if n > 0 {
            buf[..n].copy_from_slice(&disk.image.inode(self.inode).data()[offset..offset + n]);
        }
        Ok(n)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let mut disk = guard(&self.disk);
        disk.alive()?;
        self.check_writable(offset.saturating_add(buf.len() as u64))?;
        let offset = offset as usize;
        if let Some(error) = disk.fault(Calls::WRITE) {
            let n = disk.rng.below(buf.len() + 1);
            self.write(&mut disk, &buf[..n], offset)?;
            return Err(error);
        }
        // A disk that fills up takes what fits.
        let room = disk.room();
        let fits = disk.image.inode(self.inode).reserved.saturating_add(room / BLOCK * BLOCK).saturating_sub(offset);
        let mut n = buf.len().min(fits);
        if n == 0 && !buf.is_empty() {
            return Err(errno(libc::ENOSPC));
        }
        if disk.short_io && n > 1 && disk.rng.coin() {
            n = 1 + disk.rng.below(n);
        }
        if n > 0 {
            self.write(&mut disk, &buf[..n], offset)?;
        }
        Ok(n)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.enter(Calls::SET_LEN)?;
        self.check_writable(len)?;
        let (inode, old, len) = (self.inode, self.file_len(&disk), len as usize);
        if len > old {
            disk.check_room(inode, len)?;
        }
        let what = |image: &super::Image| format!("set_len {} {old} to {len}", image.name_of(inode));
        disk.op(what, |image, _| image.set_len(inode, len))?;
        disk.buffers(inode).for_each(|buffer| buffer.resize(old, len));
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.enter(Calls::ALLOCATE)?;
        self.check_writable(len)?;
        if !disk.reserves_blocks {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (inode, old, len) = (self.inode, self.file_len(&disk), len as usize);
        disk.check_room(inode, len)?;
        let what = |image: &super::Image| format!("allocate {} {old} to {len}", image.name_of(inode));
        disk.op(what, |image, partly| image.allocate(inode, len, partly))?;
        if len > old {
            disk.buffers(inode).for_each(|buffer| buffer.resize(old, len));
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = guard(&self.disk);
        disk.alive()?;
        let inode = self.inode;
        if let Some(error) = disk.fault(Calls::SYNC) {
            return Err(self.lose_unsynced(&mut disk, error));
        }
        let what = |image: &super::Image| format!("sync {}", image.name_of(inode));
        disk.op(what, |image, partly| image.sync(inode, partly))
    }

    /// What a crash leaves of unsynced bytes is any part of them, started or not.
    fn start_sync(&self, _offset: u64, len: u64) -> io::Result<()> {
        let mut disk = guard(&self.disk);
        disk.alive()?;
        match if len > 0 { disk.fault(Calls::START_SYNC) } else { None } {
            Some(error) => Err(self.lose_unsynced(&mut disk, error)),
            None => Ok(()),
        }
    }

    fn map(&self, len: usize, write: bool) -> io::Result<Map> {
        let mut disk = self.enter(Calls::MAP)?;
        if len == 0 {
            return Err(errno(libc::EINVAL));
        }
        if write && !self.write {
            return Err(errno(libc::EACCES));
        }
        let buffer = Arc::new(Buffer::new(len)?);
        let data = disk.image.inode(self.inode).data();
        buffer.copy_in(0, data);
        buffer.resize(data.len(), data.len());
        let live = disk.opened(self.inode);
        live.buffers.retain(|other| other.strong_count() > 0);
        live.buffers.push(Arc::downgrade(&buffer));
        let base = buffer.base;
        let map = SimMap { disk: Arc::clone(&self.disk), inode: self.inode, buffer, writable: AtomicBool::new(write) };
        // SAFETY: the buffer is `len` bytes at a fixed address, and the owner keeps it. Observed even if read-only,
        // to catch a store where a real map would raise a signal.
        Ok(unsafe { Map::new(base, len, true, Box::new(map)) })
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        guard(&self.disk).closed(self.inode);
    }
}

struct SimMap {
    disk: Shared,
    inode: u64,
    buffer: Arc<Buffer>,
    writable: AtomicBool,
}

impl SimMap {
    /// Why a store up to `end` would have been a signal, if it would.
    fn signal(&self, disk: &Disk, end: usize) -> Option<&'static str> {
        let inode = disk.image.inode(self.inode);
        if !self.writable.load(Ordering::Relaxed) {
            Some("to read-only pages")
        } else if end > inode.data().len() {
            Some("beyond the end of file")
        } else if disk.reserves_blocks && end > inode.reserved {
            Some("to a hole, for which a full disk has no block")
        } else {
            None
        }
    }
}

impl MapOwner for SimMap {
    fn wrote(&self, offset: usize, len: usize) {
        let mut disk = guard(&self.disk);
        if disk.crashed || len == 0 {
            return;
        }
        let inode = self.inode;
        if let Some(why) = self.signal(&disk, offset + len) {
            let name = disk.image.name_of(inode);
            let what = format!("a store to {name} {offset}+{len}, {why}");
            disk.violate(what);
        }
        // SAFETY: `Map::write`, our only caller, checked the bounds; the bytes were stored just before by this
        // thread, which still has them to itself.
        let bytes = unsafe { slice::from_raw_parts(self.buffer.base.as_ptr().add(offset), len) };
        let done = disk.op(
            |image| format!("store {} {offset}+{len}", image.name_of(inode)),
            |image, partly| image.store(inode, offset, bytes, partly, Tear::Any),
        );
        if done.is_ok() {
            let others = disk.buffers(inode).filter(|other| !Arc::ptr_eq(other, &self.buffer));
            others.for_each(|other| other.copy_in(offset, bytes));
        }
    }

    fn seal(&self, len: usize) {
        let _disk = guard(&self.disk);
        self.writable.store(false, Ordering::Relaxed);
        let unmapped = len.next_multiple_of(BLOCK);
        self.buffer.fill(unmapped..unmapped + BLOCK, GARBAGE);
    }

    fn populate(&self, _offset: usize, _len: usize) {}
}

impl Drop for SimMap {
    fn drop(&mut self) {
        guard(&self.disk).closed(self.inode);
    }
}

pub(super) mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;

    use crate::storage::sim::{Crash, PageMode, SimStorage};
    use crate::storage::{Map, Storage, read_exact_at, write_all_at};

    pub(crate) fn store(map: &Map, offset: usize, bytes: &[u8]) {
        // SAFETY: the tests stay inside the file, or prove that the simulation notices; nobody else uses the bytes.
        unsafe { map.write(offset, bytes.len(), |to| to.copy_from_slice(bytes)).unwrap() };
    }

    pub(crate) fn load(map: &Map, offset: usize, len: usize) -> Vec<u8> {
        // SAFETY: the memory is there for all of the map, and nobody stores meanwhile.
        unsafe { map.bytes(offset, len).unwrap().to_vec() }
    }

    #[test]
    fn maps_and_calls_see_the_same_bytes() {
        let sim = SimStorage::new(1, PageMode::Page);
        let f = sim.create("f").unwrap();
        let (map, other) = (f.map(65536, true).unwrap(), f.map(5000, false).unwrap());
        assert!(f.map(0, false).is_err());
        f.allocate(8192).unwrap();
        map.populate(0, 8192);
        store(&map, 4999, b"ab");
        let mut buf = [0; 2];
        read_exact_at(&*sim.open("f", false).unwrap(), &mut buf, 4999).unwrap();
        assert_eq!(&buf, b"ab");
        assert_eq!(load(&other, 4998, 2), b"\0a");
        write_all_at(&*f, b"yz", 4999).unwrap();
        assert_eq!(load(&map, 4999, 2), b"yz");
        write_all_at(&*f, b"end", 10_000).unwrap();
        assert_eq!(load(&map, 9999, 4), b"\0end");
        assert_ne!(load(&map, 10_003, 1), b"\0", "behind the end");
        sim.corrupt("f", 4999, 1);
        assert_eq!(load(&other, 4999, 1), b"x");
        assert_eq!(sim.read_file("f").unwrap()[4999], b'x');
        f.set_len(4096).unwrap();
        assert_ne!(load(&map, 4999, 1), b"x");
    }

    #[test]
    fn a_store_that_would_raise_a_signal_is_noticed() {
        let attempts: [fn(&SimStorage) -> Map; 4] = [
            |sim| sim.open("f", false).unwrap().map(100, false).unwrap(),
            |sim| {
                let map = sim.open("f", true).unwrap().map(100, true).unwrap();
                map.seal(100);
                map
            },
            |sim| {
                let f = sim.open("f", true).unwrap();
                f.set_len(50).unwrap();
                f.map(100, true).unwrap()
            },
            |sim| {
                let f = sim.create("g").unwrap();
                f.set_len(100).unwrap();
                f.map(100, true).unwrap()
            },
        ];
        for attempt in attempts {
            let sim = SimStorage::new(1, PageMode::Page);
            sim.put_file("f", &[0; 100]);
            let map = attempt(&sim);
            assert_eq!(sim.violation(), None);
            assert!(catch_unwind(AssertUnwindSafe(|| store(&map, 49, b"xy"))).is_err());
            assert!(sim.violation().is_some());
        }
    }

    #[test]
    fn threads_may_store_sync_and_read_at_once() {
        let sim = SimStorage::new(1, PageMode::Page);
        let f = sim.create("f").unwrap();
        f.allocate(65536).unwrap();
        let map = f.map(65536, true).unwrap();
        let rounds = if cfg!(miri) { 50 } else { 1000 };
        thread::scope(|scope| {
            scope.spawn(|| (0..rounds).for_each(|i| store(&map, i * 64, &[i as u8; 64])));
            scope.spawn(|| (0..rounds / 10).for_each(|_| f.sync().unwrap()));
            scope.spawn(|| (0..rounds).for_each(|_| drop(sim.read_file("f"))));
        });
        f.sync().unwrap();
        sim.sync_dir().unwrap();
        sim.crash_now(Crash::Power);
        let bytes = sim.reboot().read_file("f").unwrap();
        assert!((0..rounds).all(|i| bytes[i * 64..(i + 1) * 64] == [i as u8; 64]));
    }

    #[test]
    fn a_removed_file_can_be_used_while_open() {
        let sim = SimStorage::new(1, PageMode::Page);
        sim.put_file("f", b"abc");
        let f = sim.open("f", false).unwrap();
        let map = f.map(3, false).unwrap();
        sim.remove("f").unwrap();
        sim.sync_dir().unwrap();
        let mut buf = [0; 3];
        read_exact_at(&*f, &mut buf, 0).unwrap();
        drop(f);
        assert_eq!(load(&map, 0, 3), b"abc");
        assert_eq!(sim.used(), 4096);
        drop(map);
        assert_eq!(sim.used(), 0);
    }
}
