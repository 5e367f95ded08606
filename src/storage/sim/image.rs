//! What is on the simulated disk: contents and names, as running programs see them and as they would be
//! after a power cut. Pure state: no locks, no counters, no faults.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// The unit in which files take up space.
pub(super) const BLOCK: usize = 4096;

/// The unit that reaches the disk, or does not, as a whole (give or take a write torn in flight).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageMode {
    /// Pages of 4 KiB, as the page cache writes them back.
    Page,
    /// Sectors of 512 bytes, as a disk without atomic pages writes them.
    Sector,
}

/// What a power cut does to what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsynced {
    /// All of it is gone.
    Lost,
    /// All of it is there.
    Kept,
    /// Anything that the model allows.
    Mixed,
}

/// A splitmix64 generator.
#[derive(Clone)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(super) fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// Which bytes of an interrupted operation arrived.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tear {
    /// The first so many: a system call copies in order.
    Prefix,
    /// The first, the last, both or the middle: the stores of a `memcpy` come in an order of its own.
    Any,
}

fn tear(rng: &mut Rng, len: usize, how: Tear) -> [Range<usize>; 2] {
    let (x, y) = (rng.below(len + 1), rng.below(len + 1));
    let (a, b) = (x.min(y), x.max(y));
    match if how == Tear::Prefix { 0 } else { rng.below(4) } {
        0 | 1 => [0..x, 0..0],
        2 => [0..a, b..len],
        _ => [a..b, 0..0],
    }
}

/// One change of one page since it was last durable.
#[derive(Clone)]
enum Patch {
    Bytes(usize, Box<[u8]>),
    /// Zeros from there to the end of the page: the file was cut.
    Zeros(usize),
}

impl Patch {
    /// Applies to `page`, which may be short where the file ends in it.
    fn apply(&self, page: &mut [u8]) {
        match self {
            Patch::Bytes(at, bytes) => put(page, *at, bytes),
            Patch::Zeros(from) => page.iter_mut().skip(*from).for_each(|byte| *byte = 0),
        }
    }

    /// Applies a part: the page went to disk while the bytes were being stored.
    fn apply_torn(&self, page: &mut [u8], rng: &mut Rng) {
        if let Patch::Bytes(at, bytes) = self {
            for range in tear(rng, bytes.len(), Tear::Any) {
                put(page, at + range.start, &bytes[range]);
            }
        }
    }
}

/// Copies as much of `bytes` as lies inside of `page`.
fn put(page: &mut [u8], at: usize, bytes: &[u8]) {
    if at < page.len() {
        let n = bytes.len().min(page.len() - at);
        page[at..at + n].copy_from_slice(&bytes[..n]);
    }
}

/// As `Vec::resize` with zeros, without its loop over all bytes, which takes most of the time of an unoptimized build.
fn resize(bytes: &mut Vec<u8>, len: usize) {
    if len > bytes.len() {
        let mut longer = vec![0; len];
        longer[..bytes.len()].copy_from_slice(bytes);
        *bytes = longer;
    }
    bytes.truncate(len);
}

/// A file without its names.
#[derive(Clone, Default)]
pub(super) struct Inode {
    /// The page cache. As long as the file is.
    data: Arc<Vec<u8>>,
    /// The disk. Bytes that it does not reach are zeros; its length means nothing, that is `durable_len`.
    durable: Arc<Vec<u8>>,
    durable_len: usize,
    /// The lengths that the file had since, in order, the present one last.
    lengths: Vec<usize>,
    /// The changes of each page since it was durable, in order.
    dirty: BTreeMap<usize, Vec<Patch>>,
    /// Pages that a failed sync took for written though they were not: only the page cache has them, and
    /// no later sync will write them.
    lost: BTreeSet<usize>,
    /// Blocks are reserved for that many bytes.
    pub(super) reserved: usize,
}

impl Inode {
    pub(super) fn data(&self) -> &[u8] {
        &self.data
    }

    fn store(&mut self, offset: usize, bytes: &[u8], unit: usize) {
        let end = offset + bytes.len();
        if bytes.is_empty() {
            return;
        }
        let data = Arc::make_mut(&mut self.data);
        if end > data.len() {
            resize(data, end);
            self.lengths.push(end);
        }
        data[offset..end].copy_from_slice(bytes);
        self.reserved = self.reserved.max(end.next_multiple_of(BLOCK));
        let mut at = offset;
        while at < end {
            let (page, from) = (at / unit, at % unit);
            let n = (unit - from).min(end - at);
            self.touch(page, unit, || Patch::Bytes(from, bytes[at - offset..at - offset + n].into()));
            at += n;
        }
    }

    /// Notes that a page has just been changed, by `patch`.
    fn touch(&mut self, page: usize, unit: usize, patch: impl FnOnce() -> Patch) {
        let patch = if self.lost.remove(&page) {
            // The page will be written as a whole, with what was lost of it before.
            Patch::Bytes(0, self.page(page, unit).into())
        } else {
            patch()
        };
        self.dirty.entry(page).or_default().push(patch);
    }

    /// The bytes of a page that lie inside the file.
    fn page(&self, page: usize, unit: usize) -> &[u8] {
        let end = self.data.len().min((page + 1) * unit);
        self.data.get(page * unit..end).unwrap_or(&[])
    }

    fn set_len(&mut self, len: usize, unit: usize) {
        let old = self.data.len();
        if len == old {
            return;
        }
        if len < old {
            for page in len / unit..old.div_ceil(unit) {
                let from = len.saturating_sub(page * unit);
                let tail = self.page(page, unit).get(from..).unwrap_or(&[]);
                if tail.iter().any(|byte| *byte != 0) || self.lost.contains(&page) {
                    let data = Arc::make_mut(&mut self.data);
                    data[page * unit + from..old.min((page + 1) * unit)].fill(0);
                    self.touch(page, unit, || Patch::Zeros(from));
                }
            }
            self.reserved = self.reserved.min(len.next_multiple_of(BLOCK));
        }
        resize(Arc::make_mut(&mut self.data), len);
        self.lengths.push(len);
    }

    fn allocate(&mut self, len: usize, unit: usize) {
        if len > self.data.len() {
            self.set_len(len, unit);
        }
        self.reserved = self.reserved.max(len.next_multiple_of(BLOCK));
    }

    fn sync(&mut self, unit: usize) {
        if self.dirty.is_empty() && self.lengths.is_empty() {
            return;
        }
        for page in std::mem::take(&mut self.dirty).into_keys() {
            self.write_back(page, unit);
        }
        self.sync_len();
    }

    fn sync_len(&mut self) {
        self.lengths.clear();
        self.durable_len = self.data.len();
        if self.durable.len() > self.durable_len {
            Arc::make_mut(&mut self.durable).truncate(self.durable_len);
        }
    }

    fn write_back(&mut self, page: usize, unit: usize) {
        let start = page * unit;
        let end = self.data.len().min(start + unit).max(start);
        let bytes = self.data.get(start..end).unwrap_or(&[]);
        let durable = Arc::make_mut(&mut self.durable);
        if durable.len() < end {
            resize(durable, end);
        }
        durable[start..end].copy_from_slice(bytes);
        let stop = durable.len().min(start + unit);
        if end < stop {
            durable[end..stop].fill(0);
        }
    }

    /// A sync that was interrupted: some of it is done, and the rest is still to do.
    fn sync_partly(&mut self, unit: usize, rng: &mut Rng) {
        let pages: Vec<usize> = self.dirty.keys().copied().filter(|_| rng.coin()).collect();
        for page in pages {
            self.dirty.remove(&page);
            self.write_back(page, unit);
        }
        if rng.coin() {
            self.sync_len();
        }
    }

    /// A sync that failed: every page counts as written, but not every page is.
    fn sync_failed(&mut self, unit: usize, rng: &mut Rng) {
        for page in std::mem::take(&mut self.dirty).into_keys() {
            if rng.coin() {
                self.write_back(page, unit);
            } else {
                self.lost.insert(page);
            }
        }
    }

    /// The kernel drops clean pages when it likes, and lost ones are clean: then the old bytes are back.
    fn evict(&mut self, unit: usize, rng: &mut Rng) {
        for page in std::mem::take(&mut self.lost) {
            if rng.coin() {
                self.lost.insert(page);
                continue;
            }
            let data = Arc::make_mut(&mut self.data);
            let end = data.len().min((page + 1) * unit);
            if let Some(bytes) = data.get_mut(page * unit..end) {
                bytes.fill(0);
                put(bytes, 0, self.durable.get(page * unit..).unwrap_or(&[]));
            }
        }
    }

    fn power_cut(&mut self, unit: usize, rng: &mut Rng, fate: Unsynced) {
        let len = self.length_after_cut(rng, fate);
        if !self.dirty.is_empty() || self.durable.len() != len {
            let mut data = Vec::clone(&self.durable);
            resize(&mut data, len);
            // Whole files that are old or new are likelier in reality than by tossing a coin for each page.
            let bias = rng.below(4);
            for (page, patches) in &self.dirty {
                let Some(bytes) = data.get_mut(page * unit..len.min((page + 1) * unit)) else {
                    break;
                };
                let all = patches.len();
                let kept = match (fate, bias) {
                    (Unsynced::Lost, _) | (Unsynced::Mixed, 0) => 0,
                    (Unsynced::Kept, _) | (Unsynced::Mixed, 1) => all,
                    (Unsynced::Mixed, _) => [0, all, rng.below(all + 1)][rng.below(3)],
                };
                patches[..kept].iter().for_each(|patch| patch.apply(bytes));
                if fate == Unsynced::Mixed && kept < all && bias > 1 && rng.below(4) == 0 {
                    patches[kept].apply_torn(bytes, rng);
                }
            }
            self.durable = Arc::new(data);
        }
        self.data = Arc::clone(&self.durable);
        self.durable_len = len;
        self.lengths.clear();
        self.dirty.clear();
        self.lost.clear();
        self.reserved = self.reserved.min(len.next_multiple_of(BLOCK));
    }

    fn length_after_cut(&self, rng: &mut Rng, fate: Unsynced) -> usize {
        let newest = self.data.len();
        let all = self.lengths.len();
        if fate == Unsynced::Kept || all == 0 {
            return newest;
        }
        if fate == Unsynced::Lost {
            return self.durable_len;
        }
        let step = [0, all, rng.below(all + 1), rng.below(all + 1)][rng.below(4)];
        let length = |step: usize| {
            if step == 0 { self.durable_len } else { self.lengths[step - 1] }
        };
        let len = length(step);
        // A file grows on disk block by block.
        let next = if step < all { length(step + 1) } else { len };
        let blocks = next.saturating_sub(len) / BLOCK;
        if blocks > 0 && rng.coin() { (len / BLOCK + 1 + rng.below(blocks)) * BLOCK } else { len }
    }
}

/// One change of the directory since it was last durable.
#[derive(Clone)]
enum DirOp {
    Create(String, u64),
    Rename(String, String, u64),
    Remove(String, u64),
}

type Names = BTreeMap<String, u64>;

fn unlink(names: &mut Names, name: &str, inode: u64) {
    if names.get(name) == Some(&inode) {
        names.remove(name);
    }
}

/// What the names of a file's directory begin with.
pub(super) fn dir_of(name: &str) -> &str {
    name.rfind('/').map_or("", |end| &name[..=end])
}

impl DirOp {
    fn name(&self) -> &str {
        match self {
            DirOp::Create(name, _) | DirOp::Rename(name, _, _) | DirOp::Remove(name, _) => name,
        }
    }

    fn apply(&self, names: &mut Names) {
        match self {
            DirOp::Create(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            DirOp::Rename(from, to, inode) => {
                unlink(names, from, *inode);
                names.insert(to.clone(), *inode);
            }
            DirOp::Remove(name, inode) => unlink(names, name, *inode),
        }
    }
}

/// The disk, with the page cache in front of it.
#[derive(Clone)]
pub(super) struct Image {
    unit: usize,
    inodes: BTreeMap<u64, Inode>,
    names: Names,
    durable_names: Names,
    dir_ops: Vec<DirOp>,
    next_inode: u64,
}

/// Given to an operation, makes it happen in part: it was interrupted.
pub(super) type Partly<'a> = Option<&'a mut Rng>;

impl Image {
    pub(super) fn new(mode: PageMode) -> Image {
        Image {
            unit: if mode == PageMode::Page { BLOCK } else { 512 },
            inodes: BTreeMap::new(),
            names: Names::new(),
            durable_names: Names::new(),
            dir_ops: Vec::new(),
            next_inode: 1,
        }
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    pub(super) fn lookup(&self, name: &str) -> Option<u64> {
        self.names.get(name).copied()
    }

    pub(super) fn name_of(&self, inode: u64) -> &str {
        self.names.iter().find(|(_, id)| **id == inode).map_or("(no name)", |(name, _)| name)
    }

    pub(super) fn inode(&self, inode: u64) -> &Inode {
        &self.inodes[&inode]
    }

    pub(super) fn inodes(&self) -> impl Iterator<Item = (u64, &Inode)> {
        self.inodes.iter().map(|(id, inode)| (*id, inode))
    }

    fn inode_mut(&mut self, inode: u64) -> &mut Inode {
        self.inodes.get_mut(&inode).expect("an inode that is open or has a name")
    }

    /// `name` must be free.
    pub(super) fn create(&mut self, name: &str) -> u64 {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::default());
        self.change_dir(DirOp::Create(name.into(), inode));
        inode
    }

    /// Gives a file another name, which must be free.
    pub(super) fn link(&mut self, inode: u64, name: &str) {
        self.change_dir(DirOp::Create(name.into(), inode));
    }

    /// `from` must exist.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        self.change_dir(DirOp::Rename(from.into(), to.into(), self.names[from]));
    }

    /// `name` must exist.
    pub(super) fn remove(&mut self, name: &str) {
        self.change_dir(DirOp::Remove(name.into(), self.names[name]));
    }

    fn change_dir(&mut self, op: DirOp) {
        op.apply(&mut self.names);
        self.dir_ops.push(op);
    }

    /// `dir` is what the names of the directory begin with.
    pub(super) fn sync_dir(&mut self, dir: &str, partly: Partly) {
        let (mut ops, others): (Vec<_>, _) =
            std::mem::take(&mut self.dir_ops).into_iter().partition(|op| dir_of(op.name()) == dir);
        let done = partly.map_or(ops.len(), |rng| rng.below(ops.len() + 1));
        // In order: what remains to be done must not be undone by what was done later.
        for op in ops.drain(..done) {
            op.apply(&mut self.durable_names);
        }
        self.dir_ops = others;
        self.dir_ops.extend(ops);
    }

    pub(super) fn store(&mut self, inode: u64, offset: usize, bytes: &[u8], partly: Partly, how: Tear) {
        let unit = self.unit;
        let inode = self.inode_mut(inode);
        match partly {
            None => inode.store(offset, bytes, unit),
            Some(rng) => {
                for range in tear(rng, bytes.len(), how) {
                    inode.store(offset + range.start, &bytes[range], unit);
                }
            }
        }
    }

    /// Cutting and extending are atomic, even if interrupted.
    pub(super) fn set_len(&mut self, inode: u64, len: usize) {
        let unit = self.unit;
        self.inode_mut(inode).set_len(len, unit);
    }

    pub(super) fn allocate(&mut self, inode: u64, len: usize, partly: Partly) {
        let unit = self.unit;
        let inode = self.inode_mut(inode);
        let len = match partly {
            Some(rng) if len > inode.data.len() => {
                let old = inode.data.len();
                let blocks = rng.below((len - old) / BLOCK + 1);
                old.max((old / BLOCK + blocks) * BLOCK)
            }
            _ => len,
        };
        inode.allocate(len, unit);
    }

    pub(super) fn sync(&mut self, inode: u64, partly: Partly) {
        let unit = self.unit;
        match partly {
            None => self.inode_mut(inode).sync(unit),
            Some(rng) => self.inode_mut(inode).sync_partly(unit, rng),
        }
    }

    pub(super) fn sync_failed(&mut self, inode: u64, rng: &mut Rng) {
        let unit = self.unit;
        self.inode_mut(inode).sync_failed(unit, rng);
    }

    /// Puts a file there as if it had always been: durable, content and name.
    pub(super) fn put_file(&mut self, name: &str, bytes: &[u8]) {
        self.dir_ops.retain(|op| match op {
            DirOp::Create(a, _) | DirOp::Remove(a, _) => a != name,
            DirOp::Rename(a, b, _) => a != name && b != name,
        });
        let data = Arc::new(bytes.to_vec());
        let reserved = data.len().next_multiple_of(BLOCK);
        let file = Inode { durable: Arc::clone(&data), durable_len: data.len(), data, reserved, ..Inode::default() };
        self.inodes.insert(self.next_inode, file);
        self.names.insert(name.into(), self.next_inode);
        self.durable_names.insert(name.into(), self.next_inode);
        self.next_inode += 1;
    }

    /// Rots one byte, in the page cache and on the disk.
    pub(super) fn corrupt(&mut self, inode: u64, offset: usize, xor: u8) {
        let inode = self.inode_mut(inode);
        for bytes in [&mut inode.data, &mut inode.durable] {
            if let Some(byte) = Arc::make_mut(bytes).get_mut(offset) {
                *byte ^= xor;
            }
        }
    }

    /// Forgets files that have no name, neither now nor possibly after a power cut, and that are not `open`.
    pub(super) fn collect(&mut self, open: impl Fn(u64) -> bool) {
        let named: BTreeSet<u64> = self.names.values().chain(self.durable_names.values()).copied().collect();
        let pending = |id: u64| {
            self.dir_ops.iter().any(|op| match op {
                DirOp::Create(_, inode) | DirOp::Rename(_, _, inode) | DirOp::Remove(_, inode) => *inode == id,
            })
        };
        self.inodes.retain(|id, _| named.contains(id) || open(*id) || pending(*id));
    }

    /// All processes are gone, and the page cache lives on; some time passes.
    pub(super) fn settle(&mut self, rng: &mut Rng) {
        self.collect(|_| false);
        for inode in self.inodes.values_mut() {
            inode.evict(self.unit, rng);
        }
    }

    pub(super) fn power_cut(&mut self, rng: &mut Rng, fate: Unsynced) {
        self.cut_names(rng, fate);
        self.collect(|_| false);
        for inode in self.inodes.values_mut() {
            inode.power_cut(self.unit, rng, fate);
        }
    }

    fn cut_names(&mut self, rng: &mut Rng, fate: Unsynced) {
        let ops = std::mem::take(&mut self.dir_ops);
        let bias = rng.below(4);
        let prefix = rng.below(ops.len() + 1);
        for (i, op) in ops.iter().enumerate() {
            let happened = match (fate, bias) {
                (Unsynced::Lost, _) | (Unsynced::Mixed, 0) => false,
                (Unsynced::Kept, _) | (Unsynced::Mixed, 1) => true,
                (Unsynced::Mixed, 2) => i < prefix,
                (Unsynced::Mixed, _) => rng.coin(),
            };
            if !happened {
                continue;
            }
            let old = match op {
                DirOp::Rename(from, _, inode) if self.durable_names.get(from) == Some(inode) => Some((from, *inode)),
                _ => None,
            };
            op.apply(&mut self.durable_names);
            // Two entries changed, and only the new one may have got to the disk.
            if let Some((from, inode)) = old
                && fate == Unsynced::Mixed
                && bias == 3
                && rng.coin()
            {
                self.durable_names.insert(from.clone(), inode);
            }
        }
        self.names = self.durable_names.clone();
    }
}
